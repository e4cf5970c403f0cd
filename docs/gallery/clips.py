"""An animation of sequences side by side, a row for each folder of frames: its input, results, and the truth.

`python docs/gallery/clips.py OUT.webp data/vizdoom64/val/colors out data/vizdoom64/val/images --sequences map05_0004`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

GAP_PX = 4
FRAMES_PER_S = 35
"""Of the game."""
QUALITY = 80


def main() -> None:
    """Reads the frames and writes the animation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", type=Path, nargs="+", metavar="FOLDER", help="of <sequence>/<frame>")
    parser.add_argument("--sequences", nargs="+", required=True)
    parser.add_argument("--frames", type=int, nargs=3, default=(0, 120, 3), metavar=("FIRST", "END", "STEP"))
    parser.add_argument("--scale", type=int, default=2)
    args = parser.parse_args()
    frames = []
    for number in range(*args.frames):
        lines = [np.hstack([_read(row, name, number) for name in args.sequences]) for row in args.rows]
        size = {"fx": args.scale, "fy": args.scale, "interpolation": cv2.INTER_NEAREST}
        frames.append(Image.fromarray(cv2.resize(np.vstack(lines), None, **size)[..., ::-1]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    duration_ms = 2 * 1000 * args.frames[2] // FRAMES_PER_S  # at half of the speed
    frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, quality=QUALITY)


def _read(folder: Path, sequence: str, number: int) -> np.ndarray:
    image = cv2.imread(str(sorted((folder / sequence).glob("[!.]*"))[number]))
    return cv2.copyMakeBorder(image, *[GAP_PX // 2] * 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == "__main__":
    main()
