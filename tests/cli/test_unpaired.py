"""Sets without pairs through the command line: what is built from their configs, and what inference calls its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from images import noise, png, write
from small_config import read

from imagier.cli import main
from imagier.config.check import Config
from imagier.recipe import Batch, InferenceInputs, Position, Recipe, StepContext
from imagier.run import build_data, build_training, inference
from imagier.run.experiment import Experiment
from imagier.run.options import RunOptions
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.runtime import Runtime

CPU = Runtime(torch.device("cpu"))
IMAGE = {"ext": "png", "num_channels": 3, "normalize": True}
UNIT: dict[str, Any] = {
    "trainer": {"type": "unit", "gan_mode": "hinge", "loss_weight": {"gan": 1, "image_recon": 1}},
    "gen": {"type": "unit", "num_filters": 2, "num_res_blocks": 1, "num_downsamples_content": 1},
    "dis": {"type": "unit", "num_filters": 2, "num_layers": 1, "num_discriminators": 1},
}
FUNIT: dict[str, Any] = {
    "trainer": {"type": "funit", "gan_mode": "hinge", "loss_weight": {"gan": 1, "image_recon": 1}},
    "gen": {
        "type": "funit",
        "num_filters": 2,
        "num_filters_mlp": 4,
        "num_res_blocks": 1,
        "num_downsamples_content": 1,
        "num_downsamples_style": 2,
    },
    "dis": {"type": "funit", "num_filters": 2, "num_layers": 1, "num_classes": 3},
}


def section(root: Path, type_: str, *kinds: str, **splits: dict) -> dict[str, Any]:
    """A data section of those input types, with the splits named; each reads its own folder."""
    made: dict[str, Any] = {"type": type_, "input_types": [{kind: dict(IMAGE)} for kind in kinds]}
    for split, more in splits.items():
        made[split] = {"roots": [str(root / split)], "batch_size": 2, "augmentations": {"resize_h_w": "8, 8"}, **more}
    return made


def draw(root: Path, **files: list[str]) -> None:
    """Images root/<type>/<name>.png."""
    for kind, names in files.items():
        for seed, name in enumerate(names):
            write(root / kind / f"{name}.png", png(noise(8, 8, seed=seed)))


@pytest.fixture
def unit(tmp_path: Path) -> dict[str, Any]:
    draw(tmp_path / "train", images_a=["0", "1", "2"], images_b=["x/0", "y/0"])
    draw(tmp_path / "val", images_a=["x/0", "y/0"], images_b=["x/0", "x/1", "y/0", "y/1", "y/2"])
    return {**UNIT, "data": section(tmp_path, "unpaired_images", "images_a", "images_b", train={}, val={})}


@pytest.fixture
def funit(tmp_path: Path) -> dict[str, Any]:
    animals = ["ape/0", "bee/0", "cat/0", "cat/1"]
    draw(tmp_path / "train", images_content=animals, images_style=animals)
    few = ["eel/0", "eel/1", "fox/0"]
    draw(tmp_path / "val", images_content=few, images_style=few, images=few)
    held_out = section(tmp_path, "paired_images", "images_content", "images_style", "images", val={})
    own = {key: held_out[key] for key in ("type", "input_types")}
    splits = {"train": {}, "val": {**own, "input_image": ["images"]}}
    return {**FUNIT, "data": section(tmp_path, "unpaired_few_shot_images", "images_content", "images_style", **splits)}


def config_of(tree: dict[str, Any], tmp_path: Path) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return read(path)[0]


def test_training_draws_images_and_the_held_out_set_does_not(unit: dict, tmp_path: Path) -> None:
    config = config_of(unit, tmp_path)
    training = build_data.build_train_loader(config, CPU, seed=0).stream(Position())
    drawn = [next(training)[0].keys["images_b"] for _ in range(20)]
    assert len(set(map(tuple, drawn))) == 4  # of two files, two at a time
    assert config.run.data.val is not None
    held_out = build_data.build_held_out_loader(config, CPU, config.run.data, config.run.data.val, seed=0).once()
    keys = [batch.keys for batch in held_out]
    assert [name for batch in keys for name in batch["images_b"]] == ["x/0", "x/1", "y/0", "y/1", "y/2"]
    assert [name for batch in keys for name in batch["images_a"]] == ["x/0", "y/0", "x/0", "y/0", "x/0"]


def test_a_held_out_set_of_another_type_has_its_own_input_types(funit: dict, tmp_path: Path) -> None:
    data = config_of(funit, tmp_path).run.data
    config = config_of(funit, tmp_path)
    batch, _ = next(build_data.build_train_loader(config, CPU, seed=0).stream(Position()))
    assert set(batch.tensors) == {
        *("images_content", "images_style", "labels_content", "labels_style"),
        *("is_flipped_images_content", "is_flipped_images_style"),
        *("original_h_w_images_content", "original_h_w_images_style"),
    }
    assert data.val is not None
    loader = build_data.build_held_out_loader(config, CPU, build_data.select_validation_data(data), data.val, seed=0)
    batch = next(loader.once())
    kinds = ("images_content", "images_style", "images")
    sizes = {"original_h_w", *(f"original_h_w_{kind}" for kind in kinds)}
    assert set(batch.tensors) == {*kinds, *sizes, "is_flipped"}
    assert batch["images"].shape == (2, 3, 8, 8)
    assert batch["images"].min() < -0.5  # normalized
    assert batch.keys == {name: ["eel/0", "eel/1"] for name in ("images_content", "images_style", "images")}


def told(tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> list[str]:
    """What a dry run says on standard error."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    words = ["train", "--config", str(path), "--logdir", str(tmp_path / "log"), "--device", "cpu", "--dry-run"]
    main([*words, *overrides])
    return capsys.readouterr().err.splitlines()


