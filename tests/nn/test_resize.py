"""Sizes that can be halved and doubled again, and images in the form in which they are shown."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from imagier.nn.resize import round_to_multiple, to_rgb


def test_shown_images_have_three_channels_and_end_at_1() -> None:
    gray = torch.tensor([-3.0, 0.25, 3.0], dtype=torch.bfloat16).view(1, 1, 1, 3)
    shown = to_rgb(gray)
    assert shown.dtype == torch.float32
    assert shown[0, :, 0].tolist() == [[-1, 0.25, 1]] * 3
    colors = torch.rand(2, 3, 4, 5)
    assert torch.equal(to_rgb(colors), colors)


def test_images_and_labels_are_resized_each_in_its_way_and_what_fits_is_not() -> None:
    given = {"images": torch.rand(1, 3, 9, 14), "label": torch.rand(1, 2, 9, 14), "other": torch.rand(1, 3, 8, 12)}
    resized = round_to_multiple(given, ("label", "images", "other", "not there"), 4)
    assert resized.keys() == {"images", "label"}
    torch.testing.assert_close(resized["images"], F.interpolate(given["images"], size=(8, 12), mode="bicubic"))
    assert torch.equal(resized["label"], F.interpolate(given["label"], size=(8, 12), mode="nearest"))


@pytest.mark.parametrize(
    ("multiple", "size", "rounded"), [(4, (4, 7), (4, 4)), (8, (17, 15), (16, 8)), (1, (5, 3), (5, 3))]
)
def test_sides_are_rounded_down(multiple: int, size: tuple[int, int], rounded: tuple[int, int]) -> None:
    given = {"images": torch.rand(1, 3, *size)}
    ready = {**given, **round_to_multiple(given, ["images"], multiple)}
    assert ready["images"].shape == (1, 3, *rounded)
