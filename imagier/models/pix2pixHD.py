"""pix2pixHD: images from label maps, coarse to fine, with control over the appearance of single objects.

Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs, 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.alternate import Updates, alternate
from imagier.errors import UserError
from imagier.losses.feature_matching import feature_matching
from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss, relativistic_logits
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.nn.blocks import ConvNormAct, ResBlock, build_up_layers
from imagier.nn.conv import PaddingMode, WeightNorm, conv2d
from imagier.nn.instances import (
    Clusters,
    average_by_instance,
    instance_edges,
    instance_ids,
    paint_segments,
    segment_means,
    segments,
)
from imagier.nn.joint import Call, run_in_turn, run_jointly
from imagier.nn.label_parts import find_class_map, show_label, show_part
from imagier.nn.norm import Norm, NormParams, norm2d
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.reference_names import Rules, reference_names
from imagier.nn.resize import round_to_multiple, to_rgb
from imagier.nn.size_probe import SizeProbe
from imagier.ranges import Count, NonNegative, Positive, Share
from imagier.recipe import Batch, Exported, InferenceInputs, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe

INSTANCE_MAPS = "instance_maps"
"""The input type that, as the last one of a label, holds the ids of instances."""

SMALLEST_SHARE = 0.0625
"""Only instances that fill more than this share of an image are examples of their class."""

INSTANCES_OF_A_CLASS = 1000
"""Cityscapes' ids from here on are class x 1000 + number; below they are classes."""

WRAPPERS = ("", "module.", "module.module.", "module.averaged_model.")
"""Prefixes of the names in a checkpoint; of a weight that is there under several prefixes the last one counts."""


@dataclass(frozen=True, kw_only=True)
class GlobalGeneratorParams:
    """The generator at the lowest resolution."""

    num_filters: Positive = 64
    """Width of its first layer, doubled with every halving of the size; an enhancer has half the width of what it
    surrounds. [channels]"""
    num_downsamples: Count = 4
    """How often it halves the size of its label map."""
    num_res_blocks: Count = 9
    """Residual blocks at the smallest size."""


@dataclass(frozen=True, kw_only=True)
class LocalEnhancerParams:
    """The networks around it, each of which doubles the resolution."""

    num_enhancers: Count = 1
    """How many of them; 0: the global generator alone."""
    num_res_blocks: Count = 3
    """Residual blocks in each."""


@dataclass(frozen=True, kw_only=True)
class EncoderParams:
    """The encoder of objects; used if the label ends with instance_maps and num_feat_channels is not 0."""

    num_feat_channels: Count
    """Size of the feature vector of an object; 0: no encoder. [channels]"""
    num_filters: Positive = 64
    """Width of the first layer, doubled with every halving of the size. [channels]"""
    num_downsamples: Count = 4
    """How often it halves the size of an image."""
    weight_norm_type: WeightNorm = "none"
    """Norm of the weights of its convolutions."""
    activation_norm_type: Norm = "instance"
    """Norm after its convolutions."""
    padding_mode: PaddingMode = "reflect"
    """What its convolutions see beyond the border."""
    num_clusters: Positive = 10
    """Feature vectors per class that a checkpoint keeps, to be sampled at inference."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial one."""

    gan: NonNegative
    """Adversarial loss, of generator and discriminator."""
    feature_matching: NonNegative
    """L1 between the patch discriminators' features of generated and of real images."""
    perceptual: NonNegative
    """Perceptual distance between generated and real images, as perceptual_loss says."""
    l1: NonNegative = 0.0
    """Mean absolute difference from the target, in [-1, 1] (not in the paper; stabilizes short trainings)."""


