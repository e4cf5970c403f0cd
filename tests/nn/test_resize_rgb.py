"""Images of any number of channels as people see them."""

from __future__ import annotations

import pytest
import torch

from imagier.nn.resize import lay_on_white, to_rgb


@pytest.mark.parametrize("channels", [1, 3, 5, 7])
def test_gray_colors_and_the_first_three_of_many_are_shown_as_they_are(channels: int) -> None:
    images = torch.rand(2, channels, 4, 5) * 2 - 1
    expected = images.expand(-1, 3, -1, -1) if channels == 1 else images[:, :3]
    assert torch.equal(to_rgb(images), expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_on_white(channels: int) -> None:
    images = torch.rand(3, channels, 4, 5) * 2 - 1
    images[0, -1], images[1, -1] = 1, -1  # opaque, and not there
    shown = to_rgb(images)
    assert shown.shape == (3, 3, 4, 5)
    assert torch.equal(shown[0], images[0, :-1].expand(3, -1, -1))
    assert torch.equal(shown[1], torch.ones(3, 4, 5))
    light, alpha = (images[2, :-1] + 1) / 2, (images[2, -1:] + 1) / 2
    torch.testing.assert_close((shown[2] + 1) / 2, (light * alpha + 1 - alpha).expand(3, -1, -1))


def test_values_beyond_the_range_are_cut() -> None:
    assert to_rgb(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2))[0, 0].tolist() == [[-1, 1]]


def test_a_gradient_reaches_alpha() -> None:
    images = torch.zeros(1, 4, 2, 2, requires_grad=True)
    lay_on_white(images).sum().backward()
    assert images.grad is not None
    assert (images.grad[:, 3] != 0).all()
