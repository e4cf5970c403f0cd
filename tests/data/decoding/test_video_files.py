"""Frames of video files by their number, in whatever order, container and codec; and files that are no good."""

from __future__ import annotations

import io
import random
import struct
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
from images import noise
from videos import counting, number_of, numbered, video

from imagier.data.decoding.video_files import MOST_OPEN, OpenVideos, Video, count_frames
from imagier.errors import UserError

LENGTH = 45

H264 = {"codec": "libx264", "pixels": "yuv420p"}
FORMS = {
    "ffv1 in mkv": {},
    "h264 with frames out of order in mp4": {**H264, "form": "mp4"},
    "h264 in mov": {**H264, "form": "mov"},
    "h264 in a fragmented mp4": {**H264, "form": "mp4", "muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "h264 in open groups": {**H264, "form": "mp4", "x264-params": "open-gop=1:bframes=3"},
    "h264 without key images": {**H264, "x264-params": "intra-refresh=1:keyint=20"},
    "h265 in open groups": {"form": "mp4", "codec": "libx265", "pixels": "yuv420p"}
    | {"x265-params": "open-gop=1:bframes=3:keyint=10:log-level=none"},
    "vp9 in webm": {"form": "webm", "codec": "libvpx-vp9", "pixels": "yuv420p", "deadline": "realtime"},
    "vp8 in webm": {"form": "webm", "codec": "libvpx", "pixels": "yuv420p", "deadline": "realtime"},
    "mpeg4 in avi": {"form": "avi", "codec": "mpeg4", "pixels": "yuv420p"},
}


def opened(data: bytes, **options: object) -> Video:
    return Video(io.BytesIO(data), "a/film", **options)  # type: ignore[arg-type]


def counted(data: bytes) -> int:
    return count_frames(io.BytesIO(data), "a/film")


def refused(data: bytes) -> set[str]:
    """What is said of a file when its frames are counted, and when they are read; its name left out."""
    said = set()
    for use in (counted, lambda data: [opened(data).frame(i) for i in range(LENGTH)]):
        with pytest.raises(UserError) as caught:
            use(data)
        assert str(caught.value).startswith("a/film: ")
        said.add(str(caught.value).removeprefix("a/film: "))
    return said


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_is_the_one_of_its_number_in_whatever_order_frames_are_asked_for(form: str) -> None:
    data = counting(LENGTH, **FORMS[form])
    film = opened(data)
    jumps = [random.Random(0).randrange(LENGTH) for _ in range(30)]
    order = [*range(LENGTH), *range(0, LENGTH, 7), *range(LENGTH - 1, LENGTH - 6, -1), *jumps, 3, 3]
    assert [number_of(film.frame(number)) for number in order] == order
    assert len(film) == counted(data) == LENGTH


def test_a_file_without_loss_gives_every_value() -> None:
    images = [noise(16, 24, seed=i) for i in range(3)]
    film = opened(video(images))
    for number in (2, 0, 1):
        np.testing.assert_array_equal(film.frame(number), images[number])


def test_frames_that_stay_for_different_times_have_their_numbers() -> None:
    times = [0, 1, 2, 10, 11, 40, 41, 42, 100]
    film = opened(counting(len(times), form="mp4", times=times, **H264))
    order = [4, 8, 0, 5, 3]
    assert [number_of(film.frame(number)) for number in order] == order


def test_what_an_edit_cut_away_is_no_frame() -> None:
    """Frames before the time 0 are stored (others may be made of them), but the list of edits leaves them out."""
    data = counting(30, form="mp4", times=range(-7, 23), **H264)
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].frames == 30
    film = opened(data)
    assert len(film) == counted(data) == 23
    assert [number_of(film.frame(number)) for number in (0, 22, 5)] == [7, 29, 12]


def test_a_vp8_frame_that_is_never_shown_is_no_frame() -> None:
    """Its header has a bit for it (RFC 6386, 9.1). Here that of frame 3 is cleared."""
    file = io.BytesIO()
    with av.open(io.BytesIO(counting(20, **FORMS["vp8 in webm"]))) as old, av.open(file, "w", format="webm") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            data = bytearray(bytes(packet))
            if number == 3:
                data[0] &= ~0x10
            if data:
                copy = av.Packet(bytes(data))
                copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
                copy.is_keyframe = packet.is_keyframe
                new.mux(copy)
    film = opened(file.getvalue())
    assert len(film) == counted(file.getvalue()) == 19
    assert [number_of(film.frame(number)) for number in (3, 2, 18)] == [4, 2, 19]


