"""How much of the host's memory a process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def free_bytes(machine: Path = MACHINE, container: Path = CONTAINER) -> int | None:
    """What is left on the machine, and in the container around the process, whichever is less; None if nothing tells.

    machine: /proc/meminfo (Linux). container: the folder of its control group, version 2. What the system would give up
    for it, the contents of files that were read, counts as free.
    """
    left = list(_left(machine, container))
    return max(min(left), 0) if left else None


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
