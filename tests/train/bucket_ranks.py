"""What `torchrun` starts for test_gradients.py: ranks whose gradients come in another order, late, or not at all."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from imagier.train import gradients, schedule
from imagier.train import runtime as runtimes
from imagier.train.player import Player
from imagier.train.runtime import Runtime

WIDTH, LAYERS = 16, 6


class Chain(nn.Module):
    """Layers one after the other; each of them leaves in a bucket of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
        self.nobodys = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, order: list[int]) -> Tensor:
        for index in order:
            x = self.layers[index](x).tanh()
        return x.square().mean()


def player_of(runtime: Runtime) -> Player:
    """The same on all ranks."""
    torch.manual_seed(0)
    network = Chain()
    sgd = torch.optim.SGD(network.parameters(), lr=0.1)
    return Player(network, sgd, runtime, schedule=schedule.Constant(), by_iteration=False)


def x_of(rank: int, number: int = 0) -> Tensor:
    return torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(10 * number + rank))


def list_events(runtime: Runtime, run: Callable[[Player, Callable[[str], None]], None]) -> list[str]:
    """In their order, what is sent between ranks in the group of gradients, and what `run` notes."""
    events: list[str] = []
    all_reduce = dist.all_reduce

    def noting(tensor: Tensor, *args: Any, **options: Any) -> Any:
        if options.get("group") is runtime.gradients:
            events.append(f"send {tensor.numel()}")
        return all_reduce(tensor, *args, **options)

    dist.all_reduce = noting
    run(player_of(runtime), events.append)
    dist.all_reduce = all_reduce
    return events


def update_once(player: Player, note: Callable[[str], None]) -> None:
    """One backward, in which the first layer is the last one that gets its gradient."""
    loss = player.network(x_of(player.runtime.rank), list(range(LAYERS)))
    player.network.layers[0].weight.register_post_accumulate_grad_hook(lambda p: note("last gradient"))
    player.backward(loss, is_last=True)
    note("end of backward")
    player.update()


def accumulate(player: Player, note: Callable[[str], None]) -> None:
    """Three parts of a batch."""
    for part in range(3):
        loss = player.network(x_of(player.runtime.rank, part), list(range(LAYERS)))
        player.backward(loss / 3, is_last=part == 2)
        note("part")
    player.update()


def count_messages(runtime: Runtime) -> list[int]:
    """How many messages are in memory whenever one is copied back."""
    sent: list[weakref.ref[Tensor]] = []
    counts: list[int] = []
    all_reduce, copy = dist.all_reduce, torch._foreach_copy_

    def noting(tensor: Tensor, *args: Any, **options: Any) -> Any:
        if options.get("group") is runtime.gradients:
            sent.append(weakref.ref(tensor))
        return all_reduce(tensor, *args, **options)

    def counting(*args: Any) -> None:
        counts.append(sum(message() is not None for message in sent))
        copy(*args)

    player = player_of(runtime)
    dist.all_reduce, torch._foreach_copy_ = noting, counting
    player.backward(player.network(x_of(runtime.rank), list(range(LAYERS))), is_last=True)
    player._over_ranks.finish(player.params, player._loss)
    dist.all_reduce, torch._foreach_copy_ = all_reduce, copy
    return counts


def other_orders(runtime: Runtime) -> dict[str, Any]:
    """Gradients of a graph that differs between ranks: backwards on one, and two layers are used on one rank alone.

    Before it, one that is thrown away.
    """
    player, results = player_of(runtime), {}
    for name in ("discarded", "mean"):
        order = [0, 1, 2, 3, 4] if runtime.rank == 0 else [5, 3, 2, 1]
        player.backward(player.network(x_of(runtime.rank), order), is_last=True)
        own = [None if p.grad is None else p.grad.clone() for p in player.params]
        if name == "discarded":
            player.drop_gradients()
            assert all(p.grad is None for p in player.params)
    average = player._over_ranks
    loss = average.finish(player.params, player._loss)
    results["own"], results["mean"] = own, [p.grad for p in player.params]
    return {**results, "loss": loss, "own_loss": player._loss}


def freeing(runtime: Runtime) -> list[Tensor]:
    """Weights after updates during which a layer is frozen at first."""
    player = player_of(runtime)
    for number in range(3):
        player.network.layers[2].requires_grad_(number > 0)
        player.backward(player.network(x_of(runtime.rank, number), list(range(LAYERS))), is_last=True)
        player.update()
    return [p.detach() for p in player.network.parameters()]


def main() -> None:
    torch.set_num_threads(1)
    gradients.BUCKET_BYTES = 4 * WIDTH * WIDTH  # a layer
    folder = Path(sys.argv[1])
    runtime = runtimes.start("cpu", single=False, local_rank=None)
    events: dict[str, Any] = {run.__name__: list_events(runtime, run) for run in (update_once, accumulate)}
    events["count_messages"] = count_messages(runtime)
    (folder / f"events{runtime.rank}.json").write_text(json.dumps(events))
    torch.save(other_orders(runtime), folder / f"orders{runtime.rank}.pt")
    torch.save(freeing(runtime), folder / f"freed{runtime.rank}.pt")
    runtimes.stop(runtime)


if __name__ == "__main__":
    main()
