"""Maps of classes: what they may hold."""

from __future__ import annotations

import re

import numpy as np
import pytest
from images import noise
from small_data import codec_for

from imagier.data.codec import Codec
from imagier.errors import UserError

WHERE = "set/images/7.png"


def kind(channels: int | None = None, **options: object) -> Codec:
    return codec_for(name="images", ext="png", num_channels=channels, **options)


@pytest.mark.parametrize(
    ("values", "ignore", "wrong"),
    [
        ([0, 9], False, None),
        ([0, 255], False, None),
        ([0, 10], False, "10"),
        ([0, 10, 255], False, "10"),
        ([200, 10, 10, 12], False, "10, 12, 200"),
        (list(range(20)), False, "10, 11, 12, 13, 14, ..."),
        ([0, 10, 200], True, None),
    ],
)
def test_a_class_beyond_the_config_is_named_unless_it_is_255_or_there_is_a_class_for_the_rest(
    values: list[int], ignore: bool, wrong: str | None
) -> None:
    classes = np.array(values, np.uint8)[None, :, None]
    if wrong is None:
        kind(num_classes=10, use_dont_care=ignore).check(classes, WHERE)
        return
    with pytest.raises(UserError) as caught:
        kind(num_classes=10, use_dont_care=ignore).check(classes, WHERE)
    assert str(caught.value).startswith(
        f"{WHERE}: holds class {wrong}, but one_hot_num_classes.images is 10 (classes 0 to 9); "
    )


def test_a_map_of_classes_has_one_channel() -> None:
    for ignore in (False, True):
        with pytest.raises(UserError, match="^" + re.escape(f"{WHERE}: has 3 channels, but a map of the classes of ")):
            kind(num_classes=10, use_dont_care=ignore).check(noise(4, 4, 3, below=5), WHERE)


@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_map_of_classes_holds_whole_numbers(value: float, ignore: bool) -> None:
    array = np.full((4, 4, 1), value, np.float32)
    with pytest.raises(UserError, match="holds fractions, but classes are whole numbers"):
        kind(num_classes=10, use_dont_care=ignore).check(array, WHERE)


def test_a_type_without_classes_may_hold_any_number() -> None:
    kind(1).check(noise(4, 4, 1, below=65536), WHERE)
