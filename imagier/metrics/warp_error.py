"""Warp error: how much a clip flickers where it only moves (Lai et al. 2018, Blind video temporal consistency)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.metric import Metric as BaseMetric
from imagier.nn.optical_flow import find_motion
from imagier.nn.warp import list_places, stays_inside, warp

_TOO_MANY = 1.5
"""Pixels that move to one place, counted with the weights of bilinear sampling: some of them must be hidden there."""


class Metric(BaseMetric):
    """Squared difference of a pixel from where it was in the frame before, summed over channels in [0, 1].

    The mean over all pixels that were visible there, then over all pairs of consecutive frames (Lai et al. 2018,
    section 4, who look at the next frame: here flow leads to the frame before, as in the data).
    A clip that does not move at all has none, so compare it with that of real clips. The motion is the exact one where
    the data know it, else that of the real clip, else of the clip itself, as OpenCV's DIS finds it.
    """

    name = "warp error"
    takes_clips = True
    needs = ()
    uses = ("targets", "flow", "flow_confidence")

    def reset(self, device: torch.device) -> None:
        self.state = {name: torch.zeros((), dtype=torch.float64, device=device) for name in ("sum", "count")}

    def update(self, images: Tensor, known: Mapping[str, Tensor]) -> None:
        """images: N x T x 3 x H x W in [0, 1]. known: `targets`, `flow` and its confidence, where they are known."""
        for index, clip in enumerate(images.float() if images.shape[1] > 1 else ()):
            if "flow" in known:
                flow = known["flow"][index, 1:].float()
                visible = find_visible(flow)
                if "flow_confidence" in known:
                    visible &= known["flow_confidence"][index, 1:, 0] > 0
            else:
                flow, visible = _find_motion(known["targets"][index] if "targets" in known else clip)
            errors = measure_warp_errors(clip, flow.to(clip), visible.to(clip.device))
            counted = errors[visible.flatten(1).any(dim=1).to(errors.device)]  # NaN of a clip makes the mean NaN
            self.state["sum"] = self.state["sum"] + counted.sum()
            self.state["count"] = self.state["count"] + len(counted)

    def compute(self) -> float:
        count = self.state["count"].item()
        return self.state["sum"].item() / count if count else math.nan


def measure_warp_errors(clip: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """The error of each frame but the first (Lai et al. 2018, section 4); NaN if no pixel was visible before.

    clip: T x 3 x H x W. flow: (T - 1) x 2 x H x W, in pixels, to the frame before. visible: (T - 1) x H x W, bool.
    -> T - 1, float64
    """
    squares = (clip[1:] - warp(clip[:-1], flow)).double().square().sum(dim=1)
    return torch.where(visible, squares, 0.0).sum(dim=(1, 2)) / visible.sum(dim=(1, 2))


def find_visible(flow: Tensor) -> Tensor:
    """Which pixels are visible where an exact flow leads: those that are alone there, inside the frame.

    flow: T x 2 x H x W, in pixels; where it is not finite, nothing is visible. -> T x H x W, bool
    """
    flow = torch.where(flow.isfinite(), flow, 2 * max(flow.shape[2:]))  # leaves the frame
    count, _, height, width = flow.shape
    places = list_places(flow)
    weights = torch.zeros(count, (height + 2) * (width + 2), dtype=flow.dtype, device=flow.device)
    corners = places.floor()
    for down in (0, 1):
        for right in (0, 1):
            x, y = corners[:, 0] + right, corners[:, 1] + down
            share = (1 - (places[:, 0] - x).abs()) * (1 - (places[:, 1] - y).abs())
            index = (y.clamp(-1, height) + 1) * (width + 2) + x.clamp(-1, width) + 1  # with a border of one pixel
            weights.scatter_add_(1, index.long().flatten(1), share.flatten(1))
    hits = weights.view(count, 1, height + 2, width + 2)[:, :, 1:-1, 1:-1]
    return (warp(hits, flow)[:, 0] <= _TOO_MANY) & stays_inside(flow)


def _find_motion(clip: Tensor) -> tuple[Tensor, Tensor]:
    """Flow to the frame before by DIS, and which pixels were visible there, of a clip T x 3 x H x W in [0, 1]."""
    try:
        return find_motion(clip[1:], clip[:-1])
    except UserError as error:
        raise error.at("warp_error") from error
