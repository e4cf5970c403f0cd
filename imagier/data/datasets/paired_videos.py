"""Clips of videos: some frames, one after the other, of several types that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagier.data import dataset
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.listing.clip_length import ClipLength, check_clip_keys, clip_too_long
from imagier.data.listing.clips import Clip, Clips, stack
from imagier.data.sample import Sample
from imagier.ranges import Positive

LEAST_STEPS = 8
"""An epoch of fewer steps, if it held each sequence once, holds as many clips as there are frames."""


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
        num_videos_to_test: Positive | None = None,
        num_frames_per_video: Positive | None = None,
    ) -> None:
        """initial_sequence_length: First length of clips, needed in training. [frames]
        max_sequence_length: Largest length of clips. [frames]
        num_videos_to_test: Outside of training: how many sequences are read, the first ones; null: all. [sequences]
        num_frames_per_video: Outside of training: how many frames of each are read; null: all. [frames]

        In training an epoch is as long as a whole number of steps. UserError if a type lacks a sequence or a frame, or
        if no sequence is long enough.
        """
        super().__init__(spec)
        self.growth = ClipLength.of(spec, initial_sequence_length, max_sequence_length)
        self.clips = Clips(spec)
        playing = {} if spec.is_training else {"num_videos": num_videos_to_test, "num_frames": num_frames_per_video}
        self.playlist = self.clips.play(**playing)
        self.samples_per_epoch = self._samples_per_epoch() if spec.is_training else len(self.playlist)

    @classmethod
    def check_keys(cls, keys: Mapping[str, Any], *, is_training: bool) -> None:
        """UserError if training does not say how long clips are, or if they can grow to less than that."""
        check_clip_keys(keys, is_training=is_training)

    def __len__(self) -> int:
        return self.samples_per_epoch

    @property
    def blocks(self) -> Sequence[int]:
        """In training one; else the lengths of the sequences."""
        return [len(self)] if self.spec.is_training else self.playlist.lengths

    @property
    def names(self) -> Sequence[str]:
        """Of all sequences."""
        return self.clips.names

    def frames(self, epoch: int) -> int:
        """How many frames the samples of an epoch have."""
        return min(self.growth.frames(epoch), self.clips.longest) if self.spec.is_training else 1

    @property
    def sequences(self) -> Sequence[tuple[str, int]]:
        """Outside of training: the name of each sequence, and how many frames it has."""
        return self.clips.list_names(self.playlist)

    def frame(self, sequence: int, number: int) -> Sample:
        """Outside of training: a frame of one of `sequences`."""
        return self[0, self.playlist.starts[sequence] + number]

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index): images T x h x w x C, and under the name of each type the key of its first.

        Numbers, beside those of all paired types: `sequence`, `frame` (the number of the first frame in it; 0 begins
        it) and `time_step` (from one frame to the next).
        """
        epoch, index = key
        if self.spec.is_training:
            rng = self.rng(key)
            clip = self.clips.draw(self.frames(epoch), rng)
        else:
            clip = self.playlist.at(index)
            rng = self.rng((epoch, index - clip.frames[0]))  # a sequence is changed as a whole
        frames = self.clips.read(clip, rng)
        arrays = stack(frames.arrays)
        return Sample(arrays, dict.fromkeys(arrays, self.clips.key(clip.sequence, clip.frames[0])), frames.numbers)

    def load(self, index: int) -> dict[str, np.ndarray]:
        """The images of one moment as stored, checked: in training as far along all frames as `index` is in an epoch.

        UserError with the name of a file that is wrong.
        """
        return self.clips.load_arrays(self._moment(index))

    def where(self, index: int) -> str:
        """What to call what `load` gives: the file, or the frame, of its first type."""
        sequence, frames = self._moment(index)
        return self.clips.where(sequence, frames[0])

    def _samples_per_epoch(self) -> int:
        lengths = self.clips.lengths
        long_enough = lengths[lengths >= self.growth.initial]
        if not len(long_enough):
            raise clip_too_long(self.growth.initial, self.clips.longest)
        step = self.spec.samples_per_step
        count = int(long_enough.sum()) if len(long_enough) < LEAST_STEPS * step else len(long_enough)
        # Whole steps, since the clips of two epochs may differ in length.
        return count - count % step if count >= step else count

    def _moment(self, index: int) -> Clip:
        return self.playlist.at(index * len(self.playlist) // len(self))
