"""Few-shot vid2vid: videos of people or scenes known from a few images, from videos of label maps.

Wang et al., Few-shot Video-to-Video Synthesis, 2019.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.clips import LossWeights, expand_weights
from imagier.losses.flow import FlowEstimator, OnlineDis, check_flow, masked_l1, measure_confidence, motion_losses
from imagier.losses.frames import LOG_NAMES, Frame, FrameLosses, mask_by
from imagier.losses.gan import GanMode
from imagier.losses.perceptual import PerceptualConfig
from imagier.losses.pixel import l1
from imagier.nn.blocks import LEAKY_SLOPE, NoNorm, NormActConv
from imagier.nn.clip_discriminator import ClipDiscriminator, CropParams, PatchParams, TemporalParams
from imagier.nn.conv import WeightNorm, conv2d
from imagier.nn.few_shot_flow import FewShotFlowNetwork, FewShotFlowParams
from imagier.nn.frame_generator import MultiSpadeParams, append_frame, check_sides
from imagier.nn.hyper import HYPER_SPADE_RULES, HyperResBlock, HyperSpatiallyAdaptiveNorm, Modulation
from imagier.nn.label_embedder import EmbedParams, LabelEmbedder
from imagier.nn.label_parts import find_class_map, show_label
from imagier.nn.norm import MultiSpatiallyAdaptiveNorm, NormParams, norm2d
from imagier.nn.poses import (
    PoseType,
    draw_dropped_parts,
    filter_pose_label,
    find_body_parts,
    find_face,
    find_foreground,
    has_densepose,
    normalize_densepose,
)
from imagier.nn.reference_names import Rules
from imagier.nn.resize import to_rgb, upsample2x
from imagier.nn.warp import warp
from imagier.nn.weight_generator import WEIGHT_GENERATOR_RULES, Generated, HyperParams, WeightGenerator
from imagier.ranges import Count, Odd, Positive, Several, Share
from imagier.recipe import Batch, InferenceInputs, Losses, State, StepContext
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
    log_names: ClassVar[Mapping[str, str]] = LOG_NAMES

    def __init__(
        self,
        *,
        gen: Generator,
        dis: Discriminator,
        label_lengths: Mapping[str, int],
        one_hot: Sequence[str] = (),
        normalized: Collection[str] = (),
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
        normalized: types in [-1, 1] instead of [0, 1].
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
        self.loss_weight = expand_weights(loss_weight, dis)
        self.check_weights("gan")
        self.perceptual_config = perceptual_loss
        self.reuse_gen_output = reuse_gen_output
        self.shows_poses = gen.pose_type is not None
        self.has_densepose = has_densepose(
            label_lengths,
            gen.pose_type,
            normalized=normalized,
            should_remove_face=gen.remove_face_labels,
            has_foreground=has_foreground,
        )
        self.drop_share = random_drop_prob if self.has_densepose else 0.0
        self.normalized = label_lengths if self.has_densepose else normalized  # as `prepare` leaves them
        self.memory = max(gen.num_frames - 1, dis.memory)
        self.estimate_flow: FlowEstimator = OnlineDis()
        self.frame_losses = FrameLosses(
            dis, weights=self.loss_weight, gan_mode=gan_mode, label_lengths=label_lengths, has_foreground=has_foreground
        )

    def load_losses(self) -> Sequence[nn.Module]:
        return self.frame_losses.load_perceptual(self.perceptual_config)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """The frames of the clips one after the other, each with an update of either player."""
        dropped = [draw_dropped_parts(self.drop_share, ctx.rng) for _ in ("label", "few_shot_label")]
        yield from self._learn(self._prepare(batch, *dropped))

    def _learn(self, batch: Batch) -> Iterator[tuple[str, Losses]]:
        """The phases of a prepared batch."""
        past: list[Tensor] = []
        for t in range(batch["images"].shape[1]):
            frame = self.frame_losses.look_at(self.dis, batch.tensors, t, past)
            with torch.set_grad_enabled(self.reuse_gen_output):
                fake = self._make_frame(batch, t, past)
            yield "dis", self.frame_losses.of_dis(self.dis, self._show_reference(frame, batch, fake), fake)
            if not self.reuse_gen_output:
                fake = self._make_frame(batch, t, past)
            yield "gen", self._gen_losses(self._show_reference(frame, batch, fake), fake)
            past = [*past, fake["fake_images"].detach()][-self.memory :]

    def prepare(self, batch: Batch) -> Batch:
        """Brings DensePose channels to [-1, 1]. UserError if there are no references or too many, or if the networks
        cannot halve the frames often enough."""
        return self._prepare(batch, None, None)

    def _prepare(self, batch: Batch, dropped: Tensor | None, dropped_of_references: Tensor | None) -> Batch:
        if "few_shot_images" not in batch or "few_shot_label" not in batch:
            what = "gives clips without references (few_shot_images, few_shot_label)"
            raise UserError(what, where="data.type", advice="choose paired_few_shot_videos", code="no-references")
        count = batch["few_shot_images"].shape[1]
        if count > 1 and self.gen.weight_generator.attention_module is None:
            what = f"gives {count} references of each clip to a generator of one"
            raise UserError(what, where="initial_few_shot_K", advice="use the same in training", code="references")
        check_flow(batch.tensors)
        check_sides(batch["label"], self.gen.size_multiple, "num_downsamples")
        if not self.has_densepose:
            return batch
        label = normalize_densepose(batch["label"], dropped)
        return batch.replace(
            label=label, few_shot_label=normalize_densepose(batch["few_shot_label"], dropped_of_references)
        )

    def _make_frame(self, batch: Batch, t: int, past: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the generator makes of a moment. past: generated frames, the oldest first."""
        seen = past[-(self.gen.num_frames - 1) :]
        labels = batch["label"]
        before = (labels[:, t - len(seen) : t], torch.stack(list(seen), dim=1)) if seen else (None, None)
        return self.gen(labels[:, t], batch["few_shot_label"], batch["few_shot_images"], *before)

    def _show_reference(self, frame: Frame, batch: Batch, fake: Mapping[str, Tensor]) -> Frame:
        """The frame beside the reference that counted most for it, or beside the first."""
        ref_label, ref_image = _pick_references(batch, fake)
        return replace(frame, ref_label=ref_label, ref_image=ref_image)

    def _gen_losses(self, frame: Frame, fake: Mapping[str, Tensor]) -> Losses:
        losses = self.frame_losses.of_gen(self.dis, frame, fake, self.estimate_flow)
        if not self.loss_weight["flow"] or "ref_flow_maps" not in fake:
            return losses
        of_reference = [self._reference_losses(frame, fake)]
        of_reference += [_pose_losses(frame, fake)] if self.shows_poses else []
        of_reference += [_foreground_losses(frame, fake, frame.foreground)] if frame.foreground is not None else []
        for name in ("flow/l1", "flow/warp", "flow/mask"):
            losses[name] = losses[name] + torch.stack([part[name] for part in of_reference if name in part]).sum()
        return losses

    def _reference_losses(self, frame: Frame, fake: Mapping[str, Tensor]) -> Losses:
        """The reference must be moved as its label is, if that shows poses, or as its image is."""
        assert frame.ref_label is not None and frame.ref_image is not None
        here, there = frame.image, frame.ref_image
        if self.shows_poses:
            here, there = frame.label[:, :3], frame.ref_label[:, :3]
        with torch.no_grad():
            flow = self.estimate_flow(here, there)
            trusted = mask_by(frame.foreground, measure_confidence(here, there, flow))
        moved = [fake[name] for name in ("ref_flow_maps", "ref_occlusion_masks", "ref_warped_images")]
        return motion_losses(moved, frame.image, flow, trusted)

    def rollout(
        self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None
    ) -> Iterator[tuple[dict[str, Tensor], State]]:
        """Generates the frames of clips in order, in constant memory.

        frames: prepared batches of N samples x 1 frame, with the references in each. Yields the generator's outputs for
        each and the state after it; a state given begins where that frame ended.
        """
        labels, images = (None, None) if state is None else (state["labels"], state["images"])
        for frame in frames:
            fake = self.gen(frame["label"][:, 0], frame["few_shot_label"], frame["few_shot_images"], labels, images)
            labels = append_frame(labels, frame["label"][:, 0], self.gen.num_frames - 1)
            images = append_frame(images, fake["fake_images"].detach(), self.gen.num_frames - 1)
            yield fake, {"labels": labels, "images": images}

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
        fake, last = self.generate(batch, rng), batch["images"].shape[1] - 1
        context = torch.cat([batch["label"][:, last], *_pick_references(batch, fake)], dim=1)
        return self.frame_losses.logits(self.dis, context, batch["images"][:, last], fake["fake_images"])

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The last frame of each clip, made from the generated ones before it."""
        return to_rgb(self.generate(batch, rng)["fake_images"])

    def inference_inputs(self, **inference_args: Any) -> InferenceInputs:
        return InferenceInputs(content=("label",), references=("label", "images"))

    def target(self, batch: Batch) -> Tensor:
        return to_rgb(batch["images"][:, -1])

    def class_map(self, batch: Batch) -> Tensor | None:
        return find_class_map(batch["label"][:, -1], self.label_lengths, self.one_hot)

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        columns = show_label(batch["label"][:, -1], self.label_lengths, self.one_hot, self.normalized)
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


def _pick_references(batch: Batch, fake: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Label and image of the reference that counts most, or of the first."""
    chosen = fake.get("ref_idx")
    return pick_reference(batch["few_shot_label"], chosen), pick_reference(batch["few_shot_images"], chosen)


