"""What a user did wrong, in one line: where, what, what to do."""


class UserError(ValueError):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with 2."""


class RunError(RuntimeError):
    """What ended a run although nobody made a mistake. The command line prints it, no traceback, and exits with 1."""
