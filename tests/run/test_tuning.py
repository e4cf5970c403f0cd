"""`tune` keeps what is faster by more than the noise, in whatever order the machine slows down; and cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from contract import experiment

from imagier.cli import main
from imagier.config.read import read
from imagier.errors import RunError, UserError
from imagier.run import RunOptions, status, tune, tuning
from imagier.run.process import open_runtime
from imagier.run.tuning import write_tuned
from imagier.run.tuning_attempt import Failed, FirstStep, Setup, Turn, _Training
from imagier.run.tuning_stages import STAGES, Best, Change, Skipped, _flip, _try_compiling, _try_workers
from imagier.train import runtime as runtimes

IMAGES = 2
GIB = 2**30

Speed = Callable[[Setup], float]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data", train=4))


class Machine:
    """Stands for the processes: an iteration takes what `speed` says, times what happens to the machine meanwhile."""

    def __init__(self, speed: Speed, *, drift: float = 1.0, noise: float = 0.0) -> None:
        self.speed, self.drift, self.noise = speed, drift, noise
        self.slowness = 1.0
        self.rng = np.random.default_rng(0)
        self.started: list[Setup] = []
        self.open = 0
        self.most_open = 0

    def start(self, setup: Setup, *, reserve_bytes: int, deadline: float | None = None) -> _Attempt:
        self.started.append(setup)
        return _Attempt(self, setup)


class _Attempt:
    def __init__(self, machine: Machine, setup: Setup) -> None:
        self.machine, self.setup = machine, setup
        seconds = machine.speed(setup)  # may be Failed
        words = dict(word.split("=", 1) for word in setup.overrides)
        images = int(words.get("data.train.batch_size", IMAGES)) * int(words.get("trainer.accumulate", 1))
        self.seconds = seconds * images / IMAGES
        precision = words.get("trainer.precision", "fp32")
        numbers = np.array([1.0, 2.0]) * (1.01 if precision == "bf16" else 1)
        self.first_step = FirstStep("cpu", precision, ("fp32", "bf16"), images, 4, 0, 0.1, numbers, numbers, GIB)
        machine.open += 1
        machine.most_open = max(machine.open, machine.most_open)

    def take_turn(self, steps: int) -> Turn:
        machine = self.machine
        machine.slowness *= machine.drift
        noise = 1 + machine.noise * machine.rng.uniform(-1, 1)
        return Turn(self.seconds * machine.slowness * noise, GIB, True)

    def close(self) -> None:
        self.machine.open -= 1


@pytest.fixture
def run_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuning.TuneResult]:
    def run(machine: Machine, *overrides: str) -> tuning.TuneResult:
        monkeypatch.setattr(tuning, "Attempt", machine.start)
        result = tune(config, RunOptions(), overrides=overrides)
        assert machine.open == 0, "a process was left"
        return result

    return run


def by(**factors: float) -> Speed:
    """Seconds of an iteration: each word that is there multiplies them. bf16=0.5 is twice as fast in bf16."""

    def speed(setup: Setup) -> float:
        said = " ".join([*setup.overrides, "compile" * setup.compile, "loading" * setup.has_loader])
        return 0.1 * float(np.prod([factor for word, factor in factors.items() if word in said]))

    return speed


def test_what_is_faster_is_kept_and_the_next_changes_stand_on_it(run_on: Callable) -> None:
    machine = Machine(by(bf16=0.5, channels_last=0.8, compile=1.3))
    result = run_on(machine)
    assert result.overrides == ["trainer.precision=bf16", "trainer.channels_last=true"] and not result.compile
    found = {row.name: row for row in result.rows}
    assert found["bf16"].ratio == pytest.approx((2, 2, 2)) and found["bf16"].verdict == "kept"
    assert found["channels_last=true"].ratio == pytest.approx((1.25,) * 3)
    assert found["--compile"].ratio == pytest.approx((1 / 1.3,) * 3) and found["--compile"].verdict == ""
    assert found["bf16"].losses == pytest.approx(0.01) and found["as it is"].losses == 0
    last = machine.started[-1]
    assert {"trainer.precision=bf16", "trainer.channels_last=true"} <= set(last.overrides)
    assert machine.most_open == 2


def test_compiling_is_kept_although_it_is_no_key(run_on: Callable) -> None:
    result = run_on(Machine(by(compile=0.5)))
    assert result.compile and result.overrides == []


@pytest.mark.parametrize("drift", [1.05, 0.95])
def test_a_machine_that_slows_down_or_recovers_decides_nothing(run_on: Callable, drift: float) -> None:
    assert run_on(Machine(by(), drift=drift**0.5)).overrides == []


def test_a_gain_within_the_noise_is_not_kept(run_on: Callable) -> None:
    assert run_on(Machine(by(bf16=0.99, channels_last=0.99, compile=0.99), noise=0.2)).overrides == []


def test_a_gain_above_the_noise_is_kept(run_on: Callable) -> None:
    assert run_on(Machine(by(bf16=0.7), noise=0.2)).overrides == ["trainer.precision=bf16"]


def test_what_changes_the_training_is_offered_and_not_kept(run_on: Callable) -> None:
    result = run_on(Machine(by(batch_size=0.3)), "trainer.accumulate=2")
    offered = {row.name: row for row in result.rows if row.verdict == "offered"}
    assert list(offered) == ["batch_size=4 accumulate=1", "batch_size=1 accumulate=4"] and result.overrides == []
    assert offered["batch_size=4 accumulate=1"].ratio == pytest.approx((1 / 0.3,) * 3)


def test_batches_grow_until_the_set_is_too_small(run_on: Callable) -> None:
    result = run_on(Machine(by()))
    assert [row.name for row in result.rows if row.name.startswith("batch_size=")][-1] == "batch_size=4"
    assert result.skipped[-1] == Skipped("larger batches", "the training set has 4 samples")
    assert next(row for row in result.rows if row.name == "batch_size=4").losses is None, "of other samples"


def test_workers_are_tried_only_if_loading_holds_the_networks_up(run_on: Callable) -> None:
    assert Skipped("num_workers", "loading keeps up with the networks") in run_on(Machine(by())).skipped
    machine = Machine(by(loading=2.0, **{"num_workers=1": 0.6}))
    result = run_on(machine)
    assert result.overrides == ["data.num_workers=1"]
    assert next(row for row in result.rows if row.name == "num_workers=1").ratio == pytest.approx((1 / 0.6,) * 3)
    assert "data.num_workers=1" in machine.started[-1].overrides


def test_a_stage_is_a_line(run_on: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STAGES", (_flip("image_to_tensorboard"), _flip("no_such_key")))
    result = run_on(Machine(by(image_to_tensorboard=0.5)))
    assert result.overrides == ["trainer.image_to_tensorboard=false"] and len(result.rows) == 2


@pytest.mark.parametrize(
    ("words", "device", "precision", "tried"),
    [
        ([], "cpu", "fp32", ["winograd", "subpixel"]),
        ([], "cpu", "bf16", ["subpixel"]),
        ([], "other", "fp32", []),
        (["trainer.reference_order=true"], "cpu", "fp32", []),
    ],
)
def test_algorithms_are_tried_only_where_they_are_used(
    config: Path, words: list[str], device: str, precision: str, tried: list[str]
) -> None:
    first = replace(_Attempt(Machine(by()), Setup(config)).first_step, device=device, precision=precision)
    best = Best(read(config, words)[0], first)
    changes = {each.name.partition("=")[0]: each for stage in STAGES[2:4] for each in stage(best)}
    assert list(changes) == ["winograd", "subpixel"], "those that are not tried are named"
    assert [name for name, change in changes.items() if isinstance(change, Change)] == tried


@pytest.mark.parametrize("key", ["trainer", "data", "cudnn"])
def test_a_section_that_is_written_once_for_two_is_told_before_anything_is_tried(config: Path, key: str) -> None:
    tree = yaml.safe_load(config.read_text())
    shared = tree.setdefault(key, {})
    config.write_text(yaml.dump({"also": shared, **tree}, sort_keys=False))
    with pytest.raises(UserError) as caught:
        tuning.check_target(config, [], config.with_name("tuned.yaml"), overwrite=False)
    assert caught.value.code == "cannot-edit"


def test_what_fails_is_named_and_the_rest_goes_on(run_on: Callable) -> None:
    def speed(setup: Setup) -> float:
        if "trainer.precision=bf16" in setup.overrides:
            raise Failed("a layer has no kernel for it")
        return by(channels_last=0.5)(setup)

    result = run_on(Machine(speed))
    assert Skipped("bf16", "a layer has no kernel for it") in result.skipped
    assert result.overrides == ["trainer.channels_last=true"]


def test_losses_that_are_no_numbers_are_not_kept(run_on: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    take_turn = _Attempt.take_turn
    monkeypatch.setattr(
        _Attempt, "take_turn", lambda self, n: replace(take_turn(self, n), is_finite="bf16" not in str(self.setup))
    )
    result = run_on(Machine(by(bf16=0.5)))
    assert result.overrides == [] and result.rows[1].verdict == "not finite"


def test_a_config_that_cannot_be_trained_ends_it(run_on: Callable) -> None:
    def speed(setup: Setup) -> float:
        raise Failed("out of memory", is_memory=True)

    with pytest.raises(RunError, match="as it is: out of memory"):
        run_on(Machine(speed))


# Memory and time ------------------------------------------------------------------------------------------------------


def test_two_that_do_not_fit_into_memory_are_not_there_at_once(
    run_on: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(by(bf16=0.5))
    monkeypatch.setattr(tuning, "count_free_bytes", lambda: int((2.2 - machine.open) * GIB))
    result = run_on(machine)
    assert machine.most_open == 1 and result.overrides == ["trainer.precision=bf16"]
    (skipped,) = [each for each in result.skipped if each.name == "batch_size=4"]
    assert skipped.why == "it needs about 2.0 GiB, and 1.9 GiB are free"


def test_one_that_runs_out_of_memory_tries_again_alone(run_on: Callable) -> None:
    machine = Machine(lambda setup: 0.1)

    def speed(setup: Setup) -> float:
        if "trainer.precision=bf16" in setup.overrides and machine.open:
            raise Failed("out of memory", is_memory=True)
        return by(bf16=0.5)(setup)

    machine.speed = speed
    assert run_on(machine).overrides == ["trainer.precision=bf16"]


def test_without_time_it_says_what_it_did_not_try(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(by(bf16=0.5))
    monkeypatch.setattr(tuning, "Attempt", machine.start)
    result = tune(config, minutes=0)
    assert [row.name for row in result.rows] == ["as it is"] and machine.open == 0
    assert {"bf16", "channels_last=true", "--compile"} <= {
        each.name for each in result.skipped if each.why == tuning.TIME_IS_OVER
    }


# The command ----------------------------------------------------------------------------------------------------------


def test_the_config_that_is_written_differs_in_the_keys_alone(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config.read_text().replace("trainer:\n", "# how\ntrainer:  # spade\n")
    config.write_text(text)
    monkeypatch.setattr(tuning, "Attempt", Machine(by(bf16=0.5)).start)
    target = config.with_name("tuned.yaml")
    assert main(["tune", str(config), "max_iter=7", "--write", str(target)]) == status.DONE
    shown = capsys.readouterr().out
    assert "trainer:\n  precision: bf16\n" in shown and "not tried: fp16: it needs a GPU of Nvidia" in shown
    assert "offered: batch_size=4" not in shown, "it is not faster"
    expected = yaml.safe_load(text)
    expected["trainer"]["precision"], expected["max_iter"] = "bf16", 7
    assert yaml.safe_load(target.read_text()) == expected
    assert "# how\ntrainer:  # spade\n" in target.read_text()
    assert read(target)[0] == read(config, ["trainer.precision=bf16", "max_iter=7"])[0]


def test_a_file_is_replaced_only_if_that_is_said(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(by())
    monkeypatch.setattr(tuning, "Attempt", machine.start)
    before = config.read_bytes()
    assert main(["tune", str(config), "--write", str(config)]) == status.USER_ERROR
    assert machine.started == [] and "give --overwrite" in capsys.readouterr().err
    assert main(["tune", str(config), "--write", str(config), "--overwrite"]) == status.DONE
    assert "nothing that was tried is faster" in capsys.readouterr().out
    assert config.read_bytes() == before


def test_an_interrupt_leaves_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def speed(setup: Setup) -> float:
        if "trainer.channels_last=true" in setup.overrides:
            raise KeyboardInterrupt
        return by(bf16=0.5)(setup)

    machine = Machine(speed)
    monkeypatch.setattr(tuning, "Attempt", machine.start)
    files = sorted(config.parent.iterdir())
    assert main(["tune", str(config), "--write", str(config.with_name("tuned.yaml"))]) == status.KILLED
    assert sorted(config.parent.iterdir()) == files and machine.open == 0


def test_a_disk_that_fails_leaves_no_half_of_a_config(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    files = sorted(config.parent.iterdir())
    with pytest.raises(UserError) as caught:
        write_tuned(config, ["trainer.precision=bf16"], config.with_name("tuned.yaml"))
    assert caught.value.code == "unwritable-file" and sorted(config.parent.iterdir()) == files


def test_a_value_that_cannot_be_written_is_told_before_anything_is_tried(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "Attempt", (machine := Machine(by())).start)
    assert "gen_opt: *" in config.read_text(), "both optimizers are written once"
    assert main(["tune", str(config), "gen_opt.lr=0.5", "--write", "tuned.yaml"]) == status.USER_ERROR
    assert "by hand" in capsys.readouterr().err and machine.started == []


@pytest.mark.parametrize(("word", "told"), [("trainer.precison=bf16", "did you mean 'precision'?"), ("x", "x")])
def test_a_mistake_is_told_before_anything_is_tried(
    config: Path, word: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(config), word]) == status.USER_ERROR
    assert told in capsys.readouterr().err


# With processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_small_config_is_measured(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "STAGES", (_flip("channels_last"),))
    monkeypatch.setattr(tuning, "TURN_S", 0.01)
    result = tune(config, RunOptions(device="cpu"))
    assert [row.name for row in result.rows] == ["as it is", "channels_last=true"]
    for row in result.rows:
        assert row.rate > 0 and row.peak_bytes > 50 * 2**20 and row.losses is not None and row.losses < 1e-4
    assert result.rows[0].gradients == 0 and 0 < result.rows[1].gradients < 0.05
    assert capsys.readouterr().out == "", "from Python, nothing is printed"


@pytest.mark.slow
def test_loading_and_compiling_are_measured_too(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STAGES", (_try_workers, _try_compiling))
    small = experiment.config_of("one_player", config.parent / "data" / "train", "data.num_workers=1")
    result = tune(small, RunOptions(device="cpu"), minutes=10)
    rows = {row.name: row for row in result.rows}
    assert rows.keys() >= {"as it is", "with loading", "--compile"}
    assert rows["--compile"].first_s > 3 * rows["as it is"].first_s and rows["--compile"].losses < 1e-4
    assert rows["with loading"].losses == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_an_attempt_trains_with_the_flags_of_a_training(
    config: Path, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"trainer.tf32={allowed}".lower(), f"cudnn.benchmark={not allowed}".lower()
    seen: list[bool] = []
    monkeypatch.setattr(runtimes, "set_tf32", lambda tf32, *_: seen.append(tf32))  # changes nothing on CPUs
    with open_runtime(RunOptions(device="cpu")) as runtime:
        _Training(Setup(config, words), runtime)
        assert seen == [allowed] and torch.backends.cudnn.benchmark is not allowed


def test_what_a_training_refuses_is_no_attempt(config: Path) -> None:
    setup = Setup(config, ("trainer.checkpoint_activations=[gen]",), compile=True)
    with open_runtime(RunOptions(device="cpu")) as runtime, pytest.raises(UserError) as caught:
        _Training(setup, runtime)
    assert (caught.value.where, caught.value.code) == ("trainer.checkpoint_activations", "not-compiled")


def test_missing_data_are_the_usual_error(config: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        tune(config, RunOptions(device="cpu"), overrides=[f"data.train.roots=[{tmp_path / 'nowhere'}]"])
    assert "nowhere" in caught.value.where


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(config: Path) -> None:
    target = config.with_name("tuned.yaml")
    command = [sys.executable, "-u", "-m", "imagier", "tune", str(config), "--device", "cpu", "--write", str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert "as it is" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == status.KILLED and not target.exists()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
