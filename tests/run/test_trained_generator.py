"""A trained generator that is called on what a caller has."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import imagier
from imagier.errors import UserError
from imagier.run import RunOptions, TrainedGenerator, build_data, generate, train
from imagier.run.experiment import read_experiment
from imagier.run.image_files import JPEG_QUALITY
from imagier.run.inference import load_recipe, load_weights
from imagier.run.memory_source import MemorySource
from imagier.train import runtime as runtimes
from imagier.train.checkpoint import load
from imagier.train.hooks.images import write_image
from imagier.train.runtime import Runtime


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=4, val=2)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run of two iterations."""
    logdir = tmp_path_factory.mktemp("run")
    train(tiny.config(data, max_iter=2), RunOptions(logdir=logdir, device="cpu"))
    return logdir


@pytest.fixture(scope="module")
def generator(logdir: Path) -> TrainedGenerator:
    return imagier.load_generator(logdir)


@pytest.fixture
def label(data: Path) -> Path:
    return data / "val" / "seg_maps" / "001.png"


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("name", ["a2b", "batch", "rng"])
def test_an_argument_that_the_method_does_not_have_is_named(
    generator: TrainedGenerator, label: Path, name: str
) -> None:
    with pytest.raises(UserError) as error:
        generator({"seg_maps": label}, **{name: True})
    assert (error.value.where, error.value.code) == (name, "unknown-argument")


def test_a_method_for_images_makes_no_clips(generator: TrainedGenerator, label: Path) -> None:
    with pytest.raises(UserError) as error:
        generator.rollout([{"seg_maps": label}])
    assert error.value.code == "no-videos"


def test_a_seed_that_is_none_is_named(generator: TrainedGenerator, label: Path) -> None:
    with pytest.raises(UserError) as error:
        generator({"seg_maps": label}, seed=-1)
    assert (error.value.where, error.value.code) == ("seed", "wrong-seed")


@pytest.mark.parametrize(("asked", "precision"), [("auto", "fp32"), ("bf16", "bf16")])
def test_images_are_made_in_half_precision_only_where_the_config_names_it(
    logdir: Path, monkeypatch: pytest.MonkeyPatch, asked: str, precision: str
) -> None:
    monkeypatch.setattr(runtimes, "_has_bf16", lambda device: True)
    words = ["trainer.amp_config.enabled=true", f"trainer.precision={asked}"]
    options = RunOptions(logdir=logdir, device="cpu")
    experiment = read_experiment(None, options, words)
    runtime = Runtime(torch.device("cpu"))
    load_recipe(experiment.config, load_weights(experiment, options), runtime)
    assert runtime.precision == precision


def test_its_images_are_those_of_generate(
    generator: TrainedGenerator, logdir: Path, label: Path, tmp_path: Path
) -> None:
    (_, written) = generate(logdir, tmp_path, RunOptions(device="cpu"), overrides=["data.val.batch_size=1"])
    image = generator({"seg_maps": label})
    assert (image.mode, image.size) == ("RGB", (tiny.SIZE, tiny.SIZE))
    write_image(tmp_path / "again.jpg", np.asarray(image), JPEG_QUALITY)
    assert (tmp_path / "again.jpg").read_bytes() == written.read_bytes()


def forms(label: Path) -> dict[str, object]:
    array = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    return {
        "text": str(label),
        "bytes": label.read_bytes(),
        "array": array,
        "array with channels": array[:, :, None],
        "16 bits": array.astype(np.uint16),
        "tensor": torch.from_numpy(array),
        "argmax": torch.nn.functional.one_hot(torch.from_numpy(array).long(), 4).argmax(dim=2)[None],
        "PIL": Image.open(label),
    }


FORMS = ("text", "bytes", "array", "array with channels", "16 bits", "tensor", "argmax", "PIL")


@pytest.mark.parametrize("form", FORMS)
def test_an_input_may_have_any_form(generator: TrainedGenerator, label: Path, form: str) -> None:
    expected = generator({"seg_maps": label})
    assert np.array_equal(pixels(generator({"seg_maps": forms(label)[form]})), pixels(expected))


def test_it_is_in_eval_mode_with_the_averaged_weights(generator: TrainedGenerator, logdir: Path) -> None:
    (path,) = logdir.glob("*_checkpoint.pt")
    saved = load(path)
    average = saved["players"]["gen"]["average"]["network"] | saved["extras"]["batch_norm"]
    own = generator.network.state_dict()
    assert own.keys() == average.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in average.items())
    assert not any(module.training for module in generator.network.modules())


def test_a_checkpoint_finds_the_config_beside_it(logdir: Path, label: Path, tmp_path: Path) -> None:
    (path,) = logdir.glob("*_checkpoint.pt")
    expected = pixels(imagier.load_generator(path)({"seg_maps": label}))
    alone = tmp_path / "alone.pt"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(UserError) as error:
        imagier.load_generator(alone)
    assert (error.value.where, error.value.code) == (str(tmp_path), "missing-config")
    found = imagier.load_generator(alone, config=logdir / "config.yaml")
    assert np.array_equal(pixels(found({"seg_maps": label})), expected)


