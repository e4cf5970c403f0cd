"""Clips of videos: some frames, one after the other, of several types that belong together."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from imagier.data import dataset
from imagier.data.augmentation.augment import Augmenter, find_largest_size
from imagier.data.codec import Codec, Stored
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex
from imagier.data.sample import Number, Sample, augment, image_sizes
from imagier.data.sources.source import unique_names
from imagier.errors import UserError
from imagier.ranges import Positive

LEAST_STEPS = 8
"""An epoch of fewer steps, if it held each sequence once, holds as many clips as there are frames."""

_MOST_DOUBLINGS = 62


class _Clip(NamedTuple):
    """Which frames a sample has: of a sequence, from a number on, every so many."""

    sequence: int
    frames: range


@dataclass(frozen=True, kw_only=True)
class ClipLength:
    """How many frames a clip has in each epoch: first one, then some, then twice as many, and so on.

    A function of the epoch, and so the same for a run that is resumed, and in every process that reads samples.
    Wang et al., Video-to-Video Synthesis, 2018, section 4: temporally progressive training.
    """

    initial: int
    most: int
    single_frame_epoch: int = 0
    """The first epoch with more than one frame."""
    num_epochs_temporal_step: int | None = None
    """Epochs after which the length doubles; None for never."""

    def frames(self, epoch: int) -> int:
        """1 before `single_frame_epoch`, then `initial`, doubled with every step until it reaches `most`."""
        since = epoch - self.single_frame_epoch
        if since < 0:
            return 1
        doublings = since // self.num_epochs_temporal_step if self.num_epochs_temporal_step else 0
        return max(self.initial, min(self.initial << min(doublings, _MOST_DOUBLINGS), self.most))


class Dataset(dataset.Dataset):
    """In training clips of drawn sequences, else all sequences from end to end, a frame a sample.

    A sequence is a folder of files, or a video file. All roots together give the sequences, those of each in the order
    of their names. In training the index of a sample is nothing but a source of randomness: all frames have their
    chance in each. Key points are as in paired_images.
    """

    is_video = True
    is_paired = True
    reads_keypoints = True
    reads_root_weights = True
    reads_reduced_jpeg = True

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        initial_sequence_length: Positive | None = None,
        max_sequence_length: Positive = 100,
    ) -> None:
        """initial_sequence_length: First length of clips, needed in training. [frames]
        max_sequence_length: Largest length of clips. [frames]

        In training an epoch is as long as a whole number of steps. UserError if a type lacks a sequence or a frame, or
        if no sequence is long enough.
        """
        super().__init__(spec)
        self.growth = ClipLength(
            initial=initial_sequence_length or 1,
            most=max_sequence_length,
            single_frame_epoch=spec.single_frame_epoch,
            num_epochs_temporal_step=spec.num_epochs_temporal_step,
        )
        self.augmenter = Augmenter(spec.augmentations, spec.interpolator)
        self.needed = self.augmenter.compute_needed_size if spec.reduced_jpeg else None
        self.max_time_step = spec.augmentations.get("max_time_step", 1)
        videos = OpenVideos()
        self.roots = [FrameIndex(source, spec.codecs, videos) for source in spec.sources]
        self.sequences = [sequence for root in self.roots for sequence in root.sequences]
        self.root_of = np.repeat(np.arange(len(self.roots)), [len(root.sequences) for root in self.roots])
        self.names = unique_names(sequence.name for sequence in self.sequences)
        self.lengths = np.array([sequence.length for sequence in self.sequences], np.int64)
        self.ends = np.cumsum(self.lengths)
        self.samples_per_epoch = self._samples_per_epoch() if spec.is_training else int(self.ends[-1])

    @classmethod
    def check_keys(cls, keys: Mapping[str, Any], *, is_training: bool) -> None:
        """UserError if training does not say how long clips are, or if they can grow to less than that."""
        initial, most = keys["initial_sequence_length"], keys["max_sequence_length"]
        if initial is None and is_training:
            raise UserError("needs initial_sequence_length, the number of frames of a clip", code="needs-key")
        if initial is not None and most < initial:
            raise UserError(
                "must not be less than initial_sequence_length", where="max_sequence_length", code="wrong-order"
            )

    def __len__(self) -> int:
        return self.samples_per_epoch

    @property
    def blocks(self) -> Sequence[int]:
        """In training one; else the lengths of the sequences."""
        return [len(self)] if self.spec.is_training else self.lengths.tolist()

    def frames(self, epoch: int) -> int:
        """How many frames the samples of an epoch have."""
        return min(self.growth.frames(epoch), int(self.lengths.max())) if self.spec.is_training else 1

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index): images T x h x w x C, and under the name of each type the key of its first.

        Numbers, beside those of all paired types: `sequence`, `frame` (the number of the first frame in it; 0 begins
        it) and `time_step` (from one frame to the next).
        """
        epoch, index = key
        if self.spec.is_training:
            rng = self.rng(key)
            return self._sample(self._draw(self.frames(epoch), rng), rng)
        clip = self._at(index)
        return self._sample(clip, self.rng((epoch, index - clip.frames[0])))  # a sequence is changed as a whole

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The images of one moment as stored, checked: in training as far along all frames as `index` is in an epoch.

        UserError with the name of a file that is wrong.
        """
        sequence, frames = self._moment(index)
        stored = self._root(sequence).load(self.sequences[sequence], frames[0])
        return {name: each.array for name, each in stored.items()}

    def where(self, index: int) -> str:
        """What to call what `load` gives: the file, or the frame, of its first type."""
        sequence, frames = self._moment(index)
        return self._where(sequence, frames[0])

    def _samples_per_epoch(self) -> int:
        long_enough = self.lengths[self.lengths >= self.growth.initial]
        if not len(long_enough):
            raise UserError(
                f"is {self.growth.initial}, but the longest sequence has {self.lengths.max()} frames",
                where="initial_sequence_length",
                advice="lower it",
                code="clip-too-long",
            )
        step = self.spec.samples_per_step
        count = int(long_enough.sum()) if len(long_enough) < LEAST_STEPS * step else len(long_enough)
        # Whole steps, since the clips of two epochs may differ in length.
        return count - count % step if count >= step else count

    def _draw(self, frames: int, rng: random.Random) -> _Clip:
        """A random clip; the draws are those of the reference."""
        step = rng.randint(1, self.max_time_step)
        span = 1 + (frames - 1) * step
        if span > self.lengths.max():
            step, span = 1, frames
        valid = np.flatnonzero(self.lengths >= span)
        if self.spec.root_weights is not None:
            valid = valid[self.root_of[valid] == _draw_root(self.root_of[valid], self.spec.root_weights, rng)]
        sequence = int(valid[rng.choice(range(len(valid)))])
        start = rng.randint(0, int(self.lengths[sequence]) - span)
        return _Clip(sequence, range(start, start + span, step))

    def _at(self, index: int) -> _Clip:
        """The frame with this index among those of all sequences."""
        sequence = int(np.searchsorted(self.ends, index, side="right"))
        number = index - int(self.ends[sequence] - self.lengths[sequence])
        return _Clip(sequence, range(number, number + 1))

    def _moment(self, index: int) -> _Clip:
        return self._at(index * int(self.ends[-1]) // len(self))

    def _sample(self, clip: _Clip, rng: random.Random) -> Sample:
        sequence, frames = clip
        root, ref = self._root(sequence), self.sequences[sequence]
        moments = [root.load(ref, number, self.needed) for number in frames]
        self._check_alike(moments, clip)
        each = [image_sizes(moment, self.spec.codecs) for moment in moments]
        sizes = {name: find_largest_size([of_frame[name] for of_frame in each]) for name in each[0]}
        original = find_largest_size(sizes.values())
        try:
            drawn = self.augmenter.draw(original, rng)
            changed = [augment(moment, self.spec.codecs, drawn) for moment in moments]
            arrays = {name: np.stack([moment[name] for moment in changed]) for name in changed[0]}
        except UserError as error:
            raise error.at(self._where(sequence, frames[0])) from error
        numbers: dict[str, Number] = {"original_h_w": original, "is_flipped": drawn.is_flipped}
        numbers |= {f"original_h_w_{name}": size for name, size in sizes.items()}
        numbers |= {"sequence": sequence, "frame": frames[0], "time_step": frames.step}
        key = f"{self.names[sequence]}/{root.name(ref, frames[0])}"
        return Sample(arrays, dict.fromkeys(arrays, key), numbers)

    def _check_alike(self, moments: Sequence[Mapping[str, Stored]], clip: _Clip) -> None:
        """UserError if a frame has other channels or bits, or more or fewer key points, than the one before."""
        for codec in self.spec.codecs:
            forms = [_form(moment[codec.name].array, codec) for moment in moments]
            for number, before, form in zip(clip.frames[1:], forms, forms[1:]):
                if form != before:
                    where = self._root(clip.sequence).where(codec.name, self.sequences[clip.sequence], number)
                    raise UserError(
                        f"holds {form}, but {before} in the frame before",
                        where=where,
                        advice="correct the file",
                        code="frames-differ",
                    )

    def _root(self, sequence: int) -> FrameIndex:
        return self.roots[self.root_of[sequence]]

    def _where(self, sequence: int, number: int) -> str:
        return self._root(sequence).where(self.spec.codecs[0].name, self.sequences[sequence], number)


def _form(array: np.ndarray, codec: Codec) -> str:
    """What frames of a clip must have in common; images are resized to one size."""
    if codec.has_pixels:
        return f"pixels of {array.shape[2]} x {array.dtype}"
    return f"{' x '.join(map(str, array.shape))} numbers"


def _draw_root(roots: np.ndarray, weights: Sequence[float], rng: random.Random) -> int:
    """One of these roots, by the weights of all."""
    present = np.unique(roots).tolist()
    return rng.choices(present, [weights[root] for root in present])[0]
