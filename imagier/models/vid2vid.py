"""vid2vid: videos from videos of label maps, frame by frame, each from the ones before it.

Wang et al., Video-to-Video Synthesis, 2018; the generator with spatially adaptive norms of few-shot vid2vid (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.feature_matching import feature_matching
from imagier.losses.flow import FlowEstimator, OnlineDis, mask_loss, masked_l1, measure_confidence
from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.nn.blocks import LEAKY_SLOPE, NoNorm, NormActConv, ResBlock, upsample2x
from imagier.nn.colorize import colorize
from imagier.nn.conv import WeightNorm, conv2d, linear
from imagier.nn.flow_network import CombineParams, FlowNetwork, FlowParams
from imagier.nn.label_embedder import EmbedParams, LabelEmbedder
from imagier.nn.label_parts import find_class_map, split_label
from imagier.nn.norm import MULTI_SPADE_RULES, MultiSpatiallyAdaptiveNorm, Norm, NormParams, norm2d
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.poses import (
    DENSEPOSE,
    FINDERS,
    PARTS,
    CropKind,
    Crops,
    PoseType,
    crop,
    filter_pose_label,
    find_foreground,
    normalize_densepose,
)
from imagier.nn.reference_names import Rules
from imagier.nn.resize import to_rgb
from imagier.nn.size_probe import SizeProbe
from imagier.nn.warp import warp
from imagier.ranges import Count, NonNegative, Odd, Positive, Several, Share
from imagier.recipe import Batch, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe

_EMBED, _FLOW = EmbedParams(), FlowParams()

Judgement = tuple[list[Tensor], list[list[Tensor]]]
"""Of one image or clip by one discriminator: logits of each scale, and features of each scale and layer."""


@dataclass(frozen=True, kw_only=True)
class MultiSpadeParams:
    """The spatially adaptive norms of the generator."""

    num_filters: Count = 0
    """Width of a hidden layer between a map's features and scale and shift; 0 for none. [channels]"""
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
class _Parts:
    """Builds the parts of a generator with common options."""

    num_filters: int
    max_num_filters: int
    kernel_size: int
    weight_norm: WeightNorm
    norm_params: MultiSpadeParams
    conditions: Sequence[Sequence[int]]
    """Channels of the maps that modulate a block, by its level; deeper levels are as the last."""

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
                maps,
                norm=inner,
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


