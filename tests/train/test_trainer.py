"""The loop: updates between the phases of a recipe, schedules, accumulation, ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.recipe import Batch, Losses, Position, Recipe, StepContext
from imagier.train import checkpoint, schedule
from imagier.train import trainer as trainer_module
from imagier.train.compare import find_first_difference
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer

CPU = Runtime(torch.device("cpu"))


class Line(Recipe):
    """Two players with one weight each; the second sees the first already updated."""

    loss_weight: ClassVar[dict[str, float]] = {"error": 1.0, "noise": 1.0, "pull": 10.0}

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.gen, self.dis = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.seen: list[float] = []
        self.moments: list[StepContext] = []

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        self.moments.append(ctx)
        yield "dis", {"pull": self.dis(batch["x"]).square().mean()}
        self.seen.append(self.dis.weight.item())
        noise = torch.randn(1, generator=ctx.rng) * self.gen.weight.sum()
        yield "gen", {"error": (self.gen(batch["x"]) - batch["y"]).square().mean(), "noise/drawn": noise.sum()}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return batch["x"]


def trainer(recipe: Recipe, **options: Any) -> Trainer:
    players = {
        name: Player(
            network,
            torch.optim.SGD(network.parameters(), lr=0.01),
            CPU,
            schedule=schedule.Constant(),
            by_iteration=True,
        )
        for name, network in recipe.networks.items()
    }
    return Trainer(recipe, players, CPU, seed=1, **options)


def data(rows: int = 4) -> Batch:
    x = torch.arange(1.0, rows + 1)[:, None]
    return Batch({"x": x, "y": 2 * x})


def endless(rows: int = 4) -> Iterator[tuple[Batch, Position]]:
    for epoch in range(10**6):
        yield data(rows), Position(epoch, rows)
        yield data(rows), Position(epoch + 1, 0)


def until(steps: int) -> Any:
    return lambda step, epoch: Outcome.DONE if step >= steps else Outcome.GO_ON


def test_a_player_is_updated_before_the_recipe_goes_on() -> None:
    recipe = Line()
    before = recipe.dis.weight.item()
    trainer(recipe).train_step(data())
    x = data()["x"]
    gradient = 10 * (2 * before * x.square()).mean().item()
    assert recipe.seen[0] == pytest.approx(before - 0.01 * gradient)


def test_losses_come_back_unweighted_with_their_weighted_total() -> None:
    dis, gen = trainer(Line()).train_step(data())
    assert (dis.player, gen.player) == ("dis", "gen")
    assert dis.losses["total"] == pytest.approx(10 * dis.losses["pull"].item())
    assert gen.losses["total"] == pytest.approx((gen.losses["error"] + gen.losses["noise/drawn"]).item())
    assert not any(loss.requires_grad for phase in (dis, gen) for loss in phase.losses.values())


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_move_as_the_whole_batch_does(parts: int) -> None:
    whole, split = Line(), Line()
    whole.loss_weight = split.loss_weight = {**Line.loss_weight, "noise": 0.0}
    for _ in range(3):
        trainer(whole).train_step(data())
        trainer(split, accumulate=parts).train_step(data())
    torch.testing.assert_close(split.gen.weight, whole.gen.weight)
    torch.testing.assert_close(split.dis.weight, whole.dis.weight)


def test_noise_depends_on_seed_and_step_alone() -> None:
    """Not on what was drawn before, nor on the global source."""
    drawn = []
    for disturb in (0, 100):
        recipe = Line()
        tested = trainer(recipe)
        torch.rand(disturb)
        drawn.append([tested.train_step(data())[1].losses["noise/drawn"].item() for tested.step in (5, 6)])
    first, second = drawn
    assert first[0] != first[1]
    assert (recipe.moments[0].step, recipe.moments[1].step) == (5, 6)
    recipe = Line()
    tested = trainer(recipe)
    tested.step = 6
    noise = torch.randn(1, generator=CPU.generator(1, 6))
    _, gen = tested.train_step(data())
    assert gen.losses["noise/drawn"].item() == pytest.approx(noise.item() * Line().gen.weight.item())
    assert first == pytest.approx(second)


def test_a_recipe_that_yields_inside_no_grad_is_refused() -> None:
    class Leaky(Line):
        def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
            with torch.no_grad():
                yield "dis", {"pull": self.dis(batch["x"]).mean()}

    with pytest.raises(UserError) as caught:
        trainer(Leaky()).train_step(data())
    assert caught.value.code == "yield-in-no-grad"
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("parts", [1, 3])
def test_a_player_is_told_of_the_last_part_of_a_batch(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on its gradients may travel to other ranks."""
    told: list[bool] = []
    monkeypatch.setattr(Player, "backward", lambda player, loss, *, is_last: told.append(is_last))
    phases = trainer(Line(), accumulate=parts).train_step(data(parts))
    assert len(phases) == 2 and told == 2 * [*[False] * (parts - 1), True]


