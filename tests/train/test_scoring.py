"""What is seen of images: the same on any number of ranks, for any batch size, each image once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from imagier.metrics import kd, l1
from imagier.recipe import Batch, Domain, Recipe
from imagier.train.image_rows import ImageRows, merge_sets, name_samples
from imagier.train.runtime import Runtime
from imagier.train.scoring import GENERATOR, Scorer

CPU = Runtime(torch.device("cpu"))
COUNT, REAL = 9, 6


class Noisy(Recipe):
    """Adds noise to an image of one list; real ones are those of a shorter list, which begins again at its end."""

    players = ("gen",)
    domains: ClassVar[dict[str, Domain]] = {"b": Domain("images_b", "images_a"), "a": Domain("images_a", "images_b")}

    def __init__(self, scale: float = 0.3) -> None:
        self.gen = nn.Identity()
        self.scale = scale

    def step(self, batch: Batch, ctx: object) -> Iterator[Any]:
        raise NotImplementedError

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        images = batch["images_a"]
        return images + self.scale * torch.randn(images.shape, generator=rng) if self.scale else images

    def translate(self, batch: Batch, rng: torch.Generator, sample: Tensor) -> dict[str, Tensor]:
        images = batch["images_b"]
        return {"b": sample, "a": images + self.scale * torch.randn(images.shape, generator=rng)}

    def real_images(self, batch: Batch) -> dict[str, Tensor]:
        return {"b": batch["images_b"], "a": batch["images_a"]}


class Copying(Noisy):
    """Has targets, too."""

    domains: ClassVar[dict[str, Domain]] = {"": Domain()}

    def translate(self, batch: Batch, rng: torch.Generator, sample: Tensor) -> dict[str, Tensor]:
        return {"": sample}

    def real_images(self, batch: Batch) -> dict[str, Tensor]:
        return {"": batch["images_b"]}

    def target(self, batch: Batch) -> Tensor:
        return batch["images_b"]


def batches(size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """A rank's share of the samples, which take turns."""
    places = list(range(rank, COUNT, world))
    for start in range(0, len(places), size):
        own = places[start : start + size]
        images = {"images_a": [image(place) for place in own], "images_b": [image(100 + p % REAL) for p in own]}
        keys = {"images_a": [f"./{place}" for place in own], "images_b": [f"./{place % REAL}" for place in own]}
        yield Batch({name: torch.stack(each) for name, each in images.items()}, keys)


def image(seed: int) -> Tensor:
    return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6


class Ranks:
    """Stands for the runtime of the first of several ranks, of which the others have seen something already."""

    def __init__(self, others: Sequence[Any]) -> None:
        self.others = others

    def all_gather_objects(self, value: Any) -> list[Any]:
        return [value, *self.others]


def rows_of(rank: int, world: int, size: int) -> dict[tuple[str, str], ImageRows]:
    rows = ImageRows()
    for batch in batches(size, rank, world):
        images = batch["images_b"].flatten(1)
        rows.add(name_samples(batch, "images_b"), images, None, images[:, 0].long(), images[:, :2])
    return {("f", "b"): rows} if rows.names else {}


@pytest.mark.parametrize("world", [1, 2, 4, 12])
@pytest.mark.parametrize("size", [1, 4])
def test_sets_of_ranks_are_merged_into_that_of_one_each_image_once(world: int, size: int) -> None:
    """12 ranks: some have no share."""
    shares = [rows_of(rank, world, size) for rank in range(world)]
    others = [{key: rows.join() for key, rows in share.items()} for share in shares[1:]]
    ((merged, digests),) = merge_sets(shares[0], cast(Runtime, Ranks(others))).values()
    ((alone, own),) = merge_sets(rows_of(0, 1, COUNT), CPU).values()
    assert (len(merged), merged.logits) == (REAL, None)
    assert torch.equal(merged.features, alone.features)
    assert torch.equal(cast(Tensor, merged.labels), cast(Tensor, alone.labels))
    assert torch.equal(cast(Tensor, digests), cast(Tensor, own))
    assert {tuple(row[:2].tolist()) for row in merged.features} == {
        tuple(image(100 + place).flatten()[:2].tolist()) for place in range(REAL)
    }


def test_of_samples_that_share_an_image_the_same_one_counts_whichever_rank_has_it() -> None:
    """What is made of an image may depend on the other images of its sample."""
    names = [(7, 1), (7, 2)]
    found = []
    for first, second in ([0, 1], [1, 0]):
        one, other = ImageRows(), ImageRows()
        one.add([names[first]], torch.tensor([[float(first)]]), None, None)
        other.add([names[second]], torch.tensor([[float(second)]]), None, None)
        ((merged, _),) = merge_sets({("f", ""): one}, cast(Runtime, Ranks([{("f", ""): other.join()}]))).values()
        found.append(merged.features.tolist())
    assert found == [[[0.0]], [[0.0]]]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_noise_depends_on_the_sample_and_on_nothing_else(size: int) -> None:
    def measure(size: int, seed: int = 0) -> dict[str, Any]:
        scorer = Scorer([kd.Metric(features="feature_code:colors")], CPU, domains=Noisy.domains)
        recipe = Noisy()
        measured = scorer.measure(recipe, batches(size), scorer.generate({GENERATOR: recipe}, seed))
        assert {key[1]: len(of) for key, of in measured[GENERATOR].sets.items()} == {"b": COUNT, "a": REAL}
        return scorer.score(measured)[GENERATOR]

    expected = measure(COUNT)
    assert set(expected) == {"KD-colors_b", "KD-colors_a"}
    assert measure(size) == pytest.approx(expected, rel=1e-6)
    assert measure(size, seed=1) != pytest.approx(expected, rel=1e-6)


