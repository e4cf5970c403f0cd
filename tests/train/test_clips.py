"""Clips frame by frame: neither batches nor a new beginning in the middle change what is generated and scored."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagier.metrics import fvd, l1, psnr, warp_error
from imagier.recipe import Batch, Position, Recipe, State
from imagier.train.clips import FrameJoiner, roll_out
from imagier.train.hooks.evaluation import Evaluation
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.scoring import GENERATOR, REAL, Scorer
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View

CPU = Runtime(torch.device("cpu"))
LENGTHS = {"a": 5, "b/c": 1, "d": 34}
SIDE = 16


class Summing(Recipe):
    """The mean of a frame and of what was made before it, with some noise."""

    players = ("gen",)
    is_video = True

    def __init__(self, noise: float = 0.1) -> None:
        self.gen = nn.Conv2d(3, 3, 1)  # unused
        self.noise = noise

    def step(self, batch: Batch, ctx: object) -> Iterator[Any]:
        raise NotImplementedError

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        raise AssertionError("clips are rolled out")

    def rollout(
        self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None
    ) -> Iterator[tuple[dict[str, Tensor], State]]:
        for frame in frames:
            image = frame["images"][:, -1]
            made = image if state is None else (image + state["image"]) / 2
            made = (made + self.noise * torch.randn(made.shape, generator=rng)).clamp(-1, 1)
            state = {"image": made}
            yield {"fake_images": made}, state

    def target(self, batch: Batch) -> Tensor:
        return batch["images"][:, -1]


def frame(sequence: str, t: int) -> Tensor:
    seed = 100 * list(LENGTHS).index(sequence) + t
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batches(size: int, sequences: Sequence[str] = tuple(LENGTHS), **others: Tensor) -> Iterator[Batch]:
    """Frames in order, so many together; those of a sequence alone, as loaders give them."""
    for sequence in sequences:
        for start in range(0, LENGTHS[sequence], size):
            places = range(start, min(start + size, LENGTHS[sequence]))
            images = torch.stack([frame(sequence, t) for t in places])
            more = {name: value[None, None].expand(len(places), 1, *value.shape) for name, value in others.items()}
            yield Batch({"images": images, **more}, {"images": [f"{sequence}/{t:03d}" for t in places]})


def scores(scorer: Scorer, recipe: Recipe, size: int, **others: Tensor) -> dict[str, float]:
    make = scorer.generate({GENERATOR: recipe}, 0)
    return scorer.score(scorer.measure(recipe, batches(size, **others), make))[GENERATOR]


def test_every_frame_of_whole_clips_is_scored_however_they_are_batched() -> None:
    recipe = Summing()
    expected = []
    for sequence, length in LENGTHS.items():
        frames = (batch for batch in batches(1, [sequence]))
        seeds = iter(range(length))
        made = [
            (outputs["fake_images"] - frame["images"][:, 0]).abs().mean() / 2
            for frame, outputs, _ in roll_out(Summing(0.0), frames, lambda _, seeds=seeds: [next(seeds)], CPU)
        ]
        expected += made
    scorer = Scorer([l1.Metric()], CPU)
    assert scores(scorer, Summing(0.0), 1)["L1"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    found = [scores(Scorer([l1.Metric(), psnr.Metric(), warp_error.Metric()], CPU), recipe, n) for n in (1, 3, 50)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)
    assert all(math.isfinite(value) for value in found[0].values())


def test_the_warp_error_is_that_of_whole_clips_with_the_flow_of_the_data() -> None:
    flow = torch.zeros(2, SIDE, SIDE)
    recipe = Summing(0.0)
    metric = warp_error.Metric().fresh(torch.device("cpu"))
    for sequence, length in LENGTHS.items():
        made = [
            outputs["fake_images"] for _, outputs, _ in roll_out(recipe, batches(1, [sequence]), lambda _: [0], CPU)
        ]
        clip = (torch.stack(made, dim=1) + 1) / 2
        metric.update(clip, {"flow": flow.expand(1, length, *flow.shape)})
    scorer = Scorer([warp_error.Metric()], CPU)
    assert scores(scorer, recipe, 3, flow=flow)["warp error"] == pytest.approx(metric.compute(), rel=1e-6)
    baselines = scorer.measure_baselines(recipe, lambda: batches(3, flow=flow), lambda: batches(3))
    generated = scorer.measure(recipe, batches(3, flow=flow), scorer.generate({GENERATOR: recipe}, 0))[GENERATOR]
    table = scorer.score_baselines(baselines, generated, 0)
    assert table[REAL]["warp error"] > 2 * generated.values["warp error"]  # the images are noise
    assert "warp error" not in table["mean color"]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_clips_are_compared_as_sets_in_parts_of_16_frames(size: int) -> None:
    scorer = Scorer([fvd.Metric(features="feature_code:first_and_last_colors")], CPU)
    recipe = Summing()
    measured = scorer.measure(recipe, batches(size), scorer.generate({GENERATOR: recipe}, 0))[GENERATOR]
    (real,) = (scorer.real or {}).values()
    (generated,) = measured.sets.values()
    expected = [(torch.cat([frame("d", 16 * part), frame("d", 16 * part + 15)]) + 1) / 2 for part in range(2)]
    wanted = torch.stack([part.mean(dim=(2, 3)).flatten() for part in expected])
    assert torch.allclose(real.features.sort(dim=0).values, wanted.sort(dim=0).values, atol=2e-3)
    assert len(generated) == 2 and not torch.allclose(real.features, generated.features, atol=1e-3)


@pytest.mark.parametrize(("sequences", "count"), [(["a", "b/c"], 0), (["a", "d"], 2)])
def test_a_score_of_clips_that_is_none_as_sequences_are_too_short_is_named(
    sequences: list[str], count: int, caplog: pytest.LogCaptureFixture
) -> None:
    player = Player(nn.Conv2d(3, 3, 1), torch.optim.SGD([torch.zeros(1)]), CPU, schedule=float, by_iteration=True)
    hook = Evaluation(
        lambda: batches(3, sequences),
        None,
        View(lambda recipe: nullcontext()),
        lambda record: None,
        scorer=Scorer([l1.Metric(), fvd.Metric(features="feature_code:first_and_last_colors")], CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    trainer = Trainer(Summing(), {"gen": player}, CPU, seed=0)
    for step in (1, 2):
        hook.after_step(trainer, Progress(step, Position(0, step), False, Outcome.DONE, []))
    messages = [message for message in caplog.messages if "FVD" in message]
    assert len(messages) == (1 if count == 0 else 0)
    assert all("16 frames" in message for message in messages)
    assert math.isfinite(hook.last[GENERATOR]["L1"])
    assert math.isfinite(hook.last[GENERATOR].get("FVD-first_and_last_colors", math.nan)) == (count == 2)


def test_frames_are_joined_to_clips_of_their_sequences() -> None:
    def seen(joiner: FrameJoiner, size: int) -> list[list[int]]:
        clips = []
        for batch in batches(size):
            numbers = torch.tensor([int(key[-3:]) for key in batch.keys["images"]])
            clips += [clip["t"][0].tolist() for clip in joiner.add(batch, {"t": numbers})]
        return clips

    assert seen(FrameJoiner(3), 2) == [[0, 1, 2], *([t, t + 1, t + 2] for t in range(0, 33, 3))]
    assert seen(FrameJoiner(), 2)[:3] == [[0, 1], [1, 2, 3], [3, 4]]
    assert seen(FrameJoiner(), 50) == [[0, 1, 2, 3, 4], list(range(34))]


@pytest.mark.parametrize("size", [1, 2, 9])
def test_frames_on_both_sides_of_a_broken_one_are_not_joined(size: int) -> None:
    numbers = torch.tensor([0, 1, 2, 4, 5, 6, 7, 9])
    joiner, seen = FrameJoiner(), []
    for part in numbers.split(size):
        batch = Batch({"frame": part}, {"images": [f"a/{number}" for number in part]})
        seen += [pair for clip in joiner.add(batch, {"t": part}) for pair in pairwise(clip["t"][0].tolist())]
    assert seen == [(0, 1), (1, 2), (4, 5), (5, 6), (6, 7)]


def test_noise_follows_from_a_frame_alone() -> None:
    def made(start: int, state: State | None) -> list[tuple[Tensor, State]]:
        frames = list(batches(1, ["a"]))[start:]
        found = roll_out(Summing(), frames, lambda f: [int(f.keys["images"][0][-3:])], CPU, state)
        return [(outputs["fake_images"], after) for _, outputs, after in found]

    whole = made(0, None)
    again = made(2, whole[1][1])
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole[2:], again, strict=True))


def test_a_rollout_keeps_no_frame_longer_than_it_needs() -> None:
    alive: list[weakref.ref[Batch]] = []

    def frames() -> Iterator[Batch]:
        for batch in batches(1, ["d"]):
            alive.append(weakref.ref(batch))
            yield batch

    for _ in roll_out(Summing(), frames(), lambda _: [0], CPU):
        assert sum(reference() is not None for reference in alive) <= 2
    assert len(alive) == LENGTHS["d"]
