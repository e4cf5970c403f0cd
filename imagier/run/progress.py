"""How far a long command is: a bar on a terminal, one line elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from imagier.run.options import RunOptions

if TYPE_CHECKING:
    from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

_EVERY_S = 0.2

Update = Callable[[float, int], None]
"""Called with (done, total); a part of an item may be done."""

Advance = Callable[[float], None]
"""Called with how many items more are done."""

ProgressBar = Callable[[str], AbstractContextManager[Update]]
"""Opens a progress display: `with progress("reading files") as update: ... update(done, total)`."""


@contextmanager
def show_progress(what: str) -> Iterator[Update]:
    """Shows a bar on stderr where that is a terminal, else logs one line; nothing until the first item is done.

    what: a few words in the present tense, such as "reading files".
    """
    if not sys.stderr.isatty():
        totals: list[int] = []

        def note(done: float, total: int) -> None:
            if not totals:
                logger.info(f"{what}: {total:,} of them")
                totals.append(total)

        yield note
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    counts = TextColumn("{task.completed:.0f} of {task.total}")
    columns = TextColumn("{task.description}"), BarColumn(), counts, TimeRemainingColumn()
    # auto_refresh would start a thread, and Python warns about forking workers in a process with threads.
    with Progress(
        *columns,
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else what is printed would be missing in the file that it goes to
    ) as bar:
        task = bar.add_task(what, total=None, visible=False)
        next_s = 0.0

        def show(done: float, total: int) -> None:
            nonlocal next_s
            if is_due := done >= total or time.monotonic() >= next_s:
                next_s = time.monotonic() + _EVERY_S
            bar.update(task, completed=done, total=total, visible=True, refresh=is_due)

        yield show


@contextmanager
def count_progress(what: str, total: int, options: RunOptions, runtime: Runtime) -> Iterator[Advance]:
    """Shows the progress of the first rank, if the process is ours; of items that are done one after the other.

    total: the items of this rank.
    """
    if not (options.owns_process and runtime.is_main):
        yield lambda amount: None
        return
    done = 0.0
    with show_progress(what) as update:

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            update(done, total)

        yield advance
