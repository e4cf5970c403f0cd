"""A trial of a sweep: an ordinary training in a process of its own, and what its log says."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagier.config.check import Config
from imagier.config.find import did_you_mean
from imagier.errors import UserError
from imagier.run import status
from imagier.run.folder_lock import is_locked
from imagier.train.hooks import files
from imagier.train.hooks.evaluation import AVERAGE, REGULAR

logger = logging.getLogger(__name__)

LOG = "train.log"
"""In the folder of a trial: what its training printed."""

MOST_RESTARTS = 2
"""So often a training that was killed is started again, from its last checkpoint."""

COMMAND: Sequence[str] = (sys.executable, "-u", "-m", "imagier", "train")

_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent has ended."""


@dataclass(frozen=True)
class Objective:
    """What a sweep looks for: the best value of a metric, or the lowest loss."""

    name: str
    """Of the metric; or the tag of a loss in metrics.jsonl, as gen_update/total."""
    higher_is_better: bool

    def read(self, logdir: Path) -> Iterator[tuple[int, float]]:
        """The iterations and values in the log of a run, those of the averaged weights where there is an average."""
        for record in files.read(logdir):
            for tag in (f"{self.name}/{AVERAGE}", f"{self.name}/{REGULAR}", self.name):
                if tag in record:
                    yield int(record["step"]), float(record[tag])
                    break


def choose_objective(config: Config, name: str | None) -> Objective:
    """The metric or loss with a name; without one, the first metric of the config. UserError if there is none."""
    has_scores = config.run.data.val is not None
    metrics = [metric.build() for metric in config.run.metrics] if has_scores else []
    scores = [score for metric in metrics for score in metric.list_scores(config.recipe.cls.domains)]
    if name is None:
        if not scores:
            what, advice = "the config measures none", "name the tag of a loss as `metric`, or add data.val"
            raise UserError(what, where="metric", advice=advice, code="no-metric")
        return Objective(scores[0].name, scores[0].higher_is_better)
    for score in scores:
        if score.name == name:
            return Objective(name, score.higher_is_better)
    losses = tuple(f"{player}_update/" for player in config.players)
    if name.startswith(losses):
        return Objective(name, higher_is_better=False)
    known = [score.name for score in scores]
    advice = did_you_mean(name, known) or f"there are {', '.join([*known, *(f'{loss}...' for loss in losses)])}"
    raise UserError("no such metric or loss", where=f"metric {name}", advice=advice, code="unknown-metric")


def name_trial(number: int) -> str:
    """The folder of a trial."""
    return f"trial_{number:04d}"


class Training:
    """The process that trains a trial; it may be started again, and continues then."""

    def __init__(
        self, base: Path, overrides: Sequence[str], logdir: Path, flags: Sequence[str], threads: int | None
    ) -> None:
        """base: the config. flags: of `imagier train`, beside config and folder. threads: None: as many as it likes."""
        self.logdir = logdir
        self._environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self.restarts = 0
        self._command = [*COMMAND, "--config", str(base), "--logdir", str(logdir), *flags, *overrides]
        self._process: subprocess.Popen[bytes] | None = None
        self._waits = False
        self._is_stopping = False

    def poll(self) -> int | None:
        """Starts the process if there is none; returns its exit status once it has ended and is not needed again."""
        if self._process is None and self._is_stopping:
            return status.INTERRUPTED
        if self._process is None:
            self._start()
            return None
        ended = self._process.poll()
        if ended is None or self._is_stopping:
            return ended
        was_killed = ended < 0 and self.restarts < MOST_RESTARTS
        if was_killed or ended == status.INTERRUPTED:
            self.restarts += was_killed
            self._process = None
            return None
        return ended

    def stop(self) -> None:
        """Asks the process to save and end."""
        if not self._is_stopping:
            self._signal(signal.SIGTERM)
        self._is_stopping = True

    def kill(self) -> None:
        """Ends the process at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _start(self) -> None:
        if is_locked(self.logdir):  # by the training of a sweep that was killed: it saves and ends
            if not self._waits:
                logger.info(f"{self.logdir.name}: an earlier training is still there; waiting for its end")
            self._waits = True
            return
        with (self.logdir / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**self._environment, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the sweep, which then asks its trainings to stop
                preexec_fn=_make_end_with_parent(),
            )

    def read_last_line(self) -> str:
        """What the training printed last."""
        lines = (self.logdir / LOG).read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def _make_end_with_parent() -> Callable[[], None] | None:
    """Called in a new process, it lets Linux ask this one to save and end when the sweep is killed. Elsewhere None."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: a library must not be loaded between fork and exec
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
