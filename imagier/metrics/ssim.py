"""SSIM: structural similarity (Wang et al. 2004), as torchmetrics computes it: windows at the border see a mirror."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from torch import Tensor

from imagier.metrics.metric import MeanOverImages, check_size

_LEAST_SIDE = 11


class Metric(MeanOverImages):
    """Structural similarity with the target, in windows of 11 x 11 pixels; 1 for equal images."""

    name = "SSIM"
    higher_is_better = True

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {"torchmetrics": version("torchmetrics")}

    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure  # takes more than a second

        check_size(images, _LEAST_SIDE, "ssim")
        values = structural_similarity_index_measure(images, known["targets"], data_range=1.0, reduction="none")
        assert isinstance(values, Tensor)  # not a pair, with the map of each image
        return values.view(-1)
