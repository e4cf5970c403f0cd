"""Builds a store of another: read in parallel, safe from kills, read back at the end, and only then in its place."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError
from imagier.tools.stores.plan import Plan

Told = Callable[[int, int], None]
"""Is called with (done, total)."""
Progress = Callable[[str], AbstractContextManager[Told]]
"""Shows how far something has come, by what it is called."""

RECORD = np.dtype([("digest", "<u8"), ("length", "<i8"), ("modified", "<i8"), ("shard", "<i8")])
"""What the journal keeps of a file that was read: by it, a later run goes on, and the end is checked."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Writer(Protocol):
    """Puts files into an unfinished store in an order of its own. Its constructor neither reads nor writes."""

    store: str
    """The name of the format."""
    settings: str
    """What of its settings the bytes depend on."""

    def order(self, start: int) -> Iterator[tuple[str, str]]:
        """(type, key) of all files from file `start` on."""
        ...

    def kept(self, records: np.ndarray) -> int | None:
        """How many files, of those that the journal has, are safely there; the rest of what is there is dropped.

        None if what is there does not fit the journal.
        """
        ...

    def is_due(self, kind: str) -> bool:
        """Whether it is time to commit before a file of a type is added."""
        ...

    def add(self, kind: str, key: str, data: bytes) -> int:
        """Takes the next file; returns the number of its shard."""
        ...

    def commit(self) -> None:
        """Makes safe what was added."""
        ...

    def finish(self) -> Source:
        """Adds what makes the files a store, and opens it."""
        ...

    def close(self) -> None:
        """Lets go of all files, finished or not."""
        ...


@dataclass(frozen=True)
class Built:
    """A finished store."""

    files: int
    bytes: int
    continued_from: int
    """Files that an earlier, interrupted run had built."""


def build(
    source: Source,
    plan: Plan,
    out: Path,
    writer: Callable[[Path, Plan], Writer],
    *,
    settings: str = "",
    beside: Sequence[Path] = (),
    overwrite: bool = False,
    workers: int = 8,
    progress: Progress = lambda what: nullcontext(lambda done, total: None),
) -> Built:
    """Builds the store `out`, which is there when all of it was read back and compared, and not before.

    Until then everything is in a hidden folder beside it, from which the same call goes on after a kill. settings: what
    else the store depends on (where the files come from); beside: files to copy into it; overwrite: an old `out` goes
    when the new one is finished. Threads read, `workers` of them. UserError, with what to do, if anything fails.
    """
    site = _Site(out)
    made = writer(site.store, plan)
    site.check(overwrite)
    hashed = hashlib.sha256(f"{plan.digest()} {made.settings} {settings}".encode()).hexdigest()
    with site.locked(), site.told():
        site.settle(hashed)
        work = _Work(source, made, len(plan), workers)
        try:
            done = work.resumed(site.journal)
            if done is None:
                site.clear(hashed)
                made = writer(site.store, plan)
                work, done = _Work(source, made, len(plan), workers), 0
            with progress(f"building {made.store}") as told:
                work.write(site.journal, done, told)
            for path in beside:
                shutil.copyfile(path, site.store / path.name)
            records = site.records()
            with site.distrusted(), progress("reading it back") as told:
                work.check(made.finish(), plan, records, told)
        finally:
            made.close()
        site.publish()
    return Built(len(plan), int(records["length"].sum()), done)


@dataclass(frozen=True)
class _Work:
    """Files on their way from a source into a store."""

    source: Source
    writer: Writer
    total: int
    workers: int

    def resumed(self, journal: Path) -> int | None:
        """How many files need not be written again; the journal is cut to them. None if it is better to start anew."""
        records = _records(journal)
        done = self.writer.kept(records)
        if done is None or done > self.total:
            return None
        with journal.open("ab") as file:
            file.truncate(done * RECORD.itemsize)
        stamps = _ahead(lambda item: self.source.mtime_ns(*item), self._first(done), self.workers)
        same = all(stamp == record for stamp, record in zip(stamps, records["modified"][:done].tolist()))
        return done if same else None

    def write(self, path: Path, start: int, told: Told) -> None:
        """Files from `start` on. A file stands in the journal before it is safe in the store: never the other way."""
        with path.open("ab") as journal:
            ahead = _ahead(self._read, self.writer.order(start), self.workers)
            for done, (kind, key, data, digest, modified) in enumerate(ahead, start + 1):
                if self.writer.is_due(kind):
                    _sync(journal)
                    self.writer.commit()
                shard = self.writer.add(kind, key, data)
                journal.write(np.array((digest, len(data), modified, shard), RECORD).tobytes())
                told(done, self.total)
            _sync(journal)
            self.writer.commit()

    def check(self, made: Source, plan: Plan, records: np.ndarray, told: Told) -> None:
        """Reads everything back. UserError if it is not what was read from the source."""
        for kind, keys in plan.keys.items():
            if made.keys(kind) != list(keys):
                raise UserError("does not have the keys that were written", where=made.where(kind, keys[0]))

        def same(item: tuple[tuple[str, str], int, int]) -> bool:
            (kind, key), digest, length = item
            data = made.read(kind, key)
            return len(data) == length and _digest(data) == digest

        expected = zip(self.writer.order(0), records["digest"].tolist(), records["length"].tolist())
        for done, (good, (kind, key)) in enumerate(
            zip(_ahead(same, expected, self.workers), self.writer.order(0)), start=1
        ):
            if not good:
                raise UserError("is not what was written", where=made.where(kind, key))
            told(done, self.total)

    def _read(self, item: tuple[str, str]) -> tuple[str, str, bytes, int, int]:
        kind, key = item
        modified = self.source.mtime_ns(kind, key)  # before it is read: a change that comes after will show
        data = self.source.read(kind, key)
        return kind, key, data, _digest(data), modified

    def _first(self, count: int) -> Iterator[tuple[str, str]]:
        return (item for item, _ in zip(self.writer.order(0), range(count)))


