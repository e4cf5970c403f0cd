"""A generator of another run as a part of a network: its config, its weights, what optimizers know of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract.experiment import batch_of, config_of, train, trainer_of, write_data
from old_checkpoints import wrapped
from parity import names_of

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.run import build_training
from imagier.run.inference import load_recipe
from imagier.run.reference_checkpoint import translate_reference
from imagier.train import checkpoint
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

CPU = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, the config of a small SPADE, and its checkpoint."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_data(folder / "data")
    config = config_of("spade", folder / "data")
    (folder / "spade.yaml").write_text(config.dump())
    trainer = trainer_of(config)
    train(trainer, config, 3)  # before that, spectral norms are far from their values
    checkpoint.write(folder / "spade.pt", trainer, extras={})
    return folder


def whole(folder: Path, saved: str = "spade.pt", name: str = "spade") -> Config:
    alone = f"gen.single_image_model={{config: {folder / f'{name}.yaml'}, checkpoint: {folder / saved}}}"
    return config_of("wc_vid2vid", folder / "data", alone)


def spade_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "spade.pt", weights_only=True)["players"]["gen"]["network"]


def held(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights of the single-image model, by its own names."""
    prefix = "single_image_model.network."
    state = trainer.players["gen"].network.state_dict()
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def test_training_begins_with_the_weights_of_the_checkpoint_and_leaves_them(folder: Path) -> None:
    config = whole(folder)
    trainer = trainer_of(config)
    train(trainer, config, 2)
    expected = spade_weights(folder)
    assert expected.keys() == held(trainer).keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in held(trainer).items())
    without = trainer_of(config_of("wc_vid2vid", folder / "data"))
    own = without.players["gen"].network.state_dict()
    fresh = trainer_of(config).players["gen"].network.state_dict()
    assert all(torch.equal(fresh[name], tensor) for name, tensor in own.items() if "flow_network" in name)


def test_inference_finds_the_weights_in_the_checkpoint_of_the_whole(folder: Path, tmp_path: Path) -> None:
    trainer = trainer_of(whole(folder))
    checkpoint.write(tmp_path / "whole.pt", trainer, extras={})
    config = whole(folder, "gone.pt")
    recipe = load_recipe(config, FoundCheckpoint(tmp_path / "whole.pt", checkpoint.load(tmp_path / "whole.pt")), CPU)
    frames = recipe.prepare(batch_of(config)).frames()
    with torch.no_grad():
        made = [next(of.rollout(frames, torch.Generator().manual_seed(0)))[0] for of in (recipe, averaged(trainer))]
    assert torch.equal(made[0]["fake_images"], made[1]["fake_images"])


def averaged(trainer: Trainer):  # type: ignore[no-untyped-def]
    average = trainer.players["gen"].average
    assert average is not None
    return trainer.recipe.with_networks(gen=average.network)


def test_weights_of_the_reference_are_read_too(folder: Path) -> None:
    network = build_training.build_untrained_recipe(config_of("spade", folder / "data"), CPU).networks["gen"]
    names, weights = names_of(network), spade_weights(folder)
    torch.save({"net_G": wrapped({names[name]: weights[name] for name in weights})}, folder / "old.pt")
    found = held(trainer_of(whole(folder, "old.pt")))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())


def test_an_optimizer_of_the_reference_knows_nothing_of_it(folder: Path, tmp_path: Path) -> None:
    """There the model was added to the network after the optimizer was made; its weights stand last."""
    trainer = trainer_of(whole(folder))
    player = trainer.players["gen"]
    names = names_of(player.network)
    weights = {names[name]: tensor for name, tensor in player.network.state_dict().items()}
    learned = [p for name, p in player.network.named_parameters() if not name.startswith("single_image_model.")]
    moments = {
        number: {"step": 3, "exp_avg": torch.full_like(p, float(number)), "exp_avg_sq": torch.ones_like(p)}
        for number, p in enumerate(learned)
    }
    old = {"state": moments, "param_groups": [{"params": list(moments)}]}
    state = {"net_G": wrapped(weights), "opt_G": old}
    optimizers = {"gen": player.optimizer}
    whole_state, _ = translate_reference(state, {"gen": player.network}, {}, optimizers, tmp_path)
    assert len(whole_state["players"]["gen"]["optimizer"]["state"]) == len(learned)


@pytest.mark.parametrize(
    ("saved", "name", "code"),
    [
        ("gone.pt", "spade", "missing-checkpoint"),
        ("spade.pt", "gone", "missing-config"),
        ("spade.pt", "pix", "other-method"),
    ],
    ids=["checkpoint", "config", "method"],
)
def test_what_is_not_there_or_another_method_is_the_users_mistake(
    folder: Path, saved: str, name: str, code: str
) -> None:
    (folder / "pix.yaml").write_text(config_of("pix2pixHD", folder / "data").dump())
    with pytest.raises(UserError) as caught:
        trainer_of(whole(folder, saved, name))
    assert caught.value.code == code


def test_training_without_a_checkpoint_of_it_is_refused(folder: Path) -> None:
    alone = f"gen.single_image_model={{config: {folder / 'spade.yaml'}}}"
    with pytest.raises(UserError) as caught:
        trainer_of(config_of("wc_vid2vid", folder / "data", alone))
    assert caught.value.code == "needs-key"
