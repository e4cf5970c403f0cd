"""How fast SPADE and pix2pixHD train on one accelerator, and in how much memory: about five minutes, one JSON file.

    python benchmarks/gpu.py --out gpu.json

Each case is a process of its own, so that one that fails, or hangs, leaves its error in the file and the others their
numbers. Images, label maps and the weights of the perceptual network are random: they cost the same as real ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import HERE, draw_cells, write_random_vgg19
from torch import Tensor

from imagier.config.check import Config
from imagier.config.read import read
from imagier.recipe import Batch
from imagier.run import build_data, build_training
from imagier.run.training import allow_recompiling
from imagier.train import runtime as runtimes
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

SELF = Path(__file__).resolve()

SIZES = {"spade 256 x 256": "gpu_spade.yaml", "pix2pixHD 512 x 1024": "gpu_pix2pixHD.yaml"}

WARM_UP, MOST_STEPS = 5, 200
"""Steps before those that are timed, and the most of these."""

SMOKE = {
    "spade 256 x 256": ["gen.num_filters=1", "gen.activation_norm_params.num_filters=2", "gen.style_enc.num_filters=1"],
    "pix2pixHD 512 x 1024": ["gen.global_generator={num_filters: 2, num_downsamples: 1, num_res_blocks: 1}"],
}
"""What makes the networks small; the images too."""


@dataclass(frozen=True)
class Mode:
    """How a case computes."""

    precision: str
    tf32: bool = True
    channels_last: bool = False
    compile: bool = False


MODES = {
    "fp32, TF32": Mode("fp32"),
    "bf16": Mode("bf16"),
    "bf16, channels_last": Mode("bf16", channels_last=True),
    "bf16, channels_last, compiled": Mode("bf16", channels_last=True, compile=True),
    "fp32": Mode("fp32", tf32=False),
}
"""The most interesting first: the last ones may find no time."""


def main() -> None:
    """Runs all cases and writes the file; a line each goes to stdout."""
    args = parse_arguments()
    if args.case is not None:
        size, mode = args.case.split(": ")
        with allow_recompiling(MODES[mode].compile):
            print(json.dumps(measure(size, MODES[mode], args)))
        return
    start = time.monotonic()
    report: dict[str, Any] = {**describe_machine(args.device), "smoke": args.smoke, "cases": []}
    cases = [f"{size}: {mode}" for mode in MODES for size in SIZES if args.only in f"{size}: {mode}"]
    for number, case in enumerate(cases):
        left = args.minutes * 60 - (time.monotonic() - start)
        limit_s = min(left, 2 * left / (len(cases) - number))  # one that hangs leaves time to the others
        found = run_case(case, limit_s, args) if limit_s > args.seconds else {"error": "left out: no time"}
        report["cases"].append({"case": case, **found})
        args.out.write_text(json.dumps(report, indent=1))
        print(f"{case:50}", format_result(found), flush=True)
    print(f"{args.out}: {time.monotonic() - start:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the file to write")
    parser.add_argument("--device", default="cuda", help="as of imagier train")
    parser.add_argument("--minutes", type=float, default=6, help="time for all cases; those left then are left out")
    parser.add_argument("--seconds", type=float, default=8, help="time in which the steps of a case are counted")
    parser.add_argument("--only", default="", metavar="WORDS", help="only cases with these words in their name")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and images, on the CPU: does it run?")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.smoke:
        args.device, args.seconds = "cpu", 0.1
    return args


def describe_machine(device: str) -> dict[str, Any]:
    """What the numbers depend on, beside the code."""
    is_gpu = device == "cuda" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if is_gpu else device
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": name, **versions, "cuda graphs": "not used: there are none"}


def run_case(case: str, limit_s: float, args: argparse.Namespace) -> dict[str, Any]:
    """The numbers of a case from a process of its own, or its error."""
    words = ["--device", args.device, "--seconds", str(args.seconds), *(["--smoke"] if args.smoke else [])]
    try:
        done = subprocess.run(
            [sys.executable, str(SELF), *words, "--case", case], capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {limit_s:.0f} s"}
    if done.returncode:
        return {"error": "\n".join(done.stderr.splitlines()[-8:]) or f"status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def format_result(found: dict[str, Any]) -> str:
    if "error" in found:
        return found["error"].splitlines()[-1][:200]
    return f"{found['images_per_s']:8.2f} images/s {found['peak_GiB']:7.2f} GiB  host {found['host_ms']:.0f} ms a step"


def measure(size: str, mode: Mode, args: argparse.Namespace) -> dict[str, Any]:
    """Images a second, memory and more of one case."""
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        weights = write_random_vgg19(Path(folder) / "vgg19.pth", 1 if args.smoke else None)
        config = read_config(size, mode, weights, args.smoke)
        runtime = runtimes.start(args.device, single=True, local_rank=None)
        runtime.precision = mode.precision  # type: ignore[assignment]
        runtimes.set_cudnn(deterministic=False, benchmark=True)
        runtimes.set_tf32(mode.tf32, runtime.device)
        trainer = build_trainer(config, runtime)
    step, images = make_step(trainer, config)
    if mode.compile:
        for network in (*trainer.recipe.networks.values(), *trainer.recipe.loss_networks):
            network.compile(**({"backend": "eager"} if args.smoke else {}))
    begin = time.perf_counter()
    step()
    runtime.synchronize()
    first_s = time.perf_counter() - begin
    for _ in range(1 if args.smoke else WARM_UP):
        step()
    found = time_steps(step, runtime, args.seconds)
    return {
        **asdict(mode),
        "batch": images,
        "images_per_s": images / found["step_s"],
        "host_ms": 1000 * found["host_s"],
        "steps": found["steps"],
        "first_step_s": first_s,
        "peak_GiB": runtime.peak_memory_bytes() / 2**30,
        "waits": find_waits(step, runtime),
        "is_finite": all(norm.isfinite().item() for norm in step()),
        "parameters": {name: sum(p.numel() for p in of.parameters()) for name, of in trainer.recipe.networks.items()},
    }


def read_config(size: str, mode: Mode, weights: Path, is_small: bool) -> Config:
    """The config of a case."""
    words = [f"trainer.perceptual_loss.weights_path={weights}", f"trainer.channels_last={mode.channels_last}"]
    if is_small:
        crop = "{resize_h_w: '32, 64'}" if "pix2pixHD" in size else "{resize_h_w: '32, 32', random_crop_h_w: '32, 32'}"
        words += [f"data.train={{roots: [none], batch_size: 2, augmentations: {crop}}}", *SMOKE[size]]
        words += ["dis.num_filters=2", "dis.max_num_filters=4", "dis.num_layers=2"]
        words += ["trainer.perceptual_loss.layers=[relu_1_1]", "trainer.perceptual_loss.weights=[1.0]"]
    config, _ = read(HERE / SIZES[size], words)
    return config


def build_trainer(config: Config, runtime: Runtime) -> Trainer:
    recipe = build_training.build_recipe(config, runtime, seed=0)
    recipe.train()
    return Trainer(recipe, build_training.build_players(config, recipe, runtime), runtime, seed=0)


def make_step(trainer: Trainer, config: Config) -> tuple[Callable[[], list[Tensor]], int]:
    """What a run does with a batch that is on the device, as it was stored; and the images of the batch.

    It returns the gradient norms.
    """
    data, runtime = config.run.data, trainer.runtime
    assert data.train is not None
    rows, (height, width) = data.train.batch_size, build_data.collect_facts(data, data.train)["crop_h_w"]
    rng = torch.Generator().manual_seed(0)
    stored = {}
    for codec in build_data.build_codecs(data):
        if codec.holds_ids:
            stored[codec.name] = draw_cells(rows, height, width, rng)
        else:
            shape = (rows, height, width, codec.channels or 3)
            stored[codec.name] = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    expander = build_data.build_expander(data, config.trainer.channels_last)
    present = expander.find_present(stored)
    assert present is not None
    on_device = Batch({name: x.to(runtime.device) for name, x in stored.items()})

    def step() -> list[Tensor]:
        batch = expander(on_device).replace(label_present=present)
        norms = [phase.gradient_norm for phase in trainer.train_step(batch)]
        trainer.step += 1
        return norms

    return step, rows


def time_steps(step: Callable[[], object], runtime: Runtime, seconds: float) -> dict[str, float]:
    """Seconds of a step, and of the process alone: what it takes to give the device its work."""
    runtime.synchronize()
    begin, steps, host_s = time.perf_counter(), 0, 0.0
    while steps < MOST_STEPS and time.perf_counter() - begin < seconds:
        before = time.perf_counter()
        step()
        host_s += time.perf_counter() - before
        steps += 1
        if steps % 4 == 0:
            runtime.synchronize()  # else the process would be far ahead when the time is over
    runtime.synchronize()
    return {"step_s": (time.perf_counter() - begin) / steps, "host_s": host_s / steps, "steps": steps}


def find_waits(step: Callable[[], object], runtime: Runtime) -> list[str] | None:
    """Where a step waits for the device, by torch's own watch; None where it has none."""
    if not runtime.captures_graphs:
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{Path(each.filename).name}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)})


if __name__ == "__main__":
    main()
