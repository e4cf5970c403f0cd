"""A sweep finds the best trial, whatever interrupts it; its trainings are stood for by fake_training.py."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import tiny
import yaml

from imagier.cli import main
from imagier.config.read import read
from imagier.errors import RunError, UserError
from imagier.run import status, sweep_plot, sweep_trial
from imagier.run import sweep as sweeps
from imagier.run.sweep import SweepOptions, sweep
from imagier.run.sweep_result import SweepResult
from imagier.run.sweep_space import Float
from imagier.run.sweep_study import STARTUP_TRIALS, Claim, Trials, open_study
from imagier.run.sweep_trial import choose_objective

FAKE = Path(__file__).with_name("fake_training.py")
SPACE = """\
gen_opt.lr: {type: float, low: 1.0e-6, high: 1.0e-1, log: true}
gen.num_filters: {type: int, low: 1, high: 4}
trainer.gan_mode: {type: categorical, choices: [hinge, least_square]}
"""

DRAW = sweep_plot.draw_sweep


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sweep_trial, "COMMAND", [sys.executable, "-S", str(FAKE)])
    monkeypatch.setattr(sweeps, "POLL_S", 0.01)
    monkeypatch.setattr(sweep_plot, "draw_sweep", lambda *arguments: None)  # half a second
    (tmp_path / "space.yaml").write_text(SPACE)
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data", train=2, val=2), max_iter=8)


def run(config: Path, folder: str = "sweep", **options: object) -> SweepResult:
    given = {"space": config.with_name("space.yaml"), "logdir": config.with_name(folder), "trials": 6, **options}
    return sweep(config, SweepOptions(**given))


def outcome(result: SweepResult) -> list:
    """All that two sweeps must have in common."""
    return [(row.state, row.value, row.step, dict(row.values), dict(row.curve)) for row in result.rows]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.002)


def start(config: Path, *arguments: object, **options: object) -> multiprocessing.process.BaseProcess:
    """A sweep in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(config, *arguments), kwargs=options)
    process.start()
    return process


def count_starts(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("trial_*/starts.txt"))


def test_the_best_trial_is_that_with_the_best_value_at_its_end(config: Path) -> None:
    result = run(config, pruner="none")
    assert [row.state for row in result.rows] == ["complete"] * 6 and not result.is_interrupted
    lowest = min(result.rows, key=lambda row: row.curve[8])
    assert result.best is lowest and lowest.value == lowest.curve[8]
    best = yaml.safe_load(config.with_name("sweep").joinpath("best.yaml").read_text())
    assert float(best["gen_opt.lr"]) == lowest.values["gen_opt.lr"]
    other = run(config, "other", metric="PSNR", pruner="none")
    assert other.best is max(other.rows, key=lambda row: row.value or 0.0)
    assert [row.values for row in other.rows[:5]] == [row.values for row in result.rows[:5]], "the same random values"


def test_later_trials_are_drawn_where_earlier_ones_were_good(tmp_path: Path) -> None:
    """The best learning rate is 1e-3, in a range of five decades."""
    study = open_study(tmp_path, name="s", database=None, is_maximized=False, pruner="none", seed=0)
    trials = Trials(tmp_path, study, {"lr": Float(low=1e-6, high=1e-1, log=True)})
    distances = []
    while (claim := trials.claim(40)) is not None:
        distances.append(abs(math.log10(float(str(claim.values["lr"]))) + 3))
        claim.finish(distances[-1] ** 2)
    uniform = (3**2 + 2**2) / 2 / 5  # decades from the best one, on average, if nothing guided them
    assert abs(sum(distances[:STARTUP_TRIALS]) / STARTUP_TRIALS - uniform) < 0.7
    assert sum(distances[20:]) / 20 < uniform / 1.7


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_is_the_one_that_was_never_stopped(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config, "whole", trials=4)
    monkeypatch.setenv("FAKE_STEP_S", "0.02")
    folder = config.with_name("killed")
    for starts in (2, 4):
        process = start(config, "killed", trials=4)
        wait_for(lambda starts=starts: count_starts(folder) >= starts)
        time.sleep(0.05)  # somewhere in a training
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    killed = run(config, "killed", trials=4)
    assert outcome(killed) == outcome(whole)
    assert count_starts(folder) > 4, "some trial was started twice"


