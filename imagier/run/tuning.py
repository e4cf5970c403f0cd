"""Finds out what makes a training of a config fast on this machine: tries one change after the other."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imagier.config.edit import edit
from imagier.config.load import load
from imagier.errors import RunError, UserError
from imagier.run.experiment import ConfigSource, read_experiment
from imagier.run.options import RunOptions
from imagier.run.tuning_attempt import Attempt, Failed, FirstStep, Setup
from imagier.run.tuning_stages import STAGES, Best, Change, Ratio, Skipped, Stage, Tries
from imagier.train.disk import write_atomic
from imagier.train.memory import count_free_bytes

logger = logging.getLogger(__name__)

MARGIN, SURE = 1.02, 3.0
"""A change is kept if it is so many times as fast, and if that is so many standard errors above 1: of five changes that
do nothing, in noise of 20 %, one is kept in twenty such searches."""

FEWEST_ROUNDS, ENOUGH_ROUNDS, MOST_ROUNDS = 4, 6, 15
"""Where time is short; where it is clear who wins, by twice as many standard errors; else."""

TURN_S = 0.3
"""At least so long does one train before it is the other's turn."""
LONGEST_TURN_S = 3.0
"""So long at most where many iterations are needed to see how fast the loader is."""
RESERVE_BYTES = 512 * 2**20
"""Memory of the machine that stays free; on a small one an eighth of what is free."""

TIME_IS_OVER = "the time was over"
BASELINE = Change("as it is")

CHANGES = (
    ("trainer.precision=fp32", "cudnn.benchmark=false", "data.num_workers=0"),
    ("trainer.precision=bf16", "cudnn.benchmark=true", "data.num_workers=1"),
)
"""What could win, in all sections; one of the two values is another than now."""

Verdict = Literal["kept", "", "offered", "not finite"]


@dataclass(frozen=True)
class Row:
    """What came of a change."""

    name: str
    rate: float
    """Images a second."""
    ratio: Ratio | None
    """Its images a second by those of the best before it, over all rounds. None: it is the first."""
    peak_bytes: int
    """The most memory that its process used, or of the GPU."""
    first_s: float
    """How long its first iteration took."""
    losses: float | None
    """Relative difference between its losses in the first iteration and those in fp32; None: not comparable."""
    gradients: float | None
    """The same of the gradients."""
    verdict: Verdict
    """offered: it changes what is trained, so it is for you to take. not finite: its losses are no numbers."""


@dataclass(frozen=True)
class TuneResult:
    """What makes a training fast on this machine."""

    rows: list[Row]
    """The config as it is, then what was tried, in order."""
    skipped: list[Skipped]
    """What was not tried, and why."""
    overrides: list[str]
    """The keys that won ("trainer.precision=bf16"), for the config; empty: nothing is faster."""
    compile: bool
    """Compiling won, too."""


def tune(
    config: ConfigSource, options: RunOptions | None = None, *, overrides: Sequence[str] = (), minutes: float = 3.0
) -> TuneResult:
    """Trains some iterations in many ways, in turns; says which are faster, and by how much they differ in numbers.

    config, overrides: as of `train`. options: of these, `device`. minutes: about how long it may take. Nothing is
    written. UserError for a mistake in config or data. RunError if the config cannot be trained at all.
    """
    options = options or RunOptions()
    experiment = read_experiment(config, options, overrides)
    experiment.log_notes()
    source = experiment.path if experiment.path is not None else experiment.config.to_dict()
    given = tuple(overrides) if experiment.path is not None else ()
    search = _Search(source, given, options.device, time.monotonic() + 60 * minutes)
    try:
        search.run()
    finally:
        search.close()
    return search.summarize()


def check_target(source: Path, overrides: Sequence[str], path: Path, *, overwrite: bool) -> None:
    """UserError if `write_tuned` could not do it, whatever wins."""
    for keys in CHANGES:
        _edit_file(source, [*overrides, *keys])
    _check_free(path, overwrite=overwrite)


