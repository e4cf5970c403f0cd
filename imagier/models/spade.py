"""SPADE / GauGAN: images from label maps.

Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, 2019.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.alternate import Updates, alternate
from imagier.errors import UserError
from imagier.losses.feature_matching import feature_matching
from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss, relativistic_logits
from imagier.losses.kl import gaussian_kl
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct, NoNorm, NormActConv
from imagier.nn.conv import Conv2d, WeightNorm, conv2d, linear
from imagier.nn.joint import Call, run_in_turn, run_jointly
from imagier.nn.label_maps import LabelMaps
from imagier.nn.label_parts import find_class_map, show_label, show_part
from imagier.nn.label_pyramid import LabelPyramid
from imagier.nn.norm import AdaptiveNorm, Norm, NormParams, PartialMap, SpatiallyAdaptiveNorm, norm2d
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.positions import PositionalChannels
from imagier.nn.reference_names import Rules
from imagier.nn.resize import round_to_multiple, to_rgb, upsample2x
from imagier.nn.size_probe import SizeProbe
from imagier.ranges import Count, NonNegative, Odd, Positive, PositiveFloat, Share
from imagier.recipe import Batch, Exported, InferenceInputs, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe

DISCRIMINATOR_MULTIPLE = 32
"""The feature pyramid of the discriminator halves images five times."""

MANY_CHANNELS = 16
"""From this number of label channels on it pays to find out which of them are 0 everywhere."""


@dataclass(frozen=True, kw_only=True)
class SpadeNormParams:
    """The spatially adaptive norms of the generator."""

    num_filters: Count = 128
    """Width of the hidden layer between the label map and scale and shift; 0 for none. [channels]"""
    kernel_size: Odd = 3
    """Height and width of the kernels of the convolutions on the label. [pixels]"""
    activation_norm_type: Norm = "sync_batch"
    """The norm without parameters from the label."""
    activation_norm_params: NormParams = NormParams()
    """Options of that norm."""
    separate_projection: bool = False
    """Scale and shift from two convolutions instead of one."""
    bias_only: bool = False
    """Shift, but do not scale."""
    weight_norm_type: WeightNorm | None = None
    """Weight norm of the convolutions on the label; null for that of the generator."""
    interpolation: Literal["nearest", "area", "bilinear", "bicubic"] = "nearest"
    """How the label map is resized to the size of a layer."""


@dataclass(frozen=True, kw_only=True)
class StyleEncoderParams:
    """The network that encodes the style of an image."""

    num_filters: Positive = 128
    """Width of the first layer; the next have twice, four times and eight times as much. [channels]"""
    kernel_size: Odd = 3
    """Height and width of the kernels of the convolutions. [pixels]"""
    weight_norm_type: WeightNorm | None = None
    """Weight norm of the convolutions; null for that of the generator."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial one."""

    gan: NonNegative
    """Adversarial loss, of generator and discriminator."""
    feature_matching: NonNegative
    """L1 between the patch discriminators' features of generated and of real images."""
    kl: NonNegative
    """KL divergence of the styles of images from a standard normal distribution."""
    perceptual: NonNegative = 0.0
    """Perceptual distance between generated and real images, as perceptual_loss says."""
    l1: NonNegative = 0.0
    """Mean absolute difference from the target, in [-1, 1] (not in the paper; stabilizes short trainings)."""


