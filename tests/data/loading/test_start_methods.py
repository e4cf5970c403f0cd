"""Runs whose data are read by processes that Python starts in any way."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from counted import Counted, loader

from imagier.data.loading.start_methods import start_processes
from imagier.errors import UserError
from imagier.recipe import Position

SCRIPT = """\
import multiprocessing, sys

multiprocessing.set_start_method(sys.argv[1])
from imagier.run import RunOptions, train

options = RunOptions(logdir=sys.argv[3], device="cpu", num_workers=2)
print(train(sys.argv[2], options, overrides=sys.argv[4:]).outcome)
"""
"""A user's script. It has no `if __name__ == "__main__"`."""

CODEC = """\
from imagier.data.codecs import image


class Codec(image.Codec):
    def __init__(self, input_type, *, gain: float = 1.0):
        super().__init__(input_type)
        self.gain = gain
"""

DATASET = """\
from imagier.data.datasets import paired_images


class Dataset(paired_images.Dataset):
    def __init__(self, spec, *, extra: int = 1):
        super().__init__(spec)
"""


@pytest.fixture(params=["spawn", "forkserver"])
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


class WithFunction(Counted):
    """Holds what cannot be sent to another process."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.double = lambda x: 2 * x


class Unwilling:
    """Not to be sent either, for a reason that does not speak of it."""

    def __reduce__(self) -> str:
        raise ValueError("no copies")


def test_a_data_set_that_cannot_be_sent_is_named(method: str) -> None:
    before = sys.modules["__main__"].__spec__
    with pytest.raises(UserError) as caught:
        next(loader(WithFunction(4), 2, num_workers=1).stream(Position()))
    assert (caught.value.code, caught.value.where) == ("unpicklable-dataset", f"{__name__}.WithFunction")
    assert sys.modules["__main__"].__spec__ is before
    next(loader(WithFunction(4), 2, num_workers=0).stream(Position()))  # nothing is sent


def test_the_codec_that_cannot_be_sent_is_named(method: str) -> None:
    dataset = Counted(4)
    dataset.spec = replace(dataset.spec, codecs=[Unwilling()])  # type: ignore[list-item]
    with pytest.raises(UserError) as caught:
        next(loader(dataset, 2, num_workers=1).stream(Position()))
    assert (caught.value.code, caught.value.where) == ("unpicklable-dataset", f"{__name__}.Unwilling")


def test_the_script_is_there_for_a_data_set_that_holds_something_of_it(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock can be sent to a process that is about to start, and only there."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(Unwilling, "__module__", "__main__")
    monkeypatch.setattr(main, "Unwilling", Unwilling, raising=False)
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    for held, is_needed in ((Unwilling, True), (multiprocessing.Lock(), False)):
        with start_processes([[held]]):
            assert hasattr(main, "__file__") == is_needed
    assert hasattr(main, "__file__")


@pytest.mark.slow  # every process imports torch
@pytest.mark.parametrize("start_method", ["spawn", "forkserver", "fork"])
def test_a_script_without_guard_trains_with_modules_of_the_users(tmp_path: Path, start_method: str) -> None:
    data = tiny.write_data(tmp_path / "data", train=4, val=2)
    types = [
        {"images": {"ext": "png", "num_channels": 3, "normalize": True, "type": "my_lab.codec", "gain": 2.0}},
        {"seg_maps": {"ext": "png", "num_channels": 1, "is_mask": True}},
    ]
    content = tiny.config(data, max_iter=3)
    content["data"] |= {"type": "my_lab.pairs", "input_types": types}
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "codec.py").write_text(CODEC)
    (tmp_path / "my_lab" / "pairs.py").write_text(DATASET)
    (tmp_path / "mine.yaml").write_text(tiny.yaml.safe_dump(content))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", start_method, "mine.yaml", "log"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]
