"""Threads that take turns: one computes, while others wait for files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Held by one thread at a time, which hands it on while it waits for a file.

    So any number of files can be waited for at once, and yet nothing that threads do with them happens at once: data
    sets, codecs and augmentations need know nothing of threads. Pickled, it is a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    @contextmanager
    def take(self) -> Iterator[None]:
        """While this is open, it is this thread's turn."""
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None

    @contextmanager
    def release(self) -> Iterator[None]:
        """While this is open, it is the turn of others; nothing happens in a thread whose turn it was not."""
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
