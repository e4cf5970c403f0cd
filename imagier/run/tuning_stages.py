"""What `tune` tries, a line each: the table STAGES."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from imagier.config import schema
from imagier.config.check import Config
from imagier.run.tuning_attempt import FirstStep
from imagier.run.workers import count_cores

ENOUGH = 0.97
"""Of the speed of the networks alone: a loader that allows so much holds nobody up."""


@dataclass(frozen=True)
class Best:
    """The fastest way to train that was found so far."""

    config: Config
    first_step: FirstStep
    """Its first iteration."""


@dataclass(frozen=True)
class Change:
    """Something to try."""

    name: str
    overrides: tuple[str, ...] = ()
    """Overrides of the config."""
    compile: bool = False
    has_loader: bool = False
    """Batches are loaded while it trains."""
    role: Literal["candidate", "offer", "standard"] = "candidate"
    """candidate: kept if it is faster. offer: changes what is trained, so it is not kept, however fast it is. standard:
    what the next changes of its stage are compared with."""
    growth: float = 1.0
    """How many times the memory of the best it may need."""


@dataclass(frozen=True)
class Skipped:
    """Something that was not tried, or that failed."""

    name: str
    why: str


Ratio = tuple[float, float, float]
"""Median, lower and upper quartile."""

Tries = Generator[Change | Skipped, Ratio | None, None]
"""What is tried. For each change it is sent back how many times as fast it was; None if it failed."""

Stage = Callable[[Best], Tries]
"""What proposes changes of one kind, given the best so far."""


def _try_precisions(best: Best) -> Tries:
    known = best.first_step.precisions
    for precision in ("fp32", "bf16", "fp16"):
        if precision in known and precision != best.first_step.precision:
            yield Change(precision, (f"trainer.precision={precision}",))
    if "bf16" not in known:
        yield Skipped("bf16", "this device would only emulate it")
    if "fp16" not in known:
        yield Skipped("fp16", "it needs a GPU of Nvidia")


def _flip(key: str, find_obstacle: Callable[[Best], str] = lambda best: "") -> Stage:
    """Tries the other value of a key of the section `trainer` that is true or false, if there is such a key.

    find_obstacle: why it would change nothing; empty if it may change something.
    """

    def try_other(best: Best) -> Tries:
        if key not in {field.name for field in dataclasses.fields(schema.Trainer)}:
            return
        name = f"{key}={str(not getattr(best.config.trainer, key)).lower()}"
        obstacle = find_obstacle(best)
        yield Skipped(name, obstacle) if obstacle else Change(name, (f"trainer.{name}",))

    return try_other


def _find_obstacle_to_subpixel(best: Best) -> str:
    if best.first_step.device != "cpu":
        return "it is for CPUs"
    return "reference_order does without it" if best.config.recipe.options.get("reference_order") else ""


def _find_obstacle_to_winograd(best: Best) -> str:
    is_single = best.first_step.precision == "fp32"
    return _find_obstacle_to_subpixel(best) if is_single else "it is for fp32"


def _try_cudnn(best: Best) -> Tries:
    if best.first_step.device != "cpu":
        name = f"cudnn.benchmark={str(not best.config.run.cudnn.benchmark).lower()}"
        yield Change(name, (name,))


def _try_workers(best: Best) -> Tries:
    """First the config's number; others only if loading holds the networks up."""
    now = best.config.run.data.num_workers
    ratio = yield Change("with loading", has_loader=True, role="standard")
    if ratio is None:
        return
    if ratio[2] >= ENOUGH:  # it may be noise that it is slower
        yield Skipped("num_workers", "loading keeps up with the networks")
        return
    for number in (0, *(2**n for n in range(5) if 2**n <= count_cores())):
        if number != now:
            yield Change(f"num_workers={number}", (f"data.num_workers={number}",), has_loader=True)


def _try_batches(best: Best) -> Tries:
    """Twice as large ones, until one does not fit."""
    train = best.config.run.data.train
    assert train is not None
    factor = 2
    while best.first_step.images * factor <= best.first_step.num_samples:
        name = f"batch_size={train.batch_size * factor}"
        if (yield Change(name, (f"data.train.{name}",), role="offer", growth=factor)) is None:
            return
        factor *= 2
    yield Skipped("larger batches", f"the training set has {best.first_step.num_samples:,} samples")


def _try_accumulating(best: Best) -> Tries:
    """As many samples an update, in fewer or in more parts."""
    train = best.config.run.data.train
    assert train is not None
    size, parts = train.batch_size, best.config.trainer.accumulate
    for new, of in ((size * 2, parts // 2), (size // 2, parts * 2)):
        if new * of == size * parts:
            overrides = (f"data.train.batch_size={new}", f"trainer.accumulate={of}")
            yield Change(f"batch_size={new} accumulate={of}", overrides, role="offer", growth=new / size)


def _try_compiling(best: Best) -> Tries:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if best.first_step.device == "cpu" and (compiler is None or shutil.which(compiler) is None):
        yield Skipped("--compile", "there is no C++ compiler (g++)")
    else:
        yield Change("--compile", compile=True)


STAGES: Sequence[Stage] = (
    _try_precisions,
    _flip("channels_last"),
    _flip("winograd", _find_obstacle_to_winograd),
    _flip("subpixel", _find_obstacle_to_subpixel),
    _try_cudnn,
    _try_workers,
    _try_accumulating,
    _try_batches,
    _try_compiling,
)
"""In this order, each on top of the best so far; last, what takes longest."""
