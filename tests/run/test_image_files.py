"""Formats of the images that inference writes: what they hold, written at once or row by row."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from imagier.errors import UserError
from imagier.run.image_files import ImageFolder, ImageFormat


def noise(channels: int, bits: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 2**bits, (301, 45, channels))
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def read(path: Path) -> np.ndarray:
    """By Pillow, or by OpenCV, as Pillow reads no colors of 16 bits."""
    with Image.open(path) as image:
        image.load()
        found = np.asarray(image)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    if stored.dtype == np.uint8:
        return found
    return cv2.cvtColor(stored, cv2.COLOR_BGRA2RGBA if stored.shape[2] == 4 else cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_rows_make_the_file_that_other_programs_read(name: str, channels: int, bits: int, tmp_path: Path) -> None:
    image = noise(channels, bits)
    folder = ImageFolder(tmp_path, ImageFormat(name=name, bits=bits, has_alpha=channels == 4))
    with folder.open_rows("rows", (301, 45), channels) as write:
        for top in range(0, 301, 37):
            write(np.asfortranarray(image[top : top + 37]))  # as tensors come, with channels first
    assert np.array_equal(read(tmp_path / f"rows.{name}"), image)
    assert np.array_equal(read(folder.write("whole", image)), image)


@pytest.mark.parametrize("name", ["webp", "jpg"])
def test_formats_that_need_the_whole_image_are_the_same_either_way(name: str, tmp_path: Path) -> None:
    image = noise(4 if name == "webp" else 3, 8)
    folder = ImageFolder(tmp_path, name)
    with folder.open_rows("rows", image.shape[:2], image.shape[2]) as write:
        write(image[:100])
        write(image[100:])
    assert (tmp_path / f"rows.{name}").read_bytes() == folder.write("whole", image).read_bytes()
    if name == "webp":
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / "whole.webp"))[image[..., 3] > 0], image[image[..., 3] > 0]
        )


def test_a_large_tiff_has_many_strips_and_is_read_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1500, 1200, 3)).astype(np.uint8)
    path = ImageFolder(tmp_path, "tiff").write("0", image)
    with Image.open(path) as opened:
        assert len(opened.tag_v2[273]) == -(-1500 // (2**20 // 3600))
        assert np.array_equal(np.asarray(opened), image)


def test_an_image_whose_rows_end_early_leaves_nothing(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path, "png")
    with pytest.raises(ZeroDivisionError), folder.open_rows("a/0", (64, 8), 3) as write:
        write(np.zeros((32, 8, 3), np.uint8))
        _ = 1 / 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["jpg", "webp"])
def test_a_lower_quality_takes_less_and_loses_more(name: str, tmp_path: Path) -> None:
    image = cv2.GaussianBlur(noise(3, 8), (0, 0), 2)
    sizes, errors = [], []
    for quality in (20, 80, None):
        path = ImageFolder(tmp_path / str(quality), ImageFormat(name=name, quality=quality)).write("0", image)
        sizes.append(path.stat().st_size)
        errors.append(np.abs(read(path).astype(int) - image).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)
    assert (errors[-1] == 0) == (name == "webp")


@pytest.mark.parametrize(
    ("options", "where", "code"),
    [
        ({"name": "bmp"}, "format", "wrong-format"),
        ({"name": "png", "quality": 90}, "quality", "wrong-format"),
        ({"name": "tiff", "quality": 90}, "quality", "wrong-format"),
        ({"name": "jpg", "quality": 101}, "quality", "wrong-number"),
        ({"name": "jpg", "bits": 16}, "bits", "wrong-format"),
        ({"name": "webp", "bits": 16}, "bits", "wrong-format"),
        ({"name": "png", "bits": 12}, "bits", "wrong-number"),
        ({"name": "jpg", "has_alpha": True}, "alpha", "wrong-format"),
    ],
)
def test_what_a_format_cannot_do_is_refused(options: dict, where: str, code: str) -> None:
    with pytest.raises(UserError) as error:
        ImageFormat(**options)
    assert (error.value.where, error.value.code) == (where, code)
