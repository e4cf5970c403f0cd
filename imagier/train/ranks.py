"""What the first rank does for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagier.errors import UserError
from imagier.train.runtime import Runtime


@contextmanager
def raise_on_all_ranks(runtime: Runtime) -> Iterator[None]:
    """A UserError of the first rank while this is open is raised on all ranks at its end. All ranks must open it."""
    problem = None
    try:
        yield
    except UserError as error:
        if not runtime.is_main:
            raise
        problem = error
    problem = runtime.broadcast(problem)
    if problem is not None:
        raise problem
