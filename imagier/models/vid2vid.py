"""vid2vid: videos from videos of label maps, frame by frame, each from the ones before it.

Wang et al., Video-to-Video Synthesis, 2018; the generator with spatially adaptive norms of few-shot vid2vid (2019).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imagier.losses.clips import LossWeights, expand_weights
from imagier.losses.flow import FlowEstimator, OnlineDis, check_flow
from imagier.losses.frames import LOG_NAMES, FrameLosses
from imagier.losses.gan import GanMode
from imagier.losses.perceptual import PerceptualConfig
from imagier.nn.clip_discriminator import ClipDiscriminator, CropParams, PatchParams, TemporalParams
from imagier.nn.conv import WeightNorm
from imagier.nn.flow_network import FlowParams
from imagier.nn.frame_generator import FrameGenerator, MultiSpadeParams, append_frame
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.label_parts import find_class_map, show_label
from imagier.nn.poses import PoseType, draw_dropped_parts, has_densepose, normalize_densepose
from imagier.nn.resize import to_rgb
from imagier.ranges import Count, Odd, Positive, Several, Share
from imagier.recipe import Batch, InferenceInputs, Losses, State, StepContext
from imagier.recipe import Recipe as BaseRecipe

_EMBED, _FLOW, _NORM, _IMAGE = EmbedParams(), FlowParams(), MultiSpadeParams(), PatchParams()


class Generator(FrameGenerator):
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
        activation_norm_params: MultiSpadeParams = _NORM,
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
        super().__init__(
            label_channels=label_channels,
            image_channels=image_channels,
            crop_h_w=crop_h_w,
            num_frames=num_frames,
            num_layers=num_layers,
            num_downsamples_img=num_downsamples_img,
            num_filters=num_filters,
            max_num_filters=max_num_filters,
            kernel_size=kernel_size,
            weight_norm_type=weight_norm_type,
            activation_norm_params=activation_norm_params,
            style_dims=style_dims,
            use_segmap_as_input=use_segmap_as_input,
            embed=embed,
            flow=flow,
            pose_type=pose_type,
            remove_face_labels=remove_face_labels,
        )


class Discriminator(ClipDiscriminator):
    """Of images with their label, of parts of images, and of clips."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        num_frames: Several = 3,
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
            context_channels=label_channels,
            crop_channels=image_channels,
            num_frames=num_frames,
            image=image,
            additional_discriminators=additional_discriminators,
            temporal=temporal,
        )


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
        batch = self._prepare(batch, draw_dropped_parts(self.drop_share, ctx.rng))
        past: list[Tensor] = []
        for t in range(batch["images"].shape[1]):
            frame = self.frame_losses.look_at(self.dis, batch.tensors, t, past)
            with torch.set_grad_enabled(self.reuse_gen_output):
                fake = self.gen(*self._inputs(batch, t, past))
            yield "dis", self.frame_losses.of_dis(self.dis, frame, fake)
            if not self.reuse_gen_output:
                fake = self.gen(*self._inputs(batch, t, past))
            yield "gen", self.frame_losses.of_gen(self.dis, frame, fake, self.estimate_flow)
            past = [*past, fake["fake_images"].detach()][-self.memory :]

    def prepare(self, batch: Batch) -> Batch:
        """Brings DensePose channels to [-1, 1]. UserError if the frames are not of the generator's size, or if the flow
        is none."""
        return self._prepare(batch, None)

    def _prepare(self, batch: Batch, dropped: Tensor | None) -> Batch:
        self.gen.check_size(batch["label"])
        check_flow(batch.tensors)
        return batch.replace(label=normalize_densepose(batch["label"], dropped)) if self.has_densepose else batch

    def _inputs(self, batch: Batch, t: int, past: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the generator sees at a moment. past: generated frames, the oldest first."""
        labels, seen = batch["label"], past[-(self.gen.num_frames - 1) :]
        if not seen:
            return labels[:, t], None, None
        return labels[:, t], labels[:, t - len(seen) : t], torch.stack(list(seen), dim=1)

    def rollout(
        self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None
    ) -> Iterator[tuple[dict[str, Tensor], State]]:
        """The frames of clips, each made from the labels and the generated frames before it, which are the state."""
        labels, images = (None, None) if state is None else (state["labels"], state["images"])
        for frame in frames:
            fake = self.gen(frame["label"][:, 0], labels, images)
            labels = append_frame(labels, frame["label"][:, 0], self.gen.num_frames - 1)
            images = append_frame(images, fake["fake_images"].detach(), self.gen.num_frames - 1)
            yield fake, {"labels": labels, "images": images}

    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The generator's outputs for the last frame, made from the generated ones before it."""
        for fake, _ in self.rollout(batch.frames(), rng):
            last = fake
        return last

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Of the discriminators of images as a whole, of the last frame."""
        fake, last = self.generate(batch, rng)["fake_images"], batch["images"].shape[1] - 1
        return self.frame_losses.logits(self.dis, batch["label"][:, last], batch["images"][:, last], fake)

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
        columns = show_label(batch["label"][:, -1], self.label_lengths, self.one_hot, self.normalized)
        return {"images": self.target(batch), **columns}

    def visualize_frame(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A frame, and what it is made of."""
        columns = {name: outputs[key] for name, key in SHOWN.items() if key in outputs}
        if "fake_occlusion_masks" in outputs:
            columns["painted anew"] = outputs["fake_occlusion_masks"] * 2 - 1
        return {name: to_rgb(column) for name, column in columns.items()}


SHOWN = {"fake": "fake_images", "raw": "fake_raw_images", "warped": "warped_images"}
"""Columns of the image grid, and the outputs of the generator that they show."""
