"""Label maps as colors: the published tables, and the bit scheme."""

from __future__ import annotations

import pytest
import torch

from imagier.nn.colorize import colorize, palette

CITYSCAPES_IDS = {
    **dict.fromkeys(range(5), (0, 0, 0)),
    5: (111, 74, 0),
    6: (81, 0, 81),
    7: (128, 64, 128),
    8: (244, 35, 232),
    9: (250, 170, 160),
    10: (230, 150, 140),
    11: (70, 70, 70),
    12: (102, 102, 156),
    13: (190, 153, 153),
    14: (180, 165, 180),
    15: (150, 100, 100),
    16: (150, 120, 90),
    17: (153, 153, 153),
    18: (153, 153, 153),
    19: (250, 170, 30),
    20: (220, 220, 0),
    21: (107, 142, 35),
    22: (152, 251, 152),
    23: (70, 130, 180),
    24: (220, 20, 60),
    25: (255, 0, 0),
    26: (0, 0, 142),
    27: (0, 0, 70),
    28: (0, 60, 100),
    29: (0, 0, 90),
    30: (0, 0, 110),
    31: (0, 80, 100),
    32: (0, 0, 230),
    33: (119, 11, 32),
    34: (0, 0, 142),
}
TRAINED_OF_ID = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 24, 25, 26, 27, 28, 31, 32, 33, 23)
"""The 19 trained classes by their ids, in the order of the 20-row table: sky is its last."""
VOC = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    4: (0, 0, 128),
    5: (128, 0, 128),
    6: (0, 128, 128),
    7: (128, 128, 128),
    8: (64, 0, 0),
    9: (192, 0, 0),
    10: (64, 128, 0),
    11: (192, 128, 0),
    183: (128, 224, 192),
}


def rows(table: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in table.tolist()]


def test_35_classes_are_the_ids_of_cityscapes() -> None:
    assert rows(palette(35)) == [CITYSCAPES_IDS[i] for i in range(35)]


def test_20_classes_are_the_trained_classes_of_cityscapes_and_black() -> None:
    assert rows(palette(20)) == [*(CITYSCAPES_IDS[i] for i in TRAINED_OF_ID), (0, 0, 0)]


def test_other_numbers_of_classes_have_the_colors_of_pascal_voc() -> None:
    table = rows(palette(184))
    assert {i: table[i] for i in VOC} == VOC
    assert len(set(table)) == 184
    assert rows(palette(12)) == table[:12]


def test_the_bit_scheme_holds_for_a_whole_byte() -> None:
    """Written out with strings of bits: every third bit, the lowest first."""
    for index, color in enumerate(rows(palette(256))):
        bits = f"{index:024b}"[::-1]
        assert color == tuple(int(bits[channel::3], 2) for channel in range(3))


@pytest.mark.parametrize("classes", [3, 20, 35])
def test_a_pixel_gets_the_color_of_its_largest_channel(classes: int) -> None:
    torch.manual_seed(0)
    label = torch.rand(2, classes, 4, 5)
    image = colorize(label)
    assert image.shape == (2, 3, 4, 5)
    assert image.min() >= -1 and image.max() <= 1
    back = ((image + 1) / 2 * 255).round().to(torch.uint8)
    table = palette(classes)
    for n, y, x in [(0, 0, 0), (1, 3, 4), (0, 2, 1)]:
        largest = max(range(classes), key=lambda k: label[n, k, y, x].item())
        assert torch.equal(back[n, :, y, x], table[largest])


def test_a_pixel_without_a_class_gets_the_first_color() -> None:
    image = colorize(torch.zeros(1, 20, 1, 1))
    torch.testing.assert_close(image[0, :, 0, 0], torch.tensor([128, 64, 128]) / 127.5 - 1)
