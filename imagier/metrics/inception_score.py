"""Inception score (Salimans et al. 2016): sharp classes in each image, many classes in all of them."""

from __future__ import annotations

from torch import Tensor


def inception_score(logits: Tensor, *, num_splits: int = 1) -> float:
    """exp of the mean KL divergence of an image's classes from those of all (Salimans et al. 2016, section 4).

    Averaged over consecutive parts of the set. logits: N x number of classes, N at least num_splits. -> 1 or more.
    """
    log_probabilities = logits.double().log_softmax(dim=1)
    scores = []
    for part in log_probabilities.tensor_split(num_splits):
        marginal = part.exp().mean(dim=0).log()
        scores.append((part.exp() * (part - marginal)).nansum(dim=1).mean().exp().item())
    return sum(scores) / num_splits
