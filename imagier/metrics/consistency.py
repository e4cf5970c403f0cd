"""Consistency: whether a place looks as it did when it was seen before (as in Mallya et al. 2020, section 4)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.metric import Metric as BaseMetric
from imagier.ranges import Positive


class Metric(BaseMetric):
    """Mean absolute difference, in [0, 1], of pixels that show the same point of the world some frames apart.

    The mean over channels and over all pixels whose point was seen then, too (where several pixels showed it, their
    mean color counts), then over all pairs of frames. Light and angles change what a place looks like, so compare it
    with that of real clips.
    """

    name = "consistency"
    takes_clips = True
    needs = ("unprojections",)

    def __init__(self, *, gap: Positive = 50) -> None:
        """gap: How many frames lie between the two. [frames]"""
        self.gap = gap

    def describe(self) -> Mapping[str, int]:
        return {"gap": self.gap}

    def reset(self, device: torch.device) -> None:
        self.state = {name: torch.zeros((), dtype=torch.float64, device=device) for name in ("sum", "count")}
        self._past: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.gap)
        """Images and points of the last frames of the clip that is being seen."""

    def update(self, images: Tensor, known: Mapping[str, Tensor]) -> None:
        """images: N x T x 3 x H x W in [0, 1]. known: `unprojections`. A part of a clip goes on with the last frame.

        UserError if these are no points.
        """
        if known["unprojections"].is_floating_point():
            where, advice = "data.input_types: unprojections", "give it `type: unprojections`, and see docs/data.md"
            raise UserError("holds no points", where=where, advice=advice, code="not-points")
        for clip, points in zip(images.float(), known["unprojections"][:, :, 0]):
            continues = bool(self._past) and all(map(torch.equal, self._past[-1], (clip[0], points[0])))
            if not continues:
                self._past.clear()
            for image, shown in list(zip(clip, points))[continues:]:
                if len(self._past) == self.gap:
                    self._add(measure_difference(*self._past[0], image, shown))
                self._past.append((image, shown))

    def _add(self, difference: Tensor | None) -> None:
        if difference is not None:
            self.state["sum"] = self.state["sum"] + difference
            self.state["count"] = self.state["count"] + 1

    def compute(self) -> float:
        count = self.state["count"].item()
        return self.state["sum"].item() / count if count else math.nan


def measure_difference(before: Tensor, points_before: Tensor, image: Tensor, points: Tensor) -> Tensor | None:
    """The mean absolute difference of the pixels of an image from what showed their points before; None if none did.

    before, image: 3 x H x W. points: H x W, int64, 0 where unknown. -> scalar, float64
    """
    known = points_before > 0
    names, index = points_before[known].unique(return_inverse=True)
    if not len(names):
        return None
    colors = before[:, known].T.double()
    sums = torch.zeros(len(names), 3, dtype=torch.float64, device=before.device).index_add_(0, index, colors)
    means = sums / index.bincount(minlength=len(names))[:, None]
    place = torch.searchsorted(names, points).clamp(max=len(names) - 1)
    is_again = (names[place] == points) & (points > 0)
    if not is_again.any():
        return None
    return (image.movedim(0, -1)[is_again].double() - means[place[is_again]]).abs().mean()
