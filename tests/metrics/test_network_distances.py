"""Distances in the features of networks, with random weights, against the formulas of their papers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics import content_distance, dists, lpips
from imagier.metrics.metric import MeanOverImages

CPU = torch.device("cpu")
ALEX = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
"""Of AlexNet's convolutions: number, channels before and after, kernel, stride, padding."""
VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
WIDTHS = (64, 128, 256, 512, 512)


def photos(seed: int, side: int = 48, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side + 5, generator=torch.Generator().manual_seed(seed))


def draw(rng: torch.Generator, out: int, into: int, kernel: int) -> Tensor:
    return torch.randn(out, into, kernel, kernel, generator=rng) * (2 / (into * kernel**2)) ** 0.5


@pytest.fixture(scope="module")
def alexnet() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    state = {}
    for number, into, out, kernel, *_ in ALEX:
        state[f"features.{number}.weight"] = draw(rng, out, into, kernel)
        state[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=rng)
    return state


@pytest.fixture(scope="module")
def vgg16() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(2)
    state, into = {}, 3
    for numbers, out in zip(VGG, WIDTHS):
        for number in numbers:
            state[f"features.{number}.weight"] = draw(rng, out, into, 3)
            state[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=rng)
            into = out
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, alexnet: dict[str, Tensor], vgg16: dict[str, Tensor]) -> Path:
    """torch's cache with all files, under the names that are looked for."""
    home = tmp_path_factory.mktemp("torch")
    files = home / "hub" / "checkpoints"
    files.mkdir(parents=True)
    rng = torch.Generator().manual_seed(3)
    torch.save(alexnet, files / "alexnet-owt-7be5be79.pth")
    torch.save(vgg16, files / "vgg16-397923af.pth")
    for net, channels in (("alex", (64, 192, 384, 256, 256)), ("vgg", WIDTHS)):
        heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=rng) for i, c in enumerate(channels)}
        torch.save(heads, files / f"lpips_{net}.pth")
    factors = {name: torch.rand(1, 1475, 1, 1, generator=rng) for name in ("alpha", "beta")}
    torch.save(factors, files / "dists_weights.pt")
    return home


@pytest.fixture(autouse=True)
def torch_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder))


def read(folder: Path, name: str) -> dict[str, Tensor]:
    return torch.load(folder / "hub" / "checkpoints" / name, weights_only=True)


def scale(images: Tensor) -> Tensor:
    """LPIPS's scaling layer for images in [-1, 1]."""
    shift, factor = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    return (images * 2 - 1 - shift.view(3, 1, 1)) / factor.view(3, 1, 1)


def alex_features(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    found = []
    for number, _, _, _, stride, padding in ALEX:
        if number in (3, 6):
            x = F.max_pool2d(x, 3, 2)
        x = F.conv2d(
            x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], stride, padding
        ).clamp(min=0)
        found.append(x)
    return found


def vgg_features(weights: dict[str, Tensor], x: Tensor, pool: object = None) -> list[Tensor]:
    found: list[Tensor] = []
    for numbers in VGG:
        if found:
            x = pool(x) if callable(pool) else F.max_pool2d(x, 2)
        for number in numbers:
            x = F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], 1, 1).clamp(min=0)
        found.append(x)
    return found


def load(metric: MeanOverImages) -> MeanOverImages:
    metric.load(CPU)
    return metric


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_weighted_distance_of_features_of_unit_length(
    net: str, folder: Path, alexnet: dict[str, Tensor], vgg16: dict[str, Tensor]
) -> None:
    """Zhang et al. 2018, eq. 1, one place of an image after the other."""
    x, y = photos(0), photos(1)
    taken = [
        alex_features(alexnet, scale(each)) if net == "alex" else vgg_features(vgg16, scale(each)) for each in (x, y)
    ]
    heads = list(read(folder, f"lpips_{net}.pth").values())
    expected = torch.zeros(2)
    for a, b, head in zip(*taken, heads):
        a, b = (F.normalize(each, dim=1) for each in (a, b))
        expected += torch.einsum("nchw,c->n", (a - b) ** 2, head.flatten()) / (a.shape[2] * a.shape[3])
    found = load(lpips.Metric(net=net)).measure(x, {"targets": y})  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def pool_l2(x: Tensor) -> Tensor:
    """By the definition, with numpy's Hanning window of 5 numbers, whose ends are 0."""
    padded = F.pad(x.double() ** 2, (1, 1, 1, 1))
    inner = torch.hann_window(5, periodic=False, dtype=torch.float64)[1:-1]
    total = sum(
        inner[i] * inner[j] * padded[:, :, i : i + x.shape[2] : 2, j : j + x.shape[3] : 2]
        for i in range(3)
        for j in range(3)
    )
    return (total / inner.sum() ** 2 + 1e-12).sqrt().float()  # type: ignore[union-attr]


