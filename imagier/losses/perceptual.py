"""Perceptual loss: distance of two images in the features of a pretrained network (Johnson et al. 2016, eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.info_nce import InfoNCE
from imagier.nn.backbones import build_feature_network
from imagier.nn.backbones.network import check_network
from imagier.nn.resize import lay_on_white
from imagier.ranges import NonNegative, Positive, PositiveFloat

Criterion = Literal["l1", "l2", "mse", "info_nce"]
ResizeMode = Literal["bilinear", "bicubic"]

_PIXELWISE = {"l1": F.l1_loss, "l2": F.mse_loss, "mse": F.mse_loss}
_TRAINED_PX = 224  # the side of the images that the networks were trained on


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """The section `trainer.perceptual_loss` of a configuration."""

    mode: str
    """The pretrained network: vgg19, vgg16, alexnet, inception_v3, resnet50, robust_resnet50, vgg_face_dag or
    efficientnet_lite0."""
    layers: list[str] | str
    """The layer or layers whose features are compared, such as relu_4_1."""
    weights: list[NonNegative] | NonNegative | None = None
    """Weight of each layer; a single number holds for all layers, null for 1."""
    fp16: bool = False
    """Run the network in bfloat16 on an accelerator, which saves time and memory; the loss stays in float32. Without
    effect on the CPU, and in a run in bfloat16, in which the network is in bfloat16 anyway. It is never in float16, in
    which the gradient of a mean over many features falls below the smallest number."""
    criterion: Criterion = "l1"
    """The distance of features: mean absolute (l1) or mean squared (l2, mse) difference, or a contrastive loss between
    the images of a batch (info_nce)."""
    num_scales: Positive = 1
    """Compare the images at this many sizes, each half of the one before, and add up."""
    resize: bool = False
    """Compare the images at 224 x 224 pixels."""
    resize_mode: ResizeMode = "bilinear"
    """How images are resized, also for the scales."""
    info_nce_temperature: PositiveFloat = 0.07
    """info_nce: what similarities are divided by, from 0.01 to 1."""
    info_nce_gather_distributed: bool = True
    """info_nce: contrast the images of all ranks."""
    info_nce_flatten: bool = True
    """info_nce: compare features at every position; otherwise their means over the image."""
    weights_path: str | None = None
    """File with the network's weights (.pth, .pt, .safetensors); null: torch's cache, or a download into it."""


class PerceptualLoss(nn.Module):
    """Weighted distance between the features of two batches of images, summed over layers and scales.

    The network is frozen: gradients flow to the first images only.
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
        info_nce_temperature: float = 0.07,
        info_nce_gather_distributed: bool = True,
        info_nce_flatten: bool = True,
        weights_path: str | None = None,
    ) -> None:
        """Options as in `PerceptualConfig`; `network` is its `mode`.

        UserError: an unknown name, another number of weights than of layers, or no weight file.
        """
        super().__init__()
        names = [layers] if isinstance(layers, str) else list(layers)
        self.layer_weights = list(zip(names, _one_per_layer(weights, names)))
        if criterion not in (*_PIXELWISE, "info_nce"):
            raise UserError(
                f"no distance {criterion!r}",
                where="perceptual_loss.criterion",
                advice="choose l1, l2, mse or info_nce",
                code="unknown-value",
            )
        if resize_mode not in ("bilinear", "bicubic"):
            raise UserError(
                f"no mode {resize_mode!r}",
                where="perceptual_loss.resize_mode",
                advice="choose bilinear or bicubic",
                code="unknown-value",
            )
        if num_scales < 1:
            raise UserError(
                f"is {num_scales}", where="perceptual_loss.num_scales", advice="give 1 or more", code="out-of-range"
            )
        self.criterion = criterion
        self.info_nce = InfoNCE(
            temperature=info_nce_temperature,
            learn_temperature=False,  # no optimizer would see it
            gather_distributed=info_nce_gather_distributed,
            flatten=info_nce_flatten,
            single_direction=True,
        )
        self.num_scales = num_scales
        self.resize = resize
        self.resize_mode = resize_mode
        self.fp16 = fp16
        check_network(network)
        self.network = build_feature_network(network, names, weights_path)

    @classmethod
    def from_config(cls, config: PerceptualConfig) -> PerceptualLoss:
        """The loss that a configuration's `trainer.perceptual_loss` describes. UserError as the constructor."""
        options = {field.name: getattr(config, field.name) for field in fields(config)}
        return cls(network=options.pop("mode"), **options)

    @classmethod
    def create_if_weighted(cls, config: PerceptualConfig | None, *weights: float) -> PerceptualLoss | None:
        """The loss of a configuration; None if all weights are 0. UserError if it is needed but missing."""
        if not any(weights):
            return None
        if config is None:
            raise UserError(
                "needs the section perceptual_loss (mode, layers, weights)",
                where="loss_weight.perceptual",
                code="missing-section",
            )
        return cls.from_config(config)

    def forward(self, inp: Tensor, target: Tensor, sample_weights: Tensor | None = None) -> Tensor:
        """Two batches of images in [-1, 1], N x C x H x W -> float32 scalar. No gradient goes to `target`.

        What the network was not trained on is laid on white (alpha), or left out (all beyond three channels).
        `sample_weights`, of shape N, multiply the images' distances before the mean over the batch is taken.
        """
        assert sample_weights is None or sample_weights.shape == inp.shape[:1]
        inp, target = lay_on_white(inp.float()), lay_on_white(target.detach().float())
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
            wanted = self.network(target)
            found = self.network(inp)
        return [
            weight * self._distance(found[layer].float(), wanted[layer].float(), sample_weights)
            for layer, weight in self.layer_weights
        ]

    def _distance(self, found: Tensor, wanted: Tensor, sample_weights: Tensor | None) -> Tensor:
        if self.criterion == "info_nce":
            per_sample = self.info_nce.per_sample(found, wanted)
        elif sample_weights is not None:
            per_sample = _PIXELWISE[self.criterion](found, wanted, reduction="none").flatten(1).mean(dim=1)
        else:
            return _PIXELWISE[self.criterion](found, wanted)
        if sample_weights is None:
            return per_sample.mean()
        return (sample_weights.float() * per_sample).mean()

    def _half_size(self, x: Tensor) -> Tensor:
        """N x C x H x W -> N x C x H//2 x W//2; an odd last row or column is dropped."""
        return F.interpolate(x, scale_factor=0.5, mode=self.resize_mode, align_corners=False)

    def _precision(self, x: Tensor) -> AbstractContextManager[object]:
        kind = x.device.type
        if self.fp16 and not x.is_cpu:
            return torch.autocast(kind, dtype=torch.bfloat16)
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            return torch.autocast(kind, enabled=False)
        return nullcontext()


def _one_per_layer(weights: Sequence[float] | float | None, layers: Sequence[str]) -> list[float]:
    if weights is None:
        return [1.0] * len(layers)
    if isinstance(weights, (int, float)):
        return [float(weights)] * len(layers)
    if len(weights) != len(layers):
        raise UserError(
            f"has {len(weights)} weights for {len(layers)} layers ({', '.join(layers)})",
            where="perceptual_loss.weights",
            advice="give one weight per layer",
            code="number-of-weights",
        )
    return [float(weight) for weight in weights]
