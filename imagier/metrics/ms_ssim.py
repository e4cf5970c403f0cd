"""MS-SSIM: structural similarity at five scales (Wang et al. 2003)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from torch import Tensor

from imagier.metrics.metric import MeanOverImages, check_size

_LEAST_SIDE = 176
"""The windows of 11 pixels fit into the fifth scale. With fewer scales it would be another metric."""


class Metric(MeanOverImages):
    """Structural similarity with the target at five scales, for images of at least 176 x 176 pixels."""

    name = "MS-SSIM"
    higher_is_better = True

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {"torchmetrics": version("torchmetrics")}

    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure_ms_ssim

        check_size(images, _LEAST_SIDE, "ms_ssim")
        return measure_ms_ssim(images, known["targets"], data_range=1.0, reduction="none").view(-1)
