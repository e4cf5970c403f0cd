"""Numbers that go bad move no weights, are recorded, and are answered as the config says."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from imagier.cli import main
from imagier.config.find import find
from imagier.config.schema import OPTIMIZER
from imagier.data.loading.loader import Loader
from imagier.models.spade import Recipe as SpadeRecipe
from imagier.nn.average import ModelAverage
from imagier.recipe import Batch, Losses, Position, Recipe, StepContext
from imagier.run import status
from imagier.run.hooks import Hooks
from imagier.train import checkpoint, schedule
from imagier.train.checkpoint_files import CheckpointFiles, RetentionPolicy, read_entries
from imagier.train.guard import MOST_IN_A_ROW, Guard, Iteration, NonFinite
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.manifest import format_file_name
from imagier.train.phase import Phase
from imagier.train.player import Player
from imagier.train.recorder import FlightRecorder
from imagier.train.runtime import Runtime
from imagier.train.saver import Saver
from imagier.train.snapshot import Snapshot
from imagier.train.trainer import Outcome, Progress, Trainer

CPU = Runtime(torch.device("cpu"))
NAN = float("nan")


class OnTime(Runtime):
    """A runtime that is told of results one step late, as on an accelerator."""

    @property
    def is_asynchronous(self) -> bool:
        return True


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


class Line(Recipe):
    """One network that learns to give 0."""

    players = ("gen",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.gen = Net()
        self.loss_weight = {"mse": 1.0}

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        yield "gen", {"mse": self.gen(batch["x"]).square().mean()}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return batch["x"]


def trainer(
    runtime: Runtime = CPU, *, recipe: Line | None = None, options: Mapping[str, Any] | None = None, **guarding: Any
) -> Trainer:
    recipe = recipe or Line()
    options = {"lr": 0.1, "type": "adam", **(options or {})}
    made = find(OPTIMIZER, options.pop("type"))(recipe.gen.parameters(), **options)
    average = ModelAverage(recipe.gen, beta=0.5, start_iteration=0)
    player = Player(recipe.gen, made, runtime, schedule=schedule.Constant(), by_iteration=False, average=average)
    players = {"gen": player}
    guard = Guard(players, runtime, **guarding)
    return Trainer(recipe, players, runtime, seed=0, guard=guard)


def batches(bad: Callable[[int], bool]) -> Iterator[tuple[Batch, Position]]:
    step = 0
    while True:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        x[0, 0] = NAN if bad(step) else x[0, 0]
        step += 1
        yield Batch({"x": x}, {"x": [f"s/{step}_{i}" for i in range(4)]}), Position(0, 4 * step)


def fit(tested: Trainer, steps: int, bad: Callable[[int], bool]) -> None:
    tested.fit(batches(bad), lambda step, epoch: Outcome.DONE if step >= steps else Outcome.GO_ON)


def state(tested: Trainer) -> dict[str, Tensor]:
    average = tested.players["gen"].average
    assert average is not None
    both = {"": tested.recipe.networks["gen"], "average.": average.network}
    return {prefix + key: tensor for prefix, net in both.items() for key, tensor in net.state_dict().items()}


OPTIMIZERS = [
    {"type": "adam"},
    {"type": "sgd"},
    {"type": "rmsprop"},
    {"type": "fromage"},
    {"type": "madam", "scale": 3.0},
]


@pytest.mark.parametrize("runtime", [CPU, OnTime(torch.device("cpu"))], ids=["at once", "one step late"])
@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda options: options["type"])
def test_a_bad_batch_leaves_weights_moments_and_statistics_as_they_were(options: dict, runtime: Runtime) -> None:
    tested, expected = trainer(runtime, options=options), trainer(runtime, options=options)
    fit(tested, 4, lambda step: step == 3)
    fit(expected, 3, lambda step: False)
    assert tested.guard is not None and tested.guard.bad == 1
    for (key, tensor), other in zip(state(tested).items(), state(expected).values()):
        if key.startswith("average.") and not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue  # an average moves on towards weights that stay
        assert torch.equal(tensor, other), key
    moments = [t.players["gen"].optimizer.state_dict()["state"] for t in (tested, expected)]
    for index, values in moments[1].items():
        for key, value in values.items():
            if runtime.is_asynchronous and isinstance(value, int):
                continue  # counted on the host, which does not know of the bad one
            assert torch.equal(torch.as_tensor(moments[0][index][key]), torch.as_tensor(value)), key


def test_a_run_goes_on_after_a_bad_batch() -> None:
    tested = trainer()
    fit(tested, 10, lambda step: step == 3)
    assert all(tensor.isfinite().all() for tensor in state(tested).values())
    moved = trainer()
    fit(moved, 4, lambda step: step == 3)
    assert not torch.equal(state(tested)["last.weight"], state(moved)["last.weight"])


def test_a_loss_that_is_not_finite_counts_although_its_gradient_is() -> None:
    tested = trainer()
    player = tested.players["gen"]
    weight = player.network.last.weight
    before = weight.detach().clone()
    player.backward((torch.tensor(NAN) - weight).abs().sum())  # |NaN - x| has the slope 0
    assert weight.grad is not None and weight.grad.isfinite().all()
    assert player.update().isnan()
    assert torch.equal(weight, before)


def scaled(tested: Trainer) -> Trainer:
    """With the loss scaler of fp16."""
    tested.players["gen"].scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    return tested


def test_a_loss_scaler_sees_a_loss_that_is_not_finite_although_its_gradient_is() -> None:
    player = scaled(trainer()).players["gen"]
    weight = player.network.last.weight
    before = weight.detach().clone()
    player.backward((torch.tensor(NAN) - weight).abs().sum() + weight.sum())
    assert weight.grad is not None and weight.grad.isfinite().all()
    assert player.update().isnan()
    assert torch.equal(weight, before)


def test_a_scalers_overflow_is_not_logged_but_a_bad_batch_is_and_leaves_no_statistics(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tested = trainer()
    tested.recipe.loss_weight = {"mse": 1e3}
    tested.players["gen"].scaler = scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    fit(tested, 3, lambda step: False)
    assert scaler.get_scale() < 2.0**127 and caplog.messages == []
    fit(tested, 6, lambda step: step == 1)
    (line,) = caplog.messages
    assert line.startswith("iteration 5: not applied")
    assert all(tensor.isfinite().all() for tensor in state(tested).values())


@pytest.mark.parametrize("runtime", [CPU, OnTime(torch.device("cpu"))], ids=["at once", "one step late"])
def test_a_checkpoint_never_holds_what_a_bad_iteration_left(runtime: Runtime, tmp_path: Path) -> None:
    tested = trainer(runtime)
    saver = Saver(CheckpointFiles(tmp_path), Snapshot(runtime))
    tested.hooks = [Checkpoints(saver, dict, {}, every=4, start=0, every_epochs=1000, start_epoch=0)]
    fit(tested, 6, lambda step: step in (3, 5))  # the iterations before the saves: the first waits for a good one
    saver.close()
    assert {path.name for path in tmp_path.glob("*.pt")} == {format_file_name(0, step) for step in (5, 6)}
    for step in (5, 6):
        saved = checkpoint.load(tmp_path / format_file_name(0, step))["players"]["gen"]
        for network in (saved["network"], saved["average"]["network"]):
            assert all(tensor.isfinite().all() for tensor in network.values())


def saving(tested: Trainer, logdir: Path, **keep: Any) -> Saver:
    """The trainer saves every step."""
    saver = Saver(CheckpointFiles(logdir, RetentionPolicy(**keep)), Snapshot(CPU))
    tested.hooks = [Checkpoints(saver, dict, {}, every=1, start=0, every_epochs=1000, start_epoch=0)]
    return saver


def saved_steps(logdir: Path) -> list[int]:
    return [entry.step for entry in read_entries(logdir)]


STATES: dict[str, Callable[[Trainer], Tensor]] = {
    "gen.last.bias": lambda tested: tested.recipe.networks["gen"].last.bias,
    "gen_opt: momentum_buffer of first.weight": lambda tested: moment(tested, "first"),
    "gen.norm.running_var": lambda tested: tested.recipe.networks["gen"].norm.running_var,
    "average of gen.norm.running_mean": lambda tested: averaged(tested).norm.running_mean,
    "average of gen.last.weight": lambda tested: averaged(tested).last.weight,
}


def moment(tested: Trainer, layer: str) -> Tensor:
    weight = getattr(tested.recipe.networks["gen"], layer).weight
    return tested.players["gen"].optimizer.state[weight]["momentum_buffer"]


def averaged(tested: Trainer) -> Any:
    average = tested.players["gen"].average
    assert average is not None
    return average.network


class Spoils:
    """A hook that makes a number infinite after the sixth step."""

    def __init__(self, what: Callable[[Trainer], Tensor]) -> None:
        self.what = what

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        if progress.step == 6:
            with torch.no_grad():
                self.what(trainer).view(-1)[-1] = torch.inf

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None: ...


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_not_finite_is_never_saved_and_pushes_no_good_one_out(name: str, tmp_path: Path) -> None:
    tested = trainer(options={"type": "sgd", "momentum": 0.9})
    saver = saving(tested, tmp_path, last=2)
    tested.hooks = [Spoils(STATES[name]), *tested.hooks]
    with pytest.raises(NonFinite, match=re.escape(f"iteration 6: the state is not finite any more ({name})")):
        fit(tested, 20, lambda step: False)
    saver.close()
    assert saved_steps(tmp_path) == [4, 5]


@pytest.mark.parametrize("runtime", [CPU, OnTime(torch.device("cpu"))], ids=["at once", "one step late"])
def test_bad_weights_end_a_run_that_skips_at_the_first_iteration_that_meets_them(runtime: Runtime) -> None:
    tested = trainer(runtime)
    tested.hooks = [Spoils(STATES["gen.last.bias"])]
    with pytest.raises(NonFinite, match=r"iteration 7: the state is not finite any more \(gen.last.bias\)"):
        fit(tested, 100, lambda step: False)
    assert tested.step == 7 + runtime.is_asynchronous


def test_bad_numbers_that_no_loss_shows_are_found_within_a_hundred_iterations() -> None:
    tested = trainer()
    tested.hooks = [Spoils(STATES["average of gen.last.weight"])]
    with pytest.raises(NonFinite, match="iteration 100: the state"):
        fit(tested, 1000, lambda step: False)


def test_a_mask_of_attention_is_no_bad_number(tmp_path: Path) -> None:
    recipe = Line()
    recipe.gen.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
    tested = trainer(recipe=recipe)
    saver = saving(tested, tmp_path)
    fit(tested, 3, lambda step: step == 1)
    saver.close()
    assert saved_steps(tmp_path) == [1, 3]


def test_a_run_that_ends_in_a_bad_streak_saves_but_removes_nothing(tmp_path: Path) -> None:
    tested = trainer()
    saver = saving(tested, tmp_path, last=2)
    fit(tested, 7, lambda step: step >= 4)
    saver.note(7, {"L1": 0.5})
    saver.close()
    assert saved_steps(tmp_path) == [3, 4, 7]


def test_a_guard_changes_no_bit_of_a_good_run() -> None:
    guarded, plain = trainer(), trainer()
    plain.guard = None
    fit(guarded, 5, lambda step: False)
    fit(plain, 5, lambda step: False)
    assert all(torch.equal(a, b) for a, b in zip(state(guarded).values(), state(plain).values()))


@pytest.mark.parametrize(("runtime", "seen_after"), [(CPU, 4), (OnTime(torch.device("cpu")), 5)])
@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_policies_that_do_not_go_on_raise_at_the_same_step_everywhere(
    policy: str, runtime: Runtime, seen_after: int
) -> None:
    tested = trainer(runtime, policy=policy)
    with pytest.raises(NonFinite, match="iteration 4: not applied, the loss or gradient of gen is not finite"):
        fit(tested, 10, lambda step: step == 3)
    assert tested.step == seen_after


def test_the_last_iteration_is_looked_at_too() -> None:
    with pytest.raises(NonFinite, match="iteration 4"):
        fit(trainer(OnTime(torch.device("cpu")), policy="stop"), 4, lambda step: step == 3)


def test_skipping_ends_when_nothing_else_comes(caplog: pytest.LogCaptureFixture) -> None:
    tested = trainer()
    with pytest.raises(NonFinite, match=f"the {MOST_IN_A_ROW} iterations before it: the run cannot continue"):
        fit(tested, 1000, lambda step: step >= 2)
    assert tested.step == 2 + MOST_IN_A_ROW + 1
    assert len(caplog.messages) == MOST_IN_A_ROW


def test_other_ranks_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """They see the same; one line is enough."""
    tested = trainer()
    tested.guard = Guard(tested.players, Runtime(torch.device("cpu"), rank=1))
    fit(tested, 5, lambda step: step == 3)
    assert tested.guard.bad == 1 and caplog.messages == []


def test_only_the_first_bad_iterations_are_recorded() -> None:
    steps: list[int] = []

    def record(bad: Iteration, history: Mapping[int, Mapping[str, float]]) -> str:
        steps.append(bad.step)
        return "recorded"

    fit(trainer(record=record), 20, lambda step: step % 2 == 1)
    assert steps == [2, 4, 6]


def test_history_holds_losses_and_gradient_norms() -> None:
    tested = trainer()
    tested.guard = guard = Guard(tested.players, CPU)
    fit(tested, 3, lambda step: False)
    history = guard.history()
    assert list(history) == [1, 2, 3]
    first = trainer()
    (phase,) = first.train_step(next(batches(lambda step: False))[0])
    assert history[1] == {
        "gen/mse": phase.losses["mse"].item(),
        "gen/total": phase.losses["total"].item(),
        "gen/gradient_norm": phase.gradient_norm.item(),
    }


def recorded(tested: Trainer, batch: Batch, folder: Path, players: Sequence[str] = ("gen",)) -> str:
    """What the recorder says of the first iteration, on this batch."""
    bad = Iteration(1, Position(), batch, [], players, lambda: [NAN])
    return FlightRecorder(tested, folder)(bad, {1: {"gen/mse": NAN}})


def good_batch() -> Batch:
    return next(batches(lambda step: False))[0]


class Overflow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e38 * 1e38


def test_the_recorder_finds_the_module_that_made_the_first_bad_number(tmp_path: Path) -> None:
    tested = trainer()
    tested.recipe.networks["gen"].norm = Overflow()
    assert recorded(tested, good_batch(), tmp_path).startswith("in gen: gen.norm (Overflow) ")


def test_the_recorder_finds_a_bad_batch_and_bad_weights(tmp_path: Path) -> None:
    tested = trainer()
    batch = next(batches(lambda step: True))[0]
    assert "the batch itself is not finite (x)" in recorded(tested, batch, tmp_path)
    with torch.no_grad():
        tested.recipe.networks["gen"].last.weight[0, 1] = NAN
    assert "the weights are not finite (gen.last.weight)" in recorded(tested, good_batch(), tmp_path)


def test_the_recorder_finds_a_gradient_that_alone_is_bad(tmp_path: Path) -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0).sqrt()  # its slope at 0 is infinite

    tested = trainer()
    tested.recipe.networks["gen"].norm = Root()
    found = recorded(tested, good_batch(), tmp_path)
    assert found.startswith("in gen: ") and "the gradient of gen.first." in found


def test_a_replay_changes_nothing(tmp_path: Path) -> None:
    tested = trainer()
    fit(tested, 2, lambda step: False)
    before = {key: tensor.clone() for key, tensor in state(tested).items()}
    recorded(tested, good_batch(), tmp_path)
    assert all(torch.equal(before[key], tensor) for key, tensor in state(tested).items())
    assert all(p.grad is None for p in tested.players["gen"].params)


class Moody(nn.Module):
    """Makes bad numbers of good ones when told to."""

    bad = False

    def forward(self, x: Tensor) -> Tensor:
        return x * NAN if self.bad else x


def test_the_iteration_after_a_replay_is_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = trainer()
    tested.recipe.networks["gen"].norm = moody = Moody()
    tested.guard = guard = Guard(tested.players, CPU, record=FlightRecorder(tested, tmp_path))
    step = tested.train_step

    def train_step(batch: Batch) -> list[Phase]:
        moody.bad = tested.step == 3
        return step(batch)

    monkeypatch.setattr(tested, "train_step", train_step)
    fit(tested, 6, lambda step: False)
    assert guard.bad == 1


class Second(Runtime):
    """A runtime of two ranks, of which the other finds something at a place."""

    def __init__(self, place: int) -> None:
        super().__init__(torch.device("cpu"))
        self.left = place

    def all_reduce_max(self, value: int) -> int:
        self.left -= 1
        return 2 if self.left < 0 else value


@pytest.mark.parametrize("place", [0, 1, 2], ids=["its batch", "its losses", "the end"])
def test_a_replay_ends_on_all_ranks_where_one_finds_something(tmp_path: Path, place: int) -> None:
    found = recorded(trainer(Second(place)), good_batch(), tmp_path)
    assert found.startswith("it began on rank 1, whose report says where; ")


def test_a_record_holds_the_batch_and_the_iterations_before(tmp_path: Path) -> None:
    batch = good_batch()
    recorded(trainer(), batch, tmp_path)
    folder = tmp_path / "nonfinite" / "iteration_000000001"
    saved = torch.load(folder / "batch_rank0.pt", weights_only=True)
    assert torch.equal(saved["tensors"]["x"], batch["x"]) and saved["keys"] == batch.keys
    report = json.loads((folder / "report_rank0.json").read_text())
    assert report["files"] == batch.keys and list(report["history"]) == ["1"]


class Often(Line):
    """Updates its network as often as a list says, one entry an iteration; each update has a batch of its own."""

    def __init__(self, *times: int) -> None:
        super().__init__()
        self.times = times

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        times = self.times[now.step % len(self.times)]
        for part in batch.split(times) if times else ():
            yield "gen", {"mse": self.gen(part["x"]).square().mean()}


BOTH = pytest.mark.parametrize("runtime", [CPU, OnTime(torch.device("cpu"))], ids=["at once", "one step late"])


@BOTH
@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_a_bad_first_update_of_two_is_found_and_named(policy: str, runtime: Runtime) -> None:
    """The batch's first sample is bad, and with it the first update alone."""
    tested = trainer(runtime, recipe=Often(2), policy=policy)
    with pytest.raises(NonFinite, match=r"^iteration 4: not applied, .* of gen \(update 1 of 2\) is not finite$"):
        fit(tested, 10, lambda step: step == 3)


