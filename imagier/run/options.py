"""What a command or a script asks of a run, beside its config."""

DEFAULT_SEED = 2
