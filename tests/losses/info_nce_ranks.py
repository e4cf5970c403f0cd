"""What `torchrun` starts for test_info_nce.py: every rank writes its loss and the gradients of its samples."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from imagier.losses.info_nce import InfoNCE


def samples() -> tuple[Tensor, Tensor]:
    """Partners of all ranks, 6 x 5 each."""
    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    return a, b


def loss_and_gradients(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """The loss of some partners, and its gradients."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss = InfoNCE()(a, b)
    loss.backward()
    assert a.grad is not None
    assert b.grad is not None
    return {"loss": loss.detach(), "a": a.grad, "b": b.grad}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    a, b = (x.chunk(2)[rank] for x in samples())
    torch.save(loss_and_gradients(a, b), Path(sys.argv[1]) / f"{rank}.pt")
    dist.destroy_process_group()
