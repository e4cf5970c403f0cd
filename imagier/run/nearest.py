"""Generated images beside the training images that they are nearest to: has the generator learned some by heart?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from imagier.metrics.features import FeatureExtractor
from imagier.recipe import Recipe
from imagier.run.evaluation import Evaluator
from imagier.train.feature_cache import CachedFeatures, FeatureCache, hash_images, open_feature_cache
from imagier.train.hooks.images import write_image
from imagier.train.image_rows import join_rows
from imagier.train.known import to_unit

ROWS = 8
NEIGHBORS = 3
MOST_TRAINING_IMAGES = 2048
SIDE_PX = 128
"""Of the longer side of an image."""


class NearestImages:
    """Finds training images by their features, those of the first metric that has any."""

    def __init__(self, evaluator: Evaluator, features: Tensor, thumbnails: np.ndarray) -> None:
        """features: N x D. thumbnails: N x h x w x 3, uint8. Of training images, the same on all ranks."""
        self.evaluator = evaluator
        self.features = features
        self.thumbnails = thumbnails

    @classmethod
    @torch.no_grad()
    def look_at_training(cls, evaluator: Evaluator, recipe: Recipe, update: Callable[[int, int], None]) -> Self:
        """Looks at the training images, or at some of them if they are many. On all ranks.

        update: called with (images done, all).
        """
        training, runtime = evaluator.training, evaluator.runtime
        assert training is not None
        extractor = next(iter(evaluator.scorer.extractors.values()))
        train = evaluator.config.run.data.train
        assert train is not None
        name = json.dumps([evaluator.config.run.data.name, "training", *map(str, train.roots)])
        cache = open_feature_cache(extractor, name)
        count = min(MOST_TRAINING_IMAGES, len(training.dataset))
        found, thumbnails = [], []
        for done, stored in enumerate(training.draw(count), 1):
            images = recipe.real_images(recipe.prepare(stored)).get(next(iter(recipe.domains)))
            if images is not None:
                found.append(_extract(to_unit(images), extractor, cache))
                thumbnails.append(_shrink(to_unit(images)))
            update(min(done * training.samples_per_step, count), count)
        of_ranks = runtime.all_gather_objects((found, thumbnails))
        seen = [each for of_rank, _ in of_ranks for each in of_rank]
        if not seen:
            return cls(evaluator, torch.empty(0, 0), np.empty((0, SIDE_PX, SIDE_PX, 3), np.uint8))
        features, digests = torch.cat([each.features for each in seen]), torch.cat([each.digests for each in seen])
        if runtime.is_main and cache is not None:
            cache.save(digests, features, join_rows([each.logits for each in seen]))
        rows = {digest.tobytes(): row for row, digest in enumerate(digests.numpy())}  # an image counts once
        once = sorted(rows.values())
        shrunk = np.concatenate([each for _, of_rank in of_ranks for each in of_rank])
        return cls(evaluator, features[once], shrunk[once])

    @torch.no_grad()
    def draw(self, recipe: Recipe, path: Path) -> str:
        """Writes rows of a generated image and its nearest training images; returns a sentence for people.

        Near means a small Euclidean distance of features. Empty, and no image, if there are no training images. On all
        ranks; the first one writes.
        """
        evaluator = self.evaluator
        runtime, extractor = evaluator.runtime, next(iter(evaluator.scorer.extractors.values()))
        if not (len(self.features) and runtime.is_main):
            return ""
        batch = recipe.prepare(evaluator.held_out.some(ROWS))
        rng = torch.Generator(runtime.device).manual_seed(evaluator.seed)
        with runtime.autocast():
            made = recipe.translate(batch, rng, recipe.sample(batch, rng))[next(iter(recipe.domains))]
        generated = extractor(to_unit(made))[0].cpu()
        distances = torch.cdist(generated, self.features)
        nearest = distances.topk(min(NEIGHBORS, len(self.features)), largest=False).indices
        shrunk = _shrink(to_unit(made))
        rows = [np.concatenate([shrunk[i], *self.thumbnails[row]], axis=1) for i, row in enumerate(nearest.tolist())]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.concatenate(rows, axis=0))
        return (
            f"Left: generated. Beside it: the {nearest.shape[1]} nearest of {len(self.features):,} training images "
            f"by their {extractor.space.label} features, the nearest first."
        )


def _extract(images: Tensor, extractor: FeatureExtractor, cache: FeatureCache | None) -> CachedFeatures:
    if cache is not None:
        return cache.extract(images, extractor)
    features, logits = extractor(images)
    return CachedFeatures(hash_images(images), features.cpu(), None if logits is None else logits.cpu())


def _shrink(images: Tensor) -> np.ndarray:
    """N x 3 x H x W in [0, 1] -> N x SIDE_PX x SIDE_PX x 3, uint8, with white beside what is not square."""
    scale = SIDE_PX / max(images.shape[2:])
    height, width = (max(1, round(side * scale)) for side in images.shape[2:])
    shrunk = F.interpolate(images, (height, width), mode="bilinear", antialias=scale < 1).clamp(0, 1)
    padded = F.pad(shrunk, (0, SIDE_PX - width, 0, SIDE_PX - height), value=1.0)
    return (padded * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
