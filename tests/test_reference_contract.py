"""What methods of the reference promise beyond the contract of every method: its order, its names, its two players."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo
from contract.checks import check_step, prepared, rng, states, warm
from contract.experiment import (
    CPU,
    EXPERIMENTS,
    OWN,
    SIZE,
    batch_of,
    config_of,
    loader_of,
    train,
    trainer_of,
    write_data,
)
from torch.fx import GraphModule

from imagier.errors import UserError
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Losses, Position, StepContext
from imagier.run.training import RECOMPILE_LIMIT
from imagier.train import checkpoint
from imagier.train.guard import Guard
from imagier.train.trainer import Outcome

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


def growing(name: str) -> list[str]:
    """Epochs of 2 steps: of clips of 1 frame, of 2, and of as many as there are."""
    words = ["trainer.single_frame_epoch=1", "trainer.num_epochs_temporal_step=1", "data.initial_sequence_length=2"]
    few_shot = ["data.initial_few_shot_K=1", "data.train.batch_size=1"]
    return [*words, *(few_shot if name == "fs_vid2vid" else ["data.train.batch_size=4"])]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_CLIPS)
def test_a_run_continued_amid_an_epoch_of_longer_clips_is_the_one_that_was_never_stopped(
    name: str, data: Path, tmp_path: Path
) -> None:
    config = config_of(name, data, *growing(name))
    whole, first, second = (trainer_of(config, seed=seed) for seed in (0, 0, 1))
    second.seed = first.seed
    lengths: list[int] = []
    step = whole.recipe.step

    def count_frames(batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        lengths.append(batch["images"].shape[1])
        return step(batch, ctx)

    whole.recipe.step = count_frames  # type: ignore[method-assign]
    train(whole, config, 6)
    longest = 3 if name == "fs_vid2vid" else 4
    assert lengths == [1, 1, 2, 2, longest, longest]
    train(first, config, 5)
    checkpoint.write(tmp_path / "middle.pt", first, {})
    checkpoint.restore(second, checkpoint.load(tmp_path / "middle.pt"), tmp_path / "middle.pt")
    assert (second.position.epoch, second.position.samples > 0) == (2, True)
    train(second, config, 1)
    expected, found = states(whole), states(second)
    assert expected.keys() == found.keys()
    assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []


@pytest.mark.parametrize("name", OF_CLIPS)
def test_a_bad_first_frame_is_told_and_leaves_no_trace_although_the_next_one_is_good(
    name: str, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing looks at two frames at once, the other frames are learned from as ever."""
    alone = ("trainer.loss_weight.flow=0", "trainer.loss_weight.temporal_gan=0")
    config = config_of(name, data, *alone)
    trainer = trainer_of(config)
    trainer.guard = Guard(trainer.players, CPU)

    def batches() -> Iterator[tuple[Batch, Position]]:
        for number, (batch, position) in enumerate(loader_of(config).stream(Position())):
            images = batch["images"].clone()
            images[0, 0, 0, 0, 0] = float("nan") if number == 0 else 0
            yield batch.replace(images=images), position

    trainer.fit(batches(), lambda step, epoch: Outcome.DONE if step == 2 else Outcome.GO_ON)
    frames = batch_of(config)["images"].shape[1]
    first = f"(update 1 of {frames})"
    (line,) = caplog.messages
    assert line == f"iteration 1: not applied, the loss or gradient of dis {first} and gen {first} is not finite"
    after = states(trainer)
    assert all(tensor.isfinite().all() for tensor in after.values())
    for player in trainer.players:
        counts = {int(tensor) for key, tensor in after.items() if key.startswith(f"{player}.opt") and "step" in key}
        assert max(counts) == 2 * frames - 1


def of_length(batch: Batch, length: int) -> Batch:
    """Its clips, again and again until they are so long."""
    numbers = torch.arange(length) % batch["images"].shape[1]
    of_frames = [key for key in ("images", "label", "unprojections") if key in batch]
    return batch.replace(**{key: batch[key][:, numbers] for key in of_frames})


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_CLIPS)
def test_compiled_networks_serve_frames_of_longer_clips_and_learn_the_same(name: str, data: Path) -> None:
    """The first frames of a clip differ, and a second length tells that there will be more: then nothing is new."""
    config = config_of(name, data)
    plain, compiled, batch = trainer_of(config), trainer_of(config), batch_of(config)
    graphs: list[GraphModule] = []

    def keep(graph: GraphModule, inputs: object) -> GraphModule:
        graphs.append(graph)
        return graph

    for network in compiled.recipe.networks.values():
        network.compile(backend=keep)
    counts = []
    limits = {"recompile_limit": RECOMPILE_LIMIT, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(**limits):
        for length in (1, 3, 6, 12):
            phases = zip(*(trainer.train_step(of_length(batch, length)) for trainer in (compiled, plain)))
            for one, other in phases:
                torch.testing.assert_close(one.losses, other.losses)
            counts.append(len(graphs))
    assert 0 < counts[0] < counts[1] and counts[2] == counts[3]


def resident_mib() -> float:
    """The memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_CLIPS)
def test_memory_is_flat_over_frames_of_longer_and_longer_clips(name: str, data: Path) -> None:
    """What one frame needs is more than a tenth of what is allowed for all: 200 that were kept would be seen."""
    config = config_of(name, data)
    trainer, batch = trainer_of(config), batch_of(config)
    used: list[float] = []
    trainer.recipe.networks["gen"].register_forward_hook(lambda *_: used.append(resident_mib()))
    for length in (1, 2, 4, 8, 16, 32, 64, 73):
        trainer.train_step(of_length(batch, length))
    assert len(used) == 200
    assert used[-1] - used[30] < 24, used[::10]


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
