"""A small good set of every data set type, with a config of a method that reads anything."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tiny
import yaml
from images import png, smooth, write

METHOD = """
from torch import nn
from imagier.recipe import Recipe as Base


class Generator(nn.Module):
    pass


class Discriminator(nn.Module):
    pass


class Recipe(Base):
    is_video = {clips}

    def __init__(self, *, gen: Generator, dis: Discriminator, single_frame_epoch: int = 0):
        self.gen, self.dis, self.loss_weight = gen, dis, {{}}

    def step(self, batch, now):
        yield from ()

    sample = None
"""

FOLDERS = {
    "unpaired_images": ["images_a/a", "images_b/a"],
    "unpaired_few_shot_images": ["images_content/cat", "images_content/dog", "images_style/dog", "images_style/fox"],
    "images": ["images/cat", "images/dog"],
    "paired_images": ["images/a", "maps/a"],
    "paired_videos": ["images/one", "images/two", "maps/one", "maps/two"],
    "paired_few_shot_videos": ["images/one", "images/two", "maps/one", "maps/two"],
}
TYPES = sorted(FOLDERS)
VIDEOS = ("paired_videos", "paired_few_shot_videos")
PER_FOLDER = 4


def write_set(folder: Path, type_: str) -> Path:
    """The config; train and val have PER_FOLDER files in each folder of the type. Maps hold classes 0 to 2."""
    for split, seed in (("train", 0), ("val", 100)):
        for number, kind in enumerate(FOLDERS[type_]):
            for i in range(PER_FOLDER):
                image = smooth(32, 40, seed=seed + 10 * number + i)
                if kind.startswith("maps"):
                    rows = np.repeat(np.arange(4, dtype=np.uint8) % 3, 8)
                    image = np.repeat(rows, 40).reshape(32, 40, 1)
                write(folder / "data" / split / kind / f"{i}.png", png(image))
    names = list(dict.fromkeys(kind.partition("/")[0] for kind in FOLDERS[type_]))
    config = tiny.config(folder / "data")
    method = f"lab_of_{type_}"
    write(folder / method / "__init__.py")
    write(folder / method / "nets.py", METHOD.format(clips=type_ in VIDEOS).encode())
    sys.modules.pop(f"{method}.nets", None)
    for section in ("trainer", "gen", "dis"):
        config[section] = {"type": f"{method}.nets"}
    map_type = {"ext": "png", "num_channels": 1, "is_mask": True}
    labels = [name for name in names if name == "maps"]
    config["data"] |= {
        "type": type_,
        "input_types": [
            {name: map_type if name == "maps" else {"ext": "png", "num_channels": 3, "normalize": True}}
            for name in names
        ],
        "input_image": [name for name in names if name != "maps"],
        "input_labels": labels,
        "one_hot_num_classes": dict.fromkeys(labels, 3),
    }
    if type_ in VIDEOS:
        config["data"]["train"] |= {"initial_sequence_length": 2}
        del config["data"]["val"]["batch_size"]
    path = folder / "typed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
