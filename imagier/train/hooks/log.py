"""Losses and speed of a run, summed on the device and read once per logging period."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imagier.recipe import Losses
from imagier.train.clock import Stopwatch
from imagier.train.phase import Phase
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer


@dataclass(frozen=True)
class Record:
    """Values by tag, after some iterations."""

    step: int
    epoch: int
    scalars: Mapping[str, float]


class Sink(Protocol):
    """A place where records and images go."""

    def scalars(self, record: Record) -> None: ...

    def image(self, path: Path, step: int) -> None: ...

    def close(self) -> None: ...


class Log:
    """Means of the losses over each logging period, over all ranks, with speed and memory.

    The mean of a loss is over the updates in which it came: an iteration may have none, one or several, on all ranks or
    on some. A value that is not finite is left out; how many were left out is logged as "nonfinite". No step waits for
    the device but the last of a period. Tags are those of the reference.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        every: int,
        samples_per_step: int,
        log_names: Mapping[str, str],
        stopwatch: Stopwatch | None = None,
        tallies: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """tallies: other counts of this rank, by tag, with the same tags on all ranks; sums other than 0 are logged."""
        self.sinks = sinks
        self.tallies = tallies
        self.stopwatch = stopwatch
        self.every = every
        self.samples_per_step = samples_per_step
        self.log_names = log_names
        self.steps = 0
        """Iterations of the period so far."""
        self._sums: dict[tuple[str, ...], _Sums] = {}
        """By the tags of all values of an iteration: iterations with the same tags are added up as one tensor."""
        self._counted: dict[str, int] = {}
        """What is to be added to the tallies."""
        self.period_start = self.epoch_start = time.perf_counter()
        self.timed_steps = 0

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        self._add(progress.phases)
        if progress.step % self.every == 0:
            self._flush(trainer, progress)
            self._sums = {}
            self.steps = 0
        if progress.epoch_ended:
            now = time.perf_counter()
            self.write(Record(progress.step, progress.epoch, {"time/epoch": now - self.epoch_start}))
            self.epoch_start = now

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        if progress is not None and self.steps and progress.outcome is not Outcome.INTERRUPTED:
            self._flush(trainer, progress)  # that of an interrupted run goes on after a resume, as if nothing had been

    def write(self, record: Record) -> None:
        """Sends a record to all sinks."""
        for sink in self.sinks:
            sink.scalars(record)

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The sums of the current period, of every rank, for a run that continues in the middle of it.

        Must be called by all ranks.
        """
        ranks = runtime.all_gather_objects(self._read())
        return {"steps": self.steps, "ranks": ranks, "tallies": self._tally(runtime)}

    def load_state_dict(self, state: dict[str, Any], runtime: Runtime) -> None:
        """Continues the period of a saved run. With other ranks than before, they share the sums."""
        self.steps = state["steps"]
        # Version 0.1 kept the means over ranks; in its first checkpoints all iterations of a period had the same tags.
        ranks = state["ranks"] if "ranks" in state else [state.get("groups", [state])] * runtime.world
        self._counted = {}
        now = self._tally(runtime)  # not 0 in a run that goes back to a checkpoint
        self._counted = {tag: count - now.get(tag, 0) for tag, count in state.get("tallies", {}).items()}
        self._sums = {}
        for group in chain.from_iterable(ranks[runtime.rank :: runtime.world]):
            if group["sums"] is not None:
                sums, counts = (torch.as_tensor(group[key], device=runtime.device) for key in ("sums", "counts"))
                self._add_group(tuple(group["tags"]), sums, counts, group["steps"])

    def _add(self, phases: Sequence[Phase]) -> None:
        self.steps += 1
        self.timed_steps += 1
        named = [pair for phase in phases for pair in tag_losses({phase.player: phase.losses}, self.log_names).items()]
        if not named:
            return
        tags = tuple(tag for tag, _ in named)
        values = torch.stack([value.float() for _, value in named])
        finite = values.isfinite()
        self._add_group(tags, values.where(finite, 0), finite.float(), 1)

    def _add_group(self, tags: tuple[str, ...], sums: Tensor, counts: Tensor, steps: int) -> None:
        if tags not in self._sums:
            self._sums[tags] = _Sums(sums, counts, steps)
        else:
            self._sums[tags].add(sums, counts, steps)

    def _read(self) -> list[dict[str, Any]]:
        """The sums of this rank as plain numbers; waits for the device."""
        read = [(tags, *torch.stack([group.sums, group.counts]).tolist(), group) for tags, group in self._sums.items()]
        return [
            {"tags": list(tags), "sums": sums, "counts": counts, "steps": group.steps}
            for tags, sums, counts, group in read
        ]

    def _means(self, runtime: Runtime) -> tuple[dict[str, float], float]:
        """By tag, over the period and all ranks; and the values that were left out because they are not finite."""
        totals: dict[str, float] = {}
        counts: dict[str, float] = {}
        lost = 0.0
        for group in chain.from_iterable(runtime.all_gather_objects(self._read())):
            for tag, total, count in zip(group["tags"], group["sums"], group["counts"]):
                totals[tag] = totals.get(tag, 0.0) + total
                counts[tag] = counts.get(tag, 0.0) + count
                lost += group["steps"] - count
        return {tag: total / counts[tag] for tag, total in totals.items() if counts[tag]}, lost

    def _tally(self, runtime: Runtime) -> dict[str, int]:
        """The other counts, over all ranks, and over the process before if the run continues."""
        return {tag: self._counted.get(tag, 0) + runtime.all_reduce_sum(n) for tag, n in self.tallies().items()}

    def _flush(self, trainer: Trainer, progress: Progress) -> None:
        means, lost = self._means(trainer.runtime)
        now = time.perf_counter()
        steps = max(self.timed_steps, 1)
        seconds = (now - self.period_start) / steps
        self.period_start, self.timed_steps = now, 0
        parts = self.stopwatch.take() if self.stopwatch is not None else {}
        speed = {"time/iteration": seconds, "speed/samples_per_second": self.samples_per_step / seconds}
        speed.update({f"time/{part}": total / steps for part, total in parts.items()})
        rates = {f"optim/{name}_lr": player.lr for name, player in trainer.players.items()}
        memory = {"memory/peak_bytes": float(trainer.runtime.peak_memory_bytes())}
        problems = {"nonfinite": lost} if lost else {}
        problems |= {tag: float(total) for tag, total in self._tally(trainer.runtime).items() if total}
        self.write(Record(progress.step, progress.epoch, {**means, **rates, **speed, **memory, **problems}))


@dataclass
class _Sums:
    """Sums of the finite values of some iterations with the same tags, on the device."""

    sums: Tensor
    counts: Tensor
    """How many values were finite."""
    steps: int
    """How many iterations there are."""

    def add(self, sums: Tensor, counts: Tensor, steps: int) -> None:
        self.sums.add_(sums)
        self.counts.add_(counts)
        self.steps += steps


def tag_losses(losses: Mapping[str, Losses], log_names: Mapping[str, str]) -> dict[str, Tensor]:
    """Losses by player -> by tag, "gen_update/GAN"; a loss that comes in parts ("gan/fake") also as their sum."""
    named: dict[str, Tensor] = {}
    for player, of_player in losses.items():
        for name, value in of_player.items():
            whole, _, part = name.partition("/")
            tag = f"{player}_update/{log_names.get(whole, whole)}"
            if part:
                named[f"{player}_update/{log_names[name]}" if name in log_names else f"{tag}/{part}"] = value
                named[tag] = named[tag] + value if tag in named else value
            else:
                named[tag] = value
    return named
