"""The contract: totals and weights, batches, the order of updates, and the example of its docstring."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from contract import experiment
from torch import Tensor

from imagier.alternate import Updates, alternate
from imagier.errors import UserError
from imagier.recipe import Batch, Losses, Recipe, StepContext


class Weighing(Recipe):
    """Nothing but weights."""

    def __init__(self, **weights: float) -> None:
        self.loss_weight = weights

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        raise NotImplementedError

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        raise NotImplementedError


def test_the_total_adds_what_has_a_weight_and_parts_have_their_own_on_top() -> None:
    made = Weighing(gan=2.0, gan_a=0.5, l1=10.0, kl=0.0)
    losses = {"gan/a": torch.tensor(1.0), "gan/b": torch.tensor(10.0), "l1": torch.tensor(0.1), "kl": torch.tensor(1e6)}
    assert made.total(losses).item() == pytest.approx(2.5 * 1 + 2 * 10 + 10 * 0.1)


def test_a_player_must_have_something_to_learn() -> None:
    with pytest.raises(UserError) as caught:
        Weighing(gan=0.0, kl=0.0).total({"gan": torch.tensor(1.0), "kl": torch.tensor(1.0)})
    assert (caught.value.where, caught.value.code) == ("trainer.loss_weight", "no-loss-weight")


def test_a_recipe_needs_nothing_but_a_step_and_a_sample() -> None:
    class Minimal(Recipe):
        def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
            raise NotImplementedError

        def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
            return batch["x"] + torch.rand((), generator=rng)

    class WithTarget(Minimal):
        def target(self, batch: Batch) -> Tensor:
            return batch["x"]

    made, batch = Minimal(), Batch({"x": torch.zeros(2, 3, 4, 4)}, {"x": ["s/0", "s/1"]})

    def rng() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    images = made.sample(batch, rng())
    assert torch.equal(torch.stack(made.infer(batch, rng())), images)
    assert [torch.equal(x, images) for x in made.generate(batch, rng()).values()] == [True]
    assert [torch.equal(x, images) for x in made.visualize_outputs(batch, rng()).values()] == [True]
    assert made.visualize_inputs(batch) == {}
    assert list(WithTarget().visualize_inputs(batch)) == ["target"]
    with pytest.raises(UserError) as caught:
        made.total({"l1": torch.zeros(())})
    assert (caught.value.where, caught.value.code) == ("trainer.loss_weight.l1", "missing-loss-weight")


@pytest.mark.parametrize(
    ("weights", "losses", "where"),
    [
        ({"gan": 0.0}, ["gan"], "loss_weight.gan"),
        ({"gan": 0.0, "gan_a": 1.0, "gan_b": 0.0}, ["gan/a", "gan/b"], "loss_weight.gan or loss_weight.gan_b"),
        ({"gan": 0.0, "gan_a": 1.0, "gan_b": 1.0}, ["gan/a", "gan/b"], None),
        ({"gan": 1.0}, ["gan"], None),
    ],
)
def test_a_weight_that_a_discriminator_cannot_do_without_is_named(
    weights: dict[str, float], losses: list[str], where: str | None
) -> None:
    made = Weighing(**weights)
    if where is None:
        made.check_weights(*losses)
    else:
        with pytest.raises(UserError) as caught:
            made.check_weights(*losses)
        assert (caught.value.where, caught.value.code) == (where, "no-loss-weight")


# Batches -------------------------------------------------------------------------------------------------------------


def numbers(count: int) -> Batch:
    return Batch({"x": torch.arange(count)}, {"x": [f"s/{i}" for i in range(count)]})


def test_parts_of_a_batch_are_consecutive_and_keep_their_names() -> None:
    parts = numbers(6).split(3)
    assert [part["x"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part.keys["x"] for part in parts] == [["s/0", "s/1"], ["s/2", "s/3"], ["s/4", "s/5"]]


def test_replacing_leaves_the_batch_as_it_was() -> None:
    batch = numbers(2)
    other = batch.replace(x=torch.ones(2), y=torch.zeros(2))
    assert sorted(other.tensors) == ["x", "y"] and other["x"].tolist() == [1, 1] and other.keys == batch.keys
    assert list(batch.tensors) == ["x"] and batch["x"].tolist() == [0, 1]


# The order of updates ------------------------------------------------------------------------------------------------


class Diary:
    """Notes every call of what `alternate` is given: its name, the part of the batch, whether gradients are on."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, list[int], bool]] = []

    def generate(self, name: str, part: Batch) -> dict[str, Tensor]:
        self.entries.append((name, part["x"].tolist(), torch.is_grad_enabled()))
        return {name: part["x"]}

    def losses(self, name: str, part: Batch, fake: dict[str, Tensor]) -> Losses:
        (source,) = fake
        assert torch.equal(fake[source], part["x"]), "losses of other images than those of the part"
        self.entries.append((f"{name} on {source}", part["x"].tolist(), torch.is_grad_enabled()))
        return {name: torch.zeros(())}