class Notes:
    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.end: list[Progress | None] = []

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        self.steps.append(progress)

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        self.end.append(progress)


def test_hooks_hear_of_every_step_of_epochs_and_of_the_end() -> None:
    notes = Notes()
    trainer(Line(), hooks=[notes]).fit(endless(), until(5))
    assert [p.step for p in notes.steps] == [1, 2, 3, 4, 5]
    assert [p.epoch_ended for p in notes.steps] == [False, True, False, True, False]
    assert [p.epoch for p in notes.steps] == [0, 1, 1, 2, 2]
    assert [p.is_last for p in notes.steps] == [False] * 4 + [True]
    assert notes.end == [notes.steps[-1]]


def test_a_run_that_is_done_takes_no_step() -> None:
    notes = Notes()
    recipe = Line()
    before = recipe.gen.weight.clone()
    trainer(recipe, hooks=[notes]).fit(endless(), until(0))
    assert notes.steps == [] and notes.end == [None]
    assert torch.equal(recipe.gen.weight, before)


def test_epoch_schedules_see_the_epochs_done_and_iteration_schedules_the_steps_done() -> None:
    recipe = Line()
    tested = trainer(recipe)
    seen: dict[str, list[int]] = {"gen": [], "dis": []}
    for name, player in tested.players.items():
        player.by_iteration = name == "gen"
        player.schedule = lambda t, name=name: float(seen[name].append(t) is None)  # type: ignore[misc]
    tested.fit(endless(), until(5))
    assert seen == {"gen": [0, 1, 2, 3, 4], "dis": [0, 0, 1, 1, 2]}


def test_logged_losses_are_the_mean_over_all_parts_of_a_batch() -> None:
    whole, split = (trainer(Line(), accumulate=parts).train_step(data()) for parts in (1, 4))
    for phase, name in ((0, "pull"), (0, "total"), (1, "error")):
        torch.testing.assert_close(split[phase].losses[name], whole[phase].losses[name])


class ByPart(Line):
    """Yields what a function makes of the number of the part of a batch, and counts the parts that were finished."""

    def __init__(self, phases: Callable[[int], Iterable[Any]]) -> None:
        super().__init__()
        self.phases = phases
        self.begun = self.finished = 0

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        part = self.begun
        self.begun += 1
        assert ctx.parts == 3
        for player, names in self.phases(part):
            value = (self.networks[player](batch["x"]) * 0 + part).mean()
            yield player, dict.fromkeys(names, value)
        self.finished += 1


def test_the_step_of_every_part_of_a_batch_runs_to_its_end() -> None:
    recipe = ByPart(lambda part: [("dis", ["pull"]), ("gen", ["error"])])
    trainer(recipe, accumulate=3).train_step(data(3))
    assert (recipe.begun, recipe.finished) == (3, 3)


@pytest.mark.parametrize(
    "phases",
    [
        lambda part: [("dis", ["pull"])] * (1 + (part == 0)),
        lambda part: [("dis", ["pull"])] * (1 + (part == 2)),
        lambda part: [("dis" if part else "gen", ["pull"])],
        lambda part: [("gen", ["pull"])] if part == 1 else [],
    ],
)
def test_parts_of_a_batch_with_different_phases_are_one_clear_mistake(phases: Any) -> None:
    with pytest.raises(UserError) as caught:
        trainer(ByPart(phases), accumulate=3).train_step(data(3))
    assert caught.value.code == "phases-differ"
    assert caught.value.where.endswith("ByPart.step") and "trainer.accumulate" in caught.value.advice


def test_a_loss_is_the_mean_over_the_parts_that_have_it() -> None:
    names = [["pull", "noise"], ["pull"], ["pull", "error"]]
    (phase,) = trainer(ByPart(lambda part: [("dis", names[part])]), accumulate=3).train_step(data(3))
    found = {name: value.item() for name, value in phase.losses.items()}
    assert found == pytest.approx({"pull": 1, "noise": 0, "error": 2, "total": (0 + 10 + 20 + 2) / 3})


