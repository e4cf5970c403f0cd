"""A network that sees tiles as parts of a whole image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.blocks import Noise
from imagier.nn.norm import LayerNorm2d
from imagier.nn.positions import PositionalChannels
from imagier.nn.whole_image import SpatialMean, Tile, WholeImage

HEIGHT, WIDTH = 24, 40
TOP, LEFT, SIDE = 8, 16, 16


def cut(x: Tensor) -> Tensor:
    return x[..., TOP : TOP + SIDE, LEFT : LEFT + SIDE]


def note(whole: WholeImage) -> None:
    """Shows all tiles of the image."""
    whole.begin_notes()
    for top in range(0, HEIGHT, 8):
        for left in range(0, WIDTH, 8):
            whole.look_at(Tile(top, left, (8, 8), (HEIGHT, WIDTH)))
            whole.network(image()[..., top : top + 8, left : left + 8])
    whole.end_notes()


def image() -> Tensor:
    """Darker on the left, so that a tile has other statistics than the whole."""
    return torch.randn(1, 6, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) + torch.linspace(-3, 3, WIDTH)


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm2d(6),
        nn.InstanceNorm2d(6, affine=True),
        LayerNorm2d(6),
        LayerNorm2d(6, affine=False),
        LayerNorm2d(6, channel_only=True),
        nn.GroupNorm(2, 6),
        nn.BatchNorm2d(6),
    ],
    ids=str,
)
def test_a_norm_of_a_tile_is_that_of_the_whole_image_at_its_place(norm: nn.Module) -> None:
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1, 0.3)
    network = nn.Sequential(norm).eval()
    expected = cut(network(image()))
    whole = WholeImage(network)
    note(whole)
    whole.look_at(Tile(TOP, LEFT, (SIDE, SIDE), (HEIGHT, WIDTH)))
    error = (
        3e-4 if isinstance(norm, LayerNorm2d) else 1e-5
    )  # it divides by one value less than there are: here it shows
    torch.testing.assert_close(whole.network(cut(image())), expected, atol=error, rtol=error)


def test_the_given_network_stays_as_it_is_and_shares_its_weights() -> None:
    network = nn.Sequential(nn.Conv2d(6, 6, 1), nn.InstanceNorm2d(6)).eval()
    before = network(cut(image()))
    whole = WholeImage(network)
    note(whole)
    whole.look_at(Tile(TOP, LEFT, (SIDE, SIDE), (HEIGHT, WIDTH)))
    assert torch.equal(network(cut(image())), before)
    assert not torch.allclose(whole.network(cut(image())), before)
    assert {id(each) for each in whole.network.parameters()} == {id(each) for each in network.parameters()}


def test_a_norm_that_is_called_twice_has_statistics_of_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.norm(x), self.norm(x.square())], dim=1)

    network = Twice().eval()
    whole = WholeImage(network)
    note(whole)
    for _ in range(2):
        whole.look_at(Tile(TOP, LEFT, (SIDE, SIDE), (HEIGHT, WIDTH)))
        tile = whole.network(cut(image()))
        torch.testing.assert_close(tile, cut(network(image())), atol=1e-5, rtol=1e-5)


def test_positions_of_a_tile_are_those_in_the_whole_image_and_a_mean_is_that_of_the_whole() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = PositionalChannels()
            self.mean = SpatialMean()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.positions(x[..., ::4, ::4]), self.mean(x)

    network = Network().eval()
    positions, mean = network(image())
    whole = WholeImage(network)
    note(whole)
    whole.look_at(Tile(TOP, LEFT, (SIDE, SIDE), (HEIGHT, WIDTH)))
    of_tile = whole.network(cut(image()))
    torch.testing.assert_close(of_tile[0], positions[..., 2:6, 4:8])
    torch.testing.assert_close(of_tile[1], mean)


def test_noise_that_tiles_would_not_share_is_refused_and_what_needs_no_statistics_is_known() -> None:
    with pytest.raises(UserError) as error:
        WholeImage(nn.Sequential(nn.Conv2d(3, 3, 1), Noise()))
    assert (error.value.where, error.value.code) == ("tile", "no-tiles")
    assert not WholeImage(nn.Sequential(nn.BatchNorm2d(3), LayerNorm2d(3, channel_only=True))).has_statistics
    assert WholeImage(nn.Sequential(nn.InstanceNorm2d(3))).has_statistics
