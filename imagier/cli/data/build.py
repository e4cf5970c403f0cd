"""`imagier data build`: makes one LMDB or tar shards of a folder of files, or of another such store."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagier.cli.arguments import folder, positive, writable_folder
from imagier.tools.progress import progress

if TYPE_CHECKING:
    from imagier.tools.stores.engine import Writer
    from imagier.tools.stores.plan import Plan

_INDICES = "all_indices.json"
"""Numbers of the objects in each file of a video, which some sets have beside their files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags of the reference's scripts/build_lmdb.py, and ours."""
    add = parser.add_argument
    add("store", choices=("lmdb", "shards"), help="what to build")
    add(
        "--data_root",
        type=folder,
        required=True,
        metavar="DIR",
        help="the files: DIR/<type>/<sequence>/<name>.<ext>, or a store",
    )
    add("--config", type=Path, required=True, help="its data.input_types says which types there are")
    add("--output_root", type=writable_folder, required=True, metavar="DIR", help="the store to make")
    add("--paired", action="store_true", help="every sample has a file of each type")
    add(
        "--input_list", metavar="FILE", default="", help="with --paired: the samples to take, a line each, seq/name.jpg"
    )
    add("--remove_missing", action="store_true", help="with --paired: leave out samples that lack a file")
    add("--overwrite", action="store_true", help="replace what is there, once the new store is finished")
    add("--shard_mb", type=positive, default=256, metavar="MB", help="about so large is a shard (default 256)")
    add("--workers", type=positive, default=8, metavar="N", help="threads that read (default 8)")
    add("--metadata_factor", type=float, help="taken, but needed no more: an LMDB grows as it has to")
    add("--large", action="store_true", help="taken, but needed no more")


def run(args: argparse.Namespace) -> int:
    """Builds the store; returns the exit status. UserError if it cannot be made."""
    from imagier.data.sources.opening import open_local
    from imagier.errors import UserError
    from imagier.tools.stores.engine import build
    from imagier.tools.stores.plan import plan

    if args.data_root.resolve().is_relative_to(args.output_root.resolve()):
        raise UserError(f"--output_root {args.output_root}: holds the files to be read", advice="build elsewhere")
    for line in _without_effect(args):
        print(line)
    kinds = extensions_of(args.config)
    start = time.perf_counter()
    source = open_local(args.data_root, kinds)
    listed = listed_keys(args.input_list, kinds) if args.input_list else None
    planned = plan(source, list(kinds), paired=args.paired, remove_missing=args.remove_missing, only=listed)
    indices = args.data_root / _INDICES
    built = build(
        source,
        planned,
        args.output_root,
        _writer(args),
        settings=str(args.data_root.resolve()),
        beside=[indices] if indices.is_file() else [],
        overwrite=args.overwrite,
        workers=args.workers,
        progress=progress,
    )
    counts = ", ".join(f"{len(keys):,} {kind} ({planned.extensions[kind]})" for kind, keys in planned.keys.items())
    removed = f"; {planned.removed:,} samples left out, which lack a file" if planned.removed else ""
    before = f", {built.continued_from:,} of them before" if built.continued_from else ""
    size = f"{built.bytes / 1e6:,.1f} MB in {built.files:,} files{before}"
    print(f"{args.output_root}: {counts}{removed}")
    print(f"{size}, all read back and compared, in {time.perf_counter() - start:.1f} s")
    return 0


def _writer(args: argparse.Namespace) -> Callable[[Path, Plan], Writer]:
    from imagier.tools.stores.lmdb_writer import LmdbWriter
    from imagier.tools.stores.shard_writer import ShardWriter

    if args.store == "lmdb":
        return LmdbWriter
    return lambda store, planned: ShardWriter(store, planned, shard_bytes=args.shard_mb * 10**6)


def _without_effect(args: argparse.Namespace) -> list[str]:
    """A line for every flag that says nothing here."""
    lines = []
    if args.metadata_factor is not None:
        lines.append("--metadata_factor: needed no more, the LMDB grows as it has to")
    if args.large:
        lines.append("--large: needed no more")
    return lines + without_pairs(args)


def without_pairs(args: argparse.Namespace) -> list[str]:
    """A line for every flag that says nothing without --paired."""
    if args.paired:
        return []
    given = {"--input_list": args.input_list, "--remove_missing": args.remove_missing}
    return [f"{flag}: has no effect without --paired" for flag, value in given.items() if value]


def extensions_of(config: Path) -> dict[str, str]:
    """The extension of every type that is read from files, from data.input_types: nothing else of the config counts."""
    from imagier.config.load import load
    from imagier.errors import UserError

    document = load(config)
    entries = document.get(("data", "input_types"))
    extensions: dict[str, str] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        for name, options in entry.items() if isinstance(entry, dict) else []:
            known: dict[str, Any] = options if isinstance(options, dict) else {}
            if known.get("computed_on_the_fly"):
                continue
            if not isinstance(known.get("ext"), str):
                where = document.origin(("data", "input_types", index, name))
                raise UserError(
                    "needs ext, the extension of its files",
                    where=f"{where}: data.input_types.{name}",
                    code="missing-ext",
                )
            extensions[name] = known["ext"]
    if not extensions:
        where = document.origin(("data", "input_types"))
        raise UserError(
            "names no type of files",
            where=f"{where}: data.input_types",
            advice="list them as '- images: {ext: jpg}'",
            code="no-input-types",
        )
    return extensions


def listed_keys(path: str, kinds: dict[str, str]) -> list[str]:
    """The keys of a list of files."""
    from imagier.errors import UserError

    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file (UTF-8)"
        raise UserError(f"--input_list {path}: {reason}") from error
    extensions = (".jpg", f".{next(iter(kinds.values()))}")  # the reference's lists always say jpg
    names = [line.strip() for line in lines if line.strip()]
    keys = [name.removesuffix(next(filter(name.endswith, extensions), "")) for name in names]
    return [key if "/" in key else f"./{key}" for key in keys]
