"""The quick look at a data set before a run."""

from __future__ import annotations

import time

import numpy as np
import pytest

from imagier.data.check import quick_check
from imagier.data.sample import Sample
from imagier.errors import UserError


class Noted:
    """A data set that notes what is read; some files are broken, and reading takes a while on a clock of its own."""

    classes = ()

    def __init__(self, length: int, *broken: int, seconds: float = 0.0) -> None:
        self.length = length
        self.broken = broken
        self.seconds = seconds
        self.now = 1000.0
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        raise AssertionError("a check needs no augmentation")

    def load(self, index: int) -> dict[str, np.ndarray]:
        self.read.append(index)
        self.now += self.seconds
        if index in self.broken:
            raise UserError(f"images/{index}.png: broken")
        return {}


def test_all_broken_files_of_a_small_set_are_named() -> None:
    dataset = Noted(10, 0, 4, 9)
    assert sorted(quick_check(dataset)) == ["images/0.png: broken", "images/4.png: broken", "images/9.png: broken"]
    assert sorted(dataset.read) == list(range(10))


def test_a_good_set_gives_no_line() -> None:
    assert quick_check(Noted(10)) == []
    assert quick_check(Noted(0)) == []


@pytest.mark.parametrize(("length", "most"), [(1000, 10), (999, 100), (7, 3), (201, 200)])
def test_no_more_than_the_most_are_read_spread_evenly_over_the_set(length: int, most: int) -> None:
    dataset = Noted(length)
    quick_check(dataset, most=most)
    assert len(dataset.read) == most
    gaps = np.diff(sorted(dataset.read))
    assert np.ptp(gaps) <= 1
    assert min(dataset.read) == 0
    assert length - max(dataset.read) <= length / most + 1


def test_the_check_ends_with_the_file_during_which_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Noted(1000, *range(1000), seconds=0.3)
    monkeypatch.setattr(time, "monotonic", lambda: dataset.now)
    assert len(quick_check(dataset, seconds=2.0)) == len(dataset.read) == 7


def test_a_check_that_runs_out_of_time_has_looked_at_all_parts_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Noted(1000, seconds=0.1)
    monkeypatch.setattr(time, "monotonic", lambda: dataset.now)
    quick_check(dataset, seconds=2.95)
    assert len(dataset.read) == 30
    assert {index // 250 for index in dataset.read} == {0, 1, 2, 3}
