"""What a user did wrong, in one line: where, what, what to do."""


class UserError(ValueError):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with 2."""
