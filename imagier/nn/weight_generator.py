"""The network that makes weights of a generator from reference images (Wang et al., Few-shot Video-to-Video, 2019).

Notation: F[i] is the width at 1 / 2^i of the full size; references are N x K x ..., K of each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.average import DiffersInAverage
from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct
from imagier.nn.conv import WeightNorm, conv2d, linear
from imagier.nn.hyper import BlockOrder, Weights
from imagier.nn.label_embedder import EmbedParams, LabelEmbedder
from imagier.nn.norm import Norm, NormParams, norm2d, set_eps
from imagier.nn.precision import full_precision, to_full_precision
from imagier.nn.reference_names import Rules
from imagier.ranges import Positive, PositiveFloat

LABEL_EPS = 0.1
"""Epsilon of the norms in the encoder of the references' labels."""

_POOLED_PX = 32
"""Side of the reference features that weights are made from, where labels are not multiplied with them."""

_ALL = -1


@dataclass(frozen=True, kw_only=True)
class AttentionParams:
    """How several references become one: by the likeness of their labels to that of the frame."""

    num_filters: Positive = 32
    """Width at full size of the encoders of labels; it doubles whenever the size halves. [channels]"""
    num_downsamples: Positive = 2
    """How often the size is halved before labels are compared."""


@dataclass(frozen=True, kw_only=True)
class HyperParams:
    """Which weights are generated, and how."""

    is_hyper_spade: bool = True
    """Generate the weights of the spatially adaptive norms."""
    is_hyper_embed: bool = True
    """Generate the weights of the network that encodes labels (needs is_hyper_spade)."""
    is_hyper_conv: bool = False
    """Generate the weights of the convolutions of the residual blocks."""
    num_hyper_layers: Annotated[int, Field(ge=_ALL)] = 4
    """Levels with generated weights, from full size on; -1 for as many as gen.num_downsamples."""
    num_fc_layers: Positive = 2
    """Linear layers before the last of each stack that makes weights."""
    activation_norm_type: Norm = "sync_batch"
    """Norm after the convolutions of the encoders of references."""
    weight_norm_type: WeightNorm = "spectral"
    """Norm of the weights of these convolutions."""
    method_to_use_ref_labels: Literal["mul", "concat", "none"] = "mul"
    """What the labels of references are for. mul: weights come from products of features of images and of labels.
    concat: they are seen beside the images. none: they are not used."""
    hyper_block_order: BlockOrder = "NAC"
    """Order of the layers of the generator's residual blocks: norm, activation, convolution."""
    attention: AttentionParams | None = None
    """How several references become one; needed for more than one."""
    eps_of_average: PositiveFloat = 1e-5
    """Epsilon of the norms in the encoder of the references' labels in an averaged generator. In training it is 0.1;
    the same here makes averaged and trained generators alike."""


class Generated(NamedTuple):
    """What references give to a frame."""

    start: Tensor
    """Features that the decoder begins with, N x F[depth] x H / 2^depth x W / 2^depth."""
    maps: list[Tensor]
    """Features of the frame's label at each level."""
    for_norms: list[list[Weights]]
    """Weights of the norms of the parts of each block, by level; empty if they have their own."""
    for_convs: list[list[Weights]]
    """The same of the convolutions."""
    attention: Tensor | None
    """How much each reference counts for each place, N x K x h x w; None if there is one."""
    chosen: Tensor | None
    """The reference that counts most, N; None if there is one."""


