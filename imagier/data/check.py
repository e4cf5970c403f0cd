"""A quick look at a data set before a run: what is wrong with it in one line each."""

from __future__ import annotations

import time

import numpy as np

from imagier.data.loader import Dataset
from imagier.errors import UserError


def quick_check(dataset: Dataset, *, seconds: float = 2.0, most: int = 200) -> list[str]:
    """Reads samples spread evenly over the set, for at most so long; the lines that name wrong files.

    They are read in a fixed random order, so that those read before the time is over come from all of the set too.
    """
    problems = []
    deadline = time.monotonic() + seconds
    count = min(most, len(dataset))
    for i in np.random.default_rng(0).permutation(count):
        try:
            dataset.load(int(i) * len(dataset) // count)
        except UserError as error:
            problems.append(str(error))
        if time.monotonic() > deadline:
            break
    return problems
