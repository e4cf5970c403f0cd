"""Few-shot vid2vid: videos of people or scenes known from a few images, from videos of label maps.

Wang et al., Few-shot Video-to-Video Synthesis, 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.clips import LossWeights, Pair, adversarial_dis, adversarial_gen, expand_weights, group_pairs, pair
from imagier.losses.flow import FlowEstimator, OnlineDis, check_flow, mask_loss, masked_l1, measure_confidence
from imagier.losses.gan import GanMode, center_logits
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.nn.blocks import LEAKY_SLOPE, NoNorm, NormActConv, upsample2x
from imagier.nn.clip_discriminator import ClipDiscriminator, CropParams, PatchParams, TemporalParams
from imagier.nn.colorize import colorize
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.few_shot_flow import FewShotFlowNetwork, FewShotFlowParams
from imagier.nn.frame_generator import MultiSpadeParams
from imagier.nn.hyper import HYPER_SPADE_RULES, HyperResBlock, HyperSpatiallyAdaptiveNorm, Modulation
from imagier.nn.label_embedder import EmbedParams, LabelEmbedder
from imagier.nn.label_parts import find_class_map, split_label
from imagier.nn.norm import MultiSpatiallyAdaptiveNorm, NormParams, norm2d
from imagier.nn.poses import (
    DENSEPOSE,
    PARTS,
    Crops,
    PoseType,
    filter_pose_label,
    find_body_parts,
    find_face,
    find_foreground,
    normalize_densepose,
)
from imagier.nn.reference_names import Rules
from imagier.nn.resize import to_rgb
from imagier.nn.size_probe import SizeProbe
from imagier.nn.warp import warp
from imagier.nn.weight_generator import WEIGHT_GENERATOR_RULES, Generated, HyperParams, WeightGenerator
from imagier.ranges import Count, Odd, Positive, Several, Share
from imagier.recipe import Batch, InferenceInputs, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe


@dataclass(frozen=True, kw_only=True)
class FewShotSpadeParams(MultiSpadeParams):
    """The spatially adaptive norms of the generator."""

    kernel_size: Odd = 1
    """Height and width of the kernels of the convolutions on the features, and of the encoders of references.
    [pixels]"""


_SPADE, _HYPER, _EMBED, _FLOW, _IMAGE = (
    FewShotSpadeParams(),
    HyperParams(),
    EmbedParams(),
    FewShotFlowParams(),
    PatchParams(),
)


class Generator(nn.Module):
    """A frame from its label, from references with their labels, and from the labels and frames before it."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        num_references: int = 1,
        num_frames: Several = 2,
        num_downsamples: Positive = 5,
        num_filters: Positive = 32,
        max_num_filters: Positive = 1024,
        kernel_size: Odd = 3,
        weight_norm_type: WeightNorm = "spectral",
        activation_norm_params: FewShotSpadeParams = _SPADE,
        hyper: HyperParams = _HYPER,
        embed: EmbedParams = _EMBED,
        flow: FewShotFlowParams = _FLOW,
        init_temporal: bool = True,
        pose_type: PoseType | None = None,
        remove_face_labels: bool = False,
    ) -> None:
        """num_frames: Frames that it looks at: the one that it makes, and those before. [frames]
        num_downsamples: How often the size is halved at most; the decoder doubles it as often.
        num_filters: Width at full size; it doubles whenever the size halves. [channels]
        max_num_filters: Largest width. [channels]
        kernel_size: Height and width of the kernels of the trunk's convolutions. [pixels]
        weight_norm_type: Norm of the weights of the residual blocks.
        activation_norm_params: The spatially adaptive norms.
        hyper: Which weights are generated from references, and how.
        embed: The network that encodes label maps for the spatially adaptive norms; as wide as the generator.
        flow: The networks that predict motion, and how moved images are used.
        init_temporal: Look at the frames before. False: each frame is made by itself.
        pose_type: The label shows poses of people; open: its first three channels (DensePose) are not used; both: all
            are. Null: it shows something else.
        remove_face_labels: Remove the face from DensePose channels.
        """
        super().__init__()
        self.pose_type, self.remove_face_labels, self.num_frames = pose_type, remove_face_labels, num_frames
        label_channels -= 3 if pose_type == "open" else 0
        combine = flow.multi_spade_combine
        self.depth, self.num_combined = num_downsamples, combine.num_layers
        self.has_raw_output, self.warps_reference, self.is_temporal = (
            flow.generate_raw_output,
            flow.warp_ref,
            init_temporal,
        )
        self.size_multiple = 2 ** max(
            num_downsamples, embed.num_downsamples, flow.num_downsamples, combine.embed.num_downsamples
        )
        widest = min(max_num_filters, num_filters * 2**num_downsamples)
        self.widths = [min(widest, num_filters * 2**level) for level in range(num_downsamples + 2)]
        _check_embed(embed, "embed", self.widths[:-1])
        _check_embed(
            combine.embed,
            "flow.multi_spade_combine.embed",
            self.widths[: min(combine.num_layers, len(self.widths) - 1)],
        )
        self.weight_generator = WeightGenerator(
            widths=self.widths,
            label_channels=label_channels,
            image_channels=image_channels,
            num_references=num_references,
            kernel_size=kernel_size,
            spade_kernel_size=activation_norm_params.kernel_size,
            params=hyper,
            embed=embed,
        )
        self.up = nn.ModuleList(
            self._block(level, kernel_size, weight_norm_type, activation_norm_params, hyper)
            for level in range(num_downsamples + 1)
        )
        last = conv2d(num_filters, image_channels, kernel_size, padding=kernel_size // 2)
        self.conv_img = NormActConv(NoNorm(), nn.LeakyReLU(LEAKY_SLOPE), last)
        self._add_warping(label_channels, image_channels, flow)
        self._freeze_unused()

    def _block(
        self, level: int, kernel_size: int, weight_norm: WeightNorm, spade: MultiSpadeParams, hyper: HyperParams
    ) -> HyperResBlock:
        """A residual block that the maps of a level modulate: of the label, of warped reference and warped frame."""
        maps = [self.widths[level]] * (3 if level < self.num_combined else 1)
        is_generated = level < self.weight_generator.num_hyper_layers
        norm_type = HyperSpatiallyAdaptiveNorm if hyper.is_hyper_spade and is_generated else MultiSpatiallyAdaptiveNorm

        def norm(channels: int) -> Modulation:
            plain = norm2d(
                spade.activation_norm_type, channels, spade.activation_norm_params or NormParams(affine=False)
            )
            return norm_type(
                channels,
                maps,
                norm=plain,
                num_filters=spade.num_filters,
                kernel_size=spade.kernel_size,
                separate_projection=spade.separate_projection,
                weight_norm=spade.weight_norm_type,
            )

        return HyperResBlock(
            self.widths[level + 1],
            self.widths[level],
            norm=norm,
            order=hyper.hyper_block_order,
            kernel_size=kernel_size,
            weight_norm=weight_norm,
            has_hyper_conv=hyper.is_hyper_conv and is_generated,
        )

    def _add_warping(self, label_channels: int, image_channels: int, flow: FewShotFlowParams) -> None:
        """The networks that move the reference and the frame before, the same ones where both may share them."""
        embed = flow.multi_spade_combine.embed
        self.flow_network_ref = self.ref_image_embedding = None
        self.flow_network_temp = self.prev_image_embedding = None
        if flow.warp_ref:
            self.flow_network_ref = FewShotFlowNetwork(2 * label_channels + image_channels, flow)
            self.ref_image_embedding = LabelEmbedder(image_channels + 1, embed)
        if self.is_temporal:
            seen = label_channels * self.num_frames + image_channels * (self.num_frames - 1)
            is_shared = flow.warp_ref and self.num_frames == 2 and not flow.sep_prev_flow
            self.flow_network_temp = self.flow_network_ref if is_shared else FewShotFlowNetwork(seen, flow)
            is_shared = flow.warp_ref and not embed.sep_warp_embed
            shared = self.ref_image_embedding if is_shared else LabelEmbedder(image_channels + 1, embed)
            self.prev_image_embedding = shared

    def _freeze_unused(self) -> None:
        """No gradient for the norms' parts that modulate by what is never there."""
        missing = [number for number, is_there in ((1, self.warps_reference), (2, self.is_temporal)) if not is_there]
        for block in self.up[: self.num_combined]:
            assert isinstance(block, HyperResBlock)
            for norm in block.norms():
                for number in missing:
                    norm.freeze_map(number)

    def forward(
        self,
        label: Tensor,
        ref_labels: Tensor,
        ref_images: Tensor,
        prev_labels: Tensor | None = None,
        prev_images: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """N x L x H x W; K references N x K x ...; labels and frames before, N x P x ..., P < num_frames, oldest first.

        Images are in [-1, 1]. -> `fake_images` N x C x H x W; with a warped reference `ref_flow_maps` (nn/warp.py),
        `ref_occlusion_masks` N x 1 x H x W and `ref_warped_images`; with num_frames - 1 frames before the same of the
        last of them, `fake_flow_maps`, `fake_occlusion_masks` and `warped_images`; with a raw output `fake_raw_images`.
        Of several references `attention` N x K x h x w, how much each counts for each place, and `ref_idx` N, the one
        that counts most, which is the warped one. Sides must be divisible by `size_multiple`.
        """
        label = filter_pose_label(label, self.pose_type, should_remove_face=self.remove_face_labels)
        ref_labels = filter_pose_label(ref_labels, self.pose_type, should_remove_face=False)
        made = self.weight_generator(ref_images, ref_labels, label)
        found: dict[str, Tensor] = {}
        if made.attention is not None and made.chosen is not None:
            found = {"attention": made.attention, "ref_idx": made.chosen}
        moved: list[list[Tensor] | None] = [None, None]
        if self.flow_network_ref is not None and self.ref_image_embedding is not None:
            ref_label, ref_image = (pick_reference(x, made.chosen) for x in (ref_labels, ref_images))
            flow, mask = self.flow_network_ref(label, ref_label, ref_image)
            warped = warp(ref_image, flow)
            moved[0] = self.ref_image_embedding(torch.cat([warped, mask], dim=1))
            found |= {"ref_flow_maps": flow, "ref_occlusion_masks": mask, "ref_warped_images": warped}
        has_past = prev_labels is not None and prev_images is not None and prev_images.shape[1] == self.num_frames - 1
        if has_past and self.flow_network_temp is not None and self.prev_image_embedding is not None:
            assert prev_labels is not None and prev_images is not None
            prev_labels = filter_pose_label(prev_labels, self.pose_type, should_remove_face=self.remove_face_labels)
            flow, mask = self.flow_network_temp(label, prev_labels.flatten(1, 2), prev_images.flatten(1, 2))
            warped = warp(prev_images[:, -1], flow)
            moved[1] = self.prev_image_embedding(torch.cat([warped, mask], dim=1))
            found |= {"fake_flow_maps": flow, "fake_occlusion_masks": mask, "warped_images": warped}
        return {**self._paint(made, moved), **found}

    def _paint(self, made: Generated, moved: Sequence[Sequence[Tensor] | None]) -> dict[str, Tensor]:
        """The decoder. moved: features at every level of the warped reference, and of the warped frame before."""
        x = raw = made.start
        for level in reversed(range(self.depth + 1)):
            if level == self.num_combined - 1:
                raw = x
            warped = [None if maps is None else maps[level] for maps in moved] if level < self.num_combined else []
            x = self._grow(level, x, made, warped)
        found = {"fake_images": torch.tanh(self.conv_img(x))}
        if self.has_raw_output and self.num_combined:
            for level in reversed(range(min(self.num_combined, self.depth + 1))):
                raw = self._grow(level, raw, made, [])
            found["fake_raw_images"] = torch.tanh(self.conv_img(raw))
        return found

    def _grow(self, level: int, x: Tensor, made: Generated, warped: Sequence[Tensor | None]) -> Tensor:
        """One block of the decoder, and twice the size but after the last."""
        for_norms, for_convs = (each[level] if level < len(each) else None for each in (made.for_norms, made.for_convs))
        x = self.up[level](x, [made.maps[level], *warped], for_norms, for_convs)
        return upsample2x(x) if level else x

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return (
            *WEIGHT_GENERATOR_RULES,
            (r"(?<!_)\b(up|down)\.(\d+)\.", r"\1_\2."),
            (r"\.conv_(flow|mask)\.", r".conv_\1.0.layers.conv."),
            *HYPER_SPADE_RULES,
        )


def pick_reference(references: Tensor, chosen: Tensor | None) -> Tensor:
    """N x K x ... -> N x ...: of each sample the chosen one, N, or the first."""
    if chosen is None:
        return references[:, 0]
    return references[torch.arange(len(references), device=references.device), chosen]


def _check_embed(embed: EmbedParams, where: str, widths: Sequence[int]) -> None:
    """UserError unless an encoder is as wide as the generator at each of its levels."""
    if embed.num_downsamples < len(widths) - 1:
        what = f"is {embed.num_downsamples}, but the generator has maps of {len(widths)} sizes"
        advice = f"it must be {len(widths) - 1} or more"
        raise UserError(what, where=f"{where}.num_downsamples", advice=advice, code="misfit")
    for level, width in enumerate(widths):
        own = min(embed.max_num_filters, embed.num_filters * 2**level)
        if own != width:
            key = "max_num_filters" if level else "num_filters"
            what = f"makes {own} channels at 1 / {2**level} of the size, where the generator has {width}"
            raise UserError(what, where=f"{where}.{key}", advice="make them the same", code="misfit")


class Discriminator(ClipDiscriminator):
    """Of images with their label, and with a reference and its label; of parts of images and references; of clips."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        num_frames: Several = 2,
        image: PatchParams = _IMAGE,
        additional_discriminators: dict[str, CropParams] | None = None,
        temporal: TemporalParams | None = None,
    ) -> None:
        """num_frames: Length of the clips that the temporal discriminators see. [frames]
        image: Of images with their label.
        additional_discriminators: Of parts of an image, by names of your choice.
        temporal: Of clips; null for none.
        """
        super().__init__(
            image_channels=image_channels,
            context_channels=2 * label_channels + image_channels,
            crop_channels=2 * image_channels,
            num_frames=num_frames,
            image=image,
            additional_discriminators=additional_discriminators,
            temporal=temporal,
        )


State = dict[str, Tensor]
"""What the next frame follows from: `labels` and `images` of the frames before, N x P x ..., the oldest first."""


@dataclass(frozen=True)
class _Frame:
    """A moment of real clips, as the losses see it."""

    label: Tensor
    """N x L x H x W."""
    ref_labels: Tensor
    """N x K x L x H x W."""
    ref_images: Tensor
    """N x K x C x H x W."""
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


@dataclass(frozen=True)
class _Motion:
    """How another image was moved to look like a frame."""

    flow: Tensor
    mask: Tensor
    warped: Tensor
    true_flow: Tensor
    confidence: Tensor


class Recipe(BaseRecipe):
    """Training of few-shot vid2vid on clips: each frame is an update of the discriminator, then one of the generator.

    A batch holds references of each clip, `few_shot_images` N x K x 3 x H x W in [-1, 1] and `few_shot_label`
    N x K x L x H x W. It may hold `flow`, N x T x 2 x H x W: where the pixels of each frame come from in the one before
    it, as in nn/warp.py (that of the first frame is not used), and `flow_confidence`, N x T x 1 x H x W, 1 where it is
    right. Without `flow`, `estimate_flow` is asked; so it is for the flow to references.
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
        self.loss_weight = expand_weights(loss_weight, dis)
        self.check_weights("gan")
        self.perceptual_config = perceptual_loss
        self.perceptual: PerceptualLoss | None = None
        self.has_foreground = has_foreground
        self.random_drop_prob = random_drop_prob
        self.reuse_gen_output = reuse_gen_output
        self.has_densepose = gen.pose_type is not None and DENSEPOSE in label_lengths
        self.memory = max(gen.num_frames - 1, dis.memory)
        self.estimate_flow: FlowEstimator = OnlineDis()
        self.dis_sizes = SizeProbe(dis.image, _judge, where="dis.image", depth_keys="num_layers or num_discriminators")

    def load_losses(self) -> Sequence[nn.Module]:
        self.perceptual = PerceptualLoss.create_if_weighted(self.perceptual_config, self.loss_weight["perceptual"])
        return () if self.perceptual is None else (self.perceptual,)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """The frames of the clips one after the other, each with an update of either player."""
        dropped = [self._draw_dropped_parts(batch, ctx.rng) for _ in ("label", "few_shot_label")]
        yield from self._learn(self._prepare(batch, *dropped))

    def _learn(self, batch: Batch) -> Iterator[tuple[str, Losses]]:
        """The phases of a prepared batch."""
        past: list[Tensor] = []
        for t in range(batch["images"].shape[1]):
            frame = self._look_at(batch, t, past)
            with torch.set_grad_enabled(self.reuse_gen_output):
                fake = self._make_frame(batch, t, past)
            yield "dis", self.dis_losses(frame, fake)
            if not self.reuse_gen_output:
                fake = self._make_frame(batch, t, past)
            yield "gen", self.gen_losses(frame, fake)
            past = [*past, fake["fake_images"].detach()][-self.memory :]

    def prepare(self, batch: Batch) -> Batch:
        """Brings DensePose channels to [-1, 1]. UserError if there are no references, or if the networks cannot halve
        the frames often enough."""
        return self._prepare(batch, None, None)

    def _prepare(self, batch: Batch, dropped: Tensor | None, dropped_of_references: Tensor | None) -> Batch:
        if "few_shot_images" not in batch or "few_shot_label" not in batch:
            what = "gives clips without references (few_shot_images, few_shot_label)"
            raise UserError(what, where="data.type", advice="choose paired_few_shot_videos", code="no-references")
        check_flow(batch.tensors)
        multiple, (height, width) = self.gen.size_multiple, batch["label"].shape[-2:]
        if height % multiple or width % multiple:
            what = f"halves the sides of frames until 1 / {multiple} is left, but frames have {height} x {width} px"
            advice = "choose multiples of that (augmentations), or lower num_downsamples"
            raise UserError(what, where="gen", advice=advice, code="image-size")
        if not self.has_densepose:
            return batch
        label = normalize_densepose(batch["label"], dropped)
        return batch.replace(
            label=label, few_shot_label=normalize_densepose(batch["few_shot_label"], dropped_of_references)
        )

    def _draw_dropped_parts(self, batch: Batch, rng: torch.Generator) -> Tensor | None:
        """Which parts of the body are removed from all labels of a step, bool [24]."""
        if not (self.has_densepose and self.random_drop_prob):
            return None
        return torch.rand(PARTS, generator=rng, device=batch["label"].device) < self.random_drop_prob

    def _make_frame(self, batch: Batch, t: int, past: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the generator makes of a moment. past: generated frames, the oldest first."""
        seen = past[-(self.gen.num_frames - 1) :]
        labels = batch["label"]
        before = (labels[:, t - len(seen) : t], torch.stack(list(seen), dim=1)) if seen else (None, None)
        return self.gen(labels[:, t], batch["few_shot_label"], batch["few_shot_images"], *before)

    def _look_at(self, batch: Batch, t: int, past: Sequence[Tensor]) -> _Frame:
        images, label = batch["images"], batch["label"][:, t]
        since = max(0, t - self.dis.memory)
        return _Frame(
            label=label,
            ref_labels=batch["few_shot_label"],
            ref_images=batch["few_shot_images"],
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
        ref_label, ref_image = _pick_references(frame, fake)
        context = torch.cat([frame.label, ref_label, ref_image], dim=1)
        with self.dis_sizes.explain(label=context, images=frame.image):
            with torch.set_grad_enabled(should_learn_from_real):
                of_real = self.dis(context, frame.image, frame.crops, frame.past_real, ref_image)
            of_fake = self.dis(context, fake["fake_images"], frame.crops, frame.past_fake, ref_image)
        found = {name: pair(of_real[name], of_fake[name]) for name in of_real}
        if "fake_raw_images" in fake:
            real, raw = (_mask(x, frame.foreground) for x in (frame.image, fake["fake_raw_images"]))
            with torch.set_grad_enabled(should_learn_from_real):
                of_image = self.dis.judge(context, real)
            found["raw"] = (of_image, self.dis.judge(context, raw))
        return found

    def dis_losses(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Losses:
        """The losses of the discriminator."""
        detached = {name: tensor.detach() for name, tensor in fake.items()}
        found = self.discriminate(frame, detached, should_learn_from_real=True)
        groups = group_pairs(found, self._left_out(frame))
        return adversarial_dis(groups, self.gan_mode, frame.image.new_zeros(()))

    def gen_losses(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Losses:
        """The losses of the generator."""
        images, target = fake["fake_images"], frame.image
        found = self.discriminate(frame, fake, should_learn_from_real=False)
        groups, has_features = group_pairs(found, self._left_out(frame)), bool(self.loss_weight["feature_matching"])
        losses = adversarial_gen(groups, self.gan_mode, target.new_zeros(()), has_features=has_features)
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(images, target)
            if "fake_raw_images" in fake:
                real, raw = (_mask(x, frame.foreground) for x in (target, fake["fake_raw_images"]))
                losses["perceptual"] = losses["perceptual"] + self.perceptual(raw, real)
        if self.loss_weight["l1"]:
            losses["l1"] = l1(images, target)
        return {**losses, **self._flow_losses(frame, fake)} if self.loss_weight["flow"] else losses

    def _flow_losses(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Losses:
        terms = {name: [frame.image.new_zeros(())] for name in ("l1", "warp", "mask")}
        for motion in self._list_motions(frame, fake):
            trusted = _mask(motion.confidence, frame.foreground)
            terms["l1"].append(masked_l1(motion.flow, motion.true_flow, trusted))
            terms["warp"].append(l1(motion.warped, frame.image))
            terms["mask"].append(mask_loss(motion.mask.float(), motion.warped, frame.image))
        if "ref_flow_maps" in fake:
            ref_label, _ = _pick_references(frame, fake)
            if self.has_densepose:
                _add_pose_terms(terms, frame.label, ref_label, fake)
            if self.has_foreground:
                _add_foreground_terms(terms, frame.label, ref_label, fake)
        return {f"flow/{name}": torch.stack(of_name).sum() for name, of_name in terms.items()}

    def _list_motions(self, frame: _Frame, fake: Mapping[str, Tensor]) -> Iterator[_Motion]:
        """Of the reference, and of the frame before, where they were moved, each with what moves real images so."""
        if "ref_flow_maps" in fake:
            ref_label, ref_image = _pick_references(frame, fake)
            here, there = (frame.label[:, :3], ref_label[:, :3]) if self.has_densepose else (frame.image, ref_image)
            with torch.no_grad():
                flow = self.estimate_flow(here, there)
                confidence = measure_confidence(here, there, flow)
            yield _Motion(
                fake["ref_flow_maps"], fake["ref_occlusion_masks"], fake["ref_warped_images"], flow, confidence
            )
        if "fake_flow_maps" in fake and frame.before is not None:
            with torch.no_grad():
                flow = self.estimate_flow(frame.image, frame.before) if frame.flow is None else frame.flow
                known = frame.confidence
                confidence = measure_confidence(frame.image, frame.before, flow) if known is None else known
            yield _Motion(fake["fake_flow_maps"], fake["fake_occlusion_masks"], fake["warped_images"], flow, confidence)

    def _left_out(self, frame: _Frame) -> list[str]:
        """The discriminators of clips that have nothing to say of this frame."""
        return [x for x in self.dis.temporal_names if frame.is_alone or not self.loss_weight[f"GAN_{x}"]]

    def rollout(
        self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None
    ) -> Iterator[tuple[dict[str, Tensor], State]]:
        """Generates the frames of clips in order, in constant memory.

        frames: prepared batches of N samples x 1 frame, with the references in each. Yields the generator's outputs for
        each and the state after it; a state given begins where that frame ended.
        """
        before, most = state or {}, self.gen.num_frames - 1
        for batch in frames:
            label, references = batch["label"], (batch["few_shot_label"], batch["few_shot_images"])
            fake = self.gen(label[:, 0], *references, before.get("labels"), before.get("images"))
            seen = {"labels": label, "images": fake["fake_images"].detach()[:, None]}
            if before:
                seen = {name: torch.cat([before[name], new], dim=1) for name, new in seen.items()}
            before = {name: tensor[:, -most:] for name, tensor in seen.items()}
            yield fake, before

    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The generator's outputs for the last frame, made from the generated ones before it."""
        for fake, _ in self.rollout(batch.frames(), rng):
            last = fake
        return last

    def infer(
        self, batch: Batch, rng: torch.Generator, *, finetune: bool = False, finetune_iter: Positive = 100
    ) -> list[Tensor]:
        """The last frame of each clip. The arguments are those of `tune`, which comes before the first one.

        finetune: Fit the networks to the references of each sequence before its first frame is made.
        finetune_iter: Updates of either network for that.
        """
        return list(self.sample(batch, rng))

    def tune(
        self, batch: Batch, rng: torch.Generator, *, finetune: bool = False, finetune_iter: Positive = 100
    ) -> Iterator[tuple[str, Losses]] | None:
        """Fits the decoder, and the layers that make weights, to the references of a prepared batch.

        The frame to be made is one of them, moved and mirrored at random together with its label.
        """
        return self._tune(batch, rng, finetune_iter) if finetune else None

    def _tune(self, batch: Batch, rng: torch.Generator, count: int) -> Iterator[tuple[str, Losses]]:
        labels, images = batch["few_shot_label"], batch["few_shot_images"]
        for name, parameter in self.gen.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(_TUNED))

        def draw(most: int) -> int:
            return int(torch.randint(most, (), generator=rng, device=rng.device))

        for _ in range(count):
            number = draw(images.shape[1])
            shifts = [(draw(max(1, side // 16))) * (1 if draw(2) else -1) for side in images.shape[-2:]]
            is_mirrored = draw(2)
            label, image = (torch.roll(x[:, number : number + 1], shifts, dims=(-2, -1)) for x in (labels, images))
            label, image = (x.flip(-1) if is_mirrored else x for x in (label, image))
            references = {"few_shot_label": labels, "few_shot_images": images}
            yield from self._learn(Batch({**references, "label": label, "images": image}))

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """The first reference, as it is."""
        return {"reference": to_rgb(batch["few_shot_images"][:, 0])}

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Of the discriminators of images as a whole, of the last frame."""
        fake, frame = self.generate(batch, rng), self._look_at(batch, batch["images"].shape[1] - 1, [])
        context = torch.cat([frame.label, *_pick_references(frame, fake)], dim=1)
        of_real, of_fake = (self.dis.judge(context, x)[0] for x in (frame.image, fake["fake_images"]))
        return center_logits(of_real, self.gan_mode), center_logits(of_fake, self.gan_mode)

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The last frame of each clip, made from the generated ones before it."""
        return to_rgb(self.generate(batch, rng)["fake_images"])

    def inference_inputs(self, **inference_args: Any) -> InferenceInputs:
        return InferenceInputs(content=("label",))

    def target(self, batch: Batch) -> Tensor:
        return to_rgb(batch["images"][:, -1])

    def class_map(self, batch: Batch) -> Tensor | None:
        return find_class_map(batch["label"][:, -1], self.label_lengths, self.one_hot)

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        labels = split_label(batch["label"][:, -1], self.label_lengths)
        columns = {name: colorize(part) for name, part in labels.items()}
        return {"reference": to_rgb(batch["few_shot_images"][:, 0]), "images": self.target(batch), **columns}

    def visualize_frame(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A frame, and what it is made of."""
        columns = {name: outputs[key] for name, key in SHOWN.items() if key in outputs}
        columns |= {name: outputs[key] * 2 - 1 for name, key in SHOWN_MASKS.items() if key in outputs}
        return {name: to_rgb(column) for name, column in columns.items()}


SHOWN = {
    "fake": "fake_images",
    "raw": "fake_raw_images",
    "warped": "warped_images",
    "warped reference": "ref_warped_images",
}
"""Columns of the image grid, and the outputs of the generator that they show."""

SHOWN_MASKS = {"painted anew": "fake_occlusion_masks", "not of the reference": "ref_occlusion_masks"}
"""The same of masks."""

_TUNED = ("weight_generator.fc.", "conv_img.", "up.")
"""What `tune` changes of the generator."""


def _pick_references(frame: _Frame, fake: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Label and image of the reference that counts most, or of the first."""
    chosen = fake.get("ref_idx")
    return pick_reference(frame.ref_labels, chosen), pick_reference(frame.ref_images, chosen)


def _add_pose_terms(
    terms: Mapping[str, list[Tensor]], label: Tensor, ref_label: Tensor, fake: Mapping[str, Tensor]
) -> None:
    """Parts of the body must be moved to where they are; faces come from the reference, and what it lacks does not."""
    parts, warped = find_body_parts(label), warp(find_body_parts(ref_label), fake["ref_flow_maps"])
    terms["warp"].append(l1(warped, parts))
    face = F.avg_pool2d(find_face(label), 15, stride=1, padding=7)
    elsewhere = (warped - parts).abs().sum(dim=1, keepdim=True)
    mask = fake["ref_occlusion_masks"].float()
    terms["mask"] += [
        masked_l1(mask, 0.0, face),
        masked_l1(fake["fake_images"], fake["ref_warped_images"], face),
        masked_l1(mask, 1.0, elsewhere),
    ]


def _add_foreground_terms(
    terms: Mapping[str, list[Tensor]], label: Tensor, ref_label: Tensor, fake: Mapping[str, Tensor]
) -> None:
    """The person must be moved to where it is; what it hides in the reference is painted anew."""
    here, there = find_foreground(label), find_foreground(ref_label)
    terms["warp"].append(l1(warp(there, fake["ref_flow_maps"]), here))
    terms["mask"].append(masked_l1(fake["ref_occlusion_masks"].float(), 1.0, (there - here > 0).float()))


def _mask(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _judge(network: nn.Module, label: Tensor, images: Tensor) -> object:
    """A discriminator of images with what is shown beside them, for the SizeProbe."""
    return network(torch.cat([label, images], dim=1))