class WeightGenerator(DiffersInAverage):
    """Encodes references, makes weights of their features, and encodes the label of a frame with some of these."""

    def __init__(
        self,
        *,
        widths: Sequence[int],
        label_channels: int,
        image_channels: int,
        num_references: int,
        kernel_size: int,
        spade_kernel_size: int,
        params: HyperParams,
        embed: EmbedParams,
    ) -> None:
        """widths: F[0] to F[depth + 1]. num_references: if more than one, there is attention. UserError if generated
        weights would not fit."""
        super().__init__()
        self.widths, self.params = list(widths), params
        self.depth = len(widths) - 2
        self.num_hyper_layers = self.depth if params.num_hyper_layers == _ALL else params.num_hyper_layers
        self.multiplies = params.method_to_use_ref_labels == "mul"
        self.concatenates = params.method_to_use_ref_labels == "concat"
        _check(self.widths, self.num_hyper_layers, params, embed, has_several=num_references > 1)
        self._add_encoders(image_channels, label_channels, spade_kernel_size)
        self.shapes = _Shapes(self.widths, kernel_size, spade_kernel_size, embed, params)
        self.fc = nn.ModuleDict(
            {part: nn.ModuleList(self._stack(part, i) for i in range(self.num_hyper_layers)) for part in self._parts()}
        )
        of_embedder = self.num_hyper_layers if params.is_hyper_embed else 0
        self.label_embedding = LabelEmbedder(label_channels, embed, num_hyper_layers=of_embedder)
        self.attention_module = None
        if num_references > 1 and params.attention is not None:
            self.attention_module = _Attention(label_channels, self.widths[-1], spade_kernel_size, params)
        self._freeze_unused()

    def _add_encoders(self, image_channels: int, label_channels: int, kernel: int) -> None:
        f, levels = self.widths, range(self.depth)
        beside = label_channels if self.concatenates else 0
        self.ref_img_first = _layer(image_channels + beside, f[0], kernel, self.params)
        self.ref_img_down = nn.ModuleList(_layer(f[i], f[i + 1], kernel, self.params, stride=2) for i in levels)
        self.ref_img_up = nn.ModuleList(_layer(f[i + 1], f[i], kernel, self.params) for i in levels)
        if self.multiplies:
            eps = LABEL_EPS
            self.ref_label_first = _layer(label_channels, f[0], kernel, self.params, eps=eps)
            down = (_layer(f[i], f[i + 1], kernel, self.params, stride=2, eps=eps) for i in levels)
            self.ref_label_down = nn.ModuleList(down)
            self.ref_label_up = nn.ModuleList(_layer(f[i + 1], f[i], kernel, self.params, eps=eps) for i in levels)

    def _parts(self) -> list[str]:
        p = self.params
        of_spade = [*_SPADE, *(["spade_e"] if p.is_hyper_embed else [])] if p.is_hyper_spade else []
        return of_spade + (list(_CONV) if p.is_hyper_conv else [])

    def _stack(self, part: str, level: int) -> nn.Module:
        inputs = self.widths[level if part in _CONV else level + 1] if self.multiplies else _POOLED_PX**2
        return _FullyConnected(inputs, self.widths[level + 1], self.shapes.row(part, level), self.params.num_fc_layers)

    def _freeze_unused(self) -> None:
        """No gradient for what old checkpoints hold all the same: encoders below the first level that weights are made
        from, and weights of layers that pass where the width stays."""
        lowest = self.depth if not self.fc or not self.num_hyper_layers else 0 if self.params.is_hyper_conv else 1
        for ups in (self.ref_img_up, *([self.ref_label_up] if self.multiplies else [])):
            ups[:lowest].requires_grad_(False)
        for part in self.fc.keys() & {"spade_s", "conv_s"}:
            for level, stack in enumerate(self._stacks(part)):
                stack.requires_grad_(self.widths[level] != self.widths[level + 1])

    def _stacks(self, part: str) -> nn.ModuleList:
        """Those of every level."""
        stacks = self.fc[part]
        assert isinstance(stacks, nn.ModuleList)
        return stacks

    def enter_average(self) -> None:
        """Another epsilon in the encoder of the references' labels."""
        if self.multiplies:
            for module in (self.ref_label_first, self.ref_label_down, self.ref_label_up):
                set_eps(module, self.params.eps_of_average)

    def forward(self, ref_images: Tensor, ref_labels: Tensor, label: Tensor) -> Generated:
        """N x K x C x H x W in [-1, 1], N x K x L x H x W, and the label of the frame, N x L x H x W."""
        start, encoded, attention, chosen = self._encode(ref_images, ref_labels, label)
        made = {part: self._make(part, encoded) for part in self.fc}
        maps = self.label_embedding(label, made.get("spade_e", ()))
        for_norms, for_convs = (
            [list(of_level) for of_level in zip(*(made[part] for part in parts if part in made))]
            for parts in (_SPADE, _CONV)
        )
        return Generated(start, maps, for_norms, for_convs, attention, chosen)

    def _encode(
        self, images: Tensor, labels: Tensor, label: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor | None, Tensor | None]:
        """The smallest features, those that weights are made from by level, attention and the reference that counts."""
        count = images.shape[1]
        flat = labels.flatten(0, 1)
        seen = images.flatten(0, 1)
        x = self.ref_img_first(torch.cat([seen, flat], dim=1) if self.concatenates else seen)
        of_label = self.ref_label_first(flat) if self.multiplies else None
        attention = chosen = None
        for level in range(self.depth):
            x = self.ref_img_down[level](x)
            of_label = None if of_label is None else self.ref_label_down[level](of_label)
            if count > 1 and self.attention_module is not None and level == self.attention_module.depth - 1:
                shares = self.attention_module(labels, label)
                x = _fuse(x, shares)
                of_label = None if of_label is None else _fuse(of_label, shares)
                attention = shares.unflatten(1, (count, -1)).sum(dim=2).unflatten(2, x.shape[-2:])
                chosen = attention.sum(dim=(2, 3)).argmax(dim=1)
        encoded = [self._features(x, of_label)]
        of_image = x
        for level in reversed(range(self.depth)):
            of_image = self.ref_img_up[level](of_image)
            of_label = None if of_label is None else self.ref_label_up[level](of_label)
            encoded.insert(0, self._features(of_image, of_label))
        return x, encoded, attention, chosen

    def _features(self, of_image: Tensor, of_label: Tensor | None) -> Tensor:
        """N x C x h x w, twice -> N x C x C, image channels by label channels; or pooled, N x C x P."""
        if of_label is None:
            return F.adaptive_avg_pool2d(of_image, _POOLED_PX).flatten(2)
        with full_precision(of_image):  # sums over all pixels
            exact = torch.promote_types(of_image.dtype, torch.float32)
            shares = of_label.to(exact).softmax(dim=1)
            return of_image.to(exact).flatten(2) @ shares.flatten(2).transpose(1, 2)

    def _make(self, part: str, encoded: Sequence[Tensor]) -> list[Weights]:
        """Of every level."""
        made = []
        for level, stack in enumerate(self._stacks(part)):
            features = encoded[min(level if part in _CONV else level + 1, self.depth)]
            rows = stack(features.flatten(0, 1)).reshape(len(features), -1)
            shape = self.shapes.weight(part, level)
            weight, bias = rows[:, : prod(shape)], rows[:, prod(shape) : prod(shape) + shape[0]]
            made.append(Weights(weight.unflatten(1, shape), bias))
        return made


