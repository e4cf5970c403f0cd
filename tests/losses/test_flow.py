"""Losses of the flow by hand, and motion that is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from logs import logged
from torch import Tensor

from imagier.losses.flow import OnlineDis, mask_loss, masked_l1, measure_confidence
from imagier.nn.warp import warp


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """A frame, and the one before it, in which everything lay 3 px further left and 2 px further down."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.random((24, 24, 3), np.float32), (112, 112), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    whole = torch.from_numpy(scene).permute(2, 0, 1)[None] * 2 - 1
    return whole[..., 10:90, 10:90], whole[..., 8:88, 13:93]


def test_a_masked_difference_is_a_mean_over_all_elements() -> None:
    x, y = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1, 1, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    assert masked_l1(x, y, mask).item() == pytest.approx((1 + 4 * 0.5) / 4)
    both = torch.cat([x, x], dim=1)
    assert masked_l1(both, 0.0, mask).item() == pytest.approx((1 + 2) * 2 / 8)  # one mask for both channels


def test_the_mask_should_paint_just_where_the_warped_frame_is_wrong() -> None:
    target = torch.zeros(1, 3, 4, 4)
    warped = target.clone()
    warped[..., :2] = 1  # wrong by 3, summed over channels: clamped to fully wrong
    right = torch.zeros(1, 1, 4, 4)
    right[..., :2] = 1
    assert mask_loss(right, warped, target).item() == 0
    assert mask_loss(1 - right, warped, target).item() == 1
    assert mask_loss(torch.full_like(right, 0.25), target + 0.1, target).item() == pytest.approx(
        0.25 * 0.7 + 0.75 * 0.3, abs=1e-6
    )


def test_the_mask_loss_teaches_the_warped_frame_too() -> None:
    warped = torch.full((1, 3, 4, 4), 0.1, requires_grad=True)
    mask_loss(torch.full((1, 1, 4, 4), 0.25), warped, torch.zeros(1, 3, 4, 4)).backward()
    assert warped.grad is not None and warped.grad.abs().sum() > 0


def test_motion_between_frames_is_found_and_leads_from_one_to_the_other(pair: tuple[Tensor, Tensor]) -> None:
    frame, before = pair
    estimate = OnlineDis()
    with logged() as lines:
        flow = estimate(frame, before)[..., 10:-10, 10:-10]
        assert torch.equal(estimate(frame, before)[..., 10:-10, 10:-10], flow)
    assert len(lines) == 1 and "imagier data build flow" in lines[0]  # once, however often it is asked
    assert flow.shape == (1, 2, 60, 60)
    # frame(x, y) is the scene at (x + 10, y + 10), before(x, y) at (x + 13, y + 8): frame(x, y) = before(x - 3, y + 2)
    assert (flow[:, 0] + 3).abs().mean() < 0.3 and (flow[:, 1] - 2).abs().mean() < 0.3


def test_a_flow_is_believed_where_it_leads_to_what_is_seen(pair: tuple[Tensor, Tensor]) -> None:
    frame, before = pair
    right = torch.tensor([-3.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 80, 80)
    sure = measure_confidence(frame, before, right)
    assert sure.shape == (1, 1, 80, 80) and set(sure.unique().tolist()) <= {0, 1}
    assert sure[..., :-2, 3:].min() == 1
    assert measure_confidence(frame, before, -right).mean() < 0.5
    assert (warp(before, right) - frame)[..., :-2, 3:].abs().max() < 1e-5
