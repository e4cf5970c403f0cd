"""Checkpoints of whole runs: what goes on after damage, what stays, and what a disk that fails does to a run."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from imagier.cli import main
from imagier.run import status
from imagier.train import checkpoint
from imagier.train.compare import find_first_difference
from imagier.train.hooks.console import Console
from imagier.train.hooks.report import Report
from imagier.train.scoring import Scorer

PERIODS = ["logging_iter=1", "snapshot_save_iter=2", "metrics_iter=2"]


pytestmark = pytest.mark.filterwarnings(
    # TensorBoard's thread, which a full disk ends
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=8, val=2)


def reference_files(steps_per_epoch: int, max_iter: int, save_every: int) -> tuple[dict[int, str], dict[int, str]]:
    """By iteration, the last checkpoint and the image of it that the reference's loop writes, as the spec tells it."""
    checkpoints, images, step, epoch = {}, {}, 0, 0
    while True:
        for _ in range(steps_per_epoch):
            step += 1
            images[step] = f"epoch_{epoch:05d}_iteration_{step:09d}.jpg"
            if step % save_every == 0:
                checkpoints[step] = f"epoch_{epoch:05d}_iteration_{step:09d}_checkpoint.pt"
            if step >= max_iter:
                return checkpoints, images
        epoch += 1
        if step % save_every == 0:
            checkpoints[step] = f"epoch_{epoch:05d}_iteration_{step:09d}_checkpoint.pt"


@pytest.mark.parametrize("max_iter", [8, 7])  # the end of an epoch, and not
def test_files_have_the_names_that_the_reference_gives_them(config: Path, tmp_path: Path, max_iter: int) -> None:
    log = tmp_path / "log"
    words = ["train", "--config", str(config), "--logdir", str(log), "--device", "cpu", f"max_iter={max_iter}"]
    assert main([*words, "snapshot_save_iter=1", "image_save_iter=1"]) == status.DONE
    checkpoints, images = reference_files(steps_per_epoch=4, max_iter=max_iter, save_every=1)
    assert {path.name for path in log.glob("*.pt")} == set(checkpoints.values())
    assert {path.name for path in (log / "images").glob("epoch_*.jpg")} == set(images.values())
    assert (log / "latest_checkpoint.txt").read_text() == f"latest_checkpoint: {checkpoints[max_iter]}\n"


