"""The parts that a label map is made of, each of one input type."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor


def split_label(label: Tensor, lengths: Mapping[str, int]) -> dict[str, Tensor]:
    """The parts of a label N x C x H x W by their names. lengths: channels of each, in order."""
    return dict(zip(lengths, label.split(list(lengths.values()), dim=1)))


def find_class_map(label: Tensor, lengths: Mapping[str, int], one_hot: Collection[str]) -> Tensor | None:
    """The part of a label, N x C x H x W, that has a channel per class; the first of several, None if there is none.

    lengths: channels of each part, in order. one_hot: the parts with classes.
    """
    return next((part for name, part in split_label(label, lengths).items() if name in one_hot), None)
