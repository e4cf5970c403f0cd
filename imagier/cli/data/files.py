"""What the commands that read a folder of files have in common: its flags, its input types, a list of samples."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from imagier.cli.arguments import parse_folder


def add_files(parser: argparse.ArgumentParser, *, or_a_store: bool = False) -> None:
    """Adds the flags that say which files of a folder are read. or_a_store: it may be a store, too."""
    add = parser.add_argument
    files = "the files: DIR/<type>/<sequence>/<name>.<ext>" + (", or a store" if or_a_store else "")
    add("--data_root", type=parse_folder, required=True, metavar="DIR", help=files)
    add("--config", type=Path, required=True, help="its data.input_types lists the types")
    add("--paired", action="store_true", help="every sample has a file of each type")
    add(
        "--input_list",
        metavar="FILE",
        default="",
        help="with --paired: a list of the samples to take, one seq/name.jpg per line",
    )
    add("--remove_missing", action="store_true", help="with --paired: leave out samples that lack a file")


def list_unused_flags(args: argparse.Namespace) -> list[str]:
    """A line for every flag that has no effect without --paired."""
    if args.paired:
        return []
    given = {"--input_list": args.input_list, "--remove_missing": args.remove_missing}
    return [f"{flag}: has no effect without --paired" for flag, value in given.items() if value]


def read_extensions(config: Path) -> dict[str, str]:
    """The extensions of all types that are read from files, from data.input_types, and nothing else of the config."""
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


def read_roots(config: Path) -> tuple[list[Path], str]:
    """The folders of all splits, also of test_data, and the first type of input_image. UserError if there are none."""
    from imagier.config.load import load
    from imagier.config.own_keys import SECTIONS, SPLITS
    from imagier.errors import UserError

    document = load(config)
    roots: list[Path] = []
    for section, split in product(SECTIONS, SPLITS):
        listed = document.get((section, split, "roots"))
        listed = [listed] if isinstance(listed, str) else listed  # as the reference's configs have it
        roots += [Path(root) for root in listed if isinstance(root, str)] if isinstance(listed, list) else []
    if not roots:
        raise UserError("names no roots of a split", where=f"{config}: data", advice="add them", code="no-roots")
    images = document.get(("data", "input_image"))
    return list(dict.fromkeys(roots)), images[0] if isinstance(images, list) and images else "images"


def read_keys(path: str, extensions: dict[str, str]) -> list[str]:
    """The keys in a list of files."""
    from imagier.errors import UserError

    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # a byte order mark is none of a name
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error.strerror) if isinstance(error, OSError) else "it is not a text file (UTF-8)"
        raise UserError(reason, where=f"--input_list {path}", code="unreadable-list") from error
    suffixes = (".jpg", f".{next(iter(extensions.values()))}")  # the reference's lists always say jpg
    names = [line.strip() for line in lines if line.strip()]
    keys = [name.removesuffix(next(filter(name.endswith, suffixes), "")) for name in names]
    return [key if "/" in key else f"./{key}" for key in keys]
