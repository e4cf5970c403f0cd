"""Networks are fitted to references before inference, on copies, and the same way every time."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from contract.experiment import CPU, SAMPLES, SIZE, batch_of, config_of, train, trainer_of, write_data
from PIL import Image
from torch import Tensor

import imagier
from imagier.config.check import Config
from imagier.errors import UserError
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Recipe
from imagier.run import RunOptions, TrainedGenerator, generate, sequences
from imagier.run.fine_tuning import fine_tune
from imagier.run.image_files import ImageFolder
from imagier.run.inference import load_recipe
from imagier.train import checkpoint
from imagier.train.checkpoint import FoundCheckpoint


class Killed(BaseException):
    """Ends a process in the middle of its work."""


class Run:
    """A trained run, as inference finds it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        data = write_data(folder / "data")
        val = f"data.val={{roots: ['{data}'], augmentations: {{resize_h_w: '{SIZE}, {SIZE}'}}}}"
        clips = ("data.type=paired_few_shot_videos", "data.initial_sequence_length=2")
        self.config: Config = config_of("fs_vid2vid", data, val, *clips, *overrides)
        trainer = trainer_of(self.config)
        train(trainer, self.config, 5)  # before, spectral norms are far from their values
        path = folder / "run.pt"
        checkpoint.write(path, trainer, extras={})
        self.weights = FoundCheckpoint(path, checkpoint.load(path))
        self.recipe = load_recipe(self.config, self.weights, CPU)
        self.batch: Batch = self.recipe.prepare(batch_of(self.config))

    def tune(self, **arguments: Any) -> Recipe:
        return fine_tune(self.recipe, self.config, lambda: self.weights, self.batch, (0, 1), CPU, arguments)

    def generate(self, folder: Path, *overrides: str) -> dict[str, bytes]:
        """What inference writes, by its place in the folder."""
        options = RunOptions(checkpoint=self.weights.path, device="cpu")
        generate(self.config.to_dict(), folder, options, format="png", overrides=overrides)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    weights = "trainer.loss_weight={gan: 0.001, feature_matching: 0.001, temporal_gan: 0.001, flow: 0, l1: 1}"
    return Run(tmp_path_factory.mktemp("tuned"), "gen_opt.lr=0.03", weights)


def state_of(recipe: Recipe) -> dict[str, Tensor]:
    named = recipe.networks.items()
    return {f"{p}.{name}": x.clone() for p, network in named for name, x in network.state_dict().items()}


def error_of(recipe: Recipe, batch: Batch) -> float:
    """How far the references are from what is made of their own labels."""
    own = batch.replace(label=batch["few_shot_label"][:, :1], images=batch["few_shot_images"][:, :1])
    with torch.no_grad():
        return (recipe.sample(own, torch.Generator()) - own["images"][:, 0]).abs().mean().item()


def test_references_are_made_better_after_it_and_the_given_networks_stay_as_they_are(run: Run) -> None:
    before, error = state_of(run.recipe), error_of(run.recipe, run.batch)
    tuned = run.tune(finetune=True, finetune_iter=30)
    assert error_of(tuned, run.batch) < 0.97 * error
    after = state_of(run.recipe)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_only_the_decoder_and_what_makes_weights_learn_and_the_discriminator_beside_them(run: Run) -> None:
    before, after = (
        dict(r.networks["gen"].named_parameters()) for r in (run.recipe, run.tune(finetune=True, finetune_iter=2))
    )
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"weight_generator", "up", "conv_img"}
    made = {
        name for name in before if name.startswith("weight_generator.") and not torch.equal(before[name], after[name])
    }
    assert made and all(name.startswith("weight_generator.fc.") for name in made)


def test_it_begins_with_the_discriminator_of_the_checkpoint(run: Run) -> None:
    trained = run.weights.state["players"]["dis"]["network"]
    tuned = run.tune(finetune=True, finetune_iter=0)
    assert all(torch.equal(trained[name], x) for name, x in tuned.networks["dis"].state_dict().items())
    assert not any(p.requires_grad for network in tuned.networks.values() for p in network.parameters())


def test_it_begins_with_the_discriminator_of_a_checkpoint_of_the_reference(run: Run) -> None:
    network, trained = run.recipe.networks["dis"], run.weights.state["players"]["dis"]["network"]
    names = reference_names(trained, network.reference_rules())  # type: ignore[operator]
    assert names.keys() != set(names.values())
    old = {"net_G": {}, "net_D": {f"module.{names[name]}": tensor for name, tensor in trained.items()}}
    weights, arguments = FoundCheckpoint(run.weights.path, old), {"finetune": True, "finetune_iter": 0}
    tuned = fine_tune(run.recipe, run.config, lambda: weights, run.batch, (0, 1), CPU, arguments)
    assert all(torch.equal(trained[name], x) for name, x in tuned.networks["dis"].state_dict().items())


def test_it_is_a_function_of_the_seeds(run: Run) -> None:
    first, second = (state_of(run.tune(finetune=True, finetune_iter=2)) for _ in range(2))
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


def test_nothing_happens_unless_it_is_asked_for(run: Run) -> None:
    assert run.tune() is run.recipe


