"""Images painted in tiles, beside the same painted whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from contract.experiment import config_of
from images import png, write
from torch import nn

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.run import RunOptions, generate

from .untrained import replace_weights

CPU = RunOptions(device="cpu")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    def widen(parameter: nn.Parameter) -> None:
        if parameter.dim() > 1:  # a contrast that is neither lost nor cut off
            nn.init.normal_(parameter, std=1.2 / parameter[0].numel() ** 0.5)

    replace_weights(monkeypatch, tmp_path_factory.mktemp("weights"), widen)


@pytest.fixture
def measure_seams(monkeypatch: pytest.MonkeyPatch) -> Callable[[np.ndarray, list[int], list[int]], float]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tiles

    return tiles.measure_seams


def draw(path: Path, size: tuple[int, int], *, ids: bool = False) -> Path:
    """Blobs, more of them and brighter on the right; or a map of four classes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(*size, 1 if ids else 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).reshape(noise.shape) * 8
    right = np.linspace(-1, 1, size[1], dtype=np.float32)[None, :, None]
    values = (
        (smooth + right + 2).clip(0, 3.99) if ids else (smooth * (1.2 + right) * 60 + 128 + 60 * right).clip(0, 255)
    )
    write(path, png(values.astype(np.uint8)))
    return path


def painted(config: Config, folder: Path, source: Path | str, **options: object) -> np.ndarray:
    (path,) = generate(config, folder, CPU, inputs=source, **options)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image.astype(int)


@pytest.mark.parametrize(
    ("name", "overrides", "tile", "overlap"),
    [
        ("spade", ("gen.weight_norm_type=none",), 1408, 704),
        ("unit", ("gen.content_norm_type=batch", "gen.decoder_norm_type=batch"), 256, 128),
        ("munit", ("gen.content_norm_type=batch", "gen.decoder_norm_type=batch"), 256, 128),
    ],
)
def test_without_statistics_of_images_tiles_are_the_whole_image_if_they_overlap_enough(
    name: str, overrides: tuple[str, ...], tile: int, overlap: int, tmp_path: Path
) -> None:
    """Also of odd sizes, and of SPADE with its positions in the image and a random style."""
    source = draw(tmp_path / "in/0.png", (45, 2 * tile - 101), ids=name == "spade")
    config = config_of(name, tmp_path, *overrides)
    whole = painted(config, tmp_path / "whole", source, full_size=True)
    tiled = painted(config, tmp_path / "tiled", source, tile=(tile, tile), overlap=overlap)
    assert whole.shape == tiled.shape == (45, 2 * tile - 101, 3)
    assert whole.std() > 5
    assert np.abs(whole - tiled).max() <= 1  # of 255: rounding
    little = painted(config, tmp_path / "little", source, tile=(64, 64), overlap=0)
    assert np.abs(whole - little).max() > 5  # this test would see it


@pytest.mark.parametrize("name", ["unit", "munit", "funit", "coco_funit", "pix2pixHD"])
def test_tiles_of_methods_with_instance_norms_have_no_seams_and_come_near_the_whole(
    name: str, tmp_path: Path, measure_seams: Callable[[np.ndarray, list[int], list[int]], float]
) -> None:
    size, tile = (192, 384), 96
    kinds, styles = ["in"], []
    if name == "pix2pixHD":
        kinds = ["in/seg_maps", "in/instance_maps"]
    if "funit" in name:
        styles = [draw(tmp_path / "style/s.png", (64, 64))]
    for kind in kinds:
        draw(tmp_path / kind / "0.png", size, ids=name == "pix2pixHD")
    config = config_of(name, tmp_path, *(("gen.enc.num_feat_channels=0",) if name == "pix2pixHD" else ()))
    whole = painted(config, tmp_path / "whole", tmp_path / "in", full_size=True, styles=styles)
    tiled = painted(config, tmp_path / "tiled", tmp_path / "in", tile=(tile, tile), overlap=48, styles=styles)
    apart = paint_apart(config, tmp_path, kinds, tile, styles)
    borders = ([96], [96, 192, 288])
    expected = measure_seams(whole, *borders)  # not quite 1 in one image
    assert measure_seams(apart, *borders) > 1.15 * expected
    assert measure_seams(tiled, *borders) < 1.1 * expected
    assert np.abs(tiled - whole).mean() < 0.5 * np.abs(apart - whole).mean()


def paint_apart(config: Config, folder: Path, kinds: list[str], tile: int, styles: list[Path]) -> np.ndarray:
    """Tiles as images of their own, put together."""
    for kind in kinds:
        image = cv2.imread(str(folder / kind / "0.png"), cv2.IMREAD_UNCHANGED)
        assert image is not None
        for top in range(0, image.shape[0], tile):
            for left in range(0, image.shape[1], tile):
                part = image[top : top + tile, left : left + tile]
                write(folder / "parts" / kind / f"{top}_{left}.png", png(part[..., ::-1] if part.ndim == 3 else part))
    made = np.zeros((*image.shape[:2], 3), int)
    for path in generate(config, folder / "apart", CPU, inputs=folder / "parts/in", full_size=True, styles=styles):
        top, left = map(int, path.stem.split("_"))
        read = cv2.imread(str(path))
        assert read is not None
        made[top : top + tile, left : left + tile] = read
    return made


def test_an_image_that_fits_into_a_tile_is_painted_whole(tmp_path: Path) -> None:
    source = draw(tmp_path / "in/0.png", (45, 67))
    config = config_of("unit", tmp_path)
    whole = painted(config, tmp_path / "whole", source, full_size=True)
    assert np.array_equal(painted(config, tmp_path / "tiled", source, tile=(64, 96)), whole)


@pytest.mark.parametrize(
    ("name", "options", "where", "code"),
    [
        ("unit", {"tile": (63, 64)}, "tile", "wrong-tile"),
        ("unit", {"tile": (64, 64), "overlap": 40}, "overlap", "wrong-number"),
        ("unit", {"overlap": 8}, "overlap", "no-effect"),
        ("noise", {"tile": (64, 64)}, "tile", "no-tiles"),
        ("pix2pixHD", {"tile": (64, 64)}, "tile", "no-tiles"),
    ],
)
def test_what_cannot_be_tiled_is_refused_before_anything_is_written(
    name: str, options: dict, where: str, code: str, tmp_path: Path
) -> None:
    source = draw(tmp_path / "in/0.png", (100, 100), ids=name == "pix2pixHD")
    overrides = ("gen.apply_noise=true",) if name == "noise" else ()
    if name == "pix2pixHD":
        for kind in ("seg_maps", "instance_maps"):
            draw(tmp_path / f"both/{kind}/0.png", (100, 100), ids=True)
        source = tmp_path / "both"
    config = config_of("unit" if name == "noise" else name, tmp_path, *overrides)
    with pytest.raises(UserError) as error:
        generate(config, tmp_path / "out", CPU, inputs=source, **options)
    assert (error.value.where, error.value.code) == (where, code)
    assert not list((tmp_path / "out").rglob("*.png"))
