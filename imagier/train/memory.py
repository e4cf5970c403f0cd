"""The host's memory: how much of it is free, and how a process keeps what it has."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def count_free_bytes(machine: Path = MACHINE, container: Path = CONTAINER) -> int | None:
    """The free memory of the machine, or of the container around the process if that is less; None if unknown.

    machine: /proc/meminfo (Linux). container: the folder of its control group, version 2. The system's cache of files
    counts as free.
    """
    left = list(_left(machine, container))
    return max(min(left), 0) if left else None


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that tensors free, instead of returning it to the system and fetching it again.

    Without it every large tensor is new memory, whose pages the system clears one by one: a fifth of the time of a
    training on the CPU. Does nothing without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)


def _left(machine: Path, container: Path) -> Iterator[int]:
    if machine.is_file():
        yield _numbers(machine)["MemAvailable:"] * 1024
    limit = container / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()).isdecimal():  # else "max"
        about = _numbers(container / "memory.stat")
        used = int((container / "memory.current").read_text())
        yield int(most) - used + about["inactive_file"] + about["active_file"]


def _numbers(path: Path) -> dict[str, int]:
    """A file of lines "name number ..."."""
    words = [line.split() for line in path.read_text().splitlines()]
    return {name: int(number) for name, number, *_ in words}