class Generator(nn.Module):
    """Label maps to images, with a style code or attributes if it has any."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        crop_h_w: tuple[int, int],
        num_filters: Positive = 128,
        kernel_size: Odd = 3,
        weight_norm_type: WeightNorm = "spectral",
        style_dims: Positive | None = None,
        attribute_dims: Positive | None = None,
        skip_activation_norm: bool = True,
        activation_norm_params: SpadeNormParams = SpadeNormParams(),
        global_adaptive_norm_type: Norm = "sync_batch",
        use_posenc_in_input_layer: bool = True,
        output_multiplier: PositiveFloat = 1.0,
        style_enc: StyleEncoderParams = StyleEncoderParams(),
        label_features: Positive | None = None,
    ) -> None:
        """num_filters: Base width: layers have 16 times as many channels at 1/16 of the size of an image, and twice as
            many at full size (crops of up to 256 pixels). [channels]
        kernel_size: Height and width of the kernels of the trunk's convolutions. [pixels]
        weight_norm_type: Norm of the weights of convolutions and of the layers of the style.
        style_dims: Size of the style code; null or 0: no style.
        attribute_dims: How many numbers per sample the data set gives as `attributes`, beside the style; null or 0:
            none.
        skip_activation_norm: Spatially adaptive norms also on the shortcuts of residual blocks.
        activation_norm_params: The spatially adaptive norms.
        global_adaptive_norm_type: The norm whose scale and shift the style and the attributes give.
        use_posenc_in_input_layer: Two more channels for the first layer: the vertical and the horizontal position of a
            pixel.
        output_multiplier: Factor of the output before the tanh.
        style_enc: The network that encodes the style of an image.
        label_features: Width of a pyramid of features that replaces the label map, for line art and other maps that
            mean nothing pixel by pixel; null uses the label map itself, as in the paper. [channels]
        """
        super().__init__()
        num_enhancers = _num_enhancers(crop_h_w)
        self.interpolation = activation_norm_params.interpolation
        self.pyramid: LabelPyramid | None = None
        if label_features is not None:
            self.pyramid = LabelPyramid(label_channels, label_features, num_halvings=4 + num_enhancers)
        self.style_dims = style_dims or 0
        self.attribute_dims = attribute_dims or 0
        if self.style_dims:
            self.encoder = StyleEncoder(
                image_channels=image_channels,
                style_dims=self.style_dims,
                num_filters=style_enc.num_filters,
                kernel_size=style_enc.kernel_size,
                weight_norm=style_enc.weight_norm_type or weight_norm_type,
            )
        parts = _Parts(
            label_channels=label_features or label_channels,
            image_channels=image_channels,
            should_append_label=label_features is not None,
            code_dims=self.style_dims + self.attribute_dims,
            kernel_size=kernel_size,
            weight_norm=weight_norm_type,
            skip_norm=skip_activation_norm,
            norm_params=activation_norm_params,
            global_norm=global_adaptive_norm_type,
        )
        self.decoder = Decoder(
            parts,
            num_filters=num_filters,
            num_enhancers=num_enhancers,
            has_positions=use_posenc_in_input_layer,
            output_multiplier=output_multiplier,
        )

    @property
    def size_multiple(self) -> int:
        """Heights and widths of its images are multiples of this."""
        return self.decoder.base

    def forward(
        self,
        label: Tensor,
        channels: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        images: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Label map N x L x H x W -> `fake_images` N x C x H x W in [-1, 1].

        With `channels` [K] the label map is N x K x H x W: those of the L channels that are not 0 everywhere.

        With a style: `noise` is N x style_dims, standard normal. Given `images` (N x C x H x W in [-1, 1]) their style
        is used, `noise` being its reparametrized part, and `mu` and `logvar` (N x style_dims) are returned too;
        without them `noise` is the style. `attributes` is N x attribute_dims.
        """
        code, posterior = noise, {}
        if images is not None and noise is not None:
            mu, logvar = self.encoder(images)
            code = mu + noise * torch.exp(logvar / 2)
            posterior = {"mu": mu, "logvar": logvar}
        if attributes is not None:
            code = attributes if code is None else torch.cat([code, attributes], dim=1)
        if self.pyramid is not None:
            maps = LabelMaps(self.pyramid(label, channels), None, self.interpolation, self.decoder.base)
        else:
            maps = LabelMaps([label], channels, self.interpolation, self.decoder.base)
        return {"fake_images": self.decoder(maps, code), **posterior}

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        conditional = "cbn" if self.decoder.style_mlp is not None else "conv"
        return (
            (r"^encoder\.layers\.", "style_encoder."),
            (r"^encoder\.(fc_\w+)\.", r"style_encoder.\1.layers.conv."),
            (r"^decoder\.style_mlp\.(fc_\d)\.", r"spade_generator.\1.layers.conv."),
            (r"^decoder\.head_styled\.", f"spade_generator.{conditional}_head_0."),
            (r"^decoder\.up\.(\d)\.(a|b)\.", r"spade_generator.up_\1\2."),
            (r"^decoder\.up\.(\d)\.styled\.", rf"spade_generator.{conditional}_up_\1a."),
            (r"^decoder\.to_image\.(\d+)\.", r"spade_generator.conv_img\1."),
            (r"^decoder\.", "spade_generator."),
        )


def _num_enhancers(crop_h_w: tuple[int, int]) -> int:
    """Number of upsampling stages beyond 256 px, by the crop of the training."""
    smallest = min(crop_h_w)
    enhancers = {512: 1, 1024: 2}
    if not DISCRIMINATOR_MULTIPLE <= smallest <= 256 and smallest not in enhancers:
        known = f"from {DISCRIMINATOR_MULTIPLE} to 256 px, of 512 px and of 1024 px"
        raise UserError(
            f"a crop of {smallest} px: SPADE is defined for crops {known}",
            advice="change random_crop_h_w or resize_h_w",
            code="crop-size",
        )
    return enhancers.get(smallest, 0)


