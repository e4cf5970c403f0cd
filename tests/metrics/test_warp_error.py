"""The warp error of clips whose motion is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.warp_error import Metric, find_visible, measure_warp_errors
from imagier.nn.optical_flow import find_motion

CPU = torch.device("cpu")


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random image, 3 x H x W in [0.2, 0.8]."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return 0.2 + 0.6 * torch.from_numpy(smooth).permute(2, 0, 1)


def moving(frames: int = 4, size: int = 48, step: tuple[int, int] = (2, 1), seed: int = 0) -> Tensor:
    """1 x T x 3 x size x size: a window that goes over a texture, so that things move left and up."""
    right, down = step
    whole = texture(size + frames * down, size + frames * right, seed)
    return torch.stack([whole[:, t * down :, t * right :][:, :size, :size] for t in range(frames)])[None]


def score(clips: Tensor, **known: Tensor) -> float:
    metric = Metric().fresh(CPU)
    metric.update(clips, known)
    return metric.compute()


def flickering(clips: Tensor, amount: float) -> Tensor:
    signs = torch.tensor([1.0, -1.0]).repeat(clips.shape[1])[: clips.shape[1]]
    return clips + amount * signs.view(-1, 1, 1, 1)


def test_a_clip_that_only_moves_has_no_error() -> None:
    clips = moving()
    squares = (clips[:, 1:] - clips[:, :-1]).square().sum(dim=2).mean().item()
    assert score(clips) < 0.01 * squares
    flow, visible = find_motion(clips[0, 1:], clips[0, :-1])
    assert flow.mean(dim=(0, 2, 3)).tolist() == pytest.approx([2, 1], abs=0.1)
    assert visible.float().mean() > 0.85


def test_a_clip_that_holds_nan_has_no_error_that_looks_good() -> None:
    clips = moving()
    clips[0, 1, :, 20, 20] = torch.nan
    assert math.isnan(score(torch.cat([clips, moving(seed=1)])))


def test_what_moves_to_nowhere_is_not_visible() -> None:
    flow = torch.zeros(1, 2, 16, 16)
    flow[0, :, 3, 4], flow[0, 0, 5, 6] = torch.nan, torch.inf
    expected = torch.ones(1, 16, 16, dtype=torch.bool)
    expected[0, 3, 4] = expected[0, 5, 6] = False
    assert torch.equal(find_visible(flow), expected)
    assert score(moving(2, 16), flow=torch.cat([flow, flow])[None]) > 0


def test_flicker_counts_by_the_square_of_its_size() -> None:
    clips = moving()
    base = score(clips, targets=clips)
    errors = [score(flickering(clips, amount), targets=clips) - base for amount in (0.02, 0.04)]
    expected = [3 * (2 * amount) ** 2 for amount in (0.02, 0.04)]  # three channels; from + to -
    assert errors == pytest.approx(expected, rel=0.02)
    assert score(flickering(clips, 0.04)) > 10 * score(clips)  # with its own motion


def square_clip(frames: int = 3, size: int = 40, side: int = 10, step: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A square that moves to the right over a still ground: clip, exact flow, and which pixels stay visible."""
    ground, square = texture(size, size), texture(side, side, seed=1)
    clip = ground.repeat(frames, 1, 1, 1)
    flow, visible = torch.zeros(frames - 1, 2, size, size), torch.ones(frames - 1, size, size, dtype=torch.bool)
    for t in range(frames):
        left = 8 + step * t
        clip[t, :, 12 : 12 + side, left : left + side] = square
        if t:
            flow[t - 1, 0, 12 : 12 + side, left : left + side] = -step
            visible[t - 1, 12 : 12 + side, left - step : left] = False  # ground that the square hid
    return clip, flow, visible


def whole(flow: Tensor) -> Tensor:
    """1 x T x 2 x H x W, as in a batch: that of the first frame leads nowhere."""
    return torch.cat([torch.full_like(flow[:1], torch.nan), flow])[None]


