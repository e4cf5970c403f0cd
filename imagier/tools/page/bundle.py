"""A bundle as the page needs it: bundle.json, the ONNX file, examples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from imagier.errors import UserError, suggest_sibling

FACTS = "bundle.json"
CREDITS = "CREDITS.txt"
"""Whose data a network was trained on, which many licenses ask to say."""
VERSION = 1
ZOO = Path(__file__).with_name("zoo")
"""Bundles that come with Imagier; scripts/make_zoo.py makes them."""
CHANNELS = {"image": (1, 3), "style_image": (3,)}
"""How many channels images may have on the page."""


@dataclass(frozen=True)
class Bundle:
    """A folder that the page can be made of."""

    folder: Path
    facts: Mapping[str, Any]
    """The content of bundle.json."""

    def files(self) -> Iterator[PurePosixPath]:
        """The files of the page, relative to the folder: bundle.json, the network, examples, credits."""
        found = [FACTS, self.facts["files"]["onnx"]["path"]]
        for sample in self.facts["samples"]:
            inputs = sample.get("inputs", {}).values()
            found += [path for path in (sample["input"], *inputs, sample.get("style"), sample["output"]) if path]
        found += [CREDITS] if (self.folder / CREDITS).is_file() else []
        yield from map(PurePosixPath, dict.fromkeys(found))

    def copy_files(self, target: Path) -> None:
        """Copies them into a folder."""
        for name in self.files():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, target / name)


def list_zoo() -> list[str]:
    """The names of the bundles that come with Imagier."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{FACTS}"))


def find_bundle(folder: Path) -> Path:
    """A folder as it is, or if there is none of that name, the one of the zoo that is called so."""
    return ZOO / folder if str(folder) in list_zoo() and not folder.exists() else folder


def read_bundle(folder: Path) -> Bundle:
    """Reads and checks a bundle, or one of the zoo by its name, if there is no such folder.

    UserError if it is none, is incomplete, or has inputs that the page cannot offer.
    """
    folder = find_bundle(folder)
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _not_a_bundle(folder) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", where=path, advice="export again", code="broken-bundle") from error
    if not isinstance(facts, dict) or facts.get("imagier_bundle") != VERSION:
        version = facts.get("imagier_bundle") if isinstance(facts, dict) else None
        raise UserError(
            f"imagier_bundle is {version}, but this Imagier reads version {VERSION}",
            where=path,
            advice="export again",
            code="bundle-version",
        )
    bundle = Bundle(folder, facts)
    try:
        _check_inputs(facts["inputs"], path)
        _check_files(bundle)
    except (AttributeError, LookupError, TypeError) as error:
        raise UserError(
            f"lacks a part of what a bundle says: {error}", where=path, advice="export again", code="broken-bundle"
        ) from error
    return bundle


def _not_a_bundle(folder: Path) -> UserError:
    advice = f"make one of a run: imagier export LOGDIR --out {folder}"
    is_run = folder.is_dir() and any((folder / name).exists() for name in ("checkpoints.json", "metrics.jsonl"))
    if is_run or folder.is_file():
        advice = f"make one: imagier export {folder} --out bundle; or use it as it is: imagier demo {folder} --gradio"
    elif not folder.exists():
        advice = suggest_sibling(folder) or f"{advice}; or try one that is here: {', '.join(list_zoo())}"
    what = f"has no {FACTS}, so it is no bundle" if folder.is_dir() else "is no folder, so it is no bundle"
    return UserError(what, where=folder, advice=advice, code="no-bundle")


def _check_inputs(inputs: list[dict[str, Any]], where: Path) -> None:
    unknown = [text for each in inputs for text in _list_unknown(each)]
    if sum(each["role"] in ("label", "image") for each in inputs) != 1:
        unknown = unknown or ["not exactly one label or image"]
    if unknown:
        raise UserError(
            f"the page cannot offer {', '.join(unknown)}",
            where=where,
            advice=f"imagier demo {where.parent} --gradio can",
            code="no-such-input",
        )


def _list_unknown(given: Mapping[str, Any]) -> list[str]:
    """What the page cannot offer of an input, in words."""
    role = given["role"]
    if role == "label":
        return [f"{part['type']} ({_describe(part)})" for part in given["parts"] if not _is_shown(part)]
    if role == "noise" or role not in CHANNELS:
        return [] if role == "noise" else [f"input {given['name']} ({role})"]
    part = {"kind": role, "channels": given["shape"][1], **given}
    return [] if _is_shown(part) else [f"input {given['name']} ({_describe(part)})"]


def _is_shown(part: Mapping[str, Any]) -> bool:
    return part["kind"] == "classes" or (part["channels"] in CHANNELS.get(part["kind"], ()) and "divisor" not in part)


def _describe(part: Mapping[str, Any]) -> str:
    count = part["channels"]
    return f"{part['kind']}, {count} channel{'s'[: count != 1]}{', 16 bits' if 'divisor' in part else ''}"


def _check_files(bundle: Bundle) -> None:
    if "onnx" not in bundle.facts["files"]:
        raise UserError(
            "has no ONNX file, which a browser runs",
            where=bundle.folder,
            advice="export again, with onnx among the formats",
            code="no-onnx",
        )
    for name in bundle.files():
        path = bundle.folder / name
        is_inside = ".." not in name.parts and path.resolve().is_relative_to(bundle.folder.resolve())
        if not is_inside:  # a bundle may come from anybody
            raise UserError(
                f"names {name}, which is outside the bundle", where=bundle.folder / FACTS, code="broken-bundle"
            )
        if not path.is_file():
            raise UserError(
                f"{name} is missing, which {FACTS} names",
                where=bundle.folder,
                advice="export again, with onnx among the formats",
                code="broken-bundle",
            )
