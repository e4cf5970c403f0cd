"""A player: one network with all that belongs to its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imagier.train.runtime import Runtime

Schedule = Callable[[int], float]
"""Time (epochs or iterations done so far) -> factor of the learning rate."""


class Average(Protocol):
    """A running average of a network's weights."""

    network: nn.Module

    def update(self) -> None: ...

    def restart(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Player:
    """A network, its optimizer, learning rate schedule, loss scaler, gradient clipping and average."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        runtime: Runtime,
        *,
        schedule: Schedule,
        by_iteration: bool,
        clip_grad_norm: float | None = None,
        skip_large_grads: bool = False,
        scaler: torch.amp.GradScaler | None = None,
        average: Average | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.runtime = runtime
        self.schedule = schedule
        self.by_iteration = by_iteration
        self.clip_grad_norm = clip_grad_norm
        self.skip_large_grads = skip_large_grads
        self.scaler = scaler
        self.average = average
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]

    @property
    def lr(self) -> float:
        """The learning rate in force (of the first group)."""
        return self.optimizer.param_groups[0]["lr"]

    def set_time(self, epoch: int, step: int) -> None:
        """Sets the learning rate for an iteration by the epochs and iterations done before it."""
        factor = self.schedule(step if self.by_iteration else epoch)
        for group, base in zip(self.optimizer.param_groups, self._base_lrs):
            group["lr"] = base * factor

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a scalar to that of this player's parameters, and of nobody else's."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward(inputs=self.params)

    def update(self) -> None:
        """Moves the weights by the gradients that have come together, and the average after them."""
        self.runtime.average_gradients(self.params)
        if self._accepts_gradients():
            if self.scaler is not None:
                self.scaler.step(self.optimizer)
            else:
                self.optimizer.step()
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def _accepts_gradients(self) -> bool:
        """Clips; False if the gradients are to be dropped because they are too large, or not finite."""
        if self.clip_grad_norm is None:
            return True
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.params, self.clip_grad_norm)
        if not self.skip_large_grads:
            return True
        overflow = self.scaler is not None and not math.isfinite(norm)  # which the scaler skips, and counts
        return overflow or float(norm) <= self.clip_grad_norm

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing bit for bit needs."""
        state: dict[str, Any] = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, but for the options of the optimizer: they stay."""
        self.network.load_state_dict(state["network"])
        saved = state["optimizer"]
        # The moments are the run's, the options the config's, which may have changed.
        own = zip(self.optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True)
        groups = [{**group, "params": old["params"]} for group, old in own]
        self.optimizer.load_state_dict({**saved, "param_groups": groups})
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and "average" in state:
            self.average.load_state_dict(state["average"])
