"""Progress of a long command: a bar on a terminal, one line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Update = Callable[[int, int], None]
"""Called with (done, total)."""

ProgressBar = Callable[[str], AbstractContextManager[Update]]
"""Opens a progress display: `with progress("reading files") as update: ... update(done, total)`."""


@contextmanager
def show_progress(what: str) -> Iterator[Update]:
    """Shows a bar on a terminal, one plain line elsewhere; nothing until the first item is done.

    what: a few words in the present tense, such as "reading files".
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stdout.isatty():
        totals: list[int] = []

        def note(done: int, total: int) -> None:
            if not totals:
                print(f"{what}: {total:,} of them", flush=True)
            totals.append(total)

        yield note
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # auto_refresh would start a thread, and Python warns about forking workers in a process with threads.
    with Progress(*columns, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)
        shown = [-20]

        def show(done: int, total: int) -> None:
            if is_due := done - shown[-1] >= 20 or done == total:
                shown.append(done)
            bar.update(task, completed=done, total=total, visible=True, refresh=is_due)

        yield show