def _pose_losses(frame: Frame, fake: Mapping[str, Tensor]) -> Losses:
    """Parts of the body must be moved to where they are; faces come from the reference, and what it lacks does not."""
    assert frame.ref_label is not None
    parts, warped = find_body_parts(frame.label), warp(find_body_parts(frame.ref_label), fake["ref_flow_maps"])
    face = F.avg_pool2d(find_face(frame.label), 15, stride=1, padding=7)
    elsewhere = (warped - parts).abs().sum(dim=1, keepdim=True)
    mask = fake["ref_occlusion_masks"].float()
    of_face = masked_l1(mask, 0.0, face) + masked_l1(fake["fake_images"], fake["ref_warped_images"], face)
    return {"flow/warp": l1(warped, parts), "flow/mask": of_face + masked_l1(mask, 1.0, elsewhere)}


def _foreground_losses(frame: Frame, fake: Mapping[str, Tensor], here: Tensor) -> Losses:
    """The person must be moved to where it is; what it hides in the reference is painted anew."""
    assert frame.ref_label is not None
    there = find_foreground(frame.ref_label)
    return {
        "flow/warp": l1(warp(there, fake["ref_flow_maps"]), here),
        "flow/mask": masked_l1(fake["ref_occlusion_masks"].float(), 1.0, (there - here > 0).float()),
    }