class Wrong(Line):
    """A step that returns or yields what a function makes of a batch."""

    def __init__(self, make: Callable[[Line, Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def step(self, batch: Batch, ctx: StepContext) -> Any:
        return self.make(self, batch["x"])


@pytest.mark.parametrize(
    ("make", "where", "code"),
    [
        (lambda recipe, x: [("gen", {"error": recipe.gen(x).mean()})], "step", "wrong-step"),
        (lambda recipe, x: None, "step", "wrong-step"),
        (lambda recipe, x: iter([("gen", recipe.gen(x).mean())]), "step", "wrong-phase"),
        (lambda recipe, x: iter([("gen", {})]), "step", "wrong-phase"),
        (lambda recipe, x: iter([{"error": recipe.gen(x).mean()}]), "step", "wrong-phase"),
        (lambda recipe, x: iter([("gen", {"error": 3.0})]), "step", "wrong-loss"),
        (lambda recipe, x: iter([("gen", {"error": recipe.gen(x)})]), "step", "wrong-loss"),
        (lambda recipe, x: iter([("gen", {"error": x.mean()})]), "step", "no-gradient"),
        (lambda recipe, x: iter([("generator", {"error": recipe.gen(x).mean()})]), "step", "unknown-player"),
        (lambda recipe, x: iter([("gen", {"l2": recipe.gen(x).mean()})]), "loss_weight.l2", "missing-loss-weight"),
        (lambda recipe, x: iter([("gen", {"l2/a": recipe.gen(x).mean()})]), "loss_weight.l2", "missing-loss-weight"),
        (lambda recipe, x: iter([("gen", {"off": recipe.gen(x).mean()})]), "loss_weight", "no-loss-weight"),
    ],
)
def test_a_mistake_in_a_step_is_named_in_one_line(make: Any, where: str, code: str) -> None:
    recipe = Wrong(make)
    recipe.loss_weight = {**Line.loss_weight, "off": 0.0}
    with pytest.raises(UserError) as caught:
        trainer(recipe).train_step(data())
    assert caught.value.code == code
    assert caught.value.where == (f"{__name__}.Wrong.step" if where == "step" else f"trainer.{where}")
    assert "\n" not in str(caught.value)


class Scheduled(Line):
    """Updates the players that a list names, one entry an iteration, over and over again."""

    def __init__(self, *schedule: str) -> None:
        super().__init__()
        self.schedule = schedule

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        for name in self.schedule[ctx.step % len(self.schedule)].split():
            yield name, {"pull": self.networks[name](batch["x"]).square().mean()}


def test_every_update_is_a_phase_in_order_however_often_a_player_comes() -> None:
    recipe = Scheduled("dis gen dis dis", "", "gen")
    notes = Notes()
    trainer(recipe, hooks=[notes]).fit(endless(), until(4))
    found = [[phase.player for phase in progress.phases] for progress in notes.steps]
    assert found == [["dis", "gen", "dis", "dis"], [], ["gen"], ["dis", "gen", "dis", "dis"]]


def test_a_phase_holds_the_gradient_norm_of_its_own_update_before_clipping() -> None:
    recipe = Scheduled("dis dis")
    tested = trainer(recipe)
    tested.players["dis"].clip_grad_norm = 1e-3
    weight = recipe.dis.weight.item()
    norms = [phase.gradient_norm.item() for phase in tested.train_step(data())]
    slope = 10 * 2 * data()["x"].square().mean().item()
    moved = weight - 0.01 * 1e-3 * math.copysign(1, weight)
    assert norms == pytest.approx([abs(slope * weight), abs(slope * moved)])


def test_a_player_that_is_never_updated_trains_saves_and_continues(tmp_path: Path) -> None:
    whole, parts, continued = (trainer(Scheduled("gen gen", "")) for _ in range(3))
    whole.fit(endless(), until(5))
    parts.fit(endless(), until(3))
    path = checkpoint.save(tmp_path, parts, {})
    checkpoint.restore(continued, checkpoint.load(path), path)
    stream = endless()
    for _ in range(3):
        next(stream)
    continued.fit(stream, until(5))
    states = [{name: player.state_dict() for name, player in run.players.items()} for run in (whole, continued)]
    assert find_first_difference(*states) is None
    assert torch.equal(whole.recipe.networks["dis"].weight, Line().dis.weight)
    assert not torch.equal(whole.recipe.networks["gen"].weight, Line().gen.weight)


def test_a_profile_names_the_parts_of_each_phase_and_nobody_pays_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = trainer(Scheduled("dis gen"))
    with torch.profiler.profile() as profile:
        tested.train_step(data())
    names = [event.name for event in profile.events() if event.name.startswith("phase")]
    assert names == [
        "phase 1: forward",
        "phase 1: backward dis",
        "phase 1: update dis",
        "phase 2: forward",
        "phase 2: backward gen",
        "phase 2: update gen",
        "phase 3: forward",
    ]

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is recorded")

    monkeypatch.setattr(trainer_module, "record_function", refuse)
    tested.train_step(data())
