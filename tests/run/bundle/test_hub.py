"""Bundles on the Hub: what is asked of its library, and one clear line where that fails. A fake stands for it."""

from __future__ import annotations

import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest
import tiny

from imagier.cli import main
from imagier.errors import UserError
from imagier.run import RunOptions, export, load_generator, train
from imagier.run.bundle import hub

pytest.importorskip("safetensors")


class HTTPError(Exception):
    """What the library raises without a network, which is no OSError."""


class Hub(ModuleType):
    """Keeps what is uploaded in a folder."""

    def __init__(self, store: Path) -> None:
        super().__init__("huggingface_hub")
        self.store = store
        self.token: str | None = "hf_x"
        self.error: Exception | None = None
        self.errors = ModuleType("huggingface_hub.errors")
        self.errors.HTTPError = HTTPError  # type: ignore[attr-defined]

    def get_token(self) -> str | None:
        return self.token

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> str:
        if self.error is not None:
            raise self.error
        (self.store / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        for path in folder_path.rglob("*"):
            name = path.relative_to(folder_path)
            if path.is_file() and any(fnmatch(str(name), pattern) for pattern in allow_patterns):
                (self.store / repo_id / name).parent.mkdir(exist_ok=True)
                shutil.copy(path, self.store / repo_id / name)

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str]) -> str:
        if self.error is not None:
            raise self.error
        fetched = self.store / "cache" / repo_id
        fetched.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if (self.store / repo_id / name).is_file():
                shutil.copy(self.store / repo_id / name, fetched)
        return str(fetched)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    return made


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = tiny.write_data(folder / "data", train=4, val=2)
    train(tiny.config(data, max_iter=2), RunOptions(logdir=folder / "run", device="cpu"))
    return folder / "run"


@pytest.mark.slow
def test_what_was_pushed_is_used_by_its_name(logdir: Path, fake: Hub, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    words = ["export", str(logdir), "--out", str(out), "--format", "safetensors", "--push", "me/tiny"]
    assert main(words) == 0
    made = [path.relative_to(out) for path in out.rglob("*")]
    assert sorted(path.relative_to(fake.store / "me/tiny") for path in (fake.store / "me/tiny").rglob("*")) == sorted(
        made
    )
    (out / "notes.txt").write_text("mine")
    assert main(words) == 0
    assert (out / "notes.txt").is_file() and not (fake.store / "me/tiny" / "notes.txt").exists()
    label = logdir.parent / "data" / "val" / "seg_maps" / "000.png"
    painted = load_generator("hub:me/tiny")({"seg_maps": label})
    assert painted.tobytes() == load_generator(logdir)({"seg_maps": label}).tobytes()
    infer = ["infer", "--checkpoint", "hub:me/tiny", "--input", str(label), "--output_dir", str(tmp_path / "images")]
    assert main(infer) == 0
    assert [path.name for path in (tmp_path / "images").rglob("*.png")] == ["000.png"]


def test_nothing_is_written_without_a_token(logdir: Path, fake: Hub, tmp_path: Path) -> None:
    fake.token = None
    with pytest.raises(UserError) as caught:
        export(logdir, tmp_path / "bundle", formats=["safetensors"], push="me/tiny")
    assert caught.value.code == "no-token" and not (tmp_path / "bundle").exists()


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError) as caught:
        load_generator("hub:me/tiny")
    assert caught.value.code == "not-installed" and "imagier[hub]" in caught.value.advice


@pytest.mark.parametrize("error", [HTTPError("no route\nto host"), OSError("no route"), ValueError("no route")])
def test_what_the_library_raises_becomes_one_line(fake: Hub, error: Exception, tmp_path: Path) -> None:
    fake.error = error
    for ask in (lambda: hub.push(tmp_path, "me/tiny"), lambda: hub.fetch("hub:me/tiny")):
        with pytest.raises(UserError) as caught:
            ask()
        assert (caught.value.code, caught.value.where) == ("hub-failed", "me/tiny")
        assert "no route" in caught.value.what and "\n" not in str(caught.value)


def test_a_wrong_name_and_a_repository_that_is_no_bundle_are_named(fake: Hub) -> None:
    codes = []
    for name in ("hub:tiny", "hub:a/b/c", "hub:me/other"):
        with pytest.raises(UserError) as caught:
            hub.fetch(name)
        codes.append(caught.value.code)
    assert codes == ["wrong-name", "wrong-name", "no-bundle"]
