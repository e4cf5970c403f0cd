"""A folder in which the documentation's commands and snippets find tiny data sets where they look for data."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
from doc_blocks import blocks
from images import png, smooth, write
from videos import counting

from imagier.data.codecs.flow import encode_flow

ROOT = Path(__file__).parents[1]
LINKED = ("configs", "docs", "scripts", "train.py", "inference.py", "evaluate.py")

SIZE = 64
TRAIN, VAL = 16, 8

SETS = {
    "data/openmoji64/{}": {"images": "png", "edge_maps": "lines"},
    "data/openmoji128/{}": {"images": "png", "edge_maps": "lines"},
    "data/openmoji_tones64/unit/{}": {"images_a": "png", "images_b": "png"},
    "data/more/{}": {"images": "png"},
    "mine/{}": {"images": "jpg", "labels": "ids"},
    "data/city/{}": {"images": "jpg", "seg_maps": "ids", "instance_maps": "ids", "depth": "16 bits"},
    "data/animals/{}": {"images_content/cat": "jpg", "images_style/dog": "jpg"},
    "data/faces/{}": {"images": "jpg", "landmarks": "points"},
    "data/clips/{}": {"images": "video", "seg_maps/000": "bars"},
    "data/vizdoom64/{}": {
        "images/a": "png",
        "seg_maps/a": "bars",
        "nearness/a": "lines",
        "colors/a": "png",
        "flow/a": "still",
    },
    "data/cityscapes/{}": {"unprojections/000": "pickles"},
    "datasets/horse2zebra": {"trainA": "jpg", "trainB": "jpg", "testA": "jpg", "testB": "jpg"},
    "datasets/facades": {"train": "jpg", "val": "jpg"},
}
"""What each folder holds; {} is train and val."""


def build(folder: Path) -> Path:
    """Fills the folder; returns it."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for root, kinds in SETS.items():
            for kind, form in kinds.items():
                _write(folder / root.format(split) / kind, form, count)
    (config,) = [block for block in blocks(ROOT / "docs/tutorials/own-images.md") if block.file == "mine.yaml"]
    write(folder / "mine.yaml", small(config.text).encode())
    write(folder / "old.yaml", (ROOT / "configs/spade/openmoji64.yaml").read_bytes())
    return folder


def _write(folder: Path, form: str, count: int) -> None:
    """So many files of a form: photographs (png, jpg), line art, class ids, key points, flow, pickles of points of the
    world; or one video, or its maps."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image = smooth(SIZE, SIZE, seed=index + len(str(folder)))
        if form in ("png", "jpg"):
            cv2.imwrite(str(folder / f"{index:03d}.{form}"), image)
        elif form == "lines":
            gray = np.full((SIZE, SIZE, 1), 255, np.uint8)
            write(folder / f"{index:03d}.png", png(cv2.circle(gray, (30, 30), 10 + index, (0,), 2).reshape(gray.shape)))
        elif form == "still":
            write(folder / f"{index:03d}.png", encode_flow(np.zeros((SIZE, SIZE, 2)), np.ones((SIZE, SIZE), bool)))
        elif form == "16 bits":
            write(folder / f"{index:03d}.png", png(image[..., :1].astype(np.uint16) * 200))
        elif form == "points":
            write(folder / f"{index:03d}.json", json.dumps([[20, 20 + index], [40, 40]]).encode())
        elif form == "pickles":
            write(folder / f"{index:03d}.pkl", pickle.dumps({f"w{SIZE}xh{SIZE}": [1, 2, index]}))
        elif form in ("ids", "bars"):
            rows = np.repeat(np.arange(20 if form == "ids" else 4, dtype=np.uint8), 16)[:SIZE]
            maps = np.repeat(np.roll(rows, index), SIZE).reshape(SIZE, SIZE, 1)
            write(folder / f"{index:03d}.png", png(maps))
    if form == "video":
        write(folder / "000.mp4", counting(count, form="mp4", codec="mpeg4", pixels="yuv420p"))


def small(config: str) -> str:
    """The text of a config with narrower networks, smaller images and two iterations."""
    config = re.sub(r"^max_iter: \d+", "max_iter: 2", config, flags=re.M)
    config = re.sub(r"\b(num_filters): \d+", r"\1: 2", config)
    return re.sub(r"\b(128|144|256|286)\b", lambda size: str(int(size[0]) // 4), config)
