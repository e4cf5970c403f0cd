"""A look at one file: what is noted, and that what is wrong is noted and not raised."""

from __future__ import annotations

import io
import json

import av
import cv2
import numpy as np
import pytest
from doctoring import IMAGES, MAPS, areas, grown, through_jpeg
from images import Memory, encoded, noise, png, smooth
from PIL import Image
from videos import video

from imagier.data.decoding.sample import InputType, load
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex
from imagier.errors import UserError
from imagier.tools.doctor.file_stats import FileStats, Flag, holds_mixtures, image, look, luma


def at(data: bytes, kind: InputType = IMAGES, *, use_dont_care: bool = False) -> FileStats:
    """A look at a file with these bytes."""
    return look(Memory({(kind.name, "s/a"): data}), "s/a", kind, use_dont_care=use_dont_care)


def flags(data: bytes, kind: InputType = IMAGES) -> Flag:
    return Flag(int(at(data, kind).note["flags"]))


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
    "16 bits": (png(noise(20, 20, below=65536)), InputType(name="images", ext="png", num_channels=3, normalize=True)),
    "class": (png(np.full((20, 20, 1), 7, np.uint8)), MAPS),
    "colored map": (png(smooth(20, 20)), MAPS),
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
    unreadable = {"empty", "cut off", "no image"}
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
def test_a_turned_image_is_flagged_and_noted_as_it_is_read(orientation: int) -> None:
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


def test_an_image_of_one_color_is_flagged_and_one_pixel_makes_the_difference() -> None:
    array = np.full((20, 20, 3), (10, 200, 30), np.uint8)
    assert flags(png(array)) & Flag.CONSTANT
    array[7, 7, 0] += 1
    assert not flags(png(array)) & Flag.CONSTANT


def test_a_float_image_with_nan_is_flagged() -> None:
    kind = InputType(name="depth", ext="tiff", num_channels=1)
    array = np.random.default_rng(0).random((20, 20), np.float32)
    assert not flags(cv2.imencode(".tiff", array)[1].tobytes(), kind) & Flag.NOT_FINITE
    array[3, 3] = np.nan
    assert flags(cv2.imencode(".tiff", array)[1].tobytes(), kind) & Flag.NOT_FINITE


def test_key_points_are_read_too() -> None:
    kind = InputType(name="points", ext="json", is_points=True)
    whole = at(json.dumps([[1, 2], [3, 4], [5, 6]]).encode(), kind).note
    assert (whole["flags"], whole["height"], whole["width"]) == (0, 3, 2)
    seen = at(b"[[1, 2], [3", kind)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "s/a" in seen.message


FILM = InputType(name="images", ext="mkv", num_channels=3)


class Films(Memory):
    """A source of video files."""

    def extension(self, kind: str) -> str:
        return "mkv"


def test_all_frames_of_a_video_are_looked_at() -> None:
    frames = [smooth(32, 48, seed=i) for i in range(5)]
    frames[3][:] = 255
    frames[4][:] = 0
    source = Films({("images", "s"): video(frames)})
    seen = look(source, "s", FILM, use_dont_care=False)
    assert (seen.note["height"], seen.note["width"], seen.note["low"], seen.note["high"]) == (32, 48, 0, 255)
    assert seen.message == ""
    np.testing.assert_array_equal(image(source, "s", FILM), frames[2])
    other = Films({("images", "s"): video([*frames[:4], frames[0]])})
    assert look(other, "s", FILM, use_dont_care=False).note["digest"] != seen.note["digest"]


