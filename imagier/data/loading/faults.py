"""What happens when data cannot be read: a broken file, a worker that died."""

from __future__ import annotations

import enum
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch.utils.data

from imagier.data.dataset import Dataset, Key
from imagier.data.sample import Sample
from imagier.errors import RunError, UserError

TRIES = 10
"""Samples that are tried in place of a broken one."""


class OnError(enum.Enum):
    """What to do about a sample that cannot be read."""

    RAISE = "raise"
    """End the run."""
    RESAMPLE = "resample"
    """Take another one instead."""
    DROP = "drop"
    """Do without it."""


@dataclass(frozen=True)
class Read:
    """What came of reading a sample. A mistake is a value: an exception would leave a worker as a traceback."""

    sample: Sample | None
    skipped: list[str] = field(default_factory=list)
    """A line for every sample that was broken and skipped."""
    error: UserError | None = None
    """Why the run must end."""


class Guarded(torch.utils.data.Dataset):
    """Reads samples, and does what `on_error` says where one is broken.

    In place of sample i come i + 1, i + 2, i + 4, i + 8, ...: neighbors first, since they are near at hand, then those
    far away, since broken files often lie together. So what comes is a function of (epoch, index), whoever reads it.
    """

    def __init__(self, dataset: Dataset, on_error: OnError) -> None:
        self.dataset = dataset
        self.on_error = on_error
        self.steps = [0, *(2**n for n in range(TRIES))] if on_error is OnError.RESAMPLE else [0]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Read:
        epoch, index = key
        broken: list[str] = []
        for step in self.steps:
            try:
                return Read(self.dataset[epoch, (index + step) % len(self.dataset)], broken)
            except UserError as error:
                if self.on_error is OnError.RAISE:
                    return Read(None, error=error)
                broken.append(str(error))
        if self.on_error is OnError.DROP:
            return Read(None, broken)
        return Read(None, broken, too_many_bad_samples(broken[0]))


def too_many_bad_samples(line: str) -> UserError:
    """The end of a run whose samples cannot be read, one after the other. line: what is wrong with one of them."""
    return UserError(
        f"{line}. Those after it are broken too: data.on_error: skip is for single files, so mend the set first "
        "(`imagier data check` lists what is wrong)"
    )


@contextmanager
def translate_worker_errors(workers: Sequence[BaseProcess] = ()) -> Iterator[None]:
    """Turns what a worker's death causes into a RunError: torch's word of it, which comes wherever in the run.

    workers: those from which something is taken in this context; one that dies then may break the connection first.
    """
    try:
        yield
    except RuntimeError as error:
        died = _DIED.match(str(error))
        if died is None:
            raise
        words = f"{error} {error.__cause__}"  # how it died, one or the other says
        free_frames(error)
        raise _death(died[1], words) from error
    except (OSError, EOFError) as error:
        ended = wait([worker.sentinel for worker in workers], timeout=1) if workers else []
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(1)
                code = worker.exitcode or 0
                how = f"signal: {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
                free_frames(error)
                raise _death(str(worker.pid), how) from error
        raise


def free_frames(error: BaseException) -> None:
    """Frees what the frames of an error hold: torch ends the other workers once nobody holds its iterator.

    An iterator that was not made to its end cannot be freed without torch printing an error; it is not.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        for each in (error, error.__cause__, error.__context__):
            if each is not None:
                traceback.clear_frames(each.__traceback__)
    finally:
        sys.unraisablehook = hook


def _death(pid: str, words: str) -> RunError:
    return RunError(
        f"a process that reads data (pid {pid}) {next(cause for sign, cause in _CAUSES.items() if sign in words)}"
    )


_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ")

_CAUSES = {
    "signal: Killed": "was killed, as when memory is short: lower data.num_workers, or give the job more memory",
    "signal: Bus error": (
        "died of a bus error, as when the shared memory (/dev/shm) is full: lower data.num_workers or the "
        "batch_size, or make it larger (docker run --shm-size=8g)"
    ),
    "": "died: lower data.num_workers if memory is short; with --num_workers 0 the cause shows",
}
"""By what is said about its end."""
