"""Readings of a run, and what they mean in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from imagier.recipe import Batch, Losses, Position, Recipe, StepContext
from imagier.train import schedule
from imagier.train.health import DIVERSITY, FAKE_ACCURACY, LOGITS_GAP, NEAREST, REAL_ACCURACY, Verdicts
from imagier.train.hooks.health import FIRST_LOOK, SIDE_PX, Health, find_nearest, shrink
from imagier.train.hooks.log import Record
from imagier.train.phase import Phase
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View

CPU = Runtime(torch.device("cpu"))

GOOD = {REAL_ACCURACY: 0.8, FAKE_ACCURACY: 0.8, DIVERSITY: 1.0, NEAREST: 1.0, "health/gen_update_ratio": 1e-3}

BAD = {
    "discriminator saturated": {REAL_ACCURACY: 1.0, FAKE_ACCURACY: 0.995},
    "discriminator lost": {REAL_ACCURACY: 1.0, FAKE_ACCURACY: 0.01},
    "samples collapsed": {DIVERSITY: 0.03},
    "samples copied": {NEAREST: 0.1},
    "gen jumps": {"health/gen_update_ratio": 0.3},
    "gen has not moved": {"health/gen_update_ratio": 0.0},
}


def lines(*readings: dict[str, float], verdicts: Verdicts | None = None, first: int = 1) -> list[str]:
    verdicts = verdicts or Verdicts(("gen", "dis"))
    return [line for step, reading in enumerate(readings, first) for line in verdicts.read(100 * step, reading)[1]]


@pytest.mark.parametrize("name", BAD)
def test_three_bad_readings_in_a_row_are_told_once_with_the_first_iteration(name: str) -> None:
    bad = {**GOOD, **BAD[name]}
    (line,) = lines(GOOD, bad, GOOD, bad, bad, bad, bad)
    assert line.startswith(f"{name} since iteration 400: ")


@pytest.mark.parametrize("name", BAD)
def test_two_bad_readings_are_an_accident(name: str) -> None:
    assert lines(GOOD, {**GOOD, **BAD[name]}, {**GOOD, **BAD[name]}, GOOD) == []


@pytest.mark.parametrize("name", BAD)
def test_three_good_readings_take_it_back(name: str) -> None:
    bad = {**GOOD, **BAD[name]}
    told = lines(GOOD, bad, bad, bad, GOOD, bad, GOOD, GOOD, GOOD, GOOD)
    assert [line.partition(":")[0] for line in told] == [f"{name} since iteration 200", name]
    assert told[1] == f"{name}: no longer, at iteration 900"


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("discriminator saturated", {REAL_ACCURACY: 0.991, FAKE_ACCURACY: 0.991}, {REAL_ACCURACY: 0.989}),
        ("discriminator saturated", {REAL_ACCURACY: 0.991, FAKE_ACCURACY: 0.991}, {FAKE_ACCURACY: 0.989}),
        ("discriminator lost", {REAL_ACCURACY: 0.51, FAKE_ACCURACY: 0.5}, {REAL_ACCURACY: 0.53}),
        ("discriminator lost", {REAL_ACCURACY: 0.0, FAKE_ACCURACY: 1.0}, {REAL_ACCURACY: 0.03}),
        ("samples collapsed", {DIVERSITY: 0.099}, {DIVERSITY: 0.101}),
        ("samples copied", {NEAREST: 0.299}, {NEAREST: 0.301}),
        ("gen jumps", {"health/gen_update_ratio": 0.101}, {"health/gen_update_ratio": 0.099}),
        ("dis jumps", {"health/dis_update_ratio": 0.101}, {"health/dis_update_ratio": 0.099}),
    ],
)
def test_a_reading_just_beyond_its_limit_is_bad_and_one_just_before_it_is_not(
    name: str, bad: dict[str, float], good: dict[str, float]
) -> None:
    """docs/reliability.md: 99 % of both, no better than chance, a tenth of the diversity, a tenth of the weights."""
    first = {**GOOD, **bad, DIVERSITY: 1.0}
    told = lines(first, *[{**GOOD, **bad}] * 3)
    assert [line.partition(" since")[0] for line in told] == [name]
    assert lines(first, *[{**GOOD, **bad, **good}] * 9) == []


def test_a_reading_that_a_run_cannot_take_is_no_sign() -> None:
    """A run without a discriminator has no accuracies, one without held-out images no distance to training images."""
    assert lines(*[{}] * 9) == []
    assert lines(*[{REAL_ACCURACY: 1.0}] * 9) == lines(*[{FAKE_ACCURACY: 1.0}] * 9) == []


def test_a_well_run_says_nothing() -> None:
    assert lines(*[GOOD] * 20) == []
    assert Verdicts(("gen", "dis")).list_standing() == []


def test_diversity_is_a_share_of_the_largest_so_far() -> None:
    verdicts = Verdicts(("gen", "dis"))
    assert [verdicts.read(step, {DIVERSITY: value})[0][DIVERSITY] for step, value in enumerate((4.0, 8.0, 2.0))] == [
        1.0,
        1.0,
        0.25,
    ]


def test_what_stands_at_the_end_is_in_words() -> None:
    verdicts = Verdicts(("gen", "dis"))
    lines(
        *[{**GOOD, **BAD["samples collapsed"], DIVERSITY: value} for value in (1.0, 0.03, 0.03, 0.03)],
        verdicts=verdicts,
    )
    assert [line.partition(":")[0] for line in verdicts.list_standing()] == ["samples collapsed since iteration 200"]
    assert "diversity 0.03 of its largest" in verdicts.list_standing()[0]


@pytest.mark.parametrize("middle", range(1, 8))
def test_a_continued_run_tells_what_an_unbroken_one_tells(middle: int) -> None:
    bad = {**GOOD, **BAD["discriminator saturated"], DIVERSITY: 0.5}
    readings = [GOOD, bad, bad, bad, bad, GOOD, GOOD, GOOD]
    before, after = Verdicts(("gen", "dis")), Verdicts(("gen", "dis"))
    told = lines(*readings[:middle], verdicts=before)
    after.load_state_dict(before.state_dict())
    told += lines(*readings[middle:], verdicts=after, first=middle + 1)
    assert told == lines(*readings)
    assert len(told) == 2


class Painter(Recipe):
    """Paints each sample in the color of its input, times a weight; the discriminator looks at the red."""

    def __init__(self) -> None:
        self.gen = nn.Linear(1, 1, bias=False)
        self.dis = nn.Linear(1, 1)
        self.loss_weight = {"mse": 1.0}
        nn.init.constant_(self.gen.weight, 0.5)

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        yield "gen", {"mse": self.sample(batch, now.rng).square().mean()}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.gen.weight * batch["images"]

    def target(self, batch: Batch) -> Tensor:
        return batch["images"]

    def discriminator_logits(self, batch: Batch, rng: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        return [batch["images"][:, 0].mean(dim=(1, 2))], [self.sample(batch, rng)[:, 0].mean(dim=(1, 2))]


class Half(Painter):
    """The losses of one of its players depend on the weights of the other alone."""

    def __init__(self, still: str) -> None:
        super().__init__()
        self.still = still

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        for name, network in self.networks.items():
            other = self.networks["dis" if name == "gen" else "gen"]
            learner = other if name == self.still else network
            yield name, {"mse": learner(torch.ones(1, 1)).square().mean()}


def colors(*values: float) -> Batch:
    return Batch({"images": torch.tensor(values)[:, None, None, None].expand(-1, 3, 20, 24).contiguous()})


class Setup:
    """A trainer with the hook, and what the hook wrote."""

    def __init__(self, *, every: int = 2, held_out: Batch | None = None, recipe: Recipe | None = None) -> None:
        self.records: list[Record] = []
        recipe = recipe or Painter()
        optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in recipe.networks.items()}
        players = {
            name: Player(network, optimizers[name], CPU, schedule=schedule.Constant(), by_iteration=False)
            for name, network in recipe.networks.items()
        }
        self.trainer = Trainer(recipe, players, CPU, seed=0)
        view = View(lambda averaged: torch.no_grad())  # type: ignore[arg-type, return-value]
        bank = [colors(0.0, 0.4), colors(0.8)]
        self.hook = Health(
            lambda: colors(-0.2, 0.2, 0.6),
            held_out,
            lambda: bank,
            view,
            self.records.append,
            players=("gen", "dis"),
            every=every,
            seed=0,
        )
        self.trainer.hooks = [self.hook]


def test_discriminators_are_read_by_what_they_think() -> None:
    setup = Setup()
    reading = setup.hook.measure(setup.trainer)
    assert reading[REAL_ACCURACY] == pytest.approx(2 / 3)
    assert reading[FAKE_ACCURACY] == pytest.approx(1 / 3)
    assert reading[LOGITS_GAP] == pytest.approx(0.2 - 0.1)


def test_diversity_is_the_mean_difference_over_all_pairs() -> None:
    setup = Setup()
    made = [0.5 * x for x in (-0.2, 0.2, 0.6)]
    pairs = [abs(a - b) for a, b in itertools.combinations(made, 2)]
    assert setup.hook.measure(setup.trainer)[DIVERSITY] == pytest.approx(sum(pairs) / len(pairs), rel=1e-4)


def test_distance_from_training_images_is_in_units_of_that_of_held_out_images() -> None:
    setup = Setup(held_out=colors(0.2, 1.0))
    made, real, known = (0.1, 0.5), (0.2, 1.0), (0.0, 0.4, 0.8)
    far = [sum(min(abs(x - y) for y in known) for x in side) for side in (made, real)]
    assert setup.hook.measure(setup.trainer)[NEAREST] == pytest.approx(far[0] / far[1], rel=1e-5)


def test_without_held_out_images_nothing_is_said_of_copies() -> None:
    setup = Setup()
    assert NEAREST not in setup.hook.measure(setup.trainer)


def test_an_update_is_measured_as_a_share_of_the_weights() -> None:
    setup = Setup(every=2)
    weights = [0.5]

    def batches() -> Iterator[tuple[Batch, Position]]:
        while True:
            yield colors(1.0), Position()
            weights.append(float(setup.trainer.recipe.gen.weight.detach()))  # type: ignore[attr-defined]

    setup.trainer.fit(batches(), lambda step, epoch: Outcome.DONE if step >= 2 else Outcome.GO_ON)
    (record,) = setup.records
    after = float(setup.trainer.recipe.gen.weight.detach())  # type: ignore[attr-defined]
    assert record.step == 2
    assert record.scalars["health/gen_update_ratio"] == pytest.approx(abs(after - weights[1]) / weights[1], rel=1e-4)


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_the_ratio_is_of_one_update_and_of_none_for_a_player_that_stands_still(updates: int) -> None:
    """Each update takes the same step here; three of them count as one."""
    setup = Setup()
    player = setup.trainer.players["gen"]
    weight = player.params[0]
    setup.hook.after_step(setup.trainer, Progress(1, Position(), False, Outcome.GO_ON, []))
    for _ in range(updates):
        player.backward(weight.sum())
        player.update()
    phases = [Phase("gen", {}, torch.tensor(1.0))] * updates
    setup.hook.after_step(setup.trainer, Progress(2, Position(), False, Outcome.GO_ON, phases))
    (record,) = setup.records
    assert "health/dis_update_ratio" not in record.scalars
    if not updates:
        assert "health/gen_update_ratio" not in record.scalars
    else:
        assert record.scalars["health/gen_update_ratio"] == pytest.approx(0.1 / 0.5)


@pytest.mark.parametrize("frozen_at", [1, 2])
def test_a_player_is_measured_though_it_is_frozen_between_its_updates(frozen_at: int) -> None:
    setup = Setup()
    player = setup.trainer.players["gen"]
    weight = player.params[0]
    weight.requires_grad_(frozen_at != 1)
    setup.hook.after_step(setup.trainer, Progress(1, Position(), False, Outcome.GO_ON, []))
    weight.requires_grad_()
    player.backward(weight.sum())
    player.update()
    weight.requires_grad_(frozen_at != 2)
    phases = [Phase("gen", {}, torch.tensor(1.0))]
    setup.hook.after_step(setup.trainer, Progress(2, Position(), False, Outcome.GO_ON, phases))
    assert setup.records[0].scalars["health/gen_update_ratio"] == pytest.approx(0.1 / 0.5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("still", ["gen", "dis"])
def test_a_player_that_never_moves_is_told_within_fifty_iterations(
    still: str, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup(every=100, recipe=Half(still))
    setup.trainer.runtime.precision = precision  # type: ignore[assignment]
    if precision == "fp16":
        for player in setup.trainer.players.values():
            player.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    batches = ((colors(1.0), Position()) for _ in itertools.count())
    setup.trainer.fit(batches, lambda step, epoch: Outcome.DONE if step >= FIRST_LOOK else Outcome.GO_ON)
    assert caplog.messages == setup.hook.verdicts.list_standing()
    (line,) = caplog.messages
    assert line.startswith(f"{still} has not moved since iteration {FIRST_LOOK}: ")


def test_a_continued_run_is_told_again_of_a_player_that_does_not_move() -> None:
    first, second = Verdicts(("gen",)), Verdicts(("gen",))
    first.read(50, {"health/gen_update_ratio": 0.0}, counts_as=3)
    second.load_state_dict(first.state_dict())
    assert len(second.list_standing()) == 1
    assert lines(GOOD, GOOD, GOOD, verdicts=second) == ["gen has not moved: no longer, at iteration 300"]


def test_small_images_are_means_of_their_parts() -> None:
    image = torch.rand(2, 3, 2 * SIDE_PX, 3 * SIDE_PX, generator=torch.Generator().manual_seed(0))
    expected = image.unfold(2, 2, 2).unfold(3, 3, 3).mean(dim=(4, 5)).flatten(1)
    torch.testing.assert_close(shrink(image), expected)


def bars(width_px: int) -> Tensor:
    """1 x 3 x 64 x 64: black and white bars."""
    return (torch.arange(64) // width_px % 2).float().expand(1, 3, 64, 64)


def test_images_are_compared_by_parts_of_a_sixteenth_of_their_side() -> None:
    """Bars of 1/16 of the side are not gray, for their negative is another image; bars of 1/32 are."""
    assert find_nearest(shrink(bars(4)), shrink(1 - bars(4))) == pytest.approx(1)
    assert find_nearest(shrink(bars(2)), shrink(1 - bars(2))) == pytest.approx(0)


def test_nearest_is_the_least_mean_difference() -> None:
    a, b = torch.rand(4, 5), torch.rand(3, 5)
    expected = torch.stack([torch.stack([(x - y).abs().mean() for y in b]).min() for x in a])
    torch.testing.assert_close(find_nearest(a, b), expected)


def test_other_ranks_read_nothing() -> None:
    setup = Setup()
    setup.trainer.runtime = Runtime(torch.device("cpu"), rank=1, world=2)
    setup.hook.after_step(setup.trainer, Progress(2, Position(), False, Outcome.GO_ON, []))
    assert setup.records == []
