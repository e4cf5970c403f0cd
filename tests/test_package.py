"""The wheel, as a stranger gets it: built from the source archive, installed outside of the repository, and used."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import cv2
import pytest
from images import smooth

from imagier import __version__

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

SMALL = ["max_iter=3", "gen.num_filters=2", "dis.num_filters=2", "data.train.batch_size=2", "data.val.batch_size=2"]


def run(*words: object, folder: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a folder, which sees no source of ours."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive of the files that git knows, and the wheel that was built from it alone."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    tracked = run("git", "ls-files", "-z", folder=ROOT).stdout.split("\0")
    for name in filter(None, tracked):
        source, target = ROOT / name, folder / "source" / name
        if source.is_file():  # not the link to a folder
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    python_path = os.environ.get("PYTHONPATH", "")  # where `build` may lie; the source has an imagier of its own
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source"]
    run(*command, folder=folder, PYTHONPATH=python_path)
    return folder


@pytest.fixture(scope="module")
def bare(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that has the wheel, and sees this environment's other packages."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # a line of a .pth file is a folder on the path: an editable install in there is not followed
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = dist.glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        programs / "python",
        "install",
        "--no-deps",
        "--ignore-installed",
    ]
    run(*install, "--no-index", wheel, folder=folder)
    return programs


def test_the_wheel_holds_every_file_of_the_package(dist: Path) -> None:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    tracked = set(filter(None, run("git", "ls-files", "-z", "imagier", folder=ROOT).stdout.split("\0")))
    assert {name for name in names if ".dist-info/" not in name} == tracked
    info = f"{path.name.removesuffix('-py3-none-any.whl')}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names


def test_the_source_archive_holds_what_a_reader_needs(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md")}
    assert {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "pyproject.toml", "constraints.txt"} | pages <= names


def test_a_stranger_trains_on_a_packaged_example(bare: Path, tmp_path: Path) -> None:
    imagier = bare / "imagier"
    where = run(bare / "python", "-c", "import imagier; print(imagier.__file__)", folder=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(bare.parent)
    assert "init" in run(imagier, "--help", folder=tmp_path).stdout
    assert run(imagier, "--version", folder=tmp_path).stdout == f"imagier {__version__}\n"
    run(imagier, "init", "spade/openmoji64", "emoji", folder=tmp_path)
    emoji = tmp_path / "emoji"
    for split in ("train", "val"):
        for kind, channels in (("images", 3), ("edge_maps", 1)):
            folder = emoji / "data" / "openmoji64" / split / kind
            folder.mkdir(parents=True)
            for index in range(4):
                cv2.imwrite(str(folder / f"{index}.png"), smooth(64, 64, channels, seed=index))
    command = ["train", "--config", "openmoji64.yaml", "--logdir", "logs/openmoji64", "--device", "cpu"]
    run(imagier, *command, *SMALL, folder=emoji)
    assert (emoji / "logs" / "openmoji64" / "report.html").is_file()
    run(imagier, "infer", "--logdir", "logs/openmoji64", "--output", "out", folder=emoji)
    assert len(list((emoji / "out").rglob("*.jpg"))) == 4


def test_a_page_of_the_wheel_is_made(bare: Path, tmp_path: Path) -> None:
    """Its templates lie beside the code."""
    run(bare / "imagier", "init", "unit", ".", folder=tmp_path)
    for split in ("train", "val"):
        for kind in ("images_a", "images_b"):
            folder = tmp_path / "data" / split / kind
            folder.mkdir(parents=True)
            for index in range(2):
                cv2.imwrite(str(folder / f"{index}.jpg"), smooth(288, 288, seed=index))
    run(bare / "imagier", "data", "check", "unit.yaml", "--html", "check.html", folder=tmp_path, check=False)
    assert "</html>" in (tmp_path / "check.html").read_text()
