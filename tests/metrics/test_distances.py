"""Distances between sets of features, against closed forms and other programs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from imagier.metrics.cmmd import gaussian_discrepancy
from imagier.metrics.fd import frechet_distance
from imagier.metrics.inception_score import inception_score
from imagier.metrics.kd import kernel_distance, kernel_distance_of_subsets
from imagier.metrics.mind import sliced_wasserstein
from imagier.metrics.prdc import measure_prdc


def normal(count: int, dim: int, seed: int = 0, mean: float = 0.0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def with_moments(mean: list[float], covariance: list[list[float]], count: int, seed: int) -> Tensor:
    """Rows that have exactly this mean and unbiased covariance."""
    rows = normal(count, len(mean), seed)
    rows = rows - rows.mean(dim=0)
    whitened = rows @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.T))).T
    return whitened @ torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64)).T + torch.tensor(mean)


def frechet_by_square_root(real: Tensor, fake: Tensor) -> float:
    means, covariances = zip(*((rows.mean(dim=0).numpy(), np.cov(rows.numpy().T)) for rows in (real, fake)))
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    return float(np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root.real))


def test_fd_of_two_known_gaussians() -> None:
    real = with_moments([0, 0], [[2, 1], [1, 2]], 40, seed=1)
    fake = with_moments([1, 3], [[1, 0], [0, 4]], 50, seed=2)
    assert frechet_distance(real, fake) == pytest.approx(10.771220447654342, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(60, 90), (90, 60), (500, 40)])
def test_fd_equals_the_one_by_a_matrix_square_root(n: int, m: int) -> None:
    mixing = normal(24, 24, 3)
    real, fake = normal(n, 24) @ mixing, normal(m, 24, 1, mean=0.3)
    assert frechet_distance(real, fake) == pytest.approx(frechet_by_square_root(real, fake), rel=1e-8)


def test_fd_with_fewer_images_than_features_equals_the_regularized_limit() -> None:
    """Covariances that are not of full rank: the matrix square root needs a small ridge, whose effect goes to 0."""
    real, fake = normal(10, 32), normal(14, 32, 1)
    covariances = [np.cov(rows.numpy().T) + 1e-12 * np.eye(32) for rows in (real, fake)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    mean = (real.mean(dim=0) - fake.mean(dim=0)).square().sum().item()
    expected = mean + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-5)


def test_fd_of_two_samples_of_one_distribution_is_the_bias_that_theory_gives() -> None:
    dim, count = 8, 2000
    distances = [frechet_distance(normal(count, dim, 2 * i), normal(count, dim, 2 * i + 1)) for i in range(40)]
    assert np.mean(distances) == pytest.approx(dim * (dim + 5) / (2 * count), rel=0.05)


def test_fd_of_a_set_with_itself_is_zero() -> None:
    assert frechet_distance(normal(30, 20), normal(30, 20)) == pytest.approx(0, abs=1e-10)


def test_kd_equals_the_definition() -> None:
    real, fake = normal(7, 5), normal(9, 5, 1, mean=0.5)
    kernel = lambda x, y: (np.dot(x, y) / 5 + 1) ** 3  # noqa: E731
    within = [
        np.mean([kernel(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j])
        for rows in (real.numpy(), fake.numpy())
    ]
    between = np.mean([kernel(x, y) for x in real.numpy() for y in fake.numpy()])
    assert kernel_distance(real, fake) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_kd_is_an_unbiased_estimate_of_the_population_value() -> None:
    values = [kernel_distance(normal(400, 16, 2 * i), normal(400, 16, 2 * i + 1, mean=0.5)) for i in range(60)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - 1.029296875) < 3 * error < 0.03


def test_the_standard_error_of_kd_is_that_of_its_subsets() -> None:
    real, fake = normal(300, 8), normal(200, 8, 1, mean=0.2)
    whole = kernel_distance_of_subsets(real, fake, num_subsets=200, subset_size=50, seed=0)
    parts = [
        kernel_distance_of_subsets(real, fake, num_subsets=200, subset_size=50, seed=seed).value
        for seed in range(1, 13)
    ]
    assert np.std(parts, ddof=1) == pytest.approx(whole.standard_error, rel=0.6)
    assert whole.value == pytest.approx(kernel_distance(real, fake), abs=5 * whole.standard_error)


def test_cmmd_of_one_point_each_is_the_kernel_at_their_distance() -> None:
    x, y = torch.zeros(1, 3), torch.tensor([[6.0, 8.0, 0.0]])
    assert gaussian_discrepancy(x, y) == pytest.approx(1000 * (2 - 2 * math.exp(-0.5)), rel=1e-12)
    assert gaussian_discrepancy(normal(20, 4), normal(20, 4)) == pytest.approx(0, abs=1e-9)


def test_mind_of_a_shifted_set_tends_to_three_squared_shifts() -> None:
    real = normal(50, 6)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 1.0], dtype=torch.float64)
    value = sliced_wasserstein(real, real + shift, num_projections=40_000, seed=0)
    assert value == pytest.approx(3 * shift.square().sum().item(), rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(12, 12), (12, 18), (7, 30)])
def test_mind_in_one_dimension_is_the_wasserstein_distance(n: int, m: int) -> None:
    """The sets are repeated until both have n m numbers; then the optimal plan matches them in order."""
    x, y = normal(n, 1), normal(m, 1, 1, mean=0.4)
    plan = np.sort(np.repeat(x.numpy(), m)) - np.sort(np.repeat(y.numpy(), n))
    assert sliced_wasserstein(x, y, num_projections=3, seed=0) == pytest.approx(3 * np.mean(plan**2), rel=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_prdc_equals_the_published_program(k: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, fake = normal(80, 6), normal(60, 6, 1, mean=0.4)
    expected = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    assert measure_prdc(real, fake, k=k) == pytest.approx(expected, abs=1e-12)


EXACT_PAIRS = pytest.mark.parametrize("exact_pairs", [0, 1 << 26])
"""Products in float32, and in float64."""


@EXACT_PAIRS
def test_prdc_of_identical_and_of_distant_sets(monkeypatch: pytest.MonkeyPatch, exact_pairs: int) -> None:
    monkeypatch.setattr("imagier.metrics.blocks._MOST_EXACT_PAIRS", exact_pairs)
    for dim in (6, 300):
        real = normal(200, dim)
        assert set(measure_prdc(real, real.clone(), k=5).values()) == {1}
    assert set(measure_prdc(real, real + 1000, k=3).values()) == {0}


def test_large_sets_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(50, 6), normal(33, 6, 1, mean=0.3)
    functions = [kernel_distance, gaussian_discrepancy, lambda x, y: list(measure_prdc(x, y, k=3).values())]
    whole = [function(real, fake) for function in functions]
    monkeypatch.setattr("imagier.metrics.blocks._TILE", 7)
    for function, expected in zip(functions, whole):
        assert function(real, fake) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tile", [7, 64])
def test_products_of_large_sets_in_float32_change_nothing_that_can_be_seen(
    monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    real, fake = (each.float() for each in (normal(150, 40, mean=3), normal(133, 40, 1, mean=3.3)))
    functions = [kernel_distance, gaussian_discrepancy]
    exact = [function(real, fake) for function in functions]
    monkeypatch.setattr("imagier.metrics.blocks._TILE", tile)
    monkeypatch.setattr("imagier.metrics.blocks._MOST_EXACT_PAIRS", 0)
    rounded = [function(real, fake) for function in functions]
    assert rounded == pytest.approx(exact, rel=1e-6)
    assert rounded != exact, "it was in float64"


def count_prdc(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    """By its definition, with distances that are exact for multiples of one number."""
    within = [(rows[:, None] - rows).square().sum(dim=2) for rows in (real, fake)]
    real_radii, fake_radii = (squares.sort(dim=1).values[:, k] for squares in within)
    between = (real[:, None] - fake).square().sum(dim=2)
    inside = between < real_radii[:, None]
    return {
        "precision": inside.any(dim=0).double().mean().item(),
        "recall": (between < fake_radii).any(dim=1).double().mean().item(),
        "density": inside.sum(dim=0).double().mean().item() / k,
        "coverage": inside.any(dim=1).double().mean().item(),
    }


@EXACT_PAIRS
@pytest.mark.parametrize("tile", [7, 64])
def test_rounding_decides_nothing_where_many_distances_are_equal(
    monkeypatch: pytest.MonkeyPatch, tile: int, exact_pairs: int
) -> None:
    """Multiples of one number, with images that are in both sets, some of them more than once."""
    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 3, (count, 4), generator=rng) * 0.1 for count in (90, 81))
    real[:20], fake[:10] = real[20], real[20]
    fake[10:30] = real[30:50]
    monkeypatch.setattr("imagier.metrics.blocks._TILE", tile)
    monkeypatch.setattr("imagier.metrics.blocks._MOST_EXACT_PAIRS", exact_pairs)
    expected = count_prdc(real.double(), fake.double(), 3)
    assert measure_prdc(real, fake, k=3) == expected
    assert 0 < expected["precision"] < 1 or 0 < expected["recall"] < 1


def test_inception_score() -> None:
    assert inception_score(torch.zeros(10, 7)) == pytest.approx(1)
    sharp = torch.eye(4).repeat(5, 1) * 1e4
    assert inception_score(sharp) == pytest.approx(4)
    logits = normal(50, 6)
    p = logits.softmax(dim=1).numpy()[torch.randperm(50, generator=torch.Generator().manual_seed(3)).numpy()]
    expected = [
        np.exp(np.mean([scipy.stats.entropy(row, part.mean(axis=0)) for row in part])) for part in np.array_split(p, 5)
    ]
    assert inception_score(logits, num_splits=5, seed=3) == pytest.approx(np.mean(expected), rel=1e-10)
    logits[7, 2] = -math.inf
    assert inception_score(logits) > 1
    logits[7, 2] = math.nan
    assert math.isnan(inception_score(logits))


def test_the_inception_score_does_not_need_images_in_a_random_order() -> None:
    by_class = torch.eye(4).repeat_interleave(100, 0) * 1e4
    assert inception_score(by_class, num_splits=4) > 3.8


def test_fd_of_features_whose_squares_overflow_is_no_number() -> None:
    assert math.isnan(frechet_distance(normal(9, 4) * 1e160, normal(9, 4, 1) * 1e160))
    assert math.isnan(frechet_distance(normal(9, 4) * math.inf, normal(9, 4, 1)))
