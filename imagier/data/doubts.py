"""Doubts about label maps, from how often each value occurs: pixels of no class, and classes that are not marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imagier.data.codec import Codec
from imagier.data.codecs.mask import NOTHING

MANY = 0.25
"""A share of pixels without a class from which on they are hardly meant."""

_FEW_CLASSES, _LARGEST_CLASS = 64, 127


@dataclass(frozen=True)
class Doubt:
    """What is probably not meant."""

    what: str
    advice: str
    """Empty if it may well be meant."""


def find_without_class(codec: Codec, pixels: np.ndarray) -> Doubt | None:
    """Says what share of the pixels of class maps has no class, if any. pixels: how many have each value."""
    known, input_type = codec.num_classes, codec.input_type
    if known is None or input_type.use_dont_care or not pixels.any():
        return None
    limit = input_type.dont_care
    there = np.flatnonzero(pixels)
    without = there[(there if limit is None else np.minimum(there, limit)) >= known]
    if not len(without):
        return None
    share = pixels[without].sum() / pixels.sum()
    values = ", ".join(map(str, without[:4])) + (", ..." if len(without) > 4 else "")
    what = f"{100 * share:.3g} % of the pixels are {values}, which stands for no class: networks see 0 in all channels"
    classes = there[there < known]
    if len(classes) <= 1 and without.tolist() == [NOTHING]:
        return Doubt(
            f"{what}. The maps hold {' and '.join(map(str, there))} alone",
            f"if {NOTHING} is a class, store it as {int(0 in classes)} (a map of 0 and 255 divided by 255); if it is "
            "none, use_dont_care: true gives it a channel",
        )
    if share < MANY:
        return Doubt(what, "")
    return Doubt(
        what, "if they belong to a class, store them as its number; else use_dont_care: true gives them a channel"
    )


def find_unmarked_classes(codec: Codec, pixels: np.ndarray) -> Doubt | None:
    """Says that a type of 8 bits seems to hold classes, though networks will see it as brightness, if so."""
    ids = np.flatnonzero(pixels)
    looks_like_classes = 1 < len(ids) <= _FEW_CLASSES and ids[-1] <= _LARGEST_CLASS
    if not looks_like_classes or (len(ids) == 2 and not codec.holds_ids and ids[-1] > 1):
        return None
    shown = ", ".join(map(str, ids[:6])) + (f", ..., {ids[-1]}" if len(ids) > 6 else "")
    is_mask = "" if codec.holds_ids else "is_mask: true and "
    return Doubt(
        f"all files together hold {len(ids)} values alone ({shown}), as if these were classes, but networks see them "
        "divided by 255",
        f"if they are, set {is_mask}one_hot_num_classes.{codec.name}: {ids[-1] + 1}",
    )
