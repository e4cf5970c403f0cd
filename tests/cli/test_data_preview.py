"""`imagier data preview`: a page of samples as stored and as the networks will see them, for sets of every type."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import any_type
import cv2
import numpy as np
import pytest
import tiny
from small_data import codec_for

from imagier.cli import main
from imagier.data.codecs.class_map import UNKNOWN_COLOR, class_colors
from imagier.nn.colorize import palette
from imagier.run import build_data
from imagier.tools.doctor.images import show
from imagier.tools.doctor.splits import read_config

ELSEWHERE = re.compile(r"""\b(?:src|href)=["'](?!data:|#)|@import|url\((?!#)|<script""")
IMAGE = re.compile(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)" width="(\d+)" height="(\d+)" alt="([^"]*)"')
MAPS = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=3)
IMAGES = codec_for(name="images", ext="png", num_channels=3)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "small.yaml", tiny.write_data(tmp_path / "data", train=6, val=4))


def preview(config: Path, *words: object) -> int:
    return main(["data", "preview", *map(str, (config, config.parent / "p.html", *words))])


def page(config: Path) -> str:
    return (config.parent / "p.html").read_text()


def images(text: str) -> Iterator[np.ndarray]:
    """Every image of a page, height x width x 3."""
    for data, *_ in IMAGE.findall(text):
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        yield cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("type_", any_type.TYPES)
def test_sets_of_every_type_can_be_seen(type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    config = any_type.write_set(tmp_path, type_)
    assert preview(config, "--samples", 2, "--draws", 3) == 0
    text = page(config)
    assert not ELSEWHERE.search(text)
    assert text.count("<th>draw 3<") == 2
    kinds = len({name.partition("/")[0] for name in any_type.FOLDERS[type_]})
    in_training = 3 * 2 if type_ in any_type.VIDEOS else 1 + 3  # clips of two frames; else the stored image, too
    expected = 2 * kinds * in_training + 2 * kinds * (1 + 1)
    if type_ == "paired_few_shot_videos":  # a frame for reference as stored, and drawn three times and once
        expected += 2 * kinds * (1 + 3) + 2 * kinds * (1 + 1)
        assert "<code>few_shot_maps</code>" in text
    assert len(IMAGE.findall(text)) == expected


def test_what_is_shown_is_what_a_training_gets(config: Path) -> None:
    assert preview(config, "--samples", 1, "--draws", 2, "--seed", 5) == 0
    read = read_config(config, [])
    assert read.run.data.train is not None
    dataset = build_data.build_dataset(read.run.data, read.run.data.train, 5)
    stored, first, second, *_ = images(page(config))
    np.testing.assert_array_equal(stored, dataset.load(0)["images"])
    for epoch, seen in enumerate((first, second)):
        np.testing.assert_array_equal(seen, dataset[epoch, 0].arrays["images"])


def test_the_page_is_the_same_for_the_same_seed_and_another_one_for_another(config: Path) -> None:
    texts = []
    for seed in (1, 1, 2):
        assert preview(config, "--seed", seed) == 0
        texts.append(page(config))
    assert texts[0] == texts[1] != texts[2]


def test_sizes_mirroring_classes_and_the_batch_are_told(config: Path) -> None:
    assert preview(config, "--samples", 6) == 0
    text = page(config)
    assert "32 × 32, mirrored" in text
    assert re.findall(r"<li>(\w+)", text)[:3] == ["resize_h_w", "horizontal_flip", "random_crop_h_w"]
    assert "random_crop_h_w <b>32, 32</b>" in text
    legend = text[text.index('<div class="legend">') :]
    assert all(f"</span>{number}</span>" in legend for number in range(4))
    batch = text[text.index("Training batch") :]
    assert re.search(r"<code>label</code></td><td.*?>2 × 4 × 32 × 32</td><td.*?>float32</td><td.*?>0 to 1", batch)
    assert re.search(r"<code>images</code></td><td.*?>2 × 3 × 32 × 32</td>", batch)


def test_one_draw_of_a_training_is_not_called_an_evaluation(config: Path) -> None:
    assert preview(config, "--samples", 1, "--draws", 1) == 0
    train, val = page(config).split("<h2>val</h2>")
    assert "draw 1" in train
    assert "as evaluated" not in train
    assert "as evaluated" in val


def test_names_of_classes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    config = any_type.write_set(tmp_path, "unpaired_few_shot_images")
    assert preview(config, "--samples", 8) == 0
    assert {"class 0: cat", "class 1: dog", "class 0: dog", "class 1: fox"} == set(
        re.findall(r"class \d: \w+", page(config))
    )


def test_a_wrong_file_is_named_and_nothing_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = config.parent / "data/train/images/000.png"
    broken.write_bytes(b"")
    assert preview(config) == 2
    assert str(broken) in capsys.readouterr().err
    assert not (config.parent / "p.html").exists()


def test_maps_of_classes_have_the_colors_of_the_palette() -> None:
    array = np.array([[0, 1, 2], [255, 3, 1]], np.uint8)[..., None]
    expected = palette(3).numpy()
    seen = MAPS.to_rgb(array)
    for number in range(3):
        assert (seen[array[..., 0] == number] == expected[number]).all()
    assert tuple(seen[1, 1]) == UNKNOWN_COLOR
    assert tuple(seen[1, 0]) == tuple(class_colors(3)[255]) != UNKNOWN_COLOR


def test_numbers_are_shown_from_black_to_white() -> None:
    kind = codec_for(name="depth", ext="tiff", num_channels=1)
    array = np.linspace(-3, 7, 12, dtype=np.float32).reshape(3, 4, 1)
    expected = np.round((array + 3) / 10 * 255)
    np.testing.assert_allclose(kind.to_rgb(array), np.repeat(expected, 3, axis=2), atol=1)
    wide = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4, 1)
    assert kind.to_rgb(wide)[0, 0, 0] == 0
    assert kind.to_rgb(wide)[-1, -1, 0] == 255


@pytest.mark.filterwarnings("error")
def test_numbers_without_end_are_shown_as_the_brightest_and_the_darkest() -> None:
    kind = codec_for(name="depth", ext="tiff", num_channels=1)
    array = np.array([[np.inf, 0.0], [-np.inf, np.nan]], np.float32)[..., None]
    assert kind.to_rgb(array)[..., 0].tolist() == [[255, 128], [0, 128]]


def test_an_image_is_made_smaller_to_fit_and_enlarged_a_whole_number_of_times() -> None:
    small, large = (
        show(np.zeros((20, 30, 3), np.uint8), IMAGES, "a", 100),
        show(np.zeros((200, 400, 3), np.uint8), IMAGES, "a", 100),
    )
    assert (small.height, small.width, small.is_pixelated) == (60, 90, True)
    assert (large.height, large.width, large.is_pixelated) == (50, 100, False)


def test_key_points_are_marked_where_they_are_also_if_some_are_outside() -> None:
    points = codec_for(name="points", ext="json", is_points=True)
    marked = show(np.array([[30.0, 60.0], [-500, 1e9]]), points, "a", 90, np.zeros((90, 90, 3), np.uint8))
    data = base64.b64decode(marked.uri.partition(",")[2])
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    rows, columns = np.nonzero(image.any(axis=2))
    assert abs(rows.mean() - 60) < 0.5
    assert abs(columns.mean() - 30) < 0.5
    assert len(rows) < 20
