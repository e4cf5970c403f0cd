"""World-consistent vid2vid: videos from videos of label maps in which a place looks as it did before.

Mallya et al., World-Consistent Video-to-Video Synthesis, 2020. Points of the world keep the color in which they were
first made; what is known of a new frame before it is made guides the generator. The discriminator is that of vid2vid
(`type: vid2vid`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses import clips
from imagier.losses.clips import expand_weights
from imagier.losses.flow import FlowEstimator, OnlineDis, check_flow
from imagier.losses.frames import LOG_NAMES, FrameLosses
from imagier.losses.gan import GanMode
from imagier.losses.perceptual import PerceptualConfig
from imagier.nn.clip_discriminator import ClipDiscriminator
from imagier.nn.conv import WeightNorm
from imagier.nn.flow_network import FlowParams
from imagier.nn.frame_generator import FrameGenerator, GuidanceParams, MultiSpadeParams, append_frame
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.label_parts import find_class_map, show_label
from imagier.nn.point_cloud import PointCloud, compact, empty_cloud, paint, render
from imagier.nn.pretrained import Frozen, OpenPretrained, Pretrained, PretrainedParams
from imagier.nn.reference_names import Rules
from imagier.nn.resize import to_rgb
from imagier.ranges import Count, NonNegative, Odd, Positive, Several
from imagier.recipe import Batch, InferenceInputs, Losses, State, StepContext
from imagier.recipe import Recipe as BaseRecipe

_EMBED, _FLOW, _NORM = EmbedParams(), FlowParams(), MultiSpadeParams()

POINTS = "unprojections"
"""Which point of the world each pixel shows, N x T x 1 x H x W, as in nn/point_cloud.py."""


class Generator(FrameGenerator):
    """A frame from its label map, from the labels and frames before it, and from the colors of what it shows."""

    def __init__(
        self,
        *,
        label_channels: int,
        image_channels: int,
        crop_h_w: tuple[int, int],
        guidance: GuidanceParams,
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
        single_image_model: PretrainedParams | None = None,
        open_pretrained: OpenPretrained | None = None,
    ) -> None:
        """guidance: How the colors of points guide it.
        num_frames: Frames that it looks at: the one that it makes, and those before. [frames]
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
        single_image_model: A SPADE generator that makes the frames before there is flow; null: it makes them itself.
        open_pretrained: How to get at that.
        """
        _check_flow(flow)
        if image_channels != 3:
            what = f"has {image_channels} channels, but points have colors of 3"
            raise UserError(what, where="data.input_image", code="not-rgb")
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
            pose_type=None,
            remove_face_labels=False,
            guidance=guidance,
        )
        self.start_from = guidance.start_from
        self.single_image_model: Frozen | None = None
        self._load_pretrained: Callable[[nn.Module], None] | None = None
        if single_image_model is not None and open_pretrained is not None:
            opened = _open_spade(open_pretrained, single_image_model)
            self.single_image_model = Frozen(opened.network)
            self.size_multiple = lcm(self.size_multiple, opened.network.size_multiple)  # type: ignore[arg-type]
            self._load_pretrained = opened.load

    def load_single_image_model(self) -> None:
        """Gives the single-image model the weights that it was trained to, if there is one."""
        if self.single_image_model is not None and self._load_pretrained is not None:
            self._load_pretrained(self.single_image_model.network)

    @property
    def num_code_dims(self) -> int:
        """Size of the code of the single-image model; 0 without one."""
        return 0 if self.single_image_model is None else self.single_image_model.network.style_dims  # type: ignore

    @torch.no_grad()
    def paint_alone(self, label: Tensor, code: Tensor | None) -> dict[str, Tensor]:
        """A frame of the single-image model: N x L x H x W, and the code N x num_code_dims if it has one."""
        assert self.single_image_model is not None
        return {"fake_images": self.single_image_model.network(label, noise=code)["fake_images"]}

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        name, alone = "single_image_model", self.single_image_model
        return (*(() if alone is None else alone.reference_rules(name)), *super().reference_rules())


def _open_spade(open_pretrained: OpenPretrained, params: PretrainedParams) -> Pretrained:
    """UserError if it is no generator of SPADE, or one that needs attributes."""
    opened = open_pretrained(params)
    if opened.type != "spade":
        what = f"is a config of {opened.type}, but the first frames are made by a spade generator"
        raise UserError(what, where=f"single_image_model.config: {params.config}", code="other-method")
    if opened.network.attribute_dims:
        what = "is a config with attributes (gen.attribute_dims), which frames do not have"
        raise UserError(what, where=f"single_image_model.config: {params.config}", code="has-attributes")
    return opened


def _check_flow(flow: FlowParams) -> None:
    """UserError for what cannot go together with guidance."""
    if flow.multi_spade_combine is None:
        what = "is needed here: guidance modulates the layers that the warped frame modulates"
        raise UserError(what, where="flow.multi_spade_combine", code="not-supported")
    if flow.generate_raw_output:
        what = "must be false: this method makes no raw frames"
        raise UserError(what, where="flow.generate_raw_output", code="not-supported")


@dataclass(frozen=True, kw_only=True)
class LossWeights(clips.LossWeights):
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial ones of images."""

    guidance: NonNegative
    """L1 between a frame and the colors that guide it, where there are any."""


