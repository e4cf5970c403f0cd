"""Samples of the held-out set, as stored and as the network sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from imagier.config import schema
from imagier.config.check import Config
from imagier.data.loading.loader import Loader
from imagier.recipe import Batch, Recipe
from imagier.run import build_data
from imagier.run.inference import find_test_set
from imagier.run.sizes import keep_deterministic, replace_augmentations
from imagier.train.hooks.images import encode

NUM_SAMPLES = 8
NUM_CALIBRATION = 32


@dataclass(frozen=True)
class Samples:
    """Some samples of equal size."""

    stored: Batch
    """Before they are expanded: uint8, int32 (16 bits) or float32, N x H x W x C, by the names of the config."""
    ready: Batch
    """As the network sees them."""

    @property
    def names(self) -> list[str]:
        """A name for the files of each."""
        keys = next(iter(self.stored.keys.values()))
        plain = [re.sub(r"[^\w-]+", "_", key).strip("_") for key in keys]
        return plain if len(set(plain)) == len(plain) else [f"{i}_{name}" for i, name in enumerate(plain)]


class SampleReader:
    """Reads samples of the test set, or of the held-out one, whose sides are cut to multiples of what the method needs.

    Augmentations that are random are left out, as where images are made of the test set.
    """

    def __init__(self, config: Config, recipe: Recipe) -> None:
        """UserError if the data are not there."""
        self.recipe = recipe
        self.data, split = find_test_set(config)
        kept, _ = keep_deterministic(split.augmentations)
        self.split: schema.Split = replace_augmentations(split, kept)
        self.expander = build_data.build_expander(self.data, channels_last=False)
        samples = build_data.build_dataset(self.data, self.split, seed=0).for_inference(NUM_SAMPLES)
        self.loader = Loader(samples, NUM_SAMPLES, device=torch.device("cpu"), finish=self._cut)

    def read_some(self) -> Samples:
        """A few, spread over the set."""
        return self._expand(self.loader.some(NUM_SAMPLES))

    def read_others(self, samples: Samples) -> list[Samples]:
        """Others of the same size, by which ranges are measured; the same ones if there are no others."""
        single = Loader(self.loader.dataset, 1, device=torch.device("cpu"), finish=self._cut)
        forms = {name: x.shape[1:] for name, x in samples.stored.tensors.items()}
        seen = set(zip(*samples.stored.keys.values()))
        drawn = [
            batch
            for batch in single.draw(NUM_SAMPLES + NUM_CALIBRATION)
            if {name: x.shape[1:] for name, x in batch.tensors.items()} == forms
            and next(zip(*batch.keys.values())) not in seen
        ]
        return [self._expand(batch) for batch in drawn[:NUM_CALIBRATION]] or [samples]

    def _cut(self, batch: Batch) -> Batch:
        """The samples without the last rows and columns that the method cannot take."""
        multiple = self.recipe.size_multiple
        codecs = [codec for codec in build_data.build_codecs(self.data) if codec.gives_pixels]
        cut = {}
        for name in (codec.name for codec in codecs if codec.name in batch):
            height, width = (side // multiple * multiple or side for side in batch[name].shape[1:3])
            cut[name] = batch[name][:, :height, :width]
        return batch.replace(**cut)

    def _expand(self, stored: Batch) -> Samples:
        return Samples(stored, self.recipe.prepare(self.expander(stored)))


def write_sample_images(
    folder: Path, samples: Samples, parts: Sequence[str], style: str | None, images: np.ndarray, noise: Tensor | None
) -> list[dict[str, object]]:
    """Writes <name>.input.png as stored, <name>.style.png and <name>.output.png; returns what bundle.json says of them.

    Of several parts, each has a file of its own. parts: the input types of the content. style: that of the style
    images. images: the results, N x H x W x C, uint8. noise: the style codes, N x D.
    """
    folder.mkdir()
    found: list[dict[str, object]] = []
    for row, name in enumerate(samples.names):
        inputs: dict[str, str] = {}
        for part in parts:
            middle = "input" if len(parts) == 1 else f"input.{part}"
            if _write_png(folder / f"{name}.{middle}.png", samples.stored[part][row]):
                inputs[part] = f"samples/{name}.{middle}.png"
        of_style = None
        if style is not None and _write_png(folder / f"{name}.style.png", samples.stored[style][row]):
            of_style = f"samples/{name}.style.png"
        (folder / f"{name}.output.png").write_bytes(encode(_to_rgb(images[row]), ".png"))
        entry: dict[str, object] = {"input": next(iter(inputs.values()), None), "inputs": inputs, "style": of_style}
        if noise is not None:
            entry["noise"] = [round(value, 6) for value in noise[row].tolist()]
        found.append({**entry, "output": f"samples/{name}.output.png"})
    return found


def _write_png(path: Path, stored: Tensor) -> bool:
    """Writes H x W x C as it is; False if no PNG can hold it."""
    array = stored.numpy()
    if array.dtype == np.int32:
        array = array.astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16) or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        return False
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[array.shape[2]]
    array = np.ascontiguousarray(array)
    done, png = cv2.imencode(".png", array if order is None else cv2.cvtColor(array, order))
    assert done
    path.write_bytes(png.tobytes())
    return True


def _to_rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
