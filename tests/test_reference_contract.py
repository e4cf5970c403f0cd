"""What methods of the reference promise beyond the contract of every method: its order, its names, its two players."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract.checks import check_step, prepared, rng, warm
from contract.experiment import EXPERIMENTS, OWN, SIZE, batch_of, config_of, trainer_of, write_data

from imagier.errors import UserError
from imagier.nn.reference_names import reference_names
from imagier.recipe import StepContext

OF_CLIPS = ("vid2vid", "fs_vid2vid", "wc_vid2vid")
"""Experiments of methods whose iteration is a clip: both players are updated once for each of its frames."""

each_experiment = pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in OWN])
each_of_stills = pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in (*OWN, *OF_CLIPS)])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("reference_contract"))


@each_of_stills
def test_a_step_in_the_order_of_the_reference_is_well_formed(name: str, data: Path) -> None:
    config = config_of(name, data, "trainer.reference_order=true")
    recipe = trainer_of(config).recipe
    assert not recipe.updates.can_share_forward  # type: ignore[attr-defined]
    check_step(recipe, batch_of(config))


@each_of_stills
@pytest.mark.parametrize(("dis_step", "gen_step"), [(2, 1), (1, 2), (0, 1), (1, 0)])
def test_each_player_is_updated_as_often_as_the_config_says(
    name: str, dis_step: int, gen_step: int, data: Path
) -> None:
    config = config_of(name, data, f"trainer.dis_step={dis_step}", f"trainer.gen_step={gen_step}")
    recipe = trainer_of(config).recipe
    phases = [player for player, _ in recipe.step(batch_of(config), StepContext(0, 0, rng()))]
    assert phases == ["dis"] * dis_step + ["gen"] * gen_step


@each_of_stills
def test_an_iteration_without_any_update_is_the_users_mistake(name: str, data: Path) -> None:
    with pytest.raises(UserError) as caught:
        trainer_of(config_of(name, data, "trainer.dis_step=0", "trainer.gen_step=0"))
    assert caught.value.code == "no-updates"


@pytest.mark.parametrize("name", OF_CLIPS)
@pytest.mark.parametrize("reuse", ["true", "false"])
def test_each_frame_of_a_clip_is_an_update_of_either_player(name: str, reuse: str, data: Path) -> None:
    config = config_of(name, data, f"trainer.reuse_gen_output={reuse}")
    batch = batch_of(config)
    phases = [player for player, _ in trainer_of(config).recipe.step(batch, StepContext(0, 0, rng()))]
    assert phases == ["dis", "gen"] * batch["images"].shape[1] and len(phases) >= 4


@each_experiment
def test_logits_of_the_discriminator_follow_from_its_loss(name: str, data: Path) -> None:
    """A discriminator that learns alone takes real images for more real than generated ones."""
    trainer = warm(name, data)
    recipe = trainer.recipe
    batch = batch_of(config_of(name, data))

    def gap() -> float:
        for network in recipe.networks.values():
            network.eval()
        with torch.no_grad():
            logits = recipe.discriminator_logits(recipe.prepare(batch), rng())
        assert logits is not None
        real, fake = (torch.cat([x.flatten() for x in side]) for side in logits)
        return float(real.mean() - fake.mean())

    first = gap()
    for _ in range(30):
        recipe.train()
        for player, losses in recipe.step(batch, StepContext(0, 0, rng())):
            if player == "dis":
                trainer.players["dis"].backward(recipe.total(losses))
                trainer.players["dis"].update()
    assert gap() > first + 0.01


@each_experiment
def test_images_have_the_size_of_what_they_are_made_from(name: str, data: Path) -> None:
    trainer = warm(name, data)
    batch = prepared(trainer, data, name)
    with torch.no_grad():
        images = {
            "sample": trainer.recipe.sample(batch, rng()),
            **trainer.recipe.visualize_inputs(batch),
            **trainer.recipe.visualize_outputs(batch, rng()),
            "infer": torch.stack(trainer.recipe.infer(batch, rng())),
        }
    assert {kind: tuple(x.shape[-2:]) for kind, x in images.items()} == dict.fromkeys(images, (SIZE, SIZE))


@each_experiment
def test_every_network_has_one_name_in_the_reference_for_each_of_its_weights(name: str, data: Path) -> None:
    for network in trainer_of(config_of(name, data)).recipe.networks.values():
        names = reference_names(network.state_dict(), network.reference_rules())
        assert len(set(names.values())) == len(names)
        assert not any("spectral" in theirs for theirs in names.values())
