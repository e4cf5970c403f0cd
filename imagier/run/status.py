"""Exit statuses of commands, for scripts and schedulers (docs/reliability.md)."""

from __future__ import annotations

import os

DONE = 0
FAILED = 1
USER_ERROR = 2
"""A mistake of the user, reported in one line."""
INTERRUPTED = 75
"""Saved before its end: start it again (EX_TEMPFAIL of sysexits.h)."""
HUNG = 76
"""A step took longer than --step_timeout."""
BROKEN_PIPE = 141
"""Nobody reads what is printed any more, as behind `| head -1`."""
KILLED = 130
"""Ended by a second Ctrl-C, without saving."""


def choose_interrupted() -> int:
    """The status of a run that was saved before its end: INTERRUPTED, but DONE under torchrun.

    torchrun restarts a process at once if it ends with anything but 0, which would undo the interruption.
    """
    return DONE if "TORCHELASTIC_RUN_ID" in os.environ else INTERRUPTED
