"""Images of the training: the same inputs each time, the targets, and the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.recipe import Batch
from imagier.train.disk import write_atomic
from imagier.train.hooks.log import Sink
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View, collect_averages

FOLDER = "images"
TAG = "Visualizations"
"""The reference's name of the images, where they are shown over the iterations."""
JPEG_QUALITY = 90

_COMMENT = b"\xff\xfe"
_COMMENT_WITHIN = 2**16
"""Bytes of a file that hold the comment."""


class Images:
    """Writes <logdir>/images/epoch_..._iteration_....jpg, one row per sample, and now and then images/current.jpg."""

    def __init__(
        self,
        logdir: Path,
        batch: Batch,
        view: View,
        sinks: Sequence[Sink],
        *,
        every: Sequence[int],
        display_every: int,
        seed: int,
    ) -> None:
        """batch: the samples to show. every: periods in iterations; an image is made at each of them."""
        self.folder = logdir / FOLDER
        self.batch = batch
        self.view = view
        self.sinks = sinks
        self.every = every
        self.display_every = display_every
        self.seed = seed

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        # At the end of an epoch, the number of that epoch: the reference showed an image before it counted on.
        has_just_ended = progress.epoch_ended and progress.position.samples == 0
        name = f"epoch_{progress.epoch - has_just_ended:05d}_iteration_{progress.step:09d}.jpg"
        finished = progress.outcome is Outcome.DONE
        if finished or any(progress.step % period == 0 for period in self.every):
            trainer.settle()  # a bad iteration must not be shown
            self._save(trainer, progress.step, self.folder / name)
        elif progress.step % self.display_every == 0:
            self._save(trainer, progress.step, self.folder / "current.jpg")

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        """The last step has made the last image."""

    def _save(self, trainer: Trainer, step: int, path: Path) -> None:
        columns = self.columns(trainer)  # on all ranks: batch norms may need statistics over all of them
        if not trainer.runtime.is_main:
            return
        headings = [(name, column.shape[3]) for name, column in columns]
        comment = json.dumps({"step": step, "columns": headings})
        write_image(path, tile_columns([column for _, column in columns]), comment=comment)
        for sink in self.sinks:
            sink.image(path, step)

    def columns(self, trainer: Trainer) -> list[tuple[str, Tensor]]:
        """The columns of the image from left to right: heading, and N x 3 x h x w in [-1, 1]."""
        has_average = trainer.recipe.generator_name in collect_averages(trainer)
        with self.view.use_live_weights(trainer) as recipe:
            batch = recipe.prepare(self.batch)
            target = recipe.target(batch)
            columns = [_mark_target(name, image, target) for name, image in recipe.visualize_inputs(batch).items()]
            made = recipe.visualize_outputs(batch, self._rng(trainer))
            columns += [(_name_result(name, "live" if has_average else ""), image) for name, image in made.items()]
        if has_average:
            with self.view.use_average_weights(trainer) as recipe:
                made = recipe.visualize_outputs(batch, self._rng(trainer))
                columns += [(_name_result(name, "average"), image) for name, image in made.items()]
        return columns

    def _rng(self, trainer: Trainer) -> torch.Generator:
        return trainer.runtime.generator(self.seed)


def _mark_target(name: str, column: Tensor, target: Tensor | None) -> tuple[str, Tensor]:
    """A column of inputs; what the results should be is called real."""
    is_target = target is not None and torch.equal(column, target)
    return (f"{name} (real)" if is_target else name), column


def _name_result(name: str, weights: str) -> str:
    """The heading of a column of results. weights: which ones of the generator made it; empty if it has one kind."""
    name = "generated" if name == "fake" else name
    return f"{name} ({weights})" if weights else name


def tile_columns(columns: Sequence[Tensor]) -> np.ndarray:
    """Columns N x 3 x h x w in [-1, 1] -> N (largest h) x (sum of w) x 3, uint8; padded with black below."""
    height = max(column.shape[2] for column in columns)
    rows = torch.cat([F.pad(x.float(), (0, 0, 0, height - x.shape[2]), value=-1) for x in columns], dim=3)
    return to_uint8(torch.cat(list(rows), dim=1))


def to_uint8(image: Tensor) -> np.ndarray:
    """3 x H x W in [-1, 1] -> H x W x 3, uint8, rounded."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def read_image(path: Path) -> np.ndarray:
    """A file written by `write_image` -> H x W x 3, uint8."""
    image = cv2.imread(str(path))
    assert image is not None, f"{path} was written by this run but cannot be read"
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Grid:
    """What an image of a training shows."""

    path: Path
    step: int
    columns: Sequence[tuple[str, int]]
    """Heading and width in pixels, from left to right; empty for a file of an older version."""


def read_grid(path: Path) -> Grid:
    """What the comment in a file of `Images` says, or else its name (epoch_..._iteration_..., as in older versions)."""
    with path.open("rb") as file:
        comment = read_comment(file.read(_COMMENT_WITHIN))
    try:
        content = json.loads(comment)
        return Grid(path, content["step"], [(name, width) for name, width in content["columns"]])
    except (ValueError, TypeError, KeyError):  # there is none, or another program's
        step = path.stem.rpartition("_")[2]
        return Grid(path, int(step) if step.isdecimal() else -1, ())


def write_image(path: Path, image: np.ndarray, quality: int = JPEG_QUALITY, comment: str = "") -> None:
    """Writes H x W x 3, uint8, in the format of the name's suffix; never half a file. comment: only in a JPEG."""
    data = encode(image, path.suffix, quality)
    with write_atomic(path) as file:
        file.write(add_comment(data, comment) if comment else data)


def add_comment(jpeg: bytes, text: str) -> bytes:
    """The bytes of a JPEG with a comment (ITU-T T.81, B.2.4.5), of ASCII and at most 65,533 characters."""
    at = _find_comment(jpeg)
    return jpeg[:at] + _COMMENT + (len(text) + 2).to_bytes(2, "big") + text.encode("ascii") + jpeg[at:]


def read_comment(jpeg: bytes) -> str:
    """The text that `add_comment` put into a JPEG, or into the first bytes of one; empty if there is none."""
    at = _find_comment(jpeg)
    end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[at + 4 : end].decode("ascii", "replace") if jpeg[at : at + 2] == _COMMENT and len(jpeg) >= end else ""


def _find_comment(jpeg: bytes) -> int:
    """Where a comment stands, or would stand: after the header that says what the file is (APP0), which comes first."""
    return 4 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2


def encode(image: np.ndarray, suffix: str, quality: int = JPEG_QUALITY) -> bytes:
    """H x W x 3, uint8 -> the bytes of a file in the format of the suffix. All but JPEG are lossless."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = {
        ".jpg": [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,  # without it, colors have half the resolution
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],  # lossless
    }
    return cv2.imencode(suffix, bgr, options.get(suffix, []))[1].tobytes()
