"""A data set that the examples draw: label maps of disks and bars, and images in which each class has its color."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32
COLORS = np.array([[235, 230, 215], [200, 60, 50], [40, 90, 170]], np.uint8)
"""Of background, disks and bars."""


def draw_label(rng: np.random.Generator) -> np.ndarray:
    """A label map SIZE x SIZE, uint8: 0 background, 1 disk, 2 bar."""
    y, x = np.mgrid[:SIZE, :SIZE]
    label = np.zeros((SIZE, SIZE), np.uint8)
    left = rng.integers(0, SIZE - 6)
    label[:, left : left + 6] = 2
    center = rng.integers(8, SIZE - 8, 2)
    label[(y - center[0]) ** 2 + (x - center[1]) ** 2 < 49] = 1
    return label


def draw_data(folder: Path, train: int = 48, val: int = 8) -> Path:
    """Writes folder/{train,val}/{images,labels}/<number>.png; returns the folder."""
    rng = np.random.default_rng(0)
    shade = np.linspace(0.6, 1.0, SIZE)[:, None, None]
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            label = draw_label(rng)
            Image.fromarray(label).save(folder / split / "labels" / f"{number:03d}.png")
            image = (COLORS[label] * shade).astype(np.uint8)
            Image.fromarray(image).save(folder / split / "images" / f"{number:03d}.png")
    return folder


def data_section(folder: Path) -> dict:
    """The section `data` of a config for that data set."""
    augmentations = {"resize_h_w": f"{SIZE}, {SIZE}"}
    return {
        "type": "paired_images",
        "input_types": [
            {"images": {"ext": "png", "num_channels": 3, "normalize": True}},
            {"labels": {"ext": "png", "num_channels": 1, "is_mask": True}},
        ],
        "input_image": ["images"],
        "input_labels": ["labels"],
        "one_hot_num_classes": {"labels": len(COLORS)},
        "train": {
            "roots": [str(folder / "train")],
            "batch_size": 4,
            "augmentations": {**augmentations, "horizontal_flip": True},
        },
        "val": {"roots": [str(folder / "val")], "batch_size": 4, "augmentations": augmentations},
    }