def _check_free(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        advice = "name another file, or give `overwrite`"
        raise UserError("there is such a file already", where=f"write {path}", advice=advice, code="file-exists")


def write_tuned(source: Path, overrides: Sequence[str], path: Path, *, overwrite: bool = False) -> None:
    """Writes the config of a file with these values to another one, whole or not at all; comments and order stay.

    UserError if `path` exists, unless it may be overwritten, if it cannot be written, or if `source` cannot be edited.
    """
    text = _edit_file(source, overrides)
    _check_free(path, overwrite=overwrite)
    try:
        with write_atomic(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=path, code="unwritable-file") from error


def _edit_file(source: Path, overrides: Sequence[str]) -> str:
    load(source)  # says what is wrong with it
    return edit(source.read_bytes().decode("utf-8-sig"), overrides, str(source))


class _Runner:
    """An attempt, and what its turns took."""

    def __init__(self, setup: Setup, reserve_bytes: int, deadline: float | None = None) -> None:
        self.attempt = Attempt(setup, reserve_bytes=reserve_bytes, deadline=deadline)
        self.first_step = self.attempt.first_step
        self.seconds: list[float] = []
        """Of an iteration, in each of its turns."""
        self.peak_bytes = self.first_step.peak_bytes
        self.is_finite = True
        self.is_there = True
        """False: it was ended to free its memory for others."""

    def take_turn(self, steps: int) -> float:
        """Seconds of an iteration; of one that was ended, those of an earlier turn."""
        if not self.is_there:
            self.seconds.append(self.seconds.pop(0))
            return self.seconds[-1]
        turn = self.attempt.take_turn(steps)
        self.seconds.append(turn.seconds)
        self.peak_bytes = turn.peak_bytes
        self.is_finite = self.is_finite and turn.is_finite
        return turn.seconds

    @property
    def step_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.first_step.images / self.step_s

    def close(self) -> None:
        if self.is_there:
            self.attempt.close()
        self.is_there = False


class _Search:
    """A greedy search: one change after the other, each on top of those that were kept."""

    def __init__(self, source: Path | Mapping[str, Any], given: tuple[str, ...], device: str, deadline: float) -> None:
        self.source, self.given, self.device, self.deadline = source, given, device, deadline
        self.reserve_bytes = min(RESERVE_BYTES, (count_free_bytes() or 0) // 8)
        self.rows: list[Row] = []
        self.first_steps: list[FirstStep] = []
        """That of each row."""
        self.skipped: list[Skipped] = []
        self.overrides: list[str] = []
        self.compile = False
        self.runners: list[_Runner] = []
        """The best so far; while workers are tried, also the best that loads."""
        self.start_s = 0.0
        """How long it takes until one trains."""

    @property
    def best(self) -> _Runner:
        return self.runners[0]

    def run(self) -> None:
        """Tries everything."""
        begin = time.monotonic()
        try:
            self.runners.append(_Runner(self._set_up(BASELINE), self.reserve_bytes))
            self.start_s = time.monotonic() - begin
            while len(self.best.seconds) < FEWEST_ROUNDS and time.monotonic() < begin + 2 * self.start_s:
                self.best.take_turn(1)
        except Failed as failed:
            raise RunError(f"the config cannot be trained as it is: {failed}") from failed
        self._add_row(BASELINE.name, self.best, None, "")
        for number, stage in enumerate(STAGES):
            left = max(0.0, self.deadline - time.monotonic())
            self._run_stage(stage, time.monotonic() + left / (len(STAGES) - number))

    def _run_stage(self, stage: Stage, end: float) -> None:
        """end: when the rounds should be over, if there were enough of them."""
        config = read_experiment(self.source, RunOptions(), [*self.given, *self.overrides]).config
        tries = stage(Best(config, self.best.first_step))
        ratio: Ratio | None = None
        while (change := _send(tries, ratio)) is not None:
            ratio = None
            if isinstance(change, Skipped):
                self._skip(change.name, change.why)
                continue
            try:
                ratio = self._try(change, end)
            except Failed as failed:
                self._skip(change.name, str(failed))
        for runner in self.runners[1:]:
            runner.close()
        del self.runners[1:]

    def _try(self, change: Change, end: float) -> Ratio:
        """Races a change against the best; returns how many times as fast it is. Failed if it cannot be."""
        standard = self.runners[-1]
        turn_s = max(TURN_S, standard.step_s) * max(1.0, change.growth)
        if time.monotonic() + self.start_s + FEWEST_ROUNDS * 2 * turn_s > self.deadline:
            raise Failed(TIME_IS_OVER)
        runner = self._start(change)
        try:
            ratios = self._race(standard, runner, change.has_loader, end)
        except BaseException:
            runner.close()
            raise
        low, median, high, error = _summarize(ratios)
        is_faster = median >= MARGIN and median - SURE * error > 1 and runner.is_finite
        verdict: Verdict = (
            "offered" if change.role == "offer" else "kept" if is_faster and change.role == "candidate" else ""
        )
        self._add_row(change.name, runner, (median, low, high), verdict if runner.is_finite else "not finite")
        if verdict == "kept":
            self.overrides += change.overrides
            self.compile |= change.compile
            standard.close()
            self.runners[-1] = runner
        elif change.role == "standard":
            self.runners.append(runner)
        else:
            runner.close()
        return median, low, high

    def _race(self, standard: _Runner, runner: _Runner, has_loader: bool, end: float) -> list[float]:
        """Images a second by those of the standard, in each round. They take turns, so that a slow moment hits both."""
        steps = ceil(TURN_S / standard.step_s)
        if has_loader:
            steps = max(steps, min(2 * runner.first_step.workers, ceil(LONGEST_TURN_S / standard.step_s)))
        ratios: list[float] = []
        while len(ratios) < MOST_ROUNDS:
            order = (standard, runner) if len(ratios) % 2 else (runner, standard)  # of a machine that gets slower
            seconds = {one: one.take_turn(steps) for one in order}
            ratios.append(seconds[standard] / seconds[runner] * runner.first_step.images / standard.first_step.images)
            if len(ratios) >= FEWEST_ROUNDS and time.monotonic() > end:
                break
            if len(ratios) >= ENOUGH_ROUNDS:
                _, median, _, error = _summarize(ratios)
                if abs(median - 1) > max(MARGIN - 1, 2 * SURE * error):
                    break
        return ratios

    def _start(self, change: Change) -> _Runner:
        """An attempt with a change. If its memory and that of the others are too much together, they end first."""
        setup = self._set_up(change)
        self._make_room(self.best.peak_bytes * change.growth)
        try:
            return _Runner(setup, self.reserve_bytes, self.deadline)
        except UserError as error:
            raise Failed(str(error)) from error
        except Failed as failed:
            if not failed.is_memory or not any(runner.is_there for runner in self.runners):
                raise
            self._end_others()
            return _Runner(setup, self.reserve_bytes, self.deadline)

    def _make_room(self, needed: float) -> None:
        free = count_free_bytes()
        if self.best.first_step.device != "cpu" or free is None or needed < free - self.reserve_bytes:
            return
        most = free - self.reserve_bytes + sum(runner.peak_bytes for runner in self.runners if runner.is_there)
        if needed > most:
            raise Failed(
                f"it needs about {needed / 2**30:.1f} GiB, and {most / 2**30:.1f} GiB are free", is_memory=True
            )
        self._end_others()

    def _end_others(self) -> None:
        logger.info("two trainings do not fit into memory together: from here on they do not take turns")
        self.close()

    def _set_up(self, change: Change) -> Setup:
        overrides = (*self.given, *self.overrides, *change.overrides)
        return Setup(self.source, overrides, self.compile or change.compile, change.has_loader, self.device)

    def _skip(self, name: str, why: str) -> None:
        self.skipped.append(Skipped(name, why))
        logger.info(f"{name}: {why}")

    def _add_row(self, name: str, runner: _Runner, ratio: Ratio | None, verdict: Verdict) -> None:
        first = runner.first_step
        self.rows.append(Row(name, runner.rate, ratio, runner.peak_bytes, first.seconds, None, None, verdict))
        self.first_steps.append(first)
        than = "" if ratio is None else f", {ratio[0]:.2f} times as fast as the best before"
        logger.info(f"{name}: {runner.rate:.3g} images/s{than}{verdict and f': {verdict}'}")

    def summarize(self) -> TuneResult:
        """All that was found."""
        base = next((first for first in self.first_steps if first.precision == "fp32"), None)
        rows = [
            row
            if base is None
            else replace(
                row,
                losses=_compare(first.losses, base.losses) if first.images == base.images else None,
                gradients=_compare(first.gradients, base.gradients) if first.images == base.images else None,
            )
            for row, first in zip(self.rows, self.first_steps)
        ]
        return TuneResult(rows, self.skipped, self.overrides, self.compile)

    def close(self) -> None:
        """Ends all processes."""
        for runner in self.runners:
            runner.close()


def _send(tries: Tries, ratio: Ratio | None) -> Change | Skipped | None:
    """What is tried next; None: nothing."""
    try:
        return tries.send(ratio)
    except StopIteration:
        return None


def _summarize(ratios: Sequence[float]) -> tuple[float, float, float, float]:
    """Lower quartile, median and upper quartile, and the standard error of the median: 0.93 of the distance of the
    quartiles, by the root of the number, as of normal ones."""
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, median, high, 0.93 * (high - low) / len(ratios) ** 0.5


def _compare(numbers: np.ndarray, base: np.ndarray) -> float | None:
    """The relative L2 distance; None if they have not the same parts."""
    if numbers.shape != base.shape:
        return None
    return float(np.linalg.norm(numbers - base) / max(np.linalg.norm(base), 1e-30))
