"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from imagier.train import disk
from imagier.train.disk import AppendFile, describe_error, remove_temporaries, write_atomic


def name_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), write_atomic(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    synced: list[tuple[Path, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((name_of(descriptor), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with write_atomic(path) as file:
        file.write(b"new")
    (of_file, before), (of_folder, after) = synced
    assert of_file.parent == tmp_path and not before
    assert (of_folder, after) == (tmp_path, True)


def test_a_file_system_that_cannot_sync_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if name_of(descriptor).is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with write_atomic(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_only_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.tmp", ".a.tmp", ".hidden", "x.pt", ".a.1.tmp.gz")]
    for path in [*kept, tmp_path / ".x.pt.123.tmp"]:
        path.touch()
    remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_reasons_are_the_systems_words() -> None:
    assert describe_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "No space left on device"
    assert describe_error(OSError("the server is gone")) == "the server is gone"


def test_what_waits_for_a_disk_loses_its_oldest_pieces_but_never_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MOST_WAITING_BYTES", 8)
    (tmp_path / "folder").touch()
    file = AppendFile(tmp_path / "folder" / "file", b"head")
    for piece in (b"1;", b"2;", b"3;"):
        with pytest.raises(FileExistsError):
            file.append(piece)
    (tmp_path / "folder").unlink()
    file.append(b"4;")
    file.append(b"a longer piece;")
    file.close()
    assert (tmp_path / "folder" / "file").read_bytes() == b"head3;4;a longer piece;"
