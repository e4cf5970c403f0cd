"""How far a long command has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, one plain line elsewhere; neither before the first thing is done.

    What it yields is called with (done, total). what: a few words, in the present tense.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stdout.isatty():
        yield lambda done, total: print(f"{what}: {total} of them", flush=True) if done == 1 else None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # No thread of its own: the workers are forked, and forking with threads is what Python warns of.
    with Progress(*columns, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True, refresh=done % 20 == 0 or done == total)

        yield show
