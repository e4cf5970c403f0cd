"""Partial convolutions, and norms that they modulate, against the paper's formula pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.conv import conv2d
from imagier.nn.norm import MaskedSpatiallyAdaptiveNorm, MultiSpatiallyAdaptiveNorm, PartialMap
from imagier.nn.partial_conv import partial_conv


def by_hand(conv: nn.Conv2d, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Liu et al. 2018, eq. 1 and 2, in loops."""
    size, reach = conv.kernel_size[0], conv.kernel_size[0] // 2
    height, width = x.shape[-2:]
    out, known = torch.zeros(1, conv.out_channels, height, width), torch.zeros(1, 1, height, width)
    assert conv.bias is not None
    for row in range(height):
        for column in range(width):
            total, count = torch.zeros(conv.out_channels), 0
            for i in range(size):
                for j in range(size):
                    y, z = row + i - reach, column + j - reach
                    if 0 <= y < height and 0 <= z < width and mask[0, 0, y, z]:
                        total += conv.weight[:, :, i, j] @ x[0, :, y, z]
                        count += 1
            if count:
                out[0, :, row, column] = total * size**2 / count + conv.bias
                known[0, 0, row, column] = 1
    return out, known


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("norm", ["none", "spectral"])
@torch.no_grad()
def test_known_pixels_alone_count_each_the_more_the_fewer_they_are(size: int, norm: str) -> None:
    torch.manual_seed(0)
    conv = conv2d(2, 3, size, padding=size // 2, weight_norm=norm).eval()  # type: ignore[arg-type]
    x, mask = torch.randn(1, 2, 6, 5), (torch.rand(1, 1, 6, 5) < 0.2).float()
    plain = conv.fold() if norm == "spectral" else conv  # type: ignore[operator]
    for ours, expected in zip(partial_conv(conv, x, mask), by_hand(plain, x, mask)):
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)
    assert 0 < mask.sum() < 15


@torch.no_grad()
def test_a_masked_map_leaves_x_as_it_is_where_it_is_not_known_and_is_plain_where_it_is() -> None:
    torch.manual_seed(0)
    norm = MaskedSpatiallyAdaptiveNorm(4, 3, num_filters=0, kernel_size=1, weight_norm="none")
    x, colors = torch.randn(1, 4, 6, 6), torch.randn(1, 3, 6, 6)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :3] = 1
    out = norm(x, PartialMap(torch.cat([colors, mask], dim=1), None))
    assert torch.equal(out[..., 3:], x[..., 3:])
    gamma, beta = norm.mlp[0](colors).chunk(2, dim=1)
    torch.testing.assert_close(out[..., :3], (x * (1 + gamma) + beta)[..., :3], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_hidden_layer_sees_where_the_map_was_known() -> None:
    torch.manual_seed(0)
    norm = MaskedSpatiallyAdaptiveNorm(4, 3, num_filters=5, kernel_size=3, weight_norm="none")
    x, condition = torch.randn(1, 4, 9, 9), torch.zeros(1, 4, 9, 9)
    condition[..., 4, 4] = torch.tensor([1.0, 2.0, 3.0, 1.0])
    changed = (norm(x, PartialMap(condition, None)) != x).any(dim=1)[0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True  # two kernels of 3 x 3
    assert torch.equal(changed, expected)


def test_each_map_has_a_width_of_its_own() -> None:
    norm = MultiSpatiallyAdaptiveNorm(
        4, [2, 2, 3], norm=nn.Identity(), num_filters=[0, 7, 5], kernel_size=1, is_masked=[False, False, True]
    )
    assert [len(each.mlp) for each in norm.of_map] == [1, 3, 3]  # type: ignore[arg-type]
    shapes = {name: tuple(tensor.shape) for name, tensor in norm.state_dict().items() if name.endswith("weight")}
    assert shapes["of_map.1.mlp.0.weight"] == (7, 2, 1, 1) and shapes["of_map.2.mlp.0.weight"] == (5, 3, 1, 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"num_filters": [0]}, "too-few-widths"), ({"separate_projection": True}, "not-supported")],
    ids=["widths", "projection"],
)
def test_maps_that_cannot_modulate_are_the_users_mistake(options: dict, code: str) -> None:
    with pytest.raises(UserError) as caught:
        MultiSpatiallyAdaptiveNorm(4, [2, 3], norm=nn.Identity(), is_masked=[False, True], **options)
    assert caught.value.code == code
