"""FUNIT: translates an image to the class of another one, even a class that was not in the training set.

Liu et al., Few-Shot Unsupervised Image-to-Image Translation, 2019; in the improved form that Saito et al., COCO-FUNIT,
2020, compare with: a projection discriminator (Miyato & Koyama 2018) and a style code that only scales and shifts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.alternate import Updates, alternate
from imagier.errors import UserError
from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.pixel import l1
from imagier.nn.blocks import LEAKY_SLOPE, ConvNormAct, NoNorm, NormActConv, ResBlock
from imagier.nn.conv import PaddingMode, WeightNorm, conv2d
from imagier.nn.diff_augment import augment, check_policy
from imagier.nn.encoders import MLP, ContentEncoder, StyleEncoder
from imagier.nn.joint import Call, Run, run_in_turn, run_jointly
from imagier.nn.norm import AdaptiveNorm, NormParams, norm2d
from imagier.nn.reference_names import Rules
from imagier.nn.resize import round_to_multiple, to_rgb, upsample2x
from imagier.nn.size_probe import SizeProbe
from imagier.ranges import Count, NonNegative, Positive
from imagier.recipe import Batch, Exported, InferenceInputs, Losses, StepContext, name_in_style
from imagier.recipe import Recipe as BaseRecipe


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial one."""

    gan: NonNegative
    """Adversarial loss, of generator and discriminator."""
    feature_matching: NonNegative = 0.0
    """L1 between the discriminator's pooled features of the translation and of the style image."""
    image_recon: NonNegative = 0.0
    """Mean absolute difference between an image and its reconstruction in its own style, in [-1, 1]."""


class FewShotTranslator(nn.Module, ABC):
    """The content of one image in the style of another; how a style becomes the code of the decoder is left open."""

    style_encoder: StyleEncoder
    content_encoder: ContentEncoder
    decoder: Decoder

    def forward(
        self, images_content: Tensor, images_style: Tensor, *, recon: bool = True, run: Run = run_in_turn
    ) -> dict[str, Tensor]:
        """Two images N x C x H x W in [-1, 1] (their sizes may differ) -> images in (-1, 1).

        `images_trans` is the content in the style of `images_style`; `images_recon`, if wanted, in its own. Both have
        the size of `images_content`, its sides rounded down to `size_multiple`. run: how a network sees several images.
        """
        content = self.content_encoder(images_content)
        if not recon:
            return {"images_trans": self.decoder(content, self.code(content, self.style_encoder(images_style)))}
        own, given = run([(self.style_encoder, (images,)) for images in (images_content, images_style)])
        decodings: list[Call] = [(self.decoder, (content, self.code(content, style))) for style in (given, own)]
        return dict(zip(("images_trans", "images_recon"), run(decodings)))

    @abstractmethod
    def code(self, content: Tensor, style: Tensor) -> Tensor:
        """Content N x c x h x w and style N x style_dims x 1 x 1 -> the code of the decoder's norms."""


class Generator(FewShotTranslator):
    """The content of one image in the style of another."""

    def __init__(
        self,
        *,
        num_filters: Positive = 64,
        num_filters_mlp: Positive = 256,
        style_dims: Positive = 64,
        num_res_blocks: Count = 2,
        num_mlp_blocks: Count = 3,
        num_downsamples_style: Count = 4,
        num_downsamples_content: Count = 2,
        num_image_channels: Positive = 3,
        weight_norm_type: WeightNorm = "none",
    ) -> None:
        """num_filters: Width of the first layer of both encoders, doubled with every halving of the size; of the style
            encoder at most twice. [channels]
        num_filters_mlp: Width of the layers between a style and the norms of the decoder. [channels]
        style_dims: Size of the style code.
        num_res_blocks: Residual blocks in the content encoder; the decoder has 2.
        num_mlp_blocks: One more than the number of layers between a style and the norms of the decoder, which is at
            least 2.
        num_downsamples_style: How often the style encoder halves the size of an image, at least twice.
        num_downsamples_content: How often the content encoder halves the size of an image.
        num_image_channels: Channels of images. [channels]
        weight_norm_type: Norm of the weights of convolutions.
        """
        super().__init__()
        self.size_multiple = 2**num_downsamples_content
        self.style_encoder = StyleEncoder(
            image_channels=num_image_channels,
            num_filters=num_filters,
            num_downsamples=num_downsamples_style,
            style_dims=style_dims,
            weight_norm=weight_norm_type,
        )
        self.content_encoder = ContentEncoder(
            image_channels=num_image_channels,
            num_filters=num_filters,
            num_downsamples=num_downsamples_content,
            num_res_blocks=num_res_blocks,
            weight_norm=weight_norm_type,
        )
        self.decoder = Decoder(
            self.content_encoder.out_channels,
            num_filters_mlp,
            num_upsamples=num_downsamples_content,
            image_channels=num_image_channels,
            weight_norm=weight_norm_type,
        )
        self.mlp = style_mlp(style_dims, num_filters_mlp, num_mlp_blocks)

    def code(self, content: Tensor, style: Tensor) -> Tensor:
        """A function of the style alone."""
        return self.mlp(style)

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return GENERATOR_RULES


