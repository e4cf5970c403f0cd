"""A bucket, and a server that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from images import noise, png, write
from s3_server import S3Server
from small_config import write as write_config

from imagier.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket as a folder: `set` with paired types in the reference's format, and `unpaired`."""
    folder = tmp_path_factory.mktemp("s3") / "store"
    for i in range(12):
        key = f"{'ab'[i % 2]}/{'deep/' * (i % 3 == 0)}{i:02}.png"
        write(folder / "bucket" / "set" / "images" / key, png(noise(8, 9, seed=i)))
        write(folder / "bucket" / "set" / "seg_maps" / key, png(noise(8, 9, 1, seed=i, below=4)))
    write(folder / "bucket" / "unpaired" / "images" / "top.png", b"top")
    write(folder / "bucket" / "unpaired" / "images" / "s" / "猫.png", b"cat")
    write(folder / "bucket" / "unpaired" / "seg_maps" / "t" / "x.y.png", b"x")
    config = write_config(folder.parent)
    for name, *flags in (("set", "--paired"), ("unpaired",)):
        index = ["data", "index", "--data_root", str(folder / "bucket" / name), "--config", str(config)]
        assert main([*index, *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[S3Server]:
    """A server of that folder, for all tests of a file."""
    server = S3Server(root)
    yield server
    server.kill()


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the credentials of this machine and of its cloud."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
