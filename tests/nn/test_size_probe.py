"""The size that a probe names is the smallest at which the network itself does not fail, on real numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.models import coco_funit, funit, munit, pix2pixHD, spade, unit
from imagier.nn.encoders import ContentEncoder, StyleEncoder
from imagier.nn.norm import Norm
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.residual_discriminator import ResidualDiscriminator
from imagier.nn.size_probe import SizeProbe

content = partial(ContentEncoder, image_channels=1, num_filters=1)
style = partial(StyleEncoder, image_channels=1, num_filters=1, style_dims=1)
residual = partial(ResidualDiscriminator, 1, num_filters=1, aggregation="pool")
patch = partial(MultiScalePatchDiscriminator, 1, num_filters=1, max_num_filters=1, weight_norm_type="none")


def works(run: Callable[[], object]) -> bool:
    """Whether torch computes it."""
    try:
        with torch.no_grad():
            run()
    except (RuntimeError, ValueError):
        return False
    return True


PARTS = [
    (patch, "activation_norm_type", {"num_layers": 2, "kernel_size": 3, "num_discriminators": 1}),
    (patch, "activation_norm_type", {"num_layers": 2, "kernel_size": 4, "num_discriminators": 2}),
    (patch, "activation_norm_type", {"num_layers": 0, "kernel_size": 4, "num_discriminators": 1}),
    (patch, "activation_norm_type", {"num_layers": 1, "kernel_size": 2, "num_discriminators": 1}),
    (patch, "activation_norm_type", {"num_layers": 1, "kernel_size": 3, "num_discriminators": 3, "is_shared": True}),
    (content, "norm", {"num_downsamples": 2, "num_res_blocks": 1}),
    (content, "norm", {"num_downsamples": 3, "num_res_blocks": 0}),
    (content, "norm", {"num_downsamples": 2, "num_res_blocks": 1, "order": "NACNAC", "weight_norm": "weight"}),
    (content, "norm", {"num_downsamples": 0, "num_res_blocks": 1}),
    (style, "norm", {"num_downsamples": 3, "weight_norm": "spectral"}),
    (residual, "activation_norm_type", {"num_layers": 2}),
    (
        residual,
        "activation_norm_type",
        {"num_layers": 2, "anti_aliased": True, "padding_mode": "reflect", "order": "CNACN"},
    ),
    (residual, "activation_norm_type", {"num_layers": 1, "first_kernel_size": 9, "padding_mode": "reflect"}),
    (
        residual,
        "activation_norm_type",
        {"num_layers": 1, "first_kernel_size": 9, "padding_mode": "circular", "anti_aliased": True},
    ),
    (residual, "activation_norm_type", {"num_layers": 0, "first_kernel_size": 4}),
]


@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize(("make", "norm_key", "options"), PARTS)
def test_a_size_passes_if_and_only_if_torch_does_not_fail_at_it(
    make: Any, norm_key: str, options: dict, norm: Norm
) -> None:
    network = make(**{norm_key: norm}, **options)
    probe = SizeProbe(network, lambda network, images: network(images), where="dis")
    smallest = probe.smallest_px({"images": 1})
    assert smallest is not None
    for size in product({1, 2, max(smallest - 1, 1), smallest, smallest + 1}, repeat=2):
        images = torch.zeros(1, 1, *size)
        expected = works(lambda x=images: network(x))
        assert probe.passes(size, {"images": 1}) == expected, size
        if size == (smallest - 1, smallest - 1):
            assert not expected
        if min(size) >= smallest:
            assert expected


def spade_recipe(crop: int, norm: Norm = "sync_batch", **dis: Any) -> spade.Recipe:
    params = spade.SpadeNormParams(num_filters=1, activation_norm_type=norm)
    gen = spade.Generator(
        label_channels=2, image_channels=3, crop_h_w=(crop, crop), num_filters=2, activation_norm_params=params
    )
    discriminator = spade.Discriminator(label_channels=2, image_channels=3, num_filters=1, max_num_filters=2, **dis)
    weights = spade.LossWeights(gan=1, feature_matching=0, kl=0)
    return spade.Recipe(
        gen=gen.eval(), dis=discriminator, label_lengths={"seg_maps": 2}, gan_mode="hinge", loss_weight=weights
    )


def pix2pix_recipe(downs: int, enhancers: int, padding: Any, norm: Norm, enc: int | None = None) -> pix2pixHD.Recipe:
    lengths = {"seg_maps": 1, "instance_maps": 1}
    looks = None
    if enc is not None:
        looks = pix2pixHD.EncoderParams(num_feat_channels=1, num_filters=1, num_downsamples=enc)
    gen = pix2pixHD.Generator(
        label_lengths=lengths,
        image_channels=3,
        global_generator=pix2pixHD.GlobalGeneratorParams(num_filters=4, num_downsamples=downs, num_res_blocks=1),
        local_enhancer=pix2pixHD.LocalEnhancerParams(num_enhancers=enhancers, num_res_blocks=1),
        enc=looks,
        padding_mode=padding,
        activation_norm_type=norm,
    )
    dis = pix2pixHD.Discriminator(
        label_channels=2, image_channels=3, num_filters=1, num_layers=2, activation_norm_type="instance"
    )
    weights = pix2pixHD.LossWeights(gan=1, feature_matching=0, perceptual=0)
    return pix2pixHD.Recipe(gen=gen, dis=dis, label_lengths=lengths, gan_mode="hinge", loss_weight=weights)


def unit_recipe(halvings: int, blocks: int, **dis: Any) -> unit.Recipe:
    gen = unit.Generator(num_filters=1, num_downsamples_content=halvings, num_res_blocks=blocks, max_num_filters=4)
    weights = unit.LossWeights(gan=1)
    return unit.Recipe(gen=gen, dis=unit.Discriminator(num_filters=1, **dis), gan_mode="hinge", loss_weight=weights)


def munit_recipe(halvings: int, style_halvings: int, **dis: Any) -> munit.Recipe:
    gen = munit.Generator(
        num_filters=1,
        num_res_blocks=1,
        max_num_filters=4,
        num_downsamples_content=halvings,
        num_downsamples_style=style_halvings,
    )
    weights = munit.LossWeights(gan=1)
    return munit.Recipe(gen=gen, dis=munit.Discriminator(num_filters=1, **dis), gan_mode="hinge", loss_weight=weights)


def funit_recipe(kind: Any, down: int, style: int, **dis: Any) -> funit.Recipe:
    gen = kind.Generator(num_filters=1, num_filters_mlp=2, num_downsamples_content=down, num_downsamples_style=style)
    discriminator = funit.Discriminator(num_classes=2, num_filters=1, max_num_filters=2, **dis)
    weights = funit.LossWeights(gan=1)
    return funit.Recipe(gen=gen, dis=discriminator, gan_mode="hinge", loss_weight=weights)


NETWORKS = [
    (lambda: spade_recipe(256), {"label": 2}, 32, 32),
    (lambda: spade_recipe(256, "instance", activation_norm_type="instance"), {"label": 2}, 32, 96),
    (lambda: spade_recipe(512, num_discriminators=1), {"label": 2}, 32, 32),
    (lambda: spade_recipe(512, "instance"), {"label": 2}, 64, 32),
    (lambda: spade_recipe(1024, "instance"), {"label": 2}, 128, 64),
    (lambda: pix2pix_recipe(2, 0, "reflect", "none"), {"label": 2}, 8, 10),
    (lambda: pix2pix_recipe(2, 1, "reflect", "none"), {"label": 2}, 16, 10),
    (lambda: pix2pix_recipe(2, 1, "zeros", "none"), {"label": 2}, 8, 10),
    (lambda: pix2pix_recipe(2, 1, "zeros", "instance"), {"label": 2}, 16, 10),
    (lambda: pix2pix_recipe(1, 1, "circular", "none"), {"label": 2}, 8, 10),
    (lambda: pix2pix_recipe(1, 0, "circular", "none"), {"label": 2}, 4, 10),
    (lambda: pix2pix_recipe(1, 2, "reflect", "instance"), {"label": 2}, 16, 10),
    (lambda: pix2pix_recipe(1, 0, "replicate", "none"), {"label": 2}, 2, 10),
    (lambda: pix2pix_recipe(2, 0, "reflect", "instance", enc=4), {"label": 2}, 32, 10),
    (lambda: unit_recipe(0, 1, num_layers=1), {"images_a": 3}, 4, 4),
    (lambda: unit_recipe(1, 0, num_layers=2, num_discriminators=1, kernel_size=4), {"images_a": 3}, 4, 8),
    (lambda: unit_recipe(2, 1, patch_dis=False, aggregation="pool", num_layers=3), {"images_b": 3}, 8, 8),
    (lambda: munit_recipe(2, 2, num_layers=2), {"images_b": 3}, 8, 4),
    (lambda: munit_recipe(1, 4, num_layers=2, activation_norm_type="instance"), {"images_a": 3}, 16, 20),
    (lambda: funit_recipe(funit, 0, 2, num_layers=1), {"images_style": 3}, 4, 4),
    (lambda: funit_recipe(funit, 2, 2, num_layers=3), {"images_style": 3}, 12, 5),
    (lambda: funit_recipe(funit, 3, 5, num_layers=4), {"images_content": 3}, 32, 9),
    (lambda: funit_recipe(coco_funit, 1, 2, num_layers=4, padding_mode="zeros"), {"images_content": 3}, 6, 5),
    (lambda: funit_recipe(coco_funit, 1, 6, num_layers=2, padding_mode="circular"), {"images_content": 3}, 64, 3),
]


@pytest.mark.parametrize(("make", "inputs", "gen_px", "dis_px"), NETWORKS)
def test_every_network_works_at_its_smallest_size_and_fails_below(
    make: Any, inputs: dict[str, int], gen_px: int, dis_px: int
) -> None:
    recipe = make()
    of_dis = {**inputs, "images": 3} if "label" in inputs else inputs
    for probe, channels, expected in ((recipe.gen_sizes, inputs, gen_px), (recipe.dis_sizes, of_dis, dis_px)):
        smallest = probe.smallest_px(channels)
        assert smallest == expected, probe.where

        def compute(side: int, probe: SizeProbe = probe, channels: dict[str, int] = channels) -> None:
            probe.run(probe.network, **{name: torch.zeros(1, count, side, side) for name, count in channels.items()})

        with torch.no_grad():
            compute(smallest)
        below = smallest - probe.multiple
        assert not below or not works(lambda below=below: compute(below)), probe.where


class Picky(nn.Module):
    """Takes three channels, of at least 5 x 5 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def test_an_image_that_is_too_small_is_reported_with_its_size_and_the_smallest_that_is_not() -> None:
    picky = Picky()
    probe = SizeProbe(picky, where="gen", depth_keys="num_layers")
    good, bad = torch.zeros(1, 3, 5, 9), torch.zeros(2, 3, 4, 9)
    with probe.explain(images=good):
        picky(good)
    with pytest.raises(UserError) as caught, probe.explain(images=bad):
        picky(bad)
    assert (caught.value.where, caught.value.code) == ("gen", "image-too-small")
    assert caught.value.what == "images of 4 x 9 px is too small: both sides must be at least 5 px"
    assert caught.value.advice == "enlarge the images (augmentations), or lower num_layers"


