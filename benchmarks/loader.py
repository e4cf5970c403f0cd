"""How fast samples come: the SPADE pipeline against reading and decoding alone. `python benchmarks/loader.py`.

Makes a set of 640 x 480 JPEG pictures with label maps of 183 classes and edge maps (PNG) in a temporary folder, and
serves 256 x 256 crops of it. Samples a second on one core, and with workers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from common import HERE, config_of, start

from imagier.cli import build
from imagier.recipe import Position
from imagier.train.runtime import Runtime

CONFIG = HERE / "spade_reference_size.yaml"
SAMPLES = 64
HEIGHT, WIDTH = 480, 640


def write_set(root: Path) -> None:
    """Blurred noise as photographs, cells as label maps, their borders as edges."""
    rng = np.random.default_rng(0)
    for kind in ("images", "seg_maps", "edge_maps"):
        (root / kind).mkdir(parents=True)
    for index in range(SAMPLES):
        noise = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        picture = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cells = rng.integers(0, 183, (8, 10), np.uint8)
        classes = cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(root / "images" / f"{index}.jpg"), picture)
        cv2.imwrite(str(root / "seg_maps" / f"{index}.png"), classes)
        cv2.imwrite(str(root / "edge_maps" / f"{index}.png"), cv2.Canny(classes, 1, 1))


def per_second(run: Callable[[], int], rounds: int) -> float:
    """Samples a second, the median of some rounds."""
    rates = []
    for _ in range(rounds):
        begin = time.perf_counter()
        count = run()
        rates.append(count / (time.perf_counter() - begin))
    return statistics.median(rates)


def main() -> None:
    """Prints samples a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    start(threads=1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder))
        measure(folder, args.rounds)


def measure(root: str, rounds: int) -> None:
    """Decoding alone, samples as a worker makes them, and batches as the trainer gets them."""
    overrides = [f"data.train.roots=[{root}]", "data.train.batch_size=4"]
    config = config_of(CONFIG, overrides)
    assert config.run.data.train is not None
    data = build.dataset(config.run.data, config.run.data.train, seed=0)
    runtime = Runtime(torch.device("cpu"))

    def decoded() -> int:
        return sum(1 for index in range(len(data)) if data.load(index))

    def augmented() -> int:
        return sum(1 for index in range(len(data)) if data[0, index])

    decoding, worker = per_second(decoded, rounds), per_second(augmented, rounds)
    print(f"reading and decoding alone: {decoding:.0f} samples/s on one core")
    print(
        f"with augmentation, as a worker makes them: {worker:.0f} samples/s on one core, {worker / decoding:.2f} of it"
    )
    for workers in (0, 2):
        config = config_of(CONFIG, [*overrides, f"data.num_workers={workers}"])
        loader = build.train_loader(config, runtime, seed=0)
        stream = loader.stream(Position())
        next(stream)
        rate = per_second(partial(_taken, stream, loader.batch_size), rounds)
        print(f"batches on the device, labels expanded, {workers} workers: {rate:.0f} samples/s")


def _taken(stream: Iterator[object], batch_size: int) -> int:
    return sum(batch_size for _ in islice(stream, SAMPLES // batch_size))


if __name__ == "__main__":
    main()
