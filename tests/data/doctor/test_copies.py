"""Copies are found although they were resized and compressed, and different pictures are not taken for copies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from doctoring import IMAGES, examined, found, grown, part, texts, through_jpeg
from pictures import encoded, noise, png, smooth

from imagier.data.doctor.column import Column, Part, listed
from imagier.data.doctor.copies import are_alike, identical, repeated, similar
from imagier.data.doctor.reading import read_all


def drawing(seed: int, size: int = 96) -> np.ndarray:
    """A picture of random filled shapes on a plain ground, with smooth edges."""
    rng = np.random.default_rng(seed)
    picture = np.full((size, size, 3), rng.integers(120, 256), np.uint8)
    for _ in range(6):
        colour = rng.integers(0, 256, 3).tolist()
        centre, axes = rng.integers(0, size, 2).tolist(), rng.integers(size // 12, size // 3, 2).tolist()
        cv2.ellipse(picture, centre, axes, float(rng.integers(180)), 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    return picture


def photograph(seed: int, size: int = 96) -> np.ndarray:
    """A picture with as much of each frequency as photographs have (1 / f)."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.standard_normal((n, n, 3)), (size, size), interpolation=cv2.INTER_CUBIC) / n
        for n in (2, 4, 8, 16, 32)
    ]
    picture = 128 + 90 * np.sum(layers, axis=0)
    return picture.clip(0, 255).astype(np.uint8)


def read(pictures: dict[str, bytes], name: str) -> Column:
    columns, _ = listed(of(pictures, name))
    read_all(columns, workers=0, told=lambda done, total: None)
    return columns[0]


def of(pictures: dict[str, bytes], name: str = "train") -> Part:
    return part({("images", f"s/{key}"): data for key, data in pictures.items()}, name, input_types=[IMAGES])


def names(column: Column, other: Column, pairs: np.ndarray) -> list[tuple[str, str]]:
    return [(column.items[int(mine)][1], other.items[int(theirs)][1]) for mine, theirs in pairs]


def silent(done: int, total: int) -> None:
    """Tells nothing."""


@pytest.mark.parametrize("make", [drawing, photograph])
@pytest.mark.parametrize(("factor", "quality"), [(1, 60), (0.5, 75), (0.7, 90), (1.6, 50), (2, 95)])
def test_resized_and_compressed_copies_are_found_and_nothing_else(make, factor: float, quality: int) -> None:
    count = 24
    train = read({f"{i}": png(make(i)) for i in range(count)}, "train")
    copies = {f"copy{i}": encoded(through_jpeg(grown(make(i), factor), quality), "PNG") for i in range(10)}
    others = {f"other{i}": png(make(1000 + i)) for i in range(count)}
    val = read({**copies, **others}, "val")
    pairs = names(val, train, similar(val, train, workers=0, told=silent).pairs)
    assert set(pairs) == {(f"s/copy{i}", f"s/{i}") for i in range(10)}


def test_pictures_that_differ_in_one_small_place_are_not_alike() -> None:
    picture = drawing(3)
    other = picture.copy()
    other[40:52, 40:52] = 255 - other[40:52, 40:52]
    assert are_alike(picture, picture)
    assert not are_alike(picture, other)


def test_pictures_in_other_colours_are_not_alike() -> None:
    picture = drawing(3)
    brightness = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert not are_alike(picture, np.repeat(brightness[..., None], 3, axis=2))


def test_foggy_pictures_are_not_alike_because_they_are_foggy() -> None:
    foggy = [(128 + (photograph(i).astype(float) - 128) / 12).round().astype(np.uint8) for i in range(20)]
    alike = [(i, j) for i in range(20) for j in range(i) if are_alike(foggy[i], foggy[j])]
    assert alike == []


def test_the_same_pixels_are_found_whatever_the_file() -> None:
    picture = smooth(20, 20, seed=1)
    train = read({"a": png(noise(20, 20)), "b": encoded(picture, "PNG", compress_level=1)}, "train")
    val = read({"c": encoded(picture, "PNG", compress_level=9), "d": png(smooth(20, 20, seed=2))}, "val")
    assert names(val, train, identical(val, train).pairs) == [("s/c", "s/b")]
    assert len(similar(val, train, workers=0, told=silent).pairs) == 0


def test_repeated_pictures_are_told_with_the_first_of_them() -> None:
    one, two = png(smooth(20, 20, seed=1)), png(smooth(20, 20, seed=2))
    column = read({"a": one, "b": two, "c": one, "d": one, "e": two}, "train")
    assert names(column, column, repeated(column).pairs) == [("s/c", "s/a"), ("s/d", "s/a"), ("s/e", "s/b")]


def test_the_doctor_shows_copies_side_by_side() -> None:
    train, val = of({"a": png(drawing(1)), "b": png(drawing(2))}), of({"c": png(drawing(2))}, "val")
    finding = found(examined(train, val), "same pixels as one of train")
    assert texts(finding) == ["val/images/s/c.png = train/images/s/b.png"]
    (row,) = finding.rows
    assert [(column.part.name, place) for column, place in row.pictures] == [("val", 0), ("train", 1)]


def test_copies_are_not_looked_for_among_labels_and_masks() -> None:
    same = png(drawing(1)[..., :1])
    content = {("maps", "s/a"): same}
    kind = IMAGES.__class__(name="maps", ext="png", num_channels=1)
    parts = [part(content, name, input_types=[kind], labels=frozenset({"maps"})) for name in ("train", "val")]
    assert not [f for f in examined(*parts).findings if "pixels as" in f.what]


def test_a_part_without_a_readable_file_has_no_copies() -> None:
    train, val = read({"a": b"", "b": b""}, "train"), read({"c": png(drawing(1))}, "val")
    for pairs in (
        identical(val, train).pairs,
        similar(val, train, workers=0, told=silent).pairs,
        identical(train, val).pairs,
        repeated(train).pairs,
    ):
        assert pairs.shape == (0, 2)
