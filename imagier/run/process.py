"""The process of a run: what it is during the run, and that it is left as it was before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from imagier.data.loading.faults import translate_worker_errors
from imagier.errors import RunError
from imagier.run.options import RunOptions
from imagier.train import memory
from imagier.train import runtime as runtimes
from imagier.train.runtime import Runtime


@contextmanager
def open_runtime(options: RunOptions) -> Iterator[Runtime]:
    """The runtime of a run, for as long as this is open.

    Afterwards process groups, torch's random sources, cudnn's flags and the level of the logger `imagier` are as
    before. RunError if another rank cannot be reached any more.
    """
    runtime = runtimes.start(options.device, single=options.single_process, local_rank=options.local_rank)
    if options.owns_process and runtime.device.type == "cpu":
        memory.keep_freed_memory()
    try:
        with runtimes.restore_torch_state(runtime), mute_other_ranks(runtime), translate_worker_errors():
            yield runtime
    except RuntimeError as error:
        if runtime.world == 1 or not runtimes.is_lost_contact(error):
            raise
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"rank {runtime.rank}: another rank has ended, or cannot be reached ({reason}); the first error of any "
            "rank says why; start the run again to continue from its last checkpoint"
        ) from error
    finally:
        runtimes.stop(runtime)


@contextmanager
def mute_other_ranks(runtime: Runtime) -> Iterator[None]:
    """While this is open, ranks other than the first log warnings and errors only."""
    package = logging.getLogger("imagier")
    level = package.level
    if not runtime.is_main:
        package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(level)
