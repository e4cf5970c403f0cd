"""A look at one file: what is noted, and that what is wrong is noted and not raised."""

from __future__ import annotations

import io
import json

import av
import cv2
import numpy as np
import pytest
from doctoring import IMAGES, MAPS, areas
from images import Memory, encoded, noise, png, smooth
from PIL import Image
from small_data import codec_for
from videos import video

from imagier.data.codec import Codec
from imagier.data.decoding.decode import EncodedFile
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex
from imagier.errors import UserError
from imagier.tools.doctor.file_stats import FileStats, Flag, compute_luma, load_image, read_stats


def at(data: bytes, codec: Codec = IMAGES) -> FileStats:
    """A look at a file with these bytes."""
    return read_stats(Memory({(codec.name, "s/a"): data}), "s/a", codec)


def flags(data: bytes, codec: Codec = IMAGES) -> Flag:
    return Flag(int(at(data, codec).note["flags"]))


def turned(image: np.ndarray, orientation: int) -> bytes:
    """A JPEG with an orientation in its EXIF part."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_good_image_is_noted_as_numpy_sees_it() -> None:
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
    "no image": (b"hello", IMAGES),
    "gray": (png(smooth(20, 20, 1)), IMAGES),
    "alpha": (encoded(smooth(20, 20, 4), "PNG"), IMAGES),
    "16 bits": (png(noise(20, 20, below=65536)), codec_for(name="images", ext="png", num_channels=3, normalize=True)),
    "class": (png(np.full((20, 20, 1), 7, np.uint8)), MAPS),
    "colored map": (png(smooth(20, 20)), MAPS),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_ends_a_run_is_noted_with_the_runs_own_words(name: str) -> None:
    data, kind = BROKEN[name]
    with pytest.raises(UserError) as raised:
        kind.load(EncodedFile.read(Memory({(kind.name, "s/a"): data}), kind.name, "s/a"))
    assert at(data, kind).message == str(raised.value)


def test_what_is_wrong_is_told_apart() -> None:
    found = {
        name: flags(data, kind) & (Flag.UNREADABLE | Flag.WRONG_FORM | Flag.WRONG_CLASS)
        for name, (data, kind) in BROKEN.items()
    }
    unreadable = {"empty", "cut off", "no image"}
    assert found == {
        name: Flag.UNREADABLE if name in unreadable else Flag.WRONG_CLASS if name == "class" else Flag.WRONG_FORM
        for name in BROKEN
    }


def test_a_file_that_is_gone_is_noted() -> None:
    seen = read_stats(Memory({}), "s/a", IMAGES)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "memory/images/s/a.png" in seen.message


def test_a_class_for_all_others_makes_every_class_right() -> None:
    maps = codec_for(name="maps", ext="png", num_classes=4, use_dont_care=True)
    assert at(png(np.full((20, 20, 1), 7, np.uint8)), maps).message == ""


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
def test_a_turned_image_is_flagged_and_noted_as_it_is_read(orientation: int) -> None:
    kind = codec_for(name="images", ext="jpg", num_channels=3)
    seen = at(turned(smooth(20, 30), orientation), kind)
    assert bool(seen.note["flags"] & Flag.ROTATED) == (orientation != 1)
    assert (seen.note["height"], seen.note["width"]) == ((30, 20) if orientation == 6 else (20, 30))


def test_lossy_formats_are_flagged_whatever_the_name_says() -> None:
    array = smooth(20, 20)
    assert flags(encoded(array, "JPEG")) & Flag.LOSSY
    assert flags(encoded(array, "WEBP")) & Flag.LOSSY
    assert not flags(encoded(array, "WEBP", lossless=True)) & Flag.LOSSY
    assert not flags(png(array)) & Flag.LOSSY


def test_an_image_of_one_color_is_flagged_and_one_pixel_makes_the_difference() -> None:
    array = np.full((20, 20, 3), (10, 200, 30), np.uint8)
    assert flags(png(array)) & Flag.CONSTANT
    array[7, 7, 0] += 1
    assert not flags(png(array)) & Flag.CONSTANT


def test_a_float_image_with_nan_is_flagged() -> None:
    kind = codec_for(name="depth", ext="tiff", num_channels=1)
    array = np.random.default_rng(0).random((20, 20), np.float32)
    assert not flags(cv2.imencode(".tiff", array)[1].tobytes(), kind) & Flag.NOT_FINITE
    array[3, 3] = np.nan
    assert flags(cv2.imencode(".tiff", array)[1].tobytes(), kind) & Flag.NOT_FINITE


def test_key_points_are_read_too() -> None:
    kind = codec_for(name="points", ext="json", is_points=True)
    whole = at(json.dumps([[1, 2], [3, 4], [5, 6]]).encode(), kind).note
    assert (whole["flags"], whole["height"], whole["width"]) == (0, 3, 2)
    seen = at(b"[[1, 2], [3", kind)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "s/a" in seen.message


FILM = codec_for(name="images", ext="mkv", num_channels=3)


class Films(Memory):
    """A source of video files."""

    def extension(self, kind: str) -> str:
        return "mkv"


def test_all_frames_of_a_video_are_looked_at() -> None:
    frames = [smooth(32, 48, seed=i) for i in range(5)]
    frames[3][:] = 255
    frames[4][:] = 0
    source = Films({("images", "s"): video(frames)})
    seen = read_stats(source, "s", FILM)
    assert (seen.note["height"], seen.note["width"], seen.note["low"], seen.note["high"]) == (32, 48, 0, 255)
    assert seen.message == ""
    np.testing.assert_array_equal(load_image(source, "s", FILM), frames[2])
    other = Films({("images", "s"): video([*frames[:4], frames[0]])})
    assert read_stats(other, "s", FILM).note["digest"] != seen.note["digest"]


def test_a_video_that_is_cut_off_is_noted() -> None:
    data = video([smooth(32, 48, seed=i) for i in range(5)])
    seen = read_stats(Films({("images", "s"): data[: len(data) // 2]}), "s", FILM)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert seen.message


def test_a_film_without_a_frame_is_noted() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        container.start_encoding()
    seen = read_stats(Films({("images", "s"): file.getvalue()}), "s", FILM)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "shows no frame" in seen.message


def test_a_film_is_of_one_color_only_if_all_of_it_is() -> None:
    black, other = np.zeros((32, 48, 3), np.uint8), smooth(32, 48)
    for frames, constant in (([other, black, other], False), ([black] * 3, True)):
        seen = read_stats(Films({("images", "s"): video(frames)}), "s", FILM)
        assert bool(seen.note["flags"] & Flag.CONSTANT) == constant


@pytest.mark.parametrize("normalize", [False, True])
def test_frames_of_more_than_8_bits_are_numbers_and_no_light(normalize: bool) -> None:
    kind = codec_for(name="images", ext="mkv", num_channels=1, normalize=normalize)
    source = Films({("images", "s"): video([noise(32, 48, 1, below=65536)] * 3, pixels="gray10le")})
    tracks = FrameIndex(source, [kind], OpenVideos())
    seen = read_stats(source, "s", kind)
    if normalize:
        with pytest.raises(UserError) as raised:
            tracks.load(tracks.sequences[0], 0)
        assert seen.message.partition(": ")[2] == str(raised.value).partition(": ")[2]
    else:
        tracks.load(tracks.sequences[0], 0)
    assert seen.note["flags"] == (Flag.WRONG_FORM if normalize else 0)


@pytest.mark.parametrize("side", [4, 8])
def test_luma_is_the_mean_of_the_weighted_colors_in_each_cell(side: int) -> None:
    image = noise(32, 48)
    weighted = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    cells = weighted.reshape(side, 32 // side, side, 48 // side).mean(axis=(1, 3))
    np.testing.assert_allclose(compute_luma(image, side), cells, atol=1)  # OpenCV rounds the mean of each color


def test_luma_is_the_same_for_8_bits_16_bits_and_floats() -> None:
    image = noise(16, 16)
    expected = compute_luma(image, 8)
    np.testing.assert_allclose(compute_luma(image.astype(np.uint16) * 257, 8), expected, atol=1)
    np.testing.assert_allclose(compute_luma(image.astype(np.float32) / 255, 8), expected, atol=1)


def test_luma_of_a_broken_float_image_is_a_number() -> None:
    image = np.full((8, 8, 1), np.nan, np.float32)
    assert np.isfinite(compute_luma(image, 4)).all()