def test_a_trial_that_is_worse_than_others_were_is_stopped_by_a_signal_that_lets_it_save(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.03")
    result = run(config, trials=14)
    pruned = [row for row in result.rows if row.state == "pruned"]
    assert pruned and all(row.step < 8 for row in pruned)
    for row in pruned:
        earlier = sorted(
            other.curve[row.step] for other in result.rows[: result.rows.index(row)] if row.step in other.curve
        )
        assert row.value is not None and row.value > earlier[len(earlier) // 2 - 1]
        assert config.with_name("sweep").joinpath(row.name, "stopped.txt").exists()


def test_several_processes_and_workers_share_the_trials(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.01")
    others = [start(config, trials=9, workers=2, pruner="none") for _ in range(2)]
    run(config, trials=9, workers=2, pruner="none")
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    result = run(config, trials=9, pruner="none")
    assert [row.state for row in result.rows] == ["complete"] * 9
    assert count_starts(config.with_name("sweep")) == 9, "each was trained once"


def test_ctrl_c_leaves_a_trial_that_the_same_command_continues(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.02")
    folder = config.with_name("sweep")
    before = sweeps._Worker.poll

    def press(self: sweeps._Worker) -> str | None:
        if self.claim.number == 1 and self.claim.last is not None and not (folder / "pressed").exists():
            (folder / "pressed").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return before(self)

    monkeypatch.setattr(sweeps._Worker, "poll", press)
    words = ["sweep", str(config), "--space", str(config.with_name("space.yaml")), "--logdir", str(folder)]
    assert main([*words, "--trials", "3"]) == status.INTERRUPTED
    assert "trial_0001 is interrupted" in (out := capsys.readouterr().out)
    assert out.splitlines()[-1] == "interrupted; continue with the same command"
    assert (folder / "trial_0001" / "stopped.txt").exists()
    assert main([*words, "--trials", "3"]) == status.DONE
    assert "trial_0001 continues" in capsys.readouterr().out
    assert outcome(run(config, trials=3)) == outcome(run(config, "whole", trials=3))


def test_a_training_that_is_killed_is_started_again(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "dies")
    result = run(config, trials=2)
    assert [row.state for row in result.rows] == ["complete"] * 2
    assert count_starts(config.with_name("sweep")) == 4


@pytest.mark.slow
def test_trials_may_fail_but_not_the_first_ones_all(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "diverges")
    result = run(config, "some", trials=8, pruner="none")
    failed = {row.name for row in result.rows if row.state == "failed"}
    assert failed == {row.name for row in result.rows if row.values["gen_opt.lr"] > 1e-2} != set()
    assert {row.why for row in result.rows if row.state == "failed"} == {"the loss is not finite"}
    monkeypatch.setenv("FAKE", "fails")
    with pytest.raises(RunError, match="the last one, trial_0002, failed: the loss is not finite"):
        run(config, "all")
    assert run(config, "some", trials=11, pruner="none").rows[-1].state == "failed", "others succeeded before"


def test_a_log_without_the_objective_ends_the_sweep_at_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "silent")
    with pytest.raises(RunError, match="its log has no L1 at the end; it has PSNR/average, dis_update/gan, other/tag"):
        run(config)
    assert count_starts(config.with_name("sweep")) == 1


def test_a_trial_that_is_done_before_max_iter_is_complete(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may end by max_epoch: then it is too late to prune it at its last value."""
    config.write_text(config.read_text().replace("max_iter: 8", "max_iter: 100"))
    monkeypatch.setattr(Claim, "should_prune", lambda claim: claim.last is not None and claim.last[0] == 8)
    assert [row.state for row in run(config, trials=2).rows] == ["complete"] * 2


@pytest.mark.slow
def test_a_database_holds_the_same_trials_as_a_journal(config: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/trials.db"
    assert outcome(run(config, "database", storage=address, trials=3)) == outcome(run(config, "journal", trials=3))
    assert not config.with_name("database").joinpath("journal.log").exists()
    with pytest.raises(UserError) as caught:
        run(config, "none", storage="nosuch://me:secret@host/db")
    assert caught.value.code == "no-storage" and "secret" not in str(caught.value)
    assert not config.with_name("none").exists()


def test_a_database_that_is_lost_is_one_line(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sweeps._Worker.poll

    def lose(self: sweeps._Worker) -> str | None:
        with sqlite3.connect(tmp_path / "trials.db") as database:
            database.execute("DROP TABLE IF EXISTS trials")
        return before(self)

    monkeypatch.setattr(sweeps._Worker, "poll", lose)
    with pytest.raises(RunError, match="no such table: trials"):
        run(config, storage=f"sqlite:///{tmp_path}/trials.db")
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to be read as one\n" * 99)
    with pytest.raises(UserError) as caught:
        run(config, "none", storage=f"sqlite:///{tmp_path}/text.db")
    assert caught.value.code == "no-storage" and not config.with_name("none").exists()


def test_a_journal_whose_last_line_is_torn_is_continued(config: Path) -> None:
    few = run(config, trials=2)
    journal = config.with_name("sweep") / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"work')
    assert outcome(run(config, trials=4)) == outcome(run(config, "whole", trials=4)) and few.rows


def test_a_folder_holds_one_sweep(config: Path) -> None:
    run(config, trials=1)
    for options in ({"metric": "PSNR"}, {"seed": 1}, {"pruner": "asha"}):
        with pytest.raises(UserError) as caught:
            run(config, trials=1, **options)
        assert caught.value.code == "other-sweep" and next(iter(options)) in caught.value.what
    config.write_text(config.read_text() + "\nmax_epoch: 9\n")
    with pytest.raises(UserError, match="another config"):
        run(config, trials=1)
    config.with_name("run").mkdir()
    config.with_name("run").joinpath("config.yaml").touch()
    with pytest.raises(UserError) as caught:
        run(config, "run")
    assert caught.value.code == "logdir-in-use"


@pytest.mark.slow
def test_more_trials_continue_a_sweep(config: Path) -> None:
    few = run(config, trials=3)
    assert outcome(run(config, trials=5))[:3] == outcome(few)
    assert outcome(run(config, trials=5)) == outcome(run(config, "whole", trials=5))


@pytest.mark.parametrize(
    ("name", "has_val", "expected"),
    [
        (None, True, ("L1", False)),
        ("PSNR", True, ("PSNR", True)),
        ("gen_update/gan", False, ("gen_update/gan", False)),
        (None, False, "no-metric"),
        ("PSMR", True, "unknown-metric"),
        ("PSNR", False, "unknown-metric"),
        ("gan", True, "unknown-metric"),
    ],
)
def test_the_objective_is_a_metric_or_a_loss(
    config: Path, name: str | None, has_val: bool, expected: tuple[str, bool] | str
) -> None:
    checked, _ = read(config, [] if has_val else ["data.val=null"])
    if isinstance(expected, str):
        with pytest.raises(UserError) as caught:
            choose_objective(checked, name)
        assert caught.value.code == expected
    else:
        objective = choose_objective(checked, name)
        assert (objective.name, objective.higher_is_better) == expected


def test_the_command_prints_a_table_and_writes_a_plot(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_plot, "draw_sweep", DRAW)
    folder = config.with_name("sweep")
    words = ["sweep", str(config), "--space", str(config.with_name("space.yaml")), "--logdir", str(folder)]
    assert main([*words, "--trials", "3", "--metric", "dis_update/gan"]) == status.DONE
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("│")[1:-1] for line in lines if line.startswith("│ trial_")]
    shown = [float(row[1]) for row in rows]
    assert len(rows) == 3 and shown == sorted(shown) == [float(row[3]) for row in rows], "the loss is the learning rate"
    assert lines[-1].startswith(f"best: {rows[0][0].strip()};")
    image = cv2.imread(str(folder / "sweep.png"))
    assert image is not None and image.std() > 10


def test_mistakes_end_it_before_anything_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.with_name("space.yaml").write_text("gen_opt.lrr: {type: float, low: 1.0e-5, high: 1.0e-3}\n")
    words = ["sweep", str(config), "--space", str(config.with_name("space.yaml"))]
    assert main([*words, "--logdir", str(config.with_name("sweep"))]) == status.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "space.yaml:1: gen_opt.lrr: unknown key; did you mean 'lr'?" in line
    assert not config.with_name("sweep").exists()


@pytest.mark.slow
def test_real_trainings_are_killed_and_their_best_config_trains_to_the_same_score(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    config = tiny.write_config(tmp_path / "tiny.yaml", data, metrics_iter=2, snapshot_save_iter=2)
    (tmp_path / "space.yaml").write_text(SPACE)
    words = [sys.executable, "-m", "imagier", "sweep", str(config), "--space", str(tmp_path / "space.yaml")]
    command = [*words, "--logdir", str(tmp_path / "sweep"), "--trials", "3", "--device", "cpu"]
    process = subprocess.Popen(command)
    wait_for(lambda: any((tmp_path / "sweep").glob("trial_0001/*_checkpoint.pt")), 600)
    process.kill()
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == status.DONE and "trial_0001 continues" in done.stdout
    best = str(tmp_path / "sweep" / "best.yaml")
    assert main(["train", best, "--logdir", str(tmp_path / "again"), "--device", "cpu"]) == status.DONE
    name = done.stdout.splitlines()[-1].split()[1].rstrip(";")
    objective = choose_objective(read(config)[0], None)
    scores = [list(objective.read(folder)) for folder in (tmp_path / "again", tmp_path / "sweep" / name)]
    assert scores[0] == scores[1] and len(scores[0]) == 3
