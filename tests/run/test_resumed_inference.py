"""Inference that was interrupted, or is called again: it makes what is missing, and what would be different now."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from contract.experiment import config_of, write_data
from images import png, write

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.run import RunOptions, generate, train
from imagier.run.experiment import Experiment
from imagier.run.folder_lock import lock_images
from imagier.run.image_files import ImageFolder
from imagier.run.inference import write_images
from imagier.run.made import MadeImages
from imagier.run.progress import count_progress
from imagier.train.runtime import Runtime

from .untrained import replace_weights

CPU = RunOptions(device="cpu")
COUNT = 5


@pytest.fixture(autouse=True)
def checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replace_weights(monkeypatch, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for index in range(COUNT):
        draw(tmp_path / f"in/ab/{index}.png", seed=index)
    return tmp_path / "in"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of images, as they are written."""
    names: list[str] = []
    write_image = ImageFolder.write

    def note(folder: ImageFolder, name: str, image: np.ndarray) -> Path:
        names.append(name)
        return write_image(folder, name, image)

    monkeypatch.setattr(ImageFolder, "write", note)
    return names


def draw(path: Path, seed: int) -> None:
    write(path, png(np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)))


def interrupt_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The process is stopped when it has written so many images."""
    write_image, left = ImageFolder.write, [count]

    def stop(folder: ImageFolder, name: str, image: np.ndarray) -> Path:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return write_image(folder, name, image)

    monkeypatch.setattr(ImageFolder, "write", stop)


def test_an_interrupted_call_goes_on_with_what_is_missing(inputs: Path, written: list[str], tmp_path: Path) -> None:
    config, out = config_of("unit", tmp_path), tmp_path / "out"
    expected = [path.read_bytes() for path in generate(config, tmp_path / "at once", CPU, inputs=inputs)]
    written.clear()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        generate(config, out, CPU, inputs=inputs)
    assert written == ["ab/0", "ab/1"]
    (out / "ab/.2.png.4711.tmp").write_bytes(b"half")  # of a process that was killed
    (out / "ab/.other.png.4711.tmp").write_bytes(b"not ours")
    with (out / ".made-0.jsonl").open("ab") as file:
        file.write(b'["ab/2.png", "12')
    paths = generate(config, out, CPU, inputs=inputs)
    assert written[2:] == ["ab/2", "ab/3", "ab/4"]
    assert [path.read_bytes() for path in paths] == expected
    assert {path.name for path in (out / "ab").iterdir()} == {
        *(f"{i}.png" for i in range(COUNT)),
        ".other.png.4711.tmp",
    }
    assert generate(config, out, CPU, inputs=inputs) == paths and len(written) == COUNT


def test_another_checkpoint_config_seed_or_option_makes_all_of_them_again(
    inputs: Path, written: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    config, out = config_of("munit", tmp_path), tmp_path / "out"

    def count(config: Config = config, options: RunOptions = CPU, **more: object) -> int:
        written.clear()
        generate(config, out, options, inputs=inputs, **more)
        return len(written)

    assert (count(), count()) == (COUNT, 0)
    assert (count(options=RunOptions(device="cpu", seed=1)), count(full_size=True), count(bits=16)) == (COUNT,) * 3
    other = config_of("munit", tmp_path, "inference_args.keep_original_size=false")
    assert (count(other), count(other)) == (COUNT, 0)
    checkpoint.write_bytes(b"others")
    assert (count(other), count(other)) == (COUNT, 0)


def test_an_image_is_made_again_if_its_input_is_another_or_if_it_is_not_what_was_written(
    inputs: Path, written: list[str], tmp_path: Path
) -> None:
    config, out = config_of("unit", tmp_path), tmp_path / "out"
    paths = generate(config, out, CPU, inputs=inputs)
    written.clear()
    draw(inputs / "ab/1.png", seed=9)
    paths[2].unlink()
    paths[3].write_bytes(b"cut off")
    generate(config, out, CPU, inputs=inputs)
    assert written == ["ab/1", "ab/2", "ab/3"]


def test_the_test_set_goes_on_too_on_any_number_of_ranks(written: list[str], tmp_path: Path) -> None:
    write_data(tmp_path / "val")
    val = f"data.val={{roots: [{tmp_path}/val], augmentations: {{resize_h_w: '32, 32'}}}}"
    experiment, out = Experiment(config_of("unit", tmp_path, val)), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("all_reduce_sum", "broadcast"):
            patch.setattr(Runtime, name, lambda runtime, value: value)
        for rank in range(2):
            with pytest.MonkeyPatch.context() as stopped, pytest.raises(KeyboardInterrupt):
                interrupt_after(stopped, 1)
                write_images(experiment, out, CPU, Runtime(torch.device("cpu"), rank=rank, world=2))
    assert len(written) == 2
    paths = write_images(experiment, out, CPU, Runtime(torch.device("cpu")))
    assert len(written) == len(set(written)) == len(paths) == 8
    write_images(experiment, out, CPU, Runtime(torch.device("cpu")))
    assert len(written) == 8  # whatever the lists of other ranks said before
    other = RunOptions(device="cpu", seed=1)
    for calls in (16, 16):
        write_images(experiment, out, other, Runtime(torch.device("cpu")))
        assert len(written) == calls


def test_the_list_of_a_folder_does_not_grow_with_every_call(tmp_path: Path) -> None:
    image = write(tmp_path / "0.png", b"image")
    for call in range(5):
        weights = write(tmp_path / "weights.pt", str(call).encode())
        made = MadeImages(tmp_path, Runtime(torch.device("cpu")), weights, [])
        assert not made.find(image, ["input"])
        made.add(image, ["input"])
    lines = (tmp_path / ".made-0.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == ["0.png", "0.png"]
    made = MadeImages(tmp_path, Runtime(torch.device("cpu")), weights, [])
    assert made.find(image, ["input"]) and not made.find(image, ["another"])
    image.write_bytes(b"other")  # of the same length
    assert not made.find(image, ["input"])


def test_a_second_command_is_kept_out_of_a_folder_while_the_first_one_writes(
    inputs: Path, written: list[str], tmp_path: Path
) -> None:
    """It would remove what the first one is writing, as if that had been killed."""
    config, out = config_of("unit", tmp_path), tmp_path / "out"
    with lock_images(out, Runtime(torch.device("cpu"))), pytest.raises(UserError) as error:
        generate(config, out, CPU, inputs=inputs)
    assert (error.value.where, error.value.code, written) == (str(out), "folder-locked", [])
    paths = generate(config, out, CPU, inputs=inputs)
    assert {path for path in out.rglob("*") if path.is_file()} == {*paths, out / ".made-0.jsonl"}


@pytest.mark.slow
def test_a_killed_command_leaves_no_half_image_and_goes_on_where_it_was(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", train=4, val=2)
    train(tiny.config(data, max_iter=2), RunOptions(logdir=tmp_path / "run", device="cpu"))
    for index in range(40):
        image = np.random.default_rng(index).integers(0, 4, (64, 64, 1)).astype(np.uint8)
        write(tmp_path / f"in/{index:02}.png", png(image))
    command = [sys.executable, "-m", "imagier", "infer", "--logdir", tmp_path / "run", "--input", tmp_path / "in"]
    subprocess.run([*command, "--output", tmp_path / "at once"], check=True)
    out = tmp_path / "out"
    process = subprocess.Popen([*command, "--output", out])
    while len(list(out.glob("*.png"))) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 5 <= len(before) < 40
    subprocess.run([*command, "--output", out], check=True)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "at once").glob("*.png")}
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == expected
    kept = sum(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert kept >= len(before) - 1  # the last one may be written and not yet noted
    assert not list(out.glob(".*.tmp"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "rank", "owns", "is_shown"),
    [(Terminal, 0, True, True), (Terminal, 1, True, False), (Terminal, 0, False, False), (io.StringIO, 0, True, False)],
)
def test_a_bar_is_shown_on_the_terminal_of_the_first_rank_alone(
    stream: Callable[[], io.StringIO],
    rank: int,
    owns: bool,
    is_shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "stderr", stderr := stream())
    monkeypatch.setattr(sys, "stdout", stdout := io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    runtime = Runtime(torch.device("cpu"), rank=rank, world=2)
    with count_progress("painting", 4, RunOptions(owns_process=owns), runtime) as advance:
        for _ in range(4):
            advance(1)
        print("kept")
    assert stdout.getvalue() == "kept\n"  # it may go to a file
    assert ("4 of 4" in stderr.getvalue()) == is_shown
    assert is_shown or stderr.getvalue() == ""
    assert caplog.messages == (["painting: 4 of them"] if stream is io.StringIO else [])
