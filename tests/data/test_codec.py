"""The contract of kinds of input: the example in its docstring goes all the way from a file to the device."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from docstrings import example
from images import noise
from small_data import codec_for

from imagier.config.find import list_types
from imagier.config.schema import CODEC
from imagier.data import codec, codecs
from imagier.data.augmentation.augment import Augmenter
from imagier.data.codec import Codec, InputType, stretch
from imagier.data.decoding.decode import EncodedFile
from imagier.data.loading.on_device import Expander
from imagier.errors import UserError
from imagier.recipe import Batch

DEPTH_MM = np.array([[500, 500, 90_000 % 65536], [60_000, 41_000, 1]], np.uint16)


def encode(array: np.ndarray) -> EncodedFile:
    return EncodedFile(cv2.imencode(".png", array)[1].tobytes(), "png", "depth/0.png")


@pytest.fixture
def depth() -> Codec:
    """The codec of the docstring, with a key of its own."""
    namespace: dict[str, Any] = {}
    exec(example(codec.Codec), namespace)
    return namespace["Codec"](InputType(name="depth", ext="png"), max_m=40.0)


def test_the_example_in_the_docstring_gives_meters_as_one_channel_of_a_label(depth: Codec) -> None:
    stored = depth.load(encode(DEPTH_MM))
    assert (stored.array.dtype, stored.size, stored.extent) == (np.uint16, (2, 3), None)
    batch = Batch({"depth": torch.from_numpy(stored.array.astype(np.int32))[None]})
    meters = torch.tensor([[0.5, 0.5, 24.464], [40.0, 40.0, 0.001]])[None, None]
    edges = codec_for(name="edges", ext="png", num_channels=1)
    both = Batch({**batch.tensors, "edges": torch.full((1, 2, 3, 1), 255, dtype=torch.uint8)})
    torch.testing.assert_close(Expander([depth], [])(batch)["depth"], meters)
    label = Expander([edges, depth], ["edges", "depth"])(both)["label"]
    torch.testing.assert_close(label, torch.cat([torch.ones(1, 1, 2, 3), meters], dim=1))


def test_the_example_mixes_no_depths_and_shows_the_nearest_in_black(depth: Codec) -> None:
    stored = depth.load(encode(np.array([[1000, 9000], [9000, 1000]], np.uint16)))
    drawn = Augmenter({"resize_h_w": "7, 7", "rotate": 20, "horizontal_flip": True}).draw((2, 2), random.Random(0))
    augmented = depth.augment(stored, drawn)
    assert augmented.shape == (7, 7, 1)
    assert set(np.unique(augmented)) == {1000, 9000}
    assert depth.to_rgb(stored.array).tolist() == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]


@pytest.mark.parametrize("array", [noise(4, 4, 3), noise(4, 4, 1)])
def test_the_example_names_a_file_that_is_none_of_its_own(depth: Codec, array: np.ndarray) -> None:
    with pytest.raises(UserError) as caught:
        depth.load(encode(array))
    assert (caught.value.where, caught.value.code) == ("depth/0.png", "damaged")


def test_the_files_of_the_room_are_the_kinds() -> None:
    files = {path.stem for path in Path(codecs.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(list_types(CODEC))
    assert files == {"image", "mask", "class_map", "keypoints", "openpose", "face_landmarks", "flow", "unprojections"}


def test_classes_outside_of_the_label_have_a_channel_each_too() -> None:
    classes = torch.tensor([[0, 2, 255]], dtype=torch.uint8)[None, ..., None]
    seg = codec_for(name="seg", ext="png", num_classes=3)
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0]])[None, :, None]
    assert torch.equal(Expander([seg], [])(Batch({"seg": classes}))["seg"], expected)


@pytest.mark.filterwarnings("error")
def test_numbers_are_stretched_from_black_to_white() -> None:
    assert stretch(np.array([-3.0, 7.0, 2.0])).tolist() == [0, 255, 128]
    assert stretch(np.array([5, 5], np.uint16)).tolist() == [0, 0]
    assert stretch(np.array([np.inf, 0.0, -np.inf, np.nan], np.float32)).tolist() == [255, 128, 0, 128]
