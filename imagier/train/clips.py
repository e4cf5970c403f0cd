"""Clips frame by frame: generated in order, with noise of their own, and joined again for those who look at clips."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from imagier.recipe import Batch, Recipe, State
from imagier.train.runtime import Runtime


def roll_out(
    recipe: Recipe,
    frames: Iterable[Batch],
    seed: Callable[[Batch], Sequence[int]],
    runtime: Runtime,
    state: State | None = None,
) -> Iterator[tuple[Batch, dict[str, Tensor], State]]:
    """Each of the prepared frames of clips, what `Recipe.rollout` generates for it, and the state after it.

    All that is random in a frame follows from the numbers that `seed` gives for it, whatever the rank.
    """
    same, waiting = replace(runtime, rank=0), deque[Batch]()
    rng = same.generator(0)
    rollout = recipe.rollout(iter(waiting.popleft, None), rng, state)
    for frame in frames:
        waiting.append(frame)
        numbers = seed(frame)
        same.seed(*numbers)  # for layers that draw noise of their own
        same.reseed(rng, *numbers)
        with torch.no_grad(), runtime.autocast():
            outputs, state = next(rollout)
        yield frame, outputs, state


def name_sequence(frame: Batch) -> str:
    """The sequence of the first sample, by its file "sequence/name"."""
    return next(iter(frame.keys.values()))[0].rpartition("/")[0]


def get_number(frame: Batch) -> int | None:
    """The number of the first sample in its sequence; None if the data set gives none."""
    return int(frame["frame"][0]) if "frame" in frame else None


def group_by_sequence(batch: Batch) -> list[tuple[str, list[Batch]]]:
    """The samples of a batch, one at a time, where they are frames: those of each sequence that come together.

    Those behind a frame that was broken and skipped are by themselves, where frames have numbers.
    """

    def find_run(each: tuple[int, Batch]) -> tuple[str, int | None]:
        index, frame = each
        number = get_number(frame)
        return name_sequence(frame), None if number is None else number - index

    runs = groupby(enumerate(batch.split(len(batch))), key=find_run)
    return [(name, [frame for _, frame in run]) for (name, _), run in runs]


class Rollout:
    """Generates the frames of batches that come in order, each going on where the one before ended."""

    def __init__(self, recipe: Recipe, seed: Callable[[Batch], Sequence[int]], runtime: Runtime) -> None:
        """seed: as of `roll_out`."""
        self.recipe = recipe
        self.seed = seed
        self.runtime = runtime
        self._last: tuple[str, State] | None = None
        """The sequence of the last frame, and the state after it."""

    def __call__(self, batch: Batch) -> Tensor:
        """N x 3 x H x W in [-1, 1] for a prepared batch, whose samples are frames in order."""
        made = []
        for sequence, frames in group_by_sequence(batch):
            before = self._last[1] if self._last is not None and self._last[0] == sequence else None
            for _, outputs, state in roll_out(self.recipe, frames, self.seed, self.runtime, before):
                made.append(self.recipe.visualize_frame(outputs)["fake"])
                self._last = sequence, state
        return torch.cat(made)


class FrameJoiner:
    """Joins frames that come one after the other into clips of the sequences that they belong to."""

    def __init__(self, length: int | None = None) -> None:
        """length: of the clips, which then have no frame in common; what is left over of a sequence is dropped.

        None: a clip holds all frames that come together, after the last one before them.
        """
        self.length = length
        self._next: tuple[str, int | None] | None = None
        """The sequence and the number of the frame that follows."""
        self._waiting: dict[str, Tensor] = {}

    def add(self, batch: Batch, values: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The clips that are complete with the frames of a batch, 1 x T x ... for the values N x ... of each frame."""
        clips: list[dict[str, Tensor]] = []
        start = 0
        for sequence, frames in group_by_sequence(batch):
            part = {name: value[start : start + len(frames)] for name, value in values.items()}
            start += len(frames)
            first = get_number(frames[0])
            if (sequence, first) == self._next:
                part = {name: torch.cat([self._waiting[name], value]) for name, value in part.items()}
            count = len(next(iter(part.values())))
            step = self.length or count
            whole = count - count % step
            if whole > 1:
                clips += [{n: v[None, at : at + step] for n, v in part.items()} for at in range(0, whole, step)]
            kept = whole if self.length else count - 1
            self._next = sequence, None if first is None else first + len(frames)
            self._waiting = {name: value[kept:] for name, value in part.items()}
        return clips
