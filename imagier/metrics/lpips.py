"""LPIPS: learned perceptual distance (Zhang et al. 2018), version 0.1 of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.metrics.metric import MeanOverImages, check_size
from imagier.nn.backbones.network import build_feature_network, find_weights
from imagier.nn.backbones.weights import find_own_weights, fit_weights, hash_file, read_weights

_PAGE = "github.com/richzhang/PerceptualSimilarity (lpips/weights/v0.1/{net}.pth; rename it)"
_NETWORKS = {
    "alex": ("alexnet", ("relu_1", "relu_2", "relu_3", "relu_4", "relu_5"), (64, 192, 384, 256, 256), 31),
    "vgg": ("vgg16", ("relu_1_2", "relu_2_2", "relu_3_3", "relu_4_3", "relu_5_3"), (64, 128, 256, 512, 512), 16),
}
"""The network, its layers, their channels, and the smallest side of an image, in pixels."""


class Metric(MeanOverImages):
    """Learned perceptual distance from the target: 0 for equal images, about 1 for unrelated ones."""

    names: ClassVar[Mapping[str, str]] = {"alex": "LPIPS", "vgg": "LPIPS-VGG"}

    def __init__(
        self, *, net: Literal["alex", "vgg"] = "alex", weights_path: str | None = None, heads_path: str | None = None
    ) -> None:
        """net: The network; most papers use alex.
        weights_path: Its weights; null: torch's cache, or a download into it.
        heads_path: The weights of its channels; null: lpips_alex.pth or lpips_vgg.pth in torch's cache.
        """
        self.net = net
        self.name = self.names[net]
        self.weights_path = weights_path
        self.heads_path = heads_path

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {"net": self.net, **self._hashes}

    def load(self, device: torch.device) -> None:
        network, layers, channels, _ = _NETWORKS[self.net]
        path = find_own_weights(self.heads_path, f"lpips_{self.net}.pth", _PAGE.format(net=self.net), "heads_path")
        with torch.device("meta"):
            heads = nn.ModuleDict(
                {f"lin{i}": _place(nn.Conv2d(count, 1, 1, bias=False)) for i, count in enumerate(channels)}
            )
        fit_weights(heads, read_weights(path, "heads_path"), file_key=str, source=str(path))
        self._heads = [weight.to(device) for weight in heads.state_dict().values()]
        self._network = build_feature_network(network, layers, self.weights_path).to(device)
        self._hashes = {
            "weights_sha256": hash_file(find_weights(network, self.weights_path)),
            "heads_sha256": hash_file(path),
        }

    @torch.no_grad()
    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        check_size(images, _NETWORKS[self.net][-1], "lpips")
        taken = self._network(torch.cat([images, known["targets"]]).float() * 2 - 1)
        total = torch.zeros(len(images), device=images.device)
        for features, head in zip(taken.values(), self._heads):
            a, b = (each / (each.norm(dim=1, keepdim=True) + 1e-10) for each in features.chunk(2))
            total += F.conv2d((a - b).square(), head).mean(dim=(1, 2, 3))
        return total


def _place(conv: nn.Conv2d) -> nn.Module:
    """Under the name that it has in the public files: model.1, after a dropout."""
    return nn.ModuleDict({"model": nn.Sequential(nn.Identity(), conv)})
