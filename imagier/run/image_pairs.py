"""Numbers about pairs of images: each generated one against its target, which has the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from imagier.errors import UserError
from imagier.metrics.metric import Metric
from imagier.run.comparison import describe_metrics, describe_program, name_directions, name_values
from imagier.run.feature_sets import batch_images
from imagier.run.image_sets import StoredImage, read_images
from imagier.train.card import Card

Pair = tuple[StoredImage, StoredImage]
"""The target, and the generated image."""

_BATCH_PIXELS = 1 << 19
"""Of a batch of targets: the widest features of VGG-16 take 256 bytes for each."""


@dataclass(frozen=True)
class PairScores:
    """What metrics say of all pairs."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """Where means over images lie with 95 % confidence, over sets of this size."""


def pair_images(
    real: Sequence[StoredImage], fake: Sequence[StoredImage], real_name: object, fake_name: object
) -> list[Pair]:
    """The images of two sets by their names, which have no extension. UserError if a name is in one of them only.

    real_name, fake_name: of the sets, in messages.
    """
    targets, generated = ({image.name: image for image in images} for images in (real, fake))
    without = [name for name in targets if name not in generated]
    beside = [name for name in generated if name not in targets]
    if without or beside:
        parts = [
            f"{_count(names)} of {owner} {'is' if len(names) == 1 else 'are'} not in {other}"
            for names, owner, other in ((without, real_name, fake_name), (beside, fake_name, real_name))
            if names
        ]
        advice = "give both the same names; extensions may differ"
        raise UserError("; ".join(parts), where=fake_name, advice=advice, code="missing-partner")
    return [(image, generated[name]) for name, image in targets.items()]


def measure_pairs(
    pairs: Sequence[Pair],
    metrics: Mapping[str, Metric],
    device: torch.device,
    num_threads: int,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> PairScores:
    """The numbers of all metrics, which have been loaded, by their short names.

    update: called with (done, total). UserError: a pair of different sizes, a damaged image.
    """
    fresh = {name: metric.fresh(device) for name, metric in metrics.items()}
    done = 0
    for batch in batch_images(_read_pairs(pairs, num_threads), _BATCH_PIXELS):
        pixels = torch.from_numpy(np.stack(batch)).to(device).permute(1, 0, 4, 2, 3).float() / 255
        for metric in fresh.values():
            metric.update(pixels[1], {"targets": pixels[0]})
        done += len(batch)
        update(done, len(pairs))
    scores = PairScores({}, {})
    for name, metric in fresh.items():
        scores.values.update(name_values(name, metric, metric.compute_all()))
        scores.intervals.update(name_values(name, metric, metric.compute_intervals()))
    return scores


def make_pair_card(
    scores: PairScores,
    metrics: Mapping[str, Metric],
    count: int,
    names: tuple[str, str],
    fingerprints: tuple[str, str],
) -> Card:
    """The card of `measure_pairs`. names, fingerprints: of the real and the generated images."""
    return Card(
        values=scores.values,
        intervals=scores.intervals,
        floor={},
        floor_sizes=(0, 0),
        protocol={
            "pairs": "by name",
            "metrics": describe_metrics(metrics),
            "num_real": count,
            "num_fake": count,
            "real_sha256": fingerprints[0],
        },
        subject={"real": names[0], "fake": names[1], "fake_sha256": fingerprints[1]},
        made_by=describe_program(),
        higher_is_better=name_directions(metrics),
    )


def _read_pairs(pairs: Sequence[Pair], num_threads: int) -> Iterator[np.ndarray]:
    """Target and image, 2 x H x W x 3, of each pair."""
    targets, images = (read_images([pair[i] for pair in pairs], num_threads) for i in (0, 1))
    for (stored, made), target, image in zip(pairs, targets, images):
        if target.shape != image.shape:
            own, wanted = (f"{each.shape[1]} x {each.shape[0]} px" for each in (image, target))
            what = f"has {own}, but {stored.where}, its target, has {wanted}"
            raise UserError(what, where=made.where, advice="resize one of the sets", code="other-size")
        yield np.stack([target, image])


def _count(names: Sequence[str]) -> str:
    return repr(names[0]) if len(names) == 1 else f"{len(names):,} images ({names[0]!r}, ...)"
