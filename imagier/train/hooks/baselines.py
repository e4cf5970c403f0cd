"""What generated images should beat without any training: the mean color of the training images, or of each class."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from imagier.recipe import Batch, Recipe
from imagier.train.runtime import Runtime

SAMPLES = 512
"""Training images that the mean color is measured on."""

MEAN_COLOR = "mean color"
CLASS_COLORS = "mean color of each class"


@dataclass(frozen=True)
class MeanColors:
    """Mean colors of training images, in [-1, 1]."""

    color: Tensor
    """3 values: that of all pixels."""
    of_classes: Tensor | None
    """K x 3, that of all pixels for a class without any; None for a method without class maps."""

    def paint(self, recipe: Recipe, batch: Batch, target: Tensor) -> dict[str, Tensor]:
        """Images like the target, N x 3 x H x W in [-1, 1], by name."""
        color = self.color.to(target.device)
        images = {MEAN_COLOR: color[:, None, None].expand_as(target)}
        classes = recipe.class_map(batch)
        if classes is not None and self.of_classes is not None:
            away = (self.of_classes.to(target.device) - color).float()  # pixels without a class keep the mean color
            shifts = torch.einsum("nkhw,kc->nchw", classes.float(), away)
            images[CLASS_COLORS] = color[:, None, None] + shifts
        return images


@torch.no_grad()
def measure_mean_colors(batches: Iterable[Batch], recipe: Recipe, runtime: Runtime) -> MeanColors | None:
    """The mean colors of the images of all ranks; each image counts alike. Called on all ranks.

    batches: this rank's share, not yet prepared. None if there are no images, or no targets.
    """
    images, classes = torch.zeros(1, 4, dtype=torch.float64), None
    for stored in batches:
        batch = recipe.prepare(stored)
        target = recipe.target(batch)
        if target is None:
            break
        images[0] += _count(target.float().mean(dim=(2, 3)))
        class_map = recipe.class_map(batch)
        if class_map is not None:
            sums = torch.einsum("nkhw,nchw->kc", class_map.float(), target.float())
            rows = torch.cat([sums, class_map.float().sum(dim=(0, 2, 3))[:, None]], dim=1).cpu().double()
            classes = rows if classes is None else classes + rows
    images = runtime.all_gather([images]).sum(dim=0)
    classes = add_ranks(classes, runtime)
    if not images[3]:
        return None
    color = (images[:3] / images[3]).float()
    if classes is not None:
        classes = torch.where(classes[:, 3:] > 0, classes[:, :3] / classes[:, 3:].clamp(min=1), color).float()
    return MeanColors(color, classes)


class ClassErrors:
    """Mean absolute differences from the targets over the pixels of each class, for values in [0, 1]."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        """K x 2: sums of differences, and pixels."""

    def update(self, images: Tensor, targets: Tensor, class_map: Tensor) -> None:
        """Adds a batch: N x 3 x H x W each, and N x K x H x W in {0, 1}."""
        errors = (images - targets).abs().mean(dim=1, keepdim=True)
        both = [(class_map * factor).float().sum(dim=(0, 2, 3)) for factor in (errors, 1)]
        rows = torch.stack(both, dim=1).cpu().double()
        self._rows = rows if self._rows is None else self._rows + rows

    def merge(self, runtime: Runtime) -> None:
        """Adds up the batches of all ranks."""
        self._rows = add_ranks(self._rows, runtime)

    @property
    def values(self) -> list[float]:
        """By class; NaN for one without pixels."""
        rows = [] if self._rows is None else self._rows.tolist()
        return [error / pixels if pixels else math.nan for error, pixels in rows]

    @property
    def shares(self) -> list[float]:
        """The share of each class of all pixels that have one."""
        pixels = [] if self._rows is None else self._rows[:, 1].tolist()
        return [count / max(sum(pixels), 1) for count in pixels]


def add_ranks(rows: Tensor | None, runtime: Runtime) -> Tensor | None:
    """The sum of the tensors of those ranks that have one, on the CPU; None if none has."""
    if not runtime.all_reduce_max(int(rows is not None)):
        return None
    return runtime.all_gather([] if rows is None else [rows[None]]).sum(dim=0)


def _count(colors: Tensor) -> Tensor:
    """N x 3 -> 4: the sum, and N."""
    return torch.cat([colors.cpu().double().sum(dim=0), torch.tensor([float(len(colors))], dtype=torch.float64)])
