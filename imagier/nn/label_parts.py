"""The parts that a label map is made of, each of one input type."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from imagier.nn.colorize import colorize
from imagier.nn.resize import to_rgb


def split_label(label: Tensor, lengths: Mapping[str, int]) -> dict[str, Tensor]:
    """The parts of a label N x C x H x W by their names. lengths: channels of each, in order."""
    return dict(zip(lengths, label.split(list(lengths.values()), dim=1)))


def find_class_map(label: Tensor, lengths: Mapping[str, int], one_hot: Collection[str]) -> Tensor | None:
    """The part of a label, N x C x H x W, that has a channel per class; the first of several, None if there is none.

    lengths: channels of each part, in order. one_hot: the parts with classes.
    """
    return next((part for name, part in split_label(label, lengths).items() if name in one_hot), None)


def show_label(
    label: Tensor, lengths: Mapping[str, int], one_hot: Collection[str], normalized: Collection[str]
) -> dict[str, Tensor]:
    """The parts of a label N x C x H x W as images N x 3 x H x W in [-1, 1]: up to 4 channels as they are, or colors of
    the largest channel.

    lengths: channels of each part, in order. one_hot: the parts with classes. normalized: those in [-1, 1], not [0, 1].
    """
    return {
        name: show_part(part, is_normalized=name in normalized)
        if name not in one_hot and part.shape[1] <= 4
        else colorize(part)
        for name, part in split_label(label, lengths).items()
    }


def show_part(part: Tensor, *, is_normalized: bool) -> Tensor:
    """A part of a label that is an image of 1 to 4 channels -> N x 3 x H x W in [-1, 1], whatever its range."""
    return to_rgb(part if is_normalized else part * 2 - 1)
