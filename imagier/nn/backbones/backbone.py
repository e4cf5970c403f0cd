"""A feature network as a chain of named steps, and after which step the features of each layer are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Steps = Iterator[tuple[str, nn.Module]]


def _same(key: str) -> str:
    return key


@dataclass(frozen=True, eq=False)
class Backbone:
    """One network, described without building it."""

    name: str
    steps: Callable[[], Steps]
    """Yields (path, module) in the order of computation. The paths are those of the public weight files' keys."""
    taps: Mapping[str, str]
    """Layer name -> path of the step after which its features are taken."""
    find_weights: Callable[[], Path]
    """Finds the weight file, or downloads it if that is possible; else UserError."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of images in [0, 1], red, green, blue; subtracted before the first step."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Of images in [0, 1]; divided by after the mean was subtracted."""
    file_key: Callable[[str], str] = _same
    """Key of a tensor here -> its key in the weight file."""