class Generator(nn.Module):
    """A frame from its label map and from the labels and frames before it."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        crop_h_w: tuple[int, int],
        num_frames: Several = 3,
        num_layers: Positive = 7,
        num_downsamples_img: Count = 4,
        num_filters: Positive = 32,
        max_num_filters: Positive = 1024,
        kernel_size: Odd = 3,
        weight_norm_type: WeightNorm = "spectral",
        activation_norm_params: MultiSpadeParams = MultiSpadeParams(),
        style_dims: Positive = 256,
        use_segmap_as_input: bool = False,
        embed: EmbedParams = _EMBED,
        flow: FlowParams = _FLOW,
        pose_type: PoseType | None = None,
        remove_face_labels: bool = False,
    ) -> None:
        """num_frames: Frames that it looks at: the one that it makes, and those before. [frames]
        num_layers: Depth of the decoder: how often it doubles the size.
        num_downsamples_img: Depth at which the frame before joins: how often its size is halved.
        num_filters: Width at full size; it doubles whenever the size halves. [channels]
        max_num_filters: Largest width. [channels]
        kernel_size: Height and width of the kernels of the trunk's convolutions. [pixels]
        weight_norm_type: Norm of the weights of the residual blocks.
        activation_norm_params: The spatially adaptive norms.
        style_dims: Size of the code that the first frame starts from, which is 0.
        use_segmap_as_input: Start the first frame from its small label map instead of a code.
        embed: The network that encodes label maps for the spatially adaptive norms.
        flow: The network that predicts motion, and how the moved frame is used.
        pose_type: The label shows poses of people; open: its first three channels (DensePose) are not used; both: all
            are. Null: it shows something else.
        remove_face_labels: Remove the face from DensePose channels.
        """
        super().__init__()
        self.pose_type, self.remove_face_labels = pose_type, remove_face_labels
        label_channels -= 3 if pose_type == "open" else 0
        self.num_frames, self.num_layers, self.joint = num_frames, num_layers, num_downsamples_img
        combine = flow.multi_spade_combine
        self.should_combine = combine is not None
        self.num_combined = combine.num_layers if combine else 0
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
            conditions=_list_conditions(self.label_embedding, self.warped_embedding, combine),
        )
        width = parts.width
        self.up = nn.ModuleList(parts.block(width(i + 1), width(i), i) for i in range(num_layers + 1))
        self.conv_img = NormActConv(NoNorm(), nn.LeakyReLU(LEAKY_SLOPE), parts.conv(num_filters, image_channels))
        start_size = _find_start_size(crop_h_w, num_layers, num_downsamples_img)
        self.start: nn.Module = _StartFromLabel(label_channels, width(num_layers + 1), start_size)
        if not use_segmap_as_input:
            self.start = _StartFromCode(style_dims, width(num_layers + 1), start_size)
        joint = num_downsamples_img + 1
        self.down_first = parts.conv(image_channels, num_filters)
        self.down = nn.ModuleList(parts.block(width(i), width(i + 1), i) for i in range(joint))
        num_res = 2 * ceil((num_layers - num_downsamples_img) / 2)
        self.res = nn.ModuleList(parts.block(width(joint), width(joint), joint) for _ in range(num_res))
        combined = [*self.up[: min(self.num_combined, joint)]]
        for block in (*self.up[len(combined) :], *self.down, *self.res):
            _freeze_unused(block)  # these see no warped frame, but checkpoints hold weights for one

    def forward(
        self, label: Tensor, prev_labels: Tensor | None = None, prev_images: Tensor | None = None
    ) -> dict[str, Tensor]:
        """N x L x H x W; labels and frames before, the oldest first, N x P x ..., P < num_frames, frames in [-1, 1].

        -> `fake_images` N x C x H x W in [-1, 1]. With num_frames - 1 frames before also `fake_flow_maps` (nn/warp.py),
        `fake_occlusion_masks` N x 1 x H x W and `warped_images`; with a raw output `fake_raw_images`. Sides must be
        divisible by `size_multiple`.
        """
        label = filter_pose_label(label, self.pose_type, should_remove_face=self.remove_face_labels)
        maps = self.label_embedding(label)
        if prev_labels is None or prev_images is None:
            return self._paint(self._begin(label, maps), maps, {})
        prev_labels = filter_pose_label(prev_labels, self.pose_type, should_remove_face=self.remove_face_labels)
        x = self._encode(prev_images[:, -1], self.label_embedding(prev_labels[:, -1]), maps)
        warped: dict[str, Tensor] = {}
        if prev_images.shape[1] == self.num_frames - 1:
            flow, mask = self.flow_network(torch.cat([prev_labels, label[:, None]], dim=1), prev_images)
            moved = warp(prev_images[:, -1], flow)
            warped = {"fake_flow_maps": flow, "fake_occlusion_masks": mask, "warped_images": moved}
        return self._paint(x, maps, warped)

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

    def _paint(self, x: Tensor, maps: list[Tensor], warped: dict[str, Tensor]) -> dict[str, Tensor]:
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
            x = grow(block(x, condition, _at(moved, level) if moved and is_combined else None))
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
    label: LabelEmbedder, warped: LabelEmbedder | None, combine: CombineParams | None
) -> list[list[int]]:
    """Channels of the maps that modulate the blocks of each level: label, and warped frame in those of full size."""
    num_combined = (combine or CombineParams()).num_layers  # without it, the reference had these weights all the same
    found = []
    for level, width in enumerate(label.channels):
        of_warped = width if warped is None else warped.channels[min(level, len(warped.channels) - 1)]
        found.append([width, of_warped] if level < num_combined else [width])
    return found


def _freeze_unused(block: nn.Module) -> None:
    """No gradient for the norms' part that modulates by a second map."""
    for module in block.modules():
        if isinstance(module, MultiSpatiallyAdaptiveNorm):
            module.of_map[1:].requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class PatchParams:
    """Patch discriminators of images, or of clips, at several scales."""

    kernel_size: Positive = 4
    """Height and width of the kernels. [pixels]"""
    num_filters: Positive = 64
    """Width of the first layer; it doubles from layer to layer. [channels]"""
    max_num_filters: Positive = 512
    """Largest width. [channels]"""
    num_discriminators: Positive = 3
    """Scales: the first discriminator sees full size, each other one half the size of the one before."""
    num_layers: Count = 3
    """Layers after the first, the score aside; all but the last of them halve the size."""
    activation_norm_type: Norm = "none"
    """Norm after each convolution but the last."""
    weight_norm_type: WeightNorm = "spectral"
    """Norm of the weights of convolutions."""


