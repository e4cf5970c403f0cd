"""UNIT: translation between two unpaired image domains, through a content code that both share.

Liu, Breuel & Kautz, Unsupervised Image-to-Image Translation Networks, 2017; here without noise on the code, and with
separate autoencoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imagier.alternate import Updates, alternate
from imagier.errors import UserError
from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.nn.blocks import ConvNormAct, Nonlinearity, NoNorm, Order, ResBlock, UpsampledByNext, nonlinearity
from imagier.nn.conv import PaddingMode, WeightNorm, conv2d
from imagier.nn.domain_discriminators import DomainDiscriminators, PatchOptions, ResidualOptions
from imagier.nn.encoders import ContentEncoder
from imagier.nn.joint import Call, Run, run_in_turn, run_jointly
from imagier.nn.norm import Norm, norm2d
from imagier.nn.reference_names import Rules
from imagier.nn.residual_discriminator import Aggregation, DiscriminatorOrder
from imagier.nn.resize import round_to_multiple, to_rgb
from imagier.nn.size_probe import SizeProbe
from imagier.ranges import Count, NonNegative, Odd, Positive
from imagier.recipe import Batch, Domain, Exported, InferenceInputs, Losses, StepContext
from imagier.recipe import Recipe as BaseRecipe


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial one.

    A loss in parts can also have a weight for each part, which is added to that of the whole.
    """

    gan: NonNegative
    """Adversarial loss, of generator and discriminator."""
    gan_a: NonNegative = 0.0
    """Its part in domain a, added to gan."""
    gan_b: NonNegative = 0.0
    """Its part in domain b, added to gan."""
    image_recon: NonNegative = 0.0
    """L1 between images and their reconstructions by the autoencoder of their domain."""
    cycle_recon: NonNegative = 0.0
    """L1 between images and their translations to the other domain and back."""
    cycle_recon_aba: NonNegative = 0.0
    """Its part of the images of a, added to cycle_recon."""
    cycle_recon_bab: NonNegative = 0.0
    """Its part of the images of b, added to cycle_recon."""
    perceptual: NonNegative = 0.0
    """Perceptual distance between translations and their source images."""
    perceptual_a: NonNegative = 0.0
    """Its part of translations from a to b, added to perceptual."""
    perceptual_b: NonNegative = 0.0
    """Its part of translations from b to a, added to perceptual."""


