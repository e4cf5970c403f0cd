"""What every method keeps, whatever it does: the promises of recipe.py, checked on a small experiment of each."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract import experiment
from contract.experiment import (
    CPU,
    EXPERIMENTS,
    METHODS,
    SIZE,
    batch_of,
    config_of,
    loader_of,
    train,
    trainer_of,
    write_data,
)
from torch import Tensor

from imagier.config.check import check
from imagier.config.legacy import translate_legacy
from imagier.config.load import load
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Position, Recipe, StepContext
from imagier.train import checkpoint
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

each_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("contract"))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def prepared(trainer: Trainer, data: Path, name: str) -> Batch:
    """A batch as all methods but `step` want it."""
    return trainer.recipe.prepare(batch_of(config_of(name, data)))


def warm(name: str, data: Path, seed: int = 0) -> Trainer:
    """A trainer that has learned a little, so that spectral norms are near their values, in eval mode."""
    config = config_of(name, data)
    trainer = trainer_of(config, seed=seed)
    train(trainer, config, 3)
    for network in trainer.recipe.networks.values():
        network.eval()
    return trainer


def states(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor of networks, averages and optimizers, by name."""
    found = {}
    for name, player in trainer.players.items():
        state = player.state_dict()
        found |= {f"{name}.{key}": x for key, x in state["network"].items()}
        found |= {f"{name}.average.{key}": x for key, x in state.get("average", {}).get("network", {}).items()}
        for index, moments in state["optimizer"]["state"].items():
            found |= {f"{name}.optimizer.{index}.{key}": torch.as_tensor(x) for key, x in moments.items()}
    return {name: tensor.clone() for name, tensor in found.items()}


def test_every_method_has_an_experiment_here_and_the_folder_is_found() -> None:
    assert {"spade"} <= set(METHODS)
    trained = {load(experiment.FOLDER / f"{name}.yaml").get(("trainer", "type")) for name in EXPERIMENTS}
    assert trained == set(METHODS)


@pytest.mark.parametrize("order", ["false", "true"])
@each_experiment
def test_a_step_yields_known_players_and_finite_losses_all_of_which_have_weights(
    name: str, order: str, data: Path
) -> None:
    config = config_of(name, data, f"trainer.reference_order={order}")
    recipe = trainer_of(config).recipe
    batch = batch_of(config)
    before = {key: tensor.clone() for key, tensor in batch.tensors.items()}
    seen, named = [], set()
    for player, losses in recipe.step(batch, StepContext(0, 0, rng())):
        seen.append(player)
        for loss, value in losses.items():
            assert value.shape == (), loss
            assert value.isfinite(), loss
            whole, _, part = loss.partition("/")
            assert whole in recipe.loss_weight
            named |= {whole, f"{whole}_{part}"}
        assert recipe.total(losses).requires_grad
    assert set(seen) == set(recipe.players)
    wanted = {loss for loss, weight in recipe.loss_weight.items() if weight}
    assert wanted <= named, "a loss has a weight, but was not computed"
    assert all(torch.equal(batch[key], tensor) for key, tensor in before.items()), "the batch was changed in place"


@each_experiment
def test_every_weight_of_every_player_moves(name: str, data: Path) -> None:
    config = config_of(name, data)
    trainer = trainer_of(config)
    before = {f"{p}.{n}": x.clone() for p, net in trainer.recipe.networks.items() for n, x in net.named_parameters()}
    train(trainer, config, 3)
    after = {f"{p}.{n}": x for p, net in trainer.recipe.networks.items() for n, x in net.named_parameters()}
    still = [key for key, tensor in before.items() if torch.equal(tensor, after[key])]
    assert still == []


