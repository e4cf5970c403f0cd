"""The weights of a bundle: the generator is built of them again, by its constructor or as a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from contract.experiment import CPU, batch_of, config_of, trainer_of, write_data
from contract.experiment import train as train_steps

import imagier
from imagier.errors import UserError
from imagier.run import RunOptions, export, load_generator, load_network, train
from imagier.run.bundle.weights import write_network

pytest.importorskip("safetensors")
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", ["spade", "pix2pixHD", "munit", "coco_funit"])
@pytest.mark.parametrize("weights", ["average", "regular"])
def test_the_constructor_builds_the_same_network_again(name: str, weights: str, data: Path, tmp_path: Path) -> None:
    config = config_of(name, data)
    trainer = trainer_of(config)
    train_steps(trainer, config, 2)
    player = trainer.players["gen"]
    network = player.average.network if weights == "average" else player.network.eval()
    path = tmp_path / "generator.safetensors"
    write_network(path, network, config, weights, iteration=3, epoch=1)
    again = load_network(path)
    assert type(again) is type(network) and not again.training
    recipe, other = (trainer.recipe.with_networks(gen=each) for each in (network, again))
    batch = recipe.prepare(batch_of(config, CPU))
    with torch.no_grad():
        one, two = (r.infer(batch, torch.Generator().manual_seed(0)) for r in (recipe, other))
    torch.testing.assert_close(torch.stack(one), torch.stack(two), rtol=1e-4, atol=1e-5)  # other algorithms


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations, of a network with spectral norms."""
    folder = tmp_path_factory.mktemp("run")
    images = tiny.write_data(folder / "data", train=4, val=2)
    train(tiny.config(images, max_iter=2), RunOptions(logdir=folder / "run", device="cpu"))
    return folder / "run"


@pytest.mark.parametrize("overrides", [[], ["trainer.model_average_config.enabled=false"]])
def test_a_bundle_is_opened_like_the_run(run: Path, tmp_path: Path, overrides: list[str]) -> None:
    export(run, tmp_path / "bundle", formats=["safetensors"], overrides=overrides)
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {
        "README.md",
        "bundle.json",
        "config.yaml",
        "generator.safetensors",
        "samples",
    }
    label = run.parent / "data" / "val" / "seg_maps" / "000.png"
    of_bundle = imagier.load_generator(tmp_path / "bundle")({"seg_maps": label}, seed=3)
    of_file = load_generator(tmp_path / "bundle" / "generator.safetensors")({"seg_maps": label}, seed=3)
    assert of_bundle.tobytes() == of_file.tobytes()
    facts = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert facts["weights"] == ("regular" if overrides else "average")
    if not overrides:
        assert of_bundle.tobytes() == load_generator(run)({"seg_maps": label}, seed=3).tobytes()


def test_a_file_that_holds_no_generator_is_refused(tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "foreign.safetensors", tmp_path / "damaged.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    damaged.write_bytes(b"12345678 and more")
    codes = {}
    for path in (foreign, damaged, tmp_path / "missing.safetensors"):
        with pytest.raises(UserError) as caught:
            load_network(path)
        codes[path.stem] = caught.value.code
    assert codes == {"foreign": "not-a-checkpoint", "damaged": "damaged-weights", "missing": "missing-checkpoint"}
