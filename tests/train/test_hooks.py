"""What watches a run: logs, files, images, scores, reports."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_trainer import CPU, Line, endless, trainer, until
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics import l1, l1_changed, psnr
from imagier.recipe import Batch, Position, Recipe
from imagier.train.checkpoint_files import CheckpointFiles
from imagier.train.hooks import evaluation, files
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.hooks.console import Console, format_duration, format_record
from imagier.train.hooks.images import Images, read_image, tile_columns, to_uint8
from imagier.train.hooks.log import Log, Record, tag_losses
from imagier.train.hooks.profile import Profile
from imagier.train.phase import Phase
from imagier.train.runtime import Runtime
from imagier.train.saver import Saver
from imagier.train.scoring import Scorer, Scores
from imagier.train.snapshot import Snapshot
from imagier.train.trainer import Outcome, Progress, Trainer
from imagier.train.view import View

METRICS = [l1.Metric(), psnr.Metric(), l1_changed.Metric()]
NO_CALIBRATION = View(lambda recipe: nullcontext())


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.images: list[tuple[Path, int]] = []

    def scalars(self, record: Record) -> None:
        self.records.append(record)

    def image(self, path: Path, step: int) -> None:
        self.images.append((path, step))

    def close(self) -> None: ...


def progress(step: int, losses: Mapping[str, Mapping[str, float]], outcome: Outcome = Outcome.GO_ON) -> Progress:
    """One update of each player."""
    return after(step, *losses.items(), outcome=outcome)


def after(step: int, *phases: tuple[str, Mapping[str, float]], outcome: Outcome = Outcome.GO_ON) -> Progress:
    """Any updates, in order."""
    made = [
        Phase(player, {name: torch.tensor(x) for name, x in of.items()}, torch.tensor(1.0)) for player, of in phases
    ]
    return Progress(step, Position(0, step), False, outcome, made)


def log(sink: Kept, every: int = 2, **options: Any) -> Log:
    return Log([sink], every=every, samples_per_step=4, log_names={"gan": "GAN"}, **options)


def test_parts_of_a_loss_are_logged_with_their_sum_under_the_references_tags() -> None:
    losses = {"dis": {"gan/fake": torch.tensor(1.0), "gan/true": torch.tensor(2.0), "total": torch.tensor(6.0)}}
    assert {tag: value.item() for tag, value in tag_losses(losses, {"gan": "GAN"}).items()} == {
        "dis_update/GAN/fake": 1.0,
        "dis_update/GAN": 3.0,
        "dis_update/GAN/true": 2.0,
        "dis_update/total": 6.0,
    }


def test_a_log_gives_the_mean_of_each_period() -> None:
    sink, watched = Kept(), trainer(Line())
    tested = log(sink)
    for step, value in enumerate([1.0, 3.0, 10.0, 20.0, 7.0], start=1):
        tested.after_step(watched, progress(step, {"gen": {"gan": value}}))
    assert [(r.step, r.scalars["gen_update/GAN"]) for r in sink.records] == [(2, 2.0), (4, 15.0)]
    tested.after_fit(watched, progress(5, {"gen": {"gan": 7.0}}))
    assert sink.records[-1].scalars["gen_update/GAN"] == 7.0
    assert {"optim/gen_lr", "optim/dis_lr", "time/iteration", "memory/peak_bytes"} <= set(sink.records[0].scalars)


def test_the_mean_of_a_loss_is_over_the_updates_in_which_it_came() -> None:
    """A player that comes twice, one that comes in every second iteration, and a loss that it has every fourth time."""
    sink, watched = Kept(), trainer(Line())
    tested = log(sink, every=4)
    for step in range(1, 9):
        phases: list[tuple[str, Mapping[str, float]]] = [("dis", {"gan": step}), ("dis", {"gan": step + 10.0})]
        if step % 2 == 0:
            phases.append(("gen", {"gan": float(step), **({"r1": 100.0 * step} if step % 4 == 0 else {})}))
        tested.after_step(watched, after(step, *phases))
    names = ("dis_update/GAN", "gen_update/GAN", "gen_update/r1")
    assert [tuple(record.scalars[name] for name in names) for record in sink.records] == [
        (7.5, 3.0, 400.0),
        (11.5, 7.0, 800.0),
    ]
    assert not any("nonfinite" in record.scalars for record in sink.records)


def test_a_period_without_an_update_has_a_record_without_losses() -> None:
    sink, watched = Kept(), trainer(Line())
    tested = log(sink)
    for step in (1, 2, 3):
        tested.after_step(watched, after(step))
    tested.after_fit(watched, after(3))
    assert [record.step for record in sink.records] == [2, 3]
    assert all("optim/gen_lr" in record.scalars for record in sink.records)
    assert not any("update" in tag for record in sink.records for tag in record.scalars)


def test_a_bad_first_update_of_two_is_left_out_and_counted() -> None:
    sink, watched = Kept(), trainer(Line())
    log(sink, every=1).after_step(watched, after(1, ("dis", {"gan": math.nan}), ("dis", {"gan": 2.0})))
    assert sink.records[0].scalars["dis_update/GAN"] == 2.0
    assert sink.records[0].scalars["nonfinite"] == 1


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    sink, watched = Kept(), trainer(Line())
    tested = log(sink)
    for step, value in enumerate([float("nan"), 3.0, float("inf"), float("-inf")], start=1):
        tested.after_step(watched, progress(step, {"gen": {"gan": value, "total": 1.0}}))
    assert sink.records[0].scalars["gen_update/GAN"] == 3.0
    assert sink.records[0].scalars["nonfinite"] == 1
    assert "gen_update/GAN" not in sink.records[1].scalars
    assert sink.records[1].scalars["nonfinite"] == 2


def test_what_others_count_is_logged_as_the_sum_over_all_ranks_once_there_is_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"data/skipped": 0}
    sink, watched = Kept(), trainer(Line())
    monkeypatch.setattr(type(watched.runtime), "all_reduce_sum", lambda runtime, value: 2 * value)
    tested = log(sink, every=1, tallies=lambda: counts)
    for step, count in enumerate([0, 3], start=1):
        counts["data/skipped"] = count
        tested.after_step(watched, progress(step, {"gen": {"gan": 1.0}}))
    assert "data/skipped" not in sink.records[0].scalars
    assert sink.records[1].scalars["data/skipped"] == 6
    saved = tested.state_dict(watched.runtime)
    for again, before, total in ((log(sink, every=1, tallies=lambda: counts), 0, 8), (tested, 3, 8)):
        counts["data/skipped"] = before  # in a new process, or in one that goes back to a checkpoint
        again.load_state_dict(saved, watched.runtime)
        counts["data/skipped"] += 1
        again.after_step(watched, progress(3, {"gen": {"gan": 1.0}}))
        assert sink.records[-1].scalars["data/skipped"] == total
    assert " · data: skipped 6 · " in format_record(sink.records[1], 2, 0.0, 90)


def test_the_period_of_an_interrupted_run_has_no_record_of_its_own() -> None:
    """It goes on when the run does; that of a run that is done has one."""
    for outcome, steps in ((Outcome.INTERRUPTED, []), (Outcome.DONE, [3])):
        sink = Kept()
        tested, watched = log(sink, every=4), trainer(Line())
        for step in (1, 2, 3):
            tested.after_step(watched, progress(step, {"gen": {"gan": 1.0}}))
        tested.after_fit(watched, progress(3, {}, outcome))
        assert [record.step for record in sink.records] == steps


def test_a_period_goes_on_after_a_resume() -> None:
    sink, watched = Kept(), trainer(Line())
    first, second = log(sink, every=4), log(sink, every=4)
    for step in (1, 2):
        first.after_step(watched, progress(step, {"gen": {"gan": 1.0}}))
    second.load_state_dict(first.state_dict(watched.runtime), CPU)
    for step in (3, 4):
        second.after_step(watched, progress(step, {"gen": {"gan": 3.0}}))
    assert sink.records[0].scalars["gen_update/GAN"] == 2.0


def uneven(step: int) -> Progress:
    """The phases of an iteration; their sums depend, in float32, on the order in which they are added up."""
    losses = [("dis", {"gan": 0.1 + step / 7}), ("gen", {"gan": 1e4 / step}), ("dis", {"gan": 1e-5 * step})]
    return after(step, *losses[: 1 + step % 3])


@pytest.mark.parametrize("middle", range(1, 12))
def test_a_period_of_changing_phases_goes_on_bit_for_bit(middle: int, tmp_path: Path) -> None:
    whole, parts, watched = Kept(), Kept(), trainer(Line())
    unbroken, first, second = log(whole, every=6), log(parts, every=6), log(parts, every=6)
    for step in range(1, 13):
        unbroken.after_step(watched, uneven(step))
        if step == middle + 1:
            torch.save(first.state_dict(watched.runtime), tmp_path / "state")
            second.load_state_dict(torch.load(tmp_path / "state", weights_only=True), CPU)
        (first if step <= middle else second).after_step(watched, uneven(step))
    losses = [[{k: v for k, v in r.scalars.items() if "update" in k} for r in sink.records] for sink in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_a_period_that_version_0_1_saved_goes_on() -> None:
    sink, watched = Kept(), trainer(Line())
    tested = log(sink, every=4)
    sums, counts = torch.tensor([2.0, 20.0]), torch.tensor([2.0, 1.0])
    saved = {"tags": ["dis_update/GAN", "gen_update/GAN"], "sums": sums, "counts": counts, "steps": 2}
    tested.load_state_dict(saved, CPU)
    for step in (3, 4):
        tested.after_step(watched, progress(step, {"dis": {"gan": 3.0}, "gen": {"gan": 5.0}}))
    (record,) = sink.records
    assert (record.scalars["dis_update/GAN"], record.scalars["gen_update/GAN"]) == (2.0, 10.0)
    assert record.scalars["nonfinite"] == 1
    tested.load_state_dict({"tags": [], "sums": None, "counts": None, "steps": 0}, CPU)
    assert tested.steps == 0


def test_records_beyond_the_step_of_a_resume_are_removed(tmp_path: Path) -> None:
    with_crash = files.JsonLines(tmp_path, from_step=0)
    for step in (2, 4, 6):
        with_crash.scalars(Record(step, 0, {"a": float(step)}))
    with_crash.close()
    with (tmp_path / files.NAME).open("a") as file:
        file.write('{"step": 8, "a"')  # the process died here
    again = files.JsonLines(tmp_path, from_step=4)
    again.scalars(Record(6, 0, {"a": -6.0}))
    again.close()
    assert [(r["step"], r["a"]) for r in files.read(tmp_path)] == [(2, 2.0), (4, 4.0), (6, -6.0)]


DAMAGED = b'{"step": 2, "a"{"step": 3}\n\x00\x00\xff}\n[1]\n{"a": 1}\n{"step": "x"}\n\n'


def test_damaged_lines_are_left_out_and_removed_by_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / files.NAME
    path.write_bytes(b'{"step": 1}\n' + DAMAGED + b'{"step": 4}\n{"step": 5}\n')
    assert [record["step"] for record in files.read(tmp_path)] == [1, 4, 5]
    files.JsonLines(tmp_path, from_step=4).close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 4}\n'
    assert caplog.messages == [f"{path}: 6 damaged lines are removed"]


def test_a_log_that_cannot_be_written_from_the_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / files.NAME).mkdir()
    with pytest.raises(UserError) as caught:
        files.JsonLines(tmp_path, from_step=0)
    assert (caught.value.where, caught.value.code) == (str(tmp_path / files.NAME), "unwritable-log")


def test_a_line_says_where_how_fast_and_what() -> None:
    scalars = {
        "gen_update/GAN": 0.5,
        "gen_update/total": 1.25,
        "dis_update/GAN/fake": 9.0,
        "optim/gen_lr": 1e-4,
        "time/iteration": 0.1,
        "speed/samples_per_second": 40.0,
        "memory/peak_bytes": 2.0**30,
    }
    assert format_record(Record(1200, 3, scalars), 5000, 380.0) == (
        "iter 1,200/5,000 · 10 it/s · ETA 6:20 · gen: total 1.25 GAN 0.5 · epoch 3 · 40 img/s · 1.00 GiB"
    )
    assert format_record(Record(5, 1, {"time/epoch": 61.0}), 10, 0.0) == "iter 5/10 · epoch 1 took 1:01"
    assert format_record(Record(5, 1, {"L1/average": 0.5, "PSNR/average": 20.0}), 10, 0.0) == (
        "iter 5/10 · L1: average 0.5 · PSNR: average 20 · epoch 1"
    )


LONG = {
    **{f"dis_update/{name}": 1.2345 for name in ("GAN", "total", "r1", "r2")},
    **{f"gen_update/{name}": -123.456 for name in ("GAN", "FeatureMatching", "GaussianKL", "Perceptual", "total")},
    "time/iteration": 0.2083,
    "speed/samples_per_second": 1234.5,
    "memory/peak_bytes": 2.0**36,
    "nonfinite": 2.0,
}


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (40, "iter 670/3,000 · 4.8 it/s · ETA 3:15 …"),
        (80, "iter 670/3,000 · 4.8 it/s · ETA 3:15 · dis: total 1.234 · gen: total -123.5 …"),
        (
            120,
            "iter 670/3,000 · 4.8 it/s · ETA 3:15 · dis: total 1.234 GAN 1.234 r1 1.234 r2 1.234 · "
            "gen: total -123.5 · nonfinite: 2 …",
        ),
    ],
)
def test_a_line_fits_the_terminal_with_what_matters_most(width: int, line: str) -> None:
    assert format_record(Record(670, 3, LONG), 3000, 195.0, width) == line
    whole = format_record(Record(670, 3, LONG), 3000, 195.0)
    assert len(line) <= width < len(whole)
    assert whole.endswith("Perceptual -123.5 · nonfinite: 2 · epoch 3 · 1.23e+03 img/s · 64.00 GiB")
    assert format_record(Record(670, 3, LONG), 3000, 195.0, len(whole)) == whole
    for columns in range(20, len(whole)):
        assert len(format_record(Record(670, 3, LONG), 3000, 195.0, columns)) <= columns


@pytest.mark.parametrize(("is_terminal", "width"), [(True, 80), (False, None)])
def test_a_file_gets_whole_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_terminal: bool, width: int | None
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout", StringIO())
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    console = Console(total_steps=3000, from_step=670, has_bar=False)
    monkeypatch.setattr(console, "_seconds_left", lambda step: 195.0)
    console.scalars(Record(670, 3, LONG))
    assert caplog.messages == [format_record(Record(670, 3, LONG), 3000, 195.0, width)]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01")])
def test_durations_are_clock_times(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_pixels_are_rounded_and_clamped() -> None:
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0 - 1 / 255, 1.5])[None, None].expand(3, 1, 5)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 254, 255]


def test_columns_stand_side_by_side_and_samples_below_each_other() -> None:
    columns = [torch.full((2, 3, 4, 5), value) for value in (-1.0, 1.0)]
    columns[0][1] = 0.0
    grid = tile_columns(columns)
    assert grid.shape == (8, 10, 3)
    assert (grid[:4, :5] == 0).all() and (grid[4:, :5] == 128).all() and (grid[:, 5:] == 255).all()


def test_lower_columns_have_black_below_them() -> None:
    grid = tile_columns([torch.ones(2, 3, 4, 5), torch.ones(2, 3, 3, 6)])
    assert grid.shape == (8, 11, 3)
    white = [(grid[:4, :5], grid[4:, :5]), (grid[:3, 5:], grid[4:7, 5:])]
    assert all((part == 255).all() for parts in white for part in parts)
    assert (grid[[3, 7], 5:] == 0).all()


class Painter(Line):
    """Copies its input; knows what it should have painted."""

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return batch["x"] * 2 - 1

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {"x": batch["x"] * 2 - 1}

    def target(self, batch: Batch) -> Tensor:
        return batch["y"] * 2 - 1

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        return {"black": torch.full_like(batch["x"], -1.0)}


def images(value: float, target: float, rows: int = 2) -> Batch:
    shape = (rows, 3, 4, 4)
    return Batch({"x": torch.full(shape, value), "y": torch.full(shape, target)})


def test_images_come_on_their_periods_and_at_the_end(tmp_path: Path) -> None:
    sink = Kept()
    tested = Images(tmp_path, [images(0.25, 0.75)], NO_CALIBRATION, [sink], every=[4], display_every=3, seed=0)
    watched = trainer(Painter())
    for step in range(1, 8):
        tested.after_step(watched, progress(step, {}, Outcome.DONE if step == 7 else Outcome.GO_ON))
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == [
        "current.jpg",
        "epoch_00000_iteration_000000004.jpg",
        "epoch_00000_iteration_000000007.jpg",
    ]
    assert [step for _, step in sink.images] == [3, 4, 6, 7]
    grid = read_image(tmp_path / "images" / names[1])
    assert grid.shape == (8, 8, 3)
    assert abs(int(grid.mean()) - 64) <= 1


def test_networks_train_on_after_they_were_looked_at(tmp_path: Path) -> None:
    watched = trainer(Painter())
    watched.recipe.train()
    Images(tmp_path, [images(0, 0)], NO_CALIBRATION, [], every=[1], display_every=9, seed=0).columns(watched)
    assert all(network.training for network in watched.recipe.networks.values())


def test_scores_are_means_over_all_samples_in_the_units_of_images() -> None:
    sink = Kept()
    batches = [images(0.5, 0.75, rows=3), images(0.5, 0.5, rows=1)]
    tested = evaluation.Evaluation(
        lambda: batches,
        lambda: [images(0, 0.25), images(0, 0.75)],
        NO_CALIBRATION,
        sink.scalars,
        scorer=Scorer(METRICS, CPU),
        every=2,
        every_epochs=10**9,
        seed=0,
    )
    watched = trainer(Painter())
    tested.after_step(watched, progress(1, {}))
    tested.after_step(watched, progress(2, {}))
    assert [record.step for record in sink.records] == [2]
    assert sink.records[0].scalars["L1/regular"] == pytest.approx(0.25 * 3 / 4)
    expected = (3 * -10 * math.log10(0.25**2) + 100) / 4
    assert sink.records[0].scalars["PSNR/regular"] == pytest.approx(expected, rel=1e-5)
    tested.after_step(watched, progress(3, {}, Outcome.DONE))
    tested.after_fit(watched, progress(3, {}, Outcome.DONE))
    assert [record.step for record in sink.records] == [2, 3]
    assert tested.last["black"]["L1"] == pytest.approx((0.75 * 3 + 0.5) / 4)
    assert tested.last["mean color"]["L1"] == pytest.approx(0.25 * 3 / 4)


@pytest.mark.parametrize("rows", [[1, 2, 3], [3, 3], [6]])
def test_the_mean_color_is_that_of_the_images_however_they_are_batched(rows: list[int]) -> None:
    colors = torch.tensor([0.0, 0.0, 0.25, 0.25, 0.25, 0.75])
    targets = iter(colors.split(rows))
    training = [
        Batch({"x": torch.zeros(n, 3, 4, 4), "y": next(targets)[:, None, None, None].expand(n, 3, 4, 4)}) for n in rows
    ]
    assert scores_at_the_end(Painter(), lambda: training)["mean color"]["L1"] == pytest.approx(0.25)


def test_a_training_set_without_targets_has_no_mean_color() -> None:
    assert "mean color" not in scores_at_the_end(Painter(), list)


def test_without_a_training_set_there_is_no_mean_color() -> None:
    assert scores_at_the_end(Painter(), None).keys() == {"generator", "black"}


def test_an_evaluation_leaves_the_baselines_of_a_recipe_as_they_are() -> None:
    class Keeping(Painter):
        kept: ClassVar[dict[str, Tensor]] = {"white": torch.ones(2, 3, 4, 4)}

        def baselines(self, batch: Batch) -> dict[str, Tensor]:
            return self.kept

    assert scores_at_the_end(Keeping(), lambda: [images(0, 0.5)]).keys() == {"generator", "white", "mean color"}
    assert list(Keeping.kept) == ["white"]


def test_a_metric_may_have_several_numbers() -> None:
    class Extremes(type(METRICS[0])):
        name = "largest"

        def compute_all(self) -> dict[str, float]:
            return {"largest": 0.75, "smallest": 0.25}

    sink = Kept()
    tested = evaluation.Evaluation(
        lambda: [images(0, 0)],
        None,
        NO_CALIBRATION,
        sink.scalars,
        scorer=Scorer([Extremes()], CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    tested.after_step(trainer(Painter()), progress(1, {}))
    assert {name: sink.records[0].scalars[f"{name}/regular"] for name in ("largest", "smallest")} == {
        "largest": 0.75,
        "smallest": 0.25,
    }


def scores_at_the_end(recipe: Recipe, training: Callable[[], list[Batch]] | None) -> dict[str, Scores]:
    """Of two held-out samples with targets of 0 in [0, 1]."""
    tested = evaluation.Evaluation(
        lambda: [images(0, 0)],
        training,
        NO_CALIBRATION,
        lambda record: None,
        scorer=Scorer(METRICS, CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    trainer(recipe, hooks=[tested]).fit(endless(), until(1))
    return tested.last


def test_nothing_is_scored_where_there_is_no_target() -> None:
    class Unpaired(Painter):
        def target(self, batch: Batch) -> None:
            return None

    sink = Kept()
    tested = evaluation.Evaluation(
        lambda: [images(0, 0)],
        list,
        NO_CALIBRATION,
        sink.scalars,
        scorer=Scorer(METRICS, CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    watched = trainer(Unpaired())
    tested.after_step(watched, progress(1, {}))
    tested.after_step(watched, progress(2, {}, Outcome.DONE))
    tested.after_fit(watched, progress(2, {}, Outcome.DONE))
    assert sink.records == []
    assert tested.last == {}


@pytest.mark.parametrize(("step", "scored"), [(2, [2]), (3, [])])
def test_an_interrupted_run_is_scored_only_where_an_undisturbed_one_is(step: int, scored: list[int]) -> None:
    sink = Kept()
    tested = evaluation.Evaluation(
        lambda: [images(0.5, 0.75)],
        list,
        NO_CALIBRATION,
        sink.scalars,
        scorer=Scorer(METRICS, CPU),
        every=2,
        every_epochs=9,
        seed=0,
    )
    ended = progress(step, {}, Outcome.INTERRUPTED)
    tested.after_step(trainer(Painter()), ended)
    tested.after_fit(trainer(Painter()), ended)
    assert [record.step for record in sink.records] == scored
    assert tested.last == {}


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        ({"every": 2, "every_epochs": 99}, [(1, 2), (2, 4), (2, 5)]),
        ({"every": 99, "every_epochs": 1}, [(1, 2), (2, 4), (2, 5)]),
        ({"every": 2, "start": 3, "every_epochs": 99}, [(2, 4), (2, 5)]),
        ({"every": 99, "every_epochs": 1, "start_epoch": 2}, [(2, 4), (2, 5)]),
        ({"every": 99, "every_epochs": 99}, [(2, 5)]),
    ],
)
def test_checkpoints_come_on_their_periods_once_each_and_at_the_end(
    tmp_path: Path, periods: dict[str, int], expected: list[tuple[int, int]]
) -> None:
    """Epochs have two steps here."""
    saver = Saver(CheckpointFiles(tmp_path), Snapshot(CPU))
    hook = Checkpoints(saver, dict, {}, **{"start": 0, "start_epoch": 0, **periods})
    trainer(Line(), hooks=[hook]).fit(endless(), until(5))
    names = [f"epoch_{epoch:05d}_iteration_{step:09d}_checkpoint.pt" for epoch, step in expected]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == names


@pytest.mark.parametrize(("outcome", "expected"), [(Outcome.DONE, [2, 4, 5]), (Outcome.INTERRUPTED, [2, 4])])
def test_the_held_out_set_is_surveyed_before_each_checkpoint_unless_somebody_waits_for_the_end(
    tmp_path: Path, outcome: Outcome, expected: list[int]
) -> None:
    seen: list[tuple[int, int]] = []

    saver = Saver(CheckpointFiles(tmp_path), Snapshot(CPU))

    def before_checkpoint(watched: Trainer) -> None:
        saver.close()
        seen.append((watched.step, len(list(tmp_path.glob("*.pt")))))

    hook = Checkpoints(
        saver, dict, {}, every=2, start=0, every_epochs=99, start_epoch=0, before_checkpoint=before_checkpoint
    )
    trainer(Line(), hooks=[hook]).fit(endless(), lambda step, epoch: outcome if step == 5 else Outcome.GO_ON)
    assert seen == [(step, index) for index, step in enumerate(expected)]
    assert len(list(tmp_path.glob("*.pt"))) == 3


def test_json_lines_are_json(tmp_path: Path) -> None:
    sink = files.JsonLines(tmp_path, from_step=0)
    sink.scalars(Record(3, 1, {"x": 0.1}))
    sink.close()
    found = json.loads((tmp_path / files.NAME).read_text())
    assert {key: found[key] for key in ("step", "epoch", "x")} == {"step": 3, "epoch": 1, "x": 0.1}


def run_ranks(monkeypatch: pytest.MonkeyPatch, tested: list[Log], steps: Iterator[int], only_first: int) -> list[Log]:
    """Lets the logs of some ranks watch the same iterations. The first rank alone has "r1", in multiples of a step."""
    watched = trainer(Line())
    monkeypatch.setattr(Runtime, "all_gather_objects", lambda runtime, value: [each._read() for each in tested])
    for step in steps:
        for rank, each in enumerate(tested):
            r1 = {"r1": step * 7.0} if rank == 0 and step % only_first == 0 else {}
            each._add(progress(step, {"gen": {"gan": step + 0.1 * rank, **r1}}).phases)
        if step % 6 == 0:
            tested[0]._flush(watched, progress(step, {}))
            for each in tested:
                each._sums, each.steps = {}, 0
    return tested


def test_a_loss_that_only_some_ranks_have_is_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Kept()
    run_ranks(monkeypatch, [log(sink), log(Kept())], iter(range(1, 13)), only_first=5)
    assert [r.scalars["gen_update/r1"] for r in sink.records] == [35.0, 70.0], "steps 5 and 10 on the first rank alone"
    assert [r.scalars["gen_update/GAN"] for r in sink.records] == pytest.approx([3.55, 9.55])
    assert not any("nonfinite" in record.scalars for record in sink.records)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_sums_of_all_ranks_go_on_with_any_number_of_them(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    """Saved by two ranks; the first period ends with the losses of both, and of those that go on."""
    whole, parts = Kept(), Kept()
    run_ranks(monkeypatch, [log(whole), log(Kept())], iter(range(1, 7)), only_first=2)
    first = run_ranks(monkeypatch, [log(Kept()), log(Kept())], iter(range(1, 4)), only_first=2)
    state = first[0].state_dict(CPU)
    second = [log(parts if rank == 0 else Kept()) for rank in range(world)]
    for rank, each in enumerate(second):
        each.load_state_dict(state, Runtime(torch.device("cpu"), rank=rank, world=world))
    run_ranks(monkeypatch, second, iter(range(4, 7)), only_first=2)
    losses = [{k: v for k, v in sink.records[0].scalars.items() if "update" in k} for sink in (whole, parts)]
    assert losses[1]["gen_update/r1"] == 28.0
    if world == 2:
        assert losses[0] == losses[1], "bit for bit"
    gan = [step + 0.1 * rank for step in (1, 2, 3) for rank in (0, 1)]
    gan += [step + 0.1 * rank for step in (4, 5, 6) for rank in range(world)]
    assert losses[1]["gen_update/GAN"] == pytest.approx(sum(gan) / len(gan))


def test_a_run_continued_with_other_losses_ends_the_period_with_both() -> None:
    sink, watched = Kept(), trainer(Line())
    first, second = log(sink, every=4), log(sink, every=4)
    first.after_step(watched, progress(1, {"gen": {"gan": 1.0}}))
    second.load_state_dict(first.state_dict(watched.runtime), CPU)
    for step in (2, 3, 4):
        second.after_step(watched, progress(step, {"gen": {"gan": 3.0, "l1": 5.0}}))
    (record,) = sink.records
    assert (record.scalars["gen_update/GAN"], record.scalars["gen_update/l1"]) == (2.5, 5.0)
    assert "nonfinite" not in record.scalars


def test_a_generator_that_paints_nan_is_told_as_not_finite() -> None:
    class Diverged(Painter):
        def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
            return batch["x"] * math.nan

    tested = evaluation.Evaluation(
        lambda: [images(0, 1)],
        list,
        NO_CALIBRATION,
        Kept().scalars,
        scorer=Scorer(METRICS, CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    trainer(Diverged(), hooks=[tested]).fit(endless(), until(2))
    headings, generator, black = evaluation.format_table(tested.last)
    assert headings[1] == "L1"
    assert (generator[1], black[1]) == ("not finite", "1")


def test_a_run_interrupted_before_its_first_step_is_not_scored() -> None:
    def no_batches() -> Iterator[Batch]:
        raise AssertionError("evaluated")

    tested = evaluation.Evaluation(
        no_batches,
        no_batches,
        NO_CALIBRATION,
        Kept().scalars,
        scorer=Scorer(METRICS, CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    trainer(Painter(), hooks=[tested]).fit(endless(), lambda step, epoch: Outcome.INTERRUPTED)


@pytest.mark.parametrize(("steps", "measured"), [(3, 0), (7, 0), (8, 1)])
def test_a_run_that_ends_before_the_profile_does_says_what_was_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: int, measured: int
) -> None:
    caplog.set_level(logging.INFO)
    trainer(Line(), hooks=[Profile(tmp_path, torch.device("cpu"))]).fit(endless(), until(steps))
    assert caplog.messages == [f"profile: the run ended within 10 iterations; {measured} were measured"]
    table = tmp_path / "profile" / "table.txt"
    assert table.exists() == (measured > 0)
    assert not measured or f"Time of {measured} iterations, by operation" in table.read_text()


def test_a_profile_tells_the_time_of_each_phase(tmp_path: Path) -> None:
    trainer(Line(), hooks=[Profile(tmp_path, torch.device("cpu"))]).fit(endless(), until(12))
    first = (tmp_path / "profile" / "table.txt").read_text().partition("Time of")[0]
    rows = re.findall(r"^(phase .*?) +(\d+\.\d\d) +\d+\.\d\d$", first, re.MULTILINE)
    parts = ["forward", "backward dis", "update dis", "forward", "backward gen", "update gen", "forward"]
    assert [name for name, _ in rows] == [f"phase {1 + i // 3}: {part}" for i, part in enumerate(parts)]
    assert (tmp_path / "profile" / "trace.json").read_text().count('"phase 1: backward dis"') == 3
