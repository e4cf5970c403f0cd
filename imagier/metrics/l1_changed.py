"""L1 over the pixels that had to change, so that large unchanged areas do not hide the errors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from imagier.metrics.metric import MeanOverImages
from imagier.ranges import NonNegative


class Metric(MeanOverImages):
    """L1 over the pixels in which the target differs from the input, for values in [0, 1]."""

    needs = ("targets", "start")

    def __init__(self, *, tolerance: NonNegative = 0.02) -> None:
        """tolerance: A pixel differs if some channel of the target is further than this from the input, for values in
        [0, 1].
        """
        self.tolerance = tolerance
        self.name = "L1 changed" if tolerance == 0.02 else f"L1 changed by {tolerance:g}"

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {"tolerance": self.tolerance}

    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        targets, start = known["targets"], known["start"]
        changed = ((targets - start).abs() > self.tolerance).any(dim=1, keepdim=True).flatten(1)
        errors = (images - targets).abs().mean(dim=1, keepdim=True).flatten(1)
        return (errors * changed).sum(dim=1) / changed.sum(dim=1)