_SPADE = ("spade_0", "spade_1", "spade_s")
_CONV = ("conv_0", "conv_1", "conv_s")
"""What is generated for a block: of its two layers, and of the one beside them."""

WEIGHT_GENERATOR_RULES: Rules = (
    (r"\b(ref_(?:img|label)_(?:down|up)|atn_(?:key|query))\.(\d+)\.", r"\1_\2."),
    (r"\bfc\.(\w+)\.(\d+)\.(\d+)\.", r"fc_\1_\2.\3.layers.conv."),
)
"""Rules from these names to the reference's (reference_names.py), for the network that has them."""


class _Shapes:
    """How many numbers each stack makes, and of which shape the weight is that they become."""

    def __init__(
        self, widths: Sequence[int], kernel_size: int, spade_kernel_size: int, embed: EmbedParams, params: HyperParams
    ) -> None:
        self.widths, self.k, self.spade_k, self.embed_k = widths, kernel_size, spade_kernel_size, embed.kernel_size
        self.has_decoder = embed.arch != "encoder"
        self.norm_first = params.hyper_block_order == "NAC"

    def row(self, part: str, level: int) -> int:
        """Numbers that a stack makes of each channel of images."""
        narrow, wide = self.widths[level], self.widths[level + 1]
        of_map = narrow * self.spade_k**2 + 1
        return {
            "spade_0": of_map * (2 if self.norm_first else 1),
            "spade_1": of_map * (1 if narrow != wide else 2),
            "spade_s": of_map * (2 if self.norm_first else 1),
            "spade_e": narrow * self.embed_k**2 + 1,
            "conv_0": wide * self.k**2 + 1,
            "conv_1": narrow * self.k**2 + 1,
            "conv_s": wide + 1,
        }[part]

    def weight(self, part: str, level: int) -> tuple[int, int, int, int]:
        """Outputs, inputs and kernel of a convolution."""
        narrow, wide = self.widths[level], self.widths[level + 1]
        modulated = 2 * (wide if self.norm_first else narrow)
        return {
            "spade_0": (modulated, narrow, self.spade_k, self.spade_k),
            "spade_1": (2 * narrow, narrow, self.spade_k, self.spade_k),
            "spade_s": (modulated, narrow, self.spade_k, self.spade_k),
            "spade_e": (*((narrow, wide) if self.has_decoder else (wide, narrow)), self.embed_k, self.embed_k),
            "conv_0": (narrow, wide, self.k, self.k),
            "conv_1": (narrow, narrow, self.k, self.k),
            "conv_s": (narrow, wide, 1, 1),
        }[part]


