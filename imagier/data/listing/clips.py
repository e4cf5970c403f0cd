"""Some frames of a sequence, of all input types, read and augmented together."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from imagier.data.augmentation.augment import Augmenter, Drawn, find_largest_size
from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec, Stored
from imagier.data.dataset import DatasetSpec
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex
from imagier.data.sample import Number, augment, image_sizes, load_stored
from imagier.data.sources.source import unique_names
from imagier.errors import UserError

Moment = Mapping[str, Stored]
"""One frame of each input type, as stored."""

Edit = Callable[[int, Moment], Moment]
"""The number of a frame, and the frame -> what is taken for it."""

Arrays = dict[str, np.ndarray]
"""One frame of each input type, augmented."""


class Clip(NamedTuple):
    """Which frames of a sequence."""

    sequence: int
    frames: Sequence[int]


class Playlist:
    """Sequences from end to end, a frame after the other."""

    def __init__(self, sequences: Sequence[int], lengths: Sequence[int]) -> None:
        """sequences: which ones, in order. lengths: of how many of their first frames."""
        self.sequences = sequences
        self.lengths = list(map(int, lengths))
        self.starts = np.cumsum([0, *self.lengths]).tolist()
        """The index of the first frame of each; last, the number of all."""

    def __len__(self) -> int:
        return self.starts[-1]

    def at(self, index: int) -> Clip:
        """The frame with this index among those of all sequences."""
        position = bisect_right(self.starts, index) - 1
        number = index - self.starts[position]
        return Clip(self.sequences[position], range(number, number + 1))


@dataclass(frozen=True)
class Frames:
    """The frames of a clip, all changed by one draw."""

    clip: Clip
    moments: Sequence[Moment]
    sizes: Mapping[str, Size]
    """The largest height and width of each type of images, as stored."""
    drawn: Drawn
    arrays: Sequence[Arrays]

    @property
    def numbers(self) -> dict[str, Number]:
        """Those that all paired types have (see `Sample`), and which frames these are."""
        numbers: dict[str, Number] = {"original_h_w": find_largest_size(self.sizes.values())}
        numbers |= {"is_flipped": self.drawn.is_flipped}
        numbers |= {f"original_h_w_{name}": size for name, size in self.sizes.items()}
        sequence, frames = self.clip
        step = frames[1] - frames[0] if len(frames) > 1 else 1
        return numbers | {"sequence": sequence, "frame": frames[0], "time_step": step}


class Clips:
    """All sequences of a split: those of all roots, of each in the order of their names."""

    def __init__(self, spec: DatasetSpec, *, has_people: bool = False) -> None:
        """has_people: as of `FrameIndex`. UserError if a type lacks a sequence or a frame."""
        self.spec = spec
        self.augmenter = Augmenter(spec.augmentations, spec.interpolator)
        self.needed = self.augmenter.compute_needed_size if spec.reduced_jpeg else None
        self.max_time_step = spec.augmentations.get("max_time_step", 1)
        videos = OpenVideos()
        self.roots = [FrameIndex(source, spec.codecs, videos, has_people=has_people) for source in spec.sources]
        self.sequences = [sequence for root in self.roots for sequence in root.sequences]
        self.root_of = np.repeat(np.arange(len(self.roots)), [len(root.sequences) for root in self.roots])
        self.names = unique_names(sequence.name for sequence in self.sequences)
        self.lengths = np.array([sequence.length for sequence in self.sequences], np.int64)

    def play(self, num_videos: int | None = None, num_frames: int | None = None) -> Playlist:
        """All sequences, whole; or the first so many of them, and of each the first so many frames."""
        lengths = self.lengths[:num_videos].clip(max=num_frames or self.longest)
        return Playlist(range(len(lengths)), lengths.tolist())

    def list_names(self, playlist: Playlist) -> list[tuple[str, int]]:
        """The name of each sequence that is played, and of how many frames."""
        return [(self.names[sequence], length) for sequence, length in zip(playlist.sequences, playlist.lengths)]

    def find(self, wanted: int | str) -> int:
        """A sequence by its name, or by its number in the order of the reference. UserError if there is none.

        There, sequences of one length come together, in the order in which their length first occurs.
        """
        if isinstance(wanted, str) and wanted in self.names:
            return self.names.index(wanted)
        first = {length: at for at, length in reversed(list(enumerate(self.lengths.tolist())))}
        order = sorted(range(len(self.lengths)), key=lambda sequence: first[int(self.lengths[sequence])])
        if isinstance(wanted, int) and 0 <= wanted < len(order):
            return order[wanted]
        shown = ", ".join(self.names[sequence] for sequence in order[:5]) + (", ..." if len(order) > 5 else "")
        what = f"there is no sequence {wanted!r}: there are {len(order)} ({shown})"
        raise UserError(what, advice="give a name, or a number from 0 on", code="unknown-sequence")

    @property
    def longest(self) -> int:
        """Frames of the longest sequence."""
        return int(self.lengths.max())

    def draw(self, frames: int, rng: random.Random, others: int = 0) -> Clip:
        """A random clip of a sequence that has so many other frames, too; the draws are those of the reference."""
        step = rng.randint(1, self.max_time_step)
        span = 1 + (frames - 1) * step
        if span + others > self.longest:
            step, span = 1, frames
        valid = np.flatnonzero(self.lengths >= span + others)
        if self.spec.root_weights is not None:
            valid = valid[self.root_of[valid] == _draw_root(self.root_of[valid], self.spec.root_weights, rng)]
        sequence = int(valid[rng.choice(range(len(valid)))])
        start = rng.randint(0, int(self.lengths[sequence]) - span)
        return Clip(sequence, range(start, start + span, step))

    def load(self, sequence: int, number: int) -> Moment:
        """One frame of each type as stored, checked. UserError with the name of a file that is wrong."""
        return self.root(sequence).load(self.sequences[sequence], number, self.needed)

    def load_arrays(self, clip: Clip) -> Arrays:
        """The arrays of the first frame of a clip as stored, checked. UserError names a file that is wrong."""
        stored = self.root(clip.sequence).load(self.sequences[clip.sequence], clip.frames[0])
        return {name: each.array for name, each in stored.items()}

    def load_points(self, sequence: int, input_type: str) -> np.ndarray:
        """The key points of a type in all frames of a sequence as stored, T x P x 2. UserError names a wrong file."""
        (codec,) = (codec for codec in self.spec.codecs if codec.name == input_type)
        root, ref = self.root(sequence), self.sequences[sequence]
        keys = [root.keys[ref.start + number] for number in range(ref.length)]
        return np.stack([load_stored(root.source, [codec], key)[input_type].array[:, :2] for key in keys])

    def read(self, clip: Clip, rng: random.Random, edit: Edit = lambda number, moment: moment) -> Frames:
        """The frames of a clip, augmented. UserError with the name of a file that is wrong, or unlike the one before.

        edit: what becomes of each frame before that.
        """
        moments = [edit(number, self.load(clip.sequence, number)) for number in clip.frames]
        self._check_alike(moments, clip)
        each = [image_sizes(moment, self.spec.codecs) for moment in moments]
        sizes = {name: find_largest_size([of_frame[name] for of_frame in each]) for name in each[0]}
        try:
            drawn = self.augmenter.draw(find_largest_size(sizes.values()), rng, is_training=self.spec.is_training)
            arrays = [augment(moment, self.spec.codecs, drawn) for moment in moments]
        except UserError as error:
            raise error.at(self.where(clip.sequence, clip.frames[0])) from error
        return Frames(clip, moments, sizes, drawn, arrays)

    def key(self, sequence: int, number: int) -> str:
        """ "sequence/name" of a frame; unique among all roots."""
        return f"{self.names[sequence]}/{self.root(sequence).name(self.sequences[sequence], number)}"

    def where(self, sequence: int, number: int) -> str:
        """What to call a frame in a message: the file, or the frame, of its first type."""
        return self.root(sequence).where(self.spec.codecs[0].name, self.sequences[sequence], number)

    def root(self, sequence: int) -> FrameIndex:
        """The root that a sequence lies in."""
        return self.roots[self.root_of[sequence]]

    def _check_alike(self, moments: Sequence[Moment], clip: Clip) -> None:
        """UserError if a frame has other channels or bits, or more or fewer key points, than the one before."""
        for codec in self.spec.codecs:
            forms = [_form(moment[codec.name].array, codec) for moment in moments]
            for number, before, form in zip(clip.frames[1:], forms, forms[1:]):
                if form != before:
                    where = self.root(clip.sequence).where(codec.name, self.sequences[clip.sequence], number)
                    raise UserError(
                        f"holds {form}, but {before} in the frame before",
                        where=where,
                        advice="correct the file",
                        code="frames-differ",
                    )


def stack(arrays: Sequence[Arrays]) -> Arrays:
    """Frames one after the other: T x ... of each type."""
    return {name: np.stack([frame[name] for frame in arrays]) for name in arrays[0]}


def _form(array: np.ndarray, codec: Codec) -> str:
    """What frames of a clip must have in common; images are resized to one size."""
    if codec.has_pixels:
        return f"pixels of {array.shape[2]} x {array.dtype}"
    return f"{' x '.join(map(str, array.shape))} numbers"


def _draw_root(roots: np.ndarray, weights: Sequence[float], rng: random.Random) -> int:
    """One of these roots, by the weights of all."""
    present = np.unique(roots).tolist()
    return rng.choices(present, [weights[root] for root in present])[0]
