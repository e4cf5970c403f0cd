"""MUNIT: translation between two unpaired image domains, to any style of the other domain.

Huang, Liu, Belongie & Kautz, Multimodal Unsupervised Image-to-Image Translation, 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.alternate import Updates, alternate
from imagier.errors import UserError
from imagier.losses.gan import GanMode, center_logits, dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.gradient_penalty import gradient_penalty
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.models.unit import DECODER_NAMES, Decoder
from imagier.nn.blocks import Nonlinearity, Order
from imagier.nn.conv import PaddingMode, WeightNorm
from imagier.nn.diff_augment import augment, check_policy
from imagier.nn.domain_discriminators import DomainDiscriminators, PatchOptions, ResidualOptions
from imagier.nn.encoders import MLP, ContentEncoder, StyleEncoder
from imagier.nn.joint import Call, Run, run_in_turn, run_jointly
from imagier.nn.norm import AdaptiveNorm, Norm, NormParams, norm2d
from imagier.nn.precision import full_precision
from imagier.nn.reference_names import Rules
from imagier.nn.residual_discriminator import Aggregation, DiscriminatorOrder
from imagier.nn.resize import round_to_multiple, to_rgb
from imagier.nn.size_probe import SizeProbe
from imagier.ranges import Count, NonNegative, Odd, Positive
from imagier.recipe import Batch, Domain, Exported, InferenceInputs, Losses, StepContext, name_in_style
from imagier.recipe import Recipe as BaseRecipe

LARGEST_SHIFT = 0.05
"""Of the images of the consistency loss, in units of half a side."""

NOT_AFFINE = NormParams(affine=False)

LATENT = ("style_recon", "style_recon_a", "style_recon_b", "content_recon", "content_recon_a", "content_recon_b")
"""Losses on the codes of translations."""

WITHIN = (
    *("style_recon_within", "style_recon_aa", "style_recon_bb"),
    *("content_recon_within", "content_recon_aa", "content_recon_bb"),
)
"""Losses on the codes of reconstructions."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is only computed if that costs nothing.

    A loss in parts can also have a weight for each part, which is added to that of the whole.
    """

    gan: NonNegative
    """Adversarial loss, of generator and discriminator."""
    gan_a: NonNegative = 0.0
    """Its part in domain a, added to gan."""
    gan_b: NonNegative = 0.0
    """Its part in domain b, added to gan."""
    image_recon: NonNegative = 0.0
    """L1 between images and their reconstructions from their own content and style."""
    style_recon: NonNegative = 0.0
    """L1 between random styles and the styles encoded from the translations."""
    style_recon_a: NonNegative = 0.0
    """Its part of the styles of a, added to style_recon."""
    style_recon_b: NonNegative = 0.0
    """Its part of the styles of b, added to style_recon."""
    style_recon_within: NonNegative = 0.0
    """L1 between the styles of images and of their reconstructions."""
    style_recon_aa: NonNegative = 0.0
    """Its part of the images of a, added to style_recon_within."""
    style_recon_bb: NonNegative = 0.0
    """Its part of the images of b, added to style_recon_within."""
    content_recon: NonNegative = 0.0
    """L1 between the contents of images and of their translations."""
    content_recon_a: NonNegative = 0.0
    """Its part of the images of a, added to content_recon."""
    content_recon_b: NonNegative = 0.0
    """Its part of the images of b, added to content_recon."""
    content_recon_within: NonNegative = 0.0
    """L1 between the contents of images and of their reconstructions."""
    content_recon_aa: NonNegative = 0.0
    """Its part of the images of a, added to content_recon_within."""
    content_recon_bb: NonNegative = 0.0
    """Its part of the images of b, added to content_recon_within."""
    kl: NonNegative = 0.0
    """Half the squared length of the styles, summed over the batch."""
    cycle_recon: NonNegative = 0.0
    """L1 between images and their translations to the other domain and back."""
    perceptual: NonNegative = 0.0
    """Perceptual distance between translations and their source images."""
    perceptual_a: NonNegative = 0.0
    """Its part of translations from a to b, added to perceptual."""
    perceptual_b: NonNegative = 0.0
    """Its part of translations from b to a, added to perceptual."""
    consistency_reg: NonNegative = 0.0
    """Squared distance of the discriminators' features of images and of the same, mirrored and shifted."""
    gradient_penalty: NonNegative = 0.0
    """R1 penalty, gamma of Mescheder et al. 2018, eq. 9 (not in the paper of MUNIT)."""


