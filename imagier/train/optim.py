"""Optimizers for GANs: Adam with the betas that suit them, and Fromage and Madam, whose steps are relative to weights.

A config names these classes, and all of torch.optim, by their names in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from inspect import unwrap
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from imagier.ranges import Decay, PositiveFloat

DECAY = 0.999
"""Madam: weight of the past in the mean square of the gradient."""

MOST_NOISE = 2**20
"""Numbers after which the noise of a rounding begins again at the latest."""

NUMBERS_AT_ONCE = 2**22
"""bf16 moments of about so many weights are in float32 at a time."""


class Uncompiled:
    """Makes the bookkeeping of an optimizer plain Python, as the functions of torch are below their wrappers.

    The wrappers hide them from torch's compiler, and import it for that, which takes more than a second.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)


class Adam(Uncompiled, torch.optim.Adam):
    """Adam (Kingma & Ba 2015) without momentum by default, as is usual for GANs, in one fused kernel.

    Without momentum no running mean of the gradient is kept: it is the gradient itself.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 1e-4,
        betas: tuple[Decay, Decay] = (0.0, 0.999),
        eps: PositiveFloat = 1e-8,
        moments: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        """betas: Weight of the past in the running means of the gradient and of its square.
        eps: Added to the root mean square of the gradient, against division by 0.
        moments: Data type of the optimizer's moments; bf16 takes half the memory and uses stochastic rounding.
        """
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)
        for options in (self.defaults, *self.param_groups):
            options["has_bf16_moments"] = moments == "bf16"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all weights that have a gradient. Returns the result of `closure`, which computes them, if given."""
        loss = _call(closure)
        for group in self.param_groups:
            params, _ = _with_gradients(group)
            states = [self._state_of(param, group) for param in params]
            if params and group["has_bf16_moments"]:
                self._move_rounded(group, params, states)
            elif params:
                self._move(group, params, states)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, with or without momentum, in either kind of numbers."""
        super().load_state_dict(state_dict)  # which gives moments the type of the weights
        for group in self.param_groups:
            for param in group["params"]:
                if state := self.state.get(param):
                    kept = _moments_of(param, group)
                    means = {name: state.pop(name) for name in ("exp_avg", "exp_avg_sq") if name in state}
                    state.update({name: mean.to(kept[name]) for name, mean in means.items() if name in kept})

    def _state_of(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
        for name, dtype in _moments_of(param, group).items():
            if name not in state:
                state[name] = torch.zeros_like(param, dtype=dtype)
        return state

    def _move(self, group: dict[str, Any], params: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        _, grads = _with_gradients({"params": params})
        beta1, beta2 = group["betas"]
        adam(
            params,
            grads,
            [state["exp_avg"] for state in states] if beta1 else grads,
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            capturable=group["capturable"],
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    def _move_rounded(self, group: dict[str, Any], params: list[Tensor], states: list[dict[str, Tensor]]) -> None:
        """As `_move`, of bf16 moments: the kernel gets some at a time in float32."""
        numbers = sum(param.numel() for param in params)
        rounding = StochasticRounding(states[0]["step"], min(numbers, MOST_NOISE))
        for first, last in _split(params):
            some = states[first:last]
            names = _moments_of(params[first], group)
            exact = [{"step": state["step"], **{name: state[name].float() for name in names}} for state in some]
            self._move(group, params[first:last], exact)
            for state, found in zip(some, exact):
                for name in names:
                    rounding(found[name], into=state[name])


class StochasticRounding:
    """Rounds float32 to bfloat16, up or down, with probabilities by which the mean is the exact number.

    What is random is a hash of the step and the place, on any device: the same on all ranks and in a resumed run.
    """

    def __init__(self, step: Tensor, period: int) -> None:
        """step: a scalar on the device, which it does not wait for. period: numbers after which the noise repeats."""
        x = torch.arange(1, period + 1, device=step.device) * 0x9E3779B1 + step.long() * 0x85EBCA77
        for _ in range(2):  # a mixing of 32 bits
            x &= 0xFFFFFFFF
            x = (x ^ (x >> 16)) * 0x45D9F3B
        self.noise = ((x ^ (x >> 16)) & 0xFFFF).int()
        self.place = 0

    def __call__(self, exact: Tensor, *, into: Tensor) -> None:
        """exact: float32, dense; changed. into: bfloat16, with the same strides."""
        assert exact.stride() == into.stride()
        bits = exact.view(torch.int32).as_strided((exact.numel(),), (1,))
        done = 0
        while done < len(bits):
            part = bits[done : done + len(self.noise) - self.place]
            part += self.noise[self.place : self.place + len(part)]
            done, self.place = done + len(part), (self.place + len(part)) % len(self.noise)
        bits &= -0x10000  # the upper half is the bfloat16
        into.copy_(exact)


def _moments_of(param: Tensor, group: dict[str, Any]) -> dict[str, torch.dtype]:
    """The running means that Adam keeps of a weight, and their types."""
    dtype = torch.bfloat16 if group["has_bf16_moments"] else param.dtype
    return dict.fromkeys(["exp_avg", "exp_avg_sq"] if group["betas"][0] else ["exp_avg_sq"], dtype)


def _split(params: list[Tensor]) -> Iterator[tuple[int, int]]:
    """First and last index of parts of a list with about as many numbers."""
    first, size = 0, 0
    for index, param in enumerate(params, start=1):
        size += param.numel()
        if size >= NUMBERS_AT_ONCE or index == len(params):
            yield first, index
            first, size = index, 0


class Fromage(Uncompiled, Optimizer):
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


class Madam(Uncompiled, Optimizer):
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
