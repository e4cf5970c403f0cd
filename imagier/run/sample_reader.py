"""What a caller has, as batches of one sample: read, checked and resized as the config says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from imagier.config import schema
from imagier.config.check import Config
from imagier.config.find import find
from imagier.data.augmentation.augment import find_largest_size
from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec
from imagier.data.loading.loader import Loader
from imagier.data.loading.on_device import Expander
from imagier.data.sample import image_sizes, load_stored
from imagier.errors import UserError
from imagier.recipe import Batch, InferenceInputs
from imagier.run import build_data
from imagier.run.inference import find_test_set, find_types
from imagier.run.memory_source import KEY, Input, MemorySource
from imagier.run.sizes import keep_deterministic, keep_resize, replace_augmentations

CLIPS = "paired_videos"
"""The data set that reads frames of a caller's."""


class SampleReader:
    """Reads inputs of a caller's, by the name of their input type."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """device: where batches go."""
        self.channels_last = config.trainer.channels_last
        self.device = device
        self.data, self.split = find_test_set(config, or_training=True)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs of the config. A method may need only some of them to make an image."""
        return [codec.name for codec in build_data.build_codecs(self.data)]

    @property
    def is_paired(self) -> bool:
        """Whether inputs of several types belong together by name."""
        return find(schema.DATASET, self.data.type).is_paired

    @property
    def extensions(self) -> set[str]:
        """Those of the files of the config."""
        return {codec.input_type.ext for codec in build_data.build_codecs(self.data)}

    def find_types(self, names: Sequence[str]) -> list[str]:
        """The input types behind names in a batch."""
        return find_types(self.data, names)

    def read(self, inputs: Mapping[str, Input], needs: InferenceInputs, *, full_size: bool) -> Batch:
        """A batch of one sample on the device, those of the content together, others by themselves.

        At the scale of the test set, or with full_size at that of the files. UserError if one is missing, or wrong.
        """
        together = self.find_together(inputs, needs)
        size = self.measure(inputs, together) if full_size else None
        return join_batches(self.read_together(inputs, together, size), self.read_others(inputs, together))

    def find_together(self, inputs: Mapping[str, Input], needs: InferenceInputs) -> list[str]:
        """The input types that show the same, pixel by pixel. UserError if inputs are missing, or unknown."""
        self._check_names(inputs)
        together = [name for name in self.find_types(needs.aligned) if name in inputs]
        if not together:
            self.read_others(inputs, together)  # raises what is wrong with these
            raise self._missing_error(self.find_types(needs.content) or self.input_names)
        return together

    def read_together(self, inputs: Mapping[str, Input], names: Sequence[str], size: Size | None = None) -> Batch:
        """Inputs that belong together, resized to a size, or as those of the test set."""
        augmentations = (
            keep_resize(self.split.augmentations) if size is None else {"resize_h_w": "{}, {}".format(*size)}
        )
        return self._load(inputs, names, augmentations, self.device)

    def read_stored(self, inputs: Mapping[str, Input], names: Sequence[str], size: Size) -> tuple[Batch, Expander]:
        """Inputs that belong together as they are stored, on the CPU, N x H x W x C; and what expands parts of them.

        UserError if one has no pixels.
        """
        data = build_data.select_input_types(self.data, names)
        for codec in build_data.build_codecs(data):
            if not codec.gives_pixels:
                what, advice = "are no pixels, which tiles could be cut out of", "leave it out"
                raise UserError(f"{codec.name} {what}", where="tile", advice=advice, code="no-tiles")
        augmentations = {"resize_h_w": f"{size[0]}, {size[1]}"}
        stored = self._load(inputs, names, augmentations, torch.device("cpu"), lambda batch: batch)
        return stored, build_data.build_expander(data, self.channels_last)

    def read_others(self, inputs: Mapping[str, Input], together: Sequence[str]) -> list[Batch]:
        """All other inputs, each by itself, at the scale of the test set."""
        return [self.read_together(inputs, [name]) for name in inputs if name not in together]

    def read_frame(self, inputs: Mapping[str, Input], types: Sequence[str]) -> Batch:
        """Those of these types as a batch of one frame."""
        self._check_names(inputs)
        names = [name for name in types if name in inputs]
        if not names:
            raise self._missing_error(types)
        data = dataclasses.replace(build_data.select_input_types(self.data, names), type=CLIPS)
        kept, _ = keep_deterministic(self.split.augmentations)
        source = MemorySource(build_data.build_codecs(data), inputs)
        split = dataclasses.replace(replace_augmentations(self.split, kept), own={})
        return self._read_source(data, split, source, self.device)

    def measure(self, inputs: Mapping[str, Input], names: Sequence[str]) -> Size:
        """The largest height and width of inputs, as their files are."""
        codecs = build_data.build_codecs(build_data.select_input_types(self.data, names))
        return _measure(MemorySource(codecs, inputs), codecs)

    def _load(
        self,
        inputs: Mapping[str, Input],
        names: Sequence[str],
        augmentations: Mapping[str, object],
        device: torch.device,
        finish: Callable[[Batch], Batch] | None = None,
    ) -> Batch:
        data = build_data.select_input_types(self.data, names)
        source = MemorySource(build_data.build_codecs(data), inputs)
        return self._read_source(data, replace_augmentations(self.split, augmentations), source, device, finish)

    def _read_source(
        self,
        data: schema.Data,
        split: schema.Split,
        source: MemorySource,
        device: torch.device,
        finish: Callable[[Batch], Batch] | None = None,
    ) -> Batch:
        loader = Loader(
            build_data.build_dataset(data, split, seed=0, stores=[source]),
            batch_size=1,
            device=device,
            finish=finish or build_data.build_expander(data, self.channels_last),
        )
        (stored,) = loader.once()
        return stored

    def _check_names(self, inputs: Mapping[str, Input]) -> None:
        for name in inputs:
            if name not in self.input_names:
                raise UserError("unknown input", where=name, advice=self._known_inputs, code="unknown-input")
        if not inputs:
            raise UserError("no inputs", advice=self._known_inputs, code="missing-input")
        missing = [name for name in self._label_names if name not in inputs]
        if missing and len(missing) < len(self._label_names):  # the label has a fixed number of channels
            raise self._missing_error(missing)

    @contextmanager
    def name_missing(self) -> Iterator[None]:
        """Turns the KeyError of a recipe that needs an input which is not given into a UserError."""
        try:
            yield
        except KeyError as error:
            name = error.args[0]
            if name == "label":
                raise self._missing_error(self._label_names) from error
            if name in self.input_names:
                raise self._missing_error([name]) from error
            raise

    @property
    def _label_names(self) -> list[str]:
        """The input types that make up the label."""
        codecs = build_data.build_codecs(self.data)
        return [codec.name for codec in codecs if codec.batch_name in self.data.input_labels]

    def _missing_error(self, names: Sequence[str]) -> UserError:
        where = ", ".join(names)
        return UserError("missing input", where=where, advice=self._known_inputs, code="missing-input")

    @property
    def _known_inputs(self) -> str:
        return f"the config has: {', '.join(self.input_names)}"


def join_batches(batch: Batch, others: Sequence[Batch]) -> Batch:
    """A batch with the tensors of others, too."""
    return dataclasses.replace(batch, tensors={k: v for each in [*others, batch] for k, v in each.tensors.items()})


def _measure(source: MemorySource, codecs: Sequence[Codec]) -> Size:
    """The largest height and width of the files of a sample."""
    stored = load_stored(source, codecs, KEY)
    return find_largest_size(image_sizes(stored, codecs).values())
