"""The residual discriminator against the same in plain functions, and the sizes that it takes."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from second_way import NORMS, blurred_half, residual_discriminator, weights_of
from torch import nn

from imagier.errors import UserError
from imagier.nn.residual_discriminator import BlurPool, ResidualDiscriminator


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def discriminator(**options: Any) -> ResidualDiscriminator:
    made = ResidualDiscriminator(3, **{"num_filters": 3, "max_num_filters": 6, "num_layers": 2, **options}).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)  # affine parts and biases, too
    return made.eval()


@pytest.mark.parametrize("order", ["pre_act", "NACNAC", "CNACNA", "CNACN"])
@pytest.mark.parametrize(("norm", "weight_norm"), [("none", "spectral"), ("instance", "none"), ("layer_2d", "weight")])
@pytest.mark.parametrize("aggregation", ["conv", "pool"])
@pytest.mark.parametrize("anti_aliased", [False, True])
def test_scores_and_features_are_those_of_the_formulas(
    order: str, norm: str, weight_norm: str, aggregation: str, anti_aliased: bool
) -> None:
    for mode, first_kernel in product(("zeros", "reflect"), (1, 3, 5)):
        made = discriminator(
            order=order,
            activation_norm_type=norm,
            weight_norm_type=weight_norm,
            aggregation=aggregation,
            anti_aliased=anti_aliased,
            padding_mode=mode,
            first_kernel_size=first_kernel,
        )
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        scores, features = made(x)
        expected = residual_discriminator(
            weights_of(made),
            x,
            layers=2,
            first_kernel=first_kernel,
            mode=mode,
            norm=NORMS[norm],
            order={"pre_act": "NACNAC"}.get(order, order),
            pool=aggregation == "pool",
        )
        torch.testing.assert_close((scores, features), ([expected[0]], [[expected[1]]]))
        assert scores[0].shape == (2, 1) and features[0][0].shape == (2, 6, 1, 1)


@pytest.mark.parametrize(
    ("layers", "most", "widths"), [(1, 64, [3, 6]), (3, 64, [3, 6, 12, 24]), (3, 6, [3, 6, 6, 6]), (2, 2, [3, 2, 2])]
)
def test_widths_double_up_to_the_limit_and_shortcuts_are_learned_where_they_differ(
    layers: int, most: int, widths: list[int]
) -> None:
    names = set(weights_of(discriminator(num_layers=layers, max_num_filters=most)))
    made = discriminator(num_layers=layers, max_num_filters=most)
    blocks = [made.model[1 + 2 * i] for i in range(layers)]
    assert [made.model[0].conv.out_channels, *(b.block_1.conv.out_channels for b in blocks)] == widths
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        assert (f"model.{1 + 2 * index}.conv_block_s.layers.conv.weight" in names) == (inputs != outputs)
    assert {f"model.{2 * layers + 1}.layers.conv.weight", "classifier.weight", "classifier.bias"} <= names


def test_a_discriminator_of_the_reference_size_has_its_numbers_of_weights() -> None:
    with torch.device("meta"):
        made = ResidualDiscriminator(3, num_filters=32, num_layers=6, weight_norm_type="spectral")
    assert 2 * sum(p.numel() for p in made.parameters()) == 32_322_498
    assert 2 * len(list(made.parameters())) == 76
    assert 2 * len(weights_of(made)) == 144


def test_neither_aggregation_nor_score_have_a_norm() -> None:
    names = weights_of(discriminator(weight_norm_type="spectral", activation_norm_type="instance"))
    assert "model.1.conv_block_0.layers.conv.weight_u" in names
    assert "model.5.layers.conv.weight" in names
    assert not any("norm" in name or name.endswith("_u") for name in names if name[:7] in ("model.5", "classif"))


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (4, 9)])
def test_a_blurred_half_is_a_separable_filter_at_every_second_pixel(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    half = BlurPool().double()(x)
    assert half.shape == (2, 3, height // 2, width // 2)
    torch.testing.assert_close(half, blurred_half(x))


def test_a_blurred_half_keeps_what_is_even_and_takes_away_what_is_finest() -> None:
    half = BlurPool()
    torch.testing.assert_close(half(torch.ones(1, 1, 8, 8))[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
    stripes = torch.ones(1, 1, 8, 8)
    stripes[..., ::2] = -1
    assert half(stripes)[..., 1:-1, 1:-1].abs().max() < 1e-6
    assert F.avg_pool2d(stripes[..., 1:-1, 1:-1], 2).abs().max() < 1e-6
    assert F.avg_pool2d(stripes.roll(1, 3).repeat_interleave(2, 3), 2).abs().max() == 1
    assert list(half.state_dict()) == ["kernel"] and half.kernel.shape == (4, 4)


@pytest.mark.parametrize(("size", "last"), [((32, 32), "8 x 8"), ((16, 20), "4 x 5"), ((8, 8), "2 x 2")])
def test_another_size_than_that_of_the_aggregating_convolution_is_the_users_mistake(
    size: tuple[int, int], last: str
) -> None:
    made = discriminator()
    with pytest.raises(UserError, match=rf"{last} in num_layers: 2 .* 16 x 16 px") as caught:
        made(torch.randn(1, 3, *size, dtype=torch.float64))
    assert (caught.value.where, caught.value.code) == ("dis", "image-size")
    made(torch.randn(1, 3, 19, 18, dtype=torch.float64))
    discriminator(aggregation="pool")(torch.randn(1, 3, *size, dtype=torch.float64))
