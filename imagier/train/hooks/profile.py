"""Profiles of iterations: what they spend their time and memory on."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.profiler import profile, schedule, supported_activities

from imagier.train.disk import write_atomic
from imagier.train.phase import PROFILE_PREFIX
from imagier.train.trainer import Progress, Trainer

logger = logging.getLogger(__name__)

FOLDER = "profile"
WAIT, WARMUP, ACTIVE = 5, 2, 3


class Profile:
    """Profiles a few iterations once; tables and a Chrome trace go to <logdir>/profile.

    The tables are by phase of the iteration (forward, backward and update of each), by time and by memory. It waits,
    warms up, measures, and is gone: outside of its window it costs nothing.
    """

    def __init__(self, logdir: Path, device: torch.device) -> None:
        self.folder = logdir / FOLDER
        self.on_accelerator = device.type != "cpu"
        self.profiler: profile | None = profile(
            activities=list(supported_activities()),
            schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
            on_trace_ready=self._write,
            profile_memory=True,
            record_shapes=True,
        )
        self.profiler.start()
        self.steps = 0

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if self.profiler is None:
            return
        self.steps += 1
        self.profiler.step()
        if self.steps >= WAIT + WARMUP + ACTIVE:
            self._finish()

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        if self.profiler is not None:
            measured = max(self.steps - WAIT - WARMUP, 0)
            logger.info(f"profile: the run ended within {WAIT + WARMUP + ACTIVE} iterations; {measured} were measured")
        self._finish()

    def _finish(self) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _write(self, profiler: profile) -> None:
        measured = self.steps - WAIT - WARMUP
        if measured <= 0:
            return
        where = "device" if self.on_accelerator else "cpu"
        averages = profiler.key_averages()
        ranges = [row for row in averages if row.key.startswith(PROFILE_PREFIX) and row.cpu_time_total]
        tables = [
            f"Milliseconds of one iteration (mean of {measured}), by phase: on the CPU, on the device\n",
            *(_line(row.key, row.cpu_time_total / measured, row.device_time_total / measured) for row in ranges),
            f"\nTime of {measured} iterations, by operation\n",
            averages.table(sort_by=f"self_{where}_time_total", row_limit=40),
            "\nMemory allocated in them, by operation\n",
            averages.table(sort_by=f"self_{where}_memory_usage", row_limit=20),
        ]
        with write_atomic(self.folder / "table.txt") as file:
            file.write("\n".join(tables).encode())
        profiler.export_chrome_trace(str(self.folder / "trace.json"))


def _line(name: str, cpu_us: float, device_us: float) -> str:
    return f"{name:<30} {cpu_us / 1e3:10.2f} {device_us / 1e3:10.2f}"
