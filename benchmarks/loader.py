"""How fast samples come: from each source, beside decoding alone and the plain way. `python benchmarks/loader.py`.

Makes a set of 640 x 480 JPEG images with label maps of 183 classes and edge maps (PNG), as a folder, an LMDB and tar
shards in a temporary folder, and serves 256 x 256 crops of it. All runs take turns; rates are medians, and ratios
medians of the ratios round by round. `--memory`: what worker processes hold over three epochs of 200,000 samples.
`--latency`: four workers and a store that takes 50 ms for each object. Their cores are simulated: a sample is decoded
by sleeping, so that these figures do not depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from common import HERE, add_json, config_of, ratio, start, write_ratios
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from imagier.cli import main
from imagier.data.codec import InputType
from imagier.data.codecs import class_map, image
from imagier.data.dataset import Dataset as AnyDataset
from imagier.data.dataset import DatasetSpec
from imagier.data.datasets.paired_images import Dataset
from imagier.data.loading import read_ahead
from imagier.data.loading.collate import collate
from imagier.data.loading.faults import Guarded, OnError
from imagier.data.loading.loader import Loader
from imagier.data.sample import Sample
from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.remote import RemoteFolder
from imagier.recipe import Position
from imagier.run import build_data
from imagier.train.runtime import Runtime

CONFIG = HERE / "sizes" / "spade.yaml"
KINDS = ("images", "seg_maps", "edge_maps")
SAMPLES = 64
BATCH = 8
HEIGHT, WIDTH, CROP = 480, 640, 256
CLASSES = 183
KEYS = 200_000
DECODING, PLAIN = "decoding alone", "the plain way"


def run() -> None:
    """Prints samples a second, or the memory of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="the memory of workers over three epochs, instead")
    parser.add_argument("--workers", type=int, default=2, help="--memory: how many (default 2)")
    parser.add_argument("--latency", action="store_true", help="a store that answers late, instead")
    add_json(parser)
    args = parser.parse_args()
    start(threads=1)
    cv2.setNumThreads(0)
    if args.memory:
        memory(args.workers)
        return
    if args.latency:
        latency(args.rounds)
        return
    print(f"load of the machine over the last minute: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        shares = speed(Path(folder), args.rounds)
    write_ratios(args.json, shares)
    print(f"load of the machine over the last minute: {os.getloadavg()[0]:.1f}")


def write_set(root: Path) -> None:
    """Blurred noise as photographs, cells as label maps, their borders as edges."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (root / kind).mkdir(parents=True)
    for index in range(SAMPLES):
        noise = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cells = rng.integers(0, CLASSES, (8, 10), np.uint8)
        classes = cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(root / "images" / f"{index:03d}.jpg"), image)
        cv2.imwrite(str(root / "seg_maps" / f"{index:03d}.png"), classes)
        cv2.imwrite(str(root / "edge_maps" / f"{index:03d}.png"), cv2.Canny(classes, 1, 1))


def stores(folder: Path) -> dict[str, Path]:
    """The same set in every kind of store, by what it is called."""
    roots = {"folder": folder / "files", "LMDB": folder / "lmdb", "tar shards": folder / "shards"}
    write_set(roots["folder"])
    for name, store in (("LMDB", "lmdb"), ("tar shards", "shards")):
        words = ["data", "build", store, "--data_root", roots["folder"], "--output_root", roots[name]]
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*map(str, words), "--config", str(CONFIG), "--paired", "--shard_mb", "1"]) == 0
    return roots


# Speed


def speed(folder: Path, rounds: int) -> dict[str, float]:
    """Prints the table: on one core without processes, then as a process hands batches over.

    Returns the share of decoding alone, on one core, of each kind of store.
    """
    roots = stores(folder)
    loaders = {name: training(root) for name, root in roots.items()}
    plain = Plain(roots["folder"])
    decoding = partial(decode_all, roots["folder"])
    inside: dict[str, Callable[[], int]] = {
        DECODING: decoding,
        **{name: partial(collate_all, loader) for name, loader in loaders.items()},
        PLAIN: partial(collate_plainly, plain),
    }
    heading = "on one core, batches as a worker makes them (time of the processor)"
    shares = table(heading, inside, rounds, time.process_time)
    streams = {name: training(root, num_workers=1).stream(Position()) for name, root in roots.items()}
    across: dict[str, Callable[[], int]] = {
        DECODING: decoding,
        # Two batches were read ahead while others had their turn; in this many they do not count much.
        **{name: partial(taken, stream, 4 * SAMPLES // BATCH) for name, stream in streams.items()},
        PLAIN: partial(taken, endless(plain), SAMPLES // BATCH),
    }
    table("one worker process, batches as the run gets them", across, rounds, time.perf_counter)
    expanded = training(roots["folder"], device_work=True).stream(Position())
    whole: dict[str, Callable[[], int]] = {"folder": partial(taken, expanded, SAMPLES // BATCH)}
    table("no worker, labels expanded on the same core (time of the processor)", whole, rounds, time.process_time)
    return {name: shares[name] for name in roots}


def table(
    heading: str, runs: Mapping[str, Callable[[], int]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Runs, which return how many samples they read, take turns. A line for each: its rate, its ratios to two.

    Returns their ratios to the first.
    """
    each: dict[str, list[float]] = {name: [] for name in runs}
    for at in range(rounds + 1):
        for name, run in runs.items():
            begin = clock()
            samples = run()
            if at > 0:  # the first is to warm up
                each[name].append((clock() - begin) / samples)
    print(f"\n{heading}, {rounds} rounds")
    for name, seconds in each.items():
        line = f"  {name:16} {1 / statistics.median(seconds):7.1f} samples/s"
        for other in (DECODING, PLAIN) if len(runs) > 1 else ():
            line += f"   of {other} {statistics.median(a / b for a, b in zip(each[other], seconds)):6.2f}"
        print(line)
    first = next(iter(each.values()))
    return {name: ratio(first, seconds) for name, seconds in each.items()}


def training(root: Path, *, num_workers: int = 0, device_work: bool = False) -> Loader:
    """The loader of a training on the CPU; without `device_work` batches stay as they were handed over."""
    words = [f"data.train.roots=[{root}]", f"data.train.batch_size={BATCH}", f"data.num_workers={num_workers}"]
    loader = build_data.build_train_loader(config_of(CONFIG, words), Runtime(torch.device("cpu")), seed=0)
    if not device_work:
        loader.finish = lambda batch: batch
    return loader


def decode_all(root: Path) -> int:
    """Reads and decodes every file of the set, and nothing else; returns the number of samples."""
    for index in range(SAMPLES):
        for kind, ext in zip(KINDS, ("jpg", "png", "png")):
            data = (root / kind / f"{index:03d}.{ext}").read_bytes()
            mode = cv2.IMREAD_COLOR if ext == "jpg" else cv2.IMREAD_UNCHANGED
            assert cv2.imdecode(np.frombuffer(data, np.uint8), mode) is not None
    return SAMPLES


def collate_all(loader: Loader) -> int:
    """What a worker does for an epoch; returns the number of samples."""
    guarded = Guarded(loader.dataset, OnError.RAISE)
    for at in range(0, SAMPLES, BATCH):
        assert collate([guarded[0, index] for index in range(at, at + BATCH)]).error is None
    return SAMPLES


def taken(stream: Iterator[object], batches: int) -> int:
    """Takes batches; returns the number of their samples."""
    return sum(BATCH for _ in islice(stream, batches))


# The plain way


class Plain(torch.utils.data.Dataset):
    """What one would write first: Pillow, one-hot labels and floats in the worker, torch's own collate."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, classes, edges = (
            Image.open(self.root / kind / f"{index:03d}.{ext}") for kind, ext in zip(KINDS, ("jpg", "png", "png"))
        )
        scale = CROP / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        left, top = (np.random.randint(0, side - CROP + 1) for side in size)  # noqa: NPY002 - what one writes first
        box = (left, top, left + CROP, top + CROP)
        image = image.convert("RGB").resize(size, Image.Resampling.BILINEAR).crop(box)
        classes = classes.resize(size, Image.Resampling.NEAREST).crop(box)
        edges = edges.resize(size, Image.Resampling.BILINEAR).crop(box)
        image = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        numbers = torch.from_numpy(np.asarray(classes).copy()).long()
        one_hot = torch.zeros(CLASSES + 1, CROP, CROP).scatter_(0, numbers[None].clamp(max=CLASSES), 1.0)
        edge = torch.from_numpy(np.asarray(edges).copy())[None].float() / 255
        return {"images": (image - 0.5) / 0.5, "label": torch.cat([one_hot, edge])}


def collate_plainly(plain: Plain) -> int:
    """What a worker does for an epoch; returns the number of samples."""
    return sum(len(batch["label"]) for batch in DataLoader(plain, batch_size=BATCH))


def endless(plain: Plain) -> Iterator[object]:
    """Batches of a worker process, epoch after epoch."""
    loader = DataLoader(plain, batch_size=BATCH, num_workers=1, persistent_workers=True, shuffle=True)
    while True:
        yield from loader


# Latency

LATENCY_S = 0.05
WARM_UP_S, MEASURED_S = 2.0, 3.0
DECODING_S = 1 / 220
"""Processor time of a sample, from the table above."""


class Late:
    """A store that takes its time for each object."""

    path = address = "late"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def connect(self) -> bool:
        return True

    def read(self, name: str) -> bytes:
        time.sleep(self.seconds)
        return b"1"


class Simulated(AnyDataset):
    """Samples of three objects each, whose decoding takes a core that this machine need not have."""

    def __init__(self, folder: RemoteFolder, compute_lock: ComputeLock | None) -> None:
        super().__init__(DatasetSpec(sources=[], codecs=[], augmentations={}, compute_lock=compute_lock))
        self.folder = folder

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        for kind in KINDS:
            self.folder.fetch(f"{kind}/{key[1]}")
        time.sleep(DECODING_S)
        return Sample({"images": np.zeros((CROP, CROP, 3), np.uint8)}, {"images": str(key[1])})

    def load(self, index: int) -> dict[str, np.ndarray]:
        return self[0, index].arrays


def latency(rounds: int, num_workers: int = 4) -> None:
    """Prints the samples a second of each way to read, beside those of a store that answers at once."""
    none = "answers at once"
    streams = {none: late_stream(0.0, 64, num_workers)}
    streams |= {f"50 ms, {depth} at once in a worker": late_stream(LATENCY_S, depth, num_workers) for depth in DEPTHS}
    rates: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(rounds):
        for name, make in streams.items():
            stream = make()
            take_for(stream, WARM_UP_S)  # what was made ahead at the start is used up
            rates[name].append(take_for(stream, MEASURED_S))
            stream.close()
    print(f"{num_workers} workers, three objects a sample, decoding {DECODING_S * 1000:.1f} ms, {rounds} rounds")
    for name, each in rates.items():
        share = statistics.median(a / b for a, b in zip(each, rates[none]))
        print(f"  {name:28} {statistics.median(each):7.1f} samples/s   of a store that {none} {share:5.2f}")


def take_for(stream: Iterator[object], seconds: float) -> float:
    """Takes batches for so long; returns the samples a second."""
    begin, samples = time.perf_counter(), 0
    while time.perf_counter() < begin + seconds:
        samples += taken(stream, 1)
    return samples / (time.perf_counter() - begin)


DEPTHS = (1, 8, 16, 32, 64, 128)
"""Samples that a worker makes at once; a run: 64."""


def late_stream(seconds: float, depth: int, num_workers: int) -> Callable[[], Generator[object, None, None]]:
    """Begins to read. depth: samples that a worker makes at once; 1: one after the other, as from a local disk."""

    def make() -> Generator[object, None, None]:
        compute_lock = ComputeLock() if depth > 1 else None
        read_ahead.THREADS = depth
        data = Simulated(RemoteFolder(Late(seconds), compute_lock=compute_lock), compute_lock)  # type: ignore[arg-type]
        device = torch.device("cpu")
        loader = Loader(data, BATCH, device=device, finish=lambda batch: batch, num_workers=num_workers)
        yield from loader.stream(Position())

    return make


# Memory


class OneImage:
    """A store of many keys, all of which name the same small files."""

    def __init__(self) -> None:
        gray = np.zeros((8, 8), np.uint8)
        self.data = {"images": cv2.imencode(".png", np.dstack([gray] * 3))[1].tobytes()}
        self.data["seg_maps"] = cv2.imencode(".png", gray)[1].tobytes()

    def keys(self, kind: str) -> list[str]:
        return [f"{number // 1000:06d}/{number:012d}" for number in range(KEYS)]

    def shards(self, kind: str) -> list[int]:
        return [KEYS]

    def read(self, kind: str, key: str) -> bytes:
        return self.data[kind]

    def where(self, kind: str, key: str) -> str:
        return f"{kind}/{key}"

    def extension(self, kind: str) -> str:
        return "png"


def memory(num_workers: int) -> None:
    """Prints what each worker holds, ten times an epoch: PSS counts shared pages by the share, private ones alone."""
    codecs = [
        image.Codec(InputType(name="images", ext="png")),
        class_map.Codec(InputType(name="seg_maps", ext="png", num_classes=2)),
    ]
    data = Dataset(DatasetSpec(sources=[OneImage()], codecs=codecs, augmentations={"random_crop_h_w": "8, 8"}))  # type: ignore[list-item]
    loader = Loader(
        data, 50, device=torch.device("cpu"), finish=lambda batch: batch, shuffle=True, num_workers=num_workers
    )
    stream = loader.stream(Position())
    tenth = loader.steps_per_epoch // 10
    print(f"{KEYS:,} samples of two types, {num_workers} workers; MiB, the mean of the workers")
    print("epoch      RSS      PSS  private      run's own RSS")
    first = 0.0
    for step in range(31):
        for _ in range(1 if step == 0 else tenth):
            next(stream)
        workers = [held(child.pid) for child in multiprocessing.active_children() if child.pid is not None]
        rss, pss, private = (statistics.mean(of_worker[name] for of_worker in workers) for name in _FIELDS)
        first = first or private
        print(f"{step / 10:5.1f}  {rss:7.1f}  {pss:7.1f}  {private:7.1f}  {held(os.getpid())['Rss']:7.1f}")
    print(f"private memory of a worker grew by {private - first:.1f} MiB")


_FIELDS = ("Rss", "Pss", "Private_Dirty")


def held(pid: int) -> dict[str, float]:
    """Memory of a process in MiB, by field."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.partition(":")[0]: line.split()[1] for line in lines[1:]}
    return {name: int(found[name]) / 1024 for name in _FIELDS}


if __name__ == "__main__":
    run()