class Generator(nn.Module):
    """An autoencoder for each domain. The code of an image of a and the decoder of b give a translation."""

    def __init__(
        self,
        *,
        num_filters: Positive = 64,
        max_num_filters: Positive = 256,
        num_res_blocks: Count = 4,
        num_downsamples_content: Count = 2,
        num_image_channels: Positive = 3,
        content_norm_type: Norm = "instance",
        decoder_norm_type: Norm = "instance",
        weight_norm_type: WeightNorm = "none",
        output_nonlinearity: Nonlinearity = "none",
        pre_act: bool = False,
        apply_noise: bool = False,
    ) -> None:
        """num_filters: Width of the first layer of encoders, doubled with every halving of the size. [channels]
        max_num_filters: Largest width of encoders. [channels]
        num_res_blocks: Residual blocks in each encoder and in each decoder.
        num_downsamples_content: How often content encoders halve the size of an image.
        num_image_channels: Channels of images. [channels]
        content_norm_type: Norm after the convolutions of content encoders.
        decoder_norm_type: Norm after the convolutions of decoders.
        weight_norm_type: Norm of the weights of convolutions.
        output_nonlinearity: Applied to the images; none leaves them unlimited.
        pre_act: Order of the residual blocks: norm, activation, convolution instead of convolution, norm, activation.
        apply_noise: Add noise of a learned strength after the convolutions of decoders (Karras et al. 2019).
        """
        super().__init__()
        order: Order = "NACNAC" if pre_act else "CNACNA"
        common: dict[str, Any] = {
            "image_channels": num_image_channels,
            "num_res_blocks": num_res_blocks,
            "weight_norm": weight_norm_type,
            "order": order,
        }

        def autoencoder() -> Autoencoder:
            encoder = ContentEncoder(
                num_filters=num_filters,
                max_num_filters=max_num_filters,
                num_downsamples=num_downsamples_content,
                norm=content_norm_type,
                **common,
            )
            decoder = Decoder(
                encoder.out_channels,
                num_upsamples=num_downsamples_content,
                norm=lambda channels: norm2d(decoder_norm_type, channels),
                output=output_nonlinearity,
                has_noise=apply_noise,
                **common,
            )
            return Autoencoder(encoder, decoder)

        self.size_multiple = 2**num_downsamples_content
        """Images whose sides are multiples of this keep their size."""
        self.autoencoder_a = autoencoder()
        self.autoencoder_b = autoencoder()

    def forward(
        self,
        images_a: Tensor,
        images_b: Tensor,
        *,
        image_recon: bool = True,
        cycle_recon: bool = True,
        run: Run = run_in_turn,
    ) -> dict[str, Tensor]:
        """Images of both domains, N x C x H x W in [-1, 1] -> codes and images by name.

        `content_x`: code of an image of x, N x C' x h x w; `images_xy`: an image of x as one of y (linear without an
        `output_nonlinearity`, so it may leave [-1, 1]). With image_recon also `images_xx`, with cycle_recon
        `content_xy`, the code of `images_xy`, and `images_xyx`. run: how a network sees several images.
        """
        a, b = self.autoencoder_a, self.autoencoder_b
        content_a, content_b = a.encode(images_a), b.encode(images_b)
        out = {"content_a": content_a, "content_b": content_b}
        if image_recon:
            own: list[Call] = [(a.decoder, (content_a,)), (b.decoder, (content_b,))]
            others: list[Call] = [(a.decoder, (content_b,)), (b.decoder, (content_a,))]
            images = run([*own, *others])
            out |= dict(zip(("images_aa", "images_bb", "images_ba", "images_ab"), images))
        else:
            out["images_ba"], out["images_ab"] = a.decode(content_b), b.decode(content_a)
        if cycle_recon:
            out["content_ba"], out["content_ab"] = a.encode(out["images_ba"]), b.encode(out["images_ab"])
            out["images_aba"], out["images_bab"] = a.decode(out["content_ab"]), b.decode(out["content_ba"])
        return out

    def translate(self, images: Tensor, *, a2b: bool) -> Tensor:
        """Images of one domain -> their translations, N x C x H x W each."""
        source, target = self.autoencoder_a, self.autoencoder_b
        if not a2b:
            source, target = target, source
        return target.decode(source.encode(images))

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return DECODER_NAMES


class Autoencoder(nn.Module):
    """Images of one domain to content codes and back."""

    def __init__(self, content_encoder: ContentEncoder, decoder: Decoder) -> None:
        super().__init__()
        self.content_encoder = content_encoder
        self.decoder = decoder

    def encode(self, images: Tensor) -> Tensor:
        """N x C x H x W in [-1, 1] -> N x C' x h x w."""
        return self.content_encoder(images)

    def decode(self, content: Tensor) -> Tensor:
        """N x C' x h x w -> N x C x H x W."""
        return self.decoder(content)


