"""A lock for threads of which one computes, while others wait for files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ComputeLock:
    """Held by the one thread that computes, which releases it while it waits for a file.

    So any number of files can be waited for at once, and yet nothing that threads do with them happens at once: data
    sets, codecs and augmentations need know nothing of threads. Pickled, it is a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __reduce__(self) -> tuple[type[ComputeLock], tuple[()]]:
        return ComputeLock, ()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """While this is open, this thread computes."""
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None

    @contextmanager
    def release(self) -> Iterator[None]:
        """While this is open, other threads may compute. In a thread that does not hold the lock, nothing happens."""
        if self._holder != threading.get_ident():
            yield
            return
        self._holder = None
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._holder = threading.get_ident()