def entries(dis_step: int, gen_step: int, *, share: bool, count: int, own: bool = False, parts: int = 1) -> list[tuple]:
    """All that happens in an iteration; "update" where the loop has its turn."""
    diary = Diary()
    phases = alternate(
        numbers(count),
        StepContext(0, 0, torch.Generator(), parts),
        Updates(dis_step, gen_step, share),
        generate=lambda part: diary.generate("fake", part),
        generate_for_dis=(lambda part: diary.generate("cheap", part)) if own else None,
        dis_losses=lambda part, fake: diary.losses("d", part, fake),
        gen_losses=lambda part, fake: diary.losses("g", part, fake),
    )
    for player, losses in phases:
        assert torch.is_grad_enabled(), "yielded inside torch.no_grad()"
        assert list(losses) == [player[0]]
        diary.entries.append(("update", player))  # type: ignore[arg-type]
    return diary.entries


def test_one_forward_serves_both_updates_or_each_has_its_own() -> None:
    x = [0, 1]
    shared = [("fake", x, True), ("d on fake", x, True), ("update", "dis"), ("g on fake", x, True), ("update", "gen")]
    assert entries(1, 1, share=True, count=2) == shared
    assert entries(1, 1, share=True, count=2, own=True) == shared
    dis = [("fake", x, False), ("d on fake", x, True), ("update", "dis")]
    gen = [("fake", x, True), ("g on fake", x, True), ("update", "gen")]
    assert entries(1, 1, share=False, count=2) == dis + gen
    assert entries(1, 1, share=True, count=2, parts=2) == dis + gen
    cheap = [("cheap", x, False), ("d on cheap", x, True), ("update", "dis")]
    assert entries(1, 1, share=False, count=2, own=True) == cheap + gen


@pytest.mark.parametrize(
    ("dis_step", "gen_step", "players"),
    [(2, 1, "ddg"), (1, 3, "dggg"), (3, 2, "dddgg"), (0, 2, "gg"), (2, 0, "dd"), (0, 1, "g"), (1, 0, "d")],
)
def test_updates_of_each_player_take_the_parts_of_the_batch_in_order(
    dis_step: int, gen_step: int, players: str
) -> None:
    found = entries(dis_step, gen_step, share=False, count=2 * max(dis_step, gen_step))
    assert "".join(entry[1][0] for entry in found if entry[0] == "update") == players
    parts = [entry[1] for entry in found if entry[0] == "fake"]
    assert parts == [[2 * i, 2 * i + 1] for steps in (dis_step, gen_step) for i in range(steps)]


@pytest.mark.parametrize(
    ("dis_step", "gen_step", "where", "code"),
    [
        (-1, 1, "dis_step", "negative-steps"),
        (1, -2, "gen_step", "negative-steps"),
        (0, 0, "dis_step and gen_step", "no-updates"),
    ],
)
def test_numbers_of_updates_that_make_no_sense_are_the_users_mistake(
    dis_step: int, gen_step: int, where: str, code: str
) -> None:
    with pytest.raises(UserError) as caught:
        Updates(dis_step, gen_step)
    assert (caught.value.where, caught.value.code) == (where, code)


@pytest.mark.parametrize(("steps", "batches"), [((0, 1), 1), ((1, 0), 1), ((3, 2), 3)])
def test_a_player_may_go_without_updates(steps: tuple[int, int], batches: int) -> None:
    assert Updates(*steps).batches == batches


# The example ---------------------------------------------------------------------------------------------------------

DATA = """
trainer: {type: my_lab.colorize, loss_weight: {gan: 1, flatness: 0.1}, init: {type: xavier, gain: 1}}
gen: {type: my_lab.colorize, width: 4}
dis: {type: my_lab.colorize}
data:
  type: paired_images
  input_types: [{images: {ext: png, num_channels: 3, normalize: true}}]
  input_image: [images]
"""


def test_the_recipe_of_the_docstring_is_trained_by_a_config_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, indented = (inspect.getdoc(Recipe) or "").partition("::\n")
    code = "\n".join(line for line in indented.splitlines() if not line or line.startswith("    "))
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "__init__.py").touch()
    (tmp_path / "my_lab" / "colorize.py").write_text(textwrap.dedent(code))
    (tmp_path / "example.yaml").write_text(DATA)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    config = experiment.config_of("example", experiment.write_data(tmp_path / "data"))
    trainer = experiment.trainer_of(config)
    assert type(trainer.recipe).__module__ == "my_lab.colorize"
    before = {name: next(net.parameters()).clone() for name, net in trainer.recipe.networks.items()}
    experiment.train(trainer, config, 3)
    assert all(not torch.equal(x, next(trainer.recipe.networks[name].parameters())) for name, x in before.items())
    batch = experiment.batch_of(config)
    assert [x.shape for x in trainer.recipe.infer(batch, torch.Generator())] == [(3, 32, 32)] * 2


def test_a_clip_comes_apart_into_frames_and_what_belongs_to_all_of_it_stays_whole() -> None:
    images, references = torch.rand(2, 3, 1, 4, 4), torch.rand(2, 5, 1, 4, 4)
    sizes = torch.rand(2, 2)
    frames = Batch({"images": images, "few_shot_images": references, "original_h_w": sizes}).frames()
    assert torch.equal(torch.cat([frame["images"] for frame in frames], dim=1), images)
    assert all(frame["few_shot_images"] is references and frame["original_h_w"] is sizes for frame in frames)