@each_experiment
def test_what_the_discriminator_thinks_follows_from_its_loss(name: str, data: Path) -> None:
    """A discriminator that learns alone takes real images for more real than generated ones; a look changes nothing."""
    config = config_of(name, data)
    trainer = warm(name, data)
    trainer.recipe.train()
    batch = batch_of(config)

    def gap() -> float:
        for network in trainer.recipe.networks.values():
            network.eval()
        before = states(trainer)
        with torch.no_grad():
            discriminator_logits = trainer.recipe.discriminator_logits(trainer.recipe.prepare(batch), rng())
        assert all(torch.equal(before[key], tensor) for key, tensor in states(trainer).items())
        trainer.recipe.train()
        assert discriminator_logits is not None
        real, fake = (torch.cat([x.flatten() for x in side]) for side in discriminator_logits)
        return float(real.mean() - fake.mean())

    first = gap()
    for _ in range(30):
        for player, losses in trainer.recipe.step(batch, StepContext(0, 0, rng())):
            if player == "dis":
                trainer.players["dis"].backward(trainer.recipe.total(losses))
                trainer.players["dis"].update()
    assert gap() > first + 0.01


@each_experiment
def test_each_phase_moves_its_player_alone(name: str, data: Path) -> None:
    config = config_of(name, data)
    trainer = trainer_of(config)
    networks = trainer.recipe.networks

    def learned(player: str) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in networks[player].parameters()]

    phases = trainer.recipe.step(batch_of(config), StepContext(0, 0, rng()))
    for player, losses in phases:
        before = {other: learned(other) for other in networks}
        trainer.players[player].backward(trainer.recipe.total(losses))
        trainer.players[player].update()
        for other in networks:
            same = all(torch.equal(a, b) for a, b in zip(before[other], learned(other)))
            assert same == (other != player)


@each_experiment
def test_images_have_the_shape_and_range_that_is_promised(name: str, data: Path) -> None:
    trainer = trainer_of(config_of(name, data))
    recipe = trainer.recipe
    batch = prepared(trainer, data, name)
    with torch.no_grad():
        images = {
            "sample": recipe.sample(batch, rng()),
            **recipe.visualize_inputs(batch),
            **recipe.visualize_outputs(batch, rng()),
        }
        images |= recipe.baselines(batch)
        target = recipe.target(batch)
        inferred = recipe.infer(batch, rng())
        names = recipe.infer_names(batch)
    if target is not None:
        images["target"] = target
    for kind, image in {**images, "infer": torch.stack(inferred)}.items():
        assert image.shape == (len(batch), 3, SIZE, SIZE), kind
        assert image.isfinite().all(), kind
        assert kind == "infer" or image.abs().max() <= 1, kind
    assert len(set(names)) == len(inferred)


@each_experiment
def test_the_same_random_source_paints_the_same_image_and_nobody_draws_elsewhere(name: str, data: Path) -> None:
    trainer = warm(name, data)
    recipe = trainer.recipe
    raw = batch_of(config_of(name, data))
    batch = recipe.prepare(raw)
    global_source = torch.get_rng_state()
    with torch.no_grad():
        first, again = recipe.sample(batch, rng()), recipe.sample(batch, rng())
    list(recipe.step(raw, StepContext(0, 0, rng())))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), global_source)


@each_experiment
def test_a_recipe_with_other_networks_paints_with_those(name: str, data: Path) -> None:
    trainer, other = warm(name, data), warm(name, data, seed=1).recipe
    batch = prepared(trainer, data, name)
    swapped = trainer.recipe.with_networks(gen=other.networks["gen"])
    with torch.no_grad():
        assert torch.equal(swapped.sample(batch, rng()), other.sample(batch, rng()))
        assert not torch.equal(trainer.recipe.sample(batch, rng()), other.sample(batch, rng()))


@each_experiment
def test_saved_loaded_and_continued_is_the_run_that_was_never_stopped(name: str, data: Path, tmp_path: Path) -> None:
    config = config_of(name, data)
    whole, first, second = (trainer_of(config, seed=seed) for seed in (0, 0, 1))
    second.seed = first.seed
    train(whole, config, 4)
    train(first, config, 2)
    checkpoint.write(tmp_path / "middle.pt", first, {})
    checkpoint.restore(second, checkpoint.load(tmp_path / "middle.pt"), tmp_path / "middle.pt")
    train(second, config, 2)
    expected, found = states(whole), states(second)
    assert expected.keys() == found.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []
    assert (second.step, second.position) == (whole.step, whole.position)


