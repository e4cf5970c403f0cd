"""The checkpoints of a log folder: the manifest, which stay, and that no moment leaves a folder without a good one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from imagier.train import checkpoint_files, manifest
from imagier.train.checkpoint_files import CheckpointFiles, RetentionPolicy, Unusable, read_entries, verify
from imagier.train.manifest import DamagedManifest, Entry


def state(step: int, fill: float | None = None) -> dict[str, Any]:
    weights = torch.full((8,), float(step) if fill is None else fill)
    return {
        "format": 1,
        "current_epoch": step // 100,
        "current_iteration": step,
        "epoch_samples": 0,
        "players": {"gen": {"network": {"weight": weights}}},
        "extras": {},
    }


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[22:31]) for path in folder.glob("epoch_*.pt"))


def filled(folder: Path, at: Sequence[int], keep: RetentionPolicy = checkpoint_files.ALL) -> CheckpointFiles:
    files = CheckpointFiles(folder, keep)
    for step in at:
        files.add(state(step))
    return files


def test_the_manifest_holds_name_moment_size_hash_and_time(tmp_path: Path) -> None:
    filled(tmp_path, [10, 230])
    whole = json.loads((tmp_path / "checkpoints.json").read_text())
    assert [(entry["step"], entry["epoch"]) for entry in whole["checkpoints"]] == [(10, 0), (230, 2)]
    for entry in whole["checkpoints"]:
        path = tmp_path / entry["name"]
        assert entry["bytes"] == path.stat().st_size
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert abs(entry["time"] - path.stat().st_mtime) < 60
    assert (tmp_path / "latest_checkpoint.txt").read_text() == f"latest_checkpoint: {path.name}\n"
    assert manifest.read(tmp_path) == [Entry(**entry) for entry in whole["checkpoints"]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 1, "checkpoints": {}}',
        '{"format": 1, "checkpoints": [{"name": "a"}]}',
        '{"format": 1, "checkpoints": [{"name": "../../epoch_00000_iteration_000000001_checkpoint.pt", "step": 1, '
        '"epoch": 0, "bytes": 1, "sha256": null, "time": 1}]}',
    ],
)
def test_a_manifest_that_is_none_is_made_again_from_the_files_with_a_line(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, [10, 20])
    path = tmp_path / "checkpoints.json"
    path.write_text(text)
    with pytest.raises(DamagedManifest):
        manifest.read(tmp_path)
    entries = read_entries(tmp_path)
    (note,) = caplog.messages
    assert [(entry.step, entry.sha256) for entry in entries] == [(10, None), (20, None)]
    assert note.startswith(f"{path}: is damaged (") and note.endswith("rebuilt from the 2 checkpoints in the folder")
    assert "\n" not in note
    CheckpointFiles(tmp_path, entries=entries).add(state(30))
    assert [(entry.step, entry.sha256 is None) for entry in manifest.read(tmp_path)] == [
        (10, True),
        (20, True),
        (30, False),
    ]


def test_a_run_without_a_manifest_goes_on_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One of an older version, or of the reference."""
    filled(tmp_path, [10, 20])
    (tmp_path / "checkpoints.json").unlink()
    assert [entry.step for entry in read_entries(tmp_path)] == [10, 20]
    assert read_entries(tmp_path / "nowhere") == []
    assert caplog.messages == []


def test_what_is_gone_or_changed_is_dropped_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, [10, 20, 30, 40])
    gone, changed, damaged, whole = (entry.name for entry in manifest.read(tmp_path))
    (tmp_path / gone).unlink()
    (tmp_path / changed).write_bytes(b"x")
    assert [entry.name for entry in read_entries(tmp_path, unusable=[damaged])] == [whole]
    (note,) = caplog.messages
    assert note == f"{tmp_path}/checkpoints.json: no longer there, or not as written: {gone}, {changed}"


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (RetentionPolicy(), [10, 20, 30, 40, 50, 60]),
        (RetentionPolicy(last=1), [60]),
        (RetentionPolicy(last=2), [50, 60]),
        (RetentionPolicy(last=99), [10, 20, 30, 40, 50, 60]),
        (RetentionPolicy(last=1, every=20), [20, 40, 60]),
        (RetentionPolicy(last=2, every=30), [30, 50, 60]),
    ],
)
def test_the_latest_and_the_multiples_stay(tmp_path: Path, keep: RetentionPolicy, left: list[int]) -> None:
    filled(tmp_path, [10, 20, 30, 40, 50, 60], keep)
    assert steps(tmp_path) == left
    assert [entry.step for entry in manifest.read(tmp_path)] == left


