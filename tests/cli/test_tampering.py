"""Files of a log folder that somebody has damaged: no run ends in a traceback, and no good checkpoint is lost."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

from imagier.cli import main
from imagier.errors import UserError
from imagier.run import status
from imagier.train import checkpoint
from imagier.train.checkpoint_files import BEST, LATEST, read_entries
from imagier.train.manifest import NAME

SAVED = [f"epoch_00000_iteration_{step:09d}_checkpoint.pt" for step in (1, 2, 3)]
FILES = [
    SAVED[0],
    SAVED[2],
    LATEST,
    BEST,
    NAME,
    "config.yaml",
    "metrics.jsonl",
    "report.html",
    "report.json",
    "images",
    "tensorboard",
]


def replace(path: Path) -> Path:
    """The path, with nothing there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


def swap(path: Path) -> None:
    other = path.with_name(SAVED[1])
    shutil.copy(other, replace(path))


def write_foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(replace(path), "w") as file:
        file.writestr("readme.txt", "nothing of torch's")


def cut(path: Path) -> None:
    data = path.read_bytes() if path.is_file() else b""
    replace(path).write_bytes(data[: len(data) // 2])


def extend(path: Path) -> None:
    data = path.read_bytes() if path.is_file() else b""
    replace(path).write_bytes(data + b"\x00\xffmore")


class Foreign:
    """An object that no checkpoint holds."""


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "deleted": replace,
    "cut": cut,
    "extended": extend,
    "empty": lambda path: replace(path).write_bytes(b""),
    "zeros": lambda path: replace(path).write_bytes(bytes(5000)),
    "not text": lambda path: replace(path).write_bytes(b"\xff\xfe\x00\xd8"),
    "a word": lambda path: replace(path).write_text("nonsense"),
    "a long word": lambda path: replace(path).write_text("n" * 5000),
    "a zero in a word": lambda path: replace(path).write_text("latest: a\0b"),
    "a folder": lambda path: replace(path).mkdir(),
    "link to nowhere": lambda path: replace(path).symlink_to("nowhere"),
    "link to itself": lambda path: replace(path).symlink_to(path.name),
    "empty json": lambda path: replace(path).write_text("{}"),
    "json list": lambda path: replace(path).write_text("[1, null]"),
    "json null": lambda path: replace(path).write_text("null"),
    "json of another type": lambda path: replace(path).write_text('{"format": "x", "checkpoints": {"a": 1}}'),
    "pickle": lambda path: replace(path).write_bytes(pickle.dumps({"players": {}})),
    "other torch file": lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), replace(path)),
    "torch module": lambda path: torch.save(torch.nn.Linear(2, 2), replace(path)),
    "torch list": lambda path: torch.save([1, 2], replace(path)),
    "old torch file": lambda path: torch.save({"players": {}}, replace(path), _use_new_zipfile_serialization=False),
    "no players": lambda path: torch.save({"players": {}, "format": 2}, replace(path)),
    "foreign zip": write_foreign_zip,
    "swapped": swap,
}


def train(config: Path, logdir: Path, end: int) -> int:
    words = ["--config", str(config), "--logdir", str(logdir), "--device", "cpu", f"max_iter={end}"]
    return main(["train", *words, "image_save_iter=2", "trainer.image_to_tensorboard=true", "metrics_iter=2"])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run of three iterations, whose folder is `log` beside it."""
    folder = tmp_path_factory.mktemp("tampering")
    data = tiny.write_data(folder / "data", train=8, val=1)
    path = tiny.write_config(folder / "tiny.yaml", data, snapshot_save_iter=1, keep_best="PSNR")
    assert train(path, folder / "log", 3) == status.DONE
    return path


@pytest.fixture
def log(config: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder."""
    return Path(shutil.copytree(config.parent / "log", tmp_path / "log"))


@pytest.mark.parametrize("tampering", TAMPERINGS)
@pytest.mark.parametrize("name", [LATEST, NAME, SAVED[2]])
def test_what_a_run_continues_from_is_intact_or_told(log: Path, name: str, tampering: str) -> None:
    TAMPERINGS[tampering](log / name)
    try:
        found = checkpoint.find_newest(log)
    except UserError as error:
        assert str(log) in error.where
        return
    assert found is not None
    assert found.state["current_iteration"] == (2 if name == SAVED[2] else 3)
    entries = read_entries(log, [path.name for path in found.skipped])
    assert [entry.name for entry in entries] == (SAVED[:2] if name == SAVED[2] else SAVED)


@pytest.mark.slow
@pytest.mark.parametrize("tampering", TAMPERINGS)
@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_was_tampered_with_is_continued_or_told(
    config: Path, log: Path, capsys: pytest.CaptureFixture[str], name: str, tampering: str
) -> None:
    TAMPERINGS[tampering](log / name)
    good = {other: (log / other).read_bytes() for other in SAVED if other != name}
    ended_with = train(config, log, 4)
    printed = capsys.readouterr()
    assert ended_with in (status.DONE, status.USER_ERROR), printed.err
    assert ended_with == status.DONE or len(printed.err.splitlines()) == 1
    assert max(map(len, printed.err.splitlines()), default=0) < 600
    assert good == {other: (log / other).read_bytes() for other in good}, "a good checkpoint is lost"
    if ended_with == status.DONE:
        assert "a new run" not in printed.out
        found = checkpoint.find_newest(log)
        assert found is not None and found.state["current_iteration"] == 4
