"""PSNR: the peak signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from imagier.metrics.metric import MeanOverImages


class Metric(MeanOverImages):
    """Peak signal-to-noise ratio in decibels, for values in [0, 1]; at most 100."""

    name = "PSNR"
    higher_is_better = True

    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        error = (images - known["targets"]).square().flatten(1).mean(dim=1)
        return -10 * error.clamp(min=1e-10).log10()
