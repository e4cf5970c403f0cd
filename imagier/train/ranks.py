"""What one rank does for all, and what all agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imagier.errors import UserError
from imagier.train.runtime import Runtime


class LateMax:
    """The largest value of all ranks, as of the call before, so that none waits for the slowest; of one, as of this.

    The first call waits. All ranks must call it as often.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._before: Callable[[], int] | None = None

    def __call__(self, value: int) -> int:
        """value: of this rank, now."""
        found = self.runtime.all_reduce_max_async(value)
        before, self._before = self._before, found
        return (found if before is None or self.runtime.world == 1 else before)()


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
