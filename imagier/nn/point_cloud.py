"""Colors of points in the world, so that a video shows a place again as it did before (Mallya et al. 2020).

World-Consistent Video-to-Video Synthesis, section 3.1. An image of points has the number of the point that each pixel
shows: N x 1 x H x W, int64, from 1 to 2^48; 0 where none is known.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NUMBERS = 1 << 49
_NO_POINT = (1 << 63) - 1


class PointCloud(NamedTuple):
    """The points that have a color, of all samples of a batch. A color never changes."""

    points: Tensor
    """P, int64, ascending: the number of a point plus 2^49 times that of its sample. Of equal ones the first counts;
    those of the largest number are no points."""
    colors: Tensor
    """P x 3, uint8."""


def empty_cloud(device: torch.device) -> PointCloud:
    """One without points."""
    return PointCloud(
        torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, 3, dtype=torch.uint8, device=device)
    )


def render(cloud: PointCloud, points: Tensor) -> Tensor:
    """What is known of how an image of points looks: N x 4 x H x W, colors in [-1, 1], and 1 where there is one.

    Elsewhere black, and 0.
    """
    ids = _derive_ids(points)
    is_known, index = _find(cloud, ids)
    colors = ids.new_zeros(*ids.shape, 3, dtype=torch.uint8)
    if len(cloud.points):
        colors = cloud.colors[index].where(is_known[..., None], colors)
    image = (colors.movedim(-1, 1).float() / 255 - 0.5) * 2
    return torch.cat([image, is_known[:, None].to(image.dtype)], dim=1)


def paint(cloud: PointCloud, points: Tensor, images: Tensor) -> PointCloud:
    """The cloud with colors for all points that had none and are seen in an image N x 3 x H x W in [-1, 1].

    A point that several pixels show gets the color of the last of them, row by row. The cloud grows by as many entries
    as there are pixels: to ask how many are new would be to wait for the device. See `compact`.
    """
    ids = _derive_ids(points)
    is_new = (points[:, 0] > 0) & ~_find(cloud, ids)[0]
    stored = ((images.detach().float() + 1) / 2 * 255).nan_to_num().clamp(0, 255).to(torch.uint8)  # cut, as before
    latest_first = ids.where(is_new, _NO_POINT).flatten().flip(0)
    found, order = torch.cat([cloud.points, latest_first]).sort(stable=True)
    colors = torch.cat([cloud.colors, stored.movedim(1, -1).flatten(0, 2).flip(0)])
    return PointCloud(found, colors[order])


def compact(cloud: PointCloud) -> PointCloud:
    """The same cloud with each point once, in the memory that it needs; waits for the device."""
    is_first = torch.ones_like(cloud.points, dtype=torch.bool)
    is_first[1:] = cloud.points[1:] != cloud.points[:-1]
    is_first &= cloud.points != _NO_POINT
    return PointCloud(cloud.points[is_first], cloud.colors[is_first])


def _derive_ids(points: Tensor) -> Tensor:
    """N x 1 x H x W -> N x H x W: numbers that differ between samples."""
    sample = torch.arange(len(points), device=points.device)[:, None, None]
    return points[:, 0] + sample * _NUMBERS


def _find(cloud: PointCloud, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels show a point with a color, and its index in the cloud, N x H x W each."""
    if not len(cloud.points):
        return torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids)
    index = torch.searchsorted(cloud.points, ids).clamp(max=len(cloud.points) - 1)
    return cloud.points[index] == ids, index
