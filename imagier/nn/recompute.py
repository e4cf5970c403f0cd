"""Activation checkpointing (Chen et al. 2016): blocks keep their inputs alone, and compute the rest again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module) -> int:
    """Lets the outermost blocks of a network (modules with `is_block = True`) recompute. Returns how many there are.

    Losses and gradients are the same to the last bit. What a forward changes (statistics of batch norms, power
    iterations) changes once, and noise from the global source is drawn once. Names of weights stay.
    """
    if getattr(network, "is_block", False):  # of anybody's module
        network.forward = _Recomputed(network)
        return 1
    return sum(map(recompute_blocks, network.children()))


@contextmanager
def keep_activations(network: nn.Module) -> Iterator[None]:
    """While this is open, nothing in a network is recomputed, as `torch.func` needs it."""
    forwards = [module.forward for module in network.modules() if isinstance(module.forward, _Recomputed)]
    for forward in forwards:
        forward.is_on = False
    try:
        yield
    finally:
        for forward in forwards:
            forward.is_on = True


class _Recomputed:
    """The forward of a block that recomputes. An object and no method, so that the block can be pickled."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.is_on = True

    def __call__(self, *args: Any, **options: Any) -> Any:
        compute = partial(type(self.block).forward, self.block)
        if not (self.is_on and self.block.training and torch.is_grad_enabled()):
            return compute(*args, **options)
        return checkpoint(compute, *args, use_reentrant=False, context_fn=_Contexts(self.block, args), **options)


class _Contexts:
    """The contexts of the forward of a block, and of its recomputation, which sees the block as the forward saw it."""

    def __init__(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        self.block = block
        self.buffers = [
            (module, {name: buffer.clone() for name, buffer in module._buffers.items() if buffer is not None})
            for module in block.modules()
        ]
        self.watched = [*block.parameters(), *(arg for arg in args if isinstance(arg, Tensor))]
        self.versions = [tensor._version for tensor in self.watched]

    def __call__(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self

    def __enter__(self) -> None:
        if self.versions != [tensor._version for tensor in self.watched]:
            name = type(self.block).__name__
            raise RuntimeError(f"weights or inputs of a {name} have changed between its forward and its backward")
        self.current = [dict(module._buffers) for module, _ in self.buffers]
        for module, kept in self.buffers:
            module._buffers.update({name: buffer.clone() for name, buffer in kept.items()})

    def __exit__(self, *error: object) -> None:
        for (module, _), current in zip(self.buffers, self.current):
            module._buffers.update(current)
