"""Starts processes that read data, by any of Python's start methods (`multiprocessing.set_start_method`)."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler

from imagier.errors import UserError


@contextmanager
def start_processes(parts: Sequence[object]) -> Iterator[None]:
    """While this is open, processes can be started from any script, also by `spawn` and `forkserver`.

    parts: the objects that are sent to them; what another one holds comes before it. UserError names the first that
    cannot be sent.
    """
    method = multiprocessing.get_start_method()
    if method == "fork" or not parts:
        with mute_advice():
            yield
        return
    if method == "forkserver":  # the server imports this once, and not each process again
        multiprocessing.set_forkserver_preload(["imagier.data.loading.loader"])
    # A new process runs the script of this one again, to have its classes, and so would start a second run if the
    # script has no `if __name__ == "__main__"`. Hence it does so only if the parts hold something of the script.
    needs_script = max(b"__main__" in _pickle(part) for part in parts)  # not any(): each is tried
    with nullcontext() if needs_script else hide_script(), mute_advice():
        yield


@contextmanager
def mute_advice() -> Iterator[None]:
    """While this is open, torch does not say that workers are more than cores: run/workers.py does, in a line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


@contextmanager
def hide_script() -> Iterator[None]:
    """While this is open, `multiprocessing` does not find the script that Python was started with."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(hidden)


def _pickle(part: object) -> bytes:
    set_spawning_popen(_Rehearsal())  # type: ignore[arg-type]
    try:
        return ForkingPickler.dumps(part).tobytes()
    except (pickle.PickleError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot be sent to the processes that read data ({error})",
            where=f"{type(part).__module__}.{type(part).__qualname__}",
            advice="keep open files and local functions out of its fields, or set data.num_workers: 0",
            code="unpicklable-dataset",
        ) from error
    finally:
        set_spawning_popen(None)


class _Rehearsal:
    """The process that things are pickled for, which locks and shared memory ask for: none is started yet."""

    @staticmethod
    def duplicate_for_child(descriptor: int) -> int:
        return descriptor

    DupFd = duplicate_for_child
