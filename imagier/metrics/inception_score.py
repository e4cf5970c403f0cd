"""Inception score (Salimans et al. 2016): sharp classes in each image, many classes in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imagier.metrics.feature_metric import FeatureMetric, Features, FeatureSet


class Metric(FeatureMetric):
    """Inception score of the generated images: sharp classes in each, many classes in all. Real ones are not used."""

    title = "IS"
    needs_logits = True
    values: ClassVar[Mapping[str, bool]] = {"is": True}

    def __init__(self, *, features: Features = "inception_fid", num_splits: Annotated[int, Field(ge=1)] = 10) -> None:
        """features: The network that has the classes, or "module:name" of your own.
        num_splits: The mean over so many random parts of the set.
        """
        super().__init__(features)
        self.num_splits = num_splits
        self.min_images = num_splits

    def describe(self) -> Mapping[str, str | int | float | bool]:
        return {**super().describe(), "num_splits": self.num_splits}

    def compare(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        assert fake.logits is not None
        return {"is": inception_score(fake.logits, num_splits=self.num_splits)}


def inception_score(logits: Tensor, *, num_splits: int = 1, seed: int = 0) -> float:
    """exp of the mean KL divergence of an image's classes from those of all (Salimans et al. 2016, section 4).

    Averaged over random parts of the set, so that images may be sorted by their classes. seed: draws the parts.
    logits: N x number of classes, N at least num_splits. -> 1 or more; NaN if a logit is NaN.
    """
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed)).to(logits.device)
    probabilities = logits[order].double().softmax(dim=1)
    scores = []
    for part in probabilities.tensor_split(num_splits):
        marginal = part.mean(dim=0)
        divergence = torch.special.xlogy(part, part) - torch.special.xlogy(part, marginal)
        scores.append(divergence.sum(dim=1).mean().exp().item())
    return sum(scores) / num_splits
