"""From files of flow to the losses of a training: a config of vid2vid with the input type, and without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract.experiment import batch_of, config_of, trainer_of, write_data
from logs import logged
from torch import Tensor

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.losses.flow import OnlineDis
from imagier.models.vid2vid import Recipe
from imagier.tools.flow.build import build_flow

TYPES = (
    "{images: {ext: png, num_channels: 3, normalize: true}}",
    "{seg_maps: {ext: png, num_channels: 1, is_mask: true}}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("flow"))
    build_flow(root, workers=1)
    return root


def config_with(folder: Path, *flow: str) -> Config:
    return config_of("vid2vid", folder, f"data.input_types=[{', '.join((*TYPES, *flow))}]")


def recipe_of(config: Config) -> Recipe:
    recipe = trainer_of(config).recipe
    assert isinstance(recipe, Recipe)
    return recipe


def test_flow_of_the_data_is_what_the_losses_see_and_nobody_looks_for_it(folder: Path) -> None:
    def ask(frames: Tensor, before: Tensor) -> Tensor:
        raise AssertionError("the data have it")

    config = config_with(folder, "{flow: {ext: png, type: flow}}")
    trainer, batch = trainer_of(config), batch_of(config)
    assert isinstance(trainer.recipe, Recipe)
    assert batch["flow"].shape == (2, 3, 2, 32, 32) and batch["flow_confidence"].shape == (2, 3, 1, 32, 32)
    assert set(batch["flow_confidence"].unique().tolist()) == {0.0, 1.0}
    trainer.recipe.estimate_flow = ask
    made: list[Tensor] = []
    trainer.recipe.gen.register_forward_hook(
        lambda network, inputs, outputs: made.append(outputs["fake_flow_maps"]) if len(outputs) > 2 else None
    )
    with logged() as lines:
        phases = list(trainer.train_step(batch))
    assert not lines
    error = ((made[-1] - batch["flow"][:, -1]) * batch["flow_confidence"][:, -1]).abs().mean()
    assert phases[-1].losses["flow/l1"].item() == pytest.approx(error.item(), rel=1e-5) and error > 0


def test_without_such_data_one_line_says_once_what_is_used_instead(folder: Path) -> None:
    config = config_with(folder)
    trainer, batch = trainer_of(config), batch_of(config)
    assert "flow" not in batch and isinstance(trainer.recipe, Recipe)
    assert isinstance(trainer.recipe.estimate_flow, OnlineDis)
    with logged() as lines:
        for _ in range(2):
            trainer.train_step(batch)
    (line,) = lines
    assert "DIS" in line and "ms a frame" in line and "imagier data build flow" in line


def test_flow_that_is_read_as_an_image_is_the_users_mistake(folder: Path) -> None:
    config = config_with(folder, "{flow: {ext: png}}")
    batch = batch_of(config)
    with pytest.raises(UserError) as caught:
        recipe_of(config).prepare(batch.replace(label=torch.zeros(2, 3, 4, 32, 32)))
    assert caught.value.code == "not-flow"
