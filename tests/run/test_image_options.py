"""What an image takes over from its input: alpha, the way up; and how many bits it has."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from contract.experiment import config_of
from images import png, write
from PIL import Image

from imagier.errors import UserError
from imagier.run import RunOptions, generate
from imagier.run.alpha import read_alpha

from .untrained import replace_weights

CPU = RunOptions(device="cpu")
ON_WHITE = "data.background=[255, 255, 255]"
HEIGHT, WIDTH = 44, 68


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    replace_weights(monkeypatch, tmp_path_factory.mktemp("weights"))


def draw() -> np.ndarray:
    """Red, green, blue and alpha, which is no rectangle."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 9, 4)).astype(np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image[: HEIGHT // 2, : WIDTH // 3, 3] = 0
    return image


def stored(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


@pytest.mark.parametrize("name", ["png", "webp", "tiff"])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_the_alpha_of_an_input_is_that_of_its_image(name: str, tile: tuple[int, int] | None, tmp_path: Path) -> None:
    write(tmp_path / "in/1.png", png(draw()[..., :3]))
    Image.fromarray(draw()).save(tmp_path / "in/0.png")
    config = config_of("unit", tmp_path, ON_WHITE)
    paths = generate(config, tmp_path / "out", CPU, inputs=tmp_path / "in", format=name, alpha=True, tile=tile)
    assert np.array_equal(np.asarray(Image.open(paths[0]))[..., 3], draw()[..., 3])
    assert np.asarray(Image.open(paths[1])).shape[2] == 3  # that has none
    plain = generate(config, tmp_path / "plain", CPU, inputs=tmp_path / "in", format=name, tile=tile)
    assert np.asarray(Image.open(plain[0])).shape[2] == 3


def test_alpha_is_resized_with_the_image(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(draw()).save(tmp_path / "in/0.png")
    config = config_of("unit", tmp_path, ON_WHITE, "inference_args.keep_original_size=false")
    (path,) = generate(config, tmp_path / "out", CPU, inputs=tmp_path / "in", alpha=True)
    assert stored(path).shape == (32, 32, 4)  # the size of the training
    expected = cv2.resize(draw()[..., 3], (32, 32), interpolation=cv2.INTER_AREA)
    assert np.array_equal(stored(path)[..., 3], expected)


def test_alpha_is_read_upright_at_any_number_of_bits_from_the_first_file_that_has_some(tmp_path: Path) -> None:
    gray, turned, deep = tmp_path / "gray.png", tmp_path / "turned.png", tmp_path / "deep.png"
    Image.fromarray(draw()[..., :3]).convert("L").save(gray)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(draw()).save(turned, exif=exif)
    found = read_alpha([gray, turned], (WIDTH, HEIGHT), np.uint8)
    assert found is not None and np.array_equal(found[..., 0], np.rot90(draw()[..., 3], -1))
    assert read_alpha([gray], (HEIGHT, WIDTH), np.uint8) is None
    cv2.imwrite(str(deep), draw().astype(np.uint16) * 257)
    for path, dtype, factor in ((deep, np.uint8, 1), (deep, np.uint16, 257)):
        found = read_alpha([path], (HEIGHT, WIDTH), dtype)
        assert found is not None and np.array_equal(found[..., 0], draw()[..., 3].astype(dtype) * dtype(factor))


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_an_image_is_upright_whatever_the_orientation_of_its_file(tile: tuple[int, int] | None, tmp_path: Path) -> None:
    image, exif = Image.fromarray(draw()[..., :3]), Image.Exif()
    exif[0x0112] = 6
    for folder in ("turned", "upright"):
        (tmp_path / folder).mkdir()
    image.save(tmp_path / "turned/0.png", exif=exif)
    image.rotate(-90, expand=True).save(tmp_path / "upright/0.png")
    config = config_of("unit", tmp_path)
    made = [
        generate(config, tmp_path / f"{each} out", CPU, inputs=tmp_path / each, tile=tile)[0]
        for each in ("turned", "upright")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    with Image.open(made[0]) as written:
        assert (written.size, dict(written.getexif())) == ((HEIGHT, WIDTH), {})


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_sixteen_bits_are_the_eight_bits_with_what_rounding_had_lost(
    tile: tuple[int, int] | None, tmp_path: Path
) -> None:
    write(tmp_path / "in/0.png", png(draw()[..., :3]))
    config = config_of("unit", tmp_path)
    (eight,) = generate(config, tmp_path / "8", CPU, inputs=tmp_path / "in", tile=tile)
    (sixteen,) = generate(config, tmp_path / "16", CPU, inputs=tmp_path / "in", tile=tile, bits=16)
    fine, coarse = stored(sixteen), stored(eight)
    assert fine.dtype == np.uint16 and len(np.unique(fine)) > 2 * len(np.unique(coarse))
    assert np.abs(fine / 257 - coarse).max() < 0.51


@pytest.mark.parametrize(
    ("options", "where"), [({"alpha": True}, "alpha"), ({"tile": (64, 64)}, "tile"), ({"full_size": True}, "full_size")]
)
def test_what_needs_files_is_refused_without_inputs(options: dict, where: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        generate(config_of("unit", tmp_path), tmp_path / "out", CPU, format="png", **options)
    assert (error.value.where, error.value.code) == (where, "missing-input")


@pytest.mark.parametrize(
    ("options", "where"), [({"alpha": True}, "alpha"), ({"tile": (64, 64)}, "tile"), ({"bits": 16}, "bits")]
)
def test_what_has_no_effect_on_videos_is_refused(options: dict, where: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        generate(config_of("vid2vid", tmp_path), tmp_path / "out", CPU, inputs=tmp_path, **options)
    assert (error.value.where, error.value.code) == (where, "no-videos")
