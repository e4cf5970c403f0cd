"""Optimizers for GANs: Adam with the betas that suit them, and Fromage and Madam, whose steps are relative to weights.

A config names these classes, and all of torch.optim, by their names in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from imagier.ranges import Decay, PositiveFloat

DECAY = 0.999
"""Madam: weight of the past in the mean square of the gradient."""


class Adam(torch.optim.Adam):
    """Adam (Kingma & Ba 2015) without momentum by default, as is usual for GANs, in one fused kernel."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 1e-4,
        betas: tuple[Decay, Decay] = (0.0, 0.999),
        eps: PositiveFloat = 1e-8,
    ) -> None:
        """betas: Weight of the past in the running means of the gradient and of its square.
        eps: Added to the root mean square of the gradient, against division by 0.
        """
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)


class Fromage(Optimizer):
    """Moves each tensor by `lr` times its own norm, whatever the size of its gradient (Bernstein et al. 2020, "On the
    distance").

    Weights are divided by sqrt(1 + lr^2) afterwards, which keeps their norm from growing. If the norm of a tensor or of
    its gradient is 0, it takes a plain step of gradient descent.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float) -> None:
        """lr: Step of each tensor, as a share of its norm."""
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all weights that have a gradient. Returns the result of `closure`, which computes them, if given."""
        loss = _call(closure)
        for group in self.param_groups:
            params, grads = _with_gradients(group)
            if not params:
                continue
            sizes, lengths = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(grads))
            ratios = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, 1.0)
            directions = torch._foreach_mul(grads, ratios.unbind())
            torch._foreach_add_(params, directions, alpha=-group["lr"])
            torch._foreach_div_(params, math.sqrt(1 + group["lr"] ** 2))
        return loss


class Madam(Optimizer):
    """Multiplies each weight by exp(+-lr times its normalized gradient) (Bernstein et al. 2020, "Learning
    compositional functions via multiplicative weight updates"): signs never change, and a weight of 0 stays 0.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, scale: PositiveFloat, g_bound: PositiveFloat | None = None
    ) -> None:
        """lr: Step of the logarithm of a weight, per normalized gradient.
        scale: Largest size of a weight, in root mean squares of its tensor at the first step.
        g_bound: Largest size of a normalized gradient; null: any.
        """
        super().__init__(params, {"lr": lr, "scale": scale, "g_bound": g_bound})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all weights that have a gradient. Returns the result of `closure`, which computes them, if given."""
        loss = _call(closure)
        for group in self.param_groups:
            params, grads = _with_gradients(group)
            if params:
                self._move(group, params, grads)
        return loss

    def _move(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        states = [self._state_of(param, group["scale"]) for param in params]
        for state in states:
            state["step"] += 1
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_mul_(squares, DECAY)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - DECAY)
        sizes = torch._foreach_div(squares, [1 - DECAY ** state["step"] for state in states])
        torch._foreach_sqrt_(sizes)
        exponents = torch._foreach_div(grads, sizes)
        for exponent in exponents:
            exponent.nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)  # 0 / 0: there never was a gradient
        if group["g_bound"] is not None:
            torch._foreach_clamp_max_(exponents, group["g_bound"])
            torch._foreach_clamp_min_(exponents, -group["g_bound"])
        torch._foreach_mul_(exponents, torch._foreach_sign(params))
        torch._foreach_mul_(exponents, -group["lr"])
        torch._foreach_exp_(exponents)
        torch._foreach_mul_(params, exponents)
        for param, state in zip(params, states):
            param.clamp_(-state["max"], state["max"])

    def _state_of(self, param: Tensor, scale: float) -> dict[str, Any]:
        state = self.state[param]
        if not state:
            state["step"] = 0
            state["max"] = scale * param.square().mean().sqrt()
            state["exp_avg_sq"] = torch.zeros_like(param)
        return state


def keep_on_device(optimizer: Optimizer, device: torch.device) -> None:
    """Lets an optimizer of torch that can be part of a graph (`capturable`) read its rate and count its steps there.

    So a new rate is no other graph, and nothing of a step needs the host.
    """
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
            group["lr"] = torch.tensor(group["lr"], device=device)


def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    params = [param for param in group["params"] if param.grad is not None]
    return params, [param.grad for param in params]


def _call(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
