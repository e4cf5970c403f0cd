"""DISTS: similarity of structure and texture in the features of a network (Ding et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.metrics.metric import MeanOverImages
from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.network import FeatureNetwork, find_weights
from imagier.nn.backbones.vgg import VGG16
from imagier.nn.backbones.weights import find_own_weights, fit_weights, hash_file, read_weights

_PAGE = "github.com/dingkeyan93/DISTS (DISTS_pytorch/weights.pt; rename it)"
_LAYERS = {"relu_1_2": 64, "relu_2_2": 128, "relu_3_3": 256, "relu_4_3": 512, "relu_5_3": 512}
"""With their channels. Before them come those of the image itself."""
_CHANNELS = (3, *_LAYERS.values())
_EPS = 1e-6


class Metric(MeanOverImages):
    """Distance from the target in structure and texture: 0 for equal images, at most about 1."""

    name = "DISTS"

    def __init__(self, *, weights_path: str | None = None, factors_path: str | None = None) -> None:
        """weights_path: Weights of VGG-16; null: torch's cache, or a download into it.
        factors_path: The factors of its channels; null: dists_weights.pt in torch's cache.
        """
        self.weights_path = weights_path
        self.factors_path = factors_path

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return self._hashes

    def load(self, device: torch.device) -> None:
        path = find_own_weights(self.factors_path, "dists_weights.pt", _PAGE, "factors_path")
        empty = torch.empty(1, sum(_CHANNELS), 1, 1, device="meta")
        factors = nn.ParameterDict({"alpha": empty, "beta": empty})
        fit_weights(factors, read_weights(path, "factors_path"), file_key=str, source=str(path))
        alpha, beta = (factors[name].detach().flatten().to(device) for name in ("alpha", "beta"))
        total = alpha.sum() + beta.sum()
        self._alpha, self._beta = ((each / total).split(_CHANNELS) for each in (alpha, beta))
        vgg16 = find_weights("vgg16", self.weights_path)
        self._network = FeatureNetwork(_VGG16, list(_LAYERS), read_weights(vgg16), source=str(vgg16)).to(device)
        self._hashes = {"weights_sha256": hash_file(vgg16), "factors_sha256": hash_file(path)}

    @torch.no_grad()
    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        both = torch.cat([images, known["targets"]]).float()
        similarity = torch.zeros(len(images), device=images.device)
        layers = [both, *self._network(both * 2 - 1).values()]
        for features, alpha, beta in zip(layers, self._alpha, self._beta):
            x, y = features.flatten(2).chunk(2)
            mean_x, mean_y = x.mean(dim=2), y.mean(dim=2)
            texture = (2 * mean_x * mean_y + _EPS) / (mean_x.square() + mean_y.square() + _EPS)
            x, y = x - mean_x[..., None], y - mean_y[..., None]
            variances = x.square().mean(dim=2) + y.square().mean(dim=2)
            structure = (2 * (x * y).mean(dim=2) + _EPS) / (variances + _EPS)
            similarity += texture @ alpha + structure @ beta
        return 1 - similarity


class L2Pool(nn.Module):
    """Halves features by the root of the mean of squares under a Hanning window of 3 x 3 (Ding et al. 2020, eq. 3)."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W, not negative -> N x C x H / 2 x W / 2, rounded up."""
        row = x.new_tensor([0.25, 0.5, 0.25])
        window = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def _steps() -> Steps:
    for path, step in VGG16.steps():
        yield path, L2Pool() if isinstance(step, nn.MaxPool2d) else step


_VGG16 = Backbone(name="vgg16", steps=_steps, taps=VGG16.taps, find_weights=VGG16.find_weights)
