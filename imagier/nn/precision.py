"""Full precision inside a run in less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast leaves the types of tensors on the device of x as they are."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


@contextmanager
def without_tf32(x: Tensor) -> Iterator[None]:
    """While this is open, convolutions and products of matrices on the device of x take all bits of float32."""
    if x.is_cpu:  # has no TF32; and where torch's newer API has set anything, reading these flags raises
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
