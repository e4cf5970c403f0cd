"""report.html: what it says of a run that continues, ends, or is killed, and what its charts and tables show."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml
from logs import logged
from test_hooks import METRICS, NO_CALIBRATION, Kept, Painter, images, progress
from test_trainer import CPU, Line, trainer

from imagier.errors import RunError
from imagier.metrics import l1
from imagier.nn.average import ModelAverage
from imagier.recipe import Batch
from imagier.run import RunOptions, train
from imagier.run.about import format_launch
from imagier.train.hooks import charts, evaluation, files, log_summary, report, report_file
from imagier.train.hooks import page as pages
from imagier.train.hooks.baselines import CLASS_COLORS, ClassErrors
from imagier.train.hooks.console import Console
from imagier.train.hooks.images import Images, read_grid, write_image
from imagier.train.hooks.log import Record
from imagier.train.hooks.report import Report
from imagier.train.hooks.report_file import About
from imagier.train.scoring import GENERATOR, Scorer
from imagier.train.trainer import Outcome, Progress

SCORES = [score for metric in METRICS for score in metric.list_scores()]
ABOUT = About("imagier train --config <x>", total_steps=10, scores=SCORES)


def page(folder: Path) -> str:
    return (folder / pages.NAME).read_text(encoding="utf-8")


def ended(folder: Path, step: int, about: About = ABOUT, outcome: Outcome = Outcome.DONE) -> str:
    """The page of a run that ended after so many iterations."""
    watched = trainer(Line())
    watched.step, watched.outcome = step, outcome
    Report(folder, about).after_fit(watched, None)
    return page(folder)


def write_log(folder: Path, *records: dict[str, float]) -> None:
    lines = files.JsonLines(folder, from_step=0)
    for step, record in enumerate(records, start=1):
        lines.scalars(Record(step, 0, record))
    lines.close()


def test_a_page_holds_everything_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for step in range(1, 12):
        noise = np.random.default_rng(step).integers(0, 255, (16, 32, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"epoch_00000_iteration_{step:09d}.jpg"), noise)
    write_log(tmp_path, {"gen_update/GAN": 1.0, "L1/average": 0.1}, {"gen_update/GAN": 0.5, "L1/average": 0.1})
    text = ended(tmp_path, 10)
    assert text.count("data:image/jpeg;base64,") == pages.IMAGES
    assert re.findall(r"<figcaption>Iteration (\d+)<", text) == ["11", "9", "7", "5", "3", "1"]
    assert text.count("<svg viewBox") == 2
    assert SCORES[0].meaning in text and SCORES[1].meaning not in text, "it was not measured"
    assert "imagier train --config &lt;x&gt;" in text
    assert 'src="http' not in text and 'href="http' not in text and "<script" not in text


def test_a_page_is_written_at_the_first_step_then_on_its_period_and_costs_a_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, costs = [100.0], iter([0.0, 0.0, 0.0, 0.5, 0.0])
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    tested, watched, seen = Report(tmp_path, ABOUT), trainer(Line()), []
    render = tested._page.render

    def slow() -> str:
        seen.append(clock[0])
        clock[0] += next(costs)
        return render()

    monkeypatch.setattr(tested._page, "render", slow)
    for step in range(1, 101):
        clock[0] += 1
        tested.after_step(watched, progress(step, {}))
    assert seen == [101.0, 116.0, 131.0, 146.0, 196.5]


@pytest.mark.parametrize(
    ("state", "said", "not_said"),
    [("running", "Running: iteration 3 of 10", "Finished"), ("failed", "Ended by an error", "Running")],
)
def test_a_page_says_in_which_state_the_run_is(tmp_path: Path, state: str, said: str, not_said: str) -> None:
    watched = trainer(Line())
    watched.step = 3
    Report(tmp_path, ABOUT).write(watched, state, "loss is <NaN>")
    assert said in page(tmp_path) and not_said not in page(tmp_path) and "loss is &lt;NaN&gt;" in page(tmp_path)
    assert "Stopped: iteration 7 of 10" in ended(tmp_path, 7, outcome=Outcome.INTERRUPTED)
    assert "Finished: iteration 10 of 10" in ended(tmp_path, 10)
    assert "Finished: iteration 7 of 10" in ended(tmp_path, 7), "its last epoch ended early, after a rollback"


def test_every_start_of_a_run_is_listed_and_those_of_an_older_run_are_not(tmp_path: Path) -> None:
    for command, from_step in (("old", 0), ("first", 0), ("second\nline", 5)):
        text = ended(tmp_path, 6, About(command, total_steps=10, from_step=from_step))
    assert re.findall(r"<dt>started [-: \d]+</dt><dd><code>(.*)</code>", text) == ["first", "second line"]


def test_an_image_names_its_columns_and_the_page_shows_them_above_it(tmp_path: Path) -> None:
    class Named(Painter):
        def visualize_inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"sketch": batch["x"] * 2 - 1, "photo": self.target(batch)}

    watched = trainer(Named())
    watched.players["gen"].average = ModelAverage(watched.recipe.gen)
    hook = Images(tmp_path, [images(0.25, 0.75)], NO_CALIBRATION, [], every=[9], display_every=1, seed=0)
    hook.after_step(watched, progress(4, {}))
    (path,) = (tmp_path / "images").iterdir()
    names = ["sketch", "photo (real)", "generated (live)", "generated (average)"]
    assert read_grid(path).columns == [(name, 4) for name in names] and read_grid(path).step == 4
    assert cv2.imread(str(path)).shape == (8, 16, 3)
    text = ended(tmp_path, 5)
    assert re.findall(r'<span style="width: 25.000%">(.*?)</span>', text) == names


def test_a_comment_does_not_change_the_pixels_and_a_damaged_image_is_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 32, 3), np.uint8)
    for name, comment in (("a", ""), ("b", json.dumps({"step": 3, "columns": [["ä", 32]]}))):
        write_image(tmp_path / f"{name}.jpg", noise, comment=comment)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.jpg")), cv2.imread(str(tmp_path / "b.jpg")))
    assert read_grid(tmp_path / "b.jpg").columns == [("ä", 32)]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "epoch_00000_iteration_000000001.jpg").write_bytes(b"")
    assert "<img" not in ended(tmp_path, 5)


# Charts --------------------------------------------------------------------------------------------------------------


def test_curves_of_one_scale_share_a_chart() -> None:
    lines = {"small": [(1, 0.01)], "large": [(1, -50.0)], "total": [(1, 90.0)], "none": [(1, math.nan)]}
    assert [list(group) for group in charts.group_by_scale(lines)] == [["total", "large"], ["small", "none"]]


@pytest.mark.parametrize(
    "points",
    [
        [(1, 2.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, math.nan), (2, math.inf), (3, -math.inf)],
        [(1, 1.0), (2, math.nan), (3, 1e30), (4, -3.0)],
        [(step, 1.0 if step != 500 else 1e6) for step in range(1000)],
        [(10**9, 1e-12), (10**9 + 1, 2e-12)],
        [],
    ],
)
def test_a_chart_of_anything_is_sound_and_names_all_its_curves(points: charts.Points) -> None:
    chart = charts.draw_chart({"<a>": points, "b": [(5, 1.0)]}, {"flat": 0.5, "undefined": math.nan})
    ElementTree.fromstring(chart.svg)
    assert "nan" not in chart.svg and "inf" not in chart.svg
    assert [entry.name for entry in chart.legend] == ["<a>", "b", "flat"]


def test_a_curve_goes_where_its_values_are_and_breaks_at_gaps() -> None:
    svg = charts.draw_chart({"a": [(0, 0.0), (1, 1.0), (2, math.nan), (3, 1.0), (4, 0.0)]}).svg
    curves = re.findall(r'<path d="M([^"]+)" fill="none" stroke="#', svg)
    ends = [[tuple(map(float, place.split())) for place in curve.split("L")] for curve in curves]
    assert [len(curve) for curve in ends] == [2, 2]
    (low, high), (again, end) = ends
    assert low[0] == charts.LEFT and end[0] == charts.WIDTH - charts.RIGHT
    assert low[1] == end[1] > high[1] == again[1]


def test_a_spike_does_not_hide_the_rest_of_a_curve() -> None:
    values = [math.sin(step) for step in range(200)]
    values[100] = 1e6
    svg = charts.draw_chart({"a": list(enumerate(values))}).svg
    assert {"-1", "0", "1"} <= set(re.findall(r'text-anchor="end">([^<]*)<', svg))


def test_a_long_curve_is_thinned_to_the_means_of_its_parts() -> None:
    points = [(step, float(step % 2)) for step in range(60_000)]
    thinned = charts.thin(points)
    assert len(thinned) == charts.MOST_POINTS and {value for _, value in thinned} == {0.5}
    assert thinned[-1][0] == 59_999


def test_ticks_are_round_numbers_within_the_axis() -> None:
    assert charts.list_ticks(0.13, 0.42, most=6) == pytest.approx([0.2, 0.3, 0.4])
    assert charts.list_ticks(0, 1150, most=6) == [0, 500, 1000]
    assert [charts.format_number(x) for x in (0, 0.05, 1500, 20_000, 3e6)] == ["0", "0.05", "1,500", "20k", "3M"]


# Scores --------------------------------------------------------------------------------------------------------------


def test_verdicts_compare_the_generator_with_every_baseline() -> None:
    scores = {
        "generator": {"L1": 0.2, "PSNR": 20.0},
        "live weights": {"L1": 0.0, "PSNR": 99.0},
        "line art": {"L1": 0.2, "PSNR": 10.0},
        "mean color": {"L1": 0.1, "PSNR": math.nan},
    }
    assert evaluation.judge(scores, SCORES[:2]) == [
        (False, "L1: no better than the line art and the mean color"),
        (True, "PSNR: better than every baseline"),
    ]
    scores["generator"] = {"L1": math.nan, "PSNR": math.nan}
    assert [is_better for is_better, _ in evaluation.judge(scores, SCORES[:2])] == [False, False]
    assert evaluation.judge({"generator": {"L1": 0.1}}, SCORES[:1]) == []


def test_live_and_average_weights_are_scored_alike_and_logged_with_the_baselines() -> None:
    class Scaled(Painter):
        def sample(self, batch: Batch, rng: torch.Generator) -> torch.Tensor:
            return self.gen.weight.sum().expand_as(batch["x"]) + 0 * torch.rand(1, generator=rng)

    watched, sink = trainer(Scaled()), Kept()
    watched.players["gen"].average = ModelAverage(watched.recipe.gen)
    with torch.no_grad():
        watched.recipe.gen.weight.fill_(1.0)
        watched.players["gen"].average.network.weight.fill_(0.0)
    tested = evaluation.Evaluation(
        lambda: [images(0, 0.75)],
        lambda: [images(0, 0.25)],
        NO_CALIBRATION,
        sink.scalars,
        scorer=Scorer([l1.Metric()], CPU),
        every=1,
        every_epochs=1,
        seed=0,
    )
    tested.after_step(watched, progress(1, {}))
    expected = {"L1/average": 0.25, "L1/regular": 0.25, "L1/baseline/black": 0.75, "L1/baseline/mean color": 0.5}
    expected["best_L1"] = 0.25
    assert sink.records[0].scalars == pytest.approx(expected)
    with torch.no_grad():
        watched.recipe.gen.weight.fill_(0.9)
    tested.after_step(watched, progress(2, {}, Outcome.DONE))
    tested.after_fit(watched, progress(2, {}, Outcome.DONE))
    assert tested.last["live weights"]["L1"] == pytest.approx(0.2)
    assert tested.best["L1"].value == pytest.approx(0.25), "the best is that of the average"
    records = [{"step": 2, **sink.records[1].scalars}]
    found, step = log_summary.find_scores(records, ["L1"])
    assert (found, step) == (tested.last, 2)


def test_scores_by_class_are_over_the_pixels_of_the_class() -> None:
    errors = ClassErrors()
    class_map = torch.zeros(1, 3, 2, 2)
    class_map[0, 0, 0], class_map[0, 2, 1, 0] = 1, 1  # the last pixel has no class
    made = torch.tensor([[0.1, 0.3], [0.5, 0.9]]).expand(1, 3, 2, 2)
    errors.update(made, torch.zeros(1, 3, 2, 2), class_map)
    errors.merge(CPU)
    assert errors.values == pytest.approx([0.2, math.nan, 0.5], nan_ok=True)
    assert errors.shares == pytest.approx([2 / 3, 0, 1 / 3])
    worse = ClassErrors()
    worse.update(torch.full_like(made, 0.3), torch.zeros(1, 3, 2, 2), class_map)
    rows = log_summary.tabulate_classes({GENERATOR: errors, CLASS_COLORS: worse})
    assert [(row.number, row.is_better) for row in rows] == [(0, True), (2, False)]


# Whole runs ----------------------------------------------------------------------------------------------------------


def test_a_run_with_class_maps_is_compared_with_the_mean_color_of_each_class(tmp_path: Path) -> None:
    """In these data the class is the color, so that this baseline is next to perfect."""
    data = tiny.write_data(tmp_path / "data", train=4, val=3)
    result = train(tiny.config(data, max_iter=1), RunOptions(logdir=tmp_path / "log", device="cpu"))
    assert result.scores[CLASS_COLORS]["L1"] < 0.01 < 0.05 < result.scores["mean color"]["L1"]
    text = page(tmp_path / "log")
    assert text.count('<td class="bad">no better</td>') == 4
    assert "L1: no better than the mean color" in text and "generator, live weights" in text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RunError("a worker died"), "a worker died"),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_a_run_that_is_ended_by_an_error_says_so_on_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    config = tiny.config(tiny.write_data(tmp_path / "data", train=4, val=3), max_iter=4)

    def fail(self: Console, trainer: object, progress: Progress) -> None:
        if progress.step == 2:
            raise error

    monkeypatch.setattr(Console, "after_step", fail)
    with pytest.raises((RunError, KeyboardInterrupt)):
        train(config, RunOptions(logdir=tmp_path / "log", device="cpu"))
    text = page(tmp_path / "log")
    assert "Ended by an error: iteration 2 of 4" in text and said in text


@pytest.mark.parametrize("module", [pages, report_file])
def test_a_run_whose_report_cannot_be_written_does_not_send_anybody_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    def write_to_full_disk(path: Path) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomic", write_to_full_disk)
    config = tiny.config(tiny.write_data(tmp_path / "data", train=4, val=3), max_iter=1)
    with logged() as lines:
        train(config, RunOptions(logdir=tmp_path / "log", device="cpu"))
    assert [line for line in lines if pages.NAME in line] == [
        "report.html could not be written: No space left on device"
    ]
    assert lines[-1] == "finished at iteration 1"


@pytest.mark.slow
def test_after_a_kill_the_page_is_there_and_the_next_run_continues_it(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", train=4, val=3)
    config = tiny.config(data, max_iter=6, logging_iter=1, snapshot_save_iter=2, metrics_iter=2)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    code = """
