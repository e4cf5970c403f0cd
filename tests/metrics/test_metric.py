"""What every metric promises: the same number whatever the batches and ranks, and nothing of one set in the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from docstrings import example
from torch import Tensor

from imagier.config.find import find, list_types
from imagier.config.schema import METRIC
from imagier.metrics.metric import Metric

CPU = torch.device("cpu")
NEEDS_WEIGHTS = {"lpips", "dists", "content_distance"}
"""See test_network_distances.py."""
CLASSES = {name: find(METRIC, name) for name in list_types(METRIC) if issubclass(find(METRIC, name), Metric)}
TYPES = [name for name, cls in CLASSES.items() if not (cls.learns or cls.takes_clips) and name not in NEEDS_WEIGHTS]
"""Those of single images, without a network of their own. The others have files of their own, with the same tests."""
LEAST_SIDE = {"SSIM": 11, "MS-SSIM": 176}


def images(seed: int, side: int = 4) -> Tensor:
    shape = 6, 3, side, side + 1
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def facts(rows: slice = slice(None), side: int = 4) -> dict[str, Tensor]:
    return {"targets": images(1, side)[rows], "start": images(2, side)[rows]}


def add(metric: Metric, rows: slice = slice(None), seed: int = 0) -> None:
    """Gives a batch to a metric."""
    side = LEAST_SIDE.get(metric.name, 4)
    metric.update(images(seed, side)[rows], facts(rows, side))


def score(metric: Metric, *parts: slice) -> float:
    """The number for so many batches of a set of images."""
    tested = metric.fresh(CPU)
    for rows in parts:
        add(tested, rows)
    return tested.compute()


class Ranks:
    """Gathers what ranks give, one after the other: what `Runtime.all_gather` is on real ones."""

    def __init__(self, others: Sequence[Metric]) -> None:
        self.states = [list(other.state.values()) for other in others]
        self.asked = 0

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        (own,) = tensors
        gathered = torch.cat([own, *(state[self.asked][None] for state in self.states)])
        self.asked += 1
        return gathered


@pytest.mark.parametrize("name", TYPES)
def test_batches_and_ranks_do_not_change_the_number(name: str) -> None:
    metric: Metric = find(METRIC, name)()
    whole = score(metric, slice(0, 6))
    assert score(metric, slice(0, 1), slice(1, 6)) == pytest.approx(whole, rel=1e-12)
    ranks = [metric.fresh(CPU) for _ in range(3)]  # the last has no share
    for rank, rows in zip(ranks, (slice(0, 4), slice(4, 6))):
        add(rank, rows)
    first, *others = ranks
    first.merge(Ranks(others))
    assert first.compute() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("name", TYPES)
def test_sets_do_not_mix_and_none_has_no_number(name: str) -> None:
    metric: Metric = find(METRIC, name)()
    alone = score(metric, slice(0, 2))
    score(metric, slice(2, 6))
    assert score(metric, slice(0, 2)) == alone
    assert math.isnan(score(metric))


@pytest.mark.parametrize("name", TYPES)
def test_perfect_images_are_better_than_others(name: str) -> None:
    metric: Metric = find(METRIC, name)()
    perfect, worse = metric.fresh(CPU), metric.fresh(CPU)
    add(perfect, seed=1)
    add(worse)
    assert (perfect.compute() > worse.compute()) is metric.higher_is_better
    assert (perfect.compute() < worse.compute()) is not metric.higher_is_better
    (described,) = metric.list_scores()
    assert described.meaning.startswith(f"{metric.name}: ")
    assert (described.name, described.higher_is_better) == (metric.name, metric.higher_is_better)


def test_two_tolerances_have_two_names() -> None:
    cls = find(METRIC, "l1_changed")
    assert cls().name == "L1 changed"
    assert cls(tolerance=0.5).name != cls(tolerance=0.25).name != "L1 changed"


def test_the_example_in_the_docstring_is_a_metric() -> None:
    namespace: dict[str, Any] = {"torch": torch}
    exec(example(Metric), namespace)
    metric = namespace["Metric"](scale=255.0)
    expected = 255 * (images(0) - images(1)).flatten().norm() / math.sqrt(6 * 3 * 4 * 5)
    assert score(metric, slice(0, 4), slice(4, 6)) == pytest.approx(expected.item(), rel=1e-6)
    assert metric.fresh(CPU).compute_all().keys() == metric.scores.keys() == {"RMSE"}
    assert metric.list_scores()[0].meaning.endswith("over the pixels of all images. Lower is better.")
