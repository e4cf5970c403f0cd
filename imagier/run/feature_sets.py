"""From images to features, or from a file of features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from imagier.data.sources.source import one_line
from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureSet
from imagier.metrics.features import FeatureExtractor
from imagier.run.image_sets import StoredImage, read_images
from imagier.run.paths import no_such_path
from imagier.train.feature_cache import FeatureCache

BATCH_SIZE = 32
_BATCH_PIXELS = 1 << 22


@dataclass(frozen=True)
class MeasuredSet:
    """A set of images, or of features of another program, ready to be compared."""

    where: str
    features: FeatureSet
    fingerprint: str
    """The SHA-256 of its content."""


def read_features(path: Path) -> MeasuredSet:
    """N x D features of any network, float32 or float64, from a file of numpy.save. UserError if it is none."""
    where = one_line(str(path))
    if not path.exists():
        raise no_such_path(path, "no such file", code="missing-input")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        advice = "write it by numpy.save, without objects"
        raise UserError("cannot be read as an array", where=where, advice=advice, code="damaged-features") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        shape = f"an array of {array.dtype}, {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        what = f"holds {shape}"
        raise UserError(what, where=where, advice="expected N x D numbers: a row for each image", code="wrong-features")
    dtype = np.float32 if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else np.float64
    features = torch.from_numpy(np.ascontiguousarray(array, dtype))
    check_finite(features, where)
    return MeasuredSet(where, FeatureSet(features), hashlib.sha256(features.numpy().tobytes()).hexdigest())


def check_finite(features: Tensor, where: str) -> None:
    """UserError if features are not finite numbers: no distance from them is one."""
    bad = (~features.isfinite().all(dim=1)).nonzero()[:, 0]
    if len(bad):
        what = f"{len(bad):,} of {len(features):,} rows hold NaN or infinite numbers, the first is row {int(bad[0]):,}"
        raise UserError(what, where=where, advice="compute these features again", code="non-finite-features")


def extract_features(
    images: Sequence[StoredImage],
    extractor: FeatureExtractor,
    device: torch.device,
    num_threads: int,
    update: Callable[[int, int], None] = lambda done, total: None,
    cache: FeatureCache | None = None,
) -> FeatureSet:
    """The features of all images, in order, on the CPU.

    Images of one size that follow each other go through the network together. update: called with (done, total).
    cache: where they come from and go to, as those of real images do.
    """
    digests: list[Tensor] = []
    features: list[Tensor] = []
    logits: list[Tensor] = []
    done = 0
    for batch in batch_images(read_images(images, num_threads), _BATCH_PIXELS):
        pixels = torch.from_numpy(np.stack(batch)).to(device).permute(0, 3, 1, 2).float() / 255
        if cache is None:
            of_batch, classes = extractor(pixels)
        else:
            found = cache.extract(pixels, extractor)
            digests.append(found.digests)
            of_batch, classes = found.features, found.logits
        features.append(of_batch.cpu())
        if classes is not None:
            logits.append(classes.cpu())
        done += len(batch)
        update(done, len(images))
    whole = FeatureSet(torch.cat(features), torch.cat(logits) if logits else None)
    if cache is not None:
        cache.save(torch.cat(digests), whole.features, whole.logits)
    return whole


def batch_images(images: Iterator[np.ndarray], most_pixels: int) -> Iterator[list[np.ndarray]]:
    """Images of one size that follow each other, together; not too many, nor too many pixels. ... x H x W x 3 each."""
    batch: list[np.ndarray] = []
    for image in images:
        height, width = image.shape[-3:-1]
        size = max(1, min(BATCH_SIZE, most_pixels // (height * width)))
        if batch and (image.shape != batch[0].shape or len(batch) >= size):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch
