"""A look at one file: what is noted, and that what is wrong is noted and not raised."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from doctoring import IMAGES, MAPS, areas
from pictures import Memory, encoded, noise, png, smooth
from PIL import Image

from imagier.data.doctor.look import look, picture
from imagier.data.doctor.note import Flag, Look
from imagier.data.sample import InputType, load
from imagier.errors import UserError


def at(data: bytes, kind: InputType = IMAGES, *, use_dont_care: bool = False) -> Look:
    """A look at a file with these bytes."""
    return look(Memory({(kind.name, "s/a"): data}), "s/a", kind, use_dont_care=use_dont_care)


def flags(data: bytes, kind: InputType = IMAGES) -> Flag:
    return Flag(int(at(data, kind).note["flags"]))


def turned(picture: np.ndarray, orientation: int) -> bytes:
    """A JPEG with an orientation in its EXIF part."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_good_picture_is_noted_as_numpy_sees_it() -> None:
    array = smooth(20, 30, seed=4)
    seen = at(png(array))
    assert (seen.note["height"], seen.note["width"], seen.note["channels"], seen.note["bits"]) == (20, 30, 3, 8)
    assert (seen.note["low"], seen.note["high"]) == (array.min(), array.max())
    assert seen.note["flags"] == 0
    assert seen.message == ""
    assert seen.values is None


def test_the_values_of_a_map_are_counted() -> None:
    array = areas(40, seed=2)
    seen = at(png(array), MAPS)
    assert seen.values is not None
    for mine, numpys in zip(seen.values, np.unique(array, return_counts=True)):
        np.testing.assert_array_equal(mine, numpys)


BROKEN = {
    "empty": (b"", IMAGES),
    "cut off": (png(smooth(20, 20))[:-20], IMAGES),
    "no picture": (b"hello", IMAGES),
    "grey": (png(smooth(20, 20, 1)), IMAGES),
    "alpha": (encoded(smooth(20, 20, 4), "PNG"), IMAGES),
    "16 bits": (png(noise(20, 20, below=65536)), InputType(name="images", ext="png", num_channels=3, normalize=True)),
    "class": (png(np.full((20, 20, 1), 7, np.uint8)), MAPS),
    "coloured map": (png(smooth(20, 20)), MAPS),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_ends_a_run_is_noted_with_the_runs_own_words(name: str) -> None:
    data, kind = BROKEN[name]
    with pytest.raises(UserError) as raised:
        load(Memory({(kind.name, "s/a"): data}), kind, "s/a", False)
    assert at(data, kind).message == str(raised.value)


def test_what_is_wrong_is_told_apart() -> None:
    found = {
        name: flags(data, kind) & (Flag.UNREADABLE | Flag.WRONG_FORM | Flag.WRONG_CLASS)
        for name, (data, kind) in BROKEN.items()
    }
    unreadable = {"empty", "cut off", "no picture"}
    assert found == {
        name: Flag.UNREADABLE if name in unreadable else Flag.WRONG_CLASS if name == "class" else Flag.WRONG_FORM
        for name in BROKEN
    }


def test_a_file_that_is_gone_is_noted() -> None:
    seen = look(Memory({}), "s/a", IMAGES, use_dont_care=False)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "memory/images/s/a.png" in seen.message


def test_a_class_for_all_others_makes_every_class_right() -> None:
    assert at(png(np.full((20, 20, 1), 7, np.uint8)), MAPS, use_dont_care=True).message == ""


def test_the_digest_is_that_of_the_pixels_and_not_of_the_file() -> None:
    array = smooth(20, 30)
    first, again = encoded(array, "PNG", compress_level=9), encoded(array, "PNG", compress_level=1)
    assert first != again
    assert at(first).note["digest"] == at(again).note["digest"]
    other = array.copy()
    other[3, 4, 1] ^= 1
    assert at(png(other)).note["digest"] != at(first).note["digest"]
    assert at(png(array.reshape(30, 20, 3))).note["digest"] != at(first).note["digest"]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_turned_picture_is_flagged_and_noted_as_it_is_read(orientation: int) -> None:
    kind = InputType(name="images", ext="jpg", num_channels=3)
    seen = at(turned(smooth(20, 30), orientation), kind)
    assert bool(seen.note["flags"] & Flag.TURNED) == (orientation != 1)
    assert (seen.note["height"], seen.note["width"]) == ((30, 20) if orientation == 6 else (20, 30))


def test_lossy_formats_are_flagged_whatever_the_name_says() -> None:
    array = smooth(20, 20)
    assert flags(encoded(array, "JPEG")) & Flag.LOSSY
    assert flags(encoded(array, "WEBP")) & Flag.LOSSY
    assert not flags(encoded(array, "WEBP", lossless=True)) & Flag.LOSSY
    assert not flags(png(array)) & Flag.LOSSY


def test_a_picture_of_one_colour_is_flagged_and_one_pixel_makes_the_difference() -> None:
    array = np.full((20, 20, 3), (10, 200, 30), np.uint8)
    assert flags(png(array)) & Flag.CONSTANT
    array[7, 7, 0] += 1
    assert not flags(png(array)) & Flag.CONSTANT


def test_a_float_picture_with_nan_is_flagged() -> None:
    kind = InputType(name="depth", ext="tiff", num_channels=1)
    array = np.random.default_rng(0).random((20, 20), np.float32)
    assert not flags(cv2.imencode(".tiff", array)[1].tobytes(), kind) & Flag.NOT_FINITE
    array[3, 3] = np.nan
    assert flags(cv2.imencode(".tiff", array)[1].tobytes(), kind) & Flag.NOT_FINITE


def test_key_points_are_read_too() -> None:
    kind = InputType(name="points", ext="json", is_points=True)
    assert at(json.dumps([[1, 2], [3, 4]]).encode(), kind).note["flags"] == 0
    seen = at(b"[[1, 2], [3", kind)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "s/a" in seen.message


class Films(Memory):
    """A source of video files."""

    def extension(self, kind: str) -> str:
        return "mkv"


def film(folder: Path, frames: list[np.ndarray]) -> bytes:
    """A video file that keeps every value."""
    import av

    with av.open(str(folder / "film.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return (folder / "film.mkv").read_bytes()


def test_all_frames_of_a_video_are_looked_at(tmp_path: Path) -> None:
    frames = [smooth(32, 48, seed=i) for i in range(5)]
    frames[3][:] = 255
    frames[4][:] = 0
    kind = InputType(name="images", ext="mkv", num_channels=3)
    source = Films({("images", "s"): film(tmp_path, frames)})
    seen = look(source, "s", kind, use_dont_care=False)
    assert (seen.note["height"], seen.note["width"], seen.note["low"], seen.note["high"]) == (32, 48, 0, 255)
    assert seen.message == ""
    np.testing.assert_array_equal(picture(source, "s", kind), frames[2])
    other = Films({("images", "s"): film(tmp_path, [*frames[:4], frames[0]])})
    assert look(other, "s", kind, use_dont_care=False).note["digest"] != seen.note["digest"]


def test_a_video_that_is_cut_off_is_noted(tmp_path: Path) -> None:
    data = film(tmp_path, [smooth(32, 48, seed=i) for i in range(5)])
    kind = InputType(name="images", ext="mkv", num_channels=3)
    seen = look(Films({("images", "s"): data[: len(data) // 2]}), "s", kind, use_dont_care=False)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert seen.message
