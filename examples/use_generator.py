"""Make an image with a trained generator, from an array that exists in memory only.

python -m examples.train_from_python [FOLDER]
python -m examples.use_generator [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import imagier
from examples.shapes import draw_label


def main(folder: Path) -> None:
    generator = imagier.load_generator(folder / "spade")  # the log folder of a run, or a checkpoint; device="cuda"
    print(f"inputs of the config: {', '.join(generator.input_names)}")

    label = draw_label(np.random.default_rng(seed=7))  # class ids, height x width; a file or a tensor would do, too
    image = generator({"labels": label})
    image.save(folder / "made.png")
    print(f"{folder / 'made.png'}: {image.size[0]} x {image.size[1]} px")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "logs/examples"))
