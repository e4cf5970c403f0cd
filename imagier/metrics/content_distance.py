"""Content distance: how far a translation leaves what is in the image (Huang et al. 2018, Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.metrics.metric import MeanOverImages, check_size
from imagier.nn.backbones.network import build_feature_network, find_weights
from imagier.nn.backbones.weights import hash_file

_LAYER = "relu_5_3"
_LEAST_SIDE = 32
"""In pixels: the features have 2 x 2 places then; of one place there is no variance."""


class Metric(MeanOverImages):
    """Distance from the content image that does not see a change of domain: 0 for equal images, 2 for unrelated ones.

    It is the mean squared difference of VGG-16's features relu_5_3, each channel with mean 0 and variance 1 in each
    image, called domain-invariant perceptual distance in the papers.
    """

    name = "Content distance"
    needs = ("start",)

    def __init__(self, *, weights_path: str | None = None) -> None:
        """weights_path: Weights of VGG-16; null: torch's cache, or a download into it."""
        self.weights_path = weights_path

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {"weights_sha256": self._hash}

    def load(self, device: torch.device) -> None:
        self._network = build_feature_network("vgg16", [_LAYER], self.weights_path).to(device)
        self._hash = hash_file(find_weights("vgg16", self.weights_path))

    @torch.no_grad()
    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        check_size(images, _LEAST_SIDE, "content_distance")
        features = self._network(torch.cat([images, known["start"]]).float() * 2 - 1)[_LAYER]
        a, b = F.instance_norm(features).chunk(2)
        return (a - b).square().flatten(1).mean(dim=1)