class Decoder(nn.Module):
    """Content codes to images: residual blocks, then upsampling, each with a convolution that halves the width."""

    def __init__(
        self,
        in_channels: int,
        *,
        image_channels: int,
        num_upsamples: int,
        num_res_blocks: int,
        norm: Callable[[int], nn.Module],
        weight_norm: WeightNorm,
        output: Nonlinearity,
        order: Order,
        has_noise: bool,
    ) -> None:
        """norm: constructs the norm of a number of channels; norms may take a condition, the same for all of them.

        The last convolution has neither norm nor weight norm.
        """
        super().__init__()

        def block() -> nn.Module:
            return ResBlock(
                in_channels,
                in_channels,
                norm=norm,
                act=nn.ReLU,
                order=order,
                padding_mode="reflect",
                weight_norm=weight_norm,
                has_noise=has_noise,
            )

        layers = [block() for _ in range(num_res_blocks)]
        width = in_channels
        for _ in range(num_upsamples):
            conv = conv2d(
                width, width // 2, 5, padding=2, padding_mode="reflect", weight_norm=weight_norm, upsample=True
            )
            layers += [UpsampledByNext(), ConvNormAct(conv, norm(width // 2), nn.ReLU(), has_noise=has_noise)]
            width //= 2
        last = conv2d(width, image_channels, 7, padding=3, padding_mode="reflect")
        self.layers = nn.ModuleList([*layers, ConvNormAct(last, NoNorm(), nonlinearity(output))])

    def forward(self, content: Tensor, *condition: Tensor) -> Tensor:
        """N x in_channels x h x w, and the condition of the norms if they take one -> N x image_channels x H x W."""
        x = content
        for layer in self.layers:
            x = layer(x, *condition)
        return x


DECODER_NAMES: Rules = ((r"\.decoder\.layers\.", ".decoder.decoder."),)
"""Rules for the names of a decoder (nn/reference_names.py)."""


class Discriminator(DomainDiscriminators):
    """A discriminator for each domain: multi-scale patch (weights shared over scales) or residual."""

    def __init__(
        self,
        *,
        patch_dis: bool = True,
        num_image_channels: Positive = 3,
        num_filters: Positive = 64,
        max_num_filters: Positive = 512,
        num_layers: Count = 4,
        activation_norm_type: Norm = "none",
        weight_norm_type: WeightNorm = "none",
        num_discriminators: Positive | None = None,
        kernel_size: Positive | None = None,
        first_kernel_size: Odd | None = None,
        padding_mode: PaddingMode | None = None,
        aggregation: Aggregation | None = None,
        order: DiscriminatorOrder | None = None,
        anti_aliased: bool | None = None,
    ) -> None:
        """patch_dis: Patch discriminators at several scales, with weights shared over scales; else the residual
            discriminator, which gives one score per image.
        num_image_channels: Channels of images. [channels]
        num_filters: Width of the first layer; it doubles from layer to layer. [channels]
        max_num_filters: Largest width. [channels]
        num_layers: Layers after the first, the score aside: all of them (residual) or all but the last (patch) halve
            the size.
        activation_norm_type: Norm of each layer but the last.
        weight_norm_type: Norm of the weights of convolutions.
        num_discriminators: With patch_dis: true. Scales: the first is the full size, each other one half of the one
            before; null: 3.
        kernel_size: With patch_dis: true. Height and width of the kernels; null: 3. [pixels]
        first_kernel_size: With patch_dis: false. Height and width of the first layer's kernels; null: 1.
            [pixels]
        padding_mode: With patch_dis: false. What convolutions see beyond the border; null: zeros.
        aggregation: With patch_dis: false. How the last map becomes a vector: by a convolution over all of it, which
            must be 4 x 4 (conv), or by its mean (pool); null: conv.
        order: With patch_dis: false. Order of convolution (C), norm (N) and activation (A) in residual blocks, pre_act
            being NACNAC; null: pre_act.
        anti_aliased: With patch_dis: false. Halve the size with a low-pass filter (Zhang 2019) instead of 2 x 2 means;
            null: false.

        UserError if an option of the other kind is given.
        """
        super().__init__(
            PatchOptions(num_discriminators=num_discriminators, kernel_size=kernel_size),
            ResidualOptions(
                first_kernel_size=first_kernel_size,
                padding_mode=padding_mode,
                aggregation=aggregation,
                order=order,
                anti_aliased=anti_aliased,
            ),
            is_patch=patch_dis,
            switch="patch_dis",
            is_shared=True,
            num_image_channels=num_image_channels,
            num_filters=num_filters,
            max_num_filters=max_num_filters,
            num_layers=num_layers,
            activation_norm_type=activation_norm_type,
            weight_norm_type=weight_norm_type,
        )


class Recipe(BaseRecipe):
    """Adversarial training in both directions, with reconstruction and cycle consistency."""

    required_inputs: ClassVar[Sequence[str]] = ("images_a", "images_b")
    domains: ClassVar[Mapping[str, Domain]] = {"b": Domain("images_b", "images_a"), "a": Domain("images_a", "images_b")}
    steps_keys: ClassVar[Sequence[str]] = ("dis_step", "gen_step")
    normalized_inputs: ClassVar[Sequence[str]] = ("images_a", "images_b")
    log_names: ClassVar[Mapping[str, str]] = {
        "gan/a": "gan_a",
        "gan/b": "gan_b",
        "perceptual/a": "perceptual_a",
        "perceptual/b": "perceptual_b",
        "cycle_recon/aba": "cycle_recon_aba",
        "cycle_recon/bab": "cycle_recon_bab",
    }

    def __init__(
        self,
        *,
        gen: Generator,
        dis: Discriminator,
        gan_mode: GanMode,
        loss_weight: LossWeights,
        perceptual_loss: PerceptualConfig | None = None,
        gen_step: int = 1,
        dis_step: int = 1,
        reference_order: bool = False,
    ) -> None:
        """gan_mode: The adversarial loss: hinge (Lim & Ye 2017), least_square (Mao et al. 2017), non_saturated or
            softplus (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017).
        loss_weight: Factor of each loss in the total.
        perceptual_loss: The perceptual loss; needed if its weight is not 0.
        gen_step: Updates of the generator per iteration, each on a batch of its own. [updates]
        dis_step: Updates of the discriminator per iteration, before those of the generator. [updates]
        reference_order: A forward of the generator for each update, as in the reference, instead of one for both;
            slower, with other random numbers.
        """
        self.gen = gen
        self.dis = dis
        self.size_multiple = gen.size_multiple
        self.gen_sizes = SizeProbe(
            gen, _run_both_ways, where="gen", multiple=gen.size_multiple, depth_keys="num_downsamples_content"
        )
        self.dis_sizes = SizeProbe(dis, _run_both_domains, where="dis", depth_keys="num_layers")
        self.gan_mode: GanMode = gan_mode
        self.loss_weight = asdict(loss_weight)
        self.updates = Updates(dis_step, gen_step, can_share_forward=not reference_order)
        if dis_step:
            self.check_weights("gan/a", "gan/b")
        self.cycle_recon = self._has_weight("cycle_recon", "cycle_recon_aba", "cycle_recon_bab")
        self.run = run_in_turn if reference_order else run_jointly
        self.image_recon = self._has_weight("image_recon") or reference_order  # the reference logs it at any weight
        self.perceptual_config = perceptual_loss
        self.perceptual: PerceptualLoss | None = None

    def _has_weight(self, *names: str) -> bool:
        return any(self.loss_weight[name] for name in names)

    def load_losses(self) -> Sequence[nn.Module]:
        weights = (self.loss_weight[name] for name in ("perceptual", "perceptual_a", "perceptual_b"))
        self.perceptual = PerceptualLoss.create_if_weighted(self.perceptual_config, *weights)
        return () if self.perceptual is None else (self.perceptual,)

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """One iteration: updates of the discriminators, then of the generator against the updated discriminators."""
        yield from alternate(
            self.prepare(batch),
            ctx,
            self.updates,
            generate=lambda part: self._generate_to_learn(part, ctx.rng),
            generate_for_dis=lambda part: self.generate(part, ctx.rng, image_recon=False, cycle_recon=False),
            dis_losses=self.dis_losses,
            gen_losses=self.gen_losses,
        )

    def prepare(self, batch: Batch) -> Batch:
        """Resizes images (bicubic) to sides that the generator gives back unchanged."""
        names = ("images_a", "images_b")
        self.gen_sizes.check(batch.tensors, names)
        return batch.replace(**round_to_multiple(batch.tensors, names, self.gen.size_multiple))

    def _generate_to_learn(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        return self.generate(batch, rng, image_recon=self.image_recon, cycle_recon=self.cycle_recon)

    def generate(
        self, batch: Batch, rng: torch.Generator, *, image_recon: bool = True, cycle_recon: bool = True
    ) -> dict[str, Tensor]:
        """The generator's outputs for `images_a` and `images_b`. Nothing here is random except for `apply_noise`."""
        a, b = batch["images_a"], batch["images_b"]
        with self.gen_sizes.explain(images_a=a, images_b=b):
            return self.gen(a, b, image_recon=image_recon, cycle_recon=cycle_recon, run=self.run)

    def _translate(self, images: Tensor, *, a2b: bool) -> Tensor:
        with self.gen_sizes.explain(**{"images_a" if a2b else "images_b": images}):
            return self.gen.translate(images, a2b=a2b)

    def discriminate(self, images: Mapping[str, Tensor]) -> dict[str, Any]:
        """Scores and features of images by direction (DomainDiscriminators)."""
        with self.dis_sizes.explain(**{f"images_{way}": x for way, x in images.items()}):
            return self.dis(images, run=self.run)

    def dis_losses(self, batch: Batch, fake: Mapping[str, Tensor]) -> Losses:
        """The losses of the discriminators."""
        verdict = self.discriminate(
            {
                "a": batch["images_a"],
                "b": batch["images_b"],
                "ab": fake["images_ab"].detach(),
                "ba": fake["images_ba"].detach(),
            }
        )
        return {
            "gan/a": dis_real_loss(verdict["out_a"], self.gan_mode) + dis_fake_loss(verdict["out_ba"], self.gan_mode),
            "gan/b": dis_real_loss(verdict["out_b"], self.gan_mode) + dis_fake_loss(verdict["out_ab"], self.gan_mode),
        }

    def gen_losses(self, batch: Batch, fake: Mapping[str, Tensor]) -> Losses:
        """The losses of the generator."""
        images_a, images_b = batch["images_a"], batch["images_b"]
        verdict = self.discriminate({"ab": fake["images_ab"], "ba": fake["images_ba"]})
        losses = {
            "gan/a": gen_loss(verdict["out_ba"], self.gan_mode),
            "gan/b": gen_loss(verdict["out_ab"], self.gan_mode),
        }
        if self.perceptual is not None:
            losses["perceptual/a"] = self.perceptual(fake["images_ab"], images_a)
            losses["perceptual/b"] = self.perceptual(fake["images_ba"], images_b)
        if self.image_recon:
            losses["image_recon"] = l1(fake["images_aa"], images_a) + l1(fake["images_bb"], images_b)
        if self.cycle_recon:
            losses["cycle_recon/aba"] = l1(fake["images_aba"], images_a)
            losses["cycle_recon/bab"] = l1(fake["images_bab"], images_b)
        return losses

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        made = self.generate(batch, rng)
        ways = {"a": batch["images_a"], "b": batch["images_b"], "ab": made["images_ab"], "ba": made["images_ba"]}
        verdict = self.discriminate(ways)
        real, fake = [*verdict["out_a"], *verdict["out_b"]], [*verdict["out_ab"], *verdict["out_ba"]]
        return center_logits(real, self.gan_mode), center_logits(fake, self.gan_mode)

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Translations of a to b."""
        return to_rgb(self._translate(batch["images_a"], a2b=True))

    def target(self, batch: Batch) -> Tensor | None:
        """The images of b, if the data are pairs: files of the same names and sizes."""
        names_a, names_b = batch.keys.get("images_a"), batch.keys.get("images_b")
        are_pairs = names_a == names_b is not None and batch["images_a"].shape == batch["images_b"].shape
        return to_rgb(batch["images_b"]) if are_pairs else None

    def translate(self, batch: Batch, rng: torch.Generator, sample: Tensor) -> dict[str, Tensor]:
        return {"b": sample, "a": to_rgb(self._translate(batch["images_b"], a2b=False))}

    def real_images(self, batch: Batch) -> dict[str, Tensor]:
        return {name: to_rgb(batch[f"images_{name}"]) for name in self.domains}

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        return {"images_a as they are": to_rgb(batch["images_a"])}

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: to_rgb(batch[name]) for name in ("images_a", "images_b")}

    def visualize_outputs(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        made = self.generate(batch, rng)
        ways = ("aa", "bb", "ab", "ba", "aba", "bab")
        return {f"images_{way}": to_rgb(made[f"images_{way}"]) for way in ways}

    def inference_inputs(self, *, a2b: bool = True, **others: Any) -> InferenceInputs:
        return InferenceInputs(content=("images_a" if a2b else "images_b",))

    def infer(self, batch: Batch, rng: torch.Generator, *, a2b: bool = True) -> list[Tensor]:
        """Translations of a to b, or of b to a.

        a2b: Translate images of a to b; false: of b to a.
        """
        return list(self._translate(_source(batch, a2b), a2b=a2b).float())

    def infer_names(self, batch: Batch, *, a2b: bool = True, **others: Any) -> list[str]:
        """Names of the images that `infer` makes: those of their sources."""
        return batch.keys["images_a" if a2b else "images_b"]

    def export_network(self, batch: Batch, rng: torch.Generator, *, a2b: bool = True) -> Exported:
        return Translator(self.gen, a2b=a2b), {"images": _source(batch, a2b)}


class Translator(nn.Module):
    """The generator in one direction, as it is exported."""

    def __init__(self, gen: Generator, *, a2b: bool) -> None:
        super().__init__()
        self.gen = gen
        self.a2b = a2b

    def forward(self, images: Tensor) -> Tensor:
        """N x C x H x W in [-1, 1] -> their translations, of the same shape."""
        return self.gen.translate(images, a2b=self.a2b)


def _source(batch: Batch, a2b: bool) -> Tensor:
    name = "images_a" if a2b else "images_b"
    if name not in batch:
        raise UserError(
            f"with a2b: {str(a2b).lower()} the data must have {name}", where="inference_args", code="no-source-images"
        )
    return batch[name]


def _run_both_ways(gen: Generator, **images: Tensor) -> None:
    """Every image through both autoencoders, for the SizeProbe."""
    for x in images.values():
        gen(x, x)


def _run_both_domains(dis: Discriminator, **images: Tensor) -> None:
    """Every image to both discriminators, for the SizeProbe."""
    for x in images.values():
        dis({"a": x, "b": x})
