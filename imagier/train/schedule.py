"""Learning rates over time."""

from __future__ import annotations

from imagier.train.player import Schedule


def constant() -> Schedule:
    """The same rate for ever."""
    return lambda t: 1.0


def step(step_size: int, gamma: float) -> Schedule:
    """gamma ** floor(t / step_size)."""
    return lambda t: gamma ** (t // step_size)


def linear(decay_start: int, decay_end: int, decay_target: float) -> Schedule:
    """1 until decay_start, then on a line to decay_target at decay_end, and that for ever."""
    span = decay_end - decay_start
    return lambda t: min(1.0, max(decay_target, ((t - decay_start) * decay_target + decay_end - t) / span))
