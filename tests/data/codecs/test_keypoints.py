"""Key points from their JSON to a batch."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from images import Memory, noise, png
from small_data import build, codec_for

from imagier.data.augmentation.warp import Part
from imagier.data.datasets.paired_images import Dataset
from imagier.data.decoding.decode import EncodedFile
from imagier.data.loading.loader import Loader
from imagier.data.loading.on_device import Expander
from imagier.errors import UserError
from imagier.recipe import Position

WHERE = "set/marks/7.json"
IMAGES = codec_for(name="images", ext="png", num_channels=3, normalize=True)
DEPTH = codec_for(name="depth", ext="png", num_channels=1)
MARKS = codec_for(name="marks", ext="json", is_points=True)


def memory(count: int, points: Any = None) -> Memory:
    """Images 8 x 6 and deeper ones 16 x 12, with three points each."""
    files = {}
    for i in range(count):
        marks = [[i, 2, 0.5], [5, 7, 1], [2.25, i, 0]] if points is None else points
        files["images", f"./{i}"] = png(noise(8, 6, seed=i))
        files["depth", f"./{i}"] = png(noise(16, 12, 1, seed=i))
        files["marks", f"./{i}"] = json.dumps(marks).encode()
    return Memory(files)


@pytest.mark.parametrize("points", [[[1, 2]], [[1, 2.5, 0.25], [3, 4, 1]], [[-1e9, 7], [0, 0]]])
def test_a_list_of_points_is_read(points: list) -> None:
    found = MARKS.decode(EncodedFile(json.dumps(points).encode(), "json", WHERE))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, points)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a JSON list of key points"),
        (b"hello", "not a JSON list of key points"),
        (b"\xff\xfe", "not a JSON list of key points"),
        (b"[[1, 2], [3]]", "not a JSON list of key points"),
        (b'{"people": []}', "not a JSON list of key points"),
        (b"[1, 2]", "not a JSON list of key points"),
        (b"[]", "not a JSON list of key points"),
        (b"[[1], [2]]", "not a JSON list of key points"),
        (b'[["a", "b"]]', "not a JSON list of key points"),
        (b"[" * 100_000, "not a JSON list of key points"),
        (b"[[1, 1" + b"0" * 400 + b"]]", "not a JSON list of key points"),
        (b"[[1, NaN]]", "holds numbers that are infinite or none"),
        (b"[[1, Infinity]]", "holds numbers that are infinite or none"),
        (b"\x80\x04\x95\x0c", "not a JSON list of key points"),
    ],
)
def test_other_content_is_named_in_one_line(data: bytes, says: str) -> None:
    with pytest.raises(UserError) as caught:
        MARKS.decode(EncodedFile(data, "json", WHERE))
    assert str(caught.value).startswith(f"{WHERE}: {says}")
    assert "\n" not in str(caught.value)


def test_points_move_with_the_first_type_of_images() -> None:
    """Of whatever size the others are."""
    keys = {"resize_h_w": "16, 12", "horizontal_flip": True}
    source = memory(4)
    for kinds in ([IMAGES, DEPTH, MARKS], [MARKS, IMAGES, DEPTH], [DEPTH, IMAGES, MARKS]):
        data = build(Dataset, [source], codecs=kinds, augmentations=keys)
        scale = 2 if kinds.index(IMAGES) < kinds.index(DEPTH) else 1
        for index in range(4):
            sample = data[0, index]
            stored = np.array(json.loads(source.files["marks", f"./{index}"]))
            x, y = ((stored[:, :2] + 0.5) * scale - 0.5).T
            x = 11 - x if sample.numbers["is_flipped"] else x
            found = sample.arrays["marks"]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, np.stack([x, y, stored[:, 2]], axis=1), atol=1e-5)


def test_a_type_named_image_is_the_one_that_points_belong_to() -> None:
    source = memory(1)
    source.files["image", "./0"] = source.files["images", "./0"]
    kinds = [DEPTH, codec_for(name="image", ext="png"), MARKS]
    data = build(Dataset, [source], codecs=kinds, augmentations={"resize_h_w": "8, 6"})
    np.testing.assert_allclose(data[0, 0].arrays["marks"], data.load(0)["marks"], atol=1e-5)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_has_them_as_numbers_under_the_name_of_their_type(num_workers: int) -> None:
    kinds = [IMAGES, MARKS]
    data = build(Dataset, [memory(4)], codecs=kinds, augmentations={"resize_h_w": "8, 6"})
    loader = Loader(
        data, 2, device=torch.device("cpu"), finish=Expander(kinds, []), num_workers=num_workers, shuffle=False
    )
    batch, _ = next(loader.stream(Position()))
    assert batch["marks"].shape == (2, 3, 3)
    assert batch["marks"].dtype == torch.float32
    assert batch["marks"][1].tolist() == [[1, 2, 0.5], [5, 7, 1], [2.25, 1, 0]]
    assert batch["images"].shape == (2, 3, 8, 6)


def test_samples_with_other_numbers_of_points_do_not_fit_in_a_batch() -> None:
    source = memory(2)
    source.files["marks", "./1"] = b"[[1, 2, 0]]"
    data = build(Dataset, [source], codecs=[IMAGES, MARKS], augmentations={"resize_h_w": "8, 6"})
    loader = Loader(data, 2, device=torch.device("cpu"), finish=Expander([IMAGES, MARKS], []))
    with pytest.raises(UserError, match=r"marks of different sizes \(1 x 3 float32, 3 x 3 float32\)"):
        next(loader.stream(Position()))


def test_a_wrong_file_is_named_when_its_sample_is_loaded() -> None:
    source = memory(2)
    source.files["marks", "./1"] = b"[[1]]"
    data = build(Dataset, [source], codecs=[IMAGES, MARKS], augmentations={"resize_h_w": "8, 6"})
    data.load(0)
    for take in (lambda: data.load(1), lambda: data[0, 1]):
        with pytest.raises(UserError, match=r"^memory/marks/\./1\.png: not a JSON list of key points"):
            take()


def test_points_of_a_part_move_as_its_pixels() -> None:
    image = np.zeros((40, 60, 1), np.float32)
    image[21, 33] = 1
    part = Part(10, 30, 20, 50)
    enlarged = cv2.resize(image[10:30, 20:50], (90, 60), interpolation=cv2.INTER_LINEAR)
    y, x = np.unravel_index(enlarged.argmax(), enlarged.shape)
    np.testing.assert_allclose(MARKS.crop(np.array([[33.0, 21.0, 0.5]]), part, (60, 90)), [[x, y, 0.5]])
