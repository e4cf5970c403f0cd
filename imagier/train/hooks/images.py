"""Images of the training: the same inputs each time, the targets, and the results."""

from __future__ import annotations

from collections.abc import Sequence
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
        grid = self.grid(trainer)  # on all ranks: batch norms may need statistics over all of them
        if not trainer.runtime.is_main:
            return
        write_image(path, grid)
        for sink in self.sinks:
            sink.image(path, step)

    def grid(self, trainer: Trainer) -> np.ndarray:
        """Height x width x 3, uint8: columns side by side, samples below each other."""
        with self.view.use_live_weights(trainer) as recipe:
            batch = recipe.prepare(self.batch)
            columns = [
                *recipe.visualize_inputs(batch).values(),
                *recipe.visualize_outputs(batch, self._rng(trainer)).values(),
            ]
        if trainer.recipe.generator_name in collect_averages(trainer):
            with self.view.use_average_weights(trainer) as recipe:
                columns += recipe.visualize_outputs(batch, self._rng(trainer)).values()
        return tile_columns(columns)

    def _rng(self, trainer: Trainer) -> torch.Generator:
        return trainer.runtime.generator(self.seed)


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


def write_image(path: Path, image: np.ndarray, quality: int = JPEG_QUALITY) -> None:
    """Writes H x W x 3, uint8, in the format of the name's suffix; never half a file."""
    with write_atomic(path) as file:
        file.write(encode(image, path.suffix, quality))


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