import os, signal, sys
from imagier.cli import main
from imagier.train.hooks import report
from imagier.train.hooks.console import Console
report.PERIOD_S, report.MOST_OF_TIME = 0, 1e9
def kill(self, trainer, progress):
    if progress.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Console.after_step = kill
main(sys.argv[1:])
"""
    words = ["train", "--config", tmp_path / "c.yaml", "--logdir", tmp_path / "log", "--device", "cpu"]
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -signal.SIGKILL
    text = page(tmp_path / "log")
    assert "Running: iteration 4 of 6" in text and "Finished" not in text and "held-out samples, iteration 4" in text
    train(config, RunOptions(logdir=tmp_path / "log", device="cpu", command="again"))
    text = page(tmp_path / "log")
    assert "Finished: iteration 6 of 6" in text and len(re.findall("<dt>started", text)) == 2
    assert {line["step"] for line in files.read(tmp_path / "log")} == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("world", "local", "start"),
    [
        (1, "1", "imagier"),
        (8, "8", "torchrun --nproc_per_node 8 -m imagier"),
        (16, "8", "torchrun --nnodes 2 --rdzv_backend c10d --rdzv_endpoint HOST:29500 --nproc_per_node 8 -m imagier"),
    ],
)
def test_the_command_to_continue_starts_as_many_ranks_on_each_machine(
    monkeypatch: pytest.MonkeyPatch, world: int, local: str, start: str
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert format_launch(world) == start
