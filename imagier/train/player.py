"""A player: a network with everything that belongs to its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.train.gradients import GradientAverage
from imagier.train.optim import keep_on_device
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
        self._loss: Tensor | None = None
        self._over_ranks = GradientAverage(runtime)
        self.before_move: Callable[[], object] = _do_nothing
        """Called by every update before it changes what `list_moving_tensors` returns: it may still be being copied."""
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        self._lrs = list(self._base_lrs)
        if runtime.captures_graphs:
            keep_on_device(optimizer, runtime.device)

    @property
    def params(self) -> list[nn.Parameter]:
        """The parameters that learn now; frozen ones (`requires_grad` False) do not."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    @property
    def lr(self) -> float:
        """The learning rate in force (of the first group)."""
        return self._lrs[0]

    def lr_at(self, time: int) -> float:
        """The learning rate (of the first group) after so many iterations, or epochs if its schedule counts these."""
        return self._base_lrs[0] * self.schedule(time)

    def set_time(self, epoch: int, step: int) -> None:
        """Sets the learning rate for an iteration by the epochs and iterations done before it."""
        time, unit = (step, "iterations") if self.by_iteration else (epoch, "epochs")
        factor = self.schedule(time)
        if not 0 <= factor < math.inf:
            what = f"makes the learning rate {factor} times itself after {time} {unit}"
            raise UserError(what, where="lr_policy", advice="it must be finite, 0 or more", code="wrong-rate")
        before, self._lrs = self._lrs, [base * factor for base in self._base_lrs]
        for group, lr, old in zip(self.optimizer.param_groups, self._lrs, before):
            if not isinstance(group["lr"], Tensor):
                group["lr"] = lr
            elif lr != old:
                group["lr"].fill_(lr)

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:
        """Adds the gradient of a scalar to those of this player's parameters, and to no others.

        is_last: no other one is added before the update, so that ranks may average gradients while this computes.
        """
        value = loss.detach().float().reshape(1)
        self._loss = value if self._loss is None else self._loss + value
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        params = self.params
        if is_last:
            self._over_ranks.begin(params, self._loss)
        if params:
            loss.backward(inputs=params)

    def update(self) -> Tensor:
        """Moves the weights by the accumulated gradients, and the average after them.

        Returns the L2 norm of the gradient before clipping, a scalar on the device: infinite if the gradient was not
        finite, NaN if the loss was not (its gradient may be finite all the same). Neither moves the weights.
        """
        params = self.params
        loss = self._over_ranks.finish(params, self._loss)
        gradients = [p.grad for p in params if p.grad is not None]
        if self.scaler is not None and gradients:
            if loss is not None:  # the scaler looks at gradients alone
                gradients[0].masked_fill_(~loss.isfinite(), math.nan)
            self.scaler.unscale_(self.optimizer)
        size = nn.utils.get_total_norm(gradients).float().nan_to_num(nan=math.inf, posinf=math.inf)
        norm = size if loss is None else size + 0 * loss.sum()
        if self.clip_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(params, self.clip_grad_norm, norm)
        self.before_move()
        if gradients:  # of losses that do not depend on its weights there are none: health.py notices
            is_bad = ~norm.isfinite()
            if self.skip_large_grads and self.clip_grad_norm is not None:
                is_bad |= norm > self.clip_grad_norm
            self._step(is_bad)
            if self.scaler is not None:
                self.scaler.update()  # by what `unscale_` found
        self.drop_gradients()
        del gradients  # or the average would need its memory on top of theirs
        if self.average is not None:
            self.average.update()
        return norm

    def drop_gradients(self) -> None:
        """Discards what `backward` has accumulated."""
        self._loss = None
        self._over_ranks.discard()
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self, is_bad: Tensor) -> None:
        """The optimizer's step, or none if the gradient is bad, a scalar on the device that nobody waits for."""
        if self.optimizer.defaults.get("fused"):
            # As torch's own loss scaler does: the kernel reads this number.
            self.optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif self.runtime.is_asynchronous:
            self._step_or_undo(is_bad)
        elif not is_bad:
            self.optimizer.step()

    @torch.no_grad()
    def _step_or_undo(self, is_bad: Tensor) -> None:
        """A step that is undone if the gradient is bad; meanwhile weights and moments are in memory twice.

        Moments that begin with a bad gradient begin with 0 instead; what an optimizer counts on the host goes on.
        """
        params = self.params
        for gradient in (p.grad for p in params if p.grad is not None):
            gradient.masked_fill_(is_bad, 0)
        moving = [x for x in (*params, *self._list_moments()) if x.device == is_bad.device]
        before = [x.clone() for x in moving]
        self.optimizer.step()
        for now, old in zip(moving, before):
            now.copy_(torch.where(is_bad, old, now))

    def named_networks(self) -> dict[str, nn.Module]:
        """The network, and that of its average if it keeps one, by "network" and "average"."""
        return {"network": self.network} | ({} if self.average is None else {"average": self.average.network})

    def list_moving_tensors(self) -> list[Tensor]:
        """What only `update` changes: the weights, their moments, and the weights of the average."""
        average = [] if self.average is None else list(self.average.network.parameters())
        return [*self.params, *self._list_moments(), *average]

    def _list_moments(self) -> list[Tensor]:
        return [value for of in self.optimizer.state.values() for value in of.values() if isinstance(value, Tensor)]

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to continue bit for bit."""
        optimizer = self.optimizer.state_dict()
        groups = [{**group, "lr": lr} for group, lr in zip(optimizer["param_groups"], self._lrs)]  # numbers anywhere
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizer": {**optimizer, "param_groups": groups},
        }
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, except the options of the optimizer, which stay."""
        self.network.load_state_dict(state["network"])
        saved = state["optimizer"]
        # The moments are the run's, the options the config's, which may have changed.
        own = zip(self.optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True)
        groups = [{**group, "params": old["params"]} for group, old in own]
        self.optimizer.load_state_dict({**saved, "param_groups": groups})
        _lay_out_moments(self.optimizer)
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and "average" in state:
            self.average.load_state_dict(state["average"])


def _lay_out_moments(optimizer: torch.optim.Optimizer) -> None:
    """Gives what an optimizer remembers of each weight the strides that it has in a new run: those of a dense weight.

    Loaded tensors keep those of the run that saved them, and its channels_last may have been another one. Torch's fused
    kernels go through weight, gradient and moments in the order of their memory, whatever the strides (torch 2.13).
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


def _do_nothing() -> None:
    """No copy is being made."""