def test_images_without_noise_are_made_in_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sample = Copying.sample

    def note(recipe: Copying, batch: Batch, rng: torch.Generator) -> Tensor:
        sizes.append(len(batch))
        return sample(recipe, batch, rng)

    monkeypatch.setattr(Copying, "sample", note)
    for scale, expected in [(0.0, [4, 4, 1]), (0.3, [4, *[1] * COUNT])]:
        sizes.clear()
        scorer, recipe = Scorer([l1.Metric()], CPU), Copying(scale)
        scorer.measure(recipe, batches(4), scorer.generate({GENERATOR: recipe}, 0))
        assert sizes == expected


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_an_image_that_is_not_finite_leaves_no_number(number: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over the others would flatter a generator that diverges, and an infinite pixel looks white."""
    metrics = [l1.Metric(), kd.Metric(features="feature_code:colors")]
    scorer, recipe = Scorer(metrics, CPU), Copying(0.0)

    def sample(recipe: Recipe, batch: Batch, rng: torch.Generator) -> Tensor:
        images = batch["images_a"].clone()
        images[[name == "./5" for name in batch.keys["images_a"]], 0, 0, 0] = number
        return images

    make = scorer.generate({GENERATOR: recipe}, 0)
    good = scorer.score(scorer.measure(recipe, batches(4), make))[GENERATOR]
    assert all(math.isfinite(value) for value in good.values())
    monkeypatch.setattr(Copying, "sample", sample)
    measured = scorer.measure(recipe, batches(4), make)
    assert measured[GENERATOR].num_broken == 1
    assert all(math.isnan(value) for value in scorer.score(measured)[GENERATOR].values())
    assert scorer.score(measured)[GENERATOR].keys() == good.keys()


def test_scores_and_floor_are_those_of_the_sets_by_the_metric_itself() -> None:
    metric = kd.Metric(features="feature_code:colors")
    scorer, recipe = Scorer([metric], CPU), Copying(0.0)
    measured = scorer.measure(recipe, batches(4), scorer.generate({GENERATOR: recipe}, 0))
    samples = next(iter(batches(COUNT)))

    def look(images: Tensor) -> Tensor:
        pixels = ((images + 1) / 2 * 255).round() / 255
        return torch.cat([pixels.mean(dim=(2, 3)), pixels.std(dim=(2, 3))], dim=1)

    def distance(real: Tensor, fake: Tensor) -> float:
        """The unbiased estimate, as a sum over pairs (Binkowski et al. 2018)."""

        def kernel(x: Tensor, y: Tensor) -> float:
            return float((x.double() @ y.double()) / len(x) + 1) ** 3

        n, m = len(real), len(fake)
        within = [
            sum(kernel(a, b) for i, a in enumerate(of) for j, b in enumerate(of) if i != j) / (len(of) * (len(of) - 1))
            for of in (real, fake)
        ]
        return sum(within) - 2 * sum(kernel(a, b) for a in real for b in fake) / (n * m)

    # Without a name of their own, real images belong to whole samples: none is left out.
    expected = distance(look(samples["images_b"]), look(samples["images_a"]))
    assert scorer.score(measured)[GENERATOR] == {"KD-colors": pytest.approx(expected, rel=1e-4)}
    sets = measured[GENERATOR].sets
    floor, at_floor = scorer.measure_floor(sets, 0), scorer.measure_at_floor_sizes(sets, 0)
    assert floor["KD-colors"] != at_floor["KD-colors"]


class Product(Copying):
    """Makes images by a product of matrices."""

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        images = batch["images_a"]
        return images @ torch.eye(images.shape[-1])


def test_images_have_the_precision_of_the_method_and_metrics_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a training, all of it happens in a context of the method's precision."""
    seen: set[torch.dtype] = set()
    sample = Product.sample

    def note(recipe: Product, batch: Batch, rng: torch.Generator) -> Tensor:
        images = sample(recipe, batch, rng)
        seen.add(images.dtype)
        return images.bfloat16()

    monkeypatch.setattr(Product, "sample", note)
    found = []
    for precision in ("fp32", "bf16"):
        seen.clear()
        runtime = dataclasses.replace(CPU, precision=precision)
        scorer, recipe = Scorer([kd.Metric(features="feature_code:projected")], runtime), Product()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            measured = scorer.measure(recipe, batches(4), scorer.generate({GENERATOR: recipe}, 0))
        assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}
        found.append(scorer.score(measured))
    assert found[0] == found[1]
