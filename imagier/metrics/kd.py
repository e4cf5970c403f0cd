"""Kernel distance of features (Binkowski et al. 2018); "KID" if they are those of the 2015 Inception network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imagier.metrics.blocks import iterate_dot_products
from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet


class Metric(FeatureMetric):
    """Kernel distance of the features of real and generated images: the unbiased squared MMD with a cubic kernel."""

    title = "KD"
    values: ClassVar[Mapping[str, bool]] = {"kd": False}

    def __init__(
        self,
        *,
        features: Features = "efflite0",
        num_subsets: Annotated[int, Field(ge=1)] | None = None,
        subset_size: Annotated[int, Field(ge=2)] = 1000,
        sample_size: Annotated[int, Field(ge=2)] | None = None,
        seed: int = 0,
        per_class: bool = False,
    ) -> None:
        """features: The network that makes features, or "module:name" of your own.
        num_subsets: The mean over so many random subsets, with its standard error; null: all images at once.
        subset_size: Size of each subset [images].
        sample_size: The subsets are drawn from so many of the images of each set [images]; null: from all.
        seed: Draws the subsets.
        per_class: The mean over the classes of the images, where the data have classes.
        """
        super().__init__(features, per_class=per_class)
        self.num_subsets = num_subsets
        self.subset_size = subset_size
        self.sample_size = sample_size
        self.seed = seed
        self.draws_images = num_subsets is not None

    def describe(self) -> Mapping[str, str | int | float | bool]:
        subsets: dict[str, int] = {}
        if self.num_subsets is not None:
            subsets = {"num_subsets": self.num_subsets, "subset_size": self.subset_size, "seed": self.seed}
        sample = {} if self.sample_size is None else {"sample_size": self.sample_size}
        return {**super().describe(), **subsets, **sample}

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        real, fake = (each.select(torch.arange(len(each))[: self.sample_size]) for each in (real, fake))
        if self.num_subsets is None:
            return {"kd": kernel_distance(real.features, fake.features)}
        distance = kernel_distance_of_subsets(
            real.features,
            fake.features,
            num_subsets=self.num_subsets,
            subset_size=self.subset_size,
            seed=self.seed,
        )
        return {"kd": distance.value, "kd_standard_error": distance.standard_error}


@dataclass(frozen=True)
class KernelDistance:
    """An estimate, and how far off it may be."""

    value: float
    standard_error: float
    """Of the mean over the subsets; NaN if there is only one."""


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Unbiased estimate of the squared MMD with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, section 4).

    Its mean over sets drawn from one distribution is 0, so it may be negative.

    real: N x D. fake: M x D. N and M at least 2.
    """
    return (_mean_of_others(real) + _mean_of_others(fake) - 2 * _mean_kernel(real, fake)).item()


def kernel_distance_of_subsets(
    real: Tensor, fake: Tensor, *, num_subsets: int, subset_size: int, seed: int
) -> KernelDistance:
    """The mean of `kernel_distance` over random subsets (Binkowski et al. 2018, section 4), with its standard error.

    subset_size: of each set; at most the size of the smaller one is used, at least 2.
    """
    rng = torch.Generator().manual_seed(seed)
    size = min(subset_size, len(real), len(fake))
    values = []
    for _ in range(num_subsets):
        rows = [torch.randperm(len(features), generator=rng)[:size].to(features.device) for features in (real, fake)]
        values.append(kernel_distance(real[rows[0]], fake[rows[1]]))
    estimates = torch.tensor(values, dtype=torch.float64)
    error = estimates.std().item() / num_subsets**0.5 if num_subsets > 1 else float("nan")
    return KernelDistance(estimates.mean().item(), error)


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for tile in iterate_dot_products(x, y):
        total += _kernel(tile.values, x.shape[1]).sum()
    return total / (len(x) * len(y))


def _mean_of_others(x: Tensor) -> Tensor:
    """The mean of the kernel over all pairs of two different rows."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for tile in iterate_dot_products(x):
        kernel = _kernel(tile.values, x.shape[1])
        total += tile.weight * (kernel.sum() if tile.weight == 2 else kernel.fill_diagonal_(0).sum())
    return total / (len(x) * (len(x) - 1))


def _kernel(products: Tensor, dim: int) -> Tensor:
    return (products / dim + 1) ** 3
