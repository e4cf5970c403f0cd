"""Proves, on a user's own config and machine, that a resumed run is the same as one that was never stopped."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.config.read import read
from imagier.config.schema import BIG
from imagier.errors import RunError, UserError
from imagier.train import checkpoint
from imagier.train.compare import find_first_difference

logger = logging.getLogger(__name__)

MIN_STEPS = 6


@dataclass(frozen=True)
class Case:
    """A way to interrupt a run."""

    name: str
    stops: Sequence[int]
    """Iterations after which it is stopped, and started again; the last: its end."""
    workers: Sequence[int | None]
    """Processes that read data, of each part; None: as the config says."""
    is_killed: bool = False
    """The first part is ended by kill -9 once it has saved."""


def list_cases(steps: int) -> list[Case]:
    """The ways to interrupt a run of this many iterations that are tried."""
    third, half = steps // 3, steps // 2
    return [
        Case("stopped in the middle", [half, steps], [None, None]),
        Case("stopped twice, with other numbers of workers", [third, 2 * third, steps], [0, 2, 1]),
        Case("killed (kill -9) after a save", [half, steps], [None, None], is_killed=True),
    ]


@dataclass(frozen=True, kw_only=True)
class ResumeCheck:
    """A check of one config."""

    config: Path
    steps: int
    """Iterations of each run."""
    seed: int
    ranks: int = 1
    """Processes that train together, started by torchrun."""
    device: str = "auto"
    overrides: Sequence[str] = ()

    def run(self, folder: Path | None = None) -> bool:
        """Trains, interrupts, compares; whether everything is the same, bit for bit.

        folder: where to keep the runs; None: nowhere. UserError for a mistake in the config, RunError if a run fails.
        """
        if self.steps < MIN_STEPS:
            raise UserError(
                f"{self.steps} iterations are too few to be stopped within",
                where="steps",
                advice=f"take at least {MIN_STEPS}",
                code="too-few-steps",
            )
        read(self.config, self.overrides)  # reports mistakes before anything is trained
        with _open_folder(folder) as chosen:
            return self._compare_cases(chosen)

    def _compare_cases(self, folder: Path) -> bool:
        logger.info(f"an undisturbed run of {self.steps} iterations")
        self._train(folder / "whole", self.steps)
        is_same = True
        for number, case in enumerate(list_cases(self.steps)):
            logdir = folder / f"case_{number}"
            for stop, workers in zip(case.stops, case.workers):
                self._train(logdir, stop, workers=workers, kill=case.is_killed and stop != self.steps)
            difference = _compare_runs(folder / "whole", logdir, self.steps)
            is_same &= difference is None
            logger.info(f"{case.name}: {f'differs, first in {difference}' if difference else 'the same, bit for bit'}")
        if not is_same:
            self._train(folder / "again", self.steps)
            if difference := _compare_runs(folder / "whole", folder / "again", self.steps):
                logger.info(
                    f"two undisturbed runs differ, too, first in {difference}: results on this device are not "
                    "reproducible"
                )
        return is_same

    def _train(self, logdir: Path, steps: int, *, workers: int | None = None, kill: bool = False) -> None:
        """Trains up to this iteration, from where the run in `logdir` stands; RunError if that fails.

        kill: save after each iteration, and be killed, with all its processes, soon after this one.
        """
        command = self._build_command(logdir, self.steps - 1 if kill else steps, workers, save_every=1 if kill else BIG)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        lines = []
        with subprocess.Popen(command, start_new_session=True, **pipes) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line.rstrip())
                    if kill and f"iter {steps + 1:,}/" in line:  # the save after `steps` is over
                        break
            finally:
                if process.poll() is None and (kill or sys.exc_info()[0] is not None):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode and not kill:
            raise RunError("\n".join([*lines[-20:], f"the training ended with status {process.returncode}"]))

    def _build_command(self, logdir: Path, max_iter: int, workers: int | None, save_every: int) -> list[str]:
        command = [sys.executable, "-u", "-m"]
        if self.ranks > 1:
            command += ["torch.distributed.run", "--standalone", f"--nproc_per_node={self.ranks}", "-m"]
        command += ["imagier", "train", "--config", str(self.config), "--logdir", str(logdir), "--device", self.device]
        command += ["--seed", str(self.seed), *([] if workers is None else ["--num_workers", str(workers)])]
        command += [*self.overrides, f"max_epoch={BIG}", f"max_iter={max_iter}", f"image_save_iter={BIG}"]
        command += [f"snapshot_save_iter={save_every}", "data.val=null", "logging_iter=1"]
        return [*command, "cudnn.deterministic=true", "cudnn.benchmark=false"]


@contextmanager
def _open_folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        yield Path(folder)


def _compare_runs(one: Path, other: Path, step: int) -> str | None:
    """The first difference between the checkpoints of two runs at an iteration; None if there is none."""
    states = [checkpoint.load(next(path.glob(f"epoch_*_iteration_{step:09d}_checkpoint.pt"))) for path in (one, other)]
    compared = ("current_epoch", "current_iteration", "epoch_samples", "players")
    parts = [
        {**{key: state[key] for key in compared}, "of ranks": state["extras"].get("rank_state")} for state in states
    ]
    return find_first_difference(*parts)
