"""The segmentation score, with a segmenter of the user's, and with the one that it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.segmentation import Metric, measure_confusion
from imagier.metrics.small_unet import SmallUNet

CPU = torch.device("cpu")
COLORS = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0], [0.9, 0.9, 0.9]])
CODE = """
import torch

def by_color(images):
    colors = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0], [0.9, 0.9, 0.9]])
    return -(images[:, None] - colors[None, :, :, None, None]).square().sum(dim=2)

few = lambda images: by_color(images)[:, :3]
small = lambda images: by_color(images)[..., ::2]
nan = lambda images: by_color(images) / 0
"""
Batch = tuple[Tensor, Mapping[str, Tensor]]


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "segmentation_lab.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def make_ids(seed: int, count: int = 6, size: tuple[int, int] = (16, 20)) -> Tensor:
    cells = torch.randint(4, (count, 1, 4, 5), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(cells.float(), size, mode="nearest")[:, 0].long()


def paint(ids: Tensor) -> Tensor:
    return COLORS[ids].permute(0, 3, 1, 2)


def known(ids: Tensor) -> dict[str, Tensor]:
    return {"classes": F.one_hot(ids, 4).permute(0, 3, 1, 2).float()}


def load(**options: object) -> Metric:
    metric = Metric(segmenter="segmentation_lab:by_color", **options)
    metric.load(CPU)
    return metric


def score(metric: Metric, images: Tensor, classes: Mapping[str, Tensor], *parts: slice) -> dict[str, float]:
    tested = metric.fresh(CPU)
    for rows in parts or (slice(None),):
        tested.update(images[rows], {"classes": classes["classes"][rows]})
    return tested.compute_all()


def test_the_score_is_that_of_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.segmentation")
    truth, seen = make_ids(1), make_ids(2)
    values = score(load(), paint(seen), known(truth))
    per_class = functional.mean_iou(
        seen.flatten()[None], truth.flatten()[None], 4, per_class=True, input_format="index"
    )
    assert values["mIoU"] == pytest.approx(per_class.mean().item(), rel=1e-6)
    assert values["pixel accuracy"] == pytest.approx((truth == seen).float().mean().item(), rel=1e-6)
    assert load().scores == {"mIoU": True, "pixel accuracy": True}


def test_batches_and_ranks_do_not_change_the_score() -> None:
    metric, images, classes = load(), paint(make_ids(2)), known(make_ids(1))
    whole = score(metric, images, classes)
    assert score(metric, images, classes, slice(0, 1), slice(1, 6)) == whole
    for world in (2, 4):
        ranks = [metric.fresh(CPU) for _ in range(world)]
        for rank, rows in zip(ranks, torch.arange(6).tensor_split(world - 1)):  # the last has no share
            rank.update(images[rows], {"classes": classes["classes"][rows]})
        states = torch.stack([rank.state["confusion"] for rank in ranks[:-1]])
        replies = iter([torch.tensor([4] * (world - 1) + [0]), states])
        ranks[0].merge(lambda own, replies=replies: next(replies))
        assert ranks[0].compute_all() == whole
        assert ranks[0].compute() == whole["mIoU"]
    assert all(map(math.isnan, metric.fresh(CPU).compute_all().values()))


def test_classes_that_occur_nowhere_do_not_count() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert measure_confusion(confusion) == pytest.approx(((3 / 4 + 4 / 5) / 2, 7 / 8))
    only_seen = torch.tensor([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert measure_confusion(only_seen) == pytest.approx(((3 / 4 + 1 + 0) / 3, 7 / 8))


def test_pixels_without_a_class_and_ignored_ones_do_not_count() -> None:
    truth, seen = make_ids(1), make_ids(2)
    classes = known(truth)
    classes["classes"][:, :, :4] = 0
    kept = np.ones(truth.shape, bool)
    kept[:, :4] = False
    accuracy = (truth == seen).numpy()[kept].mean()
    assert score(load(), paint(seen), classes)["pixel accuracy"] == pytest.approx(accuracy)
    kept &= truth.numpy() != 2
    accuracy = (truth == seen).numpy()[kept].mean()
    assert score(load(ignore_index=2), paint(seen), classes)["pixel accuracy"] == pytest.approx(accuracy)


def test_the_trained_segmenter_sees_its_classes_and_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "manual_seed", None)  # it would change the random sources of all devices
    real = [(paint(make_ids(seed)), known(make_ids(seed))) for seed in range(4)]
    images, classes = paint(make_ids(9)), known(make_ids(9))
    values, weights = [], []
    for _ in range(2):
        torch.rand(3)  # the global random source is elsewhere, and stays there
        before = torch.get_rng_state()
        metric = Metric(steps=25)
        metric.fit(real)
        assert torch.equal(before, torch.get_rng_state())
        values.append(score(metric, images, classes))
        weights.append(torch.cat([p.flatten() for p in metric.learned_state().values()]))
    assert values[0]["mIoU"] > 0.8
    assert torch.equal(*weights)
    other = Metric()
    other.load_learned(metric.learned_state(), CPU)
    assert score(other, images, classes) == values[1]
    assert score(metric, images.flip(0), classes)["mIoU"] < 0.5
    assert score(metric, images, classes, slice(0, 1), slice(1, 6)) == values[1]


def test_training_goes_on_when_scores_are_made_without_gradients() -> None:
    with torch.no_grad():
        metric = Metric(steps=2)
        metric.fit([(paint(make_ids(0)), known(make_ids(0)))])
    with pytest.raises(UserError) as error:
        Metric(steps=1).fresh(CPU).update(paint(make_ids(0)), known(make_ids(0)))
    assert error.value.code == "no-class-maps"


def test_the_description_tells_two_segmenters_apart() -> None:
    of_users = load(ignore_index=2).describe()
    assert (of_users["segmenter"], of_users["ignore_index"]) == ("segmentation_lab:by_color", 2)
    assert len(of_users["source_sha256"]) == 64
    assert Metric().describe() != Metric(steps=7).describe()
    assert of_users.keys().isdisjoint({"steps", "learning_rate", "seed"})


@pytest.mark.parametrize("size", [(4, 4), (7, 13), (16, 20)])
def test_the_small_network_keeps_any_size(size: tuple[int, int]) -> None:
    assert SmallUNet(5)(torch.rand(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize(
    ("name", "code"),
    [("few", "wrong-output"), ("small", "wrong-output"), ("nan", "non-finite-output"), ("nets", "unknown-attribute")],
)
def test_a_segmenter_that_is_none_is_one_line(name: str, code: str) -> None:
    ids = make_ids(0)
    with pytest.raises(UserError) as error:
        metric = Metric(segmenter=f"segmentation_lab:{name}")
        metric.load(CPU)
        metric.fresh(CPU).update(paint(ids), known(ids))
    assert error.value.code == code
