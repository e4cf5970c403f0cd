"""With what status a command ends, for scripts and schedulers (docs/reliability.md)."""

from __future__ import annotations

import os

DONE = 0
FAILED = 1
USER_ERROR = 2
"""A mistake of the user's, told in one line."""
INTERRUPTED = 75
"""Saved, but not at its end: start it again (EX_TEMPFAIL of sysexits.h)."""
HUNG = 76
"""A step took longer than --step_timeout."""
KILLED = 130
"""Ended by a second Ctrl-C, without saving."""


def interrupted() -> int:
    """The status of a run that was saved before its end: INTERRUPTED, but DONE under torchrun.

    torchrun starts a process that ends with anything but 0 again at once, which is not what was asked for.
    """
    return DONE if "TORCHELASTIC_RUN_ID" in os.environ else INTERRUPTED
