"""The stopwatch: by a clock that the test moves, and a device that takes its time."""

from __future__ import annotations

import time

import pytest
import torch

from imagier.train.clock import Stopwatch
from imagier.train.runtime import Runtime


def test_parts_are_timed_until_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    runtime = Runtime(torch.device("cpu"))
    queue: list[float] = []

    def synchronize() -> None:
        now[0] += sum(queue)
        queue.clear()

    monkeypatch.setattr(runtime, "synchronize", synchronize)
    stopwatch = Stopwatch(runtime)
    for work_s, host_s in ((3.0, 1.0), (0.5, 0.25)):
        queue.append(7.0)  # what was asked of the device before belongs to no part
        with stopwatch("gen"):
            queue.append(work_s)
            now[0] += host_s
    with stopwatch("dis"):
        now[0] += 2.0
    assert stopwatch.take() == {"gen": 4.75, "dis": 2.0}
    assert stopwatch.take() == {}
