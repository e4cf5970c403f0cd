"""Builds a store from another: parallel, resumable after a kill, and verified before it moves into place."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from imagier.data.sources.source import Source, one_line
from imagier.errors import UserError
from imagier.run.progress import ProgressBar, Update
from imagier.tools.stores.plan import Plan

RECORD = np.dtype([("digest", "<u8"), ("length", "<i8"), ("modified", "<i8"), ("shard", "<i8")])
"""The journal's entry for a file that was read. A later run resumes from it, and the final check compares with it."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Writer(Protocol):
    """Adds files to an unfinished store, in an order of its own. Its constructor neither reads nor writes."""

    store: str
    """The name of the format."""
    settings: str
    """Those of its settings that the bytes depend on."""

    def iter_files(self, start: int) -> Iterator[tuple[str, str]]:
        """(type, key) of all files, from number `start` on, in the order in which they are added."""
        ...

    def recover(self, records: np.ndarray) -> int | None:
        """Returns how many of the journal's files are safely stored, and drops everything after them.

        None if the store does not match the journal.
        """
        ...

    def should_commit(self, input_type: str) -> bool:
        """Whether to commit before adding a file of this type."""
        ...

    def add(self, input_type: str, key: str, data: bytes) -> int:
        """Adds the next file; returns the number of its shard."""
        ...

    def commit(self) -> None:
        """Makes everything added so far durable."""
        ...

    def finish(self) -> Source:
        """Completes the store and opens it."""
        ...

    def close(self) -> None:
        """Closes all files, finished or not."""
        ...


@dataclass(frozen=True)
class BuildSummary:
    """A finished store."""

    files: int
    bytes: int
    continued_from: int
    """Files built by an earlier, interrupted run."""


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
    progress: ProgressBar = lambda what: nullcontext(lambda done, total: None),
) -> BuildSummary:
    """Builds the store `out`, which appears only after all of it was read back and compared.

    Until then everything is in a hidden folder next to it, from which the same call resumes after a kill.
    settings: what else the store depends on, such as the root of the source. beside: files to copy into the store.
    overwrite: replace an existing `out` once the new store is finished. workers: threads that read.
    UserError if anything fails.
    """
    folder = _BuildFolder(out)
    unfinished = writer(folder.store, plan)
    folder.check(overwrite)
    hashed = hashlib.sha256(f"{plan.compute_digest()} {unfinished.settings} {settings}".encode()).hexdigest()
    with folder.lock(), folder.translate_errors():
        folder.prepare(hashed)
        transfer = _Transfer(source, unfinished, len(plan), workers)
        try:
            done = transfer.resume(folder.journal)
            if done is None:
                folder.clear(hashed)
                unfinished = writer(folder.store, plan)
                transfer, done = _Transfer(source, unfinished, len(plan), workers), 0
            with progress(f"building {unfinished.store}") as update:
                transfer.write(folder.journal, done, update)
            for path in beside:
                shutil.copyfile(path, folder.store / path.name)
            records = _read_records(folder.journal)
            with folder.discard_if_wrong(), progress("reading it back") as update:
                transfer.check(unfinished.finish(), plan, records, update)
        finally:
            unfinished.close()
        folder.publish()
    return BuildSummary(len(plan), int(records["length"].sum()), done)


@dataclass(frozen=True)
class _Transfer:
    """Copies files from a source into a store."""

    source: Source
    writer: Writer
    total: int
    workers: int

    def resume(self, journal: Path) -> int | None:
        """Returns how many files need not be written again, and cuts the journal to them. None: start again."""
        records = _read_records(journal)
        done = self.writer.recover(records)
        if done is None or done > self.total:
            return None
        with journal.open("ab") as file:
            file.truncate(done * RECORD.itemsize)
        stamps = _map_ahead(lambda item: self.source.mtime_ns(*item), self._first(done), self.workers)
        is_unchanged = all(stamp == record for stamp, record in zip(stamps, records["modified"][:done].tolist()))
        return done if is_unchanged else None

    def write(self, path: Path, start: int, update: Update) -> None:
        """Writes the files from `start` on. A file is always in the journal before it is durable in the store."""
        with path.open("ab") as journal:
            ahead = _map_ahead(self._read, self.writer.iter_files(start), self.workers)
            for done, (input_type, key, data, digest, modified) in enumerate(ahead, start + 1):
                if self.writer.should_commit(input_type):
                    _sync(journal)
                    self.writer.commit()
                shard = self.writer.add(input_type, key, data)
                journal.write(np.array((digest, len(data), modified, shard), RECORD).tobytes())
                update(done, self.total)
            _sync(journal)
            self.writer.commit()

    def check(self, made: Source, plan: Plan, records: np.ndarray, update: Update) -> None:
        """Reads everything back. UserError if it differs from what was read from the source."""
        for input_type, keys in plan.keys.items():
            if made.keys(input_type) != list(keys):
                where = made.where(input_type, keys[0])
                raise UserError("does not have the keys that were written", where=where, code="wrong-keys")

        def is_same(item: tuple[tuple[str, str], int, int]) -> bool:
            (input_type, key), digest, length = item
            data = made.read(input_type, key)
            return len(data) == length and _digest(data) == digest

        expected = zip(self.writer.iter_files(0), records["digest"].tolist(), records["length"].tolist())
        for done, (good, (input_type, key)) in enumerate(
            zip(_map_ahead(is_same, expected, self.workers), self.writer.iter_files(0)), start=1
        ):
            if not good:
                raise UserError("differs from what was written", where=made.where(input_type, key), code="wrong-bytes")
            update(done, self.total)

    def _read(self, item: tuple[str, str]) -> tuple[str, str, bytes, int, int]:
        input_type, key = item
        modified = self.source.mtime_ns(input_type, key)  # before reading, so that a later change is noticed
        data = self.source.read(input_type, key)
        return input_type, key, data, _digest(data), modified

    def _first(self, count: int) -> Iterator[tuple[str, str]]:
        return (item for item, _ in zip(self.writer.iter_files(0), range(count)))