@BOTH
def test_a_bad_first_update_of_two_leaves_the_second_and_no_statistics(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    tested = trainer(runtime, recipe=Often(2))
    fit(tested, 5, lambda step: step == 3)
    assert len(caplog.messages) == 1 and tested.guard is not None and tested.guard.bad == 1
    assert all(tensor.isfinite().all() for tensor in state(tested).values())
    history = tested.guard.history()
    assert math.isnan(history[4]["gen (update 1 of 2)/gradient_norm"])
    assert math.isfinite(history[4]["gen (update 2 of 2)/gradient_norm"])


@BOTH
def test_iterations_without_an_update_are_good_ones(runtime: Runtime) -> None:
    tested = trainer(runtime, recipe=Often(0, 1, 0, 2))
    fit(tested, 8, lambda step: False)
    assert tested.guard is not None and tested.guard.bad == 0
    assert list(tested.guard.history()) == [2, 4, 6, 8]


def test_a_player_whose_rare_updates_are_all_bad_ends_the_run_too() -> None:
    """Between them are iterations without an update, which say nothing about it."""
    tested = trainer(recipe=Often(1, 0, 0))
    with pytest.raises(NonFinite, match="the run cannot continue"):
        fit(tested, 1000, lambda step: True)
    assert tested.step == 3 * MOST_IN_A_ROW + 1


class BadAt(nn.Module):
    """Makes bad numbers of good ones when it is called for the n-th time."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.left = call

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        return x if self.left else x * NAN


@pytest.mark.parametrize("update", [1, 2])
def test_the_recorder_names_the_phase_that_went_bad_first(tmp_path: Path, update: int) -> None:
    tested = trainer(recipe=Often(2))
    tested.recipe.networks["gen"].norm = BadAt(update)
    found = recorded(tested, good_batch(), tmp_path, ["gen", "gen"])
    assert found.startswith(f"in gen (update {update} of 2): gen.norm (BadAt) ")


def test_the_gradients_of_one_phase_are_not_blamed_on_the_next(tmp_path: Path) -> None:
    """Each is small enough; together they would overflow."""
    recipe = Often(2)
    recipe.gen = nn.Linear(3, 1)  # type: ignore[assignment]
    recipe.loss_weight = {"mse": 1e38}
    tested = trainer(recipe=recipe)
    with torch.no_grad():
        recipe.gen.weight.zero_()
        recipe.gen.bias.fill_(1.0)
    batch = Batch({"x": torch.full((4, 3), 0.5)})
    assert recorded(tested, batch, tmp_path, ["gen", "gen"]).startswith("computed again, everything was finite")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"), snapshot_save_iter=2)


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> list[list[str]]:
    """Makes the images of some iterations, counted over the whole run, NaN; returns the files of all batches."""
    before = Loader.stream
    served: list[list[str]] = []

    def stream(self: Loader, start: Position) -> Iterator[tuple[Batch, Position]]:
        for batch, position in before(self, start):
            served.append(batch.keys["images"])
            bad = len(served) in steps
            yield replace(batch.replace(images=batch["images"] * NAN) if bad else batch), position

    monkeypatch.setattr(Loader, "stream", stream)
    return served


def train(config: Path, logdir: Path, *words: str) -> int:
    return main(["train", "--config", str(config), "--logdir", str(logdir), "--device", "cpu", *words])


def test_a_run_that_stops_says_where_it_went_wrong(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, 3)
    assert train(experiment, tmp_path / "run", "trainer.on_nonfinite=stop") == status.FAILED
    folder = tmp_path / "run" / "nonfinite" / "iteration_000000003"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "iteration 3: not applied, the loss or gradient of dis and gen is not finite; the batch itself is"
    )
    assert str(folder) in line and (folder / "batch_rank0.pt").is_file()


def test_a_run_that_skips_goes_on_with_other_data(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, 3)
    assert train(experiment, tmp_path / "run") == status.DONE
    assert "iteration 3: not applied, the loss or gradient of dis and gen is not finite" in capsys.readouterr().out


def test_a_run_that_rolls_back_goes_on_from_the_last_checkpoint_with_the_data_after(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = spoil(monkeypatch, 3)
    assert train(experiment, tmp_path / "run", "trainer.on_nonfinite=rollback") == status.DONE
    assert "back to iteration 2 (epoch_00000_iteration_000000002_checkpoint.pt)" in capsys.readouterr().out
    whole = spoil(monkeypatch)
    assert train(experiment, tmp_path / "other", "max_iter=7") == status.DONE
    trained = [files for i, files in enumerate(served) if i != 2]
    assert trained[:5] == [files for i, files in enumerate(whole) if i != 2][:5], "no batch comes twice, none is lost"


def test_hooks_go_back_too(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 4)
    assert train(experiment, tmp_path / "run", "trainer.on_nonfinite=rollback", "logging_iter=10") == status.DONE
    kept = checkpoint.load(next((tmp_path / "run").glob("*_iteration_000000006_checkpoint.pt")))["extras"]
    assert kept["log"]["steps"] == 6, "iteration 3, which was gone back over, counts once"


def test_going_back_passes_over_a_checkpoint_that_is_damaged(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, 5)
    before = Hooks.finish_saving

    def finish_saving(self: Hooks) -> None:
        before(self)
        if len(steps := sorted((tmp_path / "run").glob("*.pt"))) == 2:
            steps[1].write_bytes(b"damaged")

    monkeypatch.setattr(Hooks, "finish_saving", finish_saving)
    assert train(experiment, tmp_path / "run", "trainer.on_nonfinite=rollback") == status.DONE
    said = capsys.readouterr().out
    assert "is damaged" in said and "back to iteration 2 (" in said


def spoil_discriminator(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Makes the losses of the discriminator's update of this number, counted over the whole run, NaN."""
    before = SpadeRecipe.dis_losses
    numbers = count(1)

    def dis_losses(self: SpadeRecipe, *args: Any) -> Losses:
        losses = before(self, *args)
        return {name: loss * NAN for name, loss in losses.items()} if next(numbers) == number else losses

    monkeypatch.setattr(SpadeRecipe, "dis_losses", dis_losses)


@pytest.mark.parametrize(("number", "which"), [(5, 1), (6, 2)])
def test_a_run_sees_each_of_two_updates_of_the_discriminator(
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    which: int,
) -> None:
    spoil_discriminator(monkeypatch, number)
    assert train(experiment, tmp_path / "run", "trainer.dis_step=2", "trainer.on_nonfinite=stop") == status.FAILED
    folder = tmp_path / "run" / "nonfinite" / "iteration_000000003"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"dis (update {which} of 2)" in line and str(folder) in line
    assert "gen" not in json.loads((folder / "report_rank0.json").read_text())["found"]
    assert not list((tmp_path / "run").glob("*_iteration_000000004_*.pt")), "it did not go on"


def test_a_run_counts_a_bad_first_update_of_two_and_goes_on(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_discriminator(monkeypatch, 5)
    assert train(experiment, tmp_path / "run", "trainer.dis_step=2") == status.DONE
    assert "iteration 3: not applied, the loss or gradient of dis (update 1 of 2) is" in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lost = {record["step"]: record["nonfinite"] for record in records if "nonfinite" in record}
    assert list(lost) == [4], "the period of iterations 3 and 4"
    # The loss has two parts, their sum, and the total; the second update's are in the means.
    assert lost[4] == 4
    assert all(math.isfinite(record["dis_update/total"]) for record in records if "dis_update/total" in record)


@pytest.mark.parametrize(("idle", "learns"), [("dis", "gen"), ("gen", "dis")])
def test_a_run_in_which_a_player_is_never_updated_trains(
    experiment: Path, tmp_path: Path, idle: str, learns: str
) -> None:
    logdir = tmp_path / "run"
    assert train(experiment, logdir, f"trainer.{idle}_step=0", "max_iter=4") == status.DONE
    assert train(experiment, logdir, f"trainer.{idle}_step=0") == status.DONE, "and continues"
    two, six = (
        checkpoint.load(next(logdir.glob(f"*_iteration_{step:09d}_checkpoint.pt")))["players"] for step in (2, 6)
    )
    assert not six[idle]["optimizer"]["state"] and six[learns]["optimizer"]["state"]
    assert same_weights(two[idle], six[idle]) and not same_weights(two[learns], six[learns])
    records = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    tags = {tag for record in records for tag in record}
    assert f"{learns}_update/total" in tags and f"{idle}_update/total" not in tags


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    weights = [name for name in one["network"] if name.endswith(("weight", "bias"))]
    assert weights
    return all(torch.equal(one["network"][name], other["network"][name]) for name in weights)


SPOILT_ON_ONE_RANK = """
import sys
from imagier.cli import main
from imagier.data.loading.loader import Loader

before = Loader.stream

def stream(self, start):
    for number, (batch, position) in enumerate(before(self, start)):
        bad = number == 2 and self.rank == 1
        yield batch.replace(images=batch["images"] * float("nan")) if bad else batch, position

Loader.stream = stream
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_two_ranks_that_compute_together_answer_alike_to_what_one_has_met(
    experiment: Path, tmp_path: Path, policy: str
) -> None:
    """Their batch norms add up over both ranks: one that looked for the fault alone would wait for ever."""
    script = tmp_path / "spoilt.py"
    script.write_text(SPOILT_ON_ONE_RANK)
    words = ["train", "--config", str(experiment), "--logdir", str(tmp_path / "run"), "--device", "cpu"]
    words += [f"trainer.on_nonfinite={policy}", "gen.activation_norm_params.activation_norm_type=sync_batch"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, str(script), *words], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "it began on rank 1, whose report says where" in done.stdout
    report = json.loads((tmp_path / "run" / "nonfinite" / "iteration_000000003" / "report_rank1.json").read_text())
    assert report["found"] == "the batch itself is not finite (images)"


def test_going_back_again_and_again_ends(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, *range(3, 100))
    assert train(experiment, tmp_path / "run", "trainer.on_nonfinite=rollback") == status.FAILED
    assert " 3 times already" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_cannot_go_back(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, 1)
    assert train(experiment, tmp_path / "run", "trainer.on_nonfinite=rollback") == status.FAILED
    assert "there is no checkpoint to go back to" in capsys.readouterr().err
