"""Some samples of the held-out set as files, to begin with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imagier.config import schema
from imagier.data.codec import Codec
from imagier.data.decoding.decode import EncodedFile
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex, SequenceRef
from imagier.data.listing.pairing import list_paired_keys
from imagier.data.sources.object_store import is_remote
from imagier.data.sources.source import Source
from imagier.errors import UserError
from imagier.run import build_data
from imagier.run.inference import find_test_set
from imagier.tools.app.fields import Form

logger = logging.getLogger(__name__)

MOST_IMAGES, MOST_CLIPS = 6, 3
MOST_FRAMES = 24
"""Of a clip: as many as a CPU makes while somebody waits."""

_SMALL = 96
"""Largest sides of what is shown of a sample, in pixels."""


@dataclass(frozen=True)
class Sample:
    """A sample of the held-out set."""

    name: str
    files: Mapping[str, Sequence[Path]]
    """By input type: one file, or of a clip its frames or one video."""
    image: np.ndarray
    """What is shown of it, H x W x 3, uint8."""
    references: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Of a clip of a few-shot method: frames for reference, by input type."""


def copy_samples(form: Form, folder: Path) -> list[Sample]:
    """Copies the first samples of the held-out set into a folder; none where the data are not there."""
    settings = {setting.name: setting.value for setting in form.settings}
    needs = form.find_needs(settings)
    try:
        data, split = find_test_set(form.generator.config)
        data = build_data.select_input_types(data, [*needs.types, *needs.references])
        source = _open_first(data, split)
        copier = _Copier(source, build_data.build_codecs(data), folder)
        if form.is_video:
            return copier.copy_clips(needs.content, needs.references, split.own.get("initial_few_shot_K", 1))
        return copier.copy_images(needs.types, form.generator.reader.is_paired)
    except UserError as error:
        logger.info(f"no examples of the held-out set: {error}")
        return []


def _open_first(data: schema.Data, split: schema.Split) -> Source:
    root = split.roots[0]
    if is_remote(root, split.dataset_type):
        raise UserError("is in an object store, which is not read for examples", where=root, code="remote")
    return build_data.open_sources(data, split)[0]


class _Copier:
    """Copies files of a source into <folder>/<number>/<input type>."""

    def __init__(self, source: Source, codecs: Sequence[Codec], folder: Path) -> None:
        self.source = source
        self.codecs = codecs
        self.folder = folder

    def copy_images(self, types: Sequence[str], is_paired: bool) -> list[Sample]:
        """The first samples; where types do not belong together, the first files of each."""
        first = list_paired_keys(self.source, types)[:MOST_IMAGES] if is_paired else []
        keys = {name: first or self.source.keys(name)[:MOST_IMAGES] for name in types}
        return [
            Sample(
                of_sample[0].rpartition("/")[2],
                {name: [self._copy(number, name, key)] for name, key in zip(types, of_sample)},
                self._show(types, dict(zip(types, of_sample))),
            )
            for number, of_sample in enumerate(zip(*keys.values()))
        ]

    def copy_clips(self, content: Sequence[str], references: Sequence[str], num_references: int) -> list[Sample]:
        """The first sequences, of each the first frames, with frames for reference as the data set takes them."""
        index = FrameIndex(self.source, self.codecs, OpenVideos())
        if references and index.video_keys:
            what = "holds video files, of which no frames for reference are taken here"
            raise UserError(what, where=", ".join(index.video_keys), code="video-references")
        return [
            self._copy_clip(number, index, sequence, content, references, num_references)
            for number, sequence in enumerate(index.sequences[:MOST_CLIPS])
        ]

    def _copy_clip(
        self,
        number: int,
        index: FrameIndex,
        sequence: SequenceRef,
        content: Sequence[str],
        references: Sequence[str],
        num_references: int,
    ) -> Sample:
        def list_keys(name: str, frames: Sequence[int]) -> list[str]:
            if name in index.video_keys:
                return [index.video_keys[name][sequence.name]]
            return [index.keys[sequence.start + frame] for frame in frames]

        frames = range(sequence.length if index.video_keys else min(sequence.length, MOST_FRAMES))
        spread = sorted({sequence.length * each // num_references for each in range(num_references)})
        stills = [name for name in content if name not in index.video_keys]
        return Sample(
            sequence.name.removeprefix("./"),
            {name: [self._copy(number, name, key) for key in list_keys(name, frames)] for name in content},
            self._show(stills, {name: list_keys(name, [0])[0] for name in stills}),
            {name: [self._copy(number, name, key) for key in list_keys(name, spread)] for name in references},
        )

    def _copy(self, number: int, input_type: str, key: str) -> Path:
        name = key.rpartition("/")[2]
        path = self.folder / str(number) / input_type / f"{name}.{self.source.extension(input_type)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.source.read(input_type, key))
        return path

    def _show(self, types: Sequence[str], keys: Mapping[str, str]) -> np.ndarray:
        """The first of the types that is an image, small; gray without one."""
        for codec in (codec for name in types for codec in self.codecs if codec.name == name and codec.has_pixels):
            array = codec.load(EncodedFile.read(self.source, codec.name, keys[codec.name])).array
            image = codec.to_rgb(array)
            step = -(-max(image.shape[:2]) // _SMALL)
            return np.ascontiguousarray(image[::step, ::step])
        return np.full((_SMALL, _SMALL, 3), 128, np.uint8)