def test_a_run_goes_on_from_its_last_checkpoint_under_the_old_name_and_the_new(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    words = ["train", "--config", str(config), "--logdir", str(log), "--device", "cpu", "snapshot_save_iter=100"]
    assert main([*words, "max_iter=4"]) == status.DONE
    new, old = (f"epoch_{epoch:05d}_iteration_000000004_checkpoint.pt" for epoch in (0, 1))
    assert main([*words, "max_iter=5"]) == status.DONE
    assert f"continues from {new}" in capsys.readouterr().out
    (log / "epoch_00001_iteration_000000005_checkpoint.pt").unlink()
    for name in ("checkpoints.json", "latest_checkpoint.txt"):  # as an earlier version wrote them
        (log / name).write_text(
            (log / name).read_text().replace(new, old).replace("00005_checkpoint", "00004_checkpoint")
        )
    (log / new).rename(log / old)
    assert main([*words, "max_iter=6"]) == status.DONE
    assert f"continues from {old}" in capsys.readouterr().out
    assert checkpoint.load(log / old)["current_epoch"] == 1  # the data go on after the epoch, whatever the name


@pytest.fixture
def config(tmp_path: Path, data: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", data)


def train(config: Path, log: Path, *words: str) -> int:
    where = ["--config", str(config), "--logdir", str(log), "--device", "cpu"]
    return main(["train", *where, *PERIODS, *words])


def steps(log: Path) -> list[int]:
    return sorted(int(path.name[22:31]) for path in log.glob("epoch_*.pt"))


def of_step(log: Path, step: int) -> Path:
    return next(log.glob(f"epoch_*_iteration_{step:09d}_checkpoint.pt"))


def listed(log: Path) -> list[dict]:
    return json.loads((log / "checkpoints.json").read_text())["checkpoints"]


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_and_ends_the_same(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, tmp_path / "whole", "max_iter=6") == 0
    assert train(config, tmp_path / "log", "max_iter=4") == 0
    newest = of_step(tmp_path / "log", 4)
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    for name in (f".{newest.name}.123.tmp", "images/.current.jpg.123.tmp"):
        (tmp_path / "log" / name).write_bytes(b"of a process that was killed")
    capsys.readouterr()
    assert train(config, tmp_path / "log", "max_iter=6") == 0
    said = capsys.readouterr().out.splitlines()
    before = of_step(tmp_path / "log", 2)
    (line,) = [line for line in said if "damaged" in line]
    assert line.startswith(f"{newest}: is damaged: ") and line.endswith(f"; going back to {before.name}")
    assert any(line.startswith(f"{tmp_path / 'log'}: continues from {before.name}; seed") for line in said)
    ends = [checkpoint.load(of_step(tmp_path / log, 6)) for log in ("whole", "log")]
    assert find_first_difference(*ends) is None, "extras and all"
    assert [entry["step"] for entry in listed(tmp_path / "log")] == [2, 4, 6]
    assert not list((tmp_path / "log").rglob(".*"))


def test_keys_say_which_checkpoints_stay(config: Path, tmp_path: Path) -> None:
    words = ["snapshot_save_iter=1", "keep_last=1", "keep_every=3", "keep_best=PSNR"]
    assert train(config, tmp_path / "log", "max_iter=5", *words) == 0
    assert train(config, tmp_path / "log", "max_iter=7", *words) == 0
    scores = {entry["step"]: entry["metrics"] for entry in listed(tmp_path / "log")}
    (pointed,) = (tmp_path / "log" / "best_checkpoint.txt").read_text().splitlines()
    records = [json.loads(line) for line in (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()]
    measured = {record["step"]: record["PSNR/average"] for record in records if "PSNR/average" in record}
    best = max(measured, key=lambda step: measured[step])
    assert steps(tmp_path / "log") == sorted({3, 6, 7, best})
    assert scores[best]["PSNR"] == measured[best]
    assert pointed == f"best_checkpoint: {of_step(tmp_path / 'log', best).name}"


@pytest.mark.parametrize("word", ["auto", "null"])
def test_the_best_checkpoint_by_the_first_metric_stays_unless_keep_best_is_null(
    config: Path, tmp_path: Path, word: str
) -> None:
    words = ["snapshot_save_iter=1", "keep_last=1", "metrics=[psnr, l1]", f"keep_best={word}"]
    assert train(config, tmp_path / "log", "max_iter=4", *(words if word == "null" else words[:-1])) == 0
    records = [json.loads(line) for line in (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()]
    measured = {record["step"]: record["PSNR/average"] for record in records if "PSNR/average" in record}
    best = max(measured, key=lambda step: measured[step])
    pointer = tmp_path / "log" / "best_checkpoint.txt"
    if word == "null":
        assert steps(tmp_path / "log") == [4] and not pointer.exists()
    else:
        assert steps(tmp_path / "log") == sorted({4, best})
        assert pointer.read_text() == f"best_checkpoint: {of_step(tmp_path / 'log', best).name}\n"


def test_the_best_scores_are_part_of_the_run(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that were measured after the checkpoint was written, and the checkpoint alone knows the others."""
    values = iter([3.0, 1.0, 5.0, 4.0, 2.0])
    real = Scorer.score

    def scores(self: Any, measured: Any) -> Any:
        found = real(self, measured)
        return {**found, "generator": {**found["generator"], "L1": next(values)}} if "generator" in found else found

    monkeypatch.setattr(Scorer, "score", scores)
    assert train(config, tmp_path / "log", "max_iter=4") == 0  # measured at 2 and at 4
    kept = checkpoint.load(of_step(tmp_path / "log", 4))["extras"]["evaluation"]
    assert kept["best"]["L1"] == [3.0, 2]
    assert train(config, tmp_path / "log", "max_iter=6") == 0
    assert "best so far: L1 1 at iteration 4, " in capsys.readouterr().out
    (tmp_path / "log" / "checkpoints.json").unlink()
    assert train(config, tmp_path / "log", "max_iter=7") == 0
    assert "best so far: L1 1 at iteration 4, " in capsys.readouterr().out


class Fault:
    """Files cannot grow beyond some bytes, which is what the system itself says of a disk that is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def at(self, change: Callable[[int], int | None]) -> None:
        """change: the limit from a step on; None: it stays; -1: there is none any more."""

        def after_step(console: Console, trainer: object, progress: Any) -> None:
            limit = change(progress.step)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit if limit >= 0 else self.limits[0], self.limits[1]))

        self.monkeypatch.setattr(Console, "after_step", after_step)

    def end(self) -> None:
        """The disk works again, for good."""
        self.monkeypatch.undo()
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    fault = Fault(monkeypatch)
    yield fault
    fault.end()


def test_a_run_outlives_a_disk_that_is_full_for_a_while_and_loses_no_line_of_its_log(
    config: Path, tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    fault.at({3: 100, 5: -1}.get)
    assert train(config, log, "max_iter=6", "image_save_iter=1") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "saved" in line] == [
        f"iteration 4 could not be saved: File too large; the last good checkpoint is {of_step(log, 2)}",
        "iteration 6 is saved",
    ]
    assert "metrics.jsonl cannot be written: File too large; training continues" in said
    assert said.count("metrics.jsonl can be written again") == 1
    assert said.count("an image could not be written: File too large") == 2
    assert steps(log) == [2, 6]
    records = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "gen_update/total" in record] == [1, 2, 3, 4, 5, 6]
    assert not list(log.rglob("*.tmp"))


def test_a_run_whose_end_could_not_be_saved_says_where_the_last_good_checkpoint_is_and_fails(
    config: Path, tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    fault.at({3: 100}.get)
    ended_with = train(config, log, "max_iter=5")
    fault.end()
    assert ended_with == status.FAILED
    told = capsys.readouterr()
    line = f"iteration 5 could not be saved: File too large; the last good checkpoint is {of_step(log, 2)}"
    assert told.err == f"{line}\n"
    assert f"{line}\n" in told.out
    assert "report.html could not be written: File too large\n" in told.out
    assert train(config, log, "max_iter=5") == 0
    assert steps(log) == [2, 4, 5]


def test_a_folder_that_cannot_be_written_to_is_told_before_the_first_step(
    config: Path, tmp_path: Path, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, fault.limits[1]))
    ended_with = train(config, tmp_path / "log", "max_iter=5")
    fault.end()  # before the test runner writes into a log of its own
    assert ended_with == status.USER_ERROR
    assert capsys.readouterr().err == (
        f"{tmp_path / 'log'}: cannot be written to: File too large; make room, or name another --logdir\n"
    )
    assert not (tmp_path / "log").exists()


def test_a_mistake_in_a_hook_still_ends_a_run_and_what_was_being_saved_is_saved(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Report, trainer: object, progress: Any) -> None:
        if progress.step == 2:
            raise ZeroDivisionError

    monkeypatch.setattr(Report, "after_step", fail)  # a hook after the one that saves
    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path / "log", "max_iter=5")
    found = checkpoint.find_newest(tmp_path / "log")
    assert found is not None and found.state["current_iteration"] == 2
