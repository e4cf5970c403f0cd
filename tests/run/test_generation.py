"""Images of files of the caller's, and of the test set: their sizes, names, styles and formats."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from contract.experiment import config_of, write_data
from images import png, write
from PIL import Image, JpegImagePlugin

from imagier.errors import UserError
from imagier.run import RunOptions, TrainedGenerator, generate, generation
from imagier.run.experiment import Experiment
from imagier.run.image_files import ImageFolder, ImageFormat
from imagier.run.inference import ImageRequest, write_images
from imagier.run.input_files import InputLister
from imagier.run.sizes import keep_deterministic, keep_resize
from imagier.train import disk
from imagier.train.runtime import Runtime

from .untrained import replace_weights

CPU = RunOptions(device="cpu")
HEIGHT, WIDTH = 45, 67

SPADE = ("gen.weight_norm_type=none", "gen.activation_norm_params.activation_norm_type=instance")
"""Networks of any weights then make images of some contrast."""

CONTENT = {
    "spade": "seg_maps",
    "unit": "images_a",
    "munit": "images_a",
    "funit": "images_content",
    "coco_funit": "images_content",
}
"""What each method paints, where that is one type."""


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    # As they are first, images would be gray.
    replace_weights(monkeypatch, tmp_path_factory.mktemp("weights"), lambda p: torch.nn.init.normal_(p, std=0.2))


def draw(folder: Path, names: Sequence[str], *, ids: bool = False, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Images of noise, or label maps of four classes."""
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed + len(str(folder)))
        image = rng.integers(0, 4 if ids else 256, (*size, 1 if ids else 3)).astype(np.uint8)
        write(folder / name, png(image))
    return folder