def test_by_the_exact_flow_a_moving_square_has_no_error_and_hidden_pixels_do_not_count() -> None:
    clip, flow, visible = square_clip()
    assert measure_warp_errors(clip, flow, visible).tolist() == pytest.approx([0, 0], abs=1e-10)
    assert measure_warp_errors(clip, flow, torch.ones_like(visible)).min() > 1e-4
    assert score(clip[None], flow=whole(flow)) == pytest.approx(0, abs=1e-10)
    assert not find_visible(flow)[~visible].any()
    assert find_visible(flow).float().mean() > 0.95
    changed = clip.clone()
    changed[-1, :, 12:22, 11:14] = 0  # what was hidden before
    assert score(changed[None], flow=whole(flow)) == pytest.approx(0, abs=1e-10)


def test_where_the_data_do_not_know_the_flow_nothing_counts() -> None:
    clip, flow, _ = square_clip()
    known = torch.ones(1, 3, 1, *clip.shape[2:])
    changed = clip.clone()
    changed[1:, :, 30:, 30:] = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    known[..., 30:, 30:] = 0
    assert score(changed[None], flow=whole(flow)) > 1e-3
    assert score(changed[None], flow=whole(flow), flow_confidence=known) == pytest.approx(0, abs=1e-10)


def test_the_flow_that_is_found_agrees_with_the_exact_one() -> None:
    clip, flow, visible = square_clip(size=96, side=40, step=2)
    found, seen = find_motion(clip[1:], clip[:-1])
    inside, below = found[..., 22:42, 20:36], found[..., 66:, :]
    assert (inside - torch.tensor([-2.0, 0.0]).view(2, 1, 1)).abs().mean() < 0.1
    assert below.abs().mean() < 0.1
    assert (visible & seen).float().mean() > 0.85
    assert score(clip[None]) < 0.2 * score(clip[None], flow=whole(torch.zeros_like(flow)))


def test_the_error_is_that_of_the_definition() -> None:
    clip = torch.rand(3, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    flow = torch.randint(-2, 3, (2, 2, 9, 11), generator=torch.Generator().manual_seed(1)).float()
    visible = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(2)) < 0.7
    expected = []
    for t in range(2):
        squares = []
        for y in range(9):
            for x in range(11):
                to_x, to_y = x + int(flow[t, 0, y, x]), y + int(flow[t, 1, y, x])
                visible[t, y, x] &= 0 <= to_x < 11 and 0 <= to_y < 9
                if visible[t, y, x]:
                    squares.append(((clip[t + 1, :, y, x] - clip[t, :, to_y, to_x]) ** 2).sum().item())
        expected.append(np.mean(squares))
    assert measure_warp_errors(clip, flow, visible).tolist() == pytest.approx(expected, rel=1e-5)
    assert not find_visible(torch.full((1, 2, 9, 11), 20.0)).any()


def test_batches_and_ranks_do_not_change_the_number() -> None:
    clips = torch.cat([flickering(moving(seed=seed), 0.01 * seed) for seed in range(5)])
    whole, metric = score(clips), Metric()
    for world in (1, 2, 4):
        ranks = [metric.fresh(CPU) for _ in range(world + 1)]  # the last has no share
        for rank, rows in zip(ranks, torch.arange(5).tensor_split(world)):
            for row in rows:
                rank.update(clips[row : row + 1], {})
        states = [list(rank.state.values()) for rank in ranks]
        gathered = iter([torch.stack(values) for values in zip(*states)])
        ranks[0].merge(lambda own, gathered=gathered: next(gathered))
        assert ranks[0].compute() == pytest.approx(whole, rel=1e-12)
    assert math.isnan(metric.fresh(CPU).compute())


def test_clips_of_one_frame_have_no_error_and_small_frames_are_one_line() -> None:
    assert math.isnan(score(moving(frames=1)))
    with pytest.raises(UserError) as error:
        score(moving(size=12))
    assert (error.value.code, error.value.where) == ("small-frames", "warp_error")
