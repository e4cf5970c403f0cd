"""What every method promises, whatever it does: the contract of recipe.py, on a small experiment of each.

One of them is a method with a single network, outside the package (contract/one_player.py). What methods of the
reference promise beyond this is in test_reference_contract.py.
"""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract import experiment
from contract.checks import check_step, prepared, rng, states, warm
from contract.experiment import (
    CPU,
    EXPERIMENTS,
    METHODS,
    OWN,
    batch_of,
    config_of,
    loader_of,
    train,
    trainer_of,
    write_data,
)
from torch import Tensor

from imagier.config.check import check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.recipe import Position, StepContext
from imagier.train import checkpoint
from imagier.train.runtime import Runtime

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

each_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("contract"))


def test_every_method_has_an_experiment_here_and_the_folder_is_found() -> None:
    assert {"spade"} <= set(METHODS)
    trained = {load(experiment.FOLDER / f"{name}.yaml").get(("trainer", "type")) for name in EXPERIMENTS}
    assert trained == {*METHODS, *OWN.values()}


@each_experiment
def test_a_step_yields_known_players_and_finite_losses_all_of_which_have_weights(name: str, data: Path) -> None:
    config = config_of(name, data)
    check_step(trainer_of(config).recipe, batch_of(config))


@each_experiment
def test_every_weight_of_every_player_moves(name: str, data: Path) -> None:
    config = config_of(name, data)
    trainer = trainer_of(config)
    networks = trainer.recipe.networks.items()
    learning = {f"{p}.{n}": x for p, net in networks for n, x in net.named_parameters() if x.requires_grad}
    before = {name: x.clone() for name, x in learning.items()}
    train(trainer, config, 3)
    after = {f"{p}.{n}": x for p, net in networks for n, x in net.named_parameters()}
    still = [key for key, tensor in before.items() if torch.equal(tensor, after[key])]
    assert still == []


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
        assert image.shape[:2] == (len(batch), 3) and image.ndim == 4, kind
        assert image.isfinite().all(), kind
        assert kind == "infer" or image.abs().max() <= 1, kind
    assert len(set(names)) == len(inferred)


@each_experiment
def test_a_rollout_goes_on_from_any_of_its_states(name: str, data: Path) -> None:
    """Also twice from the same one: nothing changes a state later, and nothing is kept on the recipe."""
    trainer = warm(name, data)
    recipe = trainer.recipe
    if not recipe.is_video:
        return
    frames = prepared(trainer, data, name).frames()
    with torch.no_grad():
        whole = [recipe.visualize_frame(outputs) for outputs, _ in recipe.rollout(frames, rng())]
        states = [state for _, state in recipe.rollout(frames, rng())]
        for _ in range(2):
            for done in range(1, len(frames)):
                (outputs, after), *_ = recipe.rollout(frames[done:], rng(), states[done - 1])
                assert torch.equal(recipe.visualize_frame(outputs)["fake"], whole[done]["fake"])
                assert after.keys() == states[done].keys()
                assert all(torch.equal(after[key], states[done][key]) for key in after)
        assert torch.equal(recipe.sample(prepared(trainer, data, name), rng()), whole[-1]["fake"])
    for frame in whole:
        for image in frame.values():
            assert image.shape[:2] == (len(frames[0]), 3) and image.abs().max() <= 1


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
    generator = trainer.recipe.generator_name
    swapped = trainer.recipe.with_networks(**{generator: other.networks[generator]})
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
def test_constructors_are_schemas(name: str, data: Path) -> None:
    """Keyword-only and typed, so that every key of a config is checked."""
    recipe = trainer_of(config_of(name, data)).recipe
    for cls in (type(recipe), *map(type, recipe.networks.values())):
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters), cls
        assert all(parameter.annotation is not parameter.empty for parameter in parameters), cls
    assert set(recipe.players) <= inspect.signature(type(recipe)).parameters.keys()


@each_experiment
def test_logits_of_discriminators_are_finite_and_asking_for_them_changes_nothing(name: str, data: Path) -> None:
    """Where there is a discriminator at all."""
    trainer = warm(name, data)
    before = states(trainer)
    with torch.no_grad():
        logits = trainer.recipe.discriminator_logits(prepared(trainer, data, name), rng())
    assert all(torch.equal(before[key], tensor) for key, tensor in states(trainer).items())
    for side in logits or ():
        assert len(side) > 0 and all(x.isfinite().all() for x in side)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_every_config_is_valid_and_says_how_to_get_its_data_and_how_to_start(path: Path) -> None:
    document = load(path)
    assert translate_legacy(document) == []
    check(document)
    header = path.read_text().partition("\n\n")[0]
    assert "# Data:" in header
    is_start = path.parent.name == "start"  # lies in a folder of the user's when it is used
    assert f"--config {path.name if is_start else path.relative_to(ROOT)}" in header


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
