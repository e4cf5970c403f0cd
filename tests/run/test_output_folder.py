"""Folders that commands write: whole or not at all, and what is not theirs stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagier.errors import UserError
from imagier.run.output_folder import replace_folder


def test_what_was_written_before_is_replaced_and_what_is_beside_it_stays(tmp_path: Path) -> None:
    out = tmp_path / "old"  # the name of the folder for the time between
    for name in ("a.txt", "b.txt"):
        with replace_folder(out, ["?.txt", "parts"]) as made:
            (made / "parts").mkdir()
            (made / "parts" / name).touch()
            (made / name).touch()
        (out / "notes.md").write_text("mine")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert found == {"old", "old/b.txt", "old/parts", "old/parts/b.txt", "old/notes.md"}


def test_what_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").write_text("before")
    with pytest.raises(ZeroDivisionError), replace_folder(tmp_path / "out", ["*"]) as made:
        (made / "a.txt").write_text("after")
        raise ZeroDivisionError
    assert (tmp_path / "out/a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_made_goes_before_what_is_there(tmp_path: Path) -> None:
    for text in ("before", "after"):
        with replace_folder(tmp_path / "out") as made:
            (made / "a.txt").write_text(text)
    assert (tmp_path / "out/a.txt").read_text() == "after"


def test_an_interruption_while_folders_are_exchanged_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / ".git").mkdir(parents=True)
    (out / "notes.md").write_text("mine")
    (out / "a.txt").write_text("before")
    rename = Path.rename

    def interrupt(self: Path, target: Path) -> Path:
        if self.name == "made":
            raise KeyboardInterrupt
        return rename(self, target)

    with pytest.raises(KeyboardInterrupt), replace_folder(out, ["a.txt"]) as made:
        (made / "a.txt").write_text("after")
        monkeypatch.setattr(Path, "rename", interrupt)
    assert {path.name for path in out.iterdir()} == {".git", "notes.md", "a.txt"}
    assert (out / "a.txt").read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_there_cannot_be_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught, replace_folder(tmp_path / "file/out"):
        pytest.fail("nothing can be written there")
    assert caught.value.code == "unwritable-folder" and [path.name for path in tmp_path.iterdir()] == ["file"]
