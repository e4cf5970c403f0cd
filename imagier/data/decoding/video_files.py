"""Frames of video files by their number: exactly that frame, whatever the codec, and fast in sequence."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from imagier.errors import UserError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

EXTENSIONS = frozenset({"mp4", "mkv", "mov", "avi", "webm"})

MOST_OPEN = 4
"""Files that a process keeps open: a decoder holds some images in memory."""

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


class Frames(NamedTuple):
    """The frames that a file shows, in the order in which it shows them."""

    times: np.ndarray
    """When each is shown, in the stream's unit, ascending, int64."""
    keys: np.ndarray
    """The numbers of those from which decoding can begin, ascending, int64."""


class Video:
    """An open video file.

    Decoding goes on from the last frame where it can, else it begins at the last key frame before the one in question.
    Sound and further images (a cover) are not looked at. A phone's rotation is carried out.
    """

    def __init__(
        self,
        file: BinaryIO,
        where: str,
        *,
        channels: int | None = None,
        exact: bool = False,
        frames: Frames | None = None,
    ) -> None:
        """where: what to call the file. channels: 1, 3, 4, or None for 3. exact: values are ids, not light.

        frames: those that were found when it was open before; else it is read once. UserError if it is no video, or
        damaged.
        """
        from av.video.reformatter import VideoReformatter

        self.file = file
        self.where = where
        self.channels = channels or 3
        self.exact = exact
        self.container, self.stream = _open(file, where)
        self.frames = frames or _frames(self.container, self.stream, file, where)
        self._reformatter = VideoReformatter()  # one for all frames: making it anew would take longer than what it does
        self._decoded: Iterator[VideoFrame] = iter(())
        self._next: int | None = None
        """The number of the frame that `_decoded` gives next."""

    def __len__(self) -> int:
        return len(self.frames.times)

    def frame(self, number: int) -> np.ndarray:
        """A frame H x W x C, uint8 in the order red, green, blue, alpha; gray ones of more than 8 bits as uint16.

        UserError if it is damaged, or not there.
        """
        import av

        if not 0 <= number < len(self):
            raise UserError(
                f"has {len(self)} frames and no frame {number}", where=self.where, advice="was it changed meanwhile?"
            )
        try:
            return self._array(self._decode(number))
        except av.FFmpegError as error:
            raise self._make_damage_error(number) from error

    def close(self) -> None:
        """Frees what the decoder holds, and closes the file."""
        self.container.close()
        self.file.close()

    def _decode(self, number: int) -> VideoFrame:
        time = int(self.frames.times[number])
        key = int(np.searchsorted(self.frames.keys, number, side="right")) - 1
        before = self._next
        self._next = None  # until this has gone well
        nearer = key >= 0 and self.frames.keys[key] > (before or 0)  # than the frame that would come next
        goes_on = before is not None and before <= number and not nearer
        frame = next(self._decoded, None) if goes_on else self._from_key(key, time)
        while frame is not None and frame.pts is not None and frame.pts < time:
            frame = next(self._decoded, None)
        if frame is None or frame.pts != time or frame.is_corrupt:
            raise self._make_damage_error(number)
        self._next = number + 1
        return frame

    def _from_key(self, key: int, time: int) -> VideoFrame | None:
        """The first frame that decoding from a key frame on gives.

        From some key frames the first images are not whole, and left out; then it begins at the key frame before.
        """
        while True:
            start = key < 0  # before the first key frame, too, something may be shown
            self.container.seek(int(self.frames.times[0 if start else self.frames.keys[key]]), stream=self.stream)
            self._decoded = self.container.decode(self.stream)
            frame = next(self._decoded, None)
            if start or (frame is not None and frame.pts is not None and frame.pts <= time):
                return frame
            key -= 1

    def _array(self, frame: VideoFrame) -> np.ndarray:
        from av.video.reformatter import ColorRange

        name = frame.format.name
        if self.channels == 1 and name.startswith("gray") and name != "grayf32le":
            array = frame.to_ndarray()
        elif self.exact:
            raise UserError(
                f"is stored as {name}, which does not keep ids as they are",
                where=self.where,
                advice=(
                    "write it as gray video without loss (ffmpeg -i FILE -pix_fmt gray -c:v ffv1 NEW.mkv), or as PNG "
                    "files"
                ),
            )
        else:
            wanted = {1: "gray", 3: "rgb24", 4: "rgba"}.get(self.channels)
            if wanted is None:
                raise UserError(
                    f"a video has no {self.channels} channels", where=self.where, advice="correct num_channels"
                )
            full = ColorRange.JPEG if self.channels == 1 else None
            array = self._reformatter.reformat(frame, format=wanted, dst_color_range=full, threads=1).to_ndarray()
        array = array[..., None] if array.ndim == 2 else array
        turns = round(frame.rotation / 90)
        return np.ascontiguousarray(np.rot90(array, turns)) if turns else array

    def _make_damage_error(self, number: int) -> UserError:
        return UserError(
            f"frame {number} is damaged", where=self.where, advice="restore the file or remove it from the set"
        )