@pytest.mark.slow
@each_experiment
def test_nothing_is_held_on_to_over_fifty_steps(name: str, data: Path) -> None:
    config = config_of(name, data)
    trainer = trainer_of(config)

    def held() -> tuple[int, int]:
        gc.collect()
        alive = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
        return len(alive), sum(tensor.numel() for tensor in alive)

    train(trainer, config, 5)
    before = held()
    train(trainer, config, 50)
    assert held() == before


@each_experiment
def test_bfloat16_and_channels_last_agree_with_float32(name: str, data: Path) -> None:
    exact = warm(name, data)

    def losses(runtime: Runtime, *overrides: str) -> dict[str, float]:
        """Those of one more iteration."""
        changed = config_of(name, data, *overrides)
        trainer = trainer_of(changed, runtime)
        for player, network in trainer.recipe.networks.items():
            network.load_state_dict(exact.recipe.networks[player].state_dict())
        phases = trainer.train_step(batch_of(changed, runtime))
        return {f"{phase.player}.{loss}": value.item() for phase in phases for loss, value in phase.losses.items()}

    expected = losses(CPU)
    assert losses(CPU, "trainer.channels_last=true") == pytest.approx(expected, rel=1e-3, abs=1e-4)
    half = losses(Runtime(torch.device("cpu"), precision="bf16"))
    assert half == pytest.approx(expected, rel=0.05, abs=0.02)
    assert half != expected


@each_experiment
def test_a_batch_in_parts_gives_finite_losses_too(name: str, data: Path) -> None:
    config = config_of(name, data, "trainer.accumulate=2")
    trainer = trainer_of(config)
    phases = trainer.train_step(batch_of(config))
    assert phases and all(value.isfinite() for phase in phases for value in phase.losses.values())


@each_experiment
def test_every_network_has_one_name_in_the_reference_for_each_of_its_weights(name: str, data: Path) -> None:
    for network in trainer_of(config_of(name, data)).recipe.networks.values():
        names = reference_names(network.state_dict(), network.reference_rules())
        assert len(set(names.values())) == len(names)
        assert not any("spectral" in theirs for theirs in names.values())


@pytest.mark.parametrize("method", METHODS)
def test_constructors_are_schemas(method: str) -> None:
    """Keyword-only and typed, so that every key of a config is checked."""
    module = sys.modules[f"imagier.models.{method}"]
    for cls in (module.Generator, module.Discriminator, module.Recipe):
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters), cls
        assert all(parameter.annotation is not parameter.empty for parameter in parameters), cls
    assert issubclass(module.Recipe, Recipe)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_every_config_is_valid_and_says_how_to_get_its_data_and_how_to_start(path: Path) -> None:
    document = load(path)
    assert translate_legacy(document) == []
    check(document)
    header = path.read_text().partition("\n\n")[0]
    assert "# Data:" in header
    assert f"--config {path.relative_to(ROOT)}" in header


def test_the_data_of_an_experiment_end_with_its_epoch(data: Path) -> None:
    """Else continuing would not cross an epoch's end above."""
    config = config_of("spade", data)
    stream = loader_of(config).stream(Position())
    positions = [next(stream)[1] for _ in range(4)]
    assert positions[-1] == Position(1, 0)


@pytest.mark.slow
def test_two_ranks_hold_the_same_bits(data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(data)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = Path(experiment.__file__)
    done = subprocess.run(
        [*command, str(script), str(tmp_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in EXPERIMENTS:
        one, other = ((tmp_path / f"{name}_{rank}.txt").read_text().split() for rank in range(2))
        assert one == other, name
        assert one[0] != one[1], "nothing was learned"
