"""Saving behind the back of a training: it waits for nothing, loses nothing, and survives a disk that fails."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_snapshot import adam, saved, step
from test_trainer import CPU, Line, endless, trainer, until

from imagier.train import checkpoint, checkpoint_files, memory
from imagier.train.checkpoint import build_state
from imagier.train.checkpoint_files import CheckpointFiles, RetentionPolicy
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.runtime import Runtime
from imagier.train.saver import Saver
from imagier.train.snapshot import Snapshot
from imagier.train.trainer import Outcome, Trainer

SIZE = 50_000
"""Bytes that a checkpoint here takes at least."""


@pytest.fixture(autouse=True)
def all_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def saver_in(folder: Path, keep: RetentionPolicy = checkpoint_files.ALL) -> Saver:
    return Saver(CheckpointFiles(folder, keep), Snapshot(CPU))


def run_of(step: int = 0) -> Trainer:
    run = adam()
    run.step = step
    return run


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[22:31]) for path in folder.glob("epoch_*.pt"))


class Gate:
    """Holds writers up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        real = checkpoint_files.write_state

        def write(path: Path, state: Any) -> tuple[int, str]:
            assert self.open.wait(30)
            return real(path, state)

        monkeypatch.setattr(checkpoint_files, "write_state", write)


def test_a_save_waits_for_no_disk_and_holds_the_state_at_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(monkeypatch)
    saver = saver_in(tmp_path)
    run = run_of(5)
    step(run)
    extras = {"log": {"sums": torch.ones(3)}}
    whole = saved(build_state(run, extras))
    saver.save(run, extras)
    for _ in range(3):  # while nothing is written yet
        step(run)
    extras["log"]["sums"].zero_()
    assert steps(tmp_path) == []
    gate.open.set()
    saver.close()
    found = checkpoint.find_newest(tmp_path)
    assert found is not None
    assert saved(found.state) == whole
    assert (caplog.messages, saver.unsaved) == ([], None)


def test_an_update_waits_until_what_it_moves_is_copied_and_not_until_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    saver = saver_in(tmp_path)
    run = run_of(5)
    step(run)
    whole = saved(build_state(run, {}))
    busy = threading.Event()
    saver._thread.submit(busy.wait)  # the copy cannot begin before this ends
    saver.save(run, {})
    moves = {name: player.network.weight.clone() for name, player in run.players.items() if name == "dis"}
    training = threading.Thread(target=step, args=(run,))
    training.start()
    training.join(0.05)
    assert training.is_alive()
    assert torch.equal(run.players["dis"].network.weight, moves["dis"])
    busy.set()
    training.join(30)
    assert not training.is_alive() and steps(tmp_path) == []
    assert not torch.equal(run.players["dis"].network.weight, moves["dis"])
    gate.open.set()
    saver.close()
    found = checkpoint.find_newest(tmp_path)
    assert found is not None and saved(found.state) == whole


