"""The generator of videos from label maps, frame by frame, each from the ones before it.

Wang et al., Video-to-Video Synthesis, 2018, with the spatially adaptive norms of few-shot vid2vid (2019), and the
guidance of world-consistent vid2vid (Mallya et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.blocks import LEAKY_SLOPE, NoNorm, NormActConv, ResBlock
from imagier.nn.conv import WeightNorm, conv2d, linear
from imagier.nn.flow_network import CombineParams, FlowNetwork, FlowParams
from imagier.nn.label_embedder import EmbedParams, LabelEmbedder
from imagier.nn.norm import MULTI_SPADE_RULES, MultiSpatiallyAdaptiveNorm, Norm, NormParams, norm2d
from imagier.nn.poses import PoseType, filter_pose_label
from imagier.nn.reference_names import Rules
from imagier.nn.resize import upsample2x
from imagier.nn.warp import warp
from imagier.ranges import Count, Odd


@dataclass(frozen=True, kw_only=True)
class MultiSpadeParams:
    """The spatially adaptive norms of the generator."""

    num_filters: Count | list[Count] = 0
    """Width of a hidden layer between a map's features and scale and shift; 0 for none. A list: of each map, the label
    first, then the warped frame (in the last blocks), then the guidance, if there is one. [channels]"""
    kernel_size: Odd = 3
    """Height and width of the kernels of the convolutions on the features. [pixels]"""
    activation_norm_type: Norm = "sync_batch"
    """The norm without parameters from a map."""
    activation_norm_params: NormParams | None = None
    """Options of that norm; null: without a scale and a shift of its own."""
    separate_projection: bool = False
    """Scale and shift from two convolutions instead of one."""
    weight_norm_type: WeightNorm = "none"
    """Norm of the weights of the convolutions on the features."""


@dataclass(frozen=True, kw_only=True)
class GuidanceParams:
    """How what is known of the world's colors modulates the last layers."""

    partial_conv: bool = False
    """Leave layers as they are where no color is known (partial convolutions)."""
    only_with_flow: bool = False
    """Guide just those layers that the warped frame modulates, too."""
    start_from: Count = 0
    """The first frame of a clip that is guided, and that colors points. [frames]"""