@dataclass(frozen=True, kw_only=True)
class CropParams(PatchParams):
    """Discriminators of a part of each image."""

    crop_func: CropKind
    """The part: face, or hand (each hand that is seen), as the label shows them."""
    loss_weight: NonNegative = 1.0
    """Weight of their adversarial loss."""


@dataclass(frozen=True, kw_only=True)
class TemporalParams(PatchParams):
    """Discriminators of clips; those of scale s see every num_frames^s-th frame."""

    num_scales: Count = 1
    """Scales in time, each with discriminators of its own."""


class Discriminator(nn.Module):
    """Patch discriminators of an image with its label, of parts of an image, and of clips."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        num_frames: Several = 3,
        image: PatchParams = PatchParams(),
        additional_discriminators: dict[str, CropParams] | None = None,
        temporal: TemporalParams | None = None,
    ) -> None:
        """num_frames: Length of the clips that the temporal discriminators see. [frames]
        image: Of images with their label.
        additional_discriminators: Of parts of an image, by names of your choice.
        temporal: Of clips; null for none.
        """
        super().__init__()
        self.num_frames = num_frames
        others = additional_discriminators or {}
        _check_names(others, [f"T{scale}" for scale in range(temporal.num_scales if temporal else 0)])
        self.kinds = {name: params.crop_func for name, params in others.items()}
        self.crop_weights = {name: params.loss_weight for name, params in others.items()}
        self.image = _patches(label_channels + image_channels, image)
        self.crops = nn.ModuleDict({name: _patches(image_channels, params) for name, params in others.items()})
        scales = range(temporal.num_scales) if temporal else ()
        self.temporal = nn.ModuleList(_patches(image_channels * num_frames, temporal or image) for _ in scales)

    def judge(self, label: Tensor, images: Tensor) -> Judgement:
        """N x L x H x W, N x C x H x W -> what is thought of the images as a whole."""
        return self.image(torch.cat([label, images], dim=1))

    def find_crops(self, label: Tensor, lengths: Mapping[str, int]) -> dict[str, Crops]:
        """Where the parts by name are in the images of a label N x L x H x W. lengths: channels of its input types."""
        return {name: FINDERS[kind](label, lengths) for name, kind in self.kinds.items()}

    @property
    def memory(self) -> int:
        """How many frames before the current one it looks at."""
        return (self.num_frames - 1) * self.num_frames ** (len(self.temporal) - 1) if len(self.temporal) else 0

    def forward(
        self, label: Tensor, images: Tensor, crops: Mapping[str, Crops], past: Sequence[Tensor] = ()
    ) -> dict[str, Judgement | None]:
        """N x L x H x W, N x C x H x W, the parts by name, the images of the frames before, the oldest first.

        -> what each finds: "image", the names of the parts, "T0", "T1", ... None: no part is seen, or no clip is long
        enough.
        """
        found: dict[str, Judgement | None] = {"image": self.judge(label, images)}
        for name, network in self.crops.items():
            part = crop(images, crops[name])
            found[name] = None if part is None else network(part)
        for scale, network in enumerate(self.temporal):
            clip = pick_clip([*past, images], self.num_frames, scale)
            found[f"T{scale}"] = None if clip is None else network(clip)
        return found

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return (
            (r"\bdiscriminators\.(\d+)\.layers\.(\d+)\.", r"discriminator_\1.layer\2.0."),
            (r"^image\.", "net_D."),
            (r"^crops\.(\w+)\.", r"net_D_\1."),
            (r"^temporal\.(\d+)\.", r"net_DT\1."),
        )


def _check_names(names: Iterable[str], of_clips: Sequence[str]) -> None:
    """UserError if a discriminator of parts cannot be called so."""
    for name in names:
        if name in ("image", "raw", *of_clips) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            what = f"a discriminator cannot be called {name!r}"
            advice = "choose another name of letters, digits and underscores"
            raise UserError(what, where="additional_discriminators", advice=advice, code="name-taken")


def _patches(in_channels: int, params: PatchParams) -> MultiScalePatchDiscriminator:
    options = {name: getattr(params, name) for name in PatchParams.__dataclass_fields__}
    return MultiScalePatchDiscriminator(in_channels, **options)


def pick_clip(frames: Sequence[Tensor], num_frames: int, scale: int) -> Tensor | None:
    """The last frame, and those before it, each num_frames^scale earlier, as channels: N x (num_frames C) x H x W.

    frames: N x C x H x W each, the oldest first. None if there are not enough of them.
    """
    stride = num_frames**scale
    span = stride * (num_frames - 1)
    return torch.cat(list(frames[-span - 1 :: stride]), dim=1) if len(frames) > span else None


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial ones of images."""

    gan: NonNegative
    """Adversarial loss of images, of generator and discriminator."""
    feature_matching: NonNegative
    """L1 between the discriminators' features of generated and of real images, parts and clips."""
    temporal_gan: NonNegative = 0.0
    """Adversarial loss of clips (dis.temporal)."""
    perceptual: NonNegative = 0.0
    """Perceptual distance between generated and real images, as perceptual_loss says."""
    flow: NonNegative = 10.0
    """Of the flow: its distance from the real one, that of the warped frame from the real one, and that of the mask
    from where the warped frame is right."""
    l1: NonNegative = 0.0
    """Mean absolute difference from the target, in [-1, 1] (not in the paper)."""