class Generator(nn.Module):
    """Label maps to images: a global generator at the lowest resolution, then enhancers that double it."""

    def __init__(
        self,
        *,
        label_lengths: Mapping[str, int],
        image_channels: int,
        global_generator: GlobalGeneratorParams,
        local_enhancer: LocalEnhancerParams,
        enc: EncoderParams | None = None,
        weight_norm_type: WeightNorm = "none",
        activation_norm_type: Norm = "instance",
        activation_norm_params: NormParams | None = None,
        padding_mode: PaddingMode = "reflect",
        is_cityscapes: bool = False,
    ) -> None:
        """global_generator: The generator at the lowest resolution.
        local_enhancer: The networks around it, each of which doubles the resolution.
        enc: The encoder of objects, used if the label ends with instance_maps; null: none.
        weight_norm_type: Norm of the weights of convolutions.
        activation_norm_type: Norm after each convolution but the last.
        activation_norm_params: Options of that norm.
        padding_mode: What convolutions see beyond the border.
        is_cityscapes: Ids of instances are class x 1000 + number, as in Cityscapes; otherwise ids are classes.
        """
        super().__init__()
        label_channels = sum(label_lengths.values())
        self.image_channels = image_channels
        enhancers = local_enhancer.num_enhancers
        if global_generator.num_filters % 2**enhancers:
            what = f"must be a multiple of {2**enhancers}: each of local_enhancer.num_enhancers halves it"
            raise UserError(what, where="global_generator.num_filters", advice="raise it", code="odd-width")
        self.size_multiple = 2 ** (global_generator.num_downsamples + enhancers)
        """Heights and widths of its images are multiples of this."""
        self.encoder: FeatureEncoder | None = None
        if enc is not None and enc.num_feat_channels and list(label_lengths)[-1] == INSTANCE_MAPS:
            self.encoder = FeatureEncoder(
                enc, image_channels=image_channels, num_classes=label_channels, is_cityscapes=is_cityscapes
            )
            label_channels += enc.num_feat_channels
            self.size_multiple = max(self.size_multiple, 2**enc.num_downsamples)
        parts = _Parts(
            norm=activation_norm_type,
            norm_params=activation_norm_params or NormParams(),
            weight_norm=weight_norm_type,
            padding_mode=padding_mode,
        )
        self.coarse = build_global_layers(
            parts, global_generator, label_channels, None if enhancers else image_channels
        )
        self.enhancers = nn.ModuleList(
            LocalEnhancer(
                parts,
                label_channels,
                global_generator.num_filters // 2 ** (index + 1),
                num_res_blocks=local_enhancer.num_res_blocks,
                image_channels=image_channels if index == enhancers - 1 else None,
            )
            for index in range(enhancers)
        )

    def forward(
        self,
        label: Tensor,
        *,
        images: Tensor | None = None,
        instances: Tensor | None = None,
        features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Label map N x L x H x W -> `fake_images` N x C x H x W in [-1, 1].

        With an encoder also `feature_maps` N x M x H x W: the given `features`, or else those of the `instances`
        (N x 1 x H x W integers) in `images` (N x C x H x W in [-1, 1]).
        """
        encoded = {}
        if self.encoder is not None:
            if features is None:
                features = self.encoder(images, instances)
            encoded["feature_maps"] = features
            label = torch.cat([label, features], dim=1)
        pyramid = [label]
        for _ in self.enhancers:
            pyramid.append(F.avg_pool2d(pyramid[-1], 3, stride=2, padding=1, count_include_pad=False))
        x = self.coarse(pyramid.pop())
        for enhancer in self.enhancers:
            x = enhancer(x, pyramid.pop())
        return {"fake_images": x, **encoded}

    def load_coarser(self, state: Mapping[str, Tensor]) -> list[str]:
        """Loads the weights of a generator with fewer enhancers, to train on from them (section 3.2, coarse to fine).

        state: as of `select_fitting`. Returns the parts (the first two levels of the names) that keep their values.
        """
        found = self.select_fitting(state)
        self.load_state_dict(found, strict=False)
        left = [name for name, _ in self.named_parameters() if name not in found]
        return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in left))

    def select_fitting(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a generator's state dict that match this one by name and shape, by our names.

        state: by our names, or by the reference's of a generator without enhancers, with any of the `WRAPPERS`.
        """
        own, given = self.state_dict(), unwrap(state)
        coarse_names = reference_names(own, self._rules(has_enhancers=False))
        pairs = ((name, given.get(name, given.get(coarse_names[name]))) for name in own)
        return {name: x for name, x in pairs if x is not None and x.shape == own[name].shape}

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return self._rules(has_enhancers=len(self.enhancers) > 0)

    def _rules(self, has_enhancers: bool) -> Rules:
        return (
            (r"^encoder\.layers\.", "encoder.model."),
            (r"^encoder\.clusters\.", "encoder."),
            (r"^coarse\.", "global_model." if has_enhancers else "global_model.model."),
            (r"^enhancers\.(\d+)\.(down|up)\.", r"enhancer_\1.model_\2sample."),
        )


def unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the `WRAPPERS` from the names of a state dict; the last one counts if a name occurs several times."""
    plain = {}
    for wrapper in WRAPPERS:
        plain.update({name.removeprefix(wrapper): x for name, x in state.items() if name.startswith(wrapper)})
    return plain


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Builds layers with common options."""

    norm: Norm
    norm_params: NormParams = NormParams()
    weight_norm: WeightNorm
    padding_mode: PaddingMode

    def layer(
        self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1, upsample: bool = False
    ) -> ConvNormAct:
        """Convolution, norm, ReLU."""
        conv = conv2d(
            inputs,
            outputs,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            padding_mode=self.padding_mode,
            weight_norm=self.weight_norm,
            upsample=upsample,
        )
        return ConvNormAct(conv, self.make_norm(outputs), nn.ReLU(inplace=True))

    def residual(self, channels: int, count: int) -> list[nn.Module]:
        """`count` residual blocks."""
        return [
            ResBlock(
                channels,
                channels,
                norm=self.make_norm,
                act=lambda: nn.ReLU(inplace=True),
                order="CNACN",
                padding_mode=self.padding_mode,
                weight_norm=self.weight_norm,
            )
            for _ in range(count)
        ]

    def down(self, widths: Sequence[int]) -> list[nn.Module]:
        """Downsampling layers from each width to the next."""
        return [self.layer(inputs, outputs, stride=2) for inputs, outputs in pairwise(widths)]

    def up(self, widths: Sequence[int]) -> list[nn.Module]:
        """Upsampling layers from each width to the next."""
        return build_up_layers(widths, self.layer)

    def output_layer(self, inputs: int, outputs: int) -> ConvNormAct:
        """Features to values in (-1, 1), without norms."""
        conv = conv2d(inputs, outputs, 7, padding=3, padding_mode=self.padding_mode)
        return ConvNormAct(conv, nn.Identity(), nn.Tanh())

    def make_norm(self, channels: int) -> nn.Module:
        """The norm of a number of channels."""
        return norm2d(self.norm, channels, self.norm_params)


def build_global_layers(
    parts: _Parts, params: GlobalGeneratorParams, label_channels: int, image_channels: int | None
) -> nn.Sequential:
    """Label N x L x H x W -> image of the same size; without `image_channels`, features of `num_filters` channels."""
    widths = [params.num_filters * 2**level for level in range(params.num_downsamples + 1)]
    return nn.Sequential(
        parts.layer(label_channels, widths[0], 7),
        *parts.down(widths),
        *parts.residual(widths[-1], params.num_res_blocks),
        *parts.up(widths[::-1]),
        *([] if image_channels is None else [parts.output_layer(widths[0], image_channels)]),
    )


class LocalEnhancer(nn.Module):
    """Adds detail to the features of half the resolution (section 3.1, figure 3)."""

    def __init__(
        self, parts: _Parts, label_channels: int, width: int, *, num_res_blocks: int, image_channels: int | None
    ) -> None:
        """width: of its output features, half of those of its input; with `image_channels` its output is an image."""
        super().__init__()
        self.down = nn.Sequential(parts.layer(label_channels, width, 7), *parts.down([width, 2 * width]))
        self.up = nn.Sequential(
            *parts.residual(2 * width, num_res_blocks),
            *parts.up([2 * width, width]),
            *([] if image_channels is None else [parts.output_layer(width, image_channels)]),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Features N x 2 width x h x w, label N x L x 2h x 2w -> N x C x 2h x 2w."""
        return self.up(self.down(fine) + coarse)


class FeatureEncoder(nn.Module):
    """Encodes the appearance of every object in an image as a feature vector (section 3.4)."""

    def __init__(self, params: EncoderParams, *, image_channels: int, num_classes: int, is_cityscapes: bool) -> None:
        super().__init__()
        self.is_cityscapes = is_cityscapes
        self.clusters = Clusters(
            num_classes=num_classes, num_clusters=params.num_clusters, width=params.num_feat_channels
        )
        parts = _Parts(
            norm=params.activation_norm_type, weight_norm=params.weight_norm_type, padding_mode=params.padding_mode
        )
        widths = [params.num_filters * 2**level for level in range(params.num_downsamples + 1)]
        self.layers = nn.Sequential(
            parts.layer(image_channels, widths[0], 7),
            *parts.down(widths),
            *parts.up(widths[::-1]),
            parts.output_layer(widths[0], params.num_feat_channels),
        )

    def forward(self, images: Tensor, instances: Tensor) -> Tensor:
        """Images N x C x H x W in [-1, 1], ids N x 1 x H x W -> features N x M x H x W, constant on each object."""
        return average_by_instance(self.layers(images), instances)

    def examples(self, images: Tensor, instances: Tensor) -> tuple[Tensor, Tensor]:
        """Classes [R] and feature vectors R x M of all objects that are large enough; inputs as in `forward`."""
        found = segments(instances)
        looks, sizes = segment_means(self.layers(images), found.numbers, len(found.ids))
        large = sizes > SMALLEST_SHARE * instances[0].numel()
        return self._classes(found.ids).expand_as(large)[large], looks.movedim(1, 2)[large]

    def random(self, instances: Tensor, rng: torch.Generator) -> Tensor:
        """Ids N x 1 x H x W -> features N x M x H x W, for each object drawn from those stored of its class.

        A class without stored features gets 0. UserError if nothing is stored at all.
        """
        if self.clusters.is_empty():
            raise UserError(
                "random_style draws from features of objects that a checkpoint keeps, but this one has none: they "
                f"come from the objects in data.val that fill more than {SMALLEST_SHARE:.2%} of their image",
                where="inference_args.random_style",
                code="no-stored-looks",
            )
        found = segments(instances)
        classes = self._classes(found.ids).expand(len(instances), -1)
        return paint_segments(self.clusters.draw(classes, rng).movedim(1, 2), found.numbers)

    def _classes(self, ids: Tensor) -> Tensor:
        if not self.is_cityscapes:
            return ids
        return torch.where(ids >= INSTANCES_OF_A_CLASS, ids // INSTANCES_OF_A_CLASS, ids)


class Discriminator(nn.Module):
    """Patch discriminators of label and image at several scales (section 3.2)."""

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
    ) -> None:
        """kernel_size: Height and width of the kernels of the patch discriminators. [pixels]
        num_filters: Width of the first layer; it doubles from layer to layer. [channels]
        max_num_filters: Largest width. [channels]
        num_discriminators: How many there are: the first sees images at full size, each other one at half the size of
            the one before.
        num_layers: Layers after the first, the score aside; all but the last of them halve the size.
        activation_norm_type: Norm after each convolution but the last.
        weight_norm_type: Norm of the weights of convolutions.
        """
        super().__init__()
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

    def forward(self, label: Tensor, images: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """N x L x H x W, N x C x H x W -> scores N x 1 x h x w per scale; features per scale and layer."""
        return self.patch(torch.cat([label, images], dim=1))

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return ((r"^patch\.discriminators\.(\d+)\.layers\.(\d+)\.", r"model.discriminators.\1.layer\2.0."),)


class Recipe(BaseRecipe):
    """Training of pix2pixHD: adversarial, with feature matching and a perceptual loss (section 3.2)."""

    required_inputs: ClassVar[Sequence[str]] = ("images", "label")
    steps_keys: ClassVar[Sequence[str]] = ("dis_step", "gen_step")
    normalized_inputs: ClassVar[Sequence[str]] = ("images",)
    instance_inputs: ClassVar[Sequence[str]] = (INSTANCE_MAPS,)
    log_names: ClassVar[Mapping[str, str]] = {
        "gan": "GAN",
        "feature_matching": "FeatureMatching",
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
        keys = "global_generator.num_downsamples, local_enhancer.num_enhancers or enc.num_downsamples"
        self.size_multiple = gen.size_multiple
        self.gen_sizes = SizeProbe(gen, _paint, where="gen", multiple=gen.size_multiple, depth_keys=keys)
        self.dis_sizes = SizeProbe(dis, where="dis", depth_keys="num_layers or num_discriminators")
        self.label_lengths = label_lengths
        self.one_hot = one_hot
        self.normalized = normalized
        self.has_instances = INSTANCE_MAPS in label_lengths
        if self.has_instances and list(label_lengths)[-1] != INSTANCE_MAPS:
            raise UserError(
                f"{INSTANCE_MAPS} tells objects apart only in the last place",
                where="data.input_labels",
                advice="move it there",
                code="instances-not-last",
            )
        self.has_before_checkpoint = gen.encoder is not None
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

    def warm_start(self, weights: Mapping[str, Tensor]) -> list[str] | None:
        """Loads a generator with fewer enhancers; None if the weights are not of one."""
        found = self.gen.select_fitting(weights)
        is_coarser = all(f"coarse.{name}" in found for name, _ in self.gen.coarse.named_parameters())
        return self.gen.load_coarser(weights) if is_coarser else None

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
        """Resizes images (bicubic) and labels (nearest) to sizes of the generator.

        If the label ends with ids of instances, their edges replace them, and the ids become `instance_maps`.
        """
        names = ("label", "images")
        self.gen_sizes.check(batch.tensors, names)
        batch = batch.replace(**round_to_multiple(batch.tensors, names, self.gen.size_multiple))
        if not self.has_instances:
            return batch
        label = batch["label"].clone()
        stored = batch["label"][:, -1:]
        label[:, -1:] = instance_edges(stored)
        return batch.replace(label=label, instance_maps=instance_ids(stored))

    def generate(self, batch: Batch, rng: torch.Generator, *, random_style: bool = False) -> dict[str, Tensor]:
        """The generator's outputs; features of objects are those in `images`, or random ones of their class."""
        with self.gen_sizes.explain(label=batch["label"]):
            if self.gen.encoder is None:
                return self.gen(batch["label"])
            instances = batch["instance_maps"]
            if random_style:
                return self.gen(batch["label"], features=self.gen.encoder.random(instances, rng))
            return self.gen(batch["label"], images=_style_images(batch), instances=instances)

    def discriminate(self, batch: Batch, fake: Tensor, *, should_learn_from_real: bool) -> dict[str, Any]:
        """Scores and features of real and generated images; of real ones with a graph if should_learn_from_real."""
        with self.dis_sizes.explain(label=batch["label"], images=batch["images"]):
            calls: list[Call] = [(self.dis, (batch["label"], images)) for images in (fake, batch["images"])]
            if should_learn_from_real:
                (fake_outputs, fake_features), (real_outputs, real_features) = self.run(calls)
            else:
                fake_outputs, fake_features = self.dis(*calls[0][1])
                with torch.no_grad():
                    real_outputs, real_features = self.dis(*calls[1][1])
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
        return {"gan": dis_fake_loss(fake_, self.gan_mode) + dis_real_loss(real, self.gan_mode)}

    def gen_losses(self, batch: Batch, fake: dict[str, Tensor], ctx: StepContext) -> Losses:
        """The losses of the generator."""
        images, target = fake["fake_images"], batch["images"]
        verdict = self.discriminate(batch, images, should_learn_from_real=False)
        keep = max(self.topk_decay**ctx.epoch, self.topk_min)
        losses = {"gan": gen_loss(self._gan_logits(verdict)[1], self.gan_mode, keep, self.topk_per_sample)}
        if self.loss_weight["feature_matching"]:
            losses["feature_matching"] = feature_matching(verdict["fake_features"], verdict["real_features"])
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

    def before_checkpoint(self, held_out: Iterable[Batch], all_gather: Callable[[Sequence[Tensor]], Tensor]) -> None:
        """Stores clusters of the feature vectors of each class, to sample from at inference (section 3.4)."""
        encoder = self.gen.encoder
        if encoder is None:
            return
        batches = map(self.prepare, held_out)
        examples = [encoder.examples(batch["images"], batch["instance_maps"]) for batch in batches]
        classes = all_gather([classes for classes, _ in examples])
        encoder.clusters.fit(classes, all_gather([looks for _, looks in examples]))

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        verdict = self.discriminate(batch, self.generate(batch, rng)["fake_images"], should_learn_from_real=False)
        return center_logits(verdict["real_outputs"], self.gan_mode), center_logits(
            verdict["fake_outputs"], self.gan_mode
        )

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return to_rgb(self.generate(batch, rng)["fake_images"])

    def inference_inputs(self, **inference_args: Any) -> InferenceInputs:
        if self.gen.encoder is None:
            return InferenceInputs(content=("label",))
        return InferenceInputs(
            content=("label",),
            style="images",
            is_style_aligned=True,
            from_images={"random_style": False},
            at_random={"random_style": True},
        )

    def infer(self, batch: Batch, rng: torch.Generator, *, random_style: bool = False) -> list[Tensor]:
        """One image per sample; features of objects are those in `images`, or random ones of their class.

        random_style: Random looks of objects, drawn from those stored with the checkpoint, instead of those in the
            data's own image.
        """
        return list(self.generate(batch, rng, random_style=random_style)["fake_images"].float())

    def export_network(self, batch: Batch, rng: torch.Generator, *, random_style: bool = False) -> Exported:
        encoder = self.gen.encoder
        if encoder is None:
            return Painter(self.gen), {"label": batch["label"]}
        instances = batch["instance_maps"]
        features = encoder.random(instances, rng) if random_style else encoder(_style_images(batch), instances)
        return Painter(self.gen), {"label": batch["label"], "features": features}

    def target(self, batch: Batch) -> Tensor:
        return to_rgb(batch["images"])

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """The label itself, if it is an image, such as line art."""
        has_classes = any(name in self.one_hot for name in self.label_lengths)
        if self.has_instances or has_classes or list(self.label_lengths.values()) not in ([1], [2], [3], [4]):
            return {}
        (name,) = self.label_lengths
        return {f"{name} as they are": show_part(batch["label"], is_normalized=name in self.normalized)}

    def class_map(self, batch: Batch) -> Tensor | None:
        return find_class_map(batch["label"], self.label_lengths, self.one_hot)

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        columns = show_label(batch["label"], self.label_lengths, self.one_hot, self.normalized)
        return {"images": to_rgb(batch["images"]), **columns}


class Painter(nn.Module):
    """The generator as it is exported. With an encoder, the features of objects are an input."""

    def __init__(self, gen: Generator) -> None:
        super().__init__()
        self.gen = gen

    def forward(self, label: Tensor, features: Tensor | None = None) -> Tensor:
        """N x L x H x W, and features N x M x H x W that are constant on each object -> N x C x H x W in [-1, 1]."""
        return self.gen(label, features=features)["fake_images"]


def _paint(gen: Generator, label: Tensor, images: Tensor | None = None) -> dict[str, Tensor]:
    """The generator and its encoder, for the SizeProbe; without the averaging over objects, which needs their ids."""
    if gen.encoder is None:
        return gen(label)
    features = gen.encoder.layers(label.new_zeros(len(label), gen.image_channels, *label.shape[-2:]))
    return gen(label, features=features)


def _style_images(batch: Batch) -> Tensor:
    if "images" not in batch:
        raise UserError(
            "the features of objects are taken from `images`, which the data lack",
            advice="set inference_args.random_style: true",
            code="no-style-image",
        )
    return batch["images"]