class StyleEncoder(nn.Module):
    """Mean and log variance of the style of an image, which is resized to 256 x 256."""

    def __init__(
        self, *, image_channels: int, style_dims: int, num_filters: int, kernel_size: int, weight_norm: WeightNorm
    ) -> None:
        super().__init__()
        widths = [image_channels] + [num_filters * factor for factor in (1, 2, 4, 8, 8, 8)]
        self.layers = nn.ModuleDict()
        for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            conv = conv2d(inputs, outputs, kernel_size, stride=2, padding=kernel_size // 2, weight_norm=weight_norm)
            self.layers[f"layer{index}"] = ConvNormAct(conv, nn.Identity(), nn.LeakyReLU(LEAKY_SLOPE))
        self.fc_mu = linear(widths[-1] * 4 * 4, style_dims)
        self.fc_var = linear(widths[-1] * 4 * 4, style_dims)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """N x C x H x W in [-1, 1] -> mean and log variance, both N x style_dims."""
        x = F.interpolate(images, size=(256, 256), mode="bilinear")
        for layer in self.layers.values():
            x = layer(x)
        x = x.flatten(1)
        return self.fc_mu(x), self.fc_var(x)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Builds the parts of a decoder with common options."""

    label_channels: int
    image_channels: int
    should_append_label: bool
    code_dims: int
    kernel_size: int
    weight_norm: WeightNorm
    skip_norm: bool
    norm_params: SpadeNormParams
    global_norm: Norm

    def conv(self, inputs: int, outputs: int) -> Conv2d:
        """A convolution of the trunk."""
        return conv2d(inputs, outputs, self.kernel_size, padding=self.kernel_size // 2, weight_norm=self.weight_norm)

    def spade(self, channels: int) -> SpatiallyAdaptiveNorm:
        """A norm modulated by the label."""
        params = self.norm_params
        return SpatiallyAdaptiveNorm(
            channels,
            self.label_channels,
            norm=norm2d(params.activation_norm_type, channels, params.activation_norm_params),
            num_filters=params.num_filters,
            kernel_size=params.kernel_size,
            separate_projection=params.separate_projection,
            bias_only=params.bias_only,
            weight_norm=params.weight_norm_type or self.weight_norm,
        )

    def conditional_conv(self, inputs: int, outputs: int) -> NormActConv:
        """A convolution with an adaptive norm before it; without a norm if there is no code."""
        norm: nn.Module = NoNorm()
        if self.code_dims:
            affine = self.norm_params.activation_norm_params.affine
            norm = AdaptiveNorm(
                inputs,
                2 * self.code_dims,
                norm=norm2d(self.global_norm, inputs, NormParams(affine=affine)),
                separate_projection=self.norm_params.separate_projection,
                weight_norm=self.norm_params.weight_norm_type or self.weight_norm,
            )
        return NormActConv(norm, nn.LeakyReLU(LEAKY_SLOPE), self.conv(inputs, outputs))

    def stage(self, inputs: int, middle: int, outputs: int, *, is_styled: bool) -> Stage:
        """Two blocks, with a convolution under the code between them if `is_styled`."""
        between = self.conditional_conv(middle, middle) if is_styled else None
        return Stage(SpadeBlock(inputs, middle, self), between, SpadeBlock(middle, outputs, self))

    def image(self, inputs: int, *, upsample: bool = False) -> NormActConv:
        """Features to an image, before the tanh; of twice the size if `upsample`."""
        inputs += self.label_channels * self.should_append_label
        conv = conv2d(inputs, self.image_channels, 5, padding=2, weight_norm=self.weight_norm, upsample=upsample)
        return NormActConv(NoNorm(), nn.LeakyReLU(LEAKY_SLOPE), conv)


class Decoder(nn.Module):
    """From a coarse label map to an image; every block is modulated by the label map at its own size."""

    def __init__(
        self, parts: _Parts, *, num_filters: int, num_enhancers: int, has_positions: bool, output_multiplier: float
    ) -> None:
        super().__init__()
        self.base = 16 * 2**num_enhancers
        self.label_channels = parts.label_channels
        self.should_append_label = parts.should_append_label
        self.output_multiplier = output_multiplier
        f = num_filters
        self.style_mlp = StyleMLP(parts.code_dims, parts.weight_norm) if parts.code_dims else None
        self.positions = PositionalChannels() if has_positions else None
        head = parts.conv(parts.label_channels + 2 * has_positions, 8 * f)
        self.head_0 = ConvNormAct(head, nn.Identity(), nn.LeakyReLU(LEAKY_SLOPE))
        self.head_styled = parts.conditional_conv(8 * f, 16 * f)
        self.head_1 = SpadeBlock(16 * f, 16 * f, parts)
        self.head_2 = SpadeBlock(16 * f, 16 * f, parts)
        widths = [(16 * f, 8 * f, 8 * f), (8 * f, 4 * f, 4 * f), (4 * f, 4 * f, 2 * f)]
        self.up = nn.ModuleList(parts.stage(*of_stage, is_styled=True) for of_stage in widths)
        self.is_upsampled_last = not num_enhancers and not parts.should_append_label
        self.to_image = nn.ModuleDict({"256": parts.image(2 * f, upsample=self.is_upsampled_last)})
        for level, inputs in zip(range(num_enhancers), (2 * f, f)):
            self.up.append(parts.stage(inputs, inputs // 2, inputs // 2, is_styled=False))
            self.to_image[str(512 * 2**level)] = parts.image(inputs // 2)

    def forward(self, maps: LabelMaps, code: Tensor | None) -> Tensor:
        """Label and code N x code_dims -> image in (-1, 1), N x C x H x W, sides rounded down to `base`."""
        if self.style_mlp is not None:
            code = self.style_mlp(code)
        coarse = self._coarse(maps)
        x = self.head_styled(self.head_0(coarse.map, channels=coarse.channels), code)
        scale = self.base
        x = self.head_2(self.head_1(x, maps.at(scale)), maps.at(scale))
        stages = list(self.up)
        for stage in stages[:3]:
            scale //= 2
            x = stage(upsample2x(x), code, maps.at(scale))
        first, *finer = self.to_image.values()
        if not self.is_upsampled_last:
            x, scale = upsample2x(x), scale // 2
        image = first(self._append_label(x, maps, scale), None)
        for stage, to_image in zip(stages[3:], finer):
            x, scale = upsample2x(stage(x, None, maps.at(scale))), scale // 2
            image = upsample2x(image) + to_image(self._append_label(x, maps, scale), None)
        return torch.tanh(self.output_multiplier * image)

    def _coarse(self, maps: LabelMaps) -> PartialMap:
        coarse = maps.coarse()
        return (
            coarse if self.positions is None else _concatenate(coarse, self.positions(coarse.map), self.label_channels)
        )

    def _append_label(self, x: Tensor, maps: LabelMaps, scale: int) -> Tensor:
        return torch.cat([x, maps.at(scale).map], dim=1) if self.should_append_label else x


class Stage(nn.Module):
    """Two blocks at one size, with a convolution under the code between them or without."""

    def __init__(self, a: SpadeBlock, styled: NormActConv | None, b: SpadeBlock) -> None:
        super().__init__()
        self.a = a
        self.styled = styled
        self.b = b

    def forward(self, x: Tensor, code: Tensor | None, label: PartialMap) -> Tensor:
        """N x C x H x W and the label at that size -> N x C' x H x W."""
        x = self.a(x, label)
        if self.styled is not None:
            x = self.styled(x, code)
        return self.b(x, label)


class SpadeBlock(nn.Module):
    """Residual block with SPADE norms (Park et al. 2019, figure 4)."""

    is_block = True

    def __init__(self, inputs: int, outputs: int, parts: _Parts) -> None:
        super().__init__()
        hidden = min(inputs, outputs)
        self.block_0 = NormActConv(parts.spade(inputs), nn.LeakyReLU(LEAKY_SLOPE), parts.conv(inputs, hidden))
        self.block_1 = NormActConv(parts.spade(hidden), nn.LeakyReLU(LEAKY_SLOPE), parts.conv(hidden, outputs))
        self.shortcut: nn.Module | None = None
        if inputs != outputs:
            norm = parts.spade(inputs) if parts.skip_norm else NoNorm()
            conv = conv2d(inputs, outputs, 1, bias=False, weight_norm=parts.weight_norm)
            self.shortcut = NormActConv(norm, nn.Identity(), conv)

    def forward(self, x: Tensor, label: PartialMap) -> Tensor:
        """N x inputs x H x W and the label at that size -> N x outputs x H x W."""
        dx = self.block_1(self.block_0(x, label), label)
        return dx + (x if self.shortcut is None else self.shortcut(x, label))


class StyleMLP(nn.Module):
    """Two layers between the code and the norms that it modulates."""

    def __init__(self, code_dims: int, weight_norm: WeightNorm) -> None:
        super().__init__()
        self.fc_0 = linear(code_dims, 2 * code_dims, weight_norm=weight_norm)
        self.fc_1 = linear(2 * code_dims, 2 * code_dims, weight_norm=weight_norm)

    def forward(self, code: Tensor) -> Tensor:
        """N x code_dims -> N x 2 code_dims."""
        return F.relu(self.fc_1(F.relu(self.fc_0(code))))


def _concatenate(label: PartialMap, others: Tensor, label_channels: int) -> PartialMap:
    """A label map with further channels appended."""
    x = torch.cat([label.map, others], dim=1)
    if label.channels is None:
        return PartialMap(x, None)
    own = torch.arange(label_channels, label_channels + others.shape[1], device=x.device)
    return PartialMap(x, torch.cat([label.channels, own]))


class Discriminator(nn.Module):
    """Patch discriminators at several scales, and a feature pyramid that compares the image with its label map."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        kernel_size: Positive = 3,
        num_filters: Positive = 128,
        max_num_filters: Positive = 512,
        num_discriminators: Positive = 2,
        num_layers: Count = 5,
        activation_norm_type: Norm = "none",
        weight_norm_type: WeightNorm = "spectral",
        use_fpse: bool = True,
        fpse_kernel_size: Odd = 3,
        fpse_activation_norm_type: Norm = "none",
    ) -> None:
        """kernel_size: Height and width of the kernels of the patch discriminators. [pixels]
        num_filters: Width of the first layer of each discriminator; it doubles from layer to layer. [channels]
        max_num_filters: Largest width of the patch discriminators. [channels]
        num_discriminators: Patch discriminators: the first sees images at full size, each other one at half the size of
            the one before.
        num_layers: Layers of a patch discriminator after the first, the score aside; all but the last of them halve the
            size.
        activation_norm_type: Norm after each convolution of the patch discriminators but the last.
        weight_norm_type: Norm of the weights of convolutions.
        use_fpse: Also compare image and label map in a pyramid of features (CC-FPSE, Liu et al. 2019).
        fpse_kernel_size: Height and width of the kernels of the pyramid. [pixels]
        fpse_activation_norm_type: Norm after the pyramid's convolutions.
        """
        super().__init__()
        self.label_channels = label_channels
        self.patch = MultiScalePatchDiscriminator(
            label_channels + image_channels,
            num_discriminators=num_discriminators,
            num_filters=num_filters,
            max_num_filters=max_num_filters,
            num_layers=num_layers,
            kernel_size=kernel_size,
            activation_norm_type=activation_norm_type,
            weight_norm_type=weight_norm_type,
        )
        self.fpse: FeaturePyramidDiscriminator | None = None
        if use_fpse:
            self.fpse = FeaturePyramidDiscriminator(
                label_channels,
                image_channels,
                num_filters=num_filters,
                kernel_size=fpse_kernel_size,
                norm=fpse_activation_norm_type,
                weight_norm=weight_norm_type,
            )

    def forward(
        self, label: Tensor, images: Tensor, channels: Tensor | None = None
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """N x L x H x W, N x C x H x W -> scores of each discriminator (the pyramid's first), features of each patch
        discriminator and layer.

        `channels` as in the generator.
        """
        compared = [] if self.fpse is None else self.fpse(label, images, channels)
        scores, features = self.patch(*_concatenate(PartialMap(label, channels), images, self.label_channels))
        return compared + scores, features

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return (
            (r"^patch\.discriminators\.(\d)\.layers\.(\d+)\.", r"discriminators.\1.layer\2.0."),
            (r"^fpse\.(output|seg|embedding)\.", r"fpse_discriminator.\1.layers.conv."),
            (r"^fpse\.", "fpse_discriminator."),
        )


class FeaturePyramidDiscriminator(nn.Module):
    """Compares images and label maps in a semantic space at three scales (Liu et al., CC-FPSE, 2019, section 3.3)."""

    def __init__(
        self,
        label_channels: int,
        image_channels: int,
        *,
        num_filters: int,
        kernel_size: int,
        norm: Norm,
        weight_norm: WeightNorm,
    ) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int, stride: int) -> ConvNormAct:
            conv = conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, weight_norm=weight_norm)
            return ConvNormAct(conv, norm2d(norm, outputs), nn.LeakyReLU(LEAKY_SLOPE))

        f, k = num_filters, kernel_size
        self.enc1 = layer(image_channels, f, k, 2)
        self.enc2 = layer(f, 2 * f, k, 2)
        self.enc3 = layer(2 * f, 4 * f, k, 2)
        self.enc4 = layer(4 * f, 8 * f, k, 2)
        self.enc5 = layer(8 * f, 8 * f, k, 2)
        self.lat2 = layer(2 * f, 4 * f, 1, 1)
        self.lat3 = layer(4 * f, 4 * f, 1, 1)
        self.lat4 = layer(8 * f, 4 * f, 1, 1)
        self.lat5 = layer(8 * f, 4 * f, 1, 1)
        self.final2 = layer(4 * f, 2 * f, k, 1)
        self.final3 = layer(4 * f, 2 * f, k, 1)
        self.final4 = layer(4 * f, 2 * f, k, 1)
        self.output = conv2d(2 * f, 1, 1)
        self.seg = conv2d(2 * f, 2 * f, 1)
        self.embedding = conv2d(label_channels, 2 * f, 1)

    def forward(self, label: Tensor, images: Tensor, channels: Tensor | None) -> list[Tensor]:
        """Label and image, sides divisible by 32, -> scores N x 1 x h x w at 1/4, 1/8 and 1/16 of the size."""
        e2 = self.enc2(self.enc1(images))
        e3 = self.enc3(e2)
        e4 = self.enc4(e3)
        t5 = self.lat5(self.enc5(e4))
        t4 = _upsample2x_bilinear(t5) + self.lat4(e4)
        t3 = _upsample2x_bilinear(t4) + self.lat3(e3)
        t2 = _upsample2x_bilinear(t3) + self.lat2(e2)
        # The embedding is linear: that of the mean is the mean of all, and far cheaper.
        embedded = self.embedding(F.avg_pool2d(label, 4), channels)
        scores = []
        for x in (self.final2(t2), self.final3(t3), self.final4(t4)):
            scores.append(self.output(x) + (embedded * self.seg(x)).sum(dim=1, keepdim=True))
            embedded = F.avg_pool2d(embedded, 2)
        return scores


def _upsample2x_bilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


class Recipe(BaseRecipe):
    """Training of SPADE: adversarial, with feature matching, a perceptual loss, and a KL loss on the style."""

    required_inputs: ClassVar[Sequence[str]] = ("images", "label")
    steps_keys: ClassVar[Sequence[str]] = ("dis_step", "gen_step")
    normalized_inputs: ClassVar[Sequence[str]] = ("images",)
    log_names: ClassVar[Mapping[str, str]] = {
        "gan": "GAN",
        "feature_matching": "FeatureMatching",
        "kl": "GaussianKL",
        "perceptual": "Perceptual",
        "l1": "L1",
    }

    def __init__(
        self,
        *,
        gen: Generator,
        dis: Discriminator,
        label_lengths: Mapping[str, int],
        one_hot: Collection[str] = (),
        normalized: Collection[str] = (),
        gan_mode: GanMode,
        loss_weight: LossWeights,
        perceptual_loss: PerceptualConfig | None = None,
        gan_relativistic: bool = False,
        gan_decay_k: Share = 1.0,
        gan_min_k: Share = 1.0,
        gan_separate_topk: bool = False,
        gen_step: int = 1,
        dis_step: int = 1,
        reference_order: bool = False,
    ) -> None:
        """label_lengths: channels of each type in the label, in order.
        one_hot: types with a channel per class.
        normalized: types in [-1, 1] instead of [0, 1].
        gan_mode: The adversarial loss: hinge (Lim & Ye 2017), least_square (Mao et al. 2017), non_saturated or softplus
            (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017).
        loss_weight: Factor of each loss in the total.
        perceptual_loss: The perceptual loss; needed if its weight is not 0.
        gan_relativistic: Logits less those of the opposite images (Jolicoeur-Martineau 2018).
        gan_decay_k: The generator learns from the share max(gan_decay_k ^ epoch, gan_min_k) of its patches, those with
            the largest logits (Sinha et al. 2020); 1: from all.
        gan_min_k: Smallest such share.
        gan_separate_topk: Take the largest logits of each image instead of those of the batch.
        gen_step: Updates of the generator per iteration, each on a batch of its own. [updates]
        dis_step: Updates of the discriminator per iteration, before those of the generator. [updates]
        reference_order: A forward of the generator for each update, as in the reference, instead of one for both;
            slower, with other random numbers.
        """
        self.gen = gen
        self.dis = dis
        self.size_multiple = math.lcm(DISCRIMINATOR_MULTIPLE, gen.size_multiple)
        self.gen_sizes = SizeProbe(gen, _paint, where="gen", multiple=self.size_multiple)
        keys = "num_layers or num_discriminators"
        self.dis_sizes = SizeProbe(dis, where="dis", multiple=self.size_multiple, depth_keys=keys)
        self.label_lengths = label_lengths
        self.one_hot = one_hot
        self.normalized = normalized
        self.run = run_in_turn if reference_order else run_jointly
        self.updates = Updates(dis_step, gen_step, can_share_forward=not reference_order)
        self.loss_weight = asdict(loss_weight)
        if dis_step:
            self.check_weights("gan")
        self.gan_mode: GanMode = gan_mode
        self.is_relativistic = gan_relativistic
        self.topk_decay, self.topk_min, self.topk_per_sample = gan_decay_k, gan_min_k, gan_separate_topk
        self.perceptual_config = perceptual_loss
        self.perceptual: PerceptualLoss | None = None

    def load_losses(self) -> Sequence[nn.Module]:
        self.perceptual = PerceptualLoss.create_if_weighted(self.perceptual_config, self.loss_weight["perceptual"])
        return () if self.perceptual is None else (self.perceptual,)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """One iteration: updates of the discriminator, then of the generator against the updated discriminator."""
        yield from alternate(
            self.prepare(batch),
            ctx,
            self.updates,
            generate=lambda part: self.generate(part, ctx.rng),
            dis_losses=self.dis_losses,
            gen_losses=lambda part, fake: self.gen_losses(part, fake, ctx),
        )

    def prepare(self, batch: Batch) -> Batch:
        """Resizes images (bicubic) and labels (nearest) to sides that both networks can halve often enough."""
        names = ("label", "images")
        self.gen_sizes.check(batch.tensors, names)
        resized = round_to_multiple(batch.tensors, names, self.size_multiple)
        return _mark_present_channels(batch.replace(**resized))

    def generate(
        self, batch: Batch, rng: torch.Generator, *, random_style: bool = False, noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The generator's outputs; the style is that of `images`, or random. `noise`: N x style_dims, drawn if None."""
        images = None
        if self.gen.style_dims:
            if noise is None:
                shape = (len(batch), self.gen.style_dims)
                noise = torch.randn(shape, generator=rng, device=batch["label"].device)
            images = None if random_style else _style_images(batch)
        attributes = _attributes(batch) if self.gen.attribute_dims else None
        with self.gen_sizes.explain(label=batch["label"]):
            return self.gen(*_partial_label(batch), noise=noise, images=images, attributes=attributes)

    def discriminate(self, batch: Batch, fake: Tensor, *, should_learn_from_real: bool) -> dict[str, Any]:
        """Scores and features of real and generated images; of real ones with a graph if should_learn_from_real."""
        label, channels = _partial_label(batch)
        with self.dis_sizes.explain(label=batch["label"], images=batch["images"]):
            calls: list[Call] = [(self.dis, (label, images)) for images in (batch["images"], fake)]
            if should_learn_from_real:
                (real_outputs, real_features), (fake_outputs, fake_features) = self.run(calls, channels=channels)
            else:
                with torch.no_grad():
                    real_outputs, real_features = self.dis(*calls[0][1], channels)
                fake_outputs, fake_features = self.dis(*calls[1][1], channels)
        return {
            "real_outputs": real_outputs,
            "real_features": real_features,
            "fake_outputs": fake_outputs,
            "fake_features": fake_features,
        }

    def dis_losses(self, batch: Batch, fake: dict[str, Tensor]) -> Losses:
        """The losses of the discriminator."""
        verdict = self.discriminate(batch, fake["fake_images"].detach(), should_learn_from_real=True)
        real, fake_ = self._gan_logits(verdict)
        return {"gan/fake": dis_fake_loss(fake_, self.gan_mode), "gan/true": dis_real_loss(real, self.gan_mode)}

    def gen_losses(self, batch: Batch, fake: dict[str, Tensor], ctx: StepContext) -> Losses:
        """The losses of the generator."""
        images, target = fake["fake_images"], batch["images"]
        verdict = self.discriminate(batch, images, should_learn_from_real=False)
        keep = max(self.topk_decay**ctx.epoch, self.topk_min)
        losses = {"gan": gen_loss(self._gan_logits(verdict)[1], self.gan_mode, keep, self.topk_per_sample)}
        if self.loss_weight["feature_matching"]:
            losses["feature_matching"] = feature_matching(verdict["fake_features"], verdict["real_features"])
        if self.loss_weight["kl"]:
            losses["kl"] = gaussian_kl(fake["mu"], fake["logvar"]) if "mu" in fake else images.new_zeros(())
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(images, target)
        if self.loss_weight["l1"]:
            losses["l1"] = l1(images, target)
        return losses

    def _gan_logits(self, verdict: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        real, fake = verdict["real_outputs"], verdict["fake_outputs"]
        return (
            (relativistic_logits(real, to=fake), relativistic_logits(fake, to=real))
            if self.is_relativistic
            else (real, fake)
        )

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        verdict = self.discriminate(batch, self.generate(batch, rng)["fake_images"], should_learn_from_real=False)
        return center_logits(verdict["real_outputs"], self.gan_mode), center_logits(
            verdict["fake_outputs"], self.gan_mode
        )

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return to_rgb(self.generate(batch, rng, random_style=True)["fake_images"])

    def target(self, batch: Batch) -> Tensor:
        return to_rgb(batch["images"])

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """The label itself, if it is an image, such as line art."""
        if self.one_hot or list(self.label_lengths.values()) not in ([1], [2], [3], [4]):
            return {}
        (name,) = self.label_lengths
        return {f"{name} as they are": show_part(batch["label"], is_normalized=name in self.normalized)}

    def class_map(self, batch: Batch) -> Tensor | None:
        return find_class_map(batch["label"], self.label_lengths, self.one_hot)

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        columns = show_label(batch["label"], self.label_lengths, self.one_hot, self.normalized)
        return {"images": to_rgb(batch["images"]), **columns}

    def inference_inputs(self, **inference_args: Any) -> InferenceInputs:
        if not self.gen.style_dims:
            return InferenceInputs(content=("label",))
        of_images = {"random_style": False, "use_fixed_random_style": False}
        content, at_random = ("label",), {"random_style": True}
        return InferenceInputs(content=content, style="images", from_images=of_images, at_random=at_random)

    def infer(
        self,
        batch: Batch,
        rng: torch.Generator,
        *,
        random_style: bool = False,
        use_fixed_random_style: bool = False,
        keep_original_size: bool = False,
        seed: int = 0,
    ) -> list[Tensor]:
        """One image per sample; in random styles, in one for all (by `seed`), or in those of `images`.

        random_style: A random style for each image instead of that of the data's own image.
        use_fixed_random_style: The same random style for all images, drawn from the seed of the run.
        keep_original_size: Resize each image, by nearest neighbor, to the size of its file.
        """
        noise = None
        if use_fixed_random_style and self.gen.style_dims:
            fixed = torch.Generator(rng.device).manual_seed(seed)
            noise = torch.randn((1, self.gen.style_dims), generator=fixed, device=rng.device).expand(len(batch), -1)
        fake = self.generate(batch, rng, random_style=random_style or use_fixed_random_style, noise=noise)
        images = list(fake["fake_images"].float())
        if keep_original_size:
            sizes = batch["original_h_w"].tolist()
            images = [F.interpolate(x[None], size=size, mode="nearest")[0] for x, size in zip(images, sizes)]
        return images

    def export_network(
        self, batch: Batch, rng: torch.Generator, *, random_style: bool = False, **others: Any
    ) -> Exported:
        inputs = {"label": batch["label"]}
        if self.gen.style_dims and (random_style or others.get("use_fixed_random_style")):
            inputs["noise"] = torch.randn((len(batch), self.gen.style_dims), generator=rng, device=rng.device)
        elif self.gen.style_dims:
            inputs["style_images"] = _style_images(batch)
        if self.gen.attribute_dims:
            inputs["attributes"] = _attributes(batch)
        return Painter(self.gen), inputs


class Painter(nn.Module):
    """The generator as it is exported. The style is the code `noise`, or the mean of the codes of an image."""

    def __init__(self, gen: Generator) -> None:
        super().__init__()
        self.gen = gen

    def forward(
        self,
        label: Tensor,
        noise: Tensor | None = None,
        style_images: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> Tensor:
        """N x L x H x W and what there is of the others -> N x C x H x W in [-1, 1]."""
        code = noise if style_images is None else self.gen.encoder(style_images)[0]
        return self.gen(label, noise=code, attributes=attributes)["fake_images"]


def _paint(gen: Generator, label: Tensor, images: Tensor | None = None) -> dict[str, Tensor]:
    """The generator in any style, for the SizeProbe."""
    noise = label.new_zeros(len(label), gen.style_dims) if gen.style_dims else None
    attributes = label.new_zeros(len(label), gen.attribute_dims) if gen.attribute_dims else None
    return gen(label, noise=noise, attributes=attributes)


def _style_images(batch: Batch) -> Tensor:
    if "images" not in batch:
        what, advice = "the style is taken from `images`, which the data lack", "set inference_args.random_style: true"
        raise UserError(what, advice=advice, code="no-style-image")
    return batch["images"]


def _attributes(batch: Batch) -> Tensor:
    if "attributes" not in batch:
        raise UserError(
            "needs `attributes`, so many numbers for each sample, which the data lack",
            where="gen.attribute_dims",
            advice="remove it, or use a data set type of your own that makes them",
            code="no-attributes",
        )
    return batch["attributes"].squeeze(1)


def _mark_present_channels(batch: Batch) -> Batch:
    """Adds `label_present` N x L, on the CPU: which label channels of each sample are not 0, if the loader has not.

    Of many classes, few are present. Not on an accelerator, which would have to be waited for.
    """
    label = batch["label"]
    if "label_present" in batch or not label.is_cpu or label.shape[1] < MANY_CHANNELS:
        return batch
    return batch.replace(label_present=(label != 0).flatten(2).any(dim=2))


def _partial_label(batch: Batch) -> PartialMap:
    """The label map without the channels that are 0 in the whole batch, if these are known.

    Convolutions over it give the same numbers at a fraction of the cost.
    """
    label = batch["label"]
    if "label_present" not in batch or label.shape[1] < MANY_CHANNELS:
        return PartialMap(label, None)
    present = batch["label_present"].any(dim=0)
    present[0] |= ~present.any()  # convolutions need at least one input channel
    if not label.is_cpu:  # kernels there are chosen anew for every number of channels, and are made for multiples of 8
        present[(~present).nonzero()[: -int(present.sum()) % 8, 0]] = True
    channels = present.nonzero()[:, 0].to(label.device, non_blocking=True)
    return PartialMap(label.index_select(1, channels), channels)
