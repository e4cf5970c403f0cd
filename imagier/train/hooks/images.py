"""Images and animations of the training: the same inputs each time, the targets, and the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.recipe import Batch, Recipe
from imagier.train.disk import write_atomic
from imagier.train.hooks.animation import encode_gif, read_gif_comment
from imagier.train.hooks.log import Sink
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View, collect_averages

FOLDER = "images"
TAG = "Visualizations"
"""The reference's name of the images, where they are shown over the iterations."""
CLIPS_TAG = "Clips"
JPEG_QUALITY = 90
_LOSSLESS_WEBP = 101

_COMMENT = b"\xff\xfe"
_COMMENT_WITHIN = 2**16
"""Bytes of a file that hold the comment."""


class Images:
    """Writes <logdir>/images/epoch_..._iteration_....jpg, one row per sample, and now and then images/current.jpg.

    Of clips these show the last frame, with all that it is made of; a .gif beside each shows the clips.
    """

    def __init__(
        self,
        logdir: Path,
        frames: Sequence[Batch],
        view: View,
        sinks: Sequence[Sink],
        *,
        every: Sequence[int],
        display_every: int,
        seed: int,
    ) -> None:
        """frames: the samples to show: of images a batch of them, of clips the batches of their frames, in order.

        every: periods in iterations; an image is made at each of them.
        """
        self.folder = logdir / FOLDER
        self.frames = frames
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
        frames = self.columns(trainer)  # on all ranks: batch norms may need statistics over all of them
        if not trainer.runtime.is_main:
            return
        write_image(path, _tile(frames[-1]), comment=_describe(step, frames[-1]))
        paths = [path]
        if len(frames) > 1:
            clips = [[column for column in columns if not column.is_detail] for columns in frames]
            data = encode_gif([_tile(columns) for columns in clips], _describe(step, clips[-1]))
            paths.append(path.with_suffix(".gif"))
            with write_atomic(paths[-1]) as file:
                file.write(data)
        for sink in self.sinks:
            for written in paths:
                sink.image(written, step)

    def columns(self, trainer: Trainer) -> list[list[Column]]:
        """The columns of the image of each frame from left to right."""
        has_average = trainer.recipe.generator_name in collect_averages(trainer)
        with self.view.use_live_weights(trainer) as recipe:
            batches = [recipe.prepare(frame) for frame in self.frames]
            columns = [_list_inputs(recipe, batch) for batch in batches]
            made = self._make(recipe, batches, trainer, "live" if has_average else "")
        if has_average:
            with self.view.use_average_weights(trainer) as recipe:
                averaged = self._make(recipe, batches, trainer, "average")
                made = [[*live, *average] for live, average in zip(made, averaged)]
        return [[*inputs, *results] for inputs, results in zip(columns, made)]

    def _make(self, recipe: Recipe, batches: Sequence[Batch], trainer: Trainer, weights: str) -> list[list[Column]]:
        """The columns of results of each frame; of those of the last one, what a frame does not have is gray."""
        rng = self._rng(trainer)
        if recipe.is_video:
            made = [recipe.visualize_frame(outputs) for outputs, _ in recipe.rollout(batches, rng)]
        else:
            made = [recipe.visualize_outputs(batch, rng) for batch in batches]
        gray = {name: torch.zeros_like(image) for name, image in made[-1].items()}
        return [
            [Column(_name_result(name, weights), image, name != "fake") for name, image in {**gray, **of_frame}.items()]
            for of_frame in made
        ]

    def _rng(self, trainer: Trainer) -> torch.Generator:
        return trainer.runtime.generator(self.seed)


class Column(NamedTuple):
    """A column of an image of a training."""

    heading: str
    images: Tensor
    """N x 3 x h x w in [-1, 1]."""
    is_detail: bool = False
    """Not shown in animations."""


def _list_inputs(recipe: Recipe, batch: Batch) -> list[Column]:
    """The columns of inputs; what the results should be is called real."""
    target = recipe.target(batch)
    columns = []
    for name, images in recipe.visualize_inputs(batch).items():
        is_target = target is not None and torch.equal(images, target)
        columns.append(Column(f"{name} (real)" if is_target else name, images))
    return columns


def _describe(step: int, columns: Sequence[Column]) -> str:
    """The comment that `read_grid` reads."""
    return json.dumps({"step": step, "columns": [(column.heading, column.images.shape[3]) for column in columns]})


def _tile(columns: Sequence[Column]) -> np.ndarray:
    return tile_columns([column.images for column in columns])


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
        comment = read_gif_comment(file.read()) if path.suffix == ".gif" else read_comment(file.read(_COMMENT_WITHIN))
    try:
        content = json.loads(comment)
        return Grid(path, content["step"], [(name, width) for name, width in content["columns"]])
    except (ValueError, TypeError, KeyError):  # there is none, or another program's
        step = path.stem.rpartition("_")[2]
        return Grid(path, int(step) if step.isdecimal() else -1, ())


def write_image(path: Path, image: np.ndarray, quality: int | None = None, comment: str = "") -> None:
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


def encode(image: np.ndarray, suffix: str, quality: int | None = None) -> bytes:
    """H x W x 3, or 4 with alpha, uint8 or uint16 -> the bytes of a file in the format of the suffix.

    quality: of JPEG and WebP, 1 to 100. None: JPEG_QUALITY, and a WebP that keeps every value, as other formats do.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    options = {
        ".jpg": [
            cv2.IMWRITE_JPEG_QUALITY,
            JPEG_QUALITY if quality is None else quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,  # without it, colors have half the resolution
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, _LOSSLESS_WEBP if quality is None else quality],
    }
    return cv2.imencode(suffix, bgr, options.get(suffix, []))[1].tobytes()