def test_a_video_that_is_cut_off_is_noted() -> None:
    data = video([smooth(32, 48, seed=i) for i in range(5)])
    seen = look(Films({("images", "s"): data[: len(data) // 2]}), "s", FILM, use_dont_care=False)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert seen.message


def test_a_film_without_a_frame_is_noted() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        container.start_encoding()
    seen = look(Films({("images", "s"): file.getvalue()}), "s", FILM, use_dont_care=False)
    assert seen.note["flags"] == Flag.UNREADABLE
    assert "shows no frame" in seen.message


def test_a_film_is_of_one_color_only_if_all_of_it_is() -> None:
    black, other = np.zeros((32, 48, 3), np.uint8), smooth(32, 48)
    for frames, constant in (([other, black, other], False), ([black] * 3, True)):
        seen = look(Films({("images", "s"): video(frames)}), "s", FILM, use_dont_care=False)
        assert bool(seen.note["flags"] & Flag.CONSTANT) == constant


@pytest.mark.parametrize("normalize", [False, True])
def test_frames_of_more_than_8_bits_are_numbers_and_no_light(normalize: bool) -> None:
    kind = InputType(name="images", ext="mkv", num_channels=1, normalize=normalize)
    source = Films({("images", "s"): video([noise(32, 48, 1, below=65536)] * 3, pixels="gray10le")})
    tracks = FrameIndex(source, [kind], OpenVideos(), use_dont_care=False)
    seen = look(source, "s", kind, use_dont_care=False)
    if normalize:
        with pytest.raises(UserError) as raised:
            tracks.load(tracks.sequences[0], 0)
        assert seen.message.partition(": ")[2] == str(raised.value).partition(": ")[2]
    else:
        tracks.load(tracks.sequences[0], 0)
    assert seen.note["flags"] == (Flag.WRONG_FORM if normalize else 0)


def smoothed(names: np.ndarray, how: str) -> np.ndarray:
    """A map as one of the usual mistakes leaves it."""
    if how == "jpeg":
        return through_jpeg(names, 80)
    if how == "blur":
        return cv2.GaussianBlur(names, (0, 0), 1.5)[..., None]
    interpolation = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[how]
    return grown(names, 0.7, interpolation)


@pytest.mark.parametrize("classes", [2, 4, 12, 150])
@pytest.mark.parametrize("factor", [1, 0.25, 1.5])
def test_clean_maps_hold_no_mixtures_also_if_resized_by_nearest_neighbor(classes: int, factor: float) -> None:
    for seed in range(10):
        names = areas(96, seed=seed, classes=12, below=classes)
        assert not holds_mixtures(grown(names, factor, cv2.INTER_NEAREST)[..., 0])


@pytest.mark.parametrize("how", ["linear", "area", "blur", "jpeg"])
@pytest.mark.parametrize("classes", [20, 150])
def test_maps_hold_mixtures_after_they_were_smoothed_or_compressed(classes: int, how: str) -> None:
    found = [holds_mixtures(smoothed(areas(96, seed=i, classes=12, below=classes), how)[..., 0]) for i in range(10)]
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize("how", ["linear", "area", "blur", "jpeg"])
def test_a_mask_of_two_values_holds_mixtures_after_it_was_smoothed(how: str) -> None:
    mask = (areas(96, seed=1, classes=2) % 2 * 255).astype(np.uint8)
    assert not holds_mixtures(mask[..., 0])
    assert holds_mixtures(smoothed(mask, how)[..., 0])


def test_lines_of_the_value_for_nothing_between_areas_are_no_mixtures() -> None:
    names = areas(96, seed=3, classes=12)[..., 0]
    edges = np.zeros(names.shape, bool)
    edges[:, 1:] |= names[:, 1:] != names[:, :-1]
    edges[1:] |= names[1:] != names[:-1]
    assert not holds_mixtures(np.where(edges, np.uint8(255), names))


def test_a_map_of_few_pixels_is_not_judged() -> None:
    assert not holds_mixtures(noise(2, 2, 1)[..., 0])
    assert not holds_mixtures(noise(1, 500, 1, below=3)[..., 0][:, :3])


@pytest.mark.parametrize("side", [4, 8])
def test_luma_is_the_mean_of_the_weighted_colors_in_each_cell(side: int) -> None:
    image = noise(32, 48)
    weighted = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    cells = weighted.reshape(side, 32 // side, side, 48 // side).mean(axis=(1, 3))
    np.testing.assert_allclose(luma(image, side), cells, atol=1)  # OpenCV rounds the mean of each color


def test_luma_is_the_same_for_8_bits_16_bits_and_floats() -> None:
    image = noise(16, 16)
    expected = luma(image, 8)
    np.testing.assert_allclose(luma(image.astype(np.uint16) * 257, 8), expected, atol=1)
    np.testing.assert_allclose(luma(image.astype(np.float32) / 255, 8), expected, atol=1)


def test_luma_of_a_broken_float_image_is_a_number() -> None:
    image = np.full((8, 8, 1), np.nan, np.float32)
    assert np.isfinite(luma(image, 4)).all()
