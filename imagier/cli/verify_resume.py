"""`imagier verify-resume`: proof, on a user's own config and machine, that a continued run is the run never stopped."""

from __future__ import annotations

import argparse
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

from imagier.cli.arguments import add_device, seed, writable_folder
from imagier.errors import RunError
from imagier.run import status
from imagier.run.options import DEFAULT_SEED

SMALLEST_STEPS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A config, and how long to try."""
    add = parser.add_argument
    add("config", type=Path, help="the experiment")
    add("--steps", type=int, default=12, metavar="N", help="iterations of each run (default 12, at least 6)")
    add("--ranks", type=int, default=1, metavar="N", help="train in so many processes, started by torchrun")
    add_device(parser)
    add("--seed", type=seed, default=DEFAULT_SEED, help="seed of everything random (default %(default)s)")
    add("--folder", type=writable_folder, metavar="DIR", help="keep the runs here (default: they are thrown away)")
    add("overrides", nargs="*", metavar="section.key=value", help="values that replace those of the config")


@dataclass(frozen=True)
class Case:
    """A way to interrupt a run."""

    name: str
    stops: Sequence[int]
    """It is stopped, and started again, after so many iterations."""
    workers: Sequence[int | None]
    """Processes that read data, of each part; None: as the config says."""
    killed: bool = False
    """The first part is ended by kill -9 once it has saved."""


def cases(steps: int) -> list[Case]:
    """What is tried with runs of so many iterations."""
    third, half = steps // 3, steps // 2
    return [
        Case("stopped in the middle", [half, steps], [None, None]),
        Case("stopped twice, with other numbers of workers", [third, 2 * third, steps], [0, 2, 1]),
        Case("killed (kill -9) after a save", [half, steps], [None, None], killed=True),
    ]


def run(args: argparse.Namespace) -> int:
    """Trains, interrupts, compares; returns 0 if all is the same bit for bit, 1 if not."""
    from imagier.config.read import read
    from imagier.errors import UserError

    if args.steps < SMALLEST_STEPS:
        raise UserError(f"--steps {args.steps}: needs at least {SMALLEST_STEPS}, to be stopped within")
    read(args.config, args.overrides)  # its mistakes are told at once
    with _folder(args.folder) as folder:
        return _compared(args, folder)


def _compared(args: argparse.Namespace, folder: Path) -> int:
    print(f"an undisturbed run of {args.steps} iterations", flush=True)
    _train(args, folder / "whole", args.steps)
    failed = False
    for number, case in enumerate(cases(args.steps)):
        logdir = folder / f"case_{number}"
        for stop, workers in zip(case.stops, case.workers):
            _train(args, logdir, stop, workers=workers, kill=case.killed and stop != args.steps)
        different = _difference(folder / "whole", logdir, args.steps)
        failed |= different is not None
        print(f"{case.name}: {f'differs, first in {different}' if different else 'the same, bit for bit'}", flush=True)
    if failed:
        _train(args, folder / "again", args.steps)
        different = _difference(folder / "whole", folder / "again", args.steps)
        if different:
            print(
                f"two undisturbed runs differ too, first in {different}: this device does not compute the same twice, "
                "which no checkpoint can mend"
            )
    return status.FAILED if failed else status.DONE


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        yield Path(folder)


def _train(
    args: argparse.Namespace, logdir: Path, steps: int, *, workers: int | None = None, kill: bool = False
) -> None:
    """Trains up to so many iterations, from where the run in `logdir` stands; RunError if that fails.

    kill: save after each iteration, and be killed, with all its processes, soon after so many.
    """
    command = [sys.executable, "-u", "-m"]
    if args.ranks > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc_per_node={args.ranks}", "-m"]
    command += ["imagier", "train", "--config", str(args.config), "--logdir", str(logdir), "--device", args.device]
    command += ["--seed", str(args.seed), *([] if workers is None else ["--num_workers", str(workers)])]
    command += [
        *args.overrides,
        "max_epoch=1000000000",
        f"max_iter={args.steps - 1 if kill else steps}",
    ]
    command += ["image_save_iter=1000000000", f"snapshot_save_iter={1 if kill else 1000000000}", "data.val=null"]
    command += ["logging_iter=1", "cudnn.deterministic=true", "cudnn.benchmark=false"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    told = []
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                told.append(line.rstrip())
                if kill and f"iter {steps + 1:,}/" in line:  # the save after `steps` is over
                    break
        finally:
            if process.poll() is None and (kill or sys.exc_info()[0] is not None):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode and not kill:
        raise RunError("\n".join([*told[-20:], f"the training ended with status {process.returncode}"]))


def _difference(one: Path, other: Path, step: int) -> str | None:
    from imagier.train import checkpoint
    from imagier.train.compare import first_difference

    states = [checkpoint.load(next(path.glob(f"epoch_*_iteration_{step:09d}_checkpoint.pt"))) for path in (one, other)]
    kept = ("current_epoch", "current_iteration", "epoch_samples", "players")
    return first_difference(*({key: state[key] for key in kept} for state in states))