def test_an_accelerator_copies_in_its_own_order_and_no_update_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a CPU that says it is one: all is copied when it is asked for."""
    monkeypatch.setattr(Runtime, "is_asynchronous", True)
    saver = saver_in(tmp_path)
    run = run_of(5)
    step(run)
    whole = saved(build_state(run, {}))
    busy = threading.Event()
    saver._thread.submit(busy.wait)
    saver.save(run, {})
    step(run)
    busy.set()
    saver.close()
    found = checkpoint.find_newest(tmp_path)
    assert found is not None and saved(found.state) == whole


def test_the_file_is_that_of_a_synchronous_save_byte_for_byte(tmp_path: Path) -> None:
    run = run_of(5)
    step(run)
    extras = {"log": {"sums": torch.ones(3), "tags": ["a"]}, "seed": 3}
    for name, save in (("a", lambda saver: saver.save), ("b", lambda saver: saver.save_now)):
        saver = saver_in(tmp_path / name)
        save(saver)(run, extras)
        saver.close()
    checkpoint.save(tmp_path / "c", run, extras)
    contents = {next((tmp_path / name).glob("*.pt")).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_a_save_waits_a_while_for_the_one_before_and_is_then_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(monkeypatch)
    saver = saver_in(tmp_path)
    saver.save(run_of(10), {})
    saver.save(run_of(20), {}, patience_s=0.01)
    assert caplog.messages == [
        "iteration 20 is not saved: the checkpoint before it is still being written; the next one is tried as scheduled"
    ]
    threading.Timer(0.01, gate.open.set).start()
    saver.save(run_of(30), {}, patience_s=None)
    saver.close()
    assert steps(tmp_path) == [10, 30]
    assert saver.unsaved is None


def test_the_last_save_waits_for_all_and_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    saver = saver_in(tmp_path)
    saver.save(run_of(10), {})
    threading.Timer(0.01, gate.open.set).start()
    saver.save_now(run_of(20), {})
    assert steps(tmp_path) == [10, 20]


@pytest.mark.slow
def test_a_process_that_ends_finishes_what_it_writes(tmp_path: Path) -> None:
    """Also one that fails."""
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from test_saver import run_of, saver_in
saver = saver_in(Path({str(tmp_path)!r}))
saver.save(run_of(10), {{}})
raise SystemExit(3)
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 3
    found = checkpoint.find_newest(tmp_path)
    assert found is not None and found.state["current_iteration"] == 10


def test_without_room_for_a_copy_training_waits_for_its_checkpoints_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "count_free_bytes", lambda: 100)
    saver = saver_in(tmp_path)
    saver.prepare(run_of())
    (line,) = caplog.messages
    assert line.startswith(
        "training pauses while a checkpoint is written: a copy of the state needs 0.0 GiB of the host's memory"
    )
    saver.save(run_of(10), {})
    assert steps(tmp_path) == [10]


def test_memory_that_is_not_to_be_had_after_all_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Snapshot, state: Any) -> None:
        raise RuntimeError("can't allocate memory\nmore about it")

    monkeypatch.setattr(Snapshot, "reserve", refuse)
    saver = saver_in(tmp_path)
    saver.prepare(run_of())
    saver.save(run_of(10), {})
    assert steps(tmp_path) == [10]
    assert caplog.messages == [
        "training pauses while a checkpoint is written: no memory for a copy of the state (can't allocate memory)"
    ]


def test_an_error_of_ours_is_not_hidden(tmp_path: Path) -> None:
    saver = saver_in(tmp_path)
    saver.save(run_of(10), {"function": test_an_error_of_ours_is_not_hidden, "local": lambda: None})
    with pytest.raises(AttributeError, match="local object"):
        saver.close()


# Disks that fail. Each takes a folder and fails until it is left.


@contextmanager
def small_files(folder: Path) -> Iterator[None]:
    """The system's own refusal, in the middle of a write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """A file system without room."""
    space = os.statvfs(folder)
    with (folder / "filler").open("wb", buffering=0) as filler:
        left = space.f_bavail * space.f_frsize - SIZE // 2
        filler.write(bytes(left))
    yield
    (folder / "filler").unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    mount("remount,ro", folder)
    yield
    mount("remount,rw", folder)


