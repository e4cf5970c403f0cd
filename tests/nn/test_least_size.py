"""The least size of images is the one from which on torch does not fail."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from imagier.errors import UserError
from imagier.nn.encoders import ContentEncoder, StyleEncoder
from imagier.nn.least_size import LeastSize
from imagier.nn.norm import Norm
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.residual_discriminator import ResidualDiscriminator

ANY = LeastSize(0, 0)


def discriminator(norm: Norm, **options: Any) -> nn.Module:
    return MultiScalePatchDiscriminator(
        1, num_filters=1, max_num_filters=1, activation_norm_type=norm, weight_norm_type="none", **options
    )


def content(norm: Norm, **options: Any) -> nn.Module:
    return ContentEncoder(image_channels=1, num_filters=1, norm=norm, **options)


def style(norm: Norm, **options: Any) -> nn.Module:
    return StyleEncoder(image_channels=1, num_filters=1, style_dims=1, norm=norm, **options)


def residual(norm: Norm, **options: Any) -> nn.Module:
    return ResidualDiscriminator(1, num_filters=1, activation_norm_type=norm, aggregation="pool", **options)


NETWORKS = [
    (discriminator, {"num_layers": 2, "kernel_size": 3, "num_discriminators": 1}),
    (discriminator, {"num_layers": 2, "kernel_size": 4, "num_discriminators": 2}),
    (discriminator, {"num_layers": 0, "kernel_size": 4, "num_discriminators": 1}),
    (discriminator, {"num_layers": 1, "kernel_size": 2, "num_discriminators": 1}),
    (discriminator, {"num_layers": 1, "kernel_size": 3, "num_discriminators": 3, "shared": True}),
    (content, {"num_downsamples": 2, "num_res_blocks": 1}),
    (content, {"num_downsamples": 3, "num_res_blocks": 0}),
    (content, {"num_downsamples": 2, "num_res_blocks": 1, "order": "NACNAC", "weight_norm": "weight"}),
    (content, {"num_downsamples": 0, "num_res_blocks": 1}),
    (style, {"num_downsamples": 3, "weight_norm": "spectral"}),
    (residual, {"num_layers": 2}),
    (residual, {"num_layers": 2, "anti_aliased": True, "padding_mode": "reflect", "order": "CNACN"}),
    (residual, {"num_layers": 1, "first_kernel_size": 9, "padding_mode": "reflect"}),
    (residual, {"num_layers": 1, "first_kernel_size": 9, "padding_mode": "circular", "anti_aliased": True}),
    (residual, {"num_layers": 0, "first_kernel_size": 4}),
]


@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize(("make", "options"), NETWORKS)
def test_a_size_is_told_if_and_only_if_torch_fails_at_it(make: Any, options: dict, norm: Norm) -> None:
    network = make(norm, **options)
    least = network.least_size
    side = least.longer + 1
    for height, width in product({1, *range(max(least.side - 2, 1), side)}, range(1, side)):
        images = torch.zeros(1, 1, height, width)
        network.least_size = ANY
        try:
            network(images)
            fails = False
        except (RuntimeError, ValueError):
            fails = True
        network.least_size = least
        if fails:
            with pytest.raises(UserError, match=f"at least {least.side} x {least.longer} px, but got {height} x"):
                network(images)
        else:
            network(images)


def test_the_message_says_what_to_change() -> None:
    too_small = torch.zeros(1, 1, 7, 40)
    with pytest.raises(UserError) as caught:
        discriminator("instance", num_layers=2, kernel_size=4, num_discriminators=2)(too_small)
    assert str(caught.value).startswith("dis needs images of at least ")
    assert str(caught.value).endswith("or lower num_discriminators or num_layers")
    with pytest.raises(UserError, match=r"gen: the style encoder needs .* lower its number of downsamplings"):
        style("none", num_downsamples=4)(too_small)