class _Map(NamedTuple):
    """What modulates a block."""

    channels: int
    is_masked: bool = False
    """It is known in some places alone (see MultiSpatiallyAdaptiveNorm)."""


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Builds the parts of a generator with common options."""

    num_filters: int
    max_num_filters: int
    kernel_size: int
    weight_norm: WeightNorm
    norm_params: MultiSpadeParams
    conditions: Sequence[Sequence[_Map]]
    """The maps that modulate a block, by its level; deeper levels are as the last."""

    def width(self, level: int) -> int:
        """Channels at 1 / 2^level of the full size."""
        return min(self.max_num_filters, self.num_filters * 2**level)

    def conv(self, inputs: int, outputs: int) -> nn.Module:
        """A convolution of the trunk without any norm."""
        return conv2d(inputs, outputs, self.kernel_size, padding=self.kernel_size // 2)

    def block(self, inputs: int, outputs: int, level: int) -> ResBlock:
        """A residual block that the maps of a level modulate."""
        p = self.norm_params
        maps = self.conditions[min(level, len(self.conditions) - 1)]

        def norm(channels: int) -> nn.Module:
            inner = norm2d(p.activation_norm_type, channels, p.activation_norm_params or NormParams(affine=False))
            return MultiSpatiallyAdaptiveNorm(
                channels,
                [each.channels for each in maps],
                norm=inner,
                is_masked=[each.is_masked for each in maps],
                num_filters=p.num_filters,
                kernel_size=p.kernel_size,
                separate_projection=p.separate_projection,
                weight_norm=p.weight_norm_type,
            )

        return ResBlock(
            inputs,
            outputs,
            norm=norm,
            act=lambda: nn.LeakyReLU(LEAKY_SLOPE),
            order="NACNAC",
            kernel_size=self.kernel_size,
            weight_norm=self.weight_norm,
        )


class FrameGenerator(nn.Module):
    """A frame from its label map and from the labels and frames before it; the keys are those of models/vid2vid.py."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        crop_h_w: tuple[int, int],
        num_frames: int,
        num_layers: int,
        num_downsamples_img: int,
        num_filters: int,
        max_num_filters: int,
        kernel_size: int,
        weight_norm_type: WeightNorm,
        activation_norm_params: MultiSpadeParams,
        style_dims: int,
        use_segmap_as_input: bool,
        embed: EmbedParams,
        flow: FlowParams,
        pose_type: PoseType | None,
        remove_face_labels: bool,
        guidance: GuidanceParams | None = None,
    ) -> None:
        """guidance: how what is known of the world's colors modulates the last layers; None: nothing is."""
        super().__init__()
        self.pose_type, self.remove_face_labels = pose_type, remove_face_labels
        label_channels -= 3 if pose_type == "open" else 0
        self.num_frames, self.num_layers, self.joint = num_frames, num_layers, num_downsamples_img
        combine = flow.multi_spade_combine
        self.should_combine = combine is not None
        self.num_combined = combine.num_layers if combine else 0
        self.num_guided = 0 if guidance is None else self.num_combined if guidance.only_with_flow else num_layers + 1
        self.has_raw_output = flow.generate_raw_output and self.should_combine
        self.size_multiple = 2 ** max(
            num_layers, embed.num_downsamples, flow.num_downsamples, combine.embed.num_downsamples if combine else 0
        )
        self.label_embedding = LabelEmbedder(label_channels, embed)
        self.flow_network = FlowNetwork(label_channels, image_channels, num_frames, flow)
        self.warped_embedding = LabelEmbedder(image_channels + 1, combine.embed) if combine else None
        parts = _Parts(
            num_filters=num_filters,
            max_num_filters=max_num_filters,
            kernel_size=kernel_size,
            weight_norm=weight_norm_type,
            norm_params=activation_norm_params,
            conditions=_list_conditions(self.label_embedding, self.warped_embedding, combine, guidance),
        )
        width = parts.width
        self.up = nn.ModuleList(parts.block(width(i + 1), width(i), i) for i in range(num_layers + 1))
        self.conv_img = NormActConv(NoNorm(), nn.LeakyReLU(LEAKY_SLOPE), parts.conv(num_filters, image_channels))
        start_size = _find_start_size(crop_h_w, num_layers, num_downsamples_img)
        self.frame_size = start_size[0] << num_layers, start_size[1] << num_layers
        self.start: nn.Module = _StartFromLabel(label_channels, width(num_layers + 1), start_size)
        if not use_segmap_as_input:
            self.start = _StartFromCode(style_dims, width(num_layers + 1), start_size)
        joint = num_downsamples_img + 1
        self.down_first = parts.conv(image_channels, num_filters)
        self.down = nn.ModuleList(parts.block(width(i), width(i + 1), i) for i in range(joint))
        num_res = 2 * ceil((num_layers - num_downsamples_img) / 2)
        self.res = nn.ModuleList(parts.block(width(joint), width(joint), joint) for _ in range(num_res))
        modulated = min(max(self.num_combined, self.num_guided), joint)
        for block in (*self.up[modulated:], *self.down, *self.res):
            _freeze_unused(block)  # these see the label alone, but checkpoints hold weights for more

    def forward(
        self,
        label: Tensor,
        prev_labels: Tensor | None = None,
        prev_images: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """N x L x H x W; labels and frames before, the oldest first, N x P x ..., P < num_frames, frames in [-1, 1].

        guidance: N x (C + 1) x H x W, as nn/point_cloud.py renders it. -> `fake_images` N x C x H x W in [-1, 1]. With
        num_frames - 1 frames before, and only then guided, also `fake_flow_maps` (nn/warp.py), `fake_occlusion_masks`
        N x 1 x H x W and `warped_images`; with a raw output `fake_raw_images`; the guidance as
        `guidance_images_and_masks`. Sides must be divisible by `size_multiple`.
        """
        given = {} if guidance is None else {"guidance_images_and_masks": guidance}
        label = filter_pose_label(label, self.pose_type, should_remove_face=self.remove_face_labels)
        maps = self.label_embedding(label)
        if prev_labels is None or prev_images is None:
            return self._paint(self._begin(label, maps), maps, {}) | given
        prev_labels = filter_pose_label(prev_labels, self.pose_type, should_remove_face=self.remove_face_labels)
        x = self._encode(prev_images[:, -1], self.label_embedding(prev_labels[:, -1]), maps)
        warped: dict[str, Tensor] = {}
        if prev_images.shape[1] == self.num_frames - 1:
            flow, mask = self.flow_network(torch.cat([prev_labels, label[:, None]], dim=1), prev_images)
            moved = warp(prev_images[:, -1], flow)
            warped = {"fake_flow_maps": flow, "fake_occlusion_masks": mask, "warped_images": moved}
        return self._paint(x, maps, warped, guidance) | given

    def check_size(self, label: Tensor) -> None:
        """UserError if labels ... x H x W are not of its size, or if it cannot halve their sides often enough."""
        check_sides(label, self.size_multiple, "num_layers and num_downsamples")
        height, width = label.shape[-2:]
        if (height, width) != self.frame_size:
            made = " x ".join(map(str, self.frame_size))
            what = f"makes frames of {made} px, as in training, but those of the data have {height} x {width} px"
            advice = "let the augmentations of all splits give them one size"
            raise UserError(what, where="gen", advice=advice, code="image-size")

    def _begin(self, label: Tensor, maps: list[Tensor]) -> Tensor:
        """The features of a first frame where those of the frame before join, if there is one."""
        x = self.start(label)
        for level in range(self.num_layers, self.joint, -1):
            x = upsample2x(self.up[level](x, _at(maps, level)))
        return x

    def _encode(self, image: Tensor, maps_before: list[Tensor], maps: list[Tensor]) -> Tensor:
        """The features of the frame before, carried on to the label map of now."""
        x = self.down_first(image)
        for level, block in enumerate(self.down):
            x = block(x, _at(maps_before, level))
            if level < self.joint:
                x = F.avg_pool2d(x, 3, stride=2, padding=1)
        for number, block in enumerate(self.res):
            x = block(x, _at(maps_before if number < len(self.res) // 2 else maps, self.joint + 1))
        return x

    def _paint(
        self, x: Tensor, maps: list[Tensor], warped: dict[str, Tensor], guidance: Tensor | None = None
    ) -> dict[str, Tensor]:
        """From the joint to the image; `warped` is empty, or all that is known of the warped frame."""
        moved: list[Tensor] = []
        if warped and self.warped_embedding is not None:
            moved = self.warped_embedding(torch.cat([warped["warped_images"], warped["fake_occlusion_masks"]], dim=1))
        raw: Tensor | None = None
        for level in range(self.joint, -1, -1):
            grow = upsample2x if level else nn.Identity()
            block, condition = self.up[level], _at(maps, level)
            is_combined = level < self.num_combined
            if self.has_raw_output and is_combined:
                raw = grow(block(x if raw is None else raw, condition))
            others = [_at(moved, level) if moved else None] if is_combined else []
            guide = [guidance] if warped and level < self.num_guided else []
            x = grow(block(x, condition, *others, *guide))
        found = {"fake_images": torch.tanh(self.conv_img(x)), **warped}
        if raw is not None:
            found["fake_raw_images"] = torch.tanh(self.conv_img(raw))
        if warped and not self.should_combine:
            mask, painted = warped["fake_occlusion_masks"], found["fake_images"]
            found["fake_raw_images"] = painted
            found["fake_images"] = painted * mask + warped["warped_images"] * (1 - mask)
        return found

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return (
            (r"\b(up|down|res)\.(\d+)\.", r"\1_\2."),
            (r"^start\.", ""),
            (r"^(fc|down_first)\.", r"\1.layers.conv."),
            (r"^flow_network\.", "flow_network_temp."),
            (r"\.conv_(flow|mask)\.", r".conv_\1.0.layers.conv."),
            (r"^warped_embedding\.", "img_prev_embedding."),
            *MULTI_SPADE_RULES,
        )


def check_sides(label: Tensor, multiple: int, depth_keys: str) -> None:
    """UserError if the sides of a label ... x H x W are no multiples. depth_keys: what the user could lower."""
    height, width = label.shape[-2:]
    if height % multiple or width % multiple:
        what = f"halves the sides of frames until 1 / {multiple} is left, but frames have {height} x {width} px"
        advice = f"choose multiples of that (augmentations), or lower {depth_keys}"
        raise UserError(what, where="gen", advice=advice, code="image-size")


class _StartFromLabel(nn.Module):
    """The first features of a first frame, from its label map in their size."""

    def __init__(self, label_channels: int, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.fc = conv2d(label_channels, width, 3, padding=1)

    def forward(self, label: Tensor) -> Tensor:
        """N x L x H x W -> N x width x h x w."""
        return self.fc(F.interpolate(label, size=self.size, mode="nearest"))


class _StartFromCode(nn.Module):
    """The first features of a first frame: the same for all, as their code is 0."""

    def __init__(self, code_dims: int, width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.fc = linear(code_dims, width * size[0] * size[1])

    def forward(self, label: Tensor) -> Tensor:
        """N x L x H x W -> N x width x h x w."""
        code = label.new_zeros(len(label), self.fc.in_features)
        return self.fc(code).view(len(label), -1, *self.size)


def _at(maps: Sequence[Tensor], level: int) -> Tensor:
    """The features of a level, or of the deepest that there is."""
    return maps[min(level, len(maps) - 1)]


def _find_start_size(crop_h_w: tuple[int, int], num_layers: int, joint: int) -> tuple[int, int]:
    """The size that the decoder starts from. UserError if it does not fit the images."""
    if joint > num_layers:
        what = f"must not be more than num_layers, {num_layers}"
        raise UserError(what, where="num_downsamples_img", code="wrong-depth")
    height, width = (side // 2**num_layers for side in crop_h_w)
    if height * width < 2:
        what = f"halves frames of {crop_h_w[0]} x {crop_h_w[1]} px too often: {height} x {width} px are left"
        raise UserError(what, where="num_layers", advice="lower it, or enlarge the frames", code="image-too-small")
    return height, width


def _list_conditions(
    label: LabelEmbedder, warped: LabelEmbedder | None, combine: CombineParams | None, guidance: GuidanceParams | None
) -> list[list[_Map]]:
    """The maps that modulate the blocks of each level: label, warped frame in those of full size, and guidance."""
    num_combined = (combine or CombineParams()).num_layers  # without it, the reference had these weights all the same
    found = []
    for level, width in enumerate(label.channels):
        of_warped = width if warped is None else warped.channels[min(level, len(warped.channels) - 1)]
        maps = [_Map(width), _Map(of_warped)] if level < num_combined else [_Map(width)]
        if guidance is not None and (level < num_combined or not guidance.only_with_flow):
            maps.append(_Map(3 if guidance.partial_conv else 4, is_masked=guidance.partial_conv))
        found.append(maps)
    return found


def _freeze_unused(block: nn.Module) -> None:
    """No gradient for the norms' parts that modulate by more than the first map."""
    for module in block.modules():
        if isinstance(module, MultiSpatiallyAdaptiveNorm):
            module.of_map[1:].requires_grad_(False)


def append_frame(before: Tensor | None, latest: Tensor, count: int) -> Tensor:
    """The `count` newest of the frames N x P x C x H x W, if there are any, and N x C x H x W after them."""
    latest = latest[:, None]
    return latest if before is None else torch.cat([before, latest], dim=1)[:, -count:]
