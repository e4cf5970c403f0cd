"""Labels that people look at: classes in colors, images as they are."""

from __future__ import annotations

import torch

from imagier.nn.colorize import palette
from imagier.nn.label_parts import show_label


def test_classes_get_colors_and_images_stay_whatever_their_range() -> None:
    classes = torch.tensor([[[0, 1], [2, 1]]])
    one_hot = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()
    near, signed = torch.tensor([[[[0.0, 0.25], [0.5, 1.0]]]]), torch.tensor([[[[-1.0, 0.0], [0.5, 1.0]]]])
    label = torch.cat([one_hot, near, signed], dim=1)
    shown = show_label(label, {"classes": 3, "near": 1, "signed": 1}, ["classes"], ["signed"])
    colors = palette(3)[classes].movedim(-1, 1) / 127.5 - 1
    torch.testing.assert_close(shown["classes"], colors)
    torch.testing.assert_close(shown["near"], torch.tensor([[[[-1.0, -0.5], [0.0, 1.0]]]]).expand(1, 3, 2, 2))
    torch.testing.assert_close(shown["signed"], signed.expand(1, 3, 2, 2))