def test_a_random_style_follows_from_the_seed_and_touches_no_other_randomness(data: Path, tmp_path: Path) -> None:
    config = tiny.config(data, max_iter=1)
    config["gen"]["style_dims"] = 4
    config["gen"]["style_enc"] = {"num_filters": 1}
    train(config, RunOptions(logdir=tmp_path / "run", device="cpu"))
    generator = imagier.load_generator(tmp_path / "run")
    inputs = {"seg_maps": data / "val" / "seg_maps" / "000.png"}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (pixels(generator(inputs, seed=seed, random_style=True)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("inputs", "where", "code"),
    [
        ({"seg_map": "x.png"}, "seg_map", "unknown-input"),
        ({}, "", "missing-input"),
        ({"images": np.zeros((32, 32, 3), np.uint8)}, "seg_maps", "missing-input"),
        ({"seg_maps": "none.png"}, "none.png", "unreadable-input"),
        ({"seg_maps": np.zeros((8, 8, 2), np.uint8)}, "seg_maps", "wrong-input"),
        ({"seg_maps": np.zeros((8, 8))}, "seg_maps", "wrong-input"),
        ({"seg_maps": np.full((8, 8), -1)}, "seg_maps", "wrong-input"),
        ({"images": np.full((8, 8, 3), 1.5)}, "images", "wrong-input"),
        ({"images": np.zeros((0, 8, 3))}, "images", "wrong-input"),
    ],
)
def test_a_wrong_input_is_named(generator: TrainedGenerator, inputs: dict[str, object], where: str, code: str) -> None:
    with pytest.raises(UserError) as error:
        generator(inputs)
    assert (error.value.where, error.value.code) == (where, code)


def test_a_file_that_is_no_image_is_named(generator: TrainedGenerator, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        generator({"seg_maps": tmp_path / "0.png"})
    assert (error.value.where, error.value.code) == (str(tmp_path / "0.png"), "damaged")


def test_a_class_that_the_config_does_not_know_is_refused(generator: TrainedGenerator) -> None:
    with pytest.raises(UserError, match="holds class 9"):
        generator({"seg_maps": np.full((32, 32), 9, np.uint8)})


def test_floats_from_0_to_1_are_images(generator: TrainedGenerator) -> None:
    codecs = [codec for codec in build_data.build_codecs(generator.config.run.data) if codec.name == "images"]
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    sources = [
        MemorySource(codecs, {"images": value})
        for value in (image, image / 255, torch.from_numpy(image).permute(2, 0, 1))
    ]
    for source in sources:
        stored = cv2.imdecode(np.frombuffer(source.read("images", "input/0"), np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), image)


def spoil(logdir: Path, folder: Path, place: str) -> tuple[Path, str]:
    """A copy of a run whose checkpoint holds a NaN; returns the checkpoint, and the name of the tensor."""
    shutil.copytree(logdir, folder)
    (path,) = folder.glob("*_checkpoint.pt")
    state = torch.load(path, weights_only=True)
    gen = state["players"]["gen"]
    found = {
        "weights": gen["network"],
        "average": gen["average"]["network"],
        "batch norm of the average": state["extras"]["batch_norm"],
        "moments": {str(index): of["exp_avg"] for index, of in gen["optimizer"]["state"].items()},
    }[place]
    name = next(name for name, tensor in reversed(found.items()) if tensor.is_floating_point())
    found[name].view(-1)[-1] = torch.nan
    other = path.with_name("spoiled.pt")
    torch.save(state, other)
    return other, name


@pytest.mark.parametrize("place", ["weights", "average", "batch norm of the average"])
def test_weights_that_are_not_finite_make_no_images(place: str, logdir: Path, data: Path, tmp_path: Path) -> None:
    path, name = spoil(logdir, tmp_path / "run", place)
    doors = [
        lambda: imagier.load_generator(path),
        lambda: generate(None, tmp_path / "out", RunOptions(checkpoint=path, device="cpu")),
    ]
    for door in doors:
        with pytest.raises(UserError) as error:
            door()
        assert (error.value.where, error.value.code) == (str(path), "not-finite")
        assert name in error.value.what


@pytest.mark.parametrize(("place", "resume"), [("weights", None), ("average", None), ("moments", True)])
def test_a_training_starts_from_no_numbers_that_are_not_finite(
    place: str, resume: bool | None, logdir: Path, data: Path, tmp_path: Path
) -> None:
    path, name = spoil(logdir, tmp_path / "run", place)
    options = RunOptions(logdir=tmp_path / "log", device="cpu", checkpoint=path, resume=resume)
    with pytest.raises(UserError) as error:
        train(tiny.config(data, max_iter=3), options)
    assert (error.value.where, error.value.code) == (str(path), "not-finite")
    assert ("exp_avg of " if place == "moments" else name) in error.value.what


def test_moments_that_are_not_finite_hinder_nobody_who_wants_the_weights(logdir: Path, tmp_path: Path) -> None:
    path, _ = spoil(logdir, tmp_path / "run", "moments")
    assert imagier.load_generator(path).input_names