@dataclass(frozen=True)
class _Past:
    """What the next frame of clips follows from."""

    labels: Tensor | None
    """Labels before it, the oldest first, N x P x L x H x W."""
    images: Tensor | None
    """Generated frames before it, N x P x C x H x W."""
    cloud: PointCloud
    count: int
    """Frames before it."""
    code: Tensor | None
    """Of the single-image model, N x its length."""


class Recipe(BaseRecipe):
    """Training of world-consistent vid2vid on clips: each frame is an update of either player.

    A batch holds `unprojections`: which point of the world each pixel shows, N x T x 1 x H x W, as in
    nn/point_cloud.py. It may hold `flow` and `flow_confidence` as for vid2vid.
    """

    required_inputs: ClassVar[Sequence[str]] = ("images", "label", POINTS)
    normalized_inputs: ClassVar[Sequence[str]] = ("images",)
    data_keys: ClassVar[Sequence[str]] = ("single_frame_epoch", "num_epochs_temporal_step")
    is_video: ClassVar[bool] = True
    log_names: ClassVar[Mapping[str, str]] = {**LOG_NAMES, "guidance": "Guidance"}

    def __init__(
        self,
        *,
        gen: Generator,
        dis: ClipDiscriminator,
        label_lengths: Mapping[str, int],
        one_hot: Sequence[str] = (),
        normalized: Collection[str] = (),
        gan_mode: GanMode = "hinge",
        loss_weight: LossWeights,
        perceptual_loss: PerceptualConfig | None = None,
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
        reuse_gen_output: One forward of the generator per frame serves both updates; false: each has its own.
        single_frame_epoch: The first epoch with clips of more than one frame.
        num_epochs_temporal_step: Epochs after which the length of clips doubles; null: it stays. [epochs]
        """
        self.gen = gen
        self.dis = dis
        self.label_lengths = label_lengths
        self.one_hot = one_hot
        self.normalized = normalized
        self.loss_weight = expand_weights(loss_weight, dis)
        self.check_weights("gan")
        self.perceptual_config = perceptual_loss
        self.reuse_gen_output = reuse_gen_output
        self.estimate_flow: FlowEstimator = OnlineDis()
        self.frame_losses = FrameLosses(dis, weights=self.loss_weight, gan_mode=gan_mode, label_lengths=label_lengths)

    def load_losses(self) -> Sequence[nn.Module]:
        self.gen.load_single_image_model()
        return self.frame_losses.load_perceptual(self.perceptual_config)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """The frames of the clips one after the other, each with an update of either player.

        Those of the single-image model teach nobody anything, and are no part of what discriminators of clips see.
        UserError if there are no others.
        """
        past, made = self._begin(self.prepare(batch), ctx.rng), list[Tensor]()
        begin = self.gen.num_frames - 1 if self.gen.single_image_model is not None else 0
        frames = batch.frames()
        if len(frames) <= begin:
            what = f"the single-image model makes all frames of a clip of {len(frames)}, so that nothing would learn"
            advice = f"let clips have {begin + 1} frames or more (initial_sequence_length), and single_frame_epoch be 0"
            raise UserError(what, where="data", advice=advice, code="short-clips")
        for t, now in enumerate(frames):
            if t < begin:
                past = self._follow(past, now, self._generate(now, past))
                continue
            frame = self.frame_losses.look_at(self.dis, batch.tensors, t, made, begin)
            inputs = self._inputs(now, past)
            with torch.set_grad_enabled(self.reuse_gen_output):
                fake = self.gen(*inputs)
            yield "dis", self.frame_losses.of_dis(self.dis, frame, fake)
            if not self.reuse_gen_output:
                fake = self.gen(*inputs)
            yield (
                "gen",
                {
                    **self.frame_losses.of_gen(self.dis, frame, fake, self.estimate_flow),
                    **self._guidance_loss(fake),
                },
            )
            past = self._follow(past, now, fake)
            made = [*made, fake["fake_images"].detach()][-max(self.dis.memory, 1) :]

    def _guidance_loss(self, fake: Mapping[str, Tensor]) -> Losses:
        """Mean of |fake - color| over all values of pixels with a color; 0 without any."""
        if not self.loss_weight["guidance"]:
            return {}
        images, guidance = fake["fake_images"].float(), fake.get("guidance_images_and_masks")
        if guidance is None:
            return {"guidance": images.new_zeros(())}
        colors, mask = guidance[:, :-1], guidance[:, -1:].expand_as(images)
        return {"guidance": ((images - colors) * mask).abs().sum() / (mask.sum() + 1e-6)}

    def prepare(self, batch: Batch) -> Batch:
        """UserError if the frames are not of the generator's size, or if the flow or the points are none."""
        self.gen.check_size(batch["label"])
        check_flow(batch.tensors)
        if POINTS in batch and (batch[POINTS].shape[2] != 1 or batch[POINTS].is_floating_point()):
            advice = f"give it `type: {POINTS}`, and see docs/data.md"
            raise UserError("holds no points", where=f"data.input_types: {POINTS}", advice=advice, code="not-points")
        return batch

    def _begin(self, batch: Batch, rng: torch.Generator) -> _Past:
        """Before the first frame of clips."""
        label, dims = batch["label"], self.gen.num_code_dims
        code = torch.randn(len(label), dims, generator=rng, device=label.device) if dims else None
        return _Past(None, None, empty_cloud(label.device), 0, code)

    def _generate(self, now: Batch, past: _Past) -> dict[str, Tensor]:
        """The outputs for a frame: of the single-image model, if there is one, until there is flow."""
        if self.gen.single_image_model is not None and past.count < self.gen.num_frames - 1:
            return self.gen.paint_alone(now["label"][:, 0], past.code)
        return self.gen(*self._inputs(now, past))

    def _inputs(self, now: Batch, past: _Past) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """What the generator sees at a moment."""
        is_guided = POINTS in now and past.count >= self.gen.start_from
        guidance = render(past.cloud, now[POINTS][:, 0]) if is_guided else None
        return now["label"][:, 0], past.labels, past.images, guidance

    def _follow(self, past: _Past, now: Batch, fake: Mapping[str, Tensor]) -> _Past:
        """What the frame after this one follows from."""
        latest, cloud = fake["fake_images"].detach(), past.cloud
        if POINTS in now and past.count >= self.gen.start_from:
            cloud = paint(cloud, now[POINTS][:, 0], latest)
        newest = self.gen.num_frames - 1
        labels = append_frame(past.labels, now["label"][:, 0], newest)
        return _Past(labels, append_frame(past.images, latest, newest), cloud, past.count + 1, past.code)

    def rollout(
        self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None
    ) -> Iterator[tuple[dict[str, Tensor], State]]:
        """The frames of clips, each made from the labels and the generated frames before it, and from the colors of
        points, which are the state."""
        past = None if state is None else _unpack(state)
        for now in frames:
            before = self._begin(now, rng) if past is None else past
            fake = self._generate(now, before)
            past = self._follow(before, now, fake)
            past = replace(past, cloud=compact(past.cloud))
            yield fake, _pack(past)

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
        return InferenceInputs(content=("label", POINTS))

    def target(self, batch: Batch) -> Tensor:
        return to_rgb(batch["images"][:, -1])

    def class_map(self, batch: Batch) -> Tensor | None:
        return find_class_map(batch["label"][:, -1], self.label_lengths, self.one_hot)

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        columns = show_label(batch["label"][:, -1], self.label_lengths, self.one_hot, self.normalized)
        return {"images": self.target(batch), **columns}

    def visualize_frame(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A frame, and what it is made of."""
        columns = {"fake": outputs["fake_images"]}
        if "guidance_images_and_masks" in outputs:
            guidance = outputs["guidance_images_and_masks"]
            columns |= {"guidance": guidance[:, :-1], "guided": guidance[:, -1:] * 2 - 1}
        if "warped_images" in outputs:
            columns |= {"warped": outputs["warped_images"], "painted anew": outputs["fake_occlusion_masks"] * 2 - 1}
        return {name: to_rgb(column) for name, column in columns.items()}


def _pack(past: _Past) -> State:
    assert past.labels is not None and past.images is not None
    points, colors = past.cloud
    count = torch.tensor(past.count)
    state = {"labels": past.labels, "images": past.images, "points": points, "colors": colors, "count": count}
    return state if past.code is None else {**state, "code": past.code}


def _unpack(state: State) -> _Past:
    cloud = PointCloud(state["points"], state["colors"])
    return _Past(state["labels"], state["images"], cloud, int(state["count"]), state.get("code"))
