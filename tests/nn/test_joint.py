"""Several inputs in one pass, against one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imagier.nn.conv import SpectralConv2d
from imagier.nn.joint import Call, run_in_turn, run_jointly


class Nested(nn.Module):
    """Outputs as those of discriminators; counts its passes."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = norm
        self.passes = 0

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, list[list[Any]]]:
        self.passes += 1
        features = self.norm(self.conv(x)) * scale[:, None, None, None]
        return features.mean(dim=(1, 2, 3)), [[features, {"positive": features.relu(), "none": None}], []]


def calls(network: nn.Module, *rows: int, side: int = 8) -> list[Call]:
    generator = torch.Generator().manual_seed(0)
    return [
        (network, (torch.randn(n, 3, side, side, generator=generator), torch.rand(n, generator=generator)))
        for n in rows
    ]


def test_outputs_come_in_the_order_of_the_calls() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    mixed: list[Call] = [(network, (torch.randn(1, 2),)) for network in (one, other, one, other, other)]
    torch.testing.assert_close(run_jointly(mixed), run_in_turn(mixed))


def test_one_pass_gives_what_passes_in_turn_give() -> None:
    torch.manual_seed(0)
    network = Nested(nn.InstanceNorm2d(4))
    expected = run_in_turn(calls(network, 1, 3, 2))
    network.passes = 0
    found = run_jointly(calls(network, 1, 3, 2))
    assert network.passes == 1
    torch.testing.assert_close(found, expected)


def test_samples_that_batch_norms_would_mix_stay_apart() -> None:
    network = Nested(nn.BatchNorm2d(4))
    found = run_jointly(calls(network, 2, 2))
    assert network.passes == 2
    torch.testing.assert_close(found, run_in_turn(calls(network, 2, 2)))
    run_jointly(calls(network.eval(), 2, 2))
    assert network.passes == 5  # in eval mode their statistics are fixed
    network = Nested(nn.BatchNorm2d(4, track_running_stats=False)).eval()
    run_jointly(calls(network, 2, 2))
    assert network.passes == 2


def test_images_of_several_sizes_stay_apart() -> None:
    network = Nested(nn.Identity())
    run_jointly([*calls(network, 1, side=8), *calls(network, 1, side=9)])
    assert network.passes == 2


def test_a_spectral_norm_moves_once_in_one_pass() -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 4, 3)
    once, twice = layer.state_dict(), SpectralConv2d(3, 4, 3)
    twice.load_state_dict(once)
    images = torch.randn(2, 1, 3, 8, 8)
    twice(images[0])
    run_jointly([(layer, (x,)) for x in images])
    assert torch.equal(layer.spectral.u, twice.spectral.u)
