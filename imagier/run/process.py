"""The process of a run: what it is during the run, and that it is left as it was before."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from imagier.data.loading.faults import translate_worker_errors
from imagier.errors import RunError, UserError
from imagier.run.options import RunOptions
from imagier.train import memory
from imagier.train import runtime as runtimes
from imagier.train.runtime import Runtime

FEWEST_FILES = 64
"""Open files that a run with two processes for data keeps to."""

ENOUGH_FILES = 65536

_OUT_OF_MEMORY = re.compile("an(?:'t|not) allocate memory|out of memory|could not create a (?:memory|primitive$)")
"""Words by which torch's errors are recognized."""


@contextmanager
def open_runtime(options: RunOptions) -> Iterator[Runtime]:
    """The runtime of a run, for as long as this is open.

    Afterwards process groups, torch's random sources, cudnn's flags and the level of the logger `imagier` are as
    before. RunError if another rank cannot be reached any more.
    """
    if options.owns_process:
        raise_file_limit()
    runtime = runtimes.start(options.device, single=options.single_process, local_rank=options.local_rank)
    if options.owns_process and runtime.device.type == "cpu":
        memory.keep_freed_memory()
    try:
        with runtimes.restore_torch_state(runtime), mute_other_ranks(runtime), translate_worker_errors():
            yield runtime
    except RunError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        if (ended := _explain_limit(error)) is not None:
            raise ended from error
        if runtime.world == 1 or not isinstance(error, RuntimeError) or not runtimes.is_lost_contact(error):
            raise
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"rank {runtime.rank}: another rank has ended, or cannot be reached ({reason}); the first error of any "
            "rank says why; start the run again to continue from its last checkpoint"
        ) from error
    finally:
        runtimes.stop(runtime)


def raise_file_limit() -> None:
    """Raises this process's limit of open files as far as it may. UserError if no run could keep to it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # of a system with a lower limit than the hard one, as macOS
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft != resource.RLIM_INFINITY and soft < FEWEST_FILES:
        what = f"allows {soft} open files, of which a run needs {FEWEST_FILES} or more"
        raise UserError(what, where="the limit `ulimit -n`", advice="raise it", code="few-files")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused, that of the host or of a GPU."""
    is_known = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return is_known or _OUT_OF_MEMORY.search(str(error).partition("\n")[0]) is not None


def _explain_limit(error: BaseException) -> RunError | None:
    """What the system refused a run, and how to get it; None for any other error."""
    reason = str(error).partition("\n")[0]
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in reason:
        return RunError(f"too many open files ({reason[:80]}); raise the limit (ulimit -n), or lower data.num_workers")
    if is_out_of_memory(error):
        advice = "lower batch_size, the size of the networks or data.num_workers, or raise the limit (ulimit -v)"
        if isinstance(error, torch.OutOfMemoryError):  # that of the GPU
            advice = "lower batch_size (trainer.accumulate makes up for it), or compute in half precision (amp_config)"
        return RunError(f"out of memory ({reason[:200] or 'of the host'}); {advice}")
    return None


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
