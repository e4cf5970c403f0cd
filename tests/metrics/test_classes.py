"""Metrics on classes: which class an image shows, and which classes occur."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics import class_accuracy, inception_score, kd, mode_coverage
from imagier.metrics.classifier import fit_classifier
from imagier.metrics.feature_metric import FeatureMetric, FeatureSet
from imagier.metrics.mode_coverage import measure_modes
from imagier.run.comparison import list_warnings


def clusters(count: int, classes: int, *, dim: int = 6, seed: int = 0, spread: float = 1.0) -> FeatureSet:
    """Features around one point for each class; class i is 10 i. The points are the same for every seed."""
    centers = 3 * torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=rng)
    features = centers[labels] + spread * torch.randn(count, dim, generator=rng)
    return FeatureSet(features, labels=10 * labels)


@pytest.mark.parametrize(("count", "dim"), [(200, 6), (30, 80)])
def test_the_classifier_is_the_logistic_regression_of_scikit_learn(count: int, dim: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    real, other = clusters(count, 4, dim=dim, spread=4), clusters(100, 4, dim=dim, seed=1, spread=4)
    mean, std = real.features.mean(dim=0), real.features.std(dim=0, correction=0)
    rows = ((real.features - mean) / std).double().numpy()
    model = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(rows, real.labels.numpy())
    found = fit_classifier(real.features, real.labels)
    shift = found.weights - found.weights.mean(dim=1, keepdim=True)  # a shift of all classes changes nothing
    np.testing.assert_allclose(shift[:-1].T.numpy(), model.coef_ - model.coef_.mean(axis=0), atol=1e-4)
    predicted = model.predict(((other.features - mean) / std).double().numpy())
    assert found.rank(other.features)[:, 0].tolist() == predicted.tolist()


def test_features_that_do_not_vary_and_a_single_class_do_no_harm() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 5.0], [1.0, 5.0]])
    assert fit_classifier(features, torch.tensor([3, 3, 7, 7])).rank(features).tolist() == [
        [3, 7],
        [3, 7],
        [7, 3],
        [7, 3],
    ]
    assert fit_classifier(features, torch.tensor([3] * 4)).rank(features).tolist() == [[3]] * 4


def test_accuracy_counts_images_of_the_wanted_class() -> None:
    real, fake = clusters(300, 7, spread=0.01), clusters(100, 7, seed=1, spread=0.01)
    metric = class_accuracy.Metric()
    assert metric.measure(real, fake) == {"class_accuracy": 1, "class_accuracy_top5": 1}
    wanted = fake.labels.clone()
    wanted[:30] += 1  # a class that no real image has
    wanted[30:50] = (wanted[30:50] + 10) % 70  # another class
    values = metric.measure(real, FeatureSet(fake.features, labels=wanted))
    assert values["class_accuracy"] == pytest.approx(0.5)
    assert 0.5 <= values["class_accuracy_top5"] <= 0.7
    assert metric.scores == {"Class accuracy-EffLite0": True, "Class accuracy, top 5-EffLite0": True}


def test_the_classifier_learns_from_the_real_images_that_it_is_given() -> None:
    metric = class_accuracy.Metric()
    first, second, fake = clusters(60, 3), clusters(60, 3, seed=5), clusters(50, 3, seed=1)
    swapped = FeatureSet(second.features, labels=20 - second.labels)
    assert metric.measure(first, fake)["class_accuracy"] > 0.9
    assert metric.measure(swapped, fake)["class_accuracy"] < 0.6  # only the middle class is still called the same
    assert "class_accuracy_top5" not in metric.measure(first, fake)
    assert metric.measure(FeatureSet(first.features), fake) == {}


def test_modes_of_known_histograms() -> None:
    real, fake = torch.tensor([1] * 4 + [2] * 4 + [3] * 8), torch.tensor([1] * 3 + [3] * 3 + [9] * 2)
    values = measure_modes(real, fake)
    assert values["mode_coverage"] == pytest.approx(2 / 3)
    assert values["mode_outside"] == pytest.approx(1 / 4)
    assert values["mode_kl"] == pytest.approx(scipy.stats.entropy([3, 0, 3], [4, 4, 8]))
    assert measure_modes(real, real) == {"mode_coverage": 1, "mode_kl": pytest.approx(0, abs=1e-12), "mode_outside": 0}
    assert math.isnan(measure_modes(real, torch.tensor([9, 9]))["mode_kl"])


def test_classes_come_from_labels_or_from_logits() -> None:
    metric, by_logits = mode_coverage.Metric(), mode_coverage.Metric(classes="logits")
    assert metric.describe() != by_logits.describe()
    real, fake = clusters(300, 5, spread=0.01), clusters(200, 5, seed=1, spread=0.01)
    without_two = fake.select(fake.labels >= 20)
    assert metric.measure(real, without_two)["mode_coverage"] == pytest.approx(3 / 5)

    def one_hot(labels: Tensor) -> FeatureSet:
        return FeatureSet(torch.zeros(len(labels), 2), torch.eye(50)[labels], torch.zeros_like(labels))

    values = by_logits.measure(one_hot(real.labels), one_hot(torch.tensor([0, 10, 20, 49])))
    assert metric.measure(FeatureSet(real.features), fake) == {}
    assert (values["mode_coverage"], values["mode_outside"]) == (pytest.approx(3 / 5), pytest.approx(1 / 4))


@pytest.mark.parametrize(
    "build",
    [
        lambda features: mode_coverage.Metric(features=features, classes="logits"),
        lambda features: inception_score.Metric(features=features),
    ],
)
def test_features_without_classes_are_refused(build: Callable[[str], FeatureMetric]) -> None:
    with pytest.raises(UserError, match="needs class logits") as error:
        build("dinov2")
    assert error.value.code == "no-logits"


def test_logits_that_are_not_numbers_give_none() -> None:
    features = FeatureSet(torch.zeros(20, 2), torch.full((20, 3), math.nan))
    assert math.isnan(inception_score.Metric().measure(features, features)["is"])


def test_a_class_that_one_of_the_sets_lacks_is_known() -> None:
    real, fake = clusters(100, 4), clusters(80, 4, seed=1)
    metric = kd.Metric(per_class=True)
    assert metric.list_classes(real, fake) == {0: True, 10: True, 20: True, 30: True}
    some = fake.select(fake.labels != 20)
    assert metric.list_classes(real, some) == {0: True, 10: True, 20: False, 30: True}
    (warning,) = list_warnings([metric], real, some)
    assert "3 of the 4 classes" in warning
    assert list_warnings([metric, kd.Metric()], real, fake) == []
