"""Differentiable augmentation: the recorded numbers, and what each part does by hand."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from golden import golden
from parity import Replay
from safetensors.torch import load_file
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.diff_augment import augment, check_policy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_images(count: int = 2, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(5)) * 2 - 1


@pytest.mark.parametrize("tag", ["color", "translation", "cutout", "translation_scale", "all"])
def test_every_policy_gives_the_recorded_images_for_the_recorded_draws(tag: str) -> None:
    recorded = load_file(golden("optim", "diffaug.safetensors"))
    policy = json.loads(golden("optim", "meta.json").read_text())["diffaug"][tag]["aug_policy"]
    count = sum(name.startswith(f"{tag}.draw.") for name in recorded)
    with Replay([recorded[f"{tag}.draw.{i}"] for i in range(count)]) as replay:
        found = augment(recorded[f"{tag}.input"], policy, seeded())
    assert not replay.draws
    expected = recorded[f"{tag}.output"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_no_policy_changes_nothing_and_draws_nothing() -> None:
    images, rng = make_images(), seeded()
    assert augment(images, "", rng) is images
    assert torch.equal(rng.get_state(), seeded().get_state())


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "translation_scale", "color,cutout"])
def test_the_same_random_source_gives_the_same_images_and_another_one_others(policy: str) -> None:
    images = make_images(8)
    first = augment(images, policy, seeded(1))
    assert torch.equal(first, augment(images, policy, seeded(1)))
    assert not torch.equal(first, augment(images, policy, seeded(2)))
    assert first.shape == images.shape


def test_a_shift_is_a_crop_of_the_image_on_a_gray_ground() -> None:
    images = make_images(1)
    with Replay([torch.tensor([[[2]]]), torch.tensor([[[-3]]])]):
        found = augment(images, "translation", seeded())
    expected = torch.zeros_like(images)
    expected[..., :14, 3:] = images[..., 2:, :21]
    assert torch.equal(found, expected)


def test_shifts_reach_an_eighth_of_each_side_and_no_further() -> None:
    spot = torch.zeros(400, 1, 16, 24)
    spot[..., 8, 12] = 1
    found = augment(spot, "translation", seeded()).nonzero()
    assert found.shape[0] == 400
    assert (found[:, 2].min(), found[:, 2].max()) == (6, 10)
    assert (found[:, 3].min(), found[:, 3].max()) == (9, 15)


@pytest.mark.parametrize("size", range(1, 18))
def test_the_box_is_that_of_indices_moved_into_the_image(size: int) -> None:
    """For all centers that can be drawn."""
    box = round(size / 2 + 1e-9)
    centers = range(size + (box % 2 == 0))
    column = centers[-1] // 2
    draws = [torch.tensor(centers).view(-1, 1, 1), torch.full((len(centers), 1, 1), column)]
    with Replay(draws):
        found = augment(torch.ones(len(centers), 1, size, size), "cutout", seeded())
    columns = (torch.arange(box) + column - box // 2).clamp(0, size - 1)
    for center in centers:
        rows = (torch.arange(box) + center - box // 2).clamp(0, size - 1)
        expected = torch.ones(size, size)
        expected[rows.unsqueeze(1), columns] = 0
        assert torch.equal(found[center, 0], expected)


def test_no_shift_and_no_scale_leave_the_image() -> None:
    images = make_images()
    with Replay([torch.full((2, 2), 0.5), torch.full((2, 2), 0.5)]):
        found = augment(images, "translation_scale", seeded())
    torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


def test_scaling_moves_every_pixel_where_the_grid_says() -> None:
    ramp = torch.linspace(-1 + 1 / 32, 1 - 1 / 32, 32).expand(1, 1, 32, 32)  # its value is its own x coordinate
    with Replay([torch.tensor([[0.9, 0.5]]), torch.tensor([[0.2, 0.5]])]):
        found = augment(ramp, "translation_scale", seeded())
    shift, scale = (2 * 0.9 - 1) / 8, 1 + (2 * 0.2 - 1) / 8
    expected = ramp * scale + shift
    inside = expected.abs() < 1 - 1 / 32
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-5)


def test_color_by_hand() -> None:
    images = make_images(1)
    draws = [torch.tensor([value]).view(1, 1, 1, 1) for value in (0.7, 0.1, 0.8)]
    with Replay(draws):
        found = augment(images, "color", seeded())
    brighter = images + 0.2
    gray = brighter.mean(1, keepdim=True)
    paler = torch.lerp(gray.expand_as(brighter), brighter, 0.2)
    mean = paler.mean()
    torch.testing.assert_close(found, mean + 1.3 * (paler - mean))


def test_gradients_are_those_of_finite_differences() -> None:
    images = make_images(2, 8, 8).double().requires_grad_()
    for policy in ("color,translation", "cutout"):
        assert torch.autograd.gradcheck(lambda x, p=policy: augment(x, p, seeded(3)), (images,), fast_mode=True)


def test_parts_are_applied_in_the_order_of_the_policy() -> None:
    images = make_images()
    rng = seeded(4)
    by_hand = augment(augment(images, "cutout", rng), "color", rng)
    torch.testing.assert_close(augment(images, "cutout,color", seeded(4)), by_hand, rtol=0, atol=0)


def test_bfloat16_images_keep_their_type_and_sampling_positions_their_precision() -> None:
    images = make_images(2, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(images.bfloat16(), "translation_scale", seeded())
    assert found.dtype == torch.bfloat16
    exact = augment(images, "translation_scale", seeded())
    assert F.mse_loss(found.float(), exact) < 1e-4


def test_an_unknown_part_of_a_policy_is_told() -> None:
    check_policy("")
    check_policy("color,translation,cutout,translation_scale")
    with pytest.raises(UserError, match="no augmentation 'colour'"):
        check_policy("cutout,colour")
