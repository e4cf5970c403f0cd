"""A bundle as the page needs it: bundle.json, the ONNX file, examples."""

from __future__ import annotations

import json
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
ROLES = {"label", "image", "noise", "style_image"}


@dataclass(frozen=True)
class Bundle:
    """A folder that the page can be made of."""

    folder: Path
    facts: Mapping[str, Any]
    """The content of bundle.json."""

    @property
    def name(self) -> str:
        """What the network is called."""
        return str(self.facts["name"])

    def files(self) -> Iterator[PurePosixPath]:
        """The files of the page, relative to the folder: bundle.json, the network, examples, credits."""
        found = [FACTS, self.facts["files"]["onnx"]["path"]]
        for sample in self.facts["samples"]:
            inputs = sample.get("inputs", {}).values()
            found += [path for path in (sample["input"], *inputs, sample.get("style"), sample["output"]) if path]
        found += [CREDITS] if (self.folder / CREDITS).is_file() else []
        yield from map(PurePosixPath, dict.fromkeys(found))


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
    except (KeyError, TypeError) as error:
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
    roles = [each["role"] for each in inputs]
    parts = [part for each in inputs if each["role"] == "label" for part in each["parts"]]
    unknown = [
        f"input {each['name']} ({each['role']}{', 16 bits' if 'divisor' in each else ''})"
        for each in inputs
        if each["role"] not in ROLES or "divisor" in each
    ]
    unknown += [
        f"{part['type']} ({part['kind']}, {part['channels']} channels)" for part in parts if not _is_shown(part)
    ]
    if sum(role in ("label", "image") for role in roles) != 1:
        unknown = unknown or ["not exactly one label or image"]
    if unknown:
        raise UserError(
            f"the page cannot offer {', '.join(unknown)}",
            where=where,
            advice=f"imagier demo {where.parent} --gradio can",
            code="no-such-input",
        )


def _is_shown(part: Mapping[str, Any]) -> bool:
    is_image = part["kind"] == "image" and part["channels"] in (1, 3) and "divisor" not in part
    return part["kind"] == "classes" or is_image


def _check_files(bundle: Bundle) -> None:
    for name in bundle.files():
        path = bundle.folder / name
        if not path.resolve().is_relative_to(bundle.folder.resolve()):  # a bundle may come from anybody
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
