"""Copies are found although they were resized and compressed, and different images are not taken for copies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from doctoring import IMAGES, examine, found, grown, make_split, texts, through_jpeg
from images import encoded, noise, png, smooth
from small_data import codec_for

from imagier.tools.doctor.copies import are_alike, find_identical, find_repeated, find_similar
from imagier.tools.doctor.file_table import FileTable, Split, list_files
from imagier.tools.doctor.reading import read_all


def drawing(seed: int, size: int = 96) -> np.ndarray:
    """An image of random filled shapes on a plain ground, with smooth edges."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), rng.integers(120, 256), np.uint8)
    for _ in range(6):
        color = rng.integers(0, 256, 3).tolist()
        center, axes = rng.integers(0, size, 2).tolist(), rng.integers(size // 12, size // 3, 2).tolist()
        cv2.ellipse(image, center, axes, float(rng.integers(180)), 0, 360, color, cv2.FILLED, cv2.LINE_AA)
    return image


def photograph(seed: int, size: int = 96) -> np.ndarray:
    """An image with as much of each frequency as photographs have (1 / f)."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.standard_normal((n, n, 3)), (size, size), interpolation=cv2.INTER_CUBIC) / n
        for n in (2, 4, 8, 16, 32)
    ]
    image = 128 + 90 * np.sum(layers, axis=0)
    return image.clip(0, 255).astype(np.uint8)


def read(images: dict[str, bytes], name: str) -> FileTable:
    tables, _ = list_files(of(images, name))
    read_all(tables, workers=0, update=lambda done, total: None)
    return tables[0]


def of(images: dict[str, bytes], name: str = "train") -> Split:
    return make_split({("images", f"s/{key}"): data for key, data in images.items()}, name, codecs=[IMAGES])


def names(table: FileTable, other: FileTable, pairs: np.ndarray) -> list[tuple[str, str]]:
    return [(table.items[int(mine)][1], other.items[int(theirs)][1]) for mine, theirs in pairs]


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
    pairs = names(val, train, find_similar(val, train, workers=0, update=silent).pairs)
    assert set(pairs) == {(f"s/copy{i}", f"s/{i}") for i in range(10)}


def test_images_that_differ_in_one_small_place_are_not_alike() -> None:
    image = drawing(3)
    other = image.copy()
    other[40:52, 40:52] = 255 - other[40:52, 40:52]
    assert are_alike(image, image)
    assert not are_alike(image, other)


def test_images_in_other_colors_are_not_alike() -> None:
    image = drawing(3)
    brightness = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert not are_alike(image, np.repeat(brightness[..., None], 3, axis=2))


def test_foggy_images_are_not_alike_because_they_are_foggy() -> None:
    foggy = [(128 + (photograph(i).astype(float) - 128) / 12).round().astype(np.uint8) for i in range(20)]
    alike = [(i, j) for i in range(20) for j in range(i) if are_alike(foggy[i], foggy[j])]
    assert alike == []


def test_the_same_pixels_are_found_whatever_the_file() -> None:
    image = smooth(20, 20, seed=1)
    train = read({"a": png(noise(20, 20)), "b": encoded(image, "PNG", compress_level=1)}, "train")
    val = read({"c": encoded(image, "PNG", compress_level=9), "d": png(smooth(20, 20, seed=2))}, "val")
    assert names(val, train, find_identical(val, train).pairs) == [("s/c", "s/b")]
    assert len(find_similar(val, train, workers=0, update=silent).pairs) == 0


def test_repeated_images_are_told_with_the_first_of_them() -> None:
    one, two = png(smooth(20, 20, seed=1)), png(smooth(20, 20, seed=2))
    table = read({"a": one, "b": two, "c": one, "d": one, "e": two}, "train")
    assert names(table, table, find_repeated(table).pairs) == [("s/c", "s/a"), ("s/d", "s/a"), ("s/e", "s/b")]


def test_the_doctor_shows_copies_side_by_side() -> None:
    train, val = of({"a": png(drawing(1)), "b": png(drawing(2))}), of({"c": png(drawing(2))}, "val")
    finding = found(examine(train, val), "same pixels as one of train")
    assert texts(finding) == ["val/images/s/c.png = train/images/s/b.png"]
    (row,) = finding.rows
    assert [(table.split.name, place) for table, place in row.images] == [("val", 0), ("train", 1)]


def test_copies_are_not_looked_for_among_labels_and_masks() -> None:
    same = png(drawing(1)[..., :1])
    content = {("maps", "s/a"): same}
    kind = codec_for(name="maps", ext="png", num_channels=1)
    parts = [make_split(content, name, codecs=[kind], labels=frozenset({"maps"})) for name in ("train", "val")]
    assert not [f for f in examine(*parts).findings if "pixels as" in f.what]


def test_a_part_without_a_readable_file_has_no_copies() -> None:
    train, val = read({"a": b"", "b": b""}, "train"), read({"c": png(drawing(1))}, "val")
    for pairs in (
        find_identical(val, train).pairs,
        find_similar(val, train, workers=0, update=silent).pairs,
        find_identical(train, val).pairs,
        find_repeated(train).pairs,
    ):
        assert pairs.shape == (0, 2)
