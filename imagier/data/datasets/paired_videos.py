"""Clips of videos: some frames, one after the other, of several types that belong together."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from imagier.data.augmentation.augment import Augmenter, Drawn, largest
from imagier.data.decoding.sample import InputType, Number, Sample, Stored, random_source
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.clip_length import ClipLength
from imagier.data.listing.frame_index import FrameIndex
from imagier.data.loading.order import Key
from imagier.data.sources.source import Source, unique_names
from imagier.errors import UserError

LEAST_STEPS = 8
"""An epoch of fewer steps, if it held each sequence once, holds as many clips as there are frames."""


class _Place(NamedTuple):
    """Which frames a sample has: of a sequence, from a number on, every so many."""

    sequence: int
    frames: range


class Dataset:
    """In training clips of drawn sequences, else all sequences from end to end, a frame a sample.

    A sequence is a folder of files, or a video file. All roots together give the sequences, those of each in the order
    of their names. In training the index of a sample is nothing but a source of randomness: all frames have their
    chance in each. Key points are as in paired_images.
    """

    classes: ClassVar[Sequence[str]] = ()
    paired: ClassVar[bool] = True
    reads_points: ClassVar[bool] = True
    clips: ClassVar[bool] = True
    """Samples have frames, and the config says how many."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        input_types: Sequence[InputType],
        augmentations: Mapping[str, Any],
        interpolator: str = "INTER_LINEAR",
        use_dont_care: bool = False,
        training: bool = False,
        seed: int = 0,
        root_weights: Sequence[float] | None = None,
        reduced_jpeg: bool = False,
        initial_sequence_length: int | None = None,
        max_sequence_length: int = 100,
        single_frame_epoch: int = 0,
        num_epochs_temporal_step: int | None = None,
        samples_per_step: int = 1,
    ) -> None:
        """training: needs initial_sequence_length, the frames of a clip; how it grows says ClipLength.

        samples_per_step: of all ranks; an epoch is as long as a whole number of steps. UserError if a type lacks a
        sequence or a frame, or if no sequence is long enough.
        """
        self.input_types = input_types
        self.training = training
        self.seed = seed
        self.root_weights = root_weights
        self.images = [kind.name for kind in input_types if not kind.is_points]
        masks = [kind.name for kind in input_types if kind.is_mask]
        self.augmenter = Augmenter(augmentations, masks, interpolator)
        self.needed = self.augmenter.needed_size if reduced_jpeg else None
        self.max_time_step = augmentations.get("max_time_step", 1)
        videos = OpenVideos()
        self.roots = [FrameIndex(source, input_types, videos, use_dont_care=use_dont_care) for source in sources]
        self.strips = [strip for tracks in self.roots for strip in tracks.strips]
        self.root_of = np.repeat(np.arange(len(self.roots)), [len(tracks.strips) for tracks in self.roots])
        self.names = unique_names(strip.name for strip in self.strips)
        self.lengths = np.array([strip.length for strip in self.strips], np.int64)
        self.ends = np.cumsum(self.lengths)
        self.growth = ClipLength(
            initial=initial_sequence_length or 1,
            most=max_sequence_length,
            single_frame_epoch=single_frame_epoch,
            num_epochs_temporal_step=num_epochs_temporal_step,
        )
        self.samples_per_epoch = self._samples_per_epoch(samples_per_step) if training else int(self.ends[-1])

    def __len__(self) -> int:
        return self.samples_per_epoch

    @property
    def blocks(self) -> Sequence[int]:
        """In training one; else the lengths of the sequences."""
        return [len(self)] if self.training else self.lengths.tolist()

    def frames(self, epoch: int) -> int:
        """How many frames the samples of an epoch have."""
        return min(self.growth.frames(epoch), int(self.lengths.max())) if self.training else 1

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index): images T x h x w x C, and under the name of each type the key of its first.

        Numbers, beside those of all paired types: `sequence`, `frame` (the number of the first frame in it; 0 begins
        it) and `time_step` (from one frame to the next).
        """
        epoch, index = key
        if self.training:
            rng = random_source(self.seed, epoch, index)
            place = self._drawn(self.frames(epoch), rng)
        else:
            place = self._at(index)
            rng = random_source(self.seed, epoch, index - place.frames[0])  # all frames of a sequence are changed alike
        return self._sample(place, rng)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The images of one moment as stored, checked: in training as far along all frames as `index` is in an epoch.

        UserError with the name of a file that is wrong.
        """
        sequence, frames = self._look(index)
        stored = self._tracks(sequence).load(self.strips[sequence], frames[0])
        return {name: each.array for name, each in stored.items()}

    def where(self, index: int) -> str:
        """What to call what `load` gives: the file, or the frame, of its first type."""
        sequence, frames = self._look(index)
        return self._where(sequence, frames[0])

    def _samples_per_epoch(self, samples_per_step: int) -> int:
        long_enough = self.lengths[self.lengths >= self.growth.initial]
        if not len(long_enough):
            raise UserError(
                f"is {self.growth.initial}, but the longest sequence has {self.lengths.max()} frames",
                where="initial_sequence_length",
                advice="lower it",
            )
        few = len(long_enough) < LEAST_STEPS * samples_per_step
        count = int(long_enough.sum()) if few else len(long_enough)
        # Whole steps, since the clips of two epochs may differ in length.
        return count - count % samples_per_step if count >= samples_per_step else count

    def _drawn(self, frames: int, rng: random.Random) -> _Place:
        """A random clip; the draws are those of the reference."""
        step = rng.randint(1, self.max_time_step)
        span = 1 + (frames - 1) * step
        if span > self.lengths.max():
            step, span = 1, frames
        valid = np.flatnonzero(self.lengths >= span)
        if self.root_weights is not None:
            valid = valid[self.root_of[valid] == _drawn_root(self.root_of[valid], self.root_weights, rng)]
        sequence = int(valid[rng.choice(range(len(valid)))])
        start = rng.randint(0, int(self.lengths[sequence]) - span)
        return _Place(sequence, range(start, start + span, step))

    def _at(self, place: int) -> _Place:
        """The frame at a place among those of all sequences."""
        sequence = int(np.searchsorted(self.ends, place, side="right"))
        number = place - int(self.ends[sequence] - self.lengths[sequence])
        return _Place(sequence, range(number, number + 1))

    def _look(self, index: int) -> _Place:
        return self._at(index * int(self.ends[-1]) // len(self))

    def _sample(self, place: _Place, rng: random.Random) -> Sample:
        sequence, frames = place
        tracks, strip = self._tracks(sequence), self.strips[sequence]
        moments = [tracks.load(strip, number, self.needed) for number in frames]
        self._check_alike(moments, place)
        sizes = {name: largest([moment[name].size for moment in moments]) for name in self.images}
        original = largest(sizes.values())
        try:
            drawn = self.augmenter.draw(original, rng)
            changed = [self._changed(drawn, moment) for moment in moments]
            arrays = {name: np.stack([moment[name] for moment in changed]) for name in changed[0]}
        except UserError as error:
            raise error.at(self._where(sequence, frames[0])) from error
        numbers: dict[str, Number] = {"original_h_w": original, "is_flipped": drawn.is_flipped}
        numbers |= {f"original_h_w_{name}": size for name, size in sizes.items()}
        numbers |= {"sequence": sequence, "frame": frames[0], "time_step": frames.step}
        key = f"{self.names[sequence]}/{tracks.name(strip, frames[0])}"
        return Sample(arrays, dict.fromkeys(arrays, key), numbers)

    def _changed(self, drawn: Drawn, moment: Mapping[str, Stored]) -> dict[str, np.ndarray]:
        of_points = "image" if "image" in self.images else self.images[0]
        return {
            name: drawn.apply(name, each.array, each.extent)
            if name in self.images
            else drawn.points(each.array, moment[of_points].size)
            for name, each in moment.items()
        }

    def _check_alike(self, moments: Sequence[Mapping[str, Stored]], place: _Place) -> None:
        """UserError if a frame has other channels or bits, or more or fewer key points, than the one before."""
        for kind in self.input_types:
            forms = [_form(moment[kind.name].array, kind) for moment in moments]
            for number, before, form in zip(place.frames[1:], forms, forms[1:]):
                if form != before:
                    where = self._tracks(place.sequence).where(kind.name, self.strips[place.sequence], number)
                    raise UserError(
                        f"holds {form}, but {before} in the frame before", where=where, advice="correct the file"
                    )

    def _tracks(self, sequence: int) -> FrameIndex:
        return self.roots[self.root_of[sequence]]

    def _where(self, sequence: int, number: int) -> str:
        return self._tracks(sequence).where(self.input_types[0].name, self.strips[sequence], number)


def _form(array: np.ndarray, kind: InputType) -> str:
    """What frames of a clip must have in common; images are resized to one size."""
    if kind.is_points:
        return f"{array.shape[0]} x {array.shape[1]} numbers"
    return f"pixels of {array.shape[2]} x {array.dtype}"


def _drawn_root(roots: np.ndarray, weights: Sequence[float], rng: random.Random) -> int:
    """One of the roots that are there, by the weights of all."""
    there = np.unique(roots).tolist()
    return rng.choices(there, [weights[root] for root in there])[0]
