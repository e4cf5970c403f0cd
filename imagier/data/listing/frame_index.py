"""Sequences of frames: a type's frames lie in a file each, or all of a sequence in one video file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import NamedTuple

from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec, Stored
from imagier.data.decoding.video_files import EXTENSIONS, OpenVideos, count_frames
from imagier.data.listing.pairing import fit_together, list_paired_keys
from imagier.data.sample import load_stored
from imagier.data.sources.index import read_people
from imagier.data.sources.keys import Keys
from imagier.data.sources.source import Source, sort_frames
from imagier.errors import UserError

_COUNTING_THREADS = 8


class SequenceRef(NamedTuple):
    """A sequence of frames in a source."""

    name: str
    start: int
    """The index of its first frame among the keys of the types that have a file for each frame; otherwise 0."""
    length: int


class FrameIndex:
    """The sequences of a source, in the order of their names, and the frames of each input type.

    The first type says which sequences there are. Types with a file for each frame belong together by name, video files
    with these and with each other by the order of their frames.
    """

    def __init__(
        self, source: Source, codecs: Sequence[Codec], videos: OpenVideos, *, has_people: bool = False
    ) -> None:
        """videos: keeps some of the files open. has_people: all_indices.json says who is meant, where it is there.

        UserError if a type lacks a sequence or a frame, or if that file does not fit. Where values lead to the frame
        before, no type may have a frame that others lack.
        """
        self.source = source
        self.codecs = codecs
        self.videos = videos
        self.video_keys = {
            codec.name: {key.removeprefix("./"): key for key in source.keys(codec.name)}
            for codec in codecs
            if source.extension(codec.name) in EXTENSIONS
        }
        """Of the types in video files: the key of each sequence's."""
        self.stills = [codec for codec in codecs if codec.name not in self.video_keys]
        keys = list_paired_keys(source, [codec.name for codec in self.stills]) if self.stills else []
        self.keys = Keys(_order_frames(keys))
        """Of all frames of the other types, sequence after sequence, each in the order of its frames."""
        self.sequences = self._find_sequences()
        self.people = read_people(source, keys) if has_people and keys else {}
        if any(codec.leads_to_previous for codec in self.stills):
            self._check_gaps()

    def load(
        self, sequence: SequenceRef, number: int, needed: Callable[[Size], Size] | None = None
    ) -> dict[str, Stored]:
        """One frame of each type as stored, checked: images H x W x C, key points P x D.

        needed: as of `load_stored`, where no type is in a video file. UserError names what is wrong.
        """
        stored = {}
        if self.stills:
            key = self.keys[sequence.start + number]
            needed = None if self.video_keys else needed
            stored = load_stored(self.source, self.stills, key, needed, self.people.get(key, 0))
        frames = {
            codec.name: stored[codec.name] if codec.name in stored else self._video_frame(codec, sequence, number)
            for codec in self.codecs
        }
        return fit_together(frames, self.codecs, lambda name: self.where(name, sequence, number))

    def where(self, input_type: str, sequence: SequenceRef, number: int) -> str:
        """What to call a frame in a message."""
        if input_type in self.video_keys:
            return f"{self.source.where(input_type, self.video_keys[input_type][sequence.name])}, frame {number}"
        return self.source.where(input_type, self.keys[sequence.start + number])

    def name(self, sequence: SequenceRef, number: int) -> str:
        """What a frame is called in its sequence: as its file, or by its number."""
        return _split(self.keys[sequence.start + number])[1] if self.stills else f"{number:06d}"

    def _video_frame(self, codec: Codec, sequence: SequenceRef, number: int) -> Stored:
        key = self.video_keys[codec.name][sequence.name]
        open_file = partial(self.source.open, codec.name, key)
        array = self.videos.frame(
            number,
            self.source.where(codec.name, key),
            open_file,
            channels=codec.input_type.num_channels,
            exact=codec.holds_ids,
        )
        codec.check(array, self.where(codec.name, sequence, number))
        return Stored(array, array.shape[:2])

    def _find_sequences(self) -> list[SequenceRef]:
        runs = _runs(self.keys)
        of_type = {
            codec.name: self._count_frames(codec.name) if codec.name in self.video_keys else runs
            for codec in self.codecs
        }
        first, *others = of_type
        sequences = [of_type[first][name] for name in sorted(of_type[first])]
        for sequence in sequences:
            for other in others:
                partner = of_type[other].get(sequence.name)
                if partner is None or partner.length != sequence.length:
                    raise _mismatch(sequence, other, partner, self.where(first, sequence, 0))
        return [runs[sequence.name] for sequence in sequences] if self.stills else sequences

    def _check_gaps(self) -> None:
        """UserError if a type has a frame that others lack: what leads to the frame before would lead to that one."""
        known, names = set(self.keys), {sequence.name for sequence in self.sequences}
        for codec in self.stills:
            left_out = (key for key in self.source.keys(codec.name) if key not in known and _split(key)[0] in names)
            for key in left_out:
                what = f"has no partner {self.source.where(self.stills[0].name, key)}, and the next frame leads to it"
                where = self.source.where(codec.name, key)
                advice = "restore that one, or remove the sequence's flow and build it again"
                raise UserError(what, where=where, advice=advice, code="missing-partner")

    def _count_frames(self, input_type: str) -> dict[str, SequenceRef]:
        """The sequences in a type's video files by their names."""

        def count(key: str) -> int:
            return count_frames(self.source.open(input_type, key), self.source.where(input_type, key))

        files = self.video_keys[input_type]
        with ThreadPoolExecutor(_COUNTING_THREADS) as pool:
            return {name: SequenceRef(name, 0, length) for name, length in zip(files, pool.map(count, files.values()))}


def _mismatch(sequence: SequenceRef, other: str, partner: SequenceRef | None, where: str) -> UserError:
    name, length = repr(sequence.name), sequence.length
    if partner is None:
        what, advice = f"input type {other!r} has no sequence {name}", "add it or remove this one"
    else:
        what = f"the sequence {name} has {length} frames, but {partner.length} in input type {other!r}"
        advice = "make them agree"
    return UserError(what, where=where, advice=advice, code="missing-sequence" if partner is None else "frames-differ")


def _order_frames(keys: Sequence[str]) -> Iterator[str]:
    """The keys sequence after sequence, in each as `sort_frames` says: the same in every kind of store."""
    names: dict[str, list[str]] = {}
    for key in keys:
        sequence, name = _split(key)
        names.setdefault(sequence, []).append(name)
    for sequence in sorted(names):
        yield from (f"{sequence}/{name}" for name in sort_frames(names[sequence]))


def _runs(keys: Keys) -> dict[str, SequenceRef]:
    """The sequences of the types that have a file for each frame, by their names."""
    runs = {}
    start = 0
    for name, of_sequence in groupby(keys, key=lambda key: _split(key)[0]):
        length = sum(1 for _ in of_sequence)
        runs[name] = SequenceRef(name, start, length)
        start += length
    return runs


def _split(key: str) -> tuple[str, str]:
    """sequence/name -> sequence, name."""
    sequence, _, name = key.rpartition("/")
    return sequence, name
