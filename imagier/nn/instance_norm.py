"""Instance norm (Ulyanov et al. 2016) that keeps the memory format, with right gradients in all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.precision import full_precision

_LARGE = 256 * 256
"""Above so many pixels, sums over channels_last, which torch makes one by one, lose digits: 1e-3 at 1024 x 1024."""


def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """N x C x H x W -> the same: each channel of each sample of mean 0 and deviation 1, times weight [C] plus bias [C].

    Not by F.instance_norm: for a single sample whose gradient comes in channels_last, that of torch 2.13 is wrong on
    CPUs. It also copies what is in channels_last, there and back. ValueError for a single pixel, as of torch.
    """
    if x[0, 0].numel() == 1:
        raise ValueError(f"instance norm of a single pixel is 0: {tuple(x.shape)}")
    if not _is_channels_last_on_cpu(x):
        with full_precision(x):  # GPUs would make float32 of it; sums are in float32 in any case
            return F.group_norm(x, x.shape[1], weight, bias, eps)
    if x[0, 0].numel() > _LARGE:
        return instance_norm(x.contiguous(), weight, bias, eps).contiguous(memory_format=torch.channels_last)
    # In that format a group norm with its gradient takes 1.7 to 4 times as long.
    samples = (F.batch_norm(sample, None, None, weight, bias, training=True, eps=eps) for sample in x.split(1))
    return torch.cat(list(samples)) if len(x) > 1 else next(samples)


def _is_channels_last_on_cpu(x: Tensor) -> bool:
    is_strict = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return x.is_cpu and is_strict and not torch.compiler.is_compiling()


class InstanceNorm2d(nn.InstanceNorm2d):
    """`instance_norm` with the parameters of torch's module, without running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same."""
        return instance_norm(x, self.weight, self.bias, self.eps)
