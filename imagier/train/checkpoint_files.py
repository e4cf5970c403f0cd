"""The checkpoints of a log folder: which is the latest, whether they are intact, and which are kept."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from imagier.errors import UserError
from imagier.train import manifest
from imagier.train.disk import LONGEST_NAME, describe_error, evict_from_cache, write_atomic
from imagier.train.manifest import DamagedManifest, Entry

logger = logging.getLogger(__name__)

LATEST = "latest_checkpoint.txt"
BEST = "best_checkpoint.txt"

_CHUNK_BYTES = 2**20


class Unusable(UserError):
    """A checkpoint that is missing or not as it was written, so that an earlier one is needed."""


@dataclass(frozen=True)
class RetentionPolicy:
    """Which checkpoints are kept. Files that this run did not write are always kept."""

    last: int | None = None
    """Keep this many of the latest; None: all."""
    every: int | None = None
    """Also keep those of the multiples of this number of iterations."""
    best: str | None = None
    """Also keep the one with the best value of this metric."""
    higher_is_better: bool = False

    def find_best(self, entries: Sequence[Entry]) -> Entry | None:
        """The entry with the best value of the metric, the earliest of several; None if none has one."""
        if self.best is None:
            return None
        scored = [entry for entry in entries if self.best in entry.metrics]
        sign = -1 if self.higher_is_better else 1
        return min(scored, key=lambda entry: sign * entry.metrics[self.best or ""], default=None)

    def expired(self, entries: Sequence[Entry]) -> list[Entry]:
        """Entries whose files may be removed."""
        if self.last is None:
            return []
        written = [entry for entry in entries if entry.sha256 is not None]
        best = self.find_best(entries)
        older = [entry for entry in written[: -self.last] if entry is not best]
        return [entry for entry in older if self.every is None or entry.step % self.every]


ALL = RetentionPolicy()


class CheckpointFiles:
    """Adds checkpoints to a log folder and removes expired ones. For one thread at a time.

    The order is: the file, the manifest, latest_checkpoint.txt, and only then the removals. The process may die between
    any two of them.
    """

    def __init__(self, logdir: Path, keep: RetentionPolicy = ALL, entries: Sequence[Entry] = ()) -> None:
        self.logdir = logdir
        self.keep = keep
        self.entries = list(entries)
        self.last_good: str | None = entries[-1].name if entries else None
        """The name of the checkpoint from which a run would continue."""
        self._best: str | None = None
        self._should_prune = True
        """That of the newest."""

    def add(self, state: Mapping[str, Any], epoch: int | None = None, should_prune: bool = True) -> None:
        """Writes the state of a run. OSError if it is not on the disk.

        epoch: that of its name; None: of its data. should_prune: whether what expires is removed, until the next one;
        False if this one may be worth less.
        """
        step = state["current_iteration"]
        epoch = state["current_epoch"] if epoch is None else epoch
        path = self.logdir / manifest.format_file_name(epoch, step)
        others = [entry for entry in self.entries if entry.name != path.name]
        if len(others) < len(self.entries):  # written again: for a moment its hash would be that of the old file
            self._record(others)
        size, sha256 = write_state(path, state)
        self._record([*others, Entry(path.name, step, epoch, size, sha256, round(time.time(), 3))])
        self.point(path.name)
        self._should_prune = should_prune
        self._prune()

    def point(self, name: str) -> None:
        """Makes an existing checkpoint the one from which a run continues; raises what `add` does."""
        _write_pointer(self.logdir / LATEST, name)
        self.last_good = name

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the scores of the checkpoint of a step, if there is one; raises what `add` does."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        noted = [replace(entry, metrics=finite) if entry.step == step else entry for entry in self.entries]
        if noted == self.entries:
            return
        self._record(noted)
        self._prune()

    def _record(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        manifest.write(self.logdir, self.entries)

    def _prune(self) -> None:
        """Points to the best checkpoint, and removes expired ones, if the newest can be read back from the disk."""
        best = self.keep.find_best(self.entries)
        if best is not None and best.name != self._best:
            try:
                _write_pointer(self.logdir / BEST, best.name)
            except OSError as error:  # the one that it names may be expired: all stay
                logger.warning(f"{self.logdir / BEST}: cannot be written: {describe_error(error)}")
                return
            self._best = best.name
        expired = self.keep.expired(self.entries)
        if not expired or not self._should_prune:
            return
        try:
            evict_from_cache(self.logdir / self.entries[-1].name)
            verify(self.logdir / self.entries[-1].name, self.entries[-1])
            for entry in expired:
                (self.logdir / entry.name).unlink(missing_ok=True)
            self._record([entry for entry in self.entries if entry not in expired])
        except (OSError, Unusable) as error:  # entries of files that are gone are dropped the next time
            logger.warning(f"older checkpoints are not removed: {error}")


def save_state(logdir: Path, state: Mapping[str, Any]) -> Path:
    """Adds a checkpoint to a folder at once, and removes none; returns its path."""
    files = CheckpointFiles(logdir, entries=manifest.read_or_scan(logdir))
    files.add(state)
    assert files.last_good is not None
    return logdir / files.last_good


def write_state(path: Path, state: Mapping[str, Any]) -> tuple[int, str]:
    """Writes a file with torch.save; returns its size in bytes and its SHA-256. OSError if it is not on the disk."""
    with write_atomic(path) as file:
        hashing = _HashingFile(file)
        torch.save(state, hashing)  # type: ignore[arg-type]
        if hashing.error is not None:
            raise hashing.error
    return hashing.size, hashing.sha256.hexdigest()


def read_pointer(logdir: Path) -> Path | None:
    """The path that latest_checkpoint.txt names, None if there is no such file. UserError if it names nothing."""
    pointer = logdir / LATEST
    try:
        first_line = pointer.read_text(encoding="utf-8-sig").split("\n")[0]
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _bad_pointer(pointer, "is not text") from error
    except OSError as error:
        raise _bad_pointer(pointer, f"cannot be read ({describe_error(error)})") from error
    words = first_line.split()
    if not words:
        raise _bad_pointer(pointer, "is empty")
    if not words[-1].isprintable() or len(Path(words[-1]).name) > LONGEST_NAME:
        raise _bad_pointer(pointer, "names no file")
    return logdir / words[-1]


def _bad_pointer(pointer: Path, what: str) -> UserError:
    advice = "write the name of a checkpoint into it, or remove it to continue from the newest one"
    return UserError(what, where=pointer, advice=advice, code="bad-checkpoint-pointer")


def find_latest(logdir: Path) -> Path | None:
    """The checkpoint that latest_checkpoint.txt names, None if there is no such file. UserError if it names none."""
    path = read_pointer(logdir)
    if path is not None and not path.is_file():
        raise Unusable(
            f"names {path.name}, which is not there",
            where=logdir / LATEST,
            advice="correct it, or remove it to use the newest one that is there",
            code="missing-checkpoint",
        )
    return path


def find_earlier(path: Path) -> list[Path]:
    """The checkpoints beside a file that the same run wrote before it, the latest first.

    From the manifest, or, if there is none that can be read, from the names of the files.
    """
    at = manifest.parse_name(path.name)
    if at is None:
        return []
    entries = manifest.read_or_scan(path.parent)
    steps = sorted(((entry.step, entry.name) for entry in entries if entry.step < at[1]), reverse=True)
    return [path.parent / name for _, name in steps]


def verify(path: Path, entry: Entry) -> None:
    """Unusable if a file is not what was written, by its size and hash."""
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            what = f"is damaged: it has {size:,} bytes, {entry.bytes:,} were written"
            raise Unusable(what, where=path, code="damaged-checkpoint")
        if entry.sha256 is not None and _sha256(path) != entry.sha256:
            raise Unusable(
                f"is damaged: its hash is not the one in {manifest.NAME}",
                where=path,
                advice="if you changed it, give it another name",
                code="damaged-checkpoint",
            )
    except OSError as error:
        raise Unusable(f"cannot be read ({describe_error(error)})", where=path, code="unreadable-checkpoint") from error


def read_entries(logdir: Path, unusable: Collection[str] = ()) -> list[Entry]:
    """The manifest of a run that goes on, without the entries that the files contradict, which are logged.

    unusable: names of checkpoints that are known to be damaged.
    """
    path = logdir / manifest.NAME
    try:
        entries = manifest.read(logdir)
    except FileNotFoundError:
        return [entry for entry in manifest.scan_folder(logdir) if entry.name not in unusable]
    except DamagedManifest as error:
        entries = [entry for entry in manifest.scan_folder(logdir) if entry.name not in unusable]
        logger.warning(f"{path}: is damaged ({error}); rebuilt from the {len(entries)} checkpoints in the folder")
        return entries
    good = [entry for entry in entries if entry.name not in unusable and _size(logdir / entry.name) == entry.bytes]
    dropped = [entry.name for entry in entries if entry not in good and entry.name not in unusable]
    if dropped:
        logger.warning(f"{path}: no longer there, or not as written: {', '.join(dropped)}")
    return good


class _HashingFile:
    """A file that counts and hashes what is written to it.

    It keeps its first error for later: raised at once, torch's writer would hide it behind another one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        """Writes all of it, or drops it if the disk has failed before."""
        if self.error is None:
            try:
                self.file.write(data)
                self.size += len(data)
                self.sha256.update(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Writes what is left in the buffer."""
        try:
            self.file.flush()
        except OSError as error:
            self.error = self.error or error


def _write_pointer(pointer: Path, name: str) -> None:
    """Writes latest_checkpoint.txt or best_checkpoint.txt."""
    with write_atomic(pointer) as file:
        file.write(f"{pointer.stem}: {name}\n".encode())


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()
