"""`imagier data build unprojections`: pickles of points become images, and nothing that a pickle asks for is run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from imagier.cli import main
from imagier.errors import UserError
from imagier.tools.unprojections import build_unprojections, unpickle

NAME = "w6xh4"
ROWS = [[0, 1, 7], [3, 5, 70_000], [0, 1, 8], [2, 2, 0]]
FLAT = [number for row in ROWS for number in row]


def write(root: Path, key: str, value: Any, protocol: int = 2) -> Path:
    path = root / "unprojections" / f"{key}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


def read(root: Path, key: str) -> np.ndarray:
    """The numbers of the points, with 0 for none."""
    stored = cv2.imread(str(root / "unprojections" / f"{key}.png"), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(np.int64)
    return (stored[..., 0] << 32) + (stored[..., 1] << 16) + stored[..., 2]


def test_the_last_point_of_a_pixel_stays_and_frames_without_points_are_empty(tmp_path: Path) -> None:
    write(tmp_path, "a/1", None)
    write(tmp_path, "a/2", {NAME: FLAT, "w3xh2": [0, 0, 1]})
    write(tmp_path, "b/1", {NAME: []})
    made = build_unprojections(tmp_path)
    assert (made.frames, made.known, made.resolution) == (3, 0, NAME)
    expected = np.zeros((4, 6), np.int64)
    expected[0, 1], expected[3, 5], expected[2, 2] = 9, 70_001, 1
    np.testing.assert_array_equal(read(tmp_path, "a/2"), expected)
    for key in ("a/1", "b/1"):
        np.testing.assert_array_equal(read(tmp_path, key), np.zeros((4, 6)))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {NAME: FLAT},
        {NAME: np.array(FLAT)},
        {NAME: np.array(FLAT, np.uint16 if max(FLAT) < 2**16 else np.uint32)},
        OrderedDict({NAME: tuple(FLAT)}),
        defaultdict(list, {NAME: [np.int64(number) for number in FLAT]}),
    ],
    ids=["list", "int64", "uint32", "tuple", "scalars"],
)
def test_plain_containers_and_arrays_are_read_in_every_protocol(value: Any, protocol: int) -> None:
    assert unpickle(pickle.dumps(value, protocol), "a")[NAME].tolist() == FLAT


def test_arrays_of_an_older_numpy_are_read() -> None:
    data = pickle.dumps({NAME: np.array(FLAT)}, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert unpickle(data, "a")[NAME].tolist() == FLAT


class Command:
    """Runs a program where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused_before_it_does(tmp_path: Path) -> None:
    path = write(tmp_path, "a/1", {NAME: [Command(tmp_path / "ran")]})
    with pytest.raises(UserError) as caught:
        build_unprojections(tmp_path)
    assert (caught.value.code, caught.value.where) == ("unsafe-pickle", str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "damaged"),
        (b"\x80\x02}q\x00X", "damaged"),
        (b"cos\nsystem\n(S'true'\ntR.", "unsafe-pickle"),
        ([1, 2, 3], "not-points"),
        (np.arange(3), "not-points"),
        ({1: FLAT}, "not-points"),
        ({"large": FLAT}, "not-points"),
        ({NAME: FLAT[:-1]}, "not-points"),
        ({NAME: [0, 6, 1]}, "not-points"),
        ({NAME: [0, -1, 1]}, "not-points"),
        ({NAME: [0, 1, -1]}, "not-points"),
        ({NAME: [0, 1, 2**48]}, "not-points"),
        ({NAME: [0, 1, 2**63]}, "not-points"),
        ({NAME: [0.0, 1.0, 2.0]}, "not-points"),
        ({NAME: [[0, 1], [2]]}, "not-points"),
        ({NAME: ["a", "b", "c"]}, "not-points"),
        (None, "no-points"),
    ],
)
def test_what_is_no_pickle_of_points_is_the_users_mistake(tmp_path: Path, value: Any, code: str) -> None:
    write(tmp_path, "a/1", value)
    with pytest.raises(UserError) as caught:
        build_unprojections(tmp_path)
    assert caught.value.code == code and str(tmp_path / "unprojections") in str(caught.value.where)


def test_a_frame_without_the_resolution_of_the_others_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/1", {NAME: FLAT})
    path = write(tmp_path, "a/2", {"w3xh2": [0, 0, 1]})
    with pytest.raises(UserError) as caught:
        build_unprojections(tmp_path)
    assert (caught.value.code, caught.value.where) == ("other-resolution", str(path))


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    for key in ("a/1", "a/2"):
        write(tmp_path, key, {NAME: FLAT})
    build_unprojections(tmp_path)
    kept, lost = (tmp_path / "unprojections/a" / name for name in ("1.png", "2.png"))
    before = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    leftover = kept.with_name(f".2.png.{os.getpid()}.tmp")
    leftover.write_bytes(b"half")
    assert build_unprojections(tmp_path).known == 1
    assert (kept.stat().st_mtime_ns, lost.read_bytes()) == before and not leftover.exists()


def test_images_of_two_resolutions_are_not_mixed(tmp_path: Path) -> None:
    for key in ("a/1", "a/2"):
        write(tmp_path, key, {NAME: FLAT, "w3xh2": [0, 0, 1]})
    build_unprojections(tmp_path)
    (tmp_path / "unprojections/a/2.png").unlink()
    with pytest.raises(UserError) as caught:
        build_unprojections(tmp_path, resolution="w3xh2")
    assert caught.value.code == "other-resolution" and not (tmp_path / "unprojections/a/2.png").exists()


def test_the_command_reads_a_store_and_writes_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "old", "a/1", {NAME: FLAT, "w3xh2": [1, 2, 5]})
    (tmp_path / "old.yaml").write_text("data: {input_types: [unprojections: {ext: pkl}]}\n")
    store = ["--config", str(tmp_path / "old.yaml"), "--data_root", str(tmp_path / "old")]
    assert main(["data", "build", "lmdb", *store, "--output_root", str(tmp_path / "lmdb"), "--paired"]) == 0
    call = ["data", "build", "unprojections", str(tmp_path / "lmdb"), "--resolution", "w3xh2"]
    assert main(call) == 2 and "--output_root" in capsys.readouterr().err
    assert main([*call, "--output_root", str(tmp_path / "new")]) == 0
    assert "1 frames of w3xh2" in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path / "new", "a/1"), [[0, 0, 0], [0, 0, 6]])
