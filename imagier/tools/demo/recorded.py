"""Data sets of recorded videos: what is in a folder that holds one already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagier.errors import UserError


@dataclass(frozen=True)
class Summary:
    """What has been recorded."""

    frames: dict[str, int]
    """By split."""
    is_reused: bool


def reuse(out: Path, manifest: str, settings: Mapping[str, object]) -> Summary:
    """What is in `out`. UserError if it was made with other settings, or is something else.

    manifest: the name of the file that tells both: settings, and `frames`.
    """
    path = out / manifest
    if not path.is_file():
        what = f"exists, but is not such a data set (no {manifest})"
        raise UserError(what, where=out, advice="choose another --out", code="other-data")
    about = json.loads(path.read_text(encoding="utf-8"))
    for key, wanted in settings.items():
        if about.get(key) != wanted:
            what = f"was made with {key} {about.get(key)}, not {wanted}"
            raise UserError(what, where=out, advice="choose another --out", code="other-settings")
    return Summary(about["frames"], is_reused=True)
