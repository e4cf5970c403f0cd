"""L1: the mean absolute difference from the targets."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from imagier.metrics.metric import MeanOverImages


class Metric(MeanOverImages):
    """Mean absolute difference from the target, for values in [0, 1]."""

    name = "L1"

    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        return (images - known["targets"]).abs().flatten(1).mean(dim=1)