class _FullyConnected(nn.ModuleList):
    """Linear layers with a nonlinearity between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, num_layers: int) -> None:
        sizes = [inputs, *[hidden] * num_layers, outputs]
        super().__init__(linear(of_input, to, weight_norm="spectral") for of_input, to in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """M x inputs -> M x outputs."""
        *hidden, last = self
        for layer in hidden:
            x = F.leaky_relu(layer(x), LEAKY_SLOPE)
        return last(x)


class _Attention(nn.Module):
    """How much each place of each reference counts for each place of a frame."""

    def __init__(self, label_channels: int, max_num_filters: int, kernel: int, params: HyperParams) -> None:
        super().__init__()
        assert params.attention is not None
        self.depth = params.attention.num_downsamples
        widths = [min(max_num_filters, params.attention.num_filters * 2**i) for i in range(self.depth + 1)]
        self.atn_query_first = _layer(label_channels, widths[0], kernel, params)
        self.atn_key_first = _layer(label_channels, widths[0], kernel, params)
        pairs = list(pairwise(widths))
        self.atn_key = nn.ModuleList(_layer(of_input, to, kernel, params, stride=2) for of_input, to in pairs)
        self.atn_query = nn.ModuleList(_layer(of_input, to, kernel, params, stride=2) for of_input, to in pairs)

    def forward(self, labels: Tensor, label: Tensor) -> Tensor:
        """N x K x L x H x W of references, N x L x H x W -> shares N x (K h w) x (h w) that add up to 1 over places of
        references."""
        key, query = self.atn_key_first(labels.flatten(0, 1)), self.atn_query_first(label)
        for of_key, of_query in zip(self.atn_key, self.atn_query):
            key, query = of_key(key), of_query(query)
        with full_precision(key):
            key, query = (to_full_precision(x).flatten(2) for x in (key, query))
            by_place = key.unflatten(0, labels.shape[:2]).transpose(2, 3).flatten(1, 2)
            return (by_place @ query).softmax(dim=1)


def _fuse(features: Tensor, shares: Tensor) -> Tensor:
    """(N K) x C x h x w of references -> N x C x h x w: for each place of the frame a mean over those of references."""
    size = features.shape[-2:]
    by_place = features.unflatten(0, (len(shares), -1)).transpose(1, 2).flatten(2)
    return (by_place @ shares.to(features.dtype)).unflatten(2, size)


def _layer(
    inputs: int, outputs: int, kernel: int, params: HyperParams, *, stride: int = 1, eps: float = 1e-5
) -> ConvNormAct:
    conv = conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, weight_norm=params.weight_norm_type)
    norm = norm2d(params.activation_norm_type, outputs, NormParams(eps=eps))
    return ConvNormAct(conv, norm, nn.LeakyReLU(LEAKY_SLOPE))


def _check(widths: Sequence[int], layers: int, params: HyperParams, embed: EmbedParams, *, has_several: bool) -> None:
    """UserError if generated weights would not fit where they are needed, or if a part is missing."""
    depth = len(widths) - 2
    if layers > depth:
        what = f"is {layers}, but there are {depth} levels (num_downsamples)"
        raise UserError(what, where="hyper.num_hyper_layers", advice="lower it", code="too-deep")
    if params.is_hyper_embed and not params.is_hyper_spade:
        raise UserError("needs is_hyper_spade", where="hyper.is_hyper_embed", code="needs-key")
    if params.is_hyper_embed and layers and embed.arch == "unet":
        what = "is unet, whose layers cannot have generated weights (hyper.is_hyper_embed)"
        raise UserError(what, where="embed.arch", advice="choose encoderdecoder or encoder", code="misfit")
    must_double = params.hyper_block_order == "CNA" or (params.is_hyper_embed and embed.arch != "encoder")
    for narrow, wide in pairwise(widths[: layers + 1]) if params.is_hyper_spade else ():
        if wide != 2 * narrow and (must_double or wide != narrow):
            what = (
                f"is {layers}, but generated weights fit where the width doubles, not from {narrow} to {wide} channels"
            )
            advice = "lower it, or enlarge max_num_filters"
            raise UserError(what, where="hyper.num_hyper_layers", advice=advice, code="misfit")
    if has_several and params.attention is None:
        raise UserError("is needed for several references", where="hyper.attention", code="needs-key")
    if has_several and params.attention is not None and params.attention.num_downsamples > depth:
        what = f"is {params.attention.num_downsamples}, but there are {depth} levels (num_downsamples)"
        raise UserError(what, where="hyper.attention.num_downsamples", advice="lower it", code="too-deep")