def pixels(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def listed(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    return sorted(name for name in found if not name.startswith(".made-"))


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_inputs_alone_are_enough_and_their_sizes_names_and_folders_are_kept(name: str, tmp_path: Path) -> None:
    inputs = draw(tmp_path / "in", ["0.png", "a/b/1.png"], ids=name == "spade")
    draw(inputs, ["wide.png"], ids=name == "spade", size=(20, 90))
    styles = [draw(tmp_path / "style", ["s.png"]) / "s.png"] if "funit" in name else []
    config = config_of(name, tmp_path / "no such data")
    generate(config, tmp_path / "out", CPU, inputs=inputs, styles=styles)
    assert listed(tmp_path / "out") == ["0.png", "a/b/1.png", "wide.png"]
    assert pixels(tmp_path / "out/a/b/1.png").shape == (HEIGHT, WIDTH, 3)
    assert pixels(tmp_path / "out/wide.png").shape == (20, 90, 3)


@pytest.mark.parametrize("way", ["a folder of each", "named", "by suffix"])
def test_several_types_belong_together_by_name(way: str, tmp_path: Path) -> None:
    types = ("seg_maps", "instance_maps")
    config = config_of("pix2pixHD", tmp_path, "gen.enc.num_feat_channels=0")
    if way == "by suffix":
        for name in types:
            draw(tmp_path / "in", [f"x/0_{name}.png", f"1_{name}.png"], ids=True)
        inputs = [tmp_path / "in"]
    else:
        for name in types:
            draw(tmp_path / "in" / name, ["x/0.png", "1.png"], ids=True)
        inputs = [tmp_path / "in"] if way != "named" else [f"{name}={tmp_path / 'in' / name}" for name in types]
    generate(config, tmp_path / "out", CPU, inputs=inputs)
    assert listed(tmp_path / "out") == ["1.png", "x/0.png"]


def test_a_sample_without_its_partner_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "a", ["0.png", "1.png"])
    draw(tmp_path / "b", ["0.png", "2.png"])
    with pytest.raises(UserError) as error:
        InputLister(["a", "b"]).list_samples([tmp_path])
    assert (error.value.where, error.value.code) == (f"{tmp_path}/a/1.png", "missing-partner")


def test_files_of_one_name_are_all_painted_and_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagier")
    draw(tmp_path / "in", ["0.png", "a/0.png"])
    write(tmp_path / "in/0.bmp", cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    write(tmp_path / "in/notes.txt", b"x")
    names = [name for name, _ in InputLister(["images_a"]).list_files([tmp_path / "in"])]
    assert sorted(names) == ["./0", "./0_2", "a/0"]
    assert "notes.txt" in caplog.text


def test_few_shot_methods_paint_every_content_in_every_style(tmp_path: Path) -> None:
    contents = draw(tmp_path / "val/images_content", ["x/0.png", "x/1.png", "2.png"])
    styles = draw(tmp_path / "val/images_style", ["p/0.png", "q.png"])
    config = config_of(
        "funit", tmp_path, f"data.val={{roots: [{tmp_path}/val], augmentations: {{resize_h_w: '32, 32'}}}}"
    )
    expected = [f"{content}_style_{style}" for content in ("2", "x/0", "x/1") for style in ("p_0", "q")]
    generate(config, tmp_path / "of files", CPU, inputs=contents, styles=styles)
    generate(config, tmp_path / "of the set", CPU)
    assert listed(tmp_path / "of files") == [f"{name}.png" for name in expected]
    assert listed(tmp_path / "of the set") == [f"{name}.jpg" for name in expected]
    assert pixels(tmp_path / "of the set/2_style_q.jpg").shape == (HEIGHT, WIDTH, 3)
    assert len(generate(config, tmp_path / "first", CPU, num_styles=1)) == 3
    with pytest.raises(UserError) as error:
        generate(config, tmp_path / "none", CPU, inputs=contents)
    assert (error.value.where, error.value.code) == ("styles", "missing-style")


def test_a_random_style_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    for name, ids in (("images", False), ("seg_maps", True)):
        draw(tmp_path / "val" / name, [f"{i}.png" for i in range(3)], ids=ids, size=(32, 32))
    val = f"data.val={{roots: [{tmp_path}/val], augmentations: {{resize_h_w: '32, 32'}}, batch_size: %d}}"

    def painted(out: str, batch_size: int, rank: int = 0, world: int = 1, seed: int = 0) -> dict[str, bytes]:
        config = config_of("spade", tmp_path, *SPADE, val % batch_size, "inference_args.random_style=true")
        options = RunOptions(device="cpu", seed=seed)
        runtime = Runtime(torch.device("cpu"), rank=rank, world=world)
        paths = write_images(
            Experiment(config), tmp_path / out, options, runtime, ImageRequest(how=ImageFormat(name="png"))
        )
        return {path.name: path.read_bytes() for path in paths}

    one = painted("one", 1)
    assert painted("three", 3) == one
    with pytest.MonkeyPatch.context() as patch:
        for name in ("all_reduce_sum", "broadcast"):
            patch.setattr(Runtime, name, lambda runtime, value: value)
        assert painted("ranks", 1, 0, 2) | painted("ranks", 1, 1, 2) == one
    assert len({*one.values(), *painted("other seed", 1, seed=1).values()}) == 6


def test_styles_come_in_numbers_or_from_images(tmp_path: Path) -> None:
    label = draw(tmp_path / "in", ["0.png"], ids=True)
    style = draw(tmp_path / "style", ["s.png"]) / "s.png"
    config = config_of("spade", tmp_path, *SPADE)
    generate(config, tmp_path / "three", CPU, inputs=label, num_styles=3)
    assert listed(tmp_path / "three") == ["0_style_0.png", "0_style_1.png", "0_style_2.png"]
    assert len({path.read_bytes() for path in (tmp_path / "three").glob("*.png")}) == 3
    generate(config, tmp_path / "one", CPU, inputs=label)
    assert pixels(tmp_path / "one/0.png").tobytes() == pixels(tmp_path / "three/0_style_0.png").tobytes()
    generate(config, tmp_path / "styled", CPU, inputs=label, styles=style)
    assert not np.array_equal(pixels(tmp_path / "styled/0.png"), pixels(tmp_path / "one/0.png"))
    draw(tmp_path / "pairs", ["0.png", "0_style_a.png"], ids=True)
    draw(tmp_path / "styles", ["b.png", "a_style_b.png"])  # two of the four have one name
    paths = generate(config, tmp_path / "four", CPU, inputs=tmp_path / "pairs", styles=tmp_path / "styles")
    assert len(set(paths)) == len(listed(tmp_path / "four")) == 4
    unit = config_of("unit", tmp_path)
    for options, where in (({"num_styles": 2}, "num_styles"), ({"styles": style}, "styles")):
        with pytest.raises(UserError) as error:
            generate(unit, tmp_path / "none", CPU, inputs=draw(tmp_path / "a", ["0.png"]), **options)
        assert error.value.where == where


def test_python_and_files_are_painted_alike(tmp_path: Path) -> None:
    config = config_of("unit", tmp_path)
    (path,) = generate(config, tmp_path / "out", CPU, inputs=draw(tmp_path / "in", ["0.png"]))
    runtime = Runtime(torch.device("cpu"))
    generator = TrainedGenerator(config, generation.load_recipe(config, None, runtime), runtime)
    image = generator({"images_a": tmp_path / "in/0.png"})
    assert image.size == (WIDTH, HEIGHT)
    assert np.array_equal(np.asarray(image)[..., ::-1], pixels(path))
    assert generator({"images_a": tmp_path / "in/0.png"}, keep_original_size=False).size != (WIDTH, HEIGHT)
    assert generator({"images_a": tmp_path / "in/0.png"}, full_size=True).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["spade", "unit"])
def test_the_test_set_is_painted_as_its_section_says_and_a_line_says_which_size(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagier")
    for kind in ("images", "seg_maps", "images_a", "images_b"):
        draw(tmp_path / "val" / kind, ["0.png"], ids=kind == "seg_maps")
    val = f"data.val={{roots: [{tmp_path}/val], augmentations: {{resize_smallest_side: 45%s}}}}"
    config = config_of(name, tmp_path, val % "")
    (plain,) = generate(config, tmp_path / "plain", CPU)
    size = pixels(plain).shape[:2]
    assert size == {"spade": (32, 64), "unit": (44, 66)}[name]
    assert f"{size[0]} x {size[1]} px of an input of 45 x 67 px" in caplog.messages[-1]
    (kept,) = generate(config, tmp_path / "kept", CPU, overrides=["inference_args.keep_original_size=true"])
    assert pixels(kept).shape[:2] == (HEIGHT, WIDTH)
    random = ", horizontal_flip: true, rotate: 20, gamma: {gamma_limit_lb: 50, gamma_limit_ub: 51, p: 1}"
    (mirrored,) = generate(config_of(name, tmp_path, val % random), tmp_path / "mirrored", CPU)
    assert mirrored.read_bytes() == plain.read_bytes()
    assert "horizontal_flip, rotate, gamma" in caplog.text


def test_what_is_random_in_augmentations_becomes_its_middle() -> None:
    keys = {"resize_smallest_side": 40, "random_crop_h_w": "32, 32", "horizontal_flip": False}
    assert keep_deterministic(keys) == (
        {"resize_smallest_side": 40, "center_crop_h_w": "32, 32"},
        ["random_crop_h_w"],
    )
    aspect = {"random_resize_h_w_aspect": "32, 48, (0.5, 2)"}
    box = {"resize_smallest_side": "32, 48", "center_crop_h_w": "32, 48"}
    assert keep_deterministic(aspect) == (box, ["random_resize_h_w_aspect"])
    assert keep_resize(aspect) == {"resize_smallest_side": "32, 48"}
    assert keep_resize({"random_crop_h_w": "32, 32"}) == {"resize_smallest_side": "32, 32"}


@pytest.mark.parametrize("image_format", ["png", "webp", "tiff", "jpg"])
def test_all_formats_but_jpeg_keep_every_value_and_jpeg_all_places_of_colors(image_format: str, tmp_path: Path) -> None:
    lines = np.full((64, 64, 3), 255, np.uint8)
    lines[::4], lines[:, ::4] = (255, 0, 0), (0, 0, 255)
    path = ImageFolder(tmp_path, image_format).write("a/0", lines)
    assert path == tmp_path / f"a/0.{image_format}"
    read = pixels(path)[..., ::-1].astype(int)
    if image_format == "jpg":
        assert JpegImagePlugin.get_sampling(Image.open(path)) == 0  # 4:4:4
        assert np.abs(read - lines).mean() < 1
    else:
        assert np.array_equal(read, lines)


@pytest.mark.parametrize("out", ["in", "in/sub", "link", "in/x/../new"])
def test_a_folder_of_inputs_is_not_written_to(out: str, tmp_path: Path) -> None:
    draw(tmp_path / "in", ["0.png", "x/1.png"])
    (tmp_path / "link").symlink_to("in")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.png")}
    with pytest.raises(UserError) as error:
        generate(config_of("unit", tmp_path), tmp_path / out, CPU, inputs=tmp_path / "in")
    assert error.value.code == "output-in-input"
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.png")} == before


def test_an_input_file_is_not_replaced_nor_a_root_of_the_test_set(tmp_path: Path) -> None:
    write_data(tmp_path / "val")
    config = config_of(
        "unit", tmp_path, f"data.val={{roots: [{tmp_path}/val], augmentations: {{resize_smallest_side: 32}}}}"
    )
    file = tmp_path / "val/images_a/a/0.png"
    before = file.read_bytes()
    for out, inputs in ((file.parent, file), (tmp_path / "val/images_a", None), (tmp_path / "val", None)):
        with pytest.raises(UserError) as error:
            generate(config, out, CPU, inputs=inputs, format="png")
        assert error.value.code == "output-in-input"
    assert file.read_bytes() == before


def test_what_cannot_be_written_is_named_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ImageFolder(tmp_path, "png")
    image = np.zeros((4, 4, 3), np.uint8)
    write(tmp_path / "file", b"x")
    for name in ("file/0", "file/deep/0"):
        with pytest.raises(UserError) as error:
            folder.write(name, image)
        assert (error.value.where, error.value.code) == (f"{tmp_path}/{name}.png", "file-in-the-way")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(UserError) as error:
        folder.write("1", image)
    assert (error.value.where, error.value.code) == (f"{tmp_path}/1.png", "unwritable-image")
    assert "No space left on device" in error.value.what
    assert listed(tmp_path) == []


def test_names_fit_into_the_file_system(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path, "png")
    image = np.zeros((4, 4, 3), np.uint8)
    long = "写" * 82  # 246 bytes
    assert folder.write(long, image).name == f"{long}.png"
    longer = [folder.write(f"{long}_style_{end}", image) for end in ("a", "b")]
    assert len({path.name for path in longer}) == 2
    assert all(len(path.name.encode()) <= 255 and path.suffix == ".png" for path in longer)


def test_a_side_that_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        ImageFolder(tmp_path, "webp").write("0", np.zeros((1, 16384, 3), np.uint8))
    assert error.value.code == "too-large-for-format"
