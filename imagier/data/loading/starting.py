"""Starts processes that read data, by any of Python's start methods (`multiprocessing.set_start_method`)."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from imagier.errors import UserError


@contextmanager
def start_processes(parts: Sequence[object]) -> Iterator[None]:
    """While this is open, processes can be started from any script, also by `spawn` and `forkserver`.

    parts: the objects that are sent to them, the data set first. UserError if they cannot be sent.
    """
    method = multiprocessing.get_start_method()
    if method == "fork":
        yield
        return
    if method == "forkserver":  # the server imports this once, and not each process again
        multiprocessing.set_forkserver_preload(["imagier.data.loading.loader"])
    # A new process runs the script of this one again, to have its classes, and so would start a second run if the
    # script has no `if __name__ == "__main__"`. Hence it does so only if the data are of these classes.
    needs_script = any(type(part).__module__ == "__main__" for part in parts)
    try:
        with warnings.catch_warnings(), nullcontext() if needs_script else _hide_script():
            warnings.filterwarnings("ignore", "Got pickle error")  # torch's; the error below says it
            yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error).lower():
            raise
        raise UserError(
            f"cannot be sent to the processes that read data ({error})",
            where=f"{type(parts[0]).__module__}.{type(parts[0]).__qualname__}",
            advice="keep open files and local functions out of its fields, or set data.num_workers: 0",
            code="unpicklable-dataset",
        ) from error


@contextmanager
def _hide_script() -> Iterator[None]:
    """While this is open, `multiprocessing` does not find the script that Python was started with."""
    main = sys.modules["__main__"]
    hidden: dict[str, object] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(hidden)
