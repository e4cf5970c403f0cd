"""Measures how long the parts of an iteration take, for a run that asks for it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from imagier.train.runtime import Runtime


class Stopwatch:
    """Adds up the seconds of each part. It waits for the device before and after each, which slows a run down."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Times a part."""
        self.runtime.synchronize()
        start = time.perf_counter()
        yield
        self.runtime.synchronize()
        self.seconds[part] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """The seconds of all parts since the last call."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken
