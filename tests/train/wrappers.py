"""What `torchrun` starts for test_wrappers.py: torch's wrappers for training over ranks, tried on a GAN."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imagier.train import runtime as runtimes


class Both(nn.Module):
    """Generator and discriminator as one module, so that one wrapper can go around them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gen = nn.Linear(4, 4)
        self.dis = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 1))

    def forward(self, noise: Tensor) -> Tensor:
        return self.dis(self.gen(noise))


def one_ddp_around_both() -> str:
    """The discriminator's update, then the generator's, through one DDP."""
    both = Both()
    wrapped = DistributedDataParallel(both)
    for player in (both.dis, both.gen, both.dis):
        wrapped(torch.randn(2, 4)).mean().backward(inputs=list(player.parameters()))
    return "works"


def penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """R1 with a graph of its own."""
    images = images.requires_grad_()
    (slopes,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return slopes.square().sum(dim=1).mean()


def static_ddp_with_penalty() -> str:
    """Whether all ranks have the same gradient after a penalty through DDP with a static graph."""
    discriminator = DistributedDataParallel(Both().dis, static_graph=True)
    for step in range(3):
        discriminator.zero_grad()
        images = torch.randn(2, 4, generator=torch.Generator().manual_seed(100 * step + dist.get_rank()))
        penalty(discriminator, images).backward()
    mine = torch.cat([p.grad.flatten() for p in discriminator.parameters() if p.grad is not None])
    all_ranks = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(all_ranks, mine)
    return "works" if torch.allclose(all_ranks[0], all_ranks[1]) else "gradients differ between ranks"


def fsdp_with_penalty() -> str:
    """An exact penalty through FSDP2."""
    from torch.distributed.fsdp import fully_shard

    discriminator = Both().dis
    fully_shard(discriminator, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
    penalty(discriminator, torch.randn(2, 4)).backward()
    return "works"


def outcome(trial: Callable[[], str]) -> str:
    """What became of a trial."""
    try:
        return trial()
    except RuntimeError as error:
        return f"raises: {str(error).splitlines()[0]}"


TRIALS = {trial.__name__: trial for trial in (one_ddp_around_both, static_ddp_with_penalty, fsdp_with_penalty)}

if __name__ == "__main__":
    runtime = runtimes.start("cpu", single=False, local_rank=None)
    result = outcome(TRIALS[sys.argv[1]])
    if runtime.is_main:
        Path(sys.argv[2]).write_text(json.dumps(result))
    runtimes.stop(runtime)
