"""Names of options in errors: the package calls them as `RunOptions` does, the command line by their flags."""

from __future__ import annotations

import re

from imagier.errors import UserError

FLAGS = {
    "alpha": "--alpha",
    "bits": "--bits",
    "checkpoint": "--checkpoint",
    "classes": "--classes",
    "cluster": "--cluster",
    "config": "--config",
    "debug": "--debug",
    "device": "--device",
    "dry_run": "--dry-run",
    "all": "--all",
    "features": "--features",
    "fp16": "--fp16",
    "format": "--format",
    "full_size": "--full_size",
    "host": "--host",
    "inputs": "--input",
    "int8": "--int8",
    "k": "--k",
    "logdir": "--logdir",
    "metric": "--metric",
    "metrics": "--metrics",
    "no_serve": "--no-serve",
    "out": "--out",
    "port": "--port",
    "num_projections": "--num_projections",
    "num_splits": "--num_splits",
    "num_styles": "--num_styles",
    "num_subsets": "--num_subsets",
    "num_workers": "--num_workers",
    "overlap": "--overlap",
    "overwrite": "--overwrite",
    "push": "--push",
    "quality": "--quality",
    "resume=False": "--resume 0",
    "resume=True": "--resume 1",
    "seed": "--seed",
    "single_process=True": "--single_gpu",
    "steps": "--steps",
    "storage": "--storage",
    "style": "--style",
    "styles": "--style",
    "subset_size": "--subset_size",
    "tile": "--tile",
    "wandb": "--wandb",
    "weights": "--weights",
    "write": "--write",
}
"""Options of functions in `run`, and in errors also their values, with the flags that set them."""

_IN_BACKTICKS = re.compile(r"`([\w=]+)`")


def name_flags(error: UserError) -> UserError:
    """The same error with flags in place of options: at the start of `where`, and in backticks elsewhere."""
    option, space, value = error.where.partition(" ")
    where = f"{FLAGS[option]}{space}{value}" if option in FLAGS else error.where
    return UserError(_replace(error.what), where=where, advice=_replace(error.advice), code=error.code)


def _replace(text: str) -> str:
    return _IN_BACKTICKS.sub(lambda found: FLAGS.get(found[1], found[0]), text)
