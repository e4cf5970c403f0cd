"""Does an image that is painted in tiles look like one that is painted whole, and what memory does it take?

    python benchmarks/tiles.py --logdir logs/unit --input large.png --tile 512 512

Paints it whole (unless --only_tiles), in tiles, and in tiles that are images of their own. For each: the peak of
memory, seconds, how much steeper the image is where tiles meet than elsewhere (1: no seam), and the mean difference
from the whole, of 255.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

GIB = 2**30


def measure_seams(image: np.ndarray, rows: list[int], columns: list[int]) -> float:
    """H x W x C -> the mean difference of neighbors across the given borders, by that of all others.

    rows, columns: the first ones behind each border.
    """
    values = image.astype(np.float64)
    down, right = (np.abs(np.diff(values, axis=axis)) for axis in (0, 1))
    across = [down[row - 1].ravel() for row in rows] + [right[:, column - 1].ravel() for column in columns]
    others = [np.delete(down, [row - 1 for row in rows], axis=0), np.delete(right, [c - 1 for c in columns], axis=1)]
    return float(np.concatenate(across).mean() / np.concatenate([each.ravel() for each in others]).mean())


def paint(logdir: Path, source: Path, out: Path, *options: str) -> tuple[np.ndarray, float, float]:
    """The image that `imagier infer` makes, the GiB that it takes, and the seconds."""
    command = [sys.executable, "-m", "imagier", "infer", "--logdir", str(logdir), "--input", str(source)]
    start = time.monotonic()
    process = subprocess.Popen([*command, "--output", str(out), *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(options)} failed"
    image = cv2.imread(str(out / f"{source.stem}.png"))
    assert image is not None
    return image, usage.ru_maxrss * 1024 / GIB, time.monotonic() - start


def paint_apart(logdir: Path, source: Path, out: Path, tile: tuple[int, int]) -> tuple[np.ndarray, float, float]:
    """The same, of tiles that are images of their own."""
    image = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    assert image is not None
    (out / "in").mkdir()
    starts = [range(0, side, step) for side, step in zip(image.shape, tile)]
    for top in starts[0]:
        for left in starts[1]:
            part = image[top : top + tile[0], left : left + tile[1]]
            cv2.imwrite(str(out / "in" / f"{top}_{left}.png"), part)
    made = np.zeros((*image.shape[:2], 3), np.uint8)
    _, gib, _ = paint(logdir, out / "in" / "0_0.png", out / "first", "--full_size")
    start = time.monotonic()
    command = [sys.executable, "-m", "imagier", "infer", "--logdir", str(logdir), "--input", str(out / "in")]
    subprocess.run([*command, "--output", str(out / "out"), "--full_size"], check=True, stdout=subprocess.DEVNULL)
    for path in (out / "out").glob("*.png"):
        top, left = map(int, path.stem.split("_"))
        made[top : top + tile[0], left : left + tile[1]] = cv2.imread(str(path))
    return made, gib, time.monotonic() - start


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logdir", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True, help="a PNG")
    parser.add_argument("--tile", type=int, nargs=2, default=(512, 512))
    parser.add_argument("--overlap", type=int, help="default: a quarter of a tile")
    parser.add_argument("--only_tiles", action="store_true", help="for an image that cannot be painted whole")
    args = parser.parse_args()
    tile = (args.tile[0], args.tile[1])
    overlap = [] if args.overlap is None else ["--overlap", str(args.overlap)]
    tiled = ["--tile", *map(str, tile), *overlap]
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], tuple[np.ndarray, float, float]]] = {}
        if not args.only_tiles:
            ways["whole"] = lambda: paint(args.logdir, args.input, Path(folder, "a"), "--full_size")
        ways["tiles"] = lambda: paint(args.logdir, args.input, Path(folder, "b"), *tiled)
        Path(folder, "c").mkdir()
        ways["tiles by themselves"] = lambda: paint_apart(args.logdir, args.input, Path(folder, "c"), tile)
        # All are made first: what this process holds counts as memory of those that it starts.
        made = {name: make() for name, make in ways.items()}
    for name, (image, gib, seconds) in made.items():
        apart = [list(range(step, side, step)) for side, step in zip(image.shape, tile)]
        difference = ""
        if "whole" in made:
            difference = f", {cv2.absdiff(image, made['whole'][0]).mean():.2f} of 255 from the whole"
        print(f"{name}: {gib:.2f} GiB, {seconds:.0f} s, seams {measure_seams(image, *apart):.3f}{difference}")


if __name__ == "__main__":
    main()