def test_a_side_that_cannot_be_rounded_down_is_reported_before_the_network_runs() -> None:
    probe = SizeProbe(Picky(), where="gen", multiple=4)
    given = {"images": torch.zeros(1, 3, 9, 3), "unused": torch.zeros(1, 3, 1, 1)}
    with pytest.raises(UserError) as caught:
        probe.check(given, ["images", "not there"])
    assert caught.value.code == "image-too-small"
    assert "images of 9 x 3 px" in caught.value.what and "at least 8 px" in caught.value.what
    probe.check({"images": torch.zeros(1, 3, 9, 4)}, ["images"])


def test_what_is_not_a_matter_of_size_stays_as_it_is() -> None:
    picky = Picky()
    probe = SizeProbe(picky, where="gen")
    with pytest.raises(RuntimeError, match="channels"), probe.explain(images=torch.zeros(1, 2, 9, 9)):
        picky(torch.zeros(1, 2, 9, 9))
    with pytest.raises(torch.OutOfMemoryError), probe.explain(images=torch.zeros(1, 3, 9, 9)):
        raise torch.OutOfMemoryError("no memory")
    with pytest.raises(UserError, match="of its own"), probe.explain(images=torch.zeros(1, 3, 1, 1)):
        raise UserError("a message of its own")
    with pytest.raises(UserError, match="too small"), probe.explain(images=torch.zeros(1, 3, 1, 1)):
        picky(torch.zeros(1, 3, 1, 1))


def test_a_norm_that_needs_a_batch_in_training_is_no_matter_of_size() -> None:
    """The copy has one sample, a batch of the training has more."""
    network = nn.Sequential(nn.Conv2d(3, 1, 5), nn.BatchNorm2d(1))
    probe = SizeProbe(network, lambda network, images: network(images), where="gen")
    assert probe.smallest_px({"images": 3}) == 5
    network(torch.zeros(2, 3, 5, 5))


def test_a_network_that_needs_numbers_reports_its_own_error() -> None:
    class Reading(Picky):
        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images) if images.mean().item() < 9 else images

    network = Reading()
    small = torch.zeros(1, 3, 2, 2)
    with pytest.raises(RuntimeError, match="Kernel size"), SizeProbe(network, where="gen").explain(images=small):
        network(small)


def test_trying_touches_neither_the_network_nor_the_random_source() -> None:
    class Noisy(Picky):
        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images + torch.randn_like(images))

    network = Noisy()
    network.register_buffer("count", torch.zeros(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    source = torch.get_rng_state()
    assert SizeProbe(network, where="gen").smallest_px({"images": 3}) == 5
    assert torch.equal(torch.get_rng_state(), source)
    assert network.training and all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in network.parameters())