class Generator(nn.Module):
    """An autoencoder for each domain. The content of an image of a, a style and the decoder of b give a translation."""

    def __init__(
        self,
        *,
        num_filters: Positive = 64,
        max_num_filters: Positive = 256,
        num_filters_mlp: Positive = 256,
        latent_dim: Positive = 8,
        num_res_blocks: Count = 4,
        num_mlp_blocks: Count = 2,
        num_downsamples_style: Count = 4,
        num_downsamples_content: Count = 2,
        num_image_channels: Positive = 3,
        content_norm_type: Norm = "instance",
        style_norm_type: Norm = "none",
        decoder_norm_type: Norm = "instance",
        decoder_norm_params: NormParams | None = NOT_AFFINE,
        weight_norm_type: WeightNorm = "none",
        output_nonlinearity: Nonlinearity = "none",
        pre_act: bool = False,
        apply_noise: bool = False,
    ) -> None:
        """num_filters: Width of the first layer of encoders, doubled with every halving of the size; of style encoders
            at most twice. [channels]
        max_num_filters: Largest width of content encoders. [channels]
        num_filters_mlp: Width of the layers between a style and the norms of a decoder. [channels]
        latent_dim: Size of a style.
        num_res_blocks: Residual blocks in each content encoder and in each decoder.
        num_mlp_blocks: Layers between a style and the norms of a decoder, at least 2.
        num_downsamples_style: How often style encoders halve the size of an image, at least twice.
        num_downsamples_content: How often content encoders halve the size of an image.
        num_image_channels: Channels of images. [channels]
        content_norm_type: Norm after the convolutions of content encoders.
        style_norm_type: Norm after the convolutions of style encoders.
        decoder_norm_type: The plain norm inside the adaptive ones of decoders.
        decoder_norm_params: Options of that norm; null: without scale and shift of its own.
        weight_norm_type: Norm of the weights of convolutions.
        output_nonlinearity: Applied to the images; none leaves them unlimited.
        pre_act: Order of the residual blocks: norm, activation, convolution instead of convolution, norm, activation.
        apply_noise: Add noise of a learned strength after the convolutions of decoders (Karras et al. 2019).
        """
        super().__init__()
        common: dict[str, Any] = {"image_channels": num_image_channels, "weight_norm": weight_norm_type}
        order: Order = "NACNAC" if pre_act else "CNACNA"
        of_blocks = {**common, "num_res_blocks": num_res_blocks, "order": order}

        def adaptive(channels: int) -> nn.Module:
            plain = norm2d(decoder_norm_type, channels, decoder_norm_params or NOT_AFFINE)
            return AdaptiveNorm(channels, num_filters_mlp, norm=plain)

        def autoencoder() -> Autoencoder:
            style_encoder = StyleEncoder(
                num_filters=num_filters,
                num_downsamples=num_downsamples_style,
                style_dims=latent_dim,
                norm=style_norm_type,
                **common,
            )
            content_encoder = ContentEncoder(
                num_filters=num_filters,
                max_num_filters=max_num_filters,
                num_downsamples=num_downsamples_content,
                norm=content_norm_type,
                **of_blocks,
            )
            decoder = Decoder(
                content_encoder.out_channels,
                num_upsamples=num_downsamples_content,
                norm=adaptive,
                output=output_nonlinearity,
                has_noise=apply_noise,
                **of_blocks,
            )
            mlp = MLP(latent_dim, *[num_filters_mlp] * max(num_mlp_blocks, 2))
            return Autoencoder(style_encoder, content_encoder, decoder, mlp)

        self.latent_dim = latent_dim
        self.size_multiple = 2**num_downsamples_content
        """Images whose sides are multiples of this keep their size."""
        self.autoencoder_a = autoencoder()
        self.autoencoder_b = autoencoder()

    def forward(
        self,
        images_a: Tensor,
        images_b: Tensor,
        random_a: Tensor | None = None,
        random_b: Tensor | None = None,
        *,
        image_recon: bool = True,
        latent_recon: bool = True,
        cycle_recon: bool = True,
        within_latent_recon: bool = False,
        run: Run = run_in_turn,
    ) -> dict[str, Tensor]:
        """Images of both domains, N x C x H x W in [-1, 1] -> codes and images by name.

        `content_x`, `style_x`: codes of an image of x, N x C' x h x w and N x latent_dim x 1 x 1. `images_xy`: an
        image of x as one of y, in the style `style_y_rand`: the given random_y, or else that of the other image
        (linear without an `output_nonlinearity`, so it may leave [-1, 1]). With image_recon also `images_xx`; with
        latent_recon or cycle_recon `content_xy` and `style_xy`, the codes of `images_xy`; with within_latent_recon
        those of `images_xx`; with cycle_recon `images_xyx`, in its own style. run: how a network sees
        several images.
        """
        a, b = self.autoencoder_a, self.autoencoder_b
        content_a, style_a = a.encode(images_a)
        content_b, style_b = b.encode(images_b)
        out = {"content_a": content_a, "content_b": content_b, "style_a": style_a, "style_b": style_b}
        out["style_a_rand"] = style_a if random_a is None else random_a
        out["style_b_rand"] = style_b if random_b is None else random_b
        translations = [a.decoding(content_b, out["style_a_rand"]), b.decoding(content_a, out["style_b_rand"])]
        if image_recon:
            images = run([a.decoding(content_a, style_a), b.decoding(content_b, style_b), *translations])
            out |= dict(zip(("images_aa", "images_bb", "images_ba", "images_ab"), images))
        else:
            out["images_ba"], out["images_ab"] = run(translations)
        if latent_recon or cycle_recon:
            out["content_ba"], out["style_ba"] = a.encode(out["images_ba"])
            out["content_ab"], out["style_ab"] = b.encode(out["images_ab"])
        if image_recon and within_latent_recon:
            out["content_aa"], out["style_aa"] = a.encode(out["images_aa"])
            out["content_bb"], out["style_bb"] = b.encode(out["images_bb"])
        if cycle_recon:
            out["images_aba"] = a.decode(out["content_ab"], style_a)
            out["images_bab"] = b.decode(out["content_ba"], style_b)
        return out

    def random_style(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """A standard normal style for each image, N x latent_dim x 1 x 1."""
        return torch.randn((len(images), self.latent_dim, 1, 1), generator=rng, device=images.device)

    def translate(self, images: Tensor, style: Tensor, *, a2b: bool) -> Tensor:
        """Images of one domain N x C x H x W and styles N x latent_dim x 1 x 1 of the other -> images of the other."""
        source, target = self._of_direction(a2b)
        return target.decode(source.content_encoder(images), style)

    def target_style(self, images: Tensor, *, a2b: bool) -> Tensor:
        """Images N x C x H x W of the target domain of a translation -> their styles N x latent_dim x 1 x 1."""
        return self._of_direction(a2b)[1].style_encoder(images)

    def _of_direction(self, a2b: bool) -> tuple[Autoencoder, Autoencoder]:
        """The autoencoders of the source and of the target domain."""
        both = (self.autoencoder_a, self.autoencoder_b)
        return both if a2b else both[::-1]

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return DECODER_NAMES


class Autoencoder(nn.Module):
    """Images of one domain to content and style, and back."""

    def __init__(
        self, style_encoder: StyleEncoder, content_encoder: ContentEncoder, decoder: Decoder, mlp: MLP
    ) -> None:
        super().__init__()
        self.style_encoder = style_encoder
        self.content_encoder = content_encoder
        self.decoder = decoder
        self.mlp = mlp

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """N x C x H x W in [-1, 1] -> content N x C' x h x w, style N x latent_dim x 1 x 1."""
        style = self.style_encoder(images)
        return self.content_encoder(images), style

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """N x C' x h x w, N x latent_dim x 1 x 1 -> N x C x H x W."""
        return self.decoder(content, self.mlp(style))

    def decoding(self, content: Tensor, style: Tensor) -> Call:
        """`decode` as a call of the decoder, for `Run`."""
        return self.decoder, (content, self.mlp(style))


class Discriminator(DomainDiscriminators):
    """A discriminator for each domain: patch discriminators at several scales, or a residual discriminator."""

    def __init__(
        self,
        *,
        patch_wise: bool = True,
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
        """patch_wise: Patch discriminators at several scales; else the residual discriminator, which gives one score
            per image.
        num_image_channels: Channels of images. [channels]
        num_filters: Width of the first layer; it doubles from layer to layer. [channels]
        max_num_filters: Largest width. [channels]
        num_layers: Layers after the first, the score aside: all of them (residual) or all but the last (patch) halve
            the size.
        activation_norm_type: Norm of each layer but the last.
        weight_norm_type: Norm of the weights of convolutions.
        num_discriminators: With patch_wise: true. Scales: the first is the full size, each other one half of the one
            before; null: 3.
        kernel_size: With patch_wise: true. Height and width of the kernels; null: 3. [pixels]
        first_kernel_size: With patch_wise: false. Height and width of the first layer's kernels; null: 1.
            [pixels]
        padding_mode: With patch_wise: false. What convolutions see beyond the border; null: zeros.
        aggregation: With patch_wise: false. How the last map becomes a vector: by a convolution over all of it, which
            must be 4 x 4 (conv), or by its mean (pool); null: conv.
        order: With patch_wise: false. Order of convolution (C), norm (N) and activation (A) in residual blocks, pre_act
            being NACNAC; null: pre_act.
        anti_aliased: With patch_wise: false. Halve the size with a low-pass filter (Zhang 2019) instead of 2 x 2 means;
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
            is_patch=patch_wise,
            switch="patch_wise",
            is_shared=False,
            num_image_channels=num_image_channels,
            num_filters=num_filters,
            max_num_filters=max_num_filters,
            num_layers=num_layers,
            activation_norm_type=activation_norm_type,
            weight_norm_type=weight_norm_type,
        )


class Recipe(BaseRecipe):
    """Adversarial training in both directions; images, contents and styles must survive a translation."""

    required_inputs: ClassVar[Sequence[str]] = ("images_a", "images_b")
    domains: ClassVar[Mapping[str, Domain]] = {"b": Domain("images_b", "images_a"), "a": Domain("images_a", "images_b")}
    steps_keys: ClassVar[Sequence[str]] = ("dis_step", "gen_step")
    normalized_inputs: ClassVar[Sequence[str]] = ("images_a", "images_b")
    log_names: ClassVar[Mapping[str, str]] = {
        "gan/a": "gan_a",
        "gan/b": "gan_b",
        "perceptual/a": "perceptual_a",
        "perceptual/b": "perceptual_b",
        "style_recon/a": "style_recon_a",
        "style_recon/b": "style_recon_b",
        "style_recon_within/aa": "style_recon_aa",
        "style_recon_within/bb": "style_recon_bb",
        "content_recon/a": "content_recon_a",
        "content_recon/b": "content_recon_b",
        "content_recon_within/aa": "content_recon_aa",
        "content_recon_within/bb": "content_recon_bb",
    }

    def __init__(
        self,
        *,
        gen: Generator,
        dis: Discriminator,
        gan_mode: GanMode,
        loss_weight: LossWeights,
        perceptual_loss: PerceptualConfig | None = None,
        gan_recon: bool = False,
        aug_policy: str = "",
        gen_step: int = 1,
        dis_step: int = 1,
        reference_order: bool = False,
    ) -> None:
        """gan_mode: The adversarial loss: hinge (Lim & Ye 2017), least_square (Mao et al. 2017), non_saturated or
            softplus (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017).
        loss_weight: Factor of each loss in the total.
        perceptual_loss: The perceptual loss; needed if its weight is not 0.
        gan_recon: Reconstructions must fool the discriminators, too.
        aug_policy: DiffAugment (Zhao et al. 2020) of what discriminators see, comma-separated: color, translation,
            cutout, translation_scale; empty: none.
        gen_step: Updates of the generator per iteration, each on a batch of its own. [updates]
        dis_step: Updates of the discriminator per iteration, before those of the generator. [updates]
        reference_order: A forward of the generator for each update, as in the reference, instead of one for both;
            slower, with other random numbers.
        """
        check_policy(aug_policy)
        self.gen = gen
        self.dis = dis
        self.size_multiple = gen.size_multiple
        self.gen_sizes = SizeProbe(
            gen,
            _run_both_ways,
            where="gen",
            multiple=gen.size_multiple,
            depth_keys="num_downsamples_content or num_downsamples_style",
        )
        self.dis_sizes = SizeProbe(dis, _run_both_domains, where="dis", depth_keys="num_layers")
        self.gan_mode: GanMode = gan_mode
        self.loss_weight = asdict(loss_weight)
        for kind in ("style_recon", "content_recon"):
            for way in ("aa", "bb"):  # the names of these parts do not start with that of the whole
                self.loss_weight[f"{kind}_within_{way}"] = self.loss_weight[f"{kind}_{way}"]
        self.updates = Updates(dis_step, gen_step, can_share_forward=not reference_order)
        if dis_step:
            self.check_weights("gan/a", "gan/b")
        self.gan_recon = gan_recon
        self.aug_policy = aug_policy
        self.reference_order = reference_order
        self.run = run_in_turn if reference_order else run_jointly
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
        recons = {"image_recon": self._discriminates_recons, "latent_recon": False, "cycle_recon": False}
        yield from alternate(
            self.prepare(batch),
            ctx,
            self.updates,
            generate=lambda part: self._generate_to_learn(part, ctx.rng),
            generate_for_dis=lambda part: self.generate(part, ctx.rng, **recons),
            dis_losses=lambda part, fake: self.dis_losses(part, fake, ctx.rng),
            gen_losses=lambda part, fake: self.gen_losses(part, fake, ctx.rng),
        )

    def prepare(self, batch: Batch) -> Batch:
        """Resizes images (bicubic) to sides that the generator gives back unchanged."""
        names = ("images_a", "images_b")
        self.gen_sizes.check(batch.tensors, names)
        return batch.replace(**round_to_multiple(batch.tensors, names, self.gen.size_multiple))

    @property
    def _discriminates_recons(self) -> bool:
        """Whether reconstructions are discriminated in the discriminators' update, without a loss on them."""
        return self.gan_recon and self.reference_order

    def _generate_to_learn(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The outputs of the generator that losses need; in the order of the reference some more."""
        within = self._has_weight(*WITHIN)
        return self.generate(
            batch,
            rng,
            image_recon=self._has_weight("image_recon") or self.gan_recon or within,
            latent_recon=self._has_weight(*LATENT) or self.reference_order,
            cycle_recon=self._has_weight("cycle_recon"),
            within_latent_recon=within,
        )

    def generate(
        self, batch: Batch, rng: torch.Generator, *, random_style: bool = True, **flags: bool
    ) -> dict[str, Tensor]:
        """The generator's outputs for `images_a` and `images_b`; flags as of Generator.forward.

        Translations have random styles, those of a drawn first, or else the style of the other image.
        """
        images = (batch["images_a"], batch["images_b"])
        styles = [self.gen.random_style(of_domain, rng) for of_domain in images] if random_style else []
        with self.gen_sizes.explain(images_a=images[0], images_b=images[1]):
            return self.gen(*images, *styles, **flags, run=self.run)

    def discriminate(self, images: Mapping[str, Tensor]) -> dict[str, Any]:
        """Scores and features of images by direction (DomainDiscriminators)."""
        with self.dis_sizes.explain(**{f"images_{way}": x for way, x in images.items()}):
            return self.dis(images, run=self.run)

    def dis_losses(self, batch: Batch, fake: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """The losses of the discriminators."""
        ways = ("aa", "bb", "ba", "ab") if self._discriminates_recons else ("ba", "ab")
        real = {way: batch[f"images_{way}"] for way in ("a", "b")}
        made = {way: fake[f"images_{way}"].detach() for way in ways}
        seen = self._augment(real, rng)
        verdict = self.discriminate({**seen, **self._augment(made, rng)})
        losses = {
            "gan/a": dis_real_loss(verdict["out_a"], self.gan_mode) + dis_fake_loss(verdict["out_ba"], self.gan_mode),
            "gan/b": dis_real_loss(verdict["out_b"], self.gan_mode) + dis_fake_loss(verdict["out_ab"], self.gan_mode),
        }
        if self.loss_weight["consistency_reg"]:
            losses["consistency_reg"] = self._consistency_loss({**real, **made}, verdict, rng)
        elif self.reference_order:
            losses["consistency_reg"] = losses["gan/a"].new_zeros(())  # the reference logs it at any weight
        if self.loss_weight["gradient_penalty"]:
            penalties = [gradient_penalty(self.dis.of_domain(domain), images) for domain, images in seen.items()]
            losses["gradient_penalty"] = torch.stack(penalties).sum()
        return losses

    def _augment(self, images: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        """The input of the discriminators: images after DiffAugment."""
        return {way: augment(images, self.aug_policy, rng) for way, images in images.items()}

    def _consistency_loss(
        self, images: Mapping[str, Tensor], verdict: Mapping[str, Any], rng: torch.Generator
    ) -> Tensor:
        """Consistency regularization (Zhang et al. 2020, eq. 4) under mirroring and shifting, of real and fake images.

        Features are averaged over positions, since they move with the image. Mean over scales and layers, sum over the
        directions.
        """
        ways = ("a", "b", "ab", "ba")
        again = self.dis({way: random_shift(images[way].flip(3), rng) for way in ways}, run=self.run)
        return torch.stack([_distance(again[f"fea_{way}"], verdict[f"fea_{way}"]) for way in ways]).sum()

    def gen_losses(self, batch: Batch, fake: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """The losses of the generator."""
        images_a, images_b = batch["images_a"], batch["images_b"]
        losses = self._adversarial_losses(fake, rng)
        if self.perceptual is not None:
            losses["perceptual/a"] = self.perceptual(fake["images_ab"], images_a)
            losses["perceptual/b"] = self.perceptual(fake["images_ba"], images_b)
        if self._has_weight("image_recon"):
            losses["image_recon"] = l1(fake["images_aa"], images_a) + l1(fake["images_bb"], images_b)
        losses |= _latent_losses(fake)
        losses["kl"] = (fake["style_a"].float().square().sum() + fake["style_b"].float().square().sum()) / 2
        if self._has_weight("cycle_recon"):
            losses["cycle_recon"] = l1(fake["images_aba"], images_a) + l1(fake["images_bab"], images_b)
        return losses

    def _adversarial_losses(self, fake: Mapping[str, Tensor], rng: torch.Generator) -> Losses:
        """The adversarial losses of translations, or with gan_recon their mean with those of reconstructions."""
        ways = ("aa", "bb", "ba", "ab") if self.gan_recon else ("ba", "ab")
        verdict = self.discriminate(self._augment({way: fake[f"images_{way}"] for way in ways}, rng))
        losses = {way: gen_loss(verdict[f"out_{way}"], self.gan_mode) for way in ways}
        if self.gan_recon:
            return {"gan/a": (losses["ba"] + losses["aa"]) / 2, "gan/b": (losses["ab"] + losses["bb"]) / 2}
        return {"gan/a": losses["ba"], "gan/b": losses["ab"]}

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        made = self.generate(batch, rng)
        ways = {"a": batch["images_a"], "b": batch["images_b"], "ab": made["images_ab"], "ba": made["images_ba"]}
        verdict = self.discriminate(ways)
        real, fake = [*verdict["out_a"], *verdict["out_b"]], [*verdict["out_ab"], *verdict["out_ba"]]
        return center_logits(real, self.gan_mode), center_logits(fake, self.gan_mode)

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Translations of a to b, each in the style of its `images_b`."""
        with self.gen_sizes.explain(images_a=batch["images_a"], images_b=batch["images_b"]):
            style = self.gen.target_style(batch["images_b"], a2b=True)
            return to_rgb(self.gen.translate(batch["images_a"], style, a2b=True))

    def target(self, batch: Batch) -> Tensor | None:
        """The images of b, if the data are pairs: files of the same names and sizes."""
        names_a, names_b = batch.keys.get("images_a"), batch.keys.get("images_b")
        are_pairs = names_a == names_b is not None and batch["images_a"].shape == batch["images_b"].shape
        return to_rgb(batch["images_b"]) if are_pairs else None

    def translate(self, batch: Batch, rng: torch.Generator, sample: Tensor) -> dict[str, Tensor]:
        """In random styles."""
        made = self.generate(batch, rng, image_recon=False, latent_recon=False, cycle_recon=False)
        return {"b": to_rgb(made["images_ab"]), "a": to_rgb(made["images_ba"])}

    def real_images(self, batch: Batch) -> dict[str, Tensor]:
        return {name: to_rgb(batch[f"images_{name}"]) for name in self.domains}

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        return {"images_a as they are": to_rgb(batch["images_a"])}

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: to_rgb(batch[name]) for name in ("images_a", "images_b")}

    def visualize_outputs(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Reconstructions; translations in the style of the other image and in a random one; cycles."""
        made = self.generate(batch, rng, random_style=False)
        random = self.generate(batch, rng, image_recon=False, latent_recon=False, cycle_recon=False)
        columns: dict[str, Tensor] = {}
        for way in ("aa", "bb", "ab", "ba", "aba", "bab"):
            columns[f"images_{way}"] = to_rgb(made[f"images_{way}"])
            if way in ("ab", "ba"):
                columns[f"images_{way} in a random style"] = to_rgb(random[f"images_{way}"])
        return columns

    def inference_inputs(self, *, a2b: bool = True, **others: Any) -> InferenceInputs:
        content, style = _source_names(a2b)
        from_images, at_random = {"random_style": False}, {"random_style": True}
        return InferenceInputs(content=(content,), style=style, from_images=from_images, at_random=at_random)

    def infer(self, batch: Batch, rng: torch.Generator, *, a2b: bool = True, random_style: bool = True) -> list[Tensor]:
        """Translations of a to b, or of b to a; in random styles, or in those of the other images.

        a2b: Translate images of a to b; false: of b to a.
        random_style: Random styles instead of those of the images of the other domain.
        """
        content, style = _source_names(a2b)
        images = _require_images(batch, content, f"a2b: {str(a2b).lower()}")
        if random_style:
            styles = self.gen.random_style(images, rng)
        else:
            examples = _require_images(batch, style, f"a2b: {str(a2b).lower()} and random_style: false")
            with self.gen_sizes.explain(**{style: examples}):
                styles = self.gen.target_style(examples, a2b=a2b)
        with self.gen_sizes.explain(**{content: images}):
            return list(self.gen.translate(images, styles, a2b=a2b).float())

    def infer_names(self, batch: Batch, *, a2b: bool = True, random_style: bool = True, **others: Any) -> list[str]:
        """Names of the images that `infer` makes: those of the contents, or "<content>_style_<style>"."""
        content, style = _source_names(a2b)
        if random_style:
            return batch.keys[content]
        return [name_in_style(name, example) for name, example in zip(batch.keys[content], batch.keys[style])]

    def export_network(
        self, batch: Batch, rng: torch.Generator, *, a2b: bool = True, random_style: bool = True
    ) -> Exported:
        content, style = _source_names(a2b)
        images = _require_images(batch, content, f"a2b: {str(a2b).lower()}")
        if random_style:
            inputs = {"noise": self.gen.random_style(images, rng).flatten(1)}
        else:
            examples = _require_images(batch, style, f"a2b: {str(a2b).lower()} and random_style: false")
            inputs = {"style_images": examples}
        return Translator(self.gen, a2b=a2b), {"images": images, **inputs}


class Translator(nn.Module):
    """The generator in one direction, as it is exported. The style is the code `noise`, or that of an image."""

    def __init__(self, gen: Generator, *, a2b: bool) -> None:
        super().__init__()
        self.gen = gen
        self.a2b = a2b

    def forward(self, images: Tensor, noise: Tensor | None = None, style_images: Tensor | None = None) -> Tensor:
        """N x C x H x W in [-1, 1], and codes N x latent_dim or images of the other domain -> translations."""
        style = noise if style_images is None else self.gen.target_style(style_images, a2b=self.a2b)
        assert style is not None
        return self.gen.translate(images, style, a2b=self.a2b)


def random_shift(images: Tensor, rng: torch.Generator) -> Tensor:
    """N x C x H x W -> the same, each shifted by up to 1/40 of its width and height, with reflection.

    Draws N x 2 uniform numbers: right, then down.
    """
    shift = (2 * torch.rand((len(images), 2), generator=rng, device=images.device) - 1) * LARGEST_SHIFT
    unchanged = torch.eye(2, device=images.device).expand(len(images), -1, -1)
    with full_precision(images):  # half precision is too coarse for positions
        grid = F.affine_grid(torch.cat([unchanged, shift[..., None]], dim=2), list(images.shape), align_corners=False)
        moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return moved.to(images.dtype)


def _latent_losses(fake: Mapping[str, Tensor]) -> Losses:
    """Losses between the codes of generated images and the codes that they were generated from."""
    losses: Losses = {}
    if "style_ba" in fake:
        losses["style_recon/a"] = l1(fake["style_ba"], fake["style_a_rand"])
        losses["style_recon/b"] = l1(fake["style_ab"], fake["style_b_rand"])
        losses["content_recon/a"] = l1(fake["content_ab"], fake["content_a"].detach())
        losses["content_recon/b"] = l1(fake["content_ba"], fake["content_b"].detach())
    if "style_aa" in fake:
        losses["style_recon_within/aa"] = l1(fake["style_aa"], fake["style_a"].detach())
        losses["style_recon_within/bb"] = l1(fake["style_bb"], fake["style_b"].detach())
        losses["content_recon_within/aa"] = l1(fake["content_aa"], fake["content_a"].detach())
        losses["content_recon_within/bb"] = l1(fake["content_bb"], fake["content_b"].detach())
    return losses


def _distance(x: Sequence[Sequence[Tensor]], y: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean squared difference of features averaged over positions, mean over scales and layers."""
    pairs = [(f.float(), g.float()) for of_x, of_y in zip(x, y) for f, g in zip(of_x, of_y)]
    return torch.stack([F.mse_loss(f.mean(dim=(2, 3)), g.mean(dim=(2, 3))) for f, g in pairs]).mean()


def _source_names(a2b: bool) -> tuple[str, str]:
    """The input types of the content and of the style of a translation."""
    return ("images_a", "images_b") if a2b else ("images_b", "images_a")


def _require_images(batch: Batch, name: str, options: str) -> Tensor:
    if name not in batch:
        raise UserError(f"with {options} the data must have {name}", where="inference_args", code="no-source-images")
    return batch[name]


def _run_both_ways(gen: Generator, **images: Tensor) -> None:
    """Every image through both autoencoders, for the SizeProbe."""
    for x in images.values():
        gen(x, x)


def _run_both_domains(dis: Discriminator, **images: Tensor) -> None:
    """Every image to both discriminators, for the SizeProbe."""
    for x in images.values():
        dis({"a": x, "b": x})
