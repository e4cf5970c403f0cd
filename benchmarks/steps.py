"""Seconds and memory of an iteration of every method, in its order of computation and in the reference's, in turns.

`python benchmarks/steps.py [METHOD ...] [--rounds 5] [--variants small]`. The networks are as large as in the papers
(benchmarks/sizes), on noise, with a VGG-19 of random weights. Each variant runs in a process of its own, which waits
while another one computes; so its peak memory is its own, and a slow moment of the machine hits all. "of fp32 peak" is
the arithmetic of direct convolutions a second, so other algorithms and bf16 may pass 100 %.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import (
    HERE,
    add_json,
    batch_of,
    config_of,
    measure_peak,
    ratio,
    start,
    trainer_of,
    write_random_vgg19,
    write_ratios,
)
from torch.utils.flop_counter import FlopCounterMode

from imagier.train.runtime import choose_precision

METHODS = ("spade", "pix2pixHD", "unit", "munit", "funit", "coco_funit")
BASE = "reference order, fp32"
FAST = {
    BASE: ["fp32", "trainer.reference_order=true"],
    "fp32": ["fp32"],
    "fp32, channels last": ["fp32", "trainer.channels_last=true"],
    "bf16": ["bf16"],
    "bf16, channels last": ["bf16", "trainer.channels_last=true"],
}
LEAST = ["trainer.checkpoint_activations=[gen]", "gen_opt.moments=bf16", "dis_opt.moments=bf16"]
SMALL = {
    BASE: FAST[BASE],
    "fp32": FAST["fp32"],
    "generator recomputed": ["fp32", "trainer.checkpoint_activations=[gen]"],
    "moments in bf16": ["fp32", "gen_opt.moments=bf16", "dis_opt.moments=bf16"],
    "both": ["fp32", *LEAST],
    "bf16, channels last": FAST["bf16, channels last"],
    "both in bf16, channels last": [*FAST["bf16, channels last"], *LEAST],
}
ABLATED = {
    BASE: FAST[BASE],
    "direct convolutions": ["fp32", "trainer.winograd=false", "trainer.subpixel=false"],
    "without Winograd": ["fp32", "trainer.winograd=false"],
    "without sub-pixels": ["fp32", "trainer.subpixel=false"],
    "fp32": FAST["fp32"],
}
TOTAL_GIB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
MEMORY_SHARE = 0.85
"""Of it, that all variants may take at once; the others of a method then take turns with the base alone, later."""
VARIANTS_OF = {"fast": FAST, "small": SMALL, "algorithms": ABLATED}
"""Layouts and precisions; what saves memory; which algorithm saves what."""


def main() -> None:
    """Prints a table per method, or runs one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variants", choices=VARIANTS_OF, default="fast", help="(default: fast)")
    add_json(parser)
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(args.methods[0], *args.worker, threads=args.threads)
        return
    start(args.threads)
    peak = 0.0
    ratios: dict[str, float] = {}
    for method in args.methods:
        peak = max(peak, measure_peak())  # a slow moment of the machine hides it
        print(f"\nmeasured peak so far: {peak:.0f} GFLOPS in fp32")
        ratios |= {f"{method}, {name}": gain for name, gain in measure(method, args, peak).items()}
    write_ratios(args.json, ratios)


def measure(method: str, args: argparse.Namespace, peak: float) -> dict[str, float]:
    """Times all variants of a method in turns, and prints them; how many times faster than the base each one is."""
    variants = VARIANTS_OF[args.variants]
    if choose_precision("auto", True, torch.device("cpu"))[0] != "bf16":
        variants = {name: words for name, words in variants.items() if words[0] != "bf16"}
    base = _Worker(method, variants[BASE], args.threads)
    gflops = {is_base: _count(method, args.threads, is_base=is_base) for is_base in (True, False)}
    print(f"\n{method}\n{'':28}{'s':>8}{'ratio':>8}{'GiB':>7}{'of fp32 peak':>14}")

    def show(name: str, worker: _Worker, seconds: Sequence[float], gain: float) -> None:
        second = statistics.median(seconds)
        share = gflops[worker is base] / second / peak
        print(f"{name:28}{second:8.3f}{gain:8.2f}{worker.ask('memory'):7.2f}{share:14.0%}", flush=True)

    found: dict[str, float] = {}
    base.ask("step")
    fitting = max(1, int((MEMORY_SHARE * TOTAL_GIB - base.ask("memory")) / (1.1 * base.ask("memory"))))
    for names in batched([name for name in variants if name != BASE], fitting):
        workers = {BASE: base} | {name: _Worker(method, variants[name], args.threads) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(args.rounds + 1):
            for name, worker in workers.items():
                seconds[name].append(worker.ask("step"))
        rounds = {name: each[1:] for name, each in seconds.items()}  # the first warms up
        if not found:
            show(BASE, base, rounds[BASE], 1.0)
        for name in names:
            found[name] = ratio(rounds[BASE], rounds[name])
            show(name, workers[name], rounds[name], found[name])
            workers[name].end()
    base.end()
    return found


def batched(items: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """Groups of so many items, in order; itertools has it from Python 3.12 on."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


def _count(method: str, threads: int, *, is_base: bool) -> float:
    """The arithmetic of an iteration with direct convolutions. [GFLOP]"""
    order = f"trainer.reference_order={str(is_base).lower()}"
    worker = _Worker(method, ["fp32", order, "trainer.winograd=false", "trainer.subpixel=false"], threads)
    gflop = worker.ask("gflop")
    worker.end()
    return gflop


class _Worker:
    """A process that computes one variant when it is asked to."""

    def __init__(self, method: str, words: Sequence[str], threads: int) -> None:
        command = [sys.executable, __file__, method, "--threads", str(threads), "--worker", *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question: str) -> float:
        """The answer of `serve`. SystemExit if the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a process has ended with status {self.process.wait()}: was there enough memory?")
        return float(answer)

    def end(self) -> None:
        """Ends the process."""
        self.process.communicate("end\n")


def serve(method: str, precision: Any, *overrides: str, threads: int) -> None:
    """Answers each line of stdin with a number: step (its seconds), memory (GiB), gflop."""
    torch.set_num_threads(threads)
    path = HERE / "sizes" / f"{method}.yaml"
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(path, overrides)
        if config.recipe.options.get("perceptual_loss") is not None:
            weights = write_random_vgg19(Path(folder) / "vgg19.pth")
            config = config_of(path, [*overrides, f"trainer.perceptual_loss.weights_path={weights}"])
        trainer = trainer_of(config, precision)
    batch = batch_of(config)

    def seconds() -> float:
        begin = time.perf_counter()
        trainer.train_step(batch)
        return time.perf_counter() - begin

    def gflop() -> float:
        with FlopCounterMode(display=False) as counter:
            trainer.train_step(batch)
        return counter.get_total_flops() / 1e9

    answers = {"step": seconds, "memory": lambda: trainer.runtime.peak_memory_bytes() / 2**30, "gflop": gflop}
    for line in sys.stdin:
        if line.strip() == "end":
            return
        print(answers[line.strip()](), flush=True)


if __name__ == "__main__":
    main()
