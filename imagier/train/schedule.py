"""Learning rates over time. A config names these classes by their names in any case."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from imagier.errors import UserError
from imagier.ranges import Count, NonNegative, Positive, Share


class Schedule(ABC):
    """The factor of the learning rate as a function of time.

    Time is the number of epochs done before, or of iterations with `iteration_mode`. A whole example, which a config
    names by its module:

        class Schedule(imagier.train.schedule.Schedule):
            '''Half the rate from a certain time on.'''

            def __init__(self, *, at: int = 100) -> None:
                self.at = at

            def __call__(self, t: int) -> float:
                return 1.0 if t < self.at else 0.5
    """

    @abstractmethod
    def __call__(self, t: int) -> float:
        """The factor at time t."""


class Constant(Schedule):
    """The same rate at all times."""

    def __call__(self, t: int) -> float:
        return 1.0


class Step(Schedule):
    """gamma ** floor(t / step_size)."""

    def __init__(self, *, step_size: Positive = 1_000_000_000, gamma: NonNegative = 1.0) -> None:
        """step_size: Time after which the factor is multiplied by gamma, again and again. [epochs or iterations]
        gamma: What the factor of the learning rate is multiplied by.
        """
        self.step_size = step_size
        self.gamma = gamma

    def __call__(self, t: int) -> float:
        return self.gamma ** (t // self.step_size)


class Linear(Schedule):
    """1 until decay_start, then on a line to decay_target at decay_end, and decay_target from then on."""

    def __init__(self, *, decay_start: Count, decay_end: Count, decay_target: Share) -> None:
        """decay_start: Time until which the factor of the learning rate is 1. [epochs or iterations]
        decay_end: Time from which on it is decay_target. [epochs or iterations]
        decay_target: The factor of the learning rate at the end.
        """
        _check_order(decay_start, decay_end)
        self.decay_start = decay_start
        self.decay_end = decay_end
        self.decay_target = decay_target

    def __call__(self, t: int) -> float:
        span = self.decay_end - self.decay_start
        factor = ((t - self.decay_start) * self.decay_target + self.decay_end - t) / span
        return min(1.0, max(self.decay_target, factor))


class Cosine(Schedule):
    """1 until decay_start, then half a cosine to decay_target at decay_end, and decay_target from then on.

    Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts.
    """

    def __init__(self, *, decay_start: Count = 0, decay_end: Count, decay_target: Share = 0.0) -> None:
        """decay_start: Time until which the factor of the learning rate is 1. [epochs or iterations]
        decay_end: Time from which on it is decay_target. [epochs or iterations]
        decay_target: The factor of the learning rate at the end.
        """
        _check_order(decay_start, decay_end)
        self.decay_start = decay_start
        self.decay_end = decay_end
        self.decay_target = decay_target

    def __call__(self, t: int) -> float:
        done = min(1.0, max(0.0, (t - self.decay_start) / (self.decay_end - self.decay_start)))
        return self.decay_target + (1 - self.decay_target) * (1 + math.cos(math.pi * done)) / 2


def warm_up(schedule: Callable[[int], float], length: int) -> Callable[[int], float]:
    """A schedule whose first `length` epochs or iterations have 1/length, 2/length ... of its rate.

    Goyal et al. 2017, section 2.2: the line begins at 0, which no iteration has, and goes up to the full rate.
    """
    return lambda t: min(1.0, (t + 1) / length) * schedule(t) if length else schedule(t)


def _check_order(decay_start: int, decay_end: int) -> None:
    if decay_end <= decay_start:
        raise UserError("must come after decay_start", where="decay_end", code="wrong-order")