def test_dists_is_one_minus_the_weighted_similarities(folder: Path, vgg16: dict[str, Tensor]) -> None:
    """Ding et al. 2020, eq. 5 to 7, in float64."""
    x, y = photos(0), photos(1)
    y[0] = 0.5 * x[0] + 0.2
    taken = [[each, *vgg_features(vgg16, scale(each), pool_l2)] for each in (x, y)]
    factors = read(folder, "dists_weights.pt")
    total = sum(each.sum() for each in factors.values())
    start, expected = 0, torch.ones(2, dtype=torch.float64)
    for a, b in zip(*taken):
        for channel in range(a.shape[1]):
            p, q = a[:, channel].flatten(1).double(), b[:, channel].flatten(1).double()
            luminance = (2 * p.mean(1) * q.mean(1) + 1e-6) / (p.mean(1) ** 2 + q.mean(1) ** 2 + 1e-6)
            covariance = (p * q).mean(1) - p.mean(1) * q.mean(1)
            structure = (2 * covariance + 1e-6) / (p.var(1, correction=0) + q.var(1, correction=0) + 1e-6)
            alpha, beta = (factors[name][0, start + channel, 0, 0] / total for name in ("alpha", "beta"))
            expected -= alpha * luminance + beta * structure
        start += a.shape[1]
    assert start == 1475
    found = load(dists.Metric()).measure(x, {"targets": y})
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_content_distance_is_that_of_normalized_features(vgg16: dict[str, Tensor]) -> None:
    x, y = photos(0), photos(1)
    a, b = (vgg_features(vgg16, scale(each))[-1].double() for each in (x, y))
    normal = [
        (each - each.mean((2, 3), keepdim=True)) / (each.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        for each in (a, b)
    ]
    found = load(content_distance.Metric()).measure(x, {"start": y})
    torch.testing.assert_close(found.double(), ((normal[0] - normal[1]) ** 2).mean((1, 2, 3)), rtol=1e-4, atol=1e-5)


ALL = [lpips.Metric(), lpips.Metric(net="vgg"), dists.Metric(), content_distance.Metric()]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_distance_is_0_for_equal_images_and_the_same_in_both_directions(metric: MeanOverImages) -> None:
    load(metric)
    x, y = photos(0), photos(1)
    (need,) = metric.needs
    assert metric.measure(x, {need: x}).tolist() == pytest.approx([0, 0], abs=1e-6)
    there, back = metric.measure(x, {need: y}), metric.measure(y, {need: x})
    torch.testing.assert_close(there, back)
    assert there.min() > 1e-3
    nearer = 0.9 * x + 0.1 * y
    assert (metric.measure(nearer, {need: x}) < there).all()


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_batches_do_not_change_the_number(metric: MeanOverImages) -> None:
    load(metric)
    x, y = photos(0, count=3), photos(1, count=3)
    (need,) = metric.needs
    whole, parts = metric.fresh(CPU), metric.fresh(CPU)
    whole.update(x, {need: y})
    for rows in (slice(0, 1), slice(1, 3)):
        parts.update(x[rows], {need: y[rows]})
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "side"), [(lpips.Metric(), 31), (lpips.Metric(net="vgg"), 16), (content_distance.Metric(), 32)]
)
def test_images_that_are_too_small_are_refused(metric: MeanOverImages, side: int) -> None:
    load(metric)
    (need,) = metric.needs
    images = torch.rand(1, 3, side, 64)
    assert metric.measure(images, {need: images.flip(2)}).isfinite().all()
    with pytest.raises(UserError) as refused:
        metric.measure(images[:, :, 1:], {need: images[:, :, 1:]})
    assert refused.value.code == "too-small-images"


def test_an_image_of_one_color_has_a_distance() -> None:
    gray = torch.full((1, 3, 48, 48), 0.5)
    for metric in ALL:
        (need,) = metric.needs
        assert load(metric).measure(gray, {need: photos(0, 48)[:1, :, :, :48]}).isfinite().all()
        assert metric.measure(gray, {need: gray}).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "file", "key"),
    [
        (lpips.Metric(), "lpips_alex.pth", "heads_path"),
        (lpips.Metric(net="vgg"), "lpips_vgg.pth", "heads_path"),
        (dists.Metric(), "dists_weights.pt", "factors_path"),
    ],
)
def test_a_missing_file_is_named_with_its_source_place_and_key(
    metric: MeanOverImages, file: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError) as missing:
        metric.load(CPU)
    assert missing.value.code == "no-weight-file"
    message = str(missing.value)
    assert len(message.splitlines()) == 1
    assert all(part in message for part in (file, key, str(tmp_path), "github.com"))


def test_files_may_lie_anywhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = folder / "hub" / "checkpoints"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    load(lpips.Metric(weights_path=str(files / "alexnet-owt-7be5be79.pth"), heads_path=str(files / "lpips_alex.pth")))
    load(dists.Metric(weights_path=str(files / "vgg16-397923af.pth"), factors_path=str(files / "dists_weights.pt")))
    with pytest.raises(UserError) as wrong:
        lpips.Metric(heads_path=str(files / "lpips_vgg.pth")).load(CPU)
    assert (wrong.value.code, wrong.value.where) == ("tensor-shape", str(files / "lpips_vgg.pth"))
    with pytest.raises(UserError) as gone:
        dists.Metric(factors_path="gone.pt").load(CPU)
    assert (gone.value.code, gone.value.where) == ("no-weight-file", "factors_path")
