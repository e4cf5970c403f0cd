"""Sequences of frames: a type's frames lie in a file each, or all of a sequence in one video file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import NamedTuple

from imagier.data.augmentation.warp import Size
from imagier.data.decoding.sample import InputType, Stored, check_classes, check_value_range, load_stored
from imagier.data.decoding.video_files import EXTENSIONS, OpenVideos, count_frames
from imagier.data.listing.pairing import check_orientation, paired_keys
from imagier.data.sources.keys import Keys
from imagier.data.sources.source import Source
from imagier.errors import UserError

_COUNTING_THREADS = 8


class SequenceRef(NamedTuple):
    """A sequence of frames in a source."""

    name: str
    start: int
    """The place of its first frame among the keys of the types that have a file for each; else 0."""
    length: int


class FrameIndex:
    """The sequences of a source, in the order of their names, and the frames of each type.

    The first type says which there are. Types with a file for each frame belong together by name, video files with
    these and with each other by the order of their frames.
    """

    def __init__(
        self, source: Source, input_types: Sequence[InputType], videos: OpenVideos, *, use_dont_care: bool
    ) -> None:
        """videos: keeps some of the files open. UserError if a type lacks a sequence or a frame."""
        self.source = source
        self.input_types = input_types
        self.videos = videos
        self.use_dont_care = use_dont_care
        self.films = {
            kind.name: {key.removeprefix("./"): key for key in source.keys(kind.name)}
            for kind in input_types
            if source.extension(kind.name) in EXTENSIONS
        }
        """Of the types in video files: the key of each sequence's."""
        self.singles = [kind for kind in input_types if kind.name not in self.films]
        self.keys = Keys(_in_sequences(paired_keys(source, self.singles)) if self.singles else [])
        """Of all frames of the other types, sequence after sequence."""
        self.sequences = self._sequences()

    def load(
        self, sequence: SequenceRef, number: int, needed: Callable[[Size], Size] | None = None
    ) -> dict[str, Stored]:
        """One frame of each type as stored, checked: images H x W x C, key points P x D.

        needed: as load_stored, where no type is in a video file. UserError names what is wrong.
        """
        stored = {}
        if self.singles:
            key = self.keys[sequence.start + number]
            enough = None if self.films else needed
            stored = load_stored(self.source, self.singles, key, self.use_dont_care, enough)
        moment = {
            kind.name: self._film_frame(kind, sequence, number) if kind.name in self.films else stored[kind.name]
            for kind in self.input_types
        }
        sizes = {kind.name: moment[kind.name].size for kind in self.input_types if not kind.is_points}
        check_orientation(sizes, lambda name: self.where(name, sequence, number))
        return moment

    def where(self, kind: str, sequence: SequenceRef, number: int) -> str:
        """What to call a frame in a message."""
        if kind in self.films:
            return f"{self.source.where(kind, self.films[kind][sequence.name])}, frame {number}"
        return self.source.where(kind, self.keys[sequence.start + number])

    def name(self, sequence: SequenceRef, number: int) -> str:
        """What a frame is called in its sequence: as its file, or by its number."""
        return _split(self.keys[sequence.start + number])[1] if self.singles else f"{number:06d}"

    def _film_frame(self, kind: InputType, sequence: SequenceRef, number: int) -> Stored:
        key = self.films[kind.name][sequence.name]
        where = self.source.where(kind.name, key)
        channels = 1 if kind.num_classes is not None else kind.num_channels
        opened = partial(self.source.open, kind.name, key)
        array = self.videos.frame(number, where, opened, channels=channels, exact=kind.is_mask)
        check_value_range(array, kind, where)
        check_classes(array, kind, self.use_dont_care, self.where(kind.name, sequence, number))
        return Stored(array, array.shape[:2])

    def _sequences(self) -> list[SequenceRef]:
        runs = _runs(self.keys)
        found = {kind.name: self._counted(kind.name) if kind.name in self.films else runs for kind in self.input_types}
        first, *others = found
        sequences = [found[first][name] for name in sorted(found[first])]
        for sequence in sequences:
            for other in others:
                partner = found[other].get(sequence.name)
                if partner is None or partner.length != sequence.length:
                    raise _mismatch(sequence, other, partner, self.where(first, sequence, 0))
        return [runs[sequence.name] for sequence in sequences] if self.singles else sequences

    def _counted(self, kind: str) -> dict[str, SequenceRef]:
        """The sequences in a type's video files by their names."""

        def count(key: str) -> int:
            return count_frames(self.source.open(kind, key), self.source.where(kind, key))

        files = self.films[kind]
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


def _runs(keys: Keys) -> dict[str, SequenceRef]:
    """The sequences in files for each frame by their names."""
    runs = {}
    start = 0
    for name, of_sequence in groupby(keys, key=lambda key: _split(key)[0]):
        length = sum(1 for _ in of_sequence)
        runs[name] = SequenceRef(name, start, length)
        start += length
    return runs


def _in_sequences(keys: Sequence[str]) -> list[str]:
    """Keys sequence after sequence, each in the order that it has."""
    return sorted(keys, key=lambda key: _split(key)[0])


def _split(key: str) -> tuple[str, str]:
    """sequence/name -> sequence, name."""
    sequence, _, name = key.rpartition("/")
    return sequence, name
