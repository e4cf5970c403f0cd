"""How much memory is left, by files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagier.train import memory

GIB = 2**30


def machine(folder: Path, free: int) -> Path:
    path = folder / "meminfo"
    path.write_text(f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {free // 1024} kB\nHugePages: 0\n")
    return path


def container(folder: Path, limit: str, used: int, cached: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached // 2}\nactive_file {cached // 2}\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "used", "cached", "left"),
    [
        ("max", 60 * GIB, 0, 10 * GIB),
        (str(32 * GIB), 20 * GIB, 0, 10 * GIB),
        (str(8 * GIB), 5 * GIB, 0, 3 * GIB),
        (str(8 * GIB), 8 * GIB, 6 * GIB, 6 * GIB),
        (str(8 * GIB), 9 * GIB, 0, 0),
    ],
)
def test_what_is_left_is_the_less_of_the_machine_and_the_container(
    tmp_path: Path, limit: str, used: int, cached: int, left: int
) -> None:
    assert memory.count_free_bytes(machine(tmp_path, 10 * GIB), container(tmp_path, limit, used, cached)) == left


def test_without_such_files_nothing_is_said(tmp_path: Path) -> None:
    assert memory.count_free_bytes(tmp_path / "none", tmp_path) is None


def test_this_machine_has_some_memory_left_where_it_tells() -> None:
    if memory.MACHINE.is_file():
        assert memory.count_free_bytes()
