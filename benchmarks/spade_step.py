"""Seconds and memory of a SPADE iteration, and where they go: `python benchmarks/spade_step.py [--config C] [...]`.

Without --config: the size of the reference's unit test (spade_reference_size.yaml), batch 1, 256 x 256, with a VGG-19
of random weights. Every variant runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import HERE, batch_of, config_of, start, trainer_of
from torch.profiler import ProfilerActivity, profile

VARIANTS = {
    "as the reference orders it, fp32": ["fp32", "trainer.reference_order=true"],
    "fp32": ["fp32"],
    "fp32, channels last": ["fp32", "trainer.channels_last=true"],
    "bf16, channels last": ["bf16", "trainer.channels_last=true"],
    "fp32, generator recomputed": ["fp32", "trainer.checkpoint_activations=[gen]"],
    "fp32, moments in bf16": ["fp32", "gen_opt.moments=bf16", "dis_opt.moments=bf16"],
}


def main() -> None:
    """Prints a line per variant, or measures one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=HERE / "spade_reference_size.yaml")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args)
        return
    for name, words in VARIANTS.items():
        print(f"{name}: ", end="", flush=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--one", *words]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="")


def measure(args: argparse.Namespace) -> None:
    """Times one variant in this process."""
    precision, *overrides = args.one
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vgg19.pth"
        torch.save(random_weights(), weights)
        config = config_of(args.config, [f"trainer.perceptual_loss.weights_path={weights}", *overrides])
        start(args.threads)
        trainer = trainer_of(config, precision)
    assert config.run.data.train is not None
    batch = batch_of(config, config.run.data.train.batch_size, args.size)
    trainer.train_step(batch)
    seconds = []
    for _ in range(args.rounds):
        begin = time.perf_counter()
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(f"  {statistics.median(seconds):.2f} s an iteration ({spread}), peak memory {peak:.2f} GiB")
    if args.profile:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            trainer.train_step(batch)
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=45))


def random_weights() -> dict[str, torch.Tensor]:
    """He weights for the convolutions of VGG-19, so that the benchmark needs no file."""
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    index, inputs = 0, 3
    for width, depth in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(depth):
            weights[f"features.{index}.weight"] = torch.randn(width, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
            weights[f"features.{index}.bias"] = torch.zeros(width)
            index, inputs = index + 2, width
        index += 1
    return weights


if __name__ == "__main__":
    main()
