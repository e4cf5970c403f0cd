"""Whether exported files make the images that the network makes, how much is lost where they do not, and how fast."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.run.bundle.graphs import Graph

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""Inputs by name -> images N x C x H x W."""

TOLERANCE = 1e-3
"""Largest difference of an image in [-1, 1] from that of the network: an eighth of a gray level."""

_TRIES, _LONGEST_S = 9, 3.0


def open_onnx(path: Path) -> Run:
    """An ONNX file, run by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])

    return run


def open_pt2(path: Path) -> Run:
    """A file of torch.export."""
    network = torch.export.load(path).module()

    @torch.no_grad()
    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        return network(**inputs)

    return run


def check_parity(run: Run, graph: Graph, path: Path) -> float:
    """The largest difference from the network, for one and for three samples of two sizes. UserError if too large."""
    largest = 0.0
    for inputs in list_cases(graph):
        difference = float((run(inputs) - graph.run(inputs)).abs().max())
        largest = max(largest, difference if math.isfinite(difference) else math.inf)
    if largest > TOLERANCE:
        what = f"its images differ from those of the network by up to {largest:.2g}, more than {TOLERANCE:g}"
        advice = "nothing was written; leave this format out, and please report it"
        raise UserError(what, where=path.name, advice=advice, code="no-parity")
    return largest


def list_cases(graph: Graph) -> Iterator[dict[str, Tensor]]:
    """Inputs of one and of three samples, as they are and enlarged."""
    for count in (1, 3):
        for enlarged in (False, True):
            yield graph.select(count, enlarged=enlarged)


def measure_seconds(run: Run, graph: Graph) -> float:
    """The median time of one image. [s]"""
    inputs = graph.select(1)
    run(inputs)
    times: list[float] = []
    while len(times) < _TRIES and (not times or sum(times) < _LONGEST_S):
        start = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - start)
    return median(times)


def measure_loss(run: Run, graph: Graph) -> dict[str, Any]:
    """How far images are from those of the network, as pixels from 0 to 255, and the PSNR. [dB]

    Over all samples, each by itself. None: there is no difference.
    """
    pairs = [(to_pixels(run(one)), to_pixels(graph.run(one))) for one in _each(graph)]
    differences = np.stack([np.abs(made.astype(np.float64) - true) for made, true in pairs])
    mean_square = float(np.square(differences).mean())
    return {
        "max_difference_255": int(differences.max()),
        "mean_difference_255": round(float(differences.mean()), 4),
        "psnr_db": round(10 * math.log10(255**2 / mean_square), 2) if mean_square else None,
    }


def _each(graph: Graph) -> Iterator[dict[str, Tensor]]:
    for row in range(len(next(iter(graph.inputs.values())))):
        yield {name: x[row : row + 1] for name, x in graph.inputs.items()}


def to_pixels(images: Tensor) -> np.ndarray:
    """N x C x H x W in [-1, 1] or beyond -> N x H x W x C, uint8: (x + 1) / 2 * 255, rounded and clipped."""
    return ((images.float() + 1) / 2 * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