@pytest.mark.parametrize(
    ("higher", "left", "best"),
    [
        (False, [[10], [20], [20, 30], [40], [40, 50]], [10, 20, 20, 40, 40]),
        (True, [[10], [10, 20], [30], [30, 40], [30, 50]], [10, 10, 30, 30, 30]),
    ],
)
def test_the_best_by_a_metric_stays(tmp_path: Path, higher: bool, left: list[list[int]], best: list[int]) -> None:
    files = CheckpointFiles(tmp_path, RetentionPolicy(last=1, best="score", higher_is_better=higher))
    for index, (step, score) in enumerate([(10, 5.0), (20, 4.0), (30, 9.0), (40, 3.0), (50, 5.0)]):
        files.add(state(step))
        files.note(step, {"score": score, "other": 1.0})
        assert steps(tmp_path) == left[index]
        name = manifest.format_file_name(best[index] // 100, best[index])
        assert (tmp_path / "best_checkpoint.txt").read_text() == f"best_checkpoint: {name}\n"
    again = CheckpointFiles(tmp_path, files.keep, read_entries(tmp_path))
    again.add(state(60))
    again.note(60, {"score": 4.5})
    assert steps(tmp_path) == sorted({best[-1], 60}), "the best so far counts after a resume"


def test_a_checkpoint_is_saved_even_if_the_pointer_to_the_best_cannot_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = CheckpointFiles(tmp_path, RetentionPolicy(last=1, best="score"))
    pointer = tmp_path / "best_checkpoint.txt"
    pointer.mkdir()
    for step, score in ((10, 5.0), (20, 4.0)):
        files.add(state(step))
        files.note(step, {"score": score})
    assert steps(tmp_path) == [10, 20], "nothing is removed"
    assert caplog.messages == [f"{pointer}: cannot be written: Is a directory"] * 3
    pointer.rmdir()
    files.add(state(30))
    assert "iteration_000000020" in pointer.read_text()
    assert steps(tmp_path) == [20, 30]


def test_scores_that_are_not_finite_or_of_no_checkpoint_are_not_kept(tmp_path: Path) -> None:
    files = filled(tmp_path, [10])
    files.note(10, {"a": float("nan"), "b": 1.0, "c": float("inf")})
    files.note(15, {"b": 2.0})
    (entry,) = manifest.read(tmp_path)
    assert entry.metrics == {"b": 1.0}


def test_files_that_this_run_did_not_write_are_never_removed(tmp_path: Path) -> None:
    """Whatever they are called."""
    filled(tmp_path, [10, 20])
    (tmp_path / "checkpoints.json").unlink()
    strange = tmp_path / "epoch_00000_iteration_000000015_checkpoint.pt"
    files = CheckpointFiles(tmp_path, RetentionPolicy(last=1), read_entries(tmp_path))
    strange.write_bytes(b"mine")
    for step in (30, 40, 50):
        files.add(state(step))
    assert steps(tmp_path) == [10, 15, 20, 50]


def test_the_last_written_stay_not_those_of_the_largest_step(tmp_path: Path) -> None:
    """After somebody went back to an earlier checkpoint, the later ones are the older."""
    filled(tmp_path, [10, 20, 30])
    files = CheckpointFiles(tmp_path, RetentionPolicy(last=2), read_entries(tmp_path))
    files.add(state(15))
    assert steps(tmp_path) == [15, 30]
    files.add(state(20))
    assert steps(tmp_path) == [15, 20]


def test_one_that_is_written_again_is_listed_once_with_its_new_hash(tmp_path: Path) -> None:
    files = filled(tmp_path, [10, 20])
    files.add(state(10, fill=7.0))
    assert [entry.step for entry in manifest.read(tmp_path)] == [20, 10]
    for entry in manifest.read(tmp_path):
        verify(tmp_path / entry.name, entry)


def test_nothing_is_removed_unless_the_new_one_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that loses a bit on its way."""
    files = filled(tmp_path, [10], RetentionPolicy(last=1))
    real = checkpoint_files.write_state

    def lossy(path: Path, content: dict) -> tuple[int, str]:
        written = real(path, content)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        return written

    monkeypatch.setattr(checkpoint_files, "write_state", lossy)
    files.add(state(20))
    (note,) = caplog.messages
    assert note.startswith("older checkpoints are not removed: ") and "is damaged" in note
    assert steps(tmp_path) == [10, 20]


def test_old_ones_that_cannot_be_removed_are_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = filled(tmp_path, [10], RetentionPolicy(last=1))

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    files.add(state(20))
    monkeypatch.undo()
    files.add(state(30))
    assert caplog.messages == ["older checkpoints are not removed: [Errno 13] Permission denied"]
    assert steps(tmp_path) == [30]
    assert [entry.step for entry in manifest.read(tmp_path)] == [30]


def test_a_file_that_cannot_be_read_is_unusable(tmp_path: Path) -> None:
    (entry,) = filled(tmp_path, [10]).entries
    with pytest.raises(Unusable, match=r"cannot be read \(No such file or directory\)"):
        verify(tmp_path / "gone.pt", entry)


KILLED = """
import os, random, signal, sys
from pathlib import Path
import torch
sys.path[:0] = sys.argv[4:]
from test_checkpoint_files import state, steps
from imagier.train import checkpoint, disk
from imagier.train.checkpoint_files import CheckpointFiles, RetentionPolicy, _HashingFile, read_entries

folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
torch.set_num_threads(1)

def saving(told):
    "Saves for ever, and says so byte by byte: at every call that changes the disk."
    def tells(function):
        def call(*args, **kwargs):
            os.write(told, b".")
            return function(*args, **kwargs)
        return call
    for owner, name in ((_HashingFile, "write"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
        setattr(owner, name, tells(getattr(owner, name)))
    found = checkpoint.find_newest(folder)
    entries = read_entries(folder, [path.name for path in found.skipped] if found else [])
    files = CheckpointFiles(folder, RetentionPolicy(last=2, every=50), entries)
    step = found.state["current_iteration"] if found else 0
    while True:
        step += 10
        files.add(state(step))

at = 0
for kill in range(int(sys.argv[3])):
    hears, told = os.pipe()
    child = os.fork()
    if child == 0:
        saving(told)
    os.close(told)
    for _ in range(rng.randrange(1, 120)):
        os.read(hears, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(hears)
    found = checkpoint.find_newest(folder)
    if found is None:
        assert at == 0
        continue
    assert found.notes == (), found.notes
    step = found.state["current_iteration"]
    assert step >= at, (step, at)
    assert torch.equal(found.state["players"]["gen"]["network"]["weight"], torch.full((8,), float(step)))
    at = step
    disk.remove_temporaries(folder)
    assert not list(folder.glob(".*")), "a temporary file was left"
print(at, len(steps(folder)))
"""


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_of_a_save_leaves_a_newest_that_is_whole(tmp_path: Path, kills: int) -> None:
    """Kills at random system calls of a writer that saves without end, and continues from what it finds."""
    here = [str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "0", str(kills), *here],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    at, left = (int(word) for word in done.stdout.split())
    assert at >= 5 * kills, "so many saves that something was removed, too"
    multiples = at // 50
    assert left <= multiples + 4, "two are kept, and one may not have been listed when its writer was killed"
