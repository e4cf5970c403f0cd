"""Other algorithms of convolutions beside the direct one, forward and backward: `python benchmarks/convolutions.py`.

Prints for each layer how many times as fast Winograd's algorithm is, or the convolution before the upsampling, and
whether the rule of `should_use_winograd` or `should_use_subpixel` takes it. The constants of the rules are from here.
Best of some rounds in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import interleaved, start
from torch import Tensor, nn

from imagier.nn import winograd
from imagier.nn.resize import upsample2x
from imagier.nn.upsampled_conv import should_use_subpixel, upsampled_conv2d

WIDE = [
    (1, 64, 64, 256, 3),
    (1, 128, 128, 128, 3),
    (1, 256, 256, 64, 3),
    (2, 256, 256, 64, 3),
    (1, 512, 512, 32, 3),
    (1, 512, 512, 16, 3),
    (1, 64, 128, 256, 5),
    (1, 64, 512, 128, 5),
    (1, 256, 128, 64, 5),
    (1, 32, 32, 64, 5),
]
"""Samples, input and output channels, side, size of the kernel."""

UPSAMPLED = [
    (1, 256, 128, 64, 5),
    (1, 256, 128, 32, 5),
    (1, 256, 128, 8, 5),
    (1, 64, 32, 16, 5),
    (1, 128, 64, 32, 3),
    (1, 512, 512, 8, 3),
    (1, 64, 3, 64, 5),
    (8, 32, 16, 32, 5),
]
"""The same; the side is that before the upsampling."""


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    start(args.threads)
    print("\nWinograd                          contiguous    channels last   by the rule")
    for shape in WIDE:
        x, weight = tensors(*shape)
        gains = [gain(_direct, _winograd, x, weight, layout, args.rounds) for layout in LAYOUTS]
        show(shape, gains, winograd.should_use_winograd(x, weight, shape[-1] // 2))
    print("\nbefore the upsampling (reflect)   contiguous    channels last   by the rule")
    for shape in UPSAMPLED:
        x, weight = tensors(*shape)
        gains = [gain(_upsample_first, _convolve_first, x, weight, layout, args.rounds) for layout in LAYOUTS]
        show(shape, gains, should_use_subpixel(x, weight, "reflect"))


LAYOUTS = (torch.contiguous_format, torch.channels_last)
Convolution = Callable[[Tensor, Tensor], Tensor]


def tensors(count: int, inputs: int, outputs: int, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Input and kernel."""
    return torch.randn(count, inputs, side, side), torch.randn(outputs, inputs, size, size) / (size * inputs**0.5)


def gain(
    direct: Convolution, other: Convolution, x: Tensor, weight: Tensor, layout: torch.memory_format, rounds: int
) -> float:
    """How many times as fast the other way is, forward and backward."""
    x, weight = (each.to(memory_format=layout).requires_grad_() for each in (x.clone(), weight.clone()))
    grad = torch.randn_like(direct(x, weight))

    def learn(convolve: Convolution) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(convolve(x, weight), (x, weight), grad)

    seconds = interleaved({"direct": learn(direct), "other": learn(other)}, rounds)
    return min(seconds["direct"]) / min(seconds["other"])


def show(shape: tuple[int, ...], gains: list[float], is_taken: bool) -> None:
    """Prints a line."""
    count, inputs, outputs, side, size = shape
    name = f"{count} x {inputs} -> {outputs}, {side} px, {size} x {size}"
    print(f"{name:34}{gains[0]:8.2f}{gains[1]:15.2f}     {'taken' if is_taken else 'not taken'}", flush=True)


def _direct(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


def _winograd(x: Tensor, weight: Tensor) -> Tensor:
    return winograd.conv2d(x, weight, weight.shape[-1] // 2)


def _upsample_first(x: Tensor, weight: Tensor) -> Tensor:
    padding = weight.shape[-1] // 2
    return F.conv2d(nn.ReflectionPad2d(padding)(upsample2x(x)), weight)


def _convolve_first(x: Tensor, weight: Tensor) -> Tensor:
    return upsampled_conv2d(x, weight, padding_mode="reflect", convolve=F.conv2d)


if __name__ == "__main__":
    main()
