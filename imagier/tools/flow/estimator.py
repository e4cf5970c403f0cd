"""The contract of an estimator of optical flow, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Flow:
    """Where what is in a frame was in the frame before."""

    vectors: np.ndarray
    """H x W x 2, in pixels: to the right, and down."""
    known: np.ndarray
    """H x W, bool: what a pixel shows can be seen in the frame before, and the vector leads there."""

    @classmethod
    def unknown(cls, height: int, width: int) -> Flow:
        """That of the first frame of a sequence."""
        return cls(np.zeros((height, width, 2), np.float32), np.zeros((height, width), bool))


@dataclass(frozen=True)
class Frame:
    """One frame, with the arrays of the input types that the estimator reads, as stored: H x W x C."""

    sequence: str
    name: str
    arrays: Mapping[str, np.ndarray]


class Estimator(Protocol):
    """Finds the flow between frames; called by several threads at once."""

    input_types: Sequence[str]
    """What it reads of a frame."""

    def estimate(self, frame: Frame, before: Frame) -> Flow:
        """The flow that leads from a frame to the one before. UserError, with its place, if something is wrong."""
        ...
