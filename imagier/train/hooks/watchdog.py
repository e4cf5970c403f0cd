"""Ends a run that hangs, and records where it hung."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imagier.train.trainer import Progress, Trainer

FIRST_STEP = 10
"""The first step may take this many times as long: kernels are chosen and networks compiled in it."""

OTHERS_S = 3.0
"""How long a rank waits for the others to record where they are, before its end makes the launcher end them."""


class Watchdog:
    """Notices, in a thread of its own, that a step takes too long; then writes all stacks and ends the process.

    The stacks of a rank's threads go to stderr and to <logdir>/hang_rank<N>.txt. A step is everything between two calls
    of `after_step`: reading data, all updates, and the hooks.
    """

    def __init__(
        self,
        logdir: Path,
        timeout_s: float,
        *,
        rank: int = 0,
        status: int,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        """status: the exit status of the process. end: ends it, since a hanging thread cannot."""
        self.path = logdir / f"hang_rank{rank}.txt"
        self.timeout_s = timeout_s
        self.rank = rank
        self.status = status
        self.end = end
        self.step = 0
        self._due = time.monotonic() + FIRST_STEP * timeout_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        self.step = progress.step
        self._due = time.monotonic() + self.timeout_s

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        self.close()

    def close(self) -> None:
        """Stops watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (left := self._due - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        line = (
            f"rank {self.rank}: no step for longer than the time limit ({self.timeout_s:g} s) after iteration "
            f"{self.step}; {self.path} shows where each thread is"
        )
        with suppress(OSError):  # a disk that is gone may be why it hangs
            print(line, file=sys.stderr)
            faulthandler.dump_traceback(2, all_threads=True)  # the real stderr, whatever replaces it in Python
        with suppress(OSError), self.path.open("w") as file:
            file.write(line + "\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        self._over.wait(OTHERS_S)
        self.end(self.status)
