"""The quick look at a data set before a run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from small_data import codec_for

from imagier.data.dataset import Dataset, DatasetSpec
from imagier.data.sample import Sample
from imagier.errors import UserError
from imagier.run.quick_check import MOST_AUGMENTED, quick_check


class Noted(Dataset):
    """A data set that notes what is read; some files are broken, and reading takes a while on a clock of its own."""

    def __init__(self, length: int, *broken: int, seconds: float = 0.0, maps: np.ndarray | None = None) -> None:
        """maps: what every sample holds as its map."""
        super().__init__(DatasetSpec(sources=[], codecs=[], augmentations={}))
        self.maps = np.zeros((4, 4, 1), np.uint8) if maps is None else maps
        self.length = length
        self.broken = broken
        self.seconds = seconds
        self.now = 1000.0
        self.read: list[int] = []
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        assert epoch == 0
        self.made.append(index)
        return Sample({"maps": self.maps}, {"maps": f"s/{index}"})

    def load(self, index: int) -> dict[str, np.ndarray]:
        self.read.append(index)
        self.now += self.seconds
        if index in self.broken:
            raise UserError(f"images/{index}.png: broken")
        return {"maps": self.maps}


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


class Cropped(Noted):
    """A data set whose crop is larger than some images."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        if key[1] % 3 == 0:
            raise UserError(f"s/{key[1]}: crop 8 x 8 is larger than the image")
        return super().__getitem__(key)


class Uneven(Noted):
    """A data set whose augmented images have several sizes."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        size = 4 if key[1] != 7 else 5
        return Sample({"maps": np.zeros((4, size, 1), np.uint8)}, {"maps": f"s/{key[1]}"})


def test_a_few_samples_are_made_as_for_a_batch() -> None:
    dataset = Noted(1000)
    quick_check(dataset)
    assert len(dataset.made) == MOST_AUGMENTED
    assert set(dataset.made) <= set(dataset.read)


def test_a_crop_that_does_not_fit_is_told_with_the_file() -> None:
    assert sorted(quick_check(Cropped(6))) == [f"s/{i}: crop 8 x 8 is larger than the image" for i in (0, 3)]


def test_images_that_fit_in_no_batch_are_told_once_unless_a_batch_is_one_sample() -> None:
    (line,) = quick_check(Uneven(10), batch_size=2)
    assert "s/7 (4 x 5 x 1 uint8)" in line
    assert "4 x 4 x 1" in line
    assert quick_check(Uneven(10), batch_size=1) == []


@pytest.mark.parametrize(("used", "lines"), [(2, 1), (3, 0), (6, 0)])
def test_classes_of_which_most_are_not_there_are_worth_a_line_and_no_more(
    used: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    codec = codec_for(name="maps", ext="png", num_classes=6)
    dataset = Noted(5, maps=np.arange(16, dtype=np.uint8).reshape(4, 4, 1) % used)
    assert quick_check(dataset, codecs=[codec]) == []
    assert len(caplog.messages) == lines
    if lines:
        assert "one_hot_num_classes.maps is 6" in caplog.messages[0]
        assert "hold only 2 of them (0, 1)" in caplog.messages[0]


@pytest.mark.parametrize(
    ("values", "classes", "dont_care", "share", "helps"),
    [
        ([0, 255], 2, False, "50 %", "store it as 1"),
        ([0, 1, 2, 255], 3, False, "25 %", "use_dont_care"),
        ([0, 1, 2, 3, 0, 1, 2, 255], 4, False, "12.5 %", ""),
        ([0, 1, 0, 1], 2, False, None, ""),
        ([0, 1, 255, 255], 2, True, None, ""),
    ],
)
def test_the_share_of_pixels_without_a_class_is_said(
    values: list[int], classes: int, dont_care: bool, share: str | None, helps: str, caplog: pytest.LogCaptureFixture
) -> None:
    codec = codec_for(name="maps", ext="png", num_classes=classes, use_dont_care=dont_care)
    dataset = Noted(3, maps=np.array(values, np.uint8).reshape(1, -1, 1))
    assert quick_check(dataset, codecs=[codec]) == []
    lines = [line for line in caplog.messages if "no class" in line]
    assert len(lines) == (share is not None)
    if share is not None:
        assert share in lines[0]
        assert helps in lines[0]


@pytest.mark.parametrize(("limit", "lines"), [(2, 1), (1, 0)])
def test_values_that_move_dont_care_moves_beyond_the_classes_have_none(
    limit: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    codec = codec_for(name="maps", ext="png", num_classes=2, dont_care=limit)
    quick_check(Noted(3, maps=np.array([0, 1, 7, 9], np.uint8).reshape(1, -1, 1)), codecs=[codec])
    assert len([line for line in caplog.messages if "no class" in line]) == lines


@pytest.mark.parametrize(
    ("is_mask", "values", "lines"),
    [
        (True, [0, 1], 1),
        (True, [0, 3, 7], 1),
        (False, [0, 3, 7], 1),
        (False, [0, 1], 1),
        (True, [0, 255], 0),
        (False, [0, 100], 0),
        (False, [0, 128, 255], 0),
        (True, [7], 0),
    ],
)
def test_a_label_that_seems_to_hold_classes_is_said_unless_it_holds_instances(
    is_mask: bool, values: list[int], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    codec = codec_for(name="maps", ext="png", num_channels=1, is_mask=is_mask)
    maps = np.array(values, np.uint8).reshape(1, -1, 1)
    quick_check(Noted(3, maps=maps), codecs=[codec], labels=["maps"])
    assert len(caplog.messages) == lines
    assert all(f"one_hot_num_classes.maps: {values[-1] + 1}" in line for line in caplog.messages)
    caplog.clear()
    quick_check(Noted(3, maps=maps), codecs=[codec], labels=[])
    assert caplog.messages == []
