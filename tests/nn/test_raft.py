"""RAFT: against sums written out, another implementation, and the names in the files of its authors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from imagier.nn.raft import LEVELS, RADIUS, Encoder, Raft, build_pyramid, look_up, upsample


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_lookup_is_the_mean_product_of_features_at_each_place_around() -> None:
    """By the definition of the correlation, pixel by pixel, for whole and half places; outside there is nothing."""
    height, width, channels = 8, 9, 5
    features, others = random(2, channels, height, width), random(2, channels, height, width, seed=1)
    places = 4 * random(2, 2, height, width, seed=2)
    places[0] = places[0].round()
    found = look_up(build_pyramid(features, others), places)
    side = 2 * RADIUS + 1
    assert found.shape == (2, LEVELS * side**2, height, width)
    rng = torch.Generator().manual_seed(3)
    for _ in range(300):
        n, level, right, down, y, x = (
            int(torch.randint(end, (), generator=rng)) for end in (2, LEVELS, side, side, height, width)
        )
        size = 2**level
        at_x = places[n, 0, y, x].item() / size + right - RADIUS
        at_y = places[n, 1, y, x].item() / size + down - RADIUS
        expected = 0.0
        for row in (math.floor(at_y), math.floor(at_y) + 1):
            for column in (math.floor(at_x), math.floor(at_x) + 1):
                if 0 <= row < height // size and 0 <= column < width // size:
                    share = (1 - abs(at_y - row)) * (1 - abs(at_x - column))
                    block = others[n, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
                    product = (features[n, :, y, x] @ block.mean(dim=(1, 2))).item()
                    expected += share * product / channels**0.5
        channel = (level * side + right) * side + down
        assert found[n, channel, y, x].item() == pytest.approx(expected, abs=1e-5)


def test_a_vector_at_full_size_is_a_weighted_mean_of_nine_times_eight() -> None:
    flow = random(1, 2, 5, 6)
    logits = torch.full((1, 9, 8, 8, 5, 6), -100.0)
    logits[:, 5, 2, 3] = 100.0  # this pixel of each block of 8 x 8 takes its right neighbor alone
    fine = upsample(flow, logits.flatten(1, 3))
    torch.testing.assert_close(fine[..., 2::8, 3::8][..., :-1], 8 * flow[..., 1:])
    assert not fine[..., 2::8, -5].any()  # beyond the border
    even = upsample(torch.full((1, 2, 5, 6), 1.5), torch.zeros(1, 576, 5, 6))
    assert even.shape == (1, 2, 40, 48) and (even[..., 8:-8, 8:-8] - 12).abs().max() < 1e-4


@pytest.mark.parametrize("norm", [torch.nn.InstanceNorm2d, torch.nn.BatchNorm2d])
def test_features_move_with_what_is_seen(norm: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    encoder = Encoder(16, norm).eval()
    images = torch.zeros(2, 3, 288, 320)  # what is seen is out of reach of the border, as a pixel sees 53 px around it
    images[0, :, 130:150, 130:150] = random(3, 20, 20)
    images[1] = images[0].roll((8, 24), dims=(1, 2))
    with torch.no_grad():
        still, moved = encoder(images)
    assert still.shape == (16, 36, 40)
    torch.testing.assert_close(moved[:, 8:-7, 10:-7], still[:, 7:-8, 7:-10], atol=1e-4, rtol=1e-4)
    assert (moved - still).abs().max() > 0.1


def fill(network: torch.nn.Module) -> None:
    """Weights that are a formula of their names' order."""
    for number, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        index = torch.arange(tensor.numel(), dtype=torch.float64)
        values = torch.sin(0.37 * index**2 + number).view(tensor.shape)
        is_scale = name.endswith(("norm1.weight", "norm2.weight", "downsample.1.weight", "running_var"))
        if tensor.ndim > 1:
            values *= (3 / tensor[0].numel()) ** 0.5
        tensor.copy_(1 + values / 2 if is_scale else values if tensor.ndim > 1 else values / 10)


def test_the_flow_is_that_of_another_implementation() -> None:
    """Recorded with torchvision 0.29.1's raft_large, which has other names, for the same weights."""
    network = Raft().eval()
    fill(network)
    y, x = torch.meshgrid(torch.arange(136.0), torch.arange(128.0), indexing="ij")
    images, others = (
        torch.stack([torch.sin(0.2 * (x - right) + 0.1 * c * (y + up)) for c in range(3)])[None] / 2 + 0.5
        for right, up in ((0, 0), (3, 2))
    )
    with torch.no_grad():
        flow = network(images, others, num_steps=3)
    assert (flow.abs().mean().item(), flow.std().item()) == pytest.approx((10.4901, 9.0899), abs=1e-3)
    recorded = {
        (0, 0): (2.2095, 1.7155),
        (17, 90): (9.2024, -8.8715),
        (64, 64): (16.2788, 12.542),
        (100, 5): (3.467, 1.5863),
        (135, 127): (3.558, 1.3574),
    }
    for (row, column), vector in recorded.items():
        assert flow[0, :, row, column].tolist() == pytest.approx(vector, abs=2e-3)


NAMES = {
    "fnet.conv1.weight": (64, 3, 7, 7),
    "fnet.layer1.1.conv2.weight": (64, 64, 3, 3),
    "fnet.layer2.0.downsample.0.weight": (96, 64, 1, 1),
    "fnet.layer3.0.conv1.weight": (128, 96, 3, 3),
    "fnet.conv2.weight": (256, 128, 1, 1),
    "cnet.norm1.running_mean": (64,),
    "cnet.layer1.0.norm2.weight": (64,),
    "cnet.layer3.0.downsample.1.running_var": (128,),
    "cnet.conv2.bias": (256,),
    "update_block.encoder.convc1.weight": (256, 324, 1, 1),
    "update_block.encoder.convc2.weight": (192, 256, 3, 3),
    "update_block.encoder.convf1.weight": (128, 2, 7, 7),
    "update_block.encoder.convf2.weight": (64, 128, 3, 3),
    "update_block.encoder.conv.weight": (126, 256, 3, 3),
    "update_block.gru.convz1.weight": (128, 384, 1, 5),
    "update_block.gru.convr2.weight": (128, 384, 5, 1),
    "update_block.gru.convq2.bias": (128,),
    "update_block.flow_head.conv1.weight": (256, 128, 3, 3),
    "update_block.flow_head.conv2.weight": (2, 256, 3, 3),
    "update_block.mask.0.weight": (256, 128, 3, 3),
    "update_block.mask.2.weight": (576, 256, 1, 1),
}
"""Of raft-things.pth, after "module."; it also holds norm3 of the blocks, which is downsample.1 once more."""


def test_weights_have_the_names_and_shapes_of_the_files_of_its_authors() -> None:
    state = Raft().state_dict()
    assert {name: tuple(state[name].shape) for name in NAMES} == NAMES
    assert not any(name.startswith("fnet") and "norm" in name for name in state)
    assert sum(parameter.numel() for parameter in Raft().parameters()) == 5_257_536  # 5.3M in table 3 of the paper
