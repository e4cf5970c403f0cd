"""Losses and speed of a run, gathered on the device and read once per logging period."""

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
from imagier.train.runtime import Runtime
from imagier.train.trainer import Progress, Trainer


@dataclass(frozen=True)
class Record:
    """What is known after some iterations."""

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

    A value that is not finite is left out of the mean; how many were left out is logged as "nonfinite". No step waits
    for the device but the last of a period. Tags are those of the reference.
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
        """tallies: what else this rank counts, by tag, the same tags on all ranks; sums that are not 0 are logged."""
        self.sinks = sinks
        self.tallies = tallies
        self.stopwatch = stopwatch
        self.every = every
        self.samples_per_step = samples_per_step
        self.log_names = log_names
        self.tags: list[str] = []
        self.sums: Tensor | None = None
        self.counts: Tensor | None = None
        self.steps = 0
        self.period_start = self.epoch_start = time.perf_counter()
        self.timed_steps = 0

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        self._add(progress.losses)
        if progress.step % self.every == 0:
            self._flush(trainer, progress)
            self.sums = self.counts = None
            self.steps = 0
        if progress.epoch_ended:
            now = time.perf_counter()
            self.write(Record(progress.step, progress.epoch, {"time/epoch": now - self.epoch_start}))
            self.epoch_start = now

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        if progress is not None and self.steps:
            self._flush(trainer, progress)  # the period is not over: its sums go on after a resume

    def write(self, record: Record) -> None:
        """Sends a record to all sinks."""
        for sink in self.sinks:
            sink.scalars(record)

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """The period that has begun, its mean over all ranks, for a run that continues in the middle of it.

        To be called by all ranks.
        """
        sums, counts = self.sums, self.counts
        if sums is not None and counts is not None:
            sums, counts = runtime.all_reduce_mean(torch.stack([sums, counts]))
        return {"tags": self.tags, "sums": sums, "counts": counts, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continues the period of a saved run."""
        self.tags, self.steps = state["tags"], state["steps"]
        self.sums, self.counts = (None if x is None else x.to(device) for x in (state["sums"], state["counts"]))

    def _add(self, losses: Mapping[str, Losses]) -> None:
        named = tagged(losses, self.log_names)
        if self.sums is not None and self.tags != list(named):  # continued with other losses: a new period
            self.sums = self.counts = None
            self.steps = 0
        self.tags = list(named)
        values = torch.stack([value.float() for value in named.values()])
        finite = values.isfinite()
        values = values.where(finite, 0)
        self.sums = values if self.sums is None else self.sums.add_(values)
        self.counts = finite.float() if self.counts is None else self.counts.add_(finite)
        self.steps += 1
        self.timed_steps += 1

    def _flush(self, trainer: Trainer, progress: Progress) -> None:
        assert self.sums is not None and self.counts is not None
        both = trainer.runtime.all_reduce_mean(torch.stack([self.sums, self.counts])).tolist()
        means = {tag: total / count for tag, total, count in zip(self.tags, *both) if count}
        lost = sum(self.steps - count for count in both[1])
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


def tagged(losses: Mapping[str, Losses], log_names: Mapping[str, str]) -> dict[str, Tensor]:
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
