"""Differentiable augmentation: a discriminator that sees changed images overfits later (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.precision import full_precision

LARGEST_SHIFT = 0.125
"""Images move by up to this share of a side, rounded to whole pixels (translation), or of half a side
(translation_scale, which scales them by up to this much, too)."""

CUTOUT_SHARE = 0.5
"""Height and width of the gray box, as a share of the image's, rounded to whole pixels."""


def check_policy(policy: str) -> None:
    """UserError if a name in the comma-separated policy is unknown."""
    for name in _names(policy):
        if name not in _CHANGES:
            raise UserError(
                f"no augmentation {name!r}",
                where="aug_policy",
                advice=f"choose from {', '.join(_CHANGES)}",
                code="unknown-augmentation",
            )


def augment(images: Tensor, policy: str, rng: torch.Generator) -> Tensor:
    """N x C x H x W -> the same, each image with its own random draws; differentiable.

    policy: comma-separated names out of color, translation, cutout, translation_scale, applied in that order;
    '' changes nothing. Images may leave their range.
    """
    for name in _names(policy):
        images = _CHANGES[name](images, rng)
    return images


def _names(policy: str) -> list[str]:
    return [name.strip() for name in policy.split(",")] if policy else []


def _color(images: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness by up to 0.5, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    images = images + (_uniform(images, rng) - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = (images - gray) * (2 * _uniform(images, rng)) + gray
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - level) * (_uniform(images, rng) + 0.5) + level


def _translation(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts by up to an eighth of height and width in whole pixels, filled with gray (0)."""
    height, width = images.shape[-2:]
    reach_y, reach_x = int(height * LARGEST_SHIFT + 0.5), int(width * LARGEST_SHIFT + 0.5)
    rows = _indices(height, images) + _integers(-reach_y, reach_y + 1, images, rng)
    columns = _indices(width, images) + _integers(-reach_x, reach_x + 1, images, rng)
    # One ring of zeros stands for everything outside.
    padded = F.pad(images, (1, 1, 1, 1)).movedim(1, -1)
    rows = (rows + 1).clamp(0, height + 1).unsqueeze(2)
    columns = (columns + 1).clamp(0, width + 1).unsqueeze(1)
    return padded[_samples(images), rows, columns].movedim(-1, 1)


def _cutout(images: Tensor, rng: torch.Generator) -> Tensor:
    """Zeros in a box of half the height and width, of which a part may lie outside."""
    height, width = images.shape[-2:]
    inside_y = _box(height, images, rng)
    inside_x = _box(width, images, rng)
    inside = inside_y.unsqueeze(2) & inside_x.unsqueeze(1)
    return images * (~inside).unsqueeze(1).to(images.dtype)


def _box(size: int, images: Tensor, rng: torch.Generator) -> Tensor:
    """Which of `size` rows (or columns) lie in the box of each sample, N x size, bool."""
    box = int(size * CUTOUT_SHARE + 0.5)
    center = _integers(0, size + (1 - box % 2), images, rng)
    first = center - box // 2
    rows = _indices(size, images)
    return (rows >= first) & (rows < first + box)


def _translation_scale(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts by up to an eighth of half the size and scales by up to an eighth, with reflection."""
    draws = [torch.rand(len(images), 2, generator=rng, device=images.device) for _ in range(2)]
    shift, scale = ((2 * draw - 1) * LARGEST_SHIFT for draw in draws)
    theta = torch.cat([torch.diag_embed(1 + scale), shift.unsqueeze(2)], dim=2)
    with full_precision(images):  # sampling positions need more than 8 bits
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    return moved.to(images.dtype)


_CHANGES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
    "translation_scale": _translation_scale,
}


def _uniform(images: Tensor, rng: torch.Generator) -> Tensor:
    draw = torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device)
    return draw.to(images.dtype)


def _integers(low: int, high: int, images: Tensor, rng: torch.Generator) -> Tensor:
    """One integer of [low, high) per sample, N x 1."""
    return torch.randint(low, high, (len(images), 1, 1), generator=rng, device=images.device).squeeze(-1)


def _indices(size: int, images: Tensor) -> Tensor:
    return torch.arange(size, device=images.device)


def _samples(images: Tensor) -> Tensor:
    return torch.arange(len(images), device=images.device).view(-1, 1, 1)
