"""Files where the header of a starting config says that a user's files go."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import yaml
from images import smooth

from imagier.tools.init_folder import Template

HEIGHT, WIDTH = 288, 576
FILES = 8
"""For each line of the layout; in videos, frames."""


def write_files(template: Template, folder: Path) -> list[Path]:
    """Files of the names and kinds that the layout shows, numbered from 1 on. Returns them.

    A number in a name stands for all, and a line for each folder. What a file holds follows from its entry of
    `input_types`.
    """
    types = {
        name: keys for entry in yaml.safe_load(template.text)["data"]["input_types"] for name, keys in entry.items()
    }
    written = []
    for line in template.layout:
        shown = re.match(r"data/\S+", line)
        if shown is None:
            continue
        path = folder / shown[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = types[shown[0].split("/")[2]]
        for number in range(1, FILES + 1):
            file = path.with_name(path.name.replace("0001", f"{number:04d}"))
            assert file != path or number == 1, f"no number in {line}"
            assert cv2.imwrite(str(file), _draw(keys, number))
            written.append(file)
    return written


def _draw(keys: dict, number: int) -> np.ndarray:
    """Something that moves from one number to the next."""
    if keys.get("type") == "unprojections":
        rows, columns = np.mgrid[1 : HEIGHT + 1, 1 : WIDTH + 1].astype(np.uint16)
        return np.stack([rows, columns + number, np.ones_like(rows)], axis=2)
    if keys.get("is_mask"):
        stripes = np.repeat(np.arange(8, dtype=np.uint8), WIDTH // 8)
        return np.tile(np.roll(stripes, number), (HEIGHT, 1))
    return np.roll(smooth(HEIGHT, WIDTH, seed=1), number, axis=1)
