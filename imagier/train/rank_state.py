"""What each rank has of its own: buffers that differ between ranks, and the state of the recipe."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

logger = logging.getLogger(__name__)


class RankState:
    """Keeps in a checkpoint what the ranks do not share. (A player's state is the first rank's.)

    Buffers of networks and averages are alike on all ranks, unless each rank fills them from its own part of the batch,
    as a plain batch norm does. Continued by as many ranks, each gets its own back; else all have those of the first.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def state_dict(self, runtime: Runtime) -> dict[str, Any]:
        """Per rank, the buffers that are not as on the first one, by "player.network.name", and the recipe's state."""
        buffers = self._list_buffers() if runtime.world > 1 else {}
        digests = {name: _digest(buffer) for name, buffer in buffers.items()}
        of_first = runtime.broadcast(digests)
        own = {name: buffer.cpu() for name, buffer in buffers.items() if digests[name] != of_first[name]}
        return {
            "ranks": runtime.all_gather_objects({"buffers": own, "recipe": _to_host(self.trainer.recipe.state_dict())})
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any], runtime: Runtime) -> None:
        """Continues from what `state_dict` returned, once the players have theirs."""
        of_ranks = state["ranks"]
        if len(of_ranks) != runtime.world and any(of_rank["buffers"] for of_rank in of_ranks):
            logger.info(f"buffers that differed between the {len(of_ranks)} ranks are now all as on the first one")
        own = of_ranks[runtime.rank if len(of_ranks) == runtime.world else 0]
        buffers = self._list_buffers()
        for name, value in own["buffers"].items():
            if name in buffers and buffers[name].shape == value.shape:
                buffers[name].copy_(value)
        if own["recipe"]:
            self.trainer.recipe.load_state_dict(own["recipe"])

    def _list_buffers(self) -> dict[str, Tensor]:
        """The buffers that checkpoints hold, by player and name."""
        found = {}
        for player, of in self.trainer.players.items():
            for kind, network in of.named_networks().items():
                learned = {name for name, _ in network.named_parameters(remove_duplicate=False)}
                for name, tensor in network.state_dict().items():
                    if name not in learned:
                        found[f"{player}.{kind}.{name}"] = tensor
        return found


def _digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def _to_host(value: Any) -> Any:
    """The same in the host's memory: ranks may have devices that others have not."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {name: _to_host(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_host(item) for item in value]
    return value
