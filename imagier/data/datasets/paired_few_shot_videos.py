"""Clips of videos, each with a few frames of the same sequence that show who or what is to move.

Wang et al., Few-shot Video-to-Video Synthesis, 2019.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagier.data import dataset
from imagier.data.augmentation.augment import parse_h_w
from imagier.data.dataset import DatasetSpec, Key
from imagier.data.drawing.face import fit_proportions
from imagier.data.listing.clip_length import ClipLength, check_clip_keys, clip_too_long
from imagier.data.listing.clips import Arrays, Clip, Clips, Edit, Frames, Moment, Playlist, stack
from imagier.data.listing.people import FINDERS, LANDMARKS, CropKind, Parts, check_crop, crop_frames, remove_others
from imagier.data.sample import Sample
from imagier.errors import UserError
from imagier.ranges import Count, Decay, Odd, Positive
from imagier.recipe import FEW_SHOT

_PINS = ("driving_seq_index", "few_shot_seq_index", "few_shot_frame_index")
_NOT_IN_TRAINING = (*_PINS, "normalize_landmarks")


@dataclass(frozen=True, kw_only=True)
class NormalizeParams:
    """How the points of a driving face get the proportions of the reference."""

    momentum: Decay = 0.9
    """Weight of the frames before in the scales of a frame."""
    window: Odd = 5
    """Each coordinate is the median over so many frames around it. [frames]"""


@dataclass(frozen=True)
class _References:
    """What does not depend on the frame of a held-out sequence."""

    frames: Frames
    parts: Parts | None
    points: np.ndarray | None
    """Those of the whole sequence, T x 68 x 2, in the proportions of the reference."""


class Dataset(dataset.Dataset):
    """As paired_videos; and each sample has frames for reference, named `few_shot_<type>`, which lie outside its clip.

    In training these are drawn, and augmented by a draw of their own. Else they are the same for all frames of a
    sequence: frames of it, evenly spread from its first on, or those that the config names.
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
        initial_few_shot_K: Positive = 1,
        initial_sequence_length: Positive | None = None,
        max_sequence_length: Positive = 100,
        num_videos_to_test: Positive | None = None,
        num_frames_per_video: Positive | None = None,
        crop: CropKind | None = None,
        output_h_w: str | None = None,
        normalize_landmarks: NormalizeParams | None = None,
        driving_seq_index: Count | str | None = None,
        few_shot_seq_index: Count | str | None = None,
        few_shot_frame_index: Count | None = None,
    ) -> None:
        """initial_few_shot_K: How many frames for reference a sample has. [frames]
        initial_sequence_length: First length of clips, needed in training. [frames]
        max_sequence_length: Largest length of clips. [frames]
        num_videos_to_test: Outside of training: how many sequences are read, the first ones; null: all. [sequences]
        num_frames_per_video: Outside of training: how many frames of each are read; null: all. [frames]
        crop: Cut out the face (by landmarks-dlib68) or the person (by pose_maps-densepose); null: nothing is cut.
        output_h_w: With crop: "height, width" of what is cut out. [pixels]
        normalize_landmarks: Outside of training: landmarks-dlib68 get the proportions of the first reference; null: no.
        driving_seq_index: Outside of training: read this sequence alone, by its name or its number; null: all.
        few_shot_seq_index: Outside of training: take references from this sequence; null: from each its own.
        few_shot_frame_index: Outside of training: take this one frame for reference; null: initial_few_shot_K of them.

        UserError if a type lacks a sequence or a frame, if no sequence is long enough, or if what the config names is
        not there.
        """
        super().__init__(spec)
        self.growth = ClipLength.of(spec, initial_sequence_length, max_sequence_length)
        self.num_references = initial_few_shot_K
        self.crop = crop
        self.size = parse_h_w(output_h_w) if output_h_w else (0, 0)
        self.normalize = normalize_landmarks
        if crop is not None:
            check_crop(crop, spec.codecs, "crop")
        if normalize_landmarks is not None:
            check_crop("face", spec.codecs, "normalize_landmarks")
        self.clips = Clips(spec, has_people=True)
        self.reference_of = None if few_shot_seq_index is None else self._find("few_shot_seq_index", few_shot_seq_index)
        self.reference_frame = few_shot_frame_index
        self.playlist = self._list_driving(driving_seq_index, num_videos_to_test, num_frames_per_video)
        self._check_reference_frame()
        self.samples_per_epoch = self._samples_per_epoch() if spec.is_training else len(self.playlist)
        self._kept: tuple[Key, _References] | None = None
        """Of the sequence that was read last: computed again, it would be the same."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": None}  # what it was drawn with cannot be sent to a worker

    @classmethod
    def check_keys(cls, keys: Mapping[str, Any], *, is_training: bool) -> None:
        """As of paired_videos; and UserError if a key lacks another, or has no effect in training."""
        check_clip_keys(keys, is_training=is_training)
        crop, size = keys["crop"], keys["output_h_w"]
        if (crop is None) != (size is None):
            given, other = ("crop", "output_h_w") if size is None else ("output_h_w", "crop")
            raise UserError(f"needs {other}", where=given, code="needs-key")
        if size is not None:
            try:
                parse_h_w(size)
            except UserError as error:
                raise UserError(error.what, where="output_h_w", code="not-a-size") from error
        for name in _NOT_IN_TRAINING if is_training else ():
            if keys[name] is not None:
                advice = "give it to val or test"
                raise UserError("has no effect in training", where=name, advice=advice, code="has-no-effect")

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
        """How many frames the clips of an epoch have."""
        most = self.clips.longest - self.num_references
        return min(self.growth.frames(epoch), most) if self.spec.is_training else 1

    @property
    def sequences(self) -> Sequence[tuple[str, int]]:
        """Outside of training: the name of each sequence, and how many frames it has."""
        return self.clips.list_names(self.playlist)

    def frame(self, sequence: int, number: int) -> Sample:
        """Outside of training: a frame of one of `sequences`."""
        return self[0, self.playlist.starts[sequence] + number]

    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index): as of paired_videos, and K x h x w x C of each type under `few_shot_<type>`."""
        epoch, index = key
        if not self.spec.is_training:
            return self._play(epoch, index)
        rng = self.rng(key)
        clip = self.clips.draw(self.frames(epoch), rng, self.num_references)
        length = int(self.clips.lengths[clip.sequence])
        outside = [n for n in range(length) if not clip.frames[0] <= n <= clip.frames[-1]]
        chosen = Clip(clip.sequence, sorted(rng.sample(outside, self.num_references)))
        frames, reference = self._read(clip, rng), self._read(chosen, rng)
        return self._sample(frames, reference, self._find_parts(frames, reference, rng))

    def load(self, index: int) -> dict[str, np.ndarray]:
        """As of paired_videos."""
        return self.clips.load_arrays(self._moment(index))

    def where(self, index: int) -> str:
        """What to call what `load` gives: the file, or the frame, of its first type."""
        sequence, frames = self._moment(index)
        return self.clips.where(sequence, frames[0])

    def _moment(self, index: int) -> Clip:
        return self.playlist.at(index * len(self.playlist) // len(self))

    def _samples_per_epoch(self) -> int:
        lengths, needed = self.clips.lengths, self.growth.initial + self.num_references
        count = int((lengths >= needed).sum())
        if not count:
            raise clip_too_long(self.growth.initial, self.clips.longest, self.num_references)
        # The reference's epochs have each sequence once; where that is less than a step, it has no epoch at all.
        step = self.spec.samples_per_step
        count = count if count >= step else int(lengths[lengths >= needed].sum())
        return count - count % step if count >= step else count

    # Held-out sequences

    def _find(self, key: str, wanted: int | str) -> int:
        try:
            return self.clips.find(wanted)
        except UserError as error:
            raise UserError(error.what, where=key, advice=error.advice, code=error.code) from error

    def _list_driving(self, wanted: int | str | None, num_videos: int | None, num_frames: int | None) -> Playlist:
        if self.spec.is_training:
            return self.clips.play()
        if wanted is None:
            return self.clips.play(num_videos, num_frames)
        sequence = self._find("driving_seq_index", wanted)
        length = int(self.clips.lengths[sequence])
        return Playlist([sequence], [min(length, num_frames or length)])

    def _check_reference_frame(self) -> None:
        for sequence in self.playlist.sequences if self.reference_frame is not None else ():
            sequence = sequence if self.reference_of is None else self.reference_of
            length = int(self.clips.lengths[sequence])
            if self.reference_frame is not None and self.reference_frame >= length:
                what = f"is {self.reference_frame}, but {self.names[sequence]} has {length} frames, counted from 0"
                raise UserError(what, where="few_shot_frame_index", advice="correct it", code="out-of-range")

    def _play(self, epoch: int, index: int) -> Sample:
        """A frame of a held-out sequence, which is changed as a whole."""
        clip = self.playlist.at(index)
        first = (epoch, index - clip.frames[0])
        if self._kept is None or self._kept[0] != first:
            self._kept = first, self._prepare(first, clip.sequence)
        kept = self._kept[1]

        def normalize(number: int, moment: Moment) -> Moment:
            if kept.points is None:
                return moment
            return {**moment, LANDMARKS: dataclasses.replace(moment[LANDMARKS], array=kept.points[number])}

        return self._sample(self._read(clip, self.rng(first), normalize), kept.frames, kept.parts)

    def _prepare(self, first: Key, sequence: int) -> _References:
        source = sequence if self.reference_of is None else self.reference_of
        length = int(self.clips.lengths[source])
        numbers = [number * length // self.num_references for number in range(self.num_references)]
        chosen = Clip(source, numbers if self.reference_frame is None else [self.reference_frame])
        reference = self._read(chosen, self.rng(first))
        parts = None
        if self.crop is not None:
            parts = self._find_parts(self._read(Clip(sequence, [0]), self.rng(first)), reference, None)
        points = None
        if self.normalize is not None:
            points = fit_proportions(
                self.clips.load_points(sequence, LANDMARKS),
                reference.moments[0][LANDMARKS].array[:, :2],
                momentum=self.normalize.momentum,
                window=self.normalize.window,
            )
        return _References(reference, parts, points)

    # Of a sample

    def _read(self, clip: Clip, rng: random.Random, edit: Edit = lambda number, moment: moment) -> Frames:
        frames = self.clips.read(clip, rng, edit)
        if self.crop != "person":
            return frames
        return dataclasses.replace(frames, arrays=[remove_others(arrays) for arrays in frames.arrays])

    def _find_parts(self, frames: Frames, reference: Frames, rng: random.Random | None) -> Parts | None:
        return None if self.crop is None else FINDERS[self.crop](frames, reference, self.size, rng)

    def _sample(self, frames: Frames, reference: Frames, parts: Parts | None) -> Sample:
        arrays: Arrays = {}
        keys: dict[str, str] = {}
        for prefix, each, part in zip(("", FEW_SHOT), (frames, reference), parts or (None, None)):
            shown = each.arrays
            if part is not None:
                shown = crop_frames(shown, self.spec.codecs, part, self.size)
            arrays |= {prefix + name: array for name, array in stack(shown).items()}
            key = self.clips.key(each.clip.sequence, each.clip.frames[0])
            keys |= {prefix + name: key for name in shown[0]}
        return Sample(arrays, keys, frames.numbers | {f"{FEW_SHOT}is_flipped": reference.drawn.is_flipped})
