"""Data sets of recorded videos: what was recorded, now or before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagier.tools.demo.set_folder import check_counts, read_manifest


@dataclass(frozen=True)
class Summary:
    """What has been recorded."""

    frames: dict[str, int]
    """By split."""
    is_reused: bool


def reuse(out: Path, manifest: str, settings: Mapping[str, object], input_types: Sequence[str]) -> Summary:
    """What is in `out`. UserError if it was made with other settings, is something else, or lacks frames.

    manifest: the name of the file that tells the settings, and `frames`.
    """
    frames = read_manifest(out, manifest, settings)["frames"]
    check_counts(out, {f"{split}/{name}": count for split, count in frames.items() for name in input_types})
    return Summary(frames, is_reused=True)
