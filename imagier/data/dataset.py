"""The contract of a data set: `Dataset`, the `DatasetSpec` that it is built from, and the `Key` of a sample."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from imagier.data.codec import Codec
from imagier.data.sample import Sample, random_source
from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.source import Source

Key = tuple[int, int]
"""(epoch, index) of a sample: all that it depends on, besides the seed."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What every data set is built from: the files of one split, and what the config says about all data sets."""

    sources: Sequence[Source]
    """One per root, in the order of the config."""
    codecs: Sequence[Codec]
    """One per input type, in the order of the config."""
    augmentations: Mapping[str, Any]
    """The keys of the config; their order counts."""
    interpolator: str = "INTER_LINEAR"
    """OpenCV's name, for the first resize of images."""
    is_training: bool = False
    """Files are drawn at random, where the data set does so in training."""
    seed: int = 0
    root_weights: Sequence[float] | None = None
    """In training: how often files of each source are drawn. None: all files alike."""
    reduced_jpeg: bool = False
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size where augmentation leaves no more of it."""
    compute_lock: ComputeLock | None = None
    """Handed on by sources that are waited for, so that threads can wait together. None: the sources answer at once."""
    samples_per_step: int = 1
    """Samples that all ranks together take in a training step."""
    single_frame_epoch: int = 0
    """Clips: the first epoch with more than one frame."""
    num_epochs_temporal_step: int | None = None
    """Clips: epochs after which their length doubles. None: never."""


class Dataset(ABC):
    """Samples by (epoch, index). The class that `data.type` names; subclasses inherit what they do not replace.

    A data set's own options are keyword-only arguments of its constructor, after the spec. Their keys stand in the
    section `data` or in a split. A file of your own, `my_lab/large_images.py`, used as `type: my_lab.large_images`:

        import numpy as np

        from imagier.data import dataset
        from imagier.data.dataset import DatasetSpec, Key
        from imagier.data.listing.files import Files, make_sample
        from imagier.data.sample import Sample

        class Dataset(dataset.Dataset):
            '''Images that are large enough, each by itself.'''

            required_input_types = ("images",)

            def __init__(self, spec: DatasetSpec, *, min_side_px: int = 1) -> None:
                super().__init__(spec)
                self.files = Files(spec, spec.codecs[0])
                sizes = [self.files.load(i).shape[:2] for i in range(len(self.files))]
                self.indices = [i for i, size in enumerate(sizes) if min(size) >= min_side_px]

            def __len__(self) -> int:
                return len(self.indices)

            def __getitem__(self, key: Key) -> Sample:
                epoch, index = key
                return make_sample({"images": self.files}, {"images": self.indices[index]}, self.rng(key))

            def load(self, index: int) -> dict[str, np.ndarray]:
                return {"images": self.files.load(self.indices[index])}

    It may also subclass one of ours: `class Dataset(paired_images.Dataset)`.
    """

    is_video: ClassVar[bool] = False
    """Samples are clips: their arrays have a first dimension of frames."""
    is_paired: ClassVar[bool] = False
    """Files of all input types belong together by name."""
    draws_files: ClassVar[bool] = False
    """In training the file of each type is drawn by itself: which ones come together, changes."""
    reads_keypoints: ClassVar[bool] = False
    """Input types may be key points."""
    reads_root_weights: ClassVar[bool] = False
    """In training it draws roots by `spec.root_weights`."""
    reads_reduced_jpeg: ClassVar[bool] = False
    """It decodes at reduced scale if `spec.reduced_jpeg` says so."""
    makes_label: ClassVar[bool] = True
    """Input types can make up the label of an image (`input_labels`)."""
    has_classes: ClassVar[bool] = False
    """Samples have labels: numbers of `classes`."""
    required_input_types: ClassVar[tuple[str, ...]] = ()
    """The names of its input types, neither more nor less; empty: any will do."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec

    @classmethod  # noqa: B027 - most have nothing to check
    def check_keys(cls, keys: Mapping[str, Any], *, is_training: bool) -> None:
        """UserError, whose place is a key, if the values of its own keys do not fit together.

        For what the types of the constructor's arguments cannot say: so a config is refused before files are read.
        is_training: the keys are those of the training set.
        """

    def rng(self, key: Key) -> random.Random:
        """The source of all that is random in a sample: the same in every process that makes it."""
        return random_source(self.spec.seed, *key)

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """For each label of a sample, by its name among the numbers, the names of its classes in order.

        None unless `has_classes`.
        """
        return {}

    @property
    def blocks(self) -> Sequence[int]:
        """Lengths of the runs of samples that lie together (a shard, a video), in order; by default, one run."""
        return [len(self)]

    @abstractmethod
    def __len__(self) -> int:
        """Samples in an epoch."""

    @abstractmethod
    def __getitem__(self, key: Key) -> Sample:
        """The sample of (epoch, index), augmented; a function of these and of the seed alone.

        UserError, with the file's name, if it cannot be read or augmented.
        """

    def for_inference(self, num_styles: int | None = None) -> Dataset:
        """The same files, in the combinations of which images are made; by default, the samples as they are.

        num_styles: where there are files of styles, how many of them; None: all.
        """
        return self

    @abstractmethod
    def load(self, index: int) -> dict[str, np.ndarray]:
        """Arrays by input type as stored, checked: over all indices, those of all files. UserError names a wrong one.

        For checks before a run; training does not call it.
        """
