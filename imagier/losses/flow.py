"""Losses of a flow and of what it moves, and the motion between real frames that they are compared with.

Wang et al., Video-to-Video Synthesis, 2018, eq. 5, and few-shot vid2vid (2019). Flow is as in nn/warp.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from imagier.errors import UserError
from imagier.losses.pixel import l1
from imagier.nn.optical_flow import find_flow_by_dis
from imagier.nn.warp import warp

logger = logging.getLogger(__name__)

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


def check_flow(tensors: Mapping[str, Tensor]) -> None:
    """UserError if the `flow` of a batch, if it has any, is not one of vectors."""
    if "flow" in tensors and tensors["flow"].shape[-3] != 2:
        raise UserError("holds no flow", where="data.input_types: flow", advice="add type: flow", code="not-flow")


def mask_loss(mask: Tensor, warped: Tensor, target: Tensor) -> Tensor:
    """Should a pixel be painted (1) or warped (0)? Warped the more, the nearer it comes to the target -> scalar.

    mask: N x 1 x H x W in [0, 1]. warped, target: N x C x H x W in [-1, 1]. Gradients reach the warped image, too.
    """
    good = (1 - (warped - target).abs().sum(dim=1, keepdim=True)).clamp(0, 1)
    return masked_l1(mask, 0.0, good) + masked_l1(mask, 1.0, 1 - good)


def motion_losses(moved: Sequence[Tensor], target: Tensor, flow: Tensor, trusted: Tensor) -> dict[str, Tensor]:
    """The losses of an image that a network moves, by name -> scalars.

    moved: its flow N x 2 x H x W, its mask N x 1 x H x W in [0, 1], and the warped image. target: how that should look,
    N x C x H x W in [-1, 1]. flow: the real one, and where it is right, N x 1 x H x W, 1 or 0.
    """
    found, mask, warped = moved
    return {
        "flow/l1": masked_l1(found, flow, trusted),
        "flow/warp": l1(warped, target),
        "flow/mask": mask_loss(mask.float(), warped, target),
    }


class OnlineDis:
    """A `FlowEstimator`: OpenCV's DIS, on the CPU, in every step. The first call logs what that costs."""

    def __init__(self) -> None:
        self.is_first = True

    def __call__(self, frames: Tensor, before: Tensor) -> Tensor:
        start = time.perf_counter()
        flow = find_flow_by_dis(*(_to_light(each) for each in (frames, before)))
        if self.is_first:
            self.is_first, ms = False, 1000 * (time.perf_counter() - start) / len(frames)
            logger.info(
                f"flow: where data have none, OpenCV's DIS finds it in every step, on the CPU ({ms:.0f} ms a frame); "
                "`imagier data build flow` finds it once"
            )
        return flow


def _to_light(frames: Tensor) -> Tensor:
    """N x C x H x W in [-1, 1] -> N x 3 x H x W in [0, 1]."""
    return (frames.float()[:, :3].expand(-1, 3, -1, -1) + 1) / 2
