"""Losses of a flow and of what it moves, and the motion between real frames that they are compared with.

Wang et al., Video-to-Video Synthesis, 2018, eq. 5, and few-shot vid2vid (2019). Flow is as in nn/warp.py.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from imagier.nn.warp import warp

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""Frames N x C x H x W in [-1, 1], and the ones before them -> flow N x 2 x H x W from each to the one before."""

_CONFIDENT = 0.02
"""Squared difference of a pixel from where it comes from, summed over channels, below which a flow is believed."""


def masked_l1(x: Tensor, y: Tensor | float, mask: Tensor) -> Tensor:
    """Mean over all elements of |x - y| where the mask is 1, of shapes that broadcast to that of x -> scalar."""
    return ((x.float() - y) * mask).abs().mean()


def measure_confidence(frame: Tensor, before: Tensor, flow: Tensor) -> Tensor:
    """Where a flow leads to what is seen: 1 or 0, N x 1 x H x W; frames N x C x H x W in [-1, 1]."""
    error = (frame.float() - warp(before, flow)).square().sum(dim=1, keepdim=True)
    return (error < _CONFIDENT).float()


def mask_loss(mask: Tensor, warped: Tensor, target: Tensor) -> Tensor:
    """Should a pixel be painted (1) or warped (0)? Warped the more, the nearer it comes to the target -> scalar.

    mask: N x 1 x H x W in [0, 1]. warped, target: N x C x H x W in [-1, 1]. Gradients reach the warped image, too.
    """
    good = (1 - (warped - target).abs().sum(dim=1, keepdim=True)).clamp(0, 1)
    return masked_l1(mask, 0.0, good) + masked_l1(mask, 1.0, 1 - good)


@torch.no_grad()
def estimate_flow_by_dis(frames: Tensor, before: Tensor) -> Tensor:
    """As OpenCV's DIS finds it, on the CPU (Kroeger et al. 2016): a `FlowEstimator`. Sides of 16 px or more."""
    grays = [_gray(x) for x in (frames, before)]
    flows = [_search(to, source) for to, source in zip(*grays)]
    return torch.from_numpy(np.stack(flows)).movedim(-1, 1).to(frames.device)


def _gray(frames: Tensor) -> list[np.ndarray]:
    """N x C x H x W in [-1, 1] -> H x W each, uint8."""
    rgb = frames.detach().float()[:, :3].expand(-1, 3, -1, -1)
    stored = ((rgb + 1) * 127.5).nan_to_num().clamp(0, 255).round().byte().movedim(1, -1).cpu().numpy()
    return [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in stored]


def _search(to: np.ndarray, source: np.ndarray) -> np.ndarray:
    """H x W -> H x W x 2."""
    start = np.zeros((*to.shape, 2), np.float32)
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(to, source, start)