class _BuildFolder:
    """The hidden folder of an unfinished build: the store, the journal, and a hash of the settings."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.folder = self.out.parent / f".{self.out.name}.partial"
        self.store = self.folder / "store"
        self.journal = self.folder / "journal"
        self.replaced = self.folder / "replaced"
        self.settings = self.folder / "settings"

    def check(self, overwrite: bool) -> None:
        """UserError if `out` exists and must not be replaced."""
        if self._is_cut_off():
            with self.lock():  # otherwise another run may be starting here
                self._recover()
        is_taken = self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir()))
        if is_taken and not (overwrite and self.out.is_dir()):
            raise UserError(
                "already exists",
                where=one_line(str(self.out)),
                advice="build elsewhere, or replace it with --overwrite",
                code="store-exists",
            )

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Adds to every error that the work so far is not lost."""
        resume = f"the same command resumes from {one_line(str(self.folder))}"
        try:
            yield
        except OSError as error:
            where = one_line(str(error.filename or self.out))
            advice = f"{resume}; or delete that folder"
            raise UserError(str(error.strerror), where=where, advice=advice, code="build-failed") from error
        except UserError as error:
            if not self.folder.exists():
                raise
            advice = f"{error.advice}; {resume}" if error.advice else resume
            raise UserError(error.what, where=error.where, advice=advice, code=error.code) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder against a second run."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock", timeout=0):
                yield
        except Timeout as error:
            raise UserError(
                "another run is building it",
                where=one_line(str(self.out)),
                advice="wait until it has finished",
                code="build-running",
            ) from error
        except OSError as error:
            where = one_line(str(self.folder))
            raise UserError(str(error.strerror), where=where, advice="build elsewhere", code="unwritable") from error

    def prepare(self, settings: str) -> None:
        """Creates the folders. Keeps what an interrupted run with the same settings left, clears anything else."""
        previous = self.settings.read_text() if self.settings.is_file() else ""
        if previous != settings or not self.store.is_dir():
            self.clear(settings)

    def clear(self, settings: str) -> None:
        """Empties the store and the journal."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        self.journal.write_bytes(b"")
        self.settings.write_text(settings)

    @contextmanager
    def discard_if_wrong(self) -> Iterator[None]:
        """Deletes the build if the check fails: nothing of it can be trusted."""
        try:
            yield
        except UserError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            advice = "nothing was kept; run the command again, and check the disk if this happens again"
            raise UserError(error.what, where=error.where, advice=advice, code=error.code) from error

    def publish(self) -> None:
        """Moves the finished store into place."""
        for path in self.store.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if self.out.exists():
            shutil.rmtree(self.replaced, ignore_errors=True)
            self.out.rename(self.replaced)
        self.store.rename(self.out)
        shutil.rmtree(self.folder, ignore_errors=True)  # over NFS, a held lock file stays; that is harmless

    def _is_cut_off(self) -> bool:
        """Whether a kill interrupted `publish`."""
        return self.replaced.exists() or (self.out.exists() and self.folder.exists() and not self.store.exists())

    def _recover(self) -> None:
        """Completes an interrupted `publish`, or moves the old store back if the new one is not in place yet."""
        if not self.out.exists() and self.replaced.exists():
            self.replaced.rename(self.out)
        elif self.out.exists() and not self.store.exists():
            shutil.rmtree(self.folder, ignore_errors=True)


def _read_records(journal: Path) -> np.ndarray:
    """The complete records of a journal, without a last one that a kill cut off."""
    data = journal.read_bytes()
    return np.frombuffer(data[: len(data) - len(data) % RECORD.itemsize], RECORD)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _map_ahead(function: Callable[[_T], _R], items: Iterable[_T], workers: int) -> Iterator[_R]:
    """`function` of each item, in order. Threads compute a few results ahead, to bound the memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