Pair = tuple[Judgement, Judgement]
"""Of the real and of the generated."""


@dataclass(frozen=True)
class _Frame:
    """A moment of real clips, as the losses see it."""

    label: Tensor
    """N x L x H x W."""
    image: Tensor
    """N x C x H x W, as all that follow."""
    before: Tensor | None
    """The frame before it."""
    crops: Mapping[str, Crops]
    past_real: Sequence[Tensor]
    """Real frames before it, the oldest first, and the generated ones of the same moments."""
    past_fake: Sequence[Tensor]
    is_alone: bool
    """No clip, but a still."""
    foreground: Tensor | None
    """Where people are, N x 1 x H x W; None: everything counts."""
    flow: Tensor | None
    """To the frame before it, N x 2 x H x W, and where it is right, N x 1 x H x W, if the data know."""
    confidence: Tensor | None


class Recipe(BaseRecipe):
    """Training of vid2vid on clips: each frame is an update of the discriminator, then one of the generator.

    A batch may hold `flow`, N x T x 2 x H x W: where the pixels of each frame come from in the one before it, as in
    nn/warp.py (that of the first frame is not used), and `flow_confidence`, N x T x 1 x H x W, 1 where it is right.
    Without `flow`, `estimate_flow` is asked.
    """

    required_inputs: ClassVar[Sequence[str]] = ("images", "label")
    normalized_inputs: ClassVar[Sequence[str]] = ("images",)
    data_keys: ClassVar[Sequence[str]] = ("single_frame_epoch", "num_epochs_temporal_step")
    is_video: ClassVar[bool] = True
    log_names: ClassVar[Mapping[str, str]] = {
        "gan": "GAN",
        "feature_matching": "FeatureMatching",
        "perceptual": "Perceptual",
        "l1": "L1",
        "flow": "Flow",
        "flow/l1": "Flow_L1",
        "flow/warp": "Flow_Warp",
        "flow/mask": "Flow_Mask",
    }

    def __init__(
        self,
        *,
        gen: Generator,
        dis: Discriminator,
        label_lengths: Mapping[str, int],
        one_hot: Sequence[str] = (),
        gan_mode: GanMode = "hinge",
        loss_weight: LossWeights,
        perceptual_loss: PerceptualConfig | None = None,
        has_foreground: bool = False,
        random_drop_prob: Share = 0.0,
        reuse_gen_output: bool = True,
        single_frame_epoch: Count = 0,
        num_epochs_temporal_step: Positive | None = None,
    ) -> None:
        """label_lengths: channels of each type in the label, in order.
        one_hot: types with a channel per class.
        gan_mode: The adversarial loss: hinge (Lim & Ye 2017), least_square (Mao et al. 2017), non_saturated or softplus
            (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017).
        loss_weight: Factor of each loss in the total.
        perceptual_loss: The perceptual loss; needed if its weight is not 0.
        has_foreground: The third channel of the label is DensePose: losses of flow and of raw output count near people.
        random_drop_prob: Share of the parts of the body that are removed from DensePose channels in training.
        reuse_gen_output: One forward of the generator per frame serves both updates; false: each has its own.
        single_frame_epoch: The first epoch with clips of more than one frame.
        num_epochs_temporal_step: Epochs after which the length of clips doubles; null: it stays. [epochs]
        """
        self.gen = gen
        self.dis = dis
        self.label_lengths = label_lengths
        self.one_hot = one_hot
        self.gan_mode: GanMode = gan_mode
        self.loss_weight = _expand_weights(loss_weight, dis)
        self.check_weights("gan")
        self.perceptual_config = perceptual_loss
        self.perceptual: PerceptualLoss | None = None
        self.has_foreground = has_foreground
        self.random_drop_prob = random_drop_prob
        self.reuse_gen_output = reuse_gen_output
        self.has_densepose = gen.pose_type is not None and DENSEPOSE in label_lengths
        self.temporal_names = [f"T{scale}" for scale in range(len(dis.temporal))]
        self.memory = max(gen.num_frames - 1, dis.memory)
        self.estimate_flow: FlowEstimator = OnlineDis()
        self.dis_sizes = SizeProbe(dis.image, _judge, where="dis.image", depth_keys="num_layers or num_discriminators")

    def load_losses(self) -> Sequence[nn.Module]:
        self.perceptual = PerceptualLoss.create_if_weighted(self.perceptual_config, self.loss_weight["perceptual"])
        return () if self.perceptual is None else (self.perceptual,)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """The frames of the clips one after the other, each with an update of either player."""
        batch = self._prepare(batch, self._draw_dropped_parts(batch, ctx.rng))
        past: list[Tensor] = []
        for t in range(batch["images"].shape[1]):
            frame = self._look_at(batch, t, past)
            with torch.set_grad_enabled(self.reuse_gen_output):
                fake = self.gen(*self._inputs(batch, t, past))
            yield "dis", self.dis_losses(frame, fake)
            if not self.reuse_gen_output:
                fake = self.gen(*self._inputs(batch, t, past))
            yield "gen", self.gen_losses(frame, fake)
            past = [*past, fake["fake_images"].detach()][-self.memory :]

    def prepare(self, batch: Batch) -> Batch:
        """Brings DensePose channels to [-1, 1]. UserError if the networks cannot halve the frames often enough, or if
        the flow is none."""
        return self._prepare(batch, None)

    def _prepare(self, batch: Batch, dropped: Tensor | None) -> Batch:
        multiple, (height, width) = self.gen.size_multiple, batch["label"].shape[-2:]
        if height % multiple or width % multiple:
            what = f"halves the sides of frames until 1 / {multiple} is left, but frames have {height} x {width} px"
            advice = "choose multiples of that (augmentations), or lower num_layers and num_downsamples"
            raise UserError(what, where="gen", advice=advice, code="image-size")
        if "flow" in batch and batch["flow"].shape[2] != 2:
            raise UserError("holds no flow", where="data.input_types: flow", advice="add type: flow", code="not-flow")
        return batch.replace(label=normalize_densepose(batch["label"], dropped)) if self.has_densepose else batch

    def _draw_dropped_parts(self, batch: Batch, rng: torch.Generator) -> Tensor | None:
        """Which parts of the body are removed from all labels of a step, bool [24]."""
        if not (self.has_densepose and self.random_drop_prob):
            return None
        return torch.rand(PARTS, generator=rng, device=batch["label"].device) < self.random_drop_prob

    def _inputs(self, batch: Batch, t: int, past: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the generator sees at a moment. past: generated frames, the oldest first."""
        labels, seen = batch["label"], past[-(self.gen.num_frames - 1) :]
        if not seen:
            return labels[:, t], None, None
        return labels[:, t], labels[:, t - len(seen) : t], torch.stack(list(seen), dim=1)

    def _look_at(self, batch: Batch, t: int, past: Sequence[Tensor]) -> _Frame:
        images, label = batch["images"], batch["label"][:, t]
        since = max(0, t - self.dis.memory)
        return _Frame(
            label=label,
            image=images[:, t],
            before=images[:, t - 1] if t else None,
            crops=self.dis.find_crops(label, self.label_lengths),
            past_real=[images[:, earlier] for earlier in range(since, t)],
            past_fake=past[len(past) - (t - since) :],
            is_alone=images.shape[1] == 1,
            foreground=find_foreground(label) if self.has_foreground else None,
            flow=batch["flow"][:, t] if "flow" in batch else None,
            confidence=batch["flow_confidence"][:, t] if "flow_confidence" in batch else None,
        )

    def discriminate(
        self, frame: _Frame, fake: Mapping[str, Tensor], *, should_learn_from_real: bool
    ) -> dict[str, Pair | None]:
        """What each discriminator finds in the real and in the generated frame, by its name; also of the "raw" one.

        Of the real with a graph if should_learn_from_real.
        """
        images = fake["fake_images"]
        with self.dis_sizes.explain(label=frame.label, images=frame.image):
            with torch.set_grad_enabled(should_learn_from_real):
                of_real = self.dis(frame.label, frame.image, frame.crops, frame.past_real)
            of_fake = self.dis(frame.label, images, frame.crops, frame.past_fake)
        found = {name: _pair(of_real[name], of_fake[name]) for name in of_real}
        if "fake_raw_images" in fake:
            real, raw = (_mask(x, frame.foreground) for x in (frame.image, fake["fake_raw_images"]))
            with torch.set_grad_enabled(should_learn_from_real):
                of_image = self.dis.judge(frame.label, real)
            found["raw"] = (of_image, self.dis.judge(frame.label, raw))
        return found

    def dis_losses(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Losses:
        """The losses of the discriminator."""
        detached = {name: tensor.detach() for name, tensor in fake.items()}
        found = self.discriminate(frame, detached, should_learn_from_real=True)
        zero, losses = frame.image.new_zeros(()), Losses()
        for part, pairs in self._group(frame, found).items():
            name = f"GAN_{part}" if part else "gan"
            losses[f"{name}/fake"] = sum((dis_fake_loss(of_fake[0], self.gan_mode) for _, of_fake in pairs), zero)
            losses[f"{name}/true"] = sum((dis_real_loss(of_real[0], self.gan_mode) for of_real, _ in pairs), zero)
        return losses

    def gen_losses(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Losses:
        """The losses of the generator."""
        images, target = fake["fake_images"], frame.image
        found = self.discriminate(frame, fake, should_learn_from_real=False)
        zero, losses = target.new_zeros(()), Losses()
        for part, pairs in self._group(frame, found).items():
            name = f"GAN_{part}" if part else "gan"
            losses[name] = sum((gen_loss(of_fake[0], self.gan_mode) for _, of_fake in pairs), zero)
            if self.loss_weight["feature_matching"]:
                distances = (feature_matching(of_fake[1], of_real[1]) for of_real, of_fake in pairs)
                losses[f"FeatureMatching_{part}" if part else "feature_matching"] = sum(distances, zero)
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(images, target)
            if "fake_raw_images" in fake:
                real, raw = (_mask(x, frame.foreground) for x in (target, fake["fake_raw_images"]))
                losses["perceptual"] = losses["perceptual"] + self.perceptual(raw, real)
        if self.loss_weight["l1"]:
            losses["l1"] = l1(images, target)
        return {**losses, **self._flow_losses(frame, fake)} if self.loss_weight["flow"] else losses

    def _flow_losses(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Losses:
        if frame.before is None or "fake_flow_maps" not in fake:
            return {f"flow/{name}": frame.image.new_zeros(()) for name in ("l1", "warp", "mask")}
        with torch.no_grad():
            flow = self.estimate_flow(frame.image, frame.before) if frame.flow is None else frame.flow
            trusted = frame.confidence
            if trusted is None:
                trusted = measure_confidence(frame.image, frame.before, flow)
            trusted = _mask(trusted, frame.foreground)
        warped = fake["warped_images"]
        return {
            "flow/l1": masked_l1(fake["fake_flow_maps"], flow, trusted),
            "flow/warp": l1(warped, frame.image),
            "flow/mask": mask_loss(fake["fake_occlusion_masks"].float(), warped, frame.image),
        }

    def _group(self, frame: _Frame, found: Mapping[str, Pair | None]) -> dict[str, list[Pair]]:
        """The pairs that count for each adversarial loss: "" for images as a whole, or the name of a discriminator."""
        groups: dict[str, list[Pair]] = {"": []}
        for name, pair in found.items():
            is_of_clips = name in self.temporal_names
            if is_of_clips and (frame.is_alone or not self.loss_weight[f"GAN_{name}"]):
                continue
            groups.setdefault("" if name in ("image", "raw") else name, []).extend([] if pair is None else [pair])
        return groups

    def generate_clip(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """The generator's outputs for every frame of a prepared batch, each made from the generated ones before it."""
        past: list[Tensor] = []
        for t in range(batch["label"].shape[1]):
            fake = self.gen(*self._inputs(batch, t, past))
            past = [*past, fake["fake_images"].detach()][-self.memory :]
            yield fake

    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The generator's outputs for the last frame."""
        return list(self.generate_clip(batch))[-1]

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Of the discriminators of images as a whole, of the last frame."""
        fake, last = self.generate(batch, rng)["fake_images"], batch["images"].shape[1] - 1
        of_real, of_fake = (self.dis.judge(batch["label"][:, last], x)[0] for x in (batch["images"][:, last], fake))
        return center_logits(of_real, self.gan_mode), center_logits(of_fake, self.gan_mode)

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The last frame of each clip, made from the generated ones before it."""
        return to_rgb(self.generate(batch, rng)["fake_images"])

    def target(self, batch: Batch) -> Tensor:
        return to_rgb(batch["images"][:, -1])

    def class_map(self, batch: Batch) -> Tensor | None:
        return find_class_map(batch["label"][:, -1], self.label_lengths, self.one_hot)

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        labels = split_label(batch["label"][:, -1], self.label_lengths)
        return {"images": self.target(batch), **{name: colorize(part) for name, part in labels.items()}}

    def visualize_outputs(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The last frame, the first, and what the last is made of."""
        frames = list(self.generate_clip(batch))
        first, last = frames[0], frames[-1]
        columns = {"fake": last["fake_images"]}
        if len(frames) > 1:
            columns["first frame"] = first["fake_images"]
        columns |= {name: last[key] for name, key in SHOWN.items() if key in last}
        if "fake_occlusion_masks" in last:
            columns["painted anew"] = last["fake_occlusion_masks"] * 2 - 1
        return {name: to_rgb(column) for name, column in columns.items()}


SHOWN = {"raw": "fake_raw_images", "warped": "warped_images"}
"""Columns of the image grid, and the outputs of the generator that they show."""


def _expand_weights(weights: LossWeights, dis: Discriminator) -> dict[str, float]:
    """The weight of every loss by its name; those of single discriminators are named as they are logged."""
    found = asdict(weights)
    of_clips = found.pop("temporal_gan")
    for name, weight in dis.crop_weights.items():
        found |= {f"GAN_{name}": weight, f"FeatureMatching_{name}": weights.feature_matching}
    for scale in range(len(dis.temporal)):
        of_features = weights.feature_matching if of_clips else 0.0
        found |= {f"GAN_T{scale}": of_clips, f"FeatureMatching_T{scale}": of_features}
    return found


def _pair(of_real: Judgement | None, of_fake: Judgement | None) -> Pair | None:
    return None if of_real is None or of_fake is None else (of_real, of_fake)


def _mask(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _judge(network: nn.Module, label: Tensor, images: Tensor) -> object:
    """A discriminator of images with their label, for the SizeProbe."""
    return network(torch.cat([label, images], dim=1))
