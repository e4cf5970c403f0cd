"""`imagier data build`: packs a folder of files, or another store, into one LMDB or tar shards; finds optical flow, and
reads points from pickles."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagier.cli.arguments import add_device, parse_positive, parse_writable_folder
from imagier.cli.data.files import add_files, list_unused_flags, read_extensions, read_keys, read_roots
from imagier.run.progress import show_progress

if TYPE_CHECKING:
    import torch

    from imagier.tools.flow.raft import RaftFlow
    from imagier.tools.stores.engine import Writer
    from imagier.tools.stores.plan import Plan

_WHAT = {
    "lmdb": "pack many files into one LMDB",
    "shards": "pack many files into tar shards",
    "flow": "find the optical flow of videos, once",
    "unprojections": "turn the reference's pickles of points into images, once",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of each kind of build; of stores all flags of the reference's scripts/build_lmdb.py, and ours."""
    commands = parser.add_subparsers(dest="store", required=True, metavar="WHAT")
    for name, text in _WHAT.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        {"flow": _add_flow, "unprojections": _add_unprojections}.get(name, _add_store)(sub)


def _add_store(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_files(parser, or_a_store=True)
    add("--output_root", type=parse_writable_folder, required=True, metavar="DIR", help="the store to make")
    add("--overwrite", action="store_true", help="replace an existing store, once the new one is finished")
    add("--shard_mb", type=parse_positive, default=256, metavar="MB", help="approximate size of a shard (default 256)")
    add("--workers", type=parse_positive, default=8, metavar="N", help="threads that read (default 8)")
    add("--metadata_factor", type=float, help="accepted, without effect: an LMDB grows as needed")
    add("--large", action="store_true", help="accepted, without effect")


def _add_flow(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        type=Path,
        metavar="CONFIG_OR_FOLDER",
        help="a folder images/<sequence>/..., or a YAML with such roots",
    )
    what = "dis (default), raft: from the images; exact: from depth, cameras"
    add("--estimator", choices=("dis", "raft", "exact"), default="dis", help=what)
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of raft, such as raft-things.pth (default: that, in torch's cache)",
    )
    add_device(parser)
    add("--workers", type=parse_positive, metavar="N", help="sequences at once (default: one per core)")


def _add_unprojections(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "a folder unprojections/<sequence>/<frame>.pkl or a store, or a YAML with such roots"
    add("source", type=Path, metavar="CONFIG_OR_FOLDER", help=what)
    where = "where the images go (default: beside the pickles)"
    add("--output_root", type=parse_writable_folder, metavar="DIR", help=where)
    add("--resolution", metavar="NAME", help="which of the pickles, such as w1024xh512 (default: the largest)")


def run(args: argparse.Namespace) -> int:
    """Builds what was asked for; returns the exit status. UserError if it cannot be made."""
    return {"flow": _run_flow, "unprojections": _run_unprojections}.get(args.store, _run_store)(args)


def _run_unprojections(args: argparse.Namespace) -> int:
    from imagier.errors import UserError
    from imagier.tools.unprojections import build_unprojections

    start = time.perf_counter()
    roots = [args.source] if args.source.is_dir() else read_roots(args.source)[0]
    if args.output_root and len(roots) > 1:
        what, where = f"is one folder, but there are {len(roots)} roots", f"--output_root {args.output_root}"
        raise UserError(what, where=where, advice="call it for one root at a time", code="several-roots")
    for root in roots:
        made = build_unprojections(root, args.output_root, resolution=args.resolution, progress=show_progress)
        before = f", {made.known:,} of them before" if made.known else ""
        print(f"{root}: {made.frames:,} frames of {made.resolution}{before}, in {time.perf_counter() - start:.1f} s")
    return 0


def _run_flow(args: argparse.Namespace) -> int:
    from imagier.run.options import RunOptions
    from imagier.run.process import open_runtime
    from imagier.run.workers import count_cores
    from imagier.tools.flow.build import build_flow

    start = time.perf_counter()
    roots, images, extensions = [args.source], "images", None
    if not args.source.is_dir():
        roots, images = read_roots(args.source)
        extensions = read_extensions(args.source)
    with open_runtime(RunOptions(device=args.device, single_process=True)) as runtime:
        estimator = _choose_estimator(args, runtime.device)
        for root in roots:
            made = build_flow(
                root,
                estimator,
                images=images,
                extensions=extensions,
                workers=args.workers or count_cores(),
                progress=show_progress,
            )
            before = f", {made.known:,} of them before" if made.known else ""
            frames = f"flow of {made.frames:,} frames in {made.sequences:,} sequences{before}"
            print(f"{root}: {frames}, in {time.perf_counter() - start:.1f} s")
    return 0


def _choose_estimator(args: argparse.Namespace, device: torch.device) -> Literal["dis", "exact"] | RaftFlow:
    """UserError if the weights of RAFT are not there, or not needed."""
    from imagier.errors import UserError
    from imagier.tools.flow.raft import RaftFlow

    if args.estimator != "raft" and args.weights is not None:
        what, where = f"has no effect on {args.estimator}", f"--weights {args.weights}"
        raise UserError(what, where=where, advice="add --estimator raft", code="has-no-effect")
    if args.estimator != "raft":
        return args.estimator
    raft = RaftFlow(args.weights, device)
    print(f"RAFT on {device}, with weights of SHA-256 {raft.sha256}")
    return raft


def _run_store(args: argparse.Namespace) -> int:
    from imagier.data.sources.index import PEOPLE
    from imagier.data.sources.opening import open_local
    from imagier.errors import UserError
    from imagier.tools.stores.engine import build
    from imagier.tools.stores.plan import make_plan

    if args.data_root.resolve().is_relative_to(args.output_root.resolve()):
        where = f"--output_root {args.output_root}"
        raise UserError("holds the files to be read", where=where, advice="build elsewhere", code="source-in-output")
    for line in _list_unused_flags(args):
        print(line)
    extensions = read_extensions(args.config)
    start = time.perf_counter()
    source = open_local(args.data_root, extensions)
    listed = read_keys(args.input_list, extensions) if args.input_list else None
    planned = make_plan(source, list(extensions), paired=args.paired, remove_missing=args.remove_missing, only=listed)
    indices = args.data_root / PEOPLE
    built = build(
        source,
        planned,
        args.output_root,
        _choose_writer(args),
        settings=str(args.data_root.resolve()),
        beside=[indices] if indices.is_file() else [],
        overwrite=args.overwrite,
        workers=args.workers,
        progress=show_progress,
    )
    counts = ", ".join(
        f"{len(keys):,} {input_type} ({planned.extensions[input_type]})" for input_type, keys in planned.keys.items()
    )
    removed = f"; {planned.removed:,} samples without all files left out" if planned.removed else ""
    before = f", {built.continued_from:,} of them before" if built.continued_from else ""
    size = f"{built.bytes / 1e6:,.1f} MB in {built.files:,} files{before}"
    print(f"{args.output_root}: {counts}{removed}")
    print(f"{size}, all read back and compared, in {time.perf_counter() - start:.1f} s")
    return 0


def _choose_writer(args: argparse.Namespace) -> Callable[[Path, Plan], Writer]:
    from imagier.tools.stores.lmdb_writer import LmdbWriter
    from imagier.tools.stores.shard_writer import ShardWriter

    if args.store == "lmdb":
        return LmdbWriter
    return lambda store, planned: ShardWriter(store, planned, shard_bytes=args.shard_mb * 10**6)


def _list_unused_flags(args: argparse.Namespace) -> list[str]:
    """A line for every flag that has no effect."""
    lines = []
    if args.metadata_factor is not None:
        lines.append("--metadata_factor: has no effect, an LMDB grows as needed")
    if args.large:
        lines.append("--large: has no effect")
    return lines + list_unused_flags(args)
