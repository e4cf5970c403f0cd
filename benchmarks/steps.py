"""Seconds and memory of an iteration of every method, in its order of computation and in the reference's, in turns.

`python benchmarks/steps.py [METHOD ...] [--rounds 5] [--variants small]`. The networks are as large as in the papers
(benchmarks/sizes), on noise, with a VGG-19 of random weights. Each variant runs in a process of its own, which waits
while another one computes; so its peak memory is its own, and a slow moment of the machine hits all. "of fp32 peak" is
the arithmetic of direct convolutions a second, so other algorithms and bf16 may pass 100 %.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
SMALL = {
    BASE: FAST[BASE],
    "fp32": FAST["fp32"],
    "generator recomputed": ["fp32", "trainer.checkpoint_activations=[gen]"],
    "moments in bf16": ["fp32", "gen_opt.moments=bf16", "dis_opt.moments=bf16"],
    "both": ["fp32", "trainer.checkpoint_activations=[gen]", "gen_opt.moments=bf16", "dis_opt.moments=bf16"],
}
ABLATED = {
    BASE: FAST[BASE],
    "direct convolutions": ["fp32", "trainer.winograd=false", "trainer.subpixel=false"],
    "without Winograd": ["fp32", "trainer.winograd=false"],
    "without sub-pixels": ["fp32", "trainer.subpixel=false"],
    "fp32": FAST["fp32"],
}
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
    workers = {name: _start_worker(method, words, args.threads) for name, words in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(args.rounds + 1):
        for name, worker in workers.items():
            seconds[name].append(_ask(worker, "step"))
    gflops = {
        is_base: _count(method, ["fp32", f"trainer.reference_order={str(is_base).lower()}"])
        for is_base in (True, False)
    }
    print(f"\n{method}\n{'':28}{'s':>8}{'ratio':>8}{'GiB':>7}{'of fp32 peak':>14}")
    found: dict[str, float] = {}
    for name, worker in workers.items():
        rounds = seconds[name][1:]  # the first warms up
        found[name] = ratio(seconds[BASE][1:], rounds)
        second, memory = statistics.median(rounds), _ask(worker, "memory")
        worker.communicate("end\n")
        gflop = gflops[name == BASE]
        print(f"{name:28}{second:8.3f}{found[name]:8.2f}{memory:7.2f}{gflop / second / peak:14.0%}", flush=True)
    return found


def _count(method: str, words: Sequence[str]) -> float:
    """The arithmetic of an iteration with direct convolutions. [GFLOP]"""
    worker = _start_worker(method, [*words, "trainer.winograd=false", "trainer.subpixel=false"], 2)
    gflop = _ask(worker, "gflop")
    worker.communicate("end\n")
    return gflop


def _start_worker(method: str, words: Sequence[str], threads: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, method, "--threads", str(threads), "--worker", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(worker: subprocess.Popen[str], question: str) -> float:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(question + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"a process has ended with status {worker.wait()}: is there memory for all variants at once?")
    return float(answer)


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
