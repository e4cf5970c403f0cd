"""Sets of small files for tests of stores."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import lmdb
import numpy as np
import pytest
from images import write

from imagier.data.sources.retry import RetryPolicy
from imagier.data.sources.source import Source
from imagier.errors import UserError

EXTENSIONS = {"images": "jpg", "maps": "png"}


def fail_if_called(seconds: float) -> None:
    pytest.fail("tried again")


NO_RETRY = RetryPolicy(sleep=fail_if_called)


def catch(work: Callable[[], object]) -> UserError:
    """The mistake that ends some work; its text is one line."""
    with pytest.raises(UserError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return caught.value


def folder(
    root: Path, keys: Sequence[str], extensions: Mapping[str, str] = EXTENSIONS, *, most_bytes: int = 2000
) -> Path:
    """A folder with a file of random bytes for every key and type; the same at every call."""
    rng = np.random.default_rng(0)
    for input_type, ext in extensions.items():
        for key in keys:
            write(root / input_type / f"{key}.{ext}", rng.bytes(int(rng.integers(most_bytes))))
    return root


def contents(source: Source) -> dict[tuple[str, str], bytes]:
    """All files of a source, in its order."""
    return {(name, key): source.read(name, key) for name in EXTENSIONS for key in source.keys(name)}


def read_there(item: tuple[Source, str]) -> tuple[int, bytes]:
    """What a process reads, and which one it is; light to import, for those that are spawned."""
    return os.getpid(), item[0].read("images", item[1])


def reference_lmdb(root: Path, values: Mapping[str, Mapping[str, bytes]], filenames: object) -> Path:
    """An LMDB as the reference's script lays it out, written by the package lmdb alone. values: by type and key."""
    for name, of_type in values.items():
        (root / name).mkdir(parents=True)
        with lmdb.open(str(root / name), map_size=2**24) as environment, environment.begin(write=True) as transaction:
            for key, value in of_type.items():
                transaction.put(key.encode("ascii"), value)
    (root / "all_filenames.json").write_text(json.dumps(filenames, indent=4))
    (root / "metadata.json").write_text(json.dumps({name: EXTENSIONS.get(name, "png") for name in values}, indent=4))
    return root


def tar(path: Path, members: Sequence[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """A tar archive of files, or of headers alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, BytesIO(member[1]))
    return path


@contextmanager
def as_somebody(*reached: Path) -> Iterator[None]:
    """Without the rights of the superuser, who may do everything; the folders up to `reached` can be passed."""
    if os.geteuid() != 0:
        yield
        return
    closed = [folder for path in reached for folder in path.parents if folder.stat().st_mode & 0o755 != 0o755]
    modes = {folder: folder.stat().st_mode for folder in closed}
    for folder in closed:
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in modes.items():
            folder.chmod(mode)
