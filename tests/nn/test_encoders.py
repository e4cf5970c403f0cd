"""Content encoder, style encoder and MLP against the same in plain functions of their weights."""

from __future__ import annotations

import pytest
import torch
from second_way import NORMS, content, mlp, style, weights_of
from torch import nn

from imagier.nn.encoders import MLP, ContentEncoder, StyleEncoder


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def with_some_weights(network: nn.Module) -> nn.Module:
    """In double precision and eval mode, with affine parts and biases that are not at their first values."""
    network.double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return network


def under(network: nn.Module) -> nn.Module:
    """The network as part of another one, so that its names have something before them."""
    return nn.ModuleDict({"it": network})


def images(size: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, size, size + 8, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("order", ["CNACNA", "NACNAC", "CNACN"])
@pytest.mark.parametrize(("norm", "weight_norm"), [("none", "spectral"), ("instance", "none"), ("layer_2d", "weight")])
@pytest.mark.parametrize(("halvings", "blocks"), [(2, 2), (0, 1), (3, 0)])
def test_the_content_code_is_that_of_the_formulas(
    order: str, norm: str, weight_norm: str, halvings: int, blocks: int
) -> None:
    encoder = ContentEncoder(
        image_channels=3,
        num_filters=2,
        max_num_filters=5,
        num_downsamples=halvings,
        num_res_blocks=blocks,
        norm=norm,
        weight_norm=weight_norm,
        order=order,
    )
    with_some_weights(encoder)
    x = images()
    code = encoder(x)
    weights = weights_of(under(encoder))
    expected = content(weights, "it", x, halvings=halvings, blocks=blocks, order=order, norm=NORMS[norm])
    torch.testing.assert_close(code, expected)
    assert code.shape == (2, encoder.out_channels, 16 >> halvings, 24 >> halvings)


@pytest.mark.parametrize(
    ("most", "widths"), [(None, [4, 8, 16, 32]), (16, [4, 8, 16, 16]), (10, [4, 8, 10, 10]), (3, [4, 3, 3, 3])]
)
def test_widths_of_the_content_code_double_up_to_the_limit(most: int | None, widths: list[int]) -> None:
    encoder = ContentEncoder(image_channels=3, num_filters=4, max_num_filters=most, num_downsamples=3, num_res_blocks=1)
    assert [encoder.model[index].conv.out_channels for index in range(4)] == widths
    assert encoder.out_channels == widths[-1]


@pytest.mark.parametrize(("norm", "weight_norm"), [("none", "spectral"), ("instance", "none"), ("layer_2d", "weight")])
@pytest.mark.parametrize("halvings", [1, 2, 3, 4])
def test_the_style_code_is_that_of_the_formulas(norm: str, weight_norm: str, halvings: int) -> None:
    encoder = StyleEncoder(
        image_channels=3, num_filters=2, num_downsamples=halvings, style_dims=5, norm=norm, weight_norm=weight_norm
    )
    with_some_weights(encoder)
    x = images(32)
    code = encoder(x)
    torch.testing.assert_close(code, style(weights_of(under(encoder)), "it", x, halvings=halvings, norm=NORMS[norm]))
    assert code.shape == (2, 5, 1, 1)


def test_the_last_convolution_of_the_style_encoder_has_no_weight_norm() -> None:
    names = weights_of(
        StyleEncoder(image_channels=3, num_filters=2, num_downsamples=3, style_dims=5, weight_norm="spectral")
    )
    assert {"model.5.weight", "model.5.bias"} < set(names)
    assert sum(name.endswith("weight_u") for name in names) == 4


@pytest.mark.parametrize("dims", [(3, 4, 5), (2, 6, 6, 6)])
def test_the_mlp_bends_after_every_layer_the_last_too(dims: tuple[int, ...]) -> None:
    network = with_some_weights(MLP(*dims))
    x = torch.randn(4, dims[0], 1, 1, dtype=torch.float64)
    code = network(x)
    torch.testing.assert_close(code, mlp(weights_of(nn.ModuleDict({"mlp": network})), "mlp", x))
    torch.testing.assert_close(code, network(x[:, :, 0, 0]))
    assert code.shape == (4, dims[-1]) and code.min() == 0
