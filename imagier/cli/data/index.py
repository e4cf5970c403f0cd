"""`imagier data index`: lists the files of a folder that will be read from an object store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from imagier.cli.arguments import parse_writable_folder
from imagier.cli.data.files import add_files, list_unused_flags, read_extensions, read_keys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags of the reference's scripts/build_index.py."""
    add = parser.add_argument
    add_files(parser)
    add(
        "--output_root",
        metavar="DIR",
        type=_parse_optional_folder,
        help="where to write the lists (default: data_root, to be uploaded with it)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes all_filenames.json and metadata.json; returns the exit status. UserError if files are missing."""
    from imagier.data.sources.folder import FolderSource
    from imagier.data.sources.index import dump_index
    from imagier.errors import UserError
    from imagier.tools.stores.plan import make_plan
    from imagier.train.disk import write_atomic

    out = args.output_root or args.data_root
    for line in list_unused_flags(args):
        print(line)
    extensions = read_extensions(args.config)
    only = read_keys(args.input_list, extensions) if args.input_list and args.paired else None
    source = FolderSource(args.data_root, extensions, is_literal=True)  # the lists have one extension for each type
    planned = make_plan(source, list(extensions), paired=args.paired, remove_missing=args.remove_missing, only=only)
    sequences: dict[str, Any] = {input_type: planned.group_sequences(input_type) for input_type in extensions}
    base = args.data_root.resolve().name
    if args.paired:  # as the reference: with the name of the folder, behind which it puts the type
        of_all = next(iter(sequences.values()))
        sequences = {base if name == "." else f"{base}/{name}": names for name, names in of_all.items()}
    try:
        for name, text in reversed(dump_index(sequences, extensions).items()):
            with write_atomic(out / name) as file:
                file.write(text.encode())
    except OSError as error:
        advice = "name another folder with --output_root"
        raise UserError(str(error.strerror), where=out, advice=advice, code="unwritable-folder") from error
    counts = ", ".join(
        f"{len(keys):,} {input_type} ({extensions[input_type]})" for input_type, keys in planned.keys.items()
    )
    removed = f"; {planned.removed:,} samples without all files left out" if planned.removed else ""
    print(f"{out}: {counts}{removed}")
    if args.paired:
        print(f"upload the files as BUCKET/.../{base}/<type>/...: the lists contain the name {base}")
    return 0


def _parse_optional_folder(text: str) -> Path | None:
    return parse_writable_folder(text) if text else None
