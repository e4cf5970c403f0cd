"""What metrics may know about the images of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from imagier.metrics.metric import AnyMetric
from imagier.recipe import Batch, Recipe
from imagier.train.image_rows import Name, name_samples

OF_CLIPS = ("flow", "flow_confidence", "unprojections")
"""What batches of clips may hold of motion and of points of the world, for metrics of clips."""


def can_score(metric: AnyMetric, recipe: Recipe, batch: Batch) -> bool:
    """Whether a metric knows enough about a batch that the recipe has prepared."""
    known = set(collect_known(recipe, batch))
    known |= {"real"} if recipe.real_images(batch) else set()
    known |= {"labels"} if recipe.image_classes(batch) is not None else set()
    return known >= set(metric.needs) and (recipe.is_video or not metric.takes_clips)


def collect_known(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """What metrics may know about the images of a batch: see `Metric.needs`."""
    target, classes = recipe.target(batch), recipe.class_map(batch)
    start = next(iter(recipe.baselines(batch).values()), target)
    known = {"targets": target, "start": start}
    images = {name: to_unit(each) for name, each in known.items() if each is not None}
    if recipe.is_video:
        images |= {name: batch[name][:, -1] for name in OF_CLIPS if name in batch}
    return images if classes is None else {**images, "classes": classes}


@dataclass(frozen=True)
class Known:
    """The targets of training batches as if they were generated, and what is known of them; as often as wanted."""

    recipe: Recipe
    batches: Callable[[], Iterable[Batch]]

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for stored in self.batches():
            known = collect_known(self.recipe, self.recipe.prepare(stored))
            if "targets" in known:
                yield known["targets"], known


def list_images(
    recipe: Recipe, batch: Batch, domain: str, images: Tensor, input_type: str | None
) -> tuple[Tensor, list[Name], Tensor | None]:
    """Images of a domain in [0, 1], with their names and classes. input_type: the files that they belong to."""
    labels = recipe.image_classes(batch) if domain == next(iter(recipe.domains)) else None
    return to_unit(images), name_samples(batch, input_type), labels


def to_unit(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> the same in [0, 1], float32."""
    return ((images.float() + 1) / 2).clamp(0, 1)