GENERATOR_RULES: Rules = ((r"^decoder\.blocks\.", "decoder.decoder."), (r"^", "generator."))


def style_mlp(style_dims: int, width: int, num_mlp_blocks: int) -> MLP:
    """From a style to the code of the norms; has one layer fewer than `num_mlp_blocks`, but at least two."""
    return MLP(style_dims, *[width] * max(num_mlp_blocks - 1, 2))


class Decoder(nn.Module):
    """From content to image; a code scales and shifts the features after every convolution."""

    def __init__(
        self, channels: int, code_dims: int, *, num_upsamples: int, image_channels: int, weight_norm: WeightNorm
    ) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            plain = norm2d("instance", channels, NormParams(affine=False))
            return AdaptiveNorm(channels, code_dims, norm=plain)

        def block() -> ResBlock:
            return ResBlock(channels, channels, norm=norm, act=nn.ReLU, padding_mode="reflect", weight_norm=weight_norm)

        def layer(inputs: int, outputs: int, kernel: int, upsample: bool = False) -> ConvNormAct:
            conv = conv2d(
                inputs,
                outputs,
                kernel,
                padding=kernel // 2,
                padding_mode="reflect",
                weight_norm=weight_norm,
                upsample=upsample,
            )
            return ConvNormAct(conv, norm(outputs), nn.ReLU())

        def up_block(inputs: int) -> UpBlock:
            half = inputs // 2
            return UpBlock(layer(inputs, half, 5), layer(half, half, 5, upsample=True), layer(inputs, half, 1))

        to_image = conv2d(channels // 2**num_upsamples, image_channels, 7, padding=3, padding_mode="reflect")
        self.blocks = nn.ModuleList(
            [
                block(),
                block(),
                *(up_block(channels // 2**level) for level in range(num_upsamples)),
                ConvNormAct(to_image, nn.Identity(), nn.Tanh()),
            ]
        )

    def forward(self, content: Tensor, code: Tensor) -> Tensor:
        """N x channels x h x w, N x code_dims -> N x image_channels x H x W in (-1, 1)."""
        *styled, to_image = self.blocks
        x = content
        for block in styled:
            x = block(x, code)
        return to_image(x)


class UpBlock(nn.Module):
    """Residual block that doubles the size and halves the width; both of its branches end in a ReLU.

    The convolution of block_1 upsamples.
    """

    is_block = True

    def __init__(self, block_0: ConvNormAct, block_1: ConvNormAct, shortcut: ConvNormAct) -> None:
        super().__init__()
        self.block_0 = block_0
        self.block_1 = block_1
        self.shortcut = shortcut

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """N x c x h x w, N x code_dims -> N x c/2 x 2h x 2w."""
        # A 1 x 1 convolution, an instance norm and a ReLU commute with the doubling, and cost less before it.
        return upsample2x(self.shortcut(x, code)) + self.block_1(self.block_0(x, code), code)


class Discriminator(nn.Module):
    """A score per patch for being real and of a given class (Miyato & Koyama 2018, eq. 4, on residual features)."""

    def __init__(
        self,
        *,
        num_image_channels: Positive = 3,
        num_classes: Positive = 119,
        num_filters: Positive = 64,
        max_num_filters: Positive = 1024,
        num_layers: Positive = 6,
        padding_mode: PaddingMode = "reflect",
        weight_norm_type: WeightNorm = "none",
    ) -> None:
        """num_image_channels: Channels of images. [channels]
        num_classes: Classes in the data, or more. [classes]
        num_filters: Width of the first layer; it doubles from level to level. [channels]
        max_num_filters: Largest width. [channels]
        num_layers: Levels of two residual blocks; between levels the size is halved.
        padding_mode: What convolutions see beyond the border.
        weight_norm_type: Norm of the weights of convolutions.
        """
        super().__init__()
        self.num_classes = num_classes

        def block(inputs: int, outputs: int) -> ResBlock:
            return ResBlock(
                inputs,
                outputs,
                norm=lambda channels: NoNorm(),
                act=lambda: nn.LeakyReLU(LEAKY_SLOPE),
                order="NACNAC",
                padding_mode=padding_mode,
                weight_norm=weight_norm_type,
            )

        width = num_filters
        first = conv2d(num_image_channels, width, 7, padding=3, padding_mode=padding_mode, weight_norm=weight_norm_type)
        layers: list[nn.Module] = [ConvNormAct(first, nn.Identity(), nn.Identity())]
        for index in range(num_layers):
            if index:
                layers += [nn.ReflectionPad2d(1), nn.AvgPool2d(3, stride=2)]
            wider = min(2 * width, max_num_filters)
            layers += [block(width, width), block(width, wider)]
            width = wider
        self.model = nn.Sequential(*layers)
        score = conv2d(width, 1, 1, weight_norm=weight_norm_type)
        self.classifier = NormActConv(NoNorm(), nn.LeakyReLU(LEAKY_SLOPE), score)
        self.embedder = nn.Embedding(num_classes, width)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """N x C x H x W in [-1, 1] and classes [N] -> scores N x 1 x h x w, pooled features N x width."""
        x = self.model(images)
        features = x.mean(dim=(2, 3))
        of_class = (self.embedder(labels) * features).sum(dim=1)
        return self.classifier(x) + of_class[:, None, None, None], features

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return ((r"^", "model."),)


class FewShotGenerator(Protocol):
    """What the recipe needs of a generator: FUNIT's or COCO-FUNIT's."""

    size_multiple: int
    """Contents whose sides are multiples of this keep their size."""

    def __call__(
        self, images_content: Tensor, images_style: Tensor, *, recon: bool = True, run: Run = run_in_turn
    ) -> dict[str, Tensor]: ...


class Recipe(BaseRecipe):
    """Adversarial training on images of many classes, also of COCO-FUNIT's generator."""

    required_inputs: ClassVar[Sequence[str]] = ("images_content", "images_style")
    steps_keys: ClassVar[Sequence[str]] = ("dis_step", "gen_step")
    normalized_inputs: ClassVar[Sequence[str]] = ("images_content", "images_style", "images")

    def __init__(
        self,
        *,
        gen: FewShotGenerator,
        dis: Discriminator,
        gan_mode: GanMode,
        loss_weight: LossWeights,
        aug_policy: str = "",
        style_classes: int | None = None,
        gen_step: int = 1,
        dis_step: int = 1,
        reference_order: bool = False,
    ) -> None:
        """gan_mode: The adversarial loss: hinge (Lim & Ye 2017), least_square (Mao et al. 2017), non_saturated or
            softplus (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017).
        loss_weight: Factor of each loss in the total.
        aug_policy: DiffAugment (Zhao et al. 2020) of what discriminators see, comma-separated: color, translation,
            cutout, translation_scale; empty: none.
        style_classes: number of classes in the data.
        gen_step: Updates of the generator per iteration, each on a batch of its own. [updates]
        dis_step: Updates of the discriminator per iteration, before those of the generator. [updates]
        reference_order: A forward of the generator for each update, as in the reference, instead of one for both;
            slower, with other random numbers.
        """
        self.gen = gen
        self.dis = dis
        assert isinstance(gen, nn.Module)
        keys = "num_downsamples_content or num_downsamples_style"
        self.size_multiple = gen.size_multiple
        self.gen_sizes = SizeProbe(gen, _translate, where="gen", multiple=gen.size_multiple, depth_keys=keys)
        self.dis_sizes = SizeProbe(dis, _discriminate, where="dis", depth_keys="num_layers")
        self.gan_mode: GanMode = gan_mode
        self.loss_weight = asdict(loss_weight)
        self.aug_policy = aug_policy
        self.reference_order = reference_order
        self.run = run_in_turn if reference_order else run_jointly
        self.updates = Updates(dis_step, gen_step, can_share_forward=not reference_order)
        if dis_step:
            self.check_weights("gan")
        if style_classes is not None and style_classes > dis.num_classes:
            raise UserError(
                f"is {dis.num_classes}, but the data have {style_classes} classes",
                where="dis.num_classes",
                advice="raise it",
                code="too-few-classes",
            )
        check_policy(aug_policy)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """One iteration: updates of the discriminator, then of the generator against the updated discriminator."""
        _require(batch, "images_content", "images_style", "labels_content", "labels_style")
        yield from alternate(
            self.prepare(batch),
            ctx,
            self.updates,
            generate=lambda part: self.generate(part, ctx.rng),
            generate_for_dis=lambda part: self.generate(part, ctx.rng, recon=self.reference_order),
            dis_losses=lambda part, fake: self.dis_losses(part, fake, ctx.rng),
            gen_losses=lambda part, fake: self.gen_losses(part, fake, ctx.rng),
        )

    def generate(self, batch: Batch, rng: torch.Generator, *, recon: bool = True) -> dict[str, Tensor]:
        """The generator's outputs, with `images_recon` if `recon`."""
        _require(batch, "images_content", "images_style")
        content, style = batch["images_content"], batch["images_style"]
        with self.gen_sizes.explain(images_content=content, images_style=style):
            return self.gen(content, style, recon=recon, run=self.run)

    def prepare(self, batch: Batch) -> Batch:
        """Resizes images (bicubic) to sides that the generator gives back unchanged."""
        names = ("images_content", "images_style", "images")
        self.gen_sizes.check(batch.tensors, names)
        return batch.replace(**round_to_multiple(batch.tensors, names, self.gen.size_multiple))

    def discriminate(
        self, batch: Batch, style: Tensor, trans: Tensor, recon: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scores and features of a real style image and of generated ones.

        `recon` is given for the generator's losses; then the real image's have no graph.
        """
        fake, real = (trans, batch["labels_style"]), (style, batch["labels_style"])
        found = {}
        with self.dis_sizes.explain(images_content=trans, images_style=style):
            if recon is None:
                found["fake", "trans"], found["real", "style"] = self.run([(self.dis, fake), (self.dis, real)])
            else:
                of_recon = (recon, batch["labels_content"])
                # In the reference the real image comes second, which matters for spectral norms.
                made = [] if self.reference_order else self.run([(self.dis, fake), (self.dis, of_recon)])
                found["fake", "trans"] = made[0] if made else self.dis(*fake)
                with torch.no_grad():
                    found["real", "style"] = self.dis(*real)
                found["fake", "recon"] = made[1] if made else self.dis(*of_recon)
        return {
            f"{kind}_{name}_{image}": value
            for (kind, image), scores in found.items()
            for name, value in zip(("out", "features"), scores)
        }

    def dis_losses(self, batch: Batch, fake: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """The losses of the discriminator, which reconstructions are no part of."""
        style = augment(batch["images_style"], self.aug_policy, rng)
        trans = augment(fake["images_trans"].detach(), self.aug_policy, rng)
        verdict = self.discriminate(batch, style, trans)
        real, fake_ = [verdict["real_out_style"]], [verdict["fake_out_trans"]]
        return {"gan": dis_real_loss(real, self.gan_mode) + dis_fake_loss(fake_, self.gan_mode)}

    def gen_losses(self, batch: Batch, fake: dict[str, Tensor], rng: torch.Generator) -> Losses:
        """The losses of the generator."""
        trans = augment(fake["images_trans"], self.aug_policy, rng)
        recon = augment(fake["images_recon"], self.aug_policy, rng)
        verdict = self.discriminate(batch, batch["images_style"], trans, recon)
        losses = {"gan": gen_loss([verdict["fake_out_trans"], verdict["fake_out_recon"]], self.gan_mode)}
        if self.loss_weight["image_recon"]:
            losses["image_recon"] = l1(fake["images_recon"], batch["images_content"])
        if self.loss_weight["feature_matching"]:
            losses["feature_matching"] = l1(verdict["fake_features_trans"], verdict["real_features_style"])
        return losses

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        made = self.generate(batch, rng, recon=False)["images_trans"]
        verdict = self.discriminate(batch, batch["images_style"], made)
        real, fake = [verdict["real_out_style"]], [verdict["fake_out_trans"]]
        return center_logits(real, self.gan_mode), center_logits(fake, self.gan_mode)

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The contents in the styles."""
        return to_rgb(self.generate(batch, rng, recon=False)["images_trans"])

    def target(self, batch: Batch) -> Tensor | None:
        """The true images of the contents in the styles: `images`, which a held-out set may have, of the same size."""
        is_there = "images" in batch and batch["images"].shape == batch["images_content"].shape
        return to_rgb(batch["images"]) if is_there else None

    def real_images(self, batch: Batch) -> dict[str, Tensor]:
        """The true images where there are any, or else those of the styles."""
        target = self.target(batch)
        return {"": to_rgb(batch["images_style"]) if target is None else target}

    def image_classes(self, batch: Batch) -> Tensor | None:
        return batch.tensors.get("labels_style")

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        return {"content as it is": to_rgb(batch["images_content"])}

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: to_rgb(batch[name]) for name in ("images_content", "images_style")}

    def visualize_outputs(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        made = self.generate(batch, rng)
        return {name: to_rgb(made[name]) for name in ("images_recon", "images_trans")}

    def inference_inputs(self, **inference_args: Any) -> InferenceInputs:
        return InferenceInputs(content=("images_content",), style="images_style")

    def infer(self, batch: Batch, rng: torch.Generator, *, keep_original_size: bool = True) -> list[Tensor]:
        """One image per sample, of the size of its content before augmentation if that is known.

        keep_original_size: Resize each image, by nearest neighbor, to the size of its content's file.
        """
        images = list(self.generate(batch, rng, recon=False)["images_trans"].float())
        known = [name for name in ("original_h_w_images_content", "original_h_w") if name in batch]
        if not keep_original_size or not known:
            return images
        sizes = batch[known[0]].tolist()
        return [F.interpolate(x[None], size=size, mode="nearest")[0] for x, size in zip(images, sizes)]

    def infer_names(self, batch: Batch, **inference_args: Any) -> list[str]:
        """Names of the images that `infer` makes: "<content>_style_<style>", or that of a pair of files."""
        contents, styles = batch.keys["images_content"], batch.keys["images_style"]
        return [
            content if content == style else name_in_style(content, style) for content, style in zip(contents, styles)
        ]

    def export_network(self, batch: Batch, rng: torch.Generator, **inference_args: Any) -> Exported:
        _require(batch, "images_content", "images_style")
        return Translator(self.gen), {"images": batch["images_content"], "style_images": batch["images_style"]}


class Translator(nn.Module):
    """The generator as it is exported."""

    def __init__(self, gen: FewShotGenerator) -> None:
        super().__init__()
        self.gen = gen

    def forward(self, images: Tensor, style_images: Tensor) -> Tensor:
        """The contents N x C x H x W in the styles of other images, which may have another size, all in [-1, 1]."""
        return self.gen(images, style_images, recon=False)["images_trans"]


def _require(batch: Batch, *names: str) -> None:
    """UserError if the samples lack one of the named tensors."""
    for name in names:
        if name not in batch:
            raise UserError(
                f"the samples have no {name}",
                where="data.type",
                advice=(
                    "FUNIT trains on unpaired_few_shot_images, with the input types images_content and images_style"
                ),
                code="missing-input",
            )


def _translate(gen: FewShotGenerator, **images: Tensor) -> None:
    """Every image in its own style, for the SizeProbe."""
    for x in images.values():
        gen(x, x)


def _discriminate(dis: Discriminator, **images: Tensor) -> None:
    """Every image as one of the first class, for the SizeProbe."""
    for x in images.values():
        dis(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
