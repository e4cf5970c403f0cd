"""One run at a time in a log folder, and one command at a time in a folder of images."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from imagier.errors import UserError
from imagier.run import config_changes
from imagier.run.experiment import CONFIG
from imagier.train import manifest
from imagier.train.checkpoint_files import BEST, LATEST
from imagier.train.disk import describe_error
from imagier.train.hooks import files, images, page, profile, report_file, tensorboard
from imagier.train.ranks import raise_on_all_ranks
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

NAME = "run.lock"
"""The locked file. It holds the process and the machine of the run, and is removed at its end."""

IMAGES_NAME = ".made.lock"
"""The same in a folder of images."""

FILES = (CONFIG, LATEST, BEST, manifest.NAME, files.NAME, page.NAME, page.COMMANDS, report_file.NAME)
FOLDERS = (config_changes.FOLDER, images.FOLDER, profile.FOLDER, tensorboard.FOLDER)

_HELD = (errno.EACCES, errno.EAGAIN)

_OWN: set[Path] = set()
"""The folders that threads of this process hold. A POSIX lock is the process's: it does not keep them from each other,
and whoever closes the file drops it for all."""

_OWN_GUARD = threading.Lock()


@contextmanager
def lock_folder(logdir: Path, runtime: Runtime) -> Iterator[None]:
    """Makes a run's folder, and keeps other runs out of it while this is open. UserError on all ranks if one is in it.

    The first rank holds the lock (POSIX, which NFS has, too). However its process ends, the system frees it.
    """
    with contextlib.ExitStack() as stack:
        with raise_on_all_ranks(runtime):
            if runtime.is_main:
                stack.enter_context(_hold_run(logdir))
        yield


@contextmanager
def lock_images(folder: Path, runtime: Runtime) -> Iterator[None]:
    """The same for a folder of images: two commands would take each other's half-written files for a killed one's."""
    with contextlib.ExitStack() as stack:
        with raise_on_all_ranks(runtime):
            if runtime.is_main:
                try:
                    stack.enter_context(_hold(folder, IMAGES_NAME))
                except OSError as error:
                    what, advice = f"cannot be written to: {describe_error(error)}", "make room, or write elsewhere"
                    raise UserError(what, where=folder, advice=advice, code="unwritable-folder") from error
        yield


def is_locked(logdir: Path) -> bool:
    """Whether another process holds the lock of a run's folder. False on a disk that has no locks."""
    try:
        with (logdir / NAME).open("rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD and not isinstance(error, FileNotFoundError)
    return False


def unwritable(logdir: Path, reason: str) -> UserError:
    """The error for a folder that cannot hold a run."""
    advice = "make room, or name another `logdir`"
    return UserError(f"cannot be written to: {reason}", where=logdir, advice=advice, code="unwritable-logdir")


@contextmanager
def _hold_run(logdir: Path) -> Iterator[None]:
    """UserError if the folder cannot be made or used, or if another run holds it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_hold(logdir, NAME))
            _check_content(logdir)
        except OSError as error:
            raise unwritable(logdir, describe_error(error)) from error
        yield


@contextmanager
def _hold(folder: Path, name: str) -> Iterator[None]:
    """Makes a folder, and locks a file in it. UserError if another process has it; OSError if it cannot be made."""
    with contextlib.ExitStack() as stack:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_keep_threads_out(folder))
        file = stack.enter_context(_open_and_lock(folder / name))
        stack.callback(_clean_up, folder / name, made)
        with contextlib.suppress(OSError):  # of a full disk: others are kept out all the same
            file.truncate(0)
            file.write(f"{os.getpid()} {socket.gethostname()}".encode())
        yield


def _clean_up(lock: Path, made: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        lock.unlink()
        for folder in made:  # of a run that did not begin
            folder.rmdir()


@contextmanager
def _keep_threads_out(logdir: Path) -> Iterator[None]:
    folder = logdir.resolve()
    with _OWN_GUARD:
        if folder in _OWN:
            raise _locked(logdir, str(os.getpid()), socket.gethostname())
        _OWN.add(folder)
    try:
        yield
    finally:
        _OWN.remove(folder)


def _check_content(logdir: Path) -> None:
    """UserError if something in a folder keeps a run from writing one of its files there."""
    for name in (*FILES, *FOLDERS):
        path = logdir / name
        if path.is_symlink() and not path.exists():
            what = "is a link to nowhere"
        elif path.exists() and path.is_dir() != (name in FOLDERS):
            what = "is a folder, not a file" if path.is_dir() else "is a file, not a folder"
        else:
            continue
        raise UserError(what, where=path, advice="remove it", code="in-the-way")


def _open_and_lock(path: Path) -> FileIO:
    """The locked file. UserError if another process has it."""
    while True:
        file = path.open("ab+", buffering=0)  # a buffer would be written again, and fail again, at the end
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:
                reason = describe_error(error)
                logger.warning(f"{path.parent}: its disk has no locks ({reason}): nothing keeps a second run out of it")
                return file
            file.seek(0)
            pid, _, host = file.read(1000).decode(errors="replace").partition(" ")
            file.close()
            raise _locked(path.parent, pid, host) from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the run before has just removed it


def _locked(logdir: Path, pid: str, host: str) -> UserError:
    return UserError(
        f"another command is writing there (process {pid or 'unknown'} on {host or 'an unknown machine'})",
        where=logdir,
        advice="wait for its end, stop it, or name another folder",
        code="folder-locked",
    )
