"""The motion between two images, without a network, and where it can be trusted. Flow is as in nn/warp.py."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.warp import stays_inside, warp

FindFlow = Callable[[Tensor, Tensor], Tensor]
"""Images N x 3 x H x W in [0, 1] -> flow N x 2 x H x W from those of the first argument to those of the second."""

SMALLEST_PX = 16
"""Sides of images that DIS needs."""


@torch.no_grad()
def find_flow_by_dis(images: Tensor, others: Tensor) -> Tensor:
    """OpenCV's DIS (Kroeger et al. 2016, Fast optical flow using dense inverse search): a `FindFlow`, on the CPU.

    Whatever is not finite counts as black. UserError: sides of less than 16 px.
    """
    height, width = images.shape[2:]
    if min(height, width) < SMALLEST_PX:
        what = f"frames of {width} x {height} px are too small to find motion in"
        raise UserError(what, advice=f"use {SMALLEST_PX} px or more", code="small-frames")
    flows = [_search(image, other) for image, other in zip(_to_gray(images), _to_gray(others))]
    return torch.from_numpy(np.stack(flows)).movedim(-1, 1).to(images.device)


def find_motion(images: Tensor, others: Tensor, find_flow: FindFlow = find_flow_by_dis) -> tuple[Tensor, Tensor]:
    """Flow from images to others, N x 2 x H x W, and which pixels are visible there, N x H x W, bool.

    A pixel is hidden if the flow back does not lead home (Ruder et al. 2016, eq. 5), or if it leaves the image.
    """
    forward, backward = find_flow(images, others), find_flow(others, images)
    back = warp(backward, forward)
    length = forward.square().sum(dim=1) + back.square().sum(dim=1)
    leads_home = (forward + back).square().sum(dim=1) <= 0.01 * length + 0.5
    return forward, leads_home & stays_inside(forward)


def _to_gray(images: Tensor) -> list[np.ndarray]:
    """N x 3 x H x W in [0, 1] -> H x W each, uint8."""
    stored = (images.detach().float().nan_to_num().clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
    return [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in stored]


def _search(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """H x W, uint8 -> H x W x 2."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)  # down to single pixels: half of the error in frames of 96 px (docs/data.md)
    return search.calc(image, other, np.zeros((*image.shape, 2), np.float32))
