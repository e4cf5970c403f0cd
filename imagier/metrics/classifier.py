"""A linear classifier of features: multinomial logistic regression."""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_MOST_STEPS = 1000


@dataclass(frozen=True)
class Classifier:
    """What was learned from features and their classes."""

    classes: Tensor
    """K, int64: the classes that it knows, sorted."""
    mean: Tensor
    scale: Tensor
    weights: Tensor
    """(D + 1) x K; the last row is the bias."""

    def rank(self, features: Tensor) -> Tensor:
        """N x D -> N x K: the classes, the most probable one first."""
        logits = _with_one((features.double() - self.mean) / self.scale) @ self.weights
        return self.classes[logits.argsort(dim=1, descending=True, stable=True)]


def fit_classifier(features: Tensor, labels: Tensor) -> Classifier:
    """Minimizes the sum of the cross entropies + |W|^2 / 2, over standardized features, the bias left free.

    The minimum is unique, so the classifier depends on nothing else. features: N x D. labels: N, int64.
    """
    features = features.double()
    classes, targets = labels.unique(return_inverse=True)
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(spread > 0, spread, 1.0)
    inputs = _with_one((features - mean) / scale)
    weights = torch.nn.Parameter(inputs.new_zeros(inputs.shape[1], len(classes)))
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=_MOST_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def measure() -> float:
        log_probabilities = (inputs @ weights).log_softmax(dim=1)
        penalized = weights.detach().clone()
        penalized[-1] = 0
        errors = log_probabilities.exp()
        errors[torch.arange(len(errors)), targets] -= 1
        weights.grad = inputs.T @ errors + penalized
        loss = -log_probabilities.gather(1, targets[:, None]).sum() + penalized.square().sum() / 2
        return loss.item()

    optimizer.step(measure)
    if weights.grad is None or not weights.grad.abs().max() < 1e-3:
        logger.warning(f"the classifier of features is not at its optimum after {_MOST_STEPS} steps")
    return Classifier(classes, mean, scale, weights.detach())


class FittedOnce:
    """`fit_classifier` for metrics: an interval asks for the classifier of the same images again and again."""

    def __init__(self) -> None:
        self._features: weakref.ref[Tensor] | None = None
        self._classifier: Classifier | None = None

    def fit(self, features: Tensor, labels: Tensor) -> Classifier:
        """As `fit_classifier`. It does not keep the features alive."""
        if self._classifier is None or self._features is None or self._features() is not features:
            self._features, self._classifier = weakref.ref(features), fit_classifier(features, labels)
        return self._classifier


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
