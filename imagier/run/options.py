"""What a caller asks of a run, beside its config."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from imagier.errors import UserError

TRAIN_SEED = 2
"""Of a training that is given no seed, as in the reference."""

STYLE_SEED = 0
"""Of the random styles of images that are made without a seed."""

END_OF_SEEDS = 2**63
"""Seeds are below this: torch and the files of a run hold them as signed integers of 64 bits."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run writes, what it starts from, and on what it runs. The defaults suit a call from a notebook.

    A field that a function has no use for is ignored: `generate` and `evaluate` read `logdir`, `checkpoint`, `seed`,
    `num_workers` and the fields of the process.
    """

    logdir: str | Path | None = None
    """Folder of the run, old or new. None: training makes logs/<time>_<config>."""
    checkpoint: str | Path | None = None
    """Checkpoint to start from, or to make images with. None: the latest of `logdir`."""
    resume: bool | None = None
    """True: continue the run that wrote the checkpoint. False: take its weights only. None: continue if it is one of
    `logdir`'s own, take the weights if it is `checkpoint`."""

    seed: int | None = None
    """Seed of everything random, 0 to 2**63 - 1. None: 2 for training, 0 for generating. A run that is continued keeps
    its own."""
    randomized_seed: bool = False
    """Draw the seed (0 to 10000), the same for all ranks."""

    device: str = "auto"
    """auto, cpu, cuda or mps. auto: the fastest that is available."""
    local_rank: int | None = None
    """Place of this process on its machine, which picks its GPU. None: $LOCAL_RANK, or else 0."""
    single_process: bool = False
    """Run alone, whatever a launcher's environment (RANK, WORLD_SIZE) says."""
    owns_process: bool = False
    """The process exists for this run alone, as on the command line: a progress bar is shown on a terminal, and on the
    CPU glibc keeps freed memory for the next tensors, which saves a fifth of the time."""
    num_workers: int | None = None
    """Processes that read data, per rank. None: data.num_workers of the config."""

    compile: bool = False
    """Compile the networks: slow to start, faster to run."""
    max_time_s: float | None = None
    """Save and stop after this many seconds."""
    step_timeout_s: float | None = None
    """End the process if an iteration takes longer, in seconds; the first may take ten times as long."""
    dry_run: bool = False
    """Build everything, check the data, log the whole config, and stop before the first iteration."""
    profile: bool = False
    """Measure some iterations; table and trace go to <logdir>/profile."""
    command: str = "imagier.run.train"
    """How the run was started, for its report."""

    wandb: bool = False
    """Log to Weights & Biases."""
    wandb_project: str = "default"
    """Its project there."""
    wandb_id: str | None = None
    """Its run there. None: that of <logdir>/wandb_id.txt, or a new one."""

    def __post_init__(self) -> None:
        """UserError for a seed that is none."""
        if self.seed is not None:
            check_seed(self.seed)


def check_seed(seed: object) -> None:
    """UserError unless it is a whole number from 0 to 2**63 - 1."""
    if not (isinstance(seed, Integral) and 0 <= int(seed) < END_OF_SEEDS):
        advice = "give a whole number from 0 to 2**63 - 1"
        raise UserError(f"is {seed!r}", where="seed", advice=advice, code="wrong-seed")