def count_frames(file: BinaryIO, where: str) -> int:
    """How many frames a video file shows, from its header where that tells, else from reading it once; closes it.

    UserError if it is no video, is cut off, or shows none.
    """
    container, stream = _open(file, where)
    with file, container:
        entries = stream.index_entries
        if stream.frames and stream.frames == len(entries):
            _check_length(stream, file, where)
            count = sum(not entry.is_discard for entry in entries)
        else:
            count = len(_frames(container, stream, file, where).times)
    if not count:
        raise UserError("shows no frame", where=where, advice="restore it or remove it from the set")
    return count


class OpenVideos:
    """Some video files, kept open: those used last. Each process opens its own."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self.most = most
        self._open: OrderedDict[str, Video] = OrderedDict()
        self._frames: dict[str, Frames] = {}
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenVideos, (self.most,)  # an open file cannot be sent to a spawned worker

    def frame(
        self,
        number: int,
        where: str,
        open_file: Callable[[], BinaryIO],
        *,
        channels: int | None = None,
        exact: bool = False,
    ) -> np.ndarray:
        """A frame, as Video.frame, of the file called `where`, which is opened if it is not open."""
        if self._process != os.getpid():  # a fork shares with its parent the place in each file
            self._open, self._process = OrderedDict(), os.getpid()
        video = self._open.pop(where, None)
        if video is None:
            video = Video(open_file(), where, channels=channels, exact=exact, frames=self._frames.get(where))
        array = video.frame(number)
        self._open[where] = video  # not after an error: who knows where it stands
        self._frames[where] = video.frames
        while len(self._open) > self.most:
            self._open.popitem(last=False)[1].close()
        return array


def _open(file: BinaryIO, where: str) -> tuple[InputContainer, VideoStream]:
    try:
        import av
        from av.stream import Disposition
    except ModuleNotFoundError as error:
        raise UserError(
            "the package av is not installed", where=where, advice="run: pip install 'imagier[video]'"
        ) from error
    if not _size(file):
        raise UserError("the file is empty", where=where, advice="restore it or remove it from the set")
    if _is_cut_off_matroska(file):
        raise _cut_off(where)
    try:
        container = av.open(file, "r", metadata_errors="replace")  # a title may be in any encoding
    except av.FFmpegError as error:
        raise UserError(
            f"not a video, cut off or damaged ({error.strerror})",
            where=where,
            advice="restore it or remove it from the set",
        ) from error
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError("has no images", where=where, advice="remove it from the set")
    stream = streams[0]
    if stream.codec_context is None:
        raise UserError(
            "has images in a format that cannot be decoded", where=where, advice="write it anew (ffmpeg), or remove it"
        )
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise _without_times(where)  # an avi file does not tell in which order such frames are shown
    stream.codec_context.thread_count = 1  # the workers are the parallelism, and threads would read ahead
    return container, stream


def _frames(container: InputContainer, stream: VideoStream, file: BinaryIO, where: str) -> Frames:
    """All frames of a file, from reading it without decoding it."""
    import av

    try:
        shown = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if _is_shown(packet, stream)]
    except av.FFmpegError as error:
        raise UserError(
            f"damaged ({error.strerror})", where=where, advice="restore it or remove it from the set"
        ) from error
    _check_length(stream, file, where)
    if len(shown) < stream.frames - sum(entry.is_discard for entry in stream.index_entries):
        raise _cut_off(where)
    if any(time is None for time, _ in shown):
        raise _without_times(where)
    times = np.array([time for time, _ in shown], np.int64)
    keys = np.sort(times[[is_key for _, is_key in shown]])
    times.sort()
    if (np.diff(times) <= 0).any():
        raise _without_times(where)
    return Frames(times, np.searchsorted(times, keys))


def _is_shown(packet: Packet, stream: VideoStream) -> bool:
    """Whether a packet becomes a frame: not the empty one at the end, and not what an edit cut away."""
    if not packet.size or packet.is_discard:
        return False
    # RFC 6386, 9.1: VP8 has frames that are only there for others to refer to.
    return stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] >> 4 & 1)


def _check_length(stream: VideoStream, file: BinaryIO, where: str) -> None:
    """UserError if a frame lies behind the end of the file."""
    if max((entry.pos + entry.size for entry in stream.index_entries), default=0) > _size(file):
        raise _cut_off(where)


def _size(file: BinaryIO) -> int:
    at = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(at)
    return size


def _is_cut_off_matroska(file: BinaryIO) -> bool:
    """Whether an mkv or webm file is shorter than its first lines say (RFC 9559); its reader would just stop there."""
    start = file.read(4096)
    file.seek(0)
    if not start.startswith(_EBML):
        return False
    at, size = _vint(start, 4)
    at += size or 0
    if start[at : at + 4] != _SEGMENT:
        return False
    at, size = _vint(start, at + 4)
    return size is not None and at + size > _size(file)


def _vint(data: bytes, at: int) -> tuple[int, int | None]:
    """A length of EBML (RFC 8794, section 4) -> the place after it, and its value, None for an unknown one."""
    if at >= len(data):
        return at, None
    bits = 7 * (9 - data[at].bit_length())
    end = at + bits // 7
    value = int.from_bytes(data[at:end], "big") & (1 << bits) - 1
    return end, None if value == (1 << bits) - 1 else value


def _cut_off(where: str) -> UserError:
    return UserError("the file is cut off", where=where, advice="restore it or remove it from the set")


def _without_times(where: str) -> UserError:
    return UserError(
        "does not say when each frame is shown", where=where, advice="write it anew (ffmpeg -i FILE NEW.mp4)"
    )
