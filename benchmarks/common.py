"""What the benchmarks share: objects of a config without its data, and timings that can be compared."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from imagier.config.check import Config
from imagier.config.read import read
from imagier.recipe import Batch
from imagier.run import build_data, build_training
from imagier.train.memory import keep_freed_memory
from imagier.train.runtime import Precision, Runtime
from imagier.train.trainer import Trainer

HERE = Path(__file__).parent

CELLS, CLASSES = 40, 20
"""Regions of a label map, and classes that they have."""

CONVS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Of VGG-19: channels and convolutions of each block, between which it halves the size."""


def start(threads: int) -> None:
    """Prepares the process as a training does, and says what it runs on."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    print(f"{processor()}, {threads} threads, torch {torch.__version__}")


def config_of(path: Path, overrides: Sequence[str] = ()) -> Config:
    """A checked config."""
    config, _ = read(path, overrides)
    return config


def trainer_of(config: Config, precision: Precision = "fp32") -> Trainer:
    """A trainer for a config, on the CPU, without data and hooks."""
    runtime = Runtime(torch.device("cpu"), precision=precision)
    recipe = build_training.build_recipe(config, runtime, seed=0)
    recipe.train()
    players = build_training.build_players(config, recipe, runtime)
    return Trainer(recipe, players, runtime, seed=0, accumulate=config.trainer.accumulate)


def batch_of(config: Config, rows: int | None = None, size: tuple[int, int] | None = None) -> Batch:
    """A batch as the loader would give it: noise as images, and label maps of 40 cells of 20 classes.

    rows, size (height, width): as the config trains, if None. Raw label channels (edges) are 0 or 1, one pixel in
    twenty being 1.
    """
    rng = torch.Generator().manual_seed(0)
    data = config.run.data
    assert data.train is not None
    rows = rows or data.train.batch_size
    size = size or build_data.collect_facts(data, data.train)["crop_h_w"]
    expander = build_data.build_expander(data, config.trainer.channels_last)
    one_hot = {codec.name: codec.num_classes for codec in build_data.build_codecs(data)}
    layers = []
    for name, channels in expander.label_lengths.items():
        if one_hot[name] is None:
            layers.append((torch.rand(rows, channels, *size, generator=rng) < 0.05).float())
        else:
            layers.append(_cells(rows, channels, size, rng))
    images = ["images"] if layers else [name for entry in data.input_types for name in entry]
    tensors = {name: torch.rand(rows, 3, *size, generator=rng) * 2 - 1 for name in images}
    if layers:
        tensors["label"] = torch.cat(layers, dim=1)
    if config.trainer.channels_last:
        tensors = {name: x.contiguous(memory_format=torch.channels_last) for name, x in tensors.items()}
    classes = {name.replace("images", "labels"): torch.zeros(rows, dtype=torch.long) for name in images}
    return Batch(tensors | classes)


def _cells(rows: int, channels: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """One-hot maps of `draw_cells`, N x channels x H x W."""
    step = channels // CLASSES or 1
    maps = (draw_cells(rows, *size, rng).movedim(-1, 1).long() * step).clamp(max=channels - 1)
    return torch.zeros(rows, channels, *size).scatter_(1, maps, 1.0)


def draw_cells(rows: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Ids N x H x W x 1, uint8: the nearest of some random points has its class."""
    points = torch.rand(rows, CELLS, 2, generator=rng) * torch.tensor([height, width])
    classes = torch.randint(0, CLASSES, (rows, CELLS), generator=rng, dtype=torch.uint8)
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1).float()
    nearest = torch.stack([torch.cdist(grid.flatten(0, 1), of).argmin(dim=1) for of in points])
    return classes.gather(1, nearest).view(rows, height, width, 1)


def write_random_vgg19(path: Path, count: int | None = None) -> Path:
    """Weights of the perceptual network, of the right size; of so many convolutions, or of all."""
    state, rng = {}, torch.Generator().manual_seed(0)
    for index, inputs, outputs in islice(list_convs(), count):
        weight = torch.empty(outputs, inputs, 3, 3)
        state[f"features.{index}.weight"] = nn.init.kaiming_normal_(weight, generator=rng)
        state[f"features.{index}.bias"] = torch.zeros(outputs)
    torch.save(state, path)
    return path


def list_convs() -> Iterator[tuple[int, int, int]]:
    """Of each convolution its place in torchvision's list of layers, and its channels before and after it."""
    index, before = 0, 3
    for channels, count in CONVS:
        for _ in range(count):
            yield index, before, channels
            index, before = index + 2, channels  # a ReLU follows
        index += 1  # the pooling


def measure_peak() -> float:
    """The most that this machine does in float32, of a matrix product and of a convolution. [GFLOPS]"""
    matrix = torch.randn(2048, 2048)
    x, weight = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
    runs = {
        2 * 2048**3: lambda: matrix @ matrix,
        2 * 256**2 * 64**2 * 9: lambda: torch.nn.functional.conv2d(x, weight, padding=1),
    }
    with torch.no_grad():
        return max(flop / min(interleaved({"": run}, 10)[""]) for flop, run in runs.items()) / 1e9


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every run in every round; they take turns, so that a slow moment of the machine hits all."""
    for run in runs.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(one, other))


def describe_ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """Median of the ratios round by round, with the quartiles."""
    ratios = sorted(a / b for a, b in zip(one, other))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)"


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option of collect.py."""
    parser.add_argument("--json", type=Path, help="write the ratios here, too; more is better")


def write_ratios(path: Path | None, ratios: Mapping[str, float]) -> None:
    """Writes them as JSON, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(ratios, indent=1) + "\n")


def describe_machine() -> dict[str, str | int | float]:
    """What the figures depend on: processor, threads, torch, and the measured peak."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peak_gflops": round(measure_peak(), 1),
    }


def processor() -> str:
    """What the machine computes on."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
