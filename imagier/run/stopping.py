"""When a run ends before it is done: signals, a time limit, and the end of a Slurm job."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from imagier.train.trainer import Outcome

logger = logging.getLogger(__name__)

SLURM_MARGIN_S = 180.0
"""A run saves this long before the end of its Slurm job; at half of the time left, where that is less."""

ONE_PRESS_S = 1.0
"""A second Ctrl-C counts after so many seconds: shell and launcher may each send the signal of one."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Stop:
    """Done at max_iter or max_epoch; interrupted by SIGTERM, SIGHUP, Ctrl-C, a time limit, or the end of a Slurm job.

    SIGUSR1 makes the run save and continue.
    """

    def __init__(
        self, max_iter: int, max_epoch: int, *, max_time_s: float | None = None, job: SlurmJob | None = None
    ) -> None:
        """max_time_s: seconds from now."""
        self.max_iter = max_iter
        self.max_epoch = max_epoch
        self.deadline = float("inf") if max_time_s is None else time.monotonic() + max_time_s
        self.job = job
        self.should_stop = False
        self.should_save = False
        self._first_press = float("inf")
        """When the first Ctrl-C came."""

    def on_signal(self, number: int, frame: object) -> None:
        """Handles the signals of `SIGNALS`. A second SIGINT, after a moment, raises KeyboardInterrupt."""
        if number == signal.SIGUSR1:
            self.should_save = True
            return
        if number == signal.SIGINT:
            now = time.monotonic()
            if now > self._first_press + ONE_PRESS_S:
                raise KeyboardInterrupt
            if self._first_press == float("inf"):
                self._first_press = now
                logger.info("stopping after this iteration, and saving; Ctrl-C again stops at once and saves nothing")
        self.should_stop = True

    def __call__(self, step: int, epoch: int) -> Outcome:
        if step >= self.max_iter or epoch >= self.max_epoch:
            return Outcome.DONE
        if self.should_stop or time.monotonic() > self.deadline or (self.job is not None and self.job.is_over()):
            return Outcome.INTERRUPTED
        if self.should_save:
            self.should_save = False
            return Outcome.SAVE
        return Outcome.GO_ON


@contextmanager
def handle_signals(stop: Stop) -> Iterator[Stop]:
    """While this is open, signals go to `stop`. Does nothing outside of the main thread, as Python allows no more.

    SIGHUP, which says that the terminal was closed, stays ignored where it is: `nohup` asks for that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handled = set(SIGNALS)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        handled.remove(signal.SIGHUP)
    before = {number: signal.signal(number, stop.on_signal) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SlurmJob:
    """The Slurm job that a process runs in, and when Slurm will end it."""

    def __init__(self, job_id: str, ends: float, *, now: float | None = None) -> None:
        """ends, now: seconds since 1970. now: None for the time of the clock."""
        self.job_id = job_id
        left = ends - (time.time() if now is None else now)
        self.stops = ends - min(SLURM_MARGIN_S, left / 2)

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> SlurmJob | None:
        """The job of this process; None outside of Slurm, and where the environment lacks the job's end."""
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")
        ends = environment.get("SLURM_JOB_END_TIME", "")
        return SlurmJob(job, float(ends)) if job and ends.isdecimal() else None

    def is_over(self) -> bool:
        """Whether it is time to save."""
        return time.time() >= self.stops

    def requeue(self) -> str:
        """Asks Slurm to start the job again, which ends it; returns a line about the result."""
        command = ["scontrol", "requeue", self.job_id]
        if shutil.which(command[0]) is None:
            return f"there is no {command[0]} here: job {self.job_id} is not queued again; submit it once more"
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join(done.stderr.split()) or f"status {done.returncode}"
            return f"job {self.job_id} could not be queued again ({reason}); submit it once more"
        return f"job {self.job_id} is queued again, and continues from here"

    def __str__(self) -> str:
        stops = time.strftime("%F %T", time.localtime(self.stops))
        return f"Slurm job {self.job_id}: at {stops} the run saves"
