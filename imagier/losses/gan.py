"""Adversarial losses on logits, of the discriminator and of the generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GanMode = Literal["hinge", "least_square", "non_saturated", "softplus", "wasserstein"]


@dataclass(frozen=True)
class _Formulas:
    """Elementwise losses of one mode, all of logits of any shape."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


_NON_SATURATED = _Formulas(  # Goodfellow et al. 2014: cross entropy, written with softplus so that it cannot overflow
    real=lambda x: F.softplus(-x),
    fake=F.softplus,
    generator=lambda x: F.softplus(-x),
)
_FORMULAS: dict[str, _Formulas] = {
    # Lim & Ye 2017, eq. 3.
    "hinge": _Formulas(real=lambda x: F.relu(1 - x), fake=lambda x: F.relu(1 + x), generator=torch.neg),
    # Mao et al. 2017, eq. 9 with targets 0 and 1.
    "least_square": _Formulas(
        real=lambda x: (x - 1).square() / 2, fake=lambda x: x.square() / 2, generator=lambda x: (x - 1).square() / 2
    ),
    "non_saturated": _NON_SATURATED,
    "softplus": _NON_SATURATED,
    # Arjovsky et al. 2017, eq. 2.
    "wasserstein": _Formulas(real=torch.neg, fake=lambda x: x, generator=torch.neg),
}


def dis_real_loss(outputs: Sequence[Tensor], mode: GanMode) -> Tensor:
    """Discriminator loss on real images: logits of each discriminator, of any shape -> scalar, their mean."""
    return _mean_over_discriminators(outputs, _FORMULAS[mode].real)


def dis_fake_loss(outputs: Sequence[Tensor], mode: GanMode) -> Tensor:
    """Discriminator loss on generated images: logits of each discriminator, of any shape -> scalar, their mean."""
    return _mean_over_discriminators(outputs, _FORMULAS[mode].fake)


def gen_loss(outputs: Sequence[Tensor], mode: GanMode, keep: float = 1.0, per_sample: bool = False) -> Tensor:
    """Generator's loss: logits per discriminator of generated images -> scalar.

    With `keep` < 1 only the largest logits count, that share of them (Sinha et al. 2020): of all logits of a
    discriminator together, or `per_sample`.
    """
    if keep < 1:
        outputs = [_top_logits(logits, keep, per_sample) for logits in outputs]
    return _mean_over_discriminators(outputs, _FORMULAS[mode].generator)


def relativistic_logits(outputs: Sequence[Tensor], to: Sequence[Tensor]) -> list[Tensor]:
    """Logits less those of the opposite images, elementwise (relativistic GAN, Jolicoeur-Martineau 2018, eq. 5)."""
    return [x - y for x, y in zip(outputs, to)]


def center_logits(outputs: Sequence[Tensor], mode: GanMode) -> list[Tensor]:
    """Logits minus the undecided one, so that values above 0 mean "real"."""
    undecided = 0.5 if mode == "least_square" else 0.0
    return [x - undecided for x in outputs]


def _mean_over_discriminators(outputs: Sequence[Tensor], formula: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([formula(logits.float()).mean() for logits in outputs]).mean()


def _top_logits(logits: Tensor, keep: float, per_sample: bool) -> Tensor:
    rows = logits.flatten(1) if per_sample else logits.reshape(1, -1)
    return rows.topk(math.ceil(keep * rows.shape[1]), dim=1).values