class Counted(io.BytesIO):
    """Counts the bytes that are read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_in_sequence_each_frame_is_read_once_and_elsewhere_what_lies_behind_a_key_frame() -> None:
    length = 200
    file = Counted(video((noise(64, 64, seed=i) for i in range(length)), gop=10))
    size = len(file.getvalue())
    film = Video(file, "film")
    file.taken = 0
    for number in range(length):
        film.frame(number)
    assert file.taken < 1.2 * size
    file.taken = 0
    film.frame(155)
    assert file.taken < 0.2 * size  # ten frames, and what was read ahead


def test_a_phone_s_rotation_is_carried_out() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:8, :8] = 255
    data = bytearray(video([image], form="mp4", codec="libx264rgb", pixels="rgb24", qp="0"))
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2: to the right becomes down, down becomes to the left
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    np.testing.assert_array_equal(opened(bytes(data)).frame(0), np.rot90(image, k=-1))


@pytest.mark.parametrize(("below", "pixels"), [(256, "gray"), (65536, "gray16le")])
def test_a_gray_video_holds_ids(below: int, pixels: str) -> None:
    ids = noise(16, 24, 1, below=below)
    film = opened(video([ids], pixels=pixels), channels=1, exact=True)
    np.testing.assert_array_equal(film.frame(0), ids)
    assert film.frame(0).dtype == ids.dtype


def test_ids_are_not_taken_from_colors() -> None:
    film = opened(counting(2, **H264), channels=1, exact=True)
    with pytest.raises(
        UserError, match=r"^a/film: is stored as yuv420p, which does not keep ids as they are; write it"
    ):
        film.frame(0)


@pytest.mark.parametrize(("channels", "shape"), [(None, (16, 64, 3)), (3, (16, 64, 3)), (4, (16, 64, 4))])
def test_colors_come_as_red_green_blue_alpha(channels: int | None, shape: tuple[int, ...]) -> None:
    red = np.zeros((16, 64, 3), np.uint8)
    red[..., 0] = 200
    frame = opened(video([red]), channels=channels).frame(0)
    assert frame.shape == shape
    assert frame[0, 0].tolist() == [200, 0, 0, 255][: shape[2]]


def test_light_of_one_channel_spans_all_values() -> None:
    """Video stores black as 16 and white as 235."""
    film = opened(counting(1, form="mp4", qp="0", **H264), channels=1)
    white = opened(video([np.full((16, 64, 3), 255, np.uint8)], form="mp4", qp="0", **H264), channels=1)
    assert film.frame(0).max() <= 1
    assert white.frame(0).min() >= 254


def test_a_number_of_channels_that_no_video_has_is_an_error() -> None:
    with pytest.raises(UserError, match=r"^a/film: a video has no 2 channels; correct num_channels$"):
        opened(counting(1), channels=2).frame(0)


# Files that are no good -----------------------------------------------------------------------------------------------

CUT_OFF = "the file is cut off; restore it or remove it from the set"
FRAGMENTED = "h264 in a fragmented mp4"


@pytest.mark.parametrize("form", sorted(FORMS.keys() - {FRAGMENTED}))
def test_a_file_that_was_cut_off_is_told_at_once(form: str) -> None:
    data = counting(LENGTH, **FORMS[form])
    said = refused(data[: int(0.6 * len(data))])
    assert len(said) == 1
    assert said == {CUT_OFF} or said.pop().startswith("not a video, cut off or damaged (Invalid data found")


@pytest.mark.parametrize("share", [0.4, 0.95])
def test_a_fragment_that_was_cut_off_is_told(share: float) -> None:
    """(Cut between two fragments, such a file is whole.)"""
    data = counting(LENGTH, **FORMS[FRAGMENTED])
    assert refused(data[: int(share * len(data))]) == {CUT_OFF}


def test_a_file_whose_index_comes_first_does_not_hide_that_it_was_cut_off(tmp_path: Path) -> None:
    whole = io.BytesIO(counting(LENGTH, **FORMS["h264 in mov"]))
    path = tmp_path / "film.mp4"
    with av.open(whole) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            packet.stream = stream
            new.mux([packet] if packet.size else [])
    data = path.read_bytes()
    assert counted(data) == LENGTH
    assert refused(data[: int(0.6 * len(data))]) == {CUT_OFF}


@pytest.mark.parametrize("data", [b"hello" * 1000, b"\x1a\x45\xdf\xa3\x84abcd", b"\x1a\x45\xdf\xa3"])
def test_what_is_no_video_is_told(data: bytes) -> None:
    (said,) = refused(data)
    assert said.startswith(("not a video, cut off or damaged (Invalid data found", "the file is cut off"))


def test_an_empty_file_is_told() -> None:
    assert refused(b"") == {"the file is empty; restore it or remove it from the set"}


def test_sound_alone_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert refused(file.getvalue()) == {"has no images; remove it from the set"}


def test_a_format_without_a_decoder_is_told() -> None:
    data = counting(3)
    assert b"V_FFV1" in data
    says = "has images in a format that cannot be decoded; write it anew (ffmpeg), or remove it"
    assert refused(data.replace(b"V_FFV1", b"V_NONE")) == {says}


def test_a_title_in_any_encoding_does_no_harm() -> None:
    data = counting(3)
    assert b"Lavf" in data  # who wrote it
    film = opened(data.replace(b"Lavf", "Lévf".encode("latin-1")))
    assert [number_of(film.frame(number)) for number in range(3)] == [0, 1, 2]


def test_an_avi_file_that_does_not_tell_the_order_of_its_frames_is_told() -> None:
    data = counting(LENGTH, form="avi", **H264)
    assert refused(data) == {"does not say when each frame is shown; write it anew (ffmpeg -i FILE NEW.mp4)"}


def test_a_frame_that_is_damaged_is_told_and_those_before_can_be_read() -> None:
    data = bytearray(video(noise(32, 32, seed=i) for i in range(20)))
    at = len(data) * 3 // 4
    data[at : at + 40] = bytes(byte ^ 0x5A for byte in data[at : at + 40])
    film = opened(bytes(data))
    with pytest.raises(UserError, match=r"^a/film: frame 1\d is damaged; restore the file or remove it from the set$"):
        for number in range(20):
            film.frame(number)
    np.testing.assert_array_equal(film.frame(3), noise(32, 32, seed=3))


@pytest.mark.parametrize("number", [-1, 5])
def test_a_frame_that_is_not_there_is_told(number: int) -> None:
    with pytest.raises(UserError, match=rf"^a/film: has 5 frames and no frame {number}; was it changed meanwhile\?$"):
        opened(counting(5)).frame(number)


# Those that are kept open ---------------------------------------------------------------------------------------------


def test_a_few_files_stay_open_and_the_others_are_closed(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.mkv" for i in range(MOST_OPEN + 2)]
    files: list[BinaryIO] = []

    def opened_file(path: Path) -> BinaryIO:
        files.append(path.open("rb"))
        return files[-1]

    videos = OpenVideos()
    for i, path in enumerate(paths):
        path.write_bytes(video([numbered(i), numbered(i + 100)]))
        assert number_of(videos.frame(0, str(path), partial(opened_file, path))) == i
    assert [file.closed for file in files] == [True, True, *[False] * MOST_OPEN]
    last = paths[-1]
    assert number_of(videos.frame(1, str(last), partial(opened_file, last))) == len(paths) - 1 + 100
    assert len(files) == len(paths)  # it was still open


def test_a_file_that_is_opened_again_is_not_read_through_again() -> None:
    data = video((noise(64, 64, seed=i) for i in range(100)), gop=10)
    videos = OpenVideos(most=1)
    files = [Counted(data), Counted(data)]
    for file in files:
        np.testing.assert_array_equal(videos.frame(55, "film", lambda: file), noise(64, 64, seed=55))  # noqa: B023
        videos.frame(0, "another", partial(io.BytesIO, counting(1)))  # so that the first one is closed
    assert files[0].taken > len(data)
    assert files[1].taken < 0.3 * len(data)


def test_a_file_that_was_damaged_is_opened_anew_once_it_is_mended() -> None:
    data = counting(3)
    videos = OpenVideos()
    with pytest.raises(UserError):
        videos.frame(3, "film", partial(io.BytesIO, data))
    assert number_of(videos.frame(3, "film", partial(io.BytesIO, counting(4)))) == 3
