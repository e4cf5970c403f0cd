"""The folder of a data set that a command makes: it is complete or not there, and kept if it is what was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from imagier.errors import UserError


def is_taken(out: Path) -> bool:
    """Whether writing a set to `out` would overwrite anything."""
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def write_manifest(made: Path, name: str, manifest: Mapping[str, Any], credit: str) -> None:
    """Writes down what is in a folder, with which settings it was made (JSON), and who made what is seen."""
    (made / "CREDITS.txt").write_text(credit, encoding="utf-8")
    (made / name).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(out: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the set in `out`. UserError if it is not such a set or was made with other settings."""
    advice = "choose another --out"
    try:
        manifest = dict(json.loads((out / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        what = f"exists, but is not such a data set (no {name}, or a damaged one)"
        raise UserError(what, where=out, advice=advice, code="other-data") from error
    for key, wanted in settings.items():
        if manifest.get(key) != wanted:
            what = f"was made with {key} {manifest.get(key)}, not {wanted}"
            raise UserError(what, where=out, advice=advice, code="other-settings")
    return manifest


def check_counts(out: Path, counts: Mapping[str, int]) -> None:
    """UserError if a folder in `out` does not hold as many images as in `counts` (by path in `out`)."""
    for folder, count in counts.items():
        found = sum(1 for _ in (out / folder).rglob("*.png"))
        if found != count:
            raise UserError(
                f"has {found} images instead of {count}",
                where=out / folder,
                advice=f"delete {out} and run again",
                code="incomplete-set",
            )


def encode_png(image: np.ndarray) -> bytes:
    """H x W or H x W x 3 (BGR), uint8 or uint16 -> the bytes of a PNG file."""
    done, png = cv2.imencode(".png", image)
    assert done
    return png.tobytes()
