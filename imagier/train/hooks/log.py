"""Losses and speed of a run, summed on the device and read once per logging period."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imagier.recipe import Losses
from imagier.train.clock import Stopwatch
from imagier.train.phase import Phase
from imagier.train.runtime import Runtime
from imagier.train.trainer import Progress, Trainer


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

    The mean of a loss is over the updates in which it came, of which an iteration may have none, one or several. A
    value that is not finite is left out; how many were left out is logged as "nonfinite". No step waits for the device
    but the last of a period. Tags are those of the reference.
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
        if progress is not None and self.steps:
            self._flush(trainer, progress)  # the period is not over: its sums continue after a resume

    def write(self, record: Record) -> None:
        """Sends a record to all sinks."""
        for sink in self.sinks:
            sink.scalars(record)

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The current period, its mean over all ranks, for a run that continues in the middle of it.

        Must be called by all ranks.
        """
        groups = []
        for tags, group in self._sums.items():
            sums, counts = runtime.all_reduce_mean(torch.stack([group.sums, group.counts]))
            groups.append({"tags": list(tags), "sums": sums, "counts": counts, "steps": group.steps})
        return {"steps": self.steps, "groups": groups}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continues the period of a saved run."""
        self.steps = state["steps"]
        groups = state.get("groups", [state])  # in version 0.1 all iterations of a period had the same tags
        self._sums = {
            tuple(group["tags"]): _Sums(group["sums"].to(device), group["counts"].to(device), group["steps"])
            for group in groups
            if group["sums"] is not None
        }

    def _add(self, phases: Sequence[Phase]) -> None:
        self.steps += 1
        self.timed_steps += 1
        named = [pair for phase in phases for pair in tag_losses({phase.player: phase.losses}, self.log_names).items()]
        if not named:
            return
        tags = tuple(tag for tag, _ in named)
        values = torch.stack([value.float() for _, value in named])
        finite = values.isfinite()
        values = values.where(finite, 0)
        if tags not in self._sums:
            self._sums[tags] = _Sums(values, finite.float(), 1)
        else:
            self._sums[tags].add(values, finite)

    def _means(self, runtime: Runtime) -> tuple[dict[str, float], float]:
        """By tag, over the period and all ranks; and the values that were left out because they are not finite."""
        if not self._sums:
            return {}, 0.0
        groups = self._sums.values()
        both = torch.stack([torch.cat([g.sums for g in groups]), torch.cat([g.counts for g in groups])])
        tags = [(tag, group.steps) for names, group in self._sums.items() for tag in names]
        totals: dict[str, float] = {}
        counts: dict[str, float] = {}
        lost = 0.0
        for (tag, steps), total, count in zip(tags, *runtime.all_reduce_mean(both).tolist()):
            totals[tag] = totals.get(tag, 0.0) + total
            counts[tag] = counts.get(tag, 0.0) + count
            lost += steps - count
        return {tag: total / counts[tag] for tag, total in totals.items() if counts[tag]}, lost

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
        sums = {tag: float(trainer.runtime.all_reduce_sum(count)) for tag, count in self.tallies().items()}
        problems |= {tag: total for tag, total in sums.items() if total}
        self.write(Record(progress.step, progress.epoch, {**means, **rates, **speed, **memory, **problems}))


@dataclass
class _Sums:
    """Sums of the finite values of some iterations with the same tags, on the device."""

    sums: Tensor
    counts: Tensor
    """How many values were finite."""
    steps: int
    """How many there are."""

    def add(self, values: Tensor, finite: Tensor) -> None:
        self.sums.add_(values)
        self.counts.add_(finite)
        self.steps += 1


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