class _Site:
    """The hidden folder where a store is built: the store, the journal, and what it is built of."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.folder = self.out.parent / f".{self.out.name}.partial"
        self.store = self.folder / "store"
        self.journal = self.folder / "journal"
        self.replaced = self.folder / "replaced"
        self.settings = self.folder / "settings"

    def check(self, overwrite: bool) -> None:
        """UserError if there is something that must stay."""
        if self._is_cut_off():
            with self.locked():  # or else another run is about to begin
                self._recover()
        is_taken = self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir()))
        if is_taken and not (overwrite and self.out.is_dir()):
            raise UserError(
                "is there already", where=one_line(str(self.out)), advice="build elsewhere, or replace it: --overwrite"
            )

    @contextmanager
    def told(self) -> Iterator[None]:
        """Says with every error that what was done is not lost."""
        rest = f"what is built so far stays in {one_line(str(self.folder))}, the same command goes on from there"
        try:
            yield
        except OSError as error:
            where = one_line(str(error.filename or self.out))
            raise UserError(f"{error.strerror} ({rest}, or delete it)", where=where) from error
        except UserError as error:
            raise UserError(f"{error} ({rest})" if self.folder.exists() else str(error)) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone: two runs in one folder would ruin each other's work."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock", timeout=0):
                yield
        except Timeout as error:
            raise UserError(
                "another run is building it", where=one_line(str(self.out)), advice="wait for its end"
            ) from error
        except OSError as error:
            raise UserError(str(error.strerror), where=one_line(str(self.folder)), advice="build elsewhere") from error

    def settle(self, settings: str) -> None:
        """Makes the folders, empty unless what is there was begun with the same settings."""
        before = self.settings.read_text() if self.settings.is_file() else ""
        if before != settings or not self.store.is_dir():
            self.clear(settings)

    def clear(self, settings: str) -> None:
        """Begins anew."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        self.journal.write_bytes(b"")
        self.settings.write_text(settings)

    def records(self) -> np.ndarray:
        return _records(self.journal)

    @contextmanager
    def distrusted(self) -> Iterator[None]:
        """What proves to be wrong is no good to go on from."""
        try:
            yield
        except UserError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise UserError(
                f"{error}; the disk may be faulty", advice="nothing was kept, run the command again"
            ) from error

    def publish(self) -> None:
        """Puts the finished store in its place."""
        for path in self.store.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if self.out.exists():
            shutil.rmtree(self.replaced, ignore_errors=True)
            self.out.rename(self.replaced)
        self.store.rename(self.out)
        shutil.rmtree(self.folder, ignore_errors=True)  # over NFS, a lock that is held stays; that harms nobody

    def _is_cut_off(self) -> bool:
        """Whether a kill came in the middle of `publish`."""
        return self.replaced.exists() or (self.out.exists() and self.folder.exists() and not self.store.exists())

    def _recover(self) -> None:
        """Ends what was cut off: where the new store is not in its place yet, the old one goes back to it."""
        if not self.out.exists() and self.replaced.exists():
            self.replaced.rename(self.out)
        elif self.out.exists() and not self.store.exists():
            shutil.rmtree(self.folder, ignore_errors=True)


def _records(journal: Path) -> np.ndarray:
    """The whole records of a journal; what a kill left of the last one does not count."""
    data = journal.read_bytes()
    return np.frombuffer(data[: len(data) - len(data) % RECORD.itemsize], RECORD)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _ahead(function: Callable[[_T], _R], items: Iterable[_T], workers: int) -> Iterator[_R]:
    """`function` of each item, in order, by threads that are a little ahead: all results would fill the memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
