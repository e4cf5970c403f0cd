"""A folder in which the documentation's commands and snippets find tiny data sets where they look for data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml
from images import png, smooth, write

ROOT = Path(__file__).parents[1]
LINKED = ("configs", "docs", "scripts", "train.py", "inference.py")

SIZE = 64
TRAIN, VAL = 6, 3

COLORS = {
    "data/openmoji64": ["images"],
    "data/openmoji128": ["images"],
    "mine": ["images"],
    "data/openmoji_tones64/unit": ["images_a", "images_b"],
}


def build(folder: Path) -> Path:
    """Fills the folder; returns it."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for root, kinds in COLORS.items():
            for kind in kinds:
                _images(folder / root / split / kind, count, ext="jpg" if root == "mine" else "png")
        for size in (64, 128):
            _edges(folder / f"data/openmoji{size}" / split / "edge_maps", count)
        _maps(folder / "mine" / split / "labels", count)
    write(folder / "mine.yaml", yaml.safe_dump(mine(), sort_keys=False).encode())
    return folder


def mine() -> dict:
    """The config of a user's own images: pairs of photographs and maps of 20 classes."""
    config = yaml.safe_load((ROOT / "configs/spade/openmoji64.yaml").read_text())
    del config["gen"]["label_features"]
    config["gen"]["activation_norm_params"] = {"num_filters": 4, "activation_norm_type": "instance"}
    config["data"] |= {
        "input_types": [
            {"images": {"ext": "jpg", "num_channels": 3, "normalize": True}},
            {"labels": {"ext": "png", "num_channels": 1, "is_mask": True}},
        ],
        "input_labels": ["labels"],
        "one_hot_num_classes": {"labels": 20},
    }
    config["data"]["train"]["roots"] = ["mine/train"]
    config["data"]["val"]["roots"] = ["mine/val"]
    return config


def _images(folder: Path, count: int, *, ext: str) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        image = smooth(SIZE, SIZE, seed=index + len(str(folder)))
        cv2.imwrite(str(folder / f"{index:03d}.{ext}"), image)


def _edges(folder: Path, count: int) -> None:
    for index in range(count):
        gray = np.full((SIZE, SIZE, 1), 255, np.uint8)
        cv2.circle(gray, (30, 30), 10 + index, (0,), 2)
        write(folder / f"{index:03d}.png", png(gray))


def _maps(folder: Path, count: int, *, names: Sequence[int] = range(20)) -> None:
    for index in range(count):
        rows = np.repeat(np.array(names, np.uint8), 4)[:SIZE]
        write(folder / f"{index:03d}.png", png(np.repeat(np.roll(rows, index), SIZE).reshape(SIZE, SIZE, 1)))
