"""A gallery image from the last image of a training: `python docs/gallery/make.py LOGDIR OUT.png --show 1 3 0`.

Samples stand side by side, and below each other the columns of the training's image that --show names, in that order
(negative ones count from the end).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

GAP_PX = 4


def main() -> None:
    """Reads the image, selects samples and columns, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--show", type=int, nargs="+", required=True, help="columns of the training's image")
    parser.add_argument("--samples", type=int, nargs="*", help="rows of the training's image (default: all)")
    parser.add_argument("--scale", type=int, default=2)
    args = parser.parse_args()
    newest = sorted((args.logdir / "images").glob("epoch_*_iteration_*.jpg"))[-1]
    grid = cv2.imread(str(newest))
    rows = 8
    side = grid.shape[0] // rows
    cells = grid.reshape(rows, side, grid.shape[1] // side, side, 3).transpose(0, 2, 1, 3, 4)
    chosen = args.samples or range(rows)
    lines = [np.hstack([_add_frame(cells[sample, column]) for sample in chosen]) for column in args.show]
    size = {"fx": args.scale, "fy": args.scale, "interpolation": cv2.INTER_NEAREST}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), cv2.resize(np.vstack(lines), None, **size))


def _add_frame(cell: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(cell, *[GAP_PX // 2] * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == "__main__":
    main()
