"""Time and memory of distances of two sets of features. `python benchmarks/metrics.py`.

Random features of normal distributions, each distance in a process of its own. Prints a table: seconds, and the most
memory that the process had, with that of the features themselves.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
from common import start
from torch import Tensor

from imagier.metrics.fd import frechet_distance
from imagier.metrics.kd import kernel_distance, kernel_distance_of_subsets
from imagier.metrics.prdc import measure_prdc

DISTANCES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "fd": frechet_distance,
    "kd, 100 subsets of 1000": lambda real, fake: kernel_distance_of_subsets(
        real, fake, num_subsets=100, subset_size=1000, seed=0
    ),
    "kd, all rows": kernel_distance,
    "prdc": lambda real, fake: measure_prdc(real, fake, k=5),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(DISTANCES), nargs="*", default=list(DISTANCES))
    args = parser.parse_args()
    start(args.threads)
    print(f"{args.rows:,} x {args.dim:,} against as many: {8 * args.rows * args.dim / 2**30:.1f} GiB")
    print(f"{'':24} {'seconds':>8} {'GiB':>6}")
    context = multiprocessing.get_context("spawn")
    for name in args.only:
        with context.Pool(1) as pool:
            seconds, gib = pool.apply(measure, (name, args.rows, args.dim, args.threads))
        print(f"{name:24} {seconds:8.1f} {gib:6.1f}", flush=True)


def measure(name: str, rows: int, dim: int, threads: int) -> tuple[float, float]:
    """Seconds that a distance takes, and GiB that this process had at most."""
    torch.set_num_threads(threads)
    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(rows, dim, generator=rng) + shift for shift in (0, 0.1))
    begin = time.perf_counter()
    DISTANCES[name](real, fake)
    return time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
