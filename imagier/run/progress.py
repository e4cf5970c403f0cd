"""How far a long command is, for those who watch it on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imagier.run.options import RunOptions
from imagier.train.runtime import Runtime

_EVERY_S = 0.2

Advance = Callable[[float], None]
"""Called with how many items more are done; it may be a part of one."""


@contextmanager
def show_progress(what: str, total: int, options: RunOptions, runtime: Runtime) -> Iterator[Advance]:
    """A bar on stderr where that is a terminal, of the first rank; else nothing.

    what: the items, such as "images". total: those of this rank.
    """
    if not (options.owns_process and runtime.is_main and sys.stderr.isatty() and total):
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    counts = TextColumn("{task.completed:.0f} of {task.total} {task.description}")
    columns = BarColumn(), TaskProgressColumn(), counts, TimeRemainingColumn()
    # auto_refresh would start a thread, and Python warns about forking workers in a process with threads.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=total)
        last = [time.monotonic()]

        def advance(amount: float) -> None:
            bar.advance(task, amount)
            if (now := time.monotonic()) - last[0] >= _EVERY_S:
                last[0] = now
                bar.refresh()

        yield advance
        bar.refresh()