def test_more_classes_than_the_config_says_are_told_before_training(
    funit: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(funit, tmp_path, capsys) == []
    (line,) = told(funit, tmp_path, capsys, "dis.num_classes=2")
    assert "dis.num_classes: is 2, but the data have 3 classes" in line
    (line,) = told(funit, tmp_path, capsys, "data.num_classes=2")
    assert line.startswith("data.num_classes: is 2, but the training set has 3 classes")
    assert told(funit, tmp_path, capsys, "data.num_classes=4") == []


def test_classes_of_contents_and_of_styles_each_have_to_fit_and_not_both_together(
    funit: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # as in the reference's own small set: the folder of the styles lies one level too deep
    root = tmp_path / "nested"
    draw(root, images_content=["cat/0", "dog/0", "wild/0"], images_style=["images_content/cat/0"])
    nested = [f"data.train.roots=['{root}']", "data.val=null"]
    assert told(funit, tmp_path, capsys, *nested) == []
    (line,) = told(funit, tmp_path, capsys, *nested, "dis.num_classes=2")
    assert "dis.num_classes: is 2, but the data have 3 classes" in line


def test_wrong_files_of_all_types_are_named_before_training(
    unit: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train/images_b/y/0.png", b"hello")
    write(tmp_path / "val/images_a/x/0.png", b"")
    lines = set(told(unit, tmp_path, capsys))
    assert {line.partition(": ")[0] for line in lines} == {
        str(tmp_path / "train/images_b/y/0.png"),
        str(tmp_path / "val/images_a/x/0.png"),
    }


@pytest.fixture(autouse=True)
def without_weights(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Networks are not read from a file here."""
    checkpoint = FoundCheckpoint(tmp_path_factory.mktemp("weights") / "x.pt", {})
    checkpoint.path.write_bytes(b"some")
    monkeypatch.setattr(inference, "load_weights", lambda experiment, options: checkpoint)


def inferred(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, np.ndarray]]:
    """What `imagier infer` writes with networks as they are first: the count it tells, and the images by path."""
    monkeypatch.setattr(
        inference, "load_recipe", lambda config, path, runtime: build_training.build_untrained_recipe(config, runtime)
    )
    out = tmp_path / "out"
    count = len(inference.write_images(Experiment(config), out, RunOptions(), CPU))
    images = {}
    for path in out.rglob("*.jpg"):
        image = cv2.imread(str(path))
        assert image is not None
        images[path.relative_to(out).as_posix()] = image
    return count, images


def test_every_image_is_translated_once_under_its_own_name(
    unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, images = inferred(config_of(unit, tmp_path), tmp_path, monkeypatch)
    assert set(images) == {"x/0.jpg", "y/0.jpg"}  # although the list of images_b goes on
    assert count == 2


def test_noise_of_layers_depends_on_the_seed_alone(unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = 0

    def noisy(config: Config, path: Path, runtime: Runtime) -> Recipe:
        recipe = build_training.build_untrained_recipe(config, runtime)
        for name, parameter in recipe.networks["gen"].named_parameters():
            if name.endswith("noise.scale"):
                torch.nn.init.ones_(parameter)
        torch.rand(draws)
        return recipe

    config = config_of({**unit, "gen": {**unit["gen"], "apply_noise": True}}, tmp_path)
    monkeypatch.setattr(inference, "load_recipe", noisy)

    def painted(seed: int, drawn_before: int) -> bytes:
        nonlocal draws
        draws = drawn_before
        out = tmp_path / f"{seed} {draws}"
        inference.write_images(Experiment(config), out, RunOptions(seed=seed), CPU)
        return (out / "x/0.jpg").read_bytes()

    assert painted(0, 0) == painted(0, 3)
    assert painted(0, 0) != painted(1, 0)


def test_the_other_direction_is_named_after_the_other_type(
    unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of({**unit, "inference_args": {"a2b": False}}, tmp_path)
    count, images = inferred(config, tmp_path, monkeypatch)
    assert set(images) == {f"{name}.jpg" for name in ("x/0", "x/1", "y/0", "y/1", "y/2")}
    assert count == 5


@pytest.mark.parametrize("name", ["unit", "munit"])
def test_one_domain_alone_is_enough_to_translate_it(
    name: str, unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "test", images_a=["only/0", "only/1", "2"])
    tree = {**unit, "test_data": section(tmp_path, "unpaired_images", "images_a", test={})}
    if name == "munit":
        tree |= {part: {**tree[part], "type": "munit"} for part in ("gen", "dis", "trainer")}
    count, images = inferred(config_of(tree, tmp_path), tmp_path, monkeypatch)
    assert set(images) == {"only/0.jpg", "only/1.jpg", "2.jpg"}
    assert count == 3


def test_few_shot_inference_reads_pairs_and_is_named_after_the_contents(
    funit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "test", images_content=["ape/0", "1"], images_style=["ape/0", "1"])
    kinds = ("images_style", "images_content")
    tree = {**funit, "test_data": section(tmp_path, "paired_images", *kinds, test={})}
    count, images = inferred(config_of(tree, tmp_path), tmp_path, monkeypatch)
    assert (count, set(images)) == (2, {"ape/0.jpg", "1.jpg"})


def test_few_shot_images_get_the_size_of_their_content_whatever_that_of_the_style(
    funit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "test/images_content/0.png", png(noise(12, 9)))
    write(tmp_path / "test/images_style/0.png", png(noise(10, 20)))
    for type_ in ("paired_images", "unpaired_few_shot_images"):
        tree = {**funit, "test_data": section(tmp_path, type_, "images_content", "images_style", test={})}
        _, images = inferred(config_of(tree, tmp_path), tmp_path / type_, monkeypatch)
        assert [image.shape for image in images.values()] == [(12, 9, 3)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_in_parts_needs_two_forwards_and_no_losses_without_weight(
    accumulate: int, unit: dict, tmp_path: Path
) -> None:
    unit["trainer"] = {**unit["trainer"], "loss_weight": {"gan": 1}, "accumulate": accumulate}
    unit["data"]["train"]["batch_size"] = 1
    config = config_of(unit, tmp_path)
    recipe = build_training.build_recipe(config, CPU, seed=0)
    batch, _ = next(build_data.build_train_loader(config, CPU, seed=0).stream(Position()))
    forwards: list[None] = []
    recipe.networks["gen"].register_forward_pre_hook(lambda *_: forwards.append(None))
    losses = dict(recipe.step(batch, StepContext(0, 0, torch.Generator(), parts=accumulate)))
    assert len(forwards) == accumulate
    assert losses["gen"].keys() == {"gan/a", "gan/b"}


def test_gray_images_are_translated_and_written(unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in tmp_path.glob("*/*/**/*.png"):
        write(path, png(noise(8, 8, 1)))
    gray = {"num_image_channels": 1}
    unit["gen"], unit["dis"] = {**unit["gen"], **gray}, {**unit["dis"], **gray}
    for kinds in unit["data"]["input_types"]:
        for options in kinds.values():
            options["num_channels"] = 1
    _, images = inferred(config_of(unit, tmp_path), tmp_path, monkeypatch)
    assert len(images) == 2
    assert all(image.shape == (8, 8, 3) for image in images.values())


def test_inference_gets_the_seed_of_the_run_if_it_asks_for_one(
    unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, int]] = []

    class Asking:
        is_video = False

        def infer(self, batch: Batch, rng: torch.Generator, *, seed: int, a2b: bool = True) -> list[torch.Tensor]:
            seen.append({"seed": seed, "a2b": a2b})
            return [torch.zeros(3, 1, 1)] * len(batch)

        def prepare(self, batch: Batch) -> Batch:
            return batch

        def infer_names(self, batch: Batch, **options: Any) -> list[str]:
            return batch.keys["images_a"]

        def inference_inputs(self, **options: Any) -> InferenceInputs:
            return InferenceInputs(content=("images_a",))

    monkeypatch.setattr(inference, "load_recipe", lambda config, path, runtime: Asking())
    experiment = Experiment(config_of({**unit, "inference_args": {"a2b": False}}, tmp_path))
    for rank in range(2):
        options = RunOptions(seed=5)
        inference.write_images(experiment, tmp_path / "out", options, Runtime(torch.device("cpu"), rank=rank))
    assert {tuple(options.items()) for options in seen} == {(("seed", 5), ("a2b", False))}


def test_images_of_one_name_from_several_roots_are_all_written(
    unit: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "more", images_a=["other", "x/0"], images_b=["x/0"])
    unit["data"]["val"]["roots"].append(str(tmp_path / "more"))
    _, images = inferred(config_of(unit, tmp_path), tmp_path, monkeypatch)
    assert set(images) == {"x/0.jpg", "y/0.jpg", "other.jpg", "x/0_2.jpg"}
    assert not np.array_equal(images["x/0.jpg"], images["x/0_2.jpg"])


def test_a_recipe_that_says_nothing_names_images_after_the_first_type(funit: dict, tmp_path: Path) -> None:
    batch = Batch({}, {"seg_maps": ["s/0", "s/1"], "images": ["x", "y"]})
    recipe = build_training.build_untrained_recipe(config_of(funit, tmp_path), CPU)
    assert Recipe.infer_names(recipe, batch, random_style=True) == ["s/0", "s/1"]
