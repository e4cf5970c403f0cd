"""A quick look at a data set before a run: what is wrong with it in one line each."""

from __future__ import annotations

import time

import numpy as np

from imagier.data.loader import Dataset
from imagier.errors import UserError


def quick_check(dataset: Dataset, *, seconds: float = 2.0, most: int = 200) -> list[str]:
    """Reads samples spread evenly over the set, for at most so long; the lines that name wrong files."""
    problems = []
    deadline = time.monotonic() + seconds
    for index in np.unique(np.linspace(0, len(dataset) - 1, most).astype(int)) if len(dataset) else ():
        try:
            dataset.load(int(index))
        except UserError as error:
            problems.append(str(error))
        if time.monotonic() > deadline:
            break
    return problems