@contextmanager
def taken_away(folder: Path) -> Iterator[None]:
    """No folder can be made where a file is."""
    kept = folder.rename(folder.with_name("kept"))
    folder.touch()
    yield
    folder.unlink()
    kept.rename(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; the test is skipped where nobody may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # what was read is still mapped


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-o", options, str(folder)], check=True)


def survives(folder: Path, fault: Callable[[Path], Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two saves while the disk fails, then one when it works again."""
    saver = saver_in(folder, RetentionPolicy(last=1))
    weights = {"gen": torch.ones(SIZE // 4)}
    saver.save(run_of(10), weights)
    saver.close()
    before = sorted(folder.iterdir())
    with fault(folder):
        saver.save(run_of(20), weights)
        saver.close()
        saver.save_now(run_of(30), weights)
        good = folder / "epoch_00000_iteration_000000010_checkpoint.pt"
        lines = [
            f"iteration {step} could not be saved: {reason}; the last good checkpoint is {good}" for step in (20, 30)
        ]
        assert caplog.messages == lines
        assert saver.unsaved == lines[1]
    assert sorted(folder.iterdir()) == before, "neither half a file nor a temporary one, and the good one is there"
    found = checkpoint.find_newest(folder)
    assert found is not None and found.state["current_iteration"] == 10
    saver.save(run_of(40), weights)
    saver.close()
    assert (caplog.messages[2:], saver.unsaved) == (["iteration 40 is saved"], None)
    assert steps(folder) == [40]


@pytest.mark.parametrize(
    ("fault", "reason"), [(small_files, "File too large"), (taken_away, "File exists")], ids=["half", "taken away"]
)
def test_a_run_survives_a_disk_that_fails(
    tmp_path: Path, fault: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    survives(tmp_path / "run", fault, reason, caplog)


@pytest.mark.parametrize(
    ("fault", "reason"), [(full, "No space left on device"), (read_only, "Read-only file system")], ids=["full", "ro"]
)
def test_a_run_survives_a_full_and_a_read_only_file_system(
    disk: Path, fault: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    survives(disk, fault, reason, caplog)


def test_a_run_survives_the_loss_of_its_permission(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid() == 0:
        pytest.skip("everything is permitted to root")

    @contextmanager
    def forbidden(folder: Path) -> Iterator[None]:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)

    survives(tmp_path / "run", forbidden, "Permission denied", caplog)


def test_a_disk_that_never_worked_is_told_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").touch()
    saver = saver_in(tmp_path / "run")
    saver.save_now(run_of(10), {})
    assert caplog.messages == ["iteration 10 could not be saved: File exists; there is no checkpoint yet"]


def test_scores_that_cannot_be_kept_are_told_and_end_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saver = saver_in(tmp_path / "run")
    saver.save_now(run_of(10), {})
    with taken_away(tmp_path / "run"):
        saver.note(10, {"L1": 0.5})
        saver.close()
    assert caplog.messages == [f"{tmp_path / 'run'}: the scores of a checkpoint could not be written: File exists"]
    assert saver.unsaved is None


class Counter:
    """Keeps a number, as any hook may."""

    def __init__(self) -> None:
        self.steps = 0

    def after_step(self, trainer: Trainer, progress: Any) -> None:
        self.steps += 1

    def after_fit(self, trainer: Trainer, progress: Any) -> None: ...

    def state_dict(self, runtime: Any) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], runtime: Any) -> None:
        self.steps = state["steps"]


def hook_of(saver: Saver | None, counter: Counter, **options: Any) -> Checkpoints:
    periods = {"every": 2, "start": 0, "every_epochs": 99, "start_epoch": 0}
    return Checkpoints(saver, lambda: {"seed": 7}, {"counter": counter}, **{**periods, **options})


def test_the_state_of_every_hook_that_keeps_one_survives(tmp_path: Path) -> None:
    counter, again = Counter(), Counter()
    saver = saver_in(tmp_path)
    trainer(Line(), hooks=[counter, hook_of(saver, counter)]).fit(endless(), until(5))
    found = checkpoint.find_newest(tmp_path)
    assert found is not None
    assert found.state["extras"] == {"seed": 7, "counter": {"steps": 5}}
    hook_of(None, again).load_state_dict(found.state["extras"], CPU)
    assert again.steps == 5
    hook_of(None, again).load_state_dict({"seed": 7}, CPU)
    assert again.steps == 5, "a checkpoint from before there was such a hook"


def test_states_are_asked_for_on_every_rank_and_written_on_the_first(tmp_path: Path) -> None:
    counter = Counter()
    asked: list[int] = []
    hook = hook_of(None, counter)
    hook.extras = lambda: {"asked": asked.append(counter.steps)}
    trainer(Line(), hooks=[counter, hook]).fit(endless(), until(5))
    assert asked == [2, 4, 5]
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_asks_for_is_saved_however_slow_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float | None]] = []
    saver = saver_in(tmp_path)
    monkeypatch.setattr(saver, "save", lambda run, extras, patience_s, **_: asked.append((run.step, patience_s)))
    monkeypatch.setattr(saver, "save_now", lambda run, extras, **_: asked.append((run.step, -1)))

    def stop(step: int, epoch: int) -> Outcome:
        return {3: Outcome.SAVE, 5: Outcome.DONE}.get(step, Outcome.GO_ON)

    trainer(Line(), hooks=[hook_of(saver, Counter())]).fit(endless(), stop)
    assert asked == [(2, 10.0), (3, None), (4, 10.0), (5, -1)]


def test_the_memory_for_copies_is_got_once_and_only_where_there_will_be_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prepares, expected in ((True, [1]), (False, [])):
        at: list[int] = []
        saver = saver_in(tmp_path)
        monkeypatch.setattr(saver, "prepare", lambda run, at=at: at.append(run.step))
        trainer(Line(), hooks=[hook_of(saver, Counter(), prepares=prepares)]).fit(endless(), until(5))
        assert at == expected


def test_a_failed_save_is_tried_again_at_the_next_period(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saver = saver_in(tmp_path / "run")
    (tmp_path / "run").touch()

    def stop(step: int, epoch: int) -> Outcome:
        if step == 3:
            saver.close()
            (tmp_path / "run").unlink()
        return Outcome.DONE if step >= 5 else Outcome.GO_ON

    trainer(Line(), hooks=[hook_of(saver, Counter())]).fit(endless(), stop)
    assert caplog.messages == [
        "iteration 2 could not be saved: File exists; there is no checkpoint yet",
        "iteration 4 is saved",
    ]
    assert steps(tmp_path / "run") == [4, 5]
