"""The names of classes in checkpoints: a continued run must number its classes as it did before."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from imagier.errors import UserError

logger = logging.getLogger(__name__)

KEY = "classes"
"""Where the extras of a checkpoint hold them: the names of the classes of each label, in order."""


def check_class_names(extras: Mapping[str, Any], classes: Mapping[str, Sequence[str]], where: object) -> None:
    """UserError if the data number classes in another way than those that a run was trained on.

    Classes after all others are new ones, and right. extras: of the checkpoint that the run continues from; empty for
    a new run, and for one of the reference. where: the checkpoint.
    """
    if KEY in extras:
        for label, before in extras[KEY].items():
            now = list(classes.get(label, ()))
            if now[: len(before)] != list(before):
                raise UserError(
                    f"was trained with other classes: {label} {_first_difference(before, now)}",
                    where=where,
                    advice="restore the folders, or start a new run from it: `checkpoint`, another `logdir`",
                    code="other-classes",
                )
    elif extras and len(set(map(tuple, classes.values()))) > 1:
        logger.warning(
            f"{where}: an earlier version numbered the classes of contents and styles together; now each has its own "
            "numbers, as in the reference, so embeddings of classes change their meaning"
        )


def _first_difference(before: Sequence[str], now: Sequence[str]) -> str:
    number = next(i for i, name in enumerate(before) if list(now[i : i + 1]) != [name])
    return f"{number} was {before[number]}, now is {now[number] if number < len(now) else 'missing'}"
