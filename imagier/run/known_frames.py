"""What is known of the frames of clips beside their pixels: stored flow, and points of the world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imagier.data.codec import Codec, InputType
from imagier.data.codecs import flow, unprojections
from imagier.data.decoding.decode import EncodedFile
from imagier.data.loading.on_device import Expander
from imagier.data.sources.source import sort_frames
from imagier.errors import UserError
from imagier.recipe import Batch
from imagier.run.image_sets import StoredImage, hash_image_set, open_image_set

INPUT_TYPES = ("flow", "unprojections")


class KnownFrames:
    """Folders of one input type each, <sequence>/<frame>.png, as a data set of videos has them."""

    def __init__(self, folders: Mapping[str, Path], cell: int = 1) -> None:
        """folders: by their names, of INPUT_TYPES. cell: of unprojections. UserError: an empty folder."""
        made: dict[str, Codec] = {
            "flow": flow.Codec(InputType(name="flow", ext="png")),
            "unprojections": unprojections.Codec(InputType(name="unprojections", ext="png"), cell=cell),
        }
        self.folders = folders
        self.cell = cell
        self._codecs = [made[name] for name in folders]
        self._stored = {name: {image.name: image for image in open_image_set(folders[name], name)} for name in folders}
        sequences: dict[str, list[str]] = {}
        for name in self._stored.get("flow", ()):
            sequences.setdefault(name.rpartition("/")[0], []).append(name)
        self._leads_to = {name: before for names in sequences.values() for before, name in pairwise(sort_frames(names))}

    def describe(self) -> dict[str, object]:
        """What a card says of it."""
        found: dict[str, object] = {
            f"{name}_sha256": hash_image_set(list(images.values())) for name, images in self._stored.items()
        }
        return found | ({"cell": self.cell} if "unprojections" in self._stored else {})

    def read(self, frames: Sequence[StoredImage], images: Tensor) -> dict[str, Tensor]:
        """What is known of consecutive frames T x 3 x H x W: 1 x T x C x H x W each, named as in a batch.

        On the device of the frames. UserError: a frame of which something is not known, or known in another size; flow
        that leads to a frame that is missing.
        """
        arrays = {
            codec.name: np.stack(list(self._read_arrays(codec, frames, images.shape[2:]))) for codec in self._codecs
        }
        for before, frame in pairwise(frames) if "flow" in arrays else ():
            needed = self._leads_to.get(frame.name, before.name)
            if needed != before.name:
                advice = "give whole sequences"
                what = f"the frame before it, {needed}, is missing"
                raise UserError(what, where=frame.where, advice=advice, code="missing-frame")
        stored = {name: torch.from_numpy(array[None]).to(images.device) for name, array in arrays.items()}
        return Expander(self._codecs, ())(Batch(stored, {})).tensors

    def _read_arrays(self, codec: Codec, frames: Sequence[StoredImage], size: Sequence[int]) -> Iterator[np.ndarray]:
        """Of each frame, as `expand` takes it."""
        for frame in frames:
            stored = self._stored[codec.name].get(frame.name)
            if stored is None:
                advice = f"name frames as those of the {codec.name}"
                what = f"has no {codec.name} in {self.folders[codec.name]}"
                raise UserError(what, where=frame.where, advice=advice, code="not-known")
            with stored.open() as file:
                array = codec.load(EncodedFile(file.read(), stored.ext, stored.where)).array
            height, width = array.shape[:2]
            if (height, width) != tuple(size):
                what = f"has {width} x {height} px, the frame has {size[1]} x {size[0]} px"
                advice = f"give {codec.name} of the size of the frames"
                raise UserError(what, where=stored.where, advice=advice, code="other-size")
            yield _UNPACK[codec.name](array)


_UNPACK = {"flow": flow.unpack, "unprojections": lambda stored: stored.astype(np.int32)}
