"""`imagier metrics`: how far generated images are from real ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from imagier.cli.arguments import add_device, parse_positive, parse_seed, parse_writable_file
from imagier.cli.tables import print_table
from imagier.errors import UserError
from imagier.run import status

DEFAULT = "fd,kd,prdc"
OPTIONS = ("k", "num_subsets", "subset_size", "num_splits", "num_projections", "classes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    sets = "a folder of images or videos, shards, an LMDB, or an .npy of N x D features"
    add("real", type=Path, metavar="REAL", nargs="?", help=f"the real images: {sets}")
    add("fake", type=Path, metavar="FAKE", nargs="?", help="the generated images: the same")
    compare = "put two cards into one table, or say why they are not comparable"
    add("--compare", nargs=2, type=Path, metavar="CARD", help=compare)
    add("--metrics", default=DEFAULT, metavar="A,B", help="types of metrics (default %(default)s)")
    features = "the network that makes features, or module:name of your own (default: each metric has its own)"
    add("--features", metavar="NAME", help=features)
    add("--weights", metavar="FILE", help="the weight file of that network (default: its file in torch's cache)")
    add("--k", type=parse_positive, metavar="K", help="prdc: balls reach to the K-th neighbor (default 5)")
    add(
        "--num_subsets", type=parse_positive, metavar="N", help="kd: the mean over N random subsets (default: all rows)"
    )
    add("--subset_size", type=parse_positive, metavar="N", help="kd: images in each of them (default 1000)")
    add("--num_splits", type=parse_positive, metavar="N", help="inception_score: parts of the set (default 10)")
    add("--num_projections", type=parse_positive, metavar="N", help="mind: random lines (default 1000)")
    classes = "mode_coverage: by the folder of an image, or by the network (default labels)"
    add("--classes", choices=("labels", "logits"), help=classes)
    flow = "warp_error: the exact flow of the real clips, such as mine/val/flow (default: found by DIS)"
    add("--flow", type=Path, metavar="DIR", help=flow)
    points = "consistency: the points of the world that the real clips show, such as mine/val/unprojections"
    add("--unprojections", type=Path, metavar="DIR", help=points)
    cell = "consistency: side of the cells that count as one point, in the unit of the coordinates (default 1)"
    add("--cell", type=parse_positive, metavar="N", help=cell)
    input_type = "of shards and LMDBs: the type of the images (default %(default)s)"
    add("--input_type", default="images", metavar="NAME", help=input_type)
    seed = "draws subsets, lines, and the images of the floor (default %(default)s)"
    add("--seed", type=parse_seed, default=0, help=seed)
    out = "where the card goes (default %(default)s)"
    add("--out", type=parse_writable_file, default="card.json", metavar="FILE", help=out)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a table and writes the card; returns the exit status."""
    if not args.compare:
        return _measure(args)
    for name in ("flow", "unprojections", "cell"):
        if getattr(args, name) is not None:
            raise UserError("cards are compared as they are", where=name, advice="leave it out", code="unused-flag")
    return _compare(*args.compare)


def _measure(args: argparse.Namespace) -> int:
    from imagier.run.known_frames import INPUT_TYPES, KnownFrames
    from imagier.run.options import RunOptions
    from imagier.run.process import open_runtime
    from imagier.run.progress import show_progress
    from imagier.tools import metrics as tool

    if args.real is None or args.fake is None:
        raise UserError("two sets are needed", advice="imagier metrics REAL FAKE", code="missing-sets")
    options: dict[str, Any] = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    folders = {name: getattr(args, name) for name in INPUT_TYPES if getattr(args, name) is not None}
    if args.cell is not None and "unprojections" not in folders:
        raise UserError("there are no points", where="cell", advice="give --unprojections, too", code="unused-flag")
    known = KnownFrames(folders, args.cell or 1) if folders else None
    names = [name.strip() for name in args.metrics.split(",") if name.strip()]
    metrics = tool.build_metrics(names, args.features, options | {"seed": args.seed}, folders)
    with open_runtime(RunOptions(device=args.device, single_process=True, owns_process=True)) as runtime:
        how = tool.Measurement(metrics, runtime.device, show_progress, args.input_type, args.weights, args.seed, known)
        card = how.measure(args.real, args.fake)
    card.write(Path(args.out))
    print_table(tool.format_card(card))
    drawn, real = card.floor_sizes
    floor = f"floor: {drawn:,} real against {real:,} other real; " if drawn else ""
    print(
        f"{card.protocol['num_fake']:,} generated against {card.protocol['num_real']:,} real; "
        f"{floor}protocol {card.protocol_hash}"
    )
    for warning in card.warnings:
        print(f"warning: {warning}")
    print(f"card: {args.out}")
    return status.DONE


def _compare(first: Path, second: Path) -> int:
    from imagier.tools.metrics import format_card, list_differences

    one, other, differences = list_differences(first, second)
    if differences:
        print(f"not comparable: {first} and {second} differ in")
        print_table([["", str(first), str(second)], *map(list, differences)])
        return status.USER_ERROR
    print(f"comparable: both of protocol {one.protocol_hash}")
    values = {name: value for name, value, *_ in format_card(other)[1:]}
    rows = [[name, value, values.get(name, "-"), better] for name, value, *_, better in format_card(one)[1:]]
    print_table([["", str(first), str(second), "better"], *rows])
    return status.DONE
