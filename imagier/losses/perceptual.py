"""Perceptual loss: distance of two pictures in the features of a pretrained network (Johnson et al. 2016, eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.backbones import feature_network

Criterion = Literal["l1", "l2", "mse"]
ResizeMode = Literal["bilinear", "bicubic"]

_CRITERIA = {"l1": F.l1_loss, "l2": F.mse_loss, "mse": F.mse_loss}
_TRAINED_PX = 224  # the side of the pictures that the networks were trained on


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """The section `trainer.perceptual_loss` of a configuration."""

    mode: str
    """The network: vgg19, vgg16, alexnet, inception_v3, resnet50, robust_resnet50, vgg_face_dag, efficientnet_lite0."""
    layers: list[str] | str
    """The layer or layers whose features are compared, such as relu_4_1."""
    weights: list[float] | float | None = None
    """Factor of each layer's distance, one per layer; a single number holds for every layer; 1 if not given."""
    fp16: bool = False
    """Run the network in bfloat16 on an accelerator, which saves time and memory; the loss stays in float32. It is
    not float16, in which the gradient of a mean over many features falls below the smallest number. Without effect
    on the CPU."""
    num_scales: int = 1
    """Compare the pictures at this many sizes, each half of the one before, and add up."""
    weights_path: str | None = None
    """File with the network's weights (.pth, .pt, .safetensors); by default torch's cache, or a download into it."""


class PerceptualLoss(nn.Module):
    """Weighted distance between the features of two batches of pictures, summed over layers and scales.

    The network is frozen: gradients flow to the first pictures only.
    """

    def __init__(
        self,
        *,
        network: str = "vgg19",
        layers: Sequence[str] | str = "relu_4_1",
        weights: Sequence[float] | float | None = None,
        criterion: Criterion = "l1",
        num_scales: int = 1,
        resize: bool = False,
        resize_mode: ResizeMode = "bilinear",
        fp16: bool = False,
        weights_path: str | None = None,
    ) -> None:
        """`layers`, `weights`, `fp16`, `num_scales` and `weights_path` as in `PerceptualConfig`.

        criterion: mean absolute (l1) or mean squared (l2 = mse) difference of features.
        resize: first resize both pictures to 224 x 224 pixels; `resize_mode` serves this and the scales.
        UserError: an unknown name, a number of weights other than of layers, or no weight file (`feature_network`).
        """
        super().__init__()
        names = [layers] if isinstance(layers, str) else list(layers)
        self.layer_weights = list(zip(names, _one_per_layer(weights, names)))
        if criterion not in _CRITERIA:
            raise UserError(f"perceptual loss: criterion {criterion!r} is unknown; choose l1, l2 or mse")
        if resize_mode not in ("bilinear", "bicubic"):
            raise UserError(f"perceptual loss: resize_mode {resize_mode!r} is unknown; choose bilinear or bicubic")
        if num_scales < 1:
            raise UserError(f"perceptual loss: num_scales is {num_scales}; give 1 or more")
        self.criterion = criterion
        self.num_scales = num_scales
        self.resize = resize
        self.resize_mode = resize_mode
        self.fp16 = fp16
        self.network = feature_network(network, names, weights_path)

    @classmethod
    def from_config(cls, config: PerceptualConfig) -> PerceptualLoss:
        """The loss that a configuration's `trainer.perceptual_loss` describes. UserError as the constructor."""
        return cls(
            network=config.mode,
            layers=config.layers,
            weights=config.weights,
            num_scales=config.num_scales,
            fp16=config.fp16,
            weights_path=config.weights_path,
        )

    def forward(self, inp: Tensor, target: Tensor, sample_weights: Tensor | None = None) -> Tensor:
        """Two batches of pictures in [-1, 1], N x 3 x H x W -> float32 scalar. No gradient goes to `target`.

        `sample_weights`, of shape N, multiply the pictures' distances before the mean over the batch is taken.
        """
        assert sample_weights is None or sample_weights.shape == inp.shape[:1]
        inp, target = inp.float(), target.detach().float()
        if self.resize:
            size = (_TRAINED_PX, _TRAINED_PX)
            inp, target = (F.interpolate(x, size, mode=self.resize_mode, align_corners=False) for x in (inp, target))
        terms = self._distances(inp, target, sample_weights)
        for _ in range(self.num_scales - 1):
            inp, target = self._half_size(inp), self._half_size(target)
            terms += self._distances(inp, target, sample_weights)
        return torch.stack(terms).sum()

    def _distances(self, inp: Tensor, target: Tensor, sample_weights: Tensor | None) -> list[Tensor]:
        """Weighted distance in each layer at one scale."""
        with self._precision(inp):
            with torch.no_grad():
                wanted = self.network(target)
            found = self.network(inp)
        return [
            weight * self._distance(found[layer].float(), wanted[layer].float(), sample_weights)
            for layer, weight in self.layer_weights
        ]

    def _distance(self, found: Tensor, wanted: Tensor, sample_weights: Tensor | None) -> Tensor:
        criterion = _CRITERIA[self.criterion]
        if sample_weights is None:
            return criterion(found, wanted)
        per_sample = criterion(found, wanted, reduction="none").flatten(1).mean(dim=1)
        return (sample_weights.float() * per_sample).mean()

    def _half_size(self, x: Tensor) -> Tensor:
        """N x C x H x W -> N x C x H//2 x W//2; an odd last row or column is dropped, not squeezed in."""
        return F.interpolate(x, scale_factor=0.5, mode=self.resize_mode, align_corners=False)

    def _precision(self, x: Tensor) -> AbstractContextManager[object]:
        if self.fp16 and x.device.type != "cpu":
            return torch.autocast(x.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _one_per_layer(weights: Sequence[float] | float | None, layers: Sequence[str]) -> list[float]:
    if weights is None:
        return [1.0] * len(layers)
    if isinstance(weights, (int, float)):
        return [float(weights)] * len(layers)
    if len(weights) != len(layers):
        raise UserError(
            f"perceptual loss: {len(weights)} weights for {len(layers)} layers ({', '.join(layers)}); "
            "give one weight per layer"
        )
    return [float(weight) for weight in weights]
