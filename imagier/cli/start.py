"""Where a run begins: its folder, its seed, and the checkpoint it begins from."""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.train import checkpoint
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

DEFAULT_SEED = 2


@dataclass(frozen=True)
class Start:
    """What is decided before anything is built."""

    logdir: Path
    seed: int
    path: Path | None = None
    state: dict[str, Any] | None = None
    continues: bool = False
    """All of the checkpoint counts, not its weights alone."""

    @staticmethod
    def find(args: argparse.Namespace, runtime: Runtime) -> Start:
        """A given checkpoint, else the latest of the log folder, else nothing. UserError if a given one is missing."""
        stem = args.config.stem if args.config is not None else "run"
        logdir = args.logdir or Path(str(runtime.shared(f"logs/{time.strftime('%Y_%m%d_%H%M_%S')}_{stem}")))
        drawn = int(str(runtime.shared(random.SystemRandom().randint(0, 10000)))) if args.randomized_seed else None
        seed = next(seed for seed in (drawn, args.seed, DEFAULT_SEED) if seed is not None)
        path = args.checkpoint or checkpoint.latest(logdir)
        if path is None:
            return Start(logdir, seed)
        state = checkpoint.load(path)
        resume = args.resume if args.resume is not None else int(args.checkpoint is None)
        if not resume:
            return Start(logdir, seed, path, state)
        # The data order and all noise follow from the seed: a continued run keeps it.
        return Start(logdir, int(state["extras"]["seed"]), path, state, continues=True)

    def restore(self, trainer: Trainer, *, strict: bool) -> dict[str, Any]:
        """Loads the checkpoint into a trainer; returns what the hooks kept in it, nothing for a new run."""
        if self.path is None or self.state is None:
            return {}
        if self.continues:
            return checkpoint.restore(trainer, self.state, self.path)
        checkpoint.restore_weights(trainer, self.state, self.path, strict=strict)
        return {}

    def __str__(self) -> str:
        if self.path is None:
            what = "a new run"
        else:
            what = f"continues from {self.path.name}" if self.continues else f"begins with the weights of {self.path}"
        return f"{self.logdir}: {what}; seed {self.seed}"