def test_a_checkpoint_without_discriminators_cannot_be_tuned(run: Run) -> None:
    state = {**run.weights.state, "players": {"gen": run.weights.state["players"]["gen"]}}
    weights = FoundCheckpoint(run.weights.path, state)
    with pytest.raises(UserError) as caught:
        fine_tune(run.recipe, run.config, lambda: weights, run.batch, (0,), CPU, {"finetune": True})
    assert caught.value.code == "missing-player"


TUNED = ("inference_args.finetune=true", "inference_args.finetune_iter=2")


def test_inference_fits_the_networks_to_each_sequence_and_a_killed_call_ends_with_the_same_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imagier")
    plain, whole = run.generate(tmp_path / "plain"), run.generate(tmp_path / "whole", *TUNED)
    messages = [line for line in caplog.messages if "fitted" in line]
    assert [line.partition(":")[0] for line in messages] == ["a", "b"]
    frames = [name for name in whole if name.endswith("png")]
    assert len(frames) == SAMPLES and all(plain[name] != whole[name] for name in frames)
    monkeypatch.setattr(sequences, "STATE_EVERY", 2)
    write_image = ImageFolder.write

    def write_until_killed(folder: ImageFolder, name: str, image: Any) -> Path:
        if len(list((tmp_path / "killed").rglob("*.png"))) == 3:
            raise Killed
        return write_image(folder, name, image)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "write", write_until_killed)
        with pytest.raises(Killed):
            run.generate(tmp_path / "killed", *TUNED)
    assert run.generate(tmp_path / "killed", *TUNED) == whole


@pytest.fixture(scope="module")
def generator(run: Run) -> TrainedGenerator:
    return imagier.load_generator(run.weights.path, config=run.config)


def frames_of(run: Run, sequence: str, *types: str) -> Iterator[dict[str, Path]]:
    (root,) = run.config.run.data.train.roots if run.config.run.data.train else ()
    for path in sorted(Path(root, types[0], sequence).iterdir()):
        yield {name: Path(root, name, sequence, path.name) for name in types}


def test_sequences_of_ones_own_bring_their_references_along(run: Run, tmp_path: Path) -> None:
    plain, (root,) = run.generate(tmp_path / "plain"), run.config.run.data.val.roots if run.config.run.data.val else ()
    for name in ("images", "seg_maps"):
        shutil.copytree(Path(root, name, "b"), tmp_path / "mine" / name / "b")
    options = RunOptions(checkpoint=run.weights.path, device="cpu")
    generate(run.config, tmp_path / "out", options, inputs=tmp_path / "mine")
    made = {path.name: path.read_bytes() for path in (tmp_path / "out" / "b").iterdir()}
    assert len(made) == 4 and all(plain[f"b/{name}"] == data for name, data in made.items())


def test_clips_made_in_python_are_those_of_inference(run: Run, generator: TrainedGenerator, tmp_path: Path) -> None:
    run.generate(tmp_path)
    shown = list(frames_of(run, "a", "images", "seg_maps"))
    references = [shown[0], shown[2]]  # K of them, evenly spread
    state = torch.get_rng_state()
    made = list(generator.rollout(frames_of(run, "a", "seg_maps"), references=references))
    assert torch.equal(torch.get_rng_state(), state)
    written = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "a").iterdir())]
    assert len(made) == len(written) == 4
    assert all(np.array_equal(np.asarray(image), pixels) for image, pixels in zip(made, written))
    given = ({"seg_maps": cv2.imread(str(each["seg_maps"]), cv2.IMREAD_UNCHANGED)} for each in shown)
    again = generator.rollout(given, references=references)
    assert all(np.array_equal(np.asarray(image), pixels) for image, pixels in zip(again, written, strict=True))


def test_clips_made_in_python_are_fitted_to_their_references_on_request(run: Run, generator: TrainedGenerator) -> None:
    shown = list(frames_of(run, "a", "images", "seg_maps"))[:2]
    labels = [{"seg_maps": each["seg_maps"]} for each in shown]
    plain, tuned, again = (
        [np.asarray(image) for image in generator.rollout(labels, references=shown[:1], **arguments)]
        for arguments in ({}, *[{"finetune": True, "finetune_iter": 2}] * 2)
    )
    assert np.array_equal(tuned, again) and not np.array_equal(tuned, plain)


def clip_mistakes() -> Iterator[tuple[dict[str, Any], dict[str, Any], str, str]]:
    label = np.zeros((SIZE, SIZE), np.uint8)
    reference = {"images": np.zeros((SIZE, SIZE, 3), np.uint8), "seg_maps": label}
    yield {"seg_maps": label}, {}, "references", "no-references"
    yield {"images": reference["images"]}, {"references": [reference]}, "seg_maps", "missing-input"
    yield {"depth": label}, {"references": [reference]}, "depth", "unknown-input"
    yield {"seg_maps": label}, {"references": [{"seg_maps": label}]}, "references", "no-references"
    yield {"seg_maps": label}, {"references": [reference], "tune": True}, "tune", "unknown-argument"


@pytest.mark.parametrize(
    ("frame", "arguments", "where", "code"), list(clip_mistakes()), ids=["none", "label", "unknown", "image", "tune"]
)
def test_a_mistake_about_a_clip_is_named(
    generator: TrainedGenerator, frame: dict[str, Any], arguments: dict[str, Any], where: str, code: str
) -> None:
    with pytest.raises(UserError) as error:
        next(generator.rollout([frame], **arguments))
    assert (error.value.where, error.value.code) == (where, code)
