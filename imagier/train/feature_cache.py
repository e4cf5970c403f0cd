"""Features of real images on the disk, by the content of the images, so that they can never be those of other ones."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagier.metrics.features import FeatureExtractor
from imagier.train.disk import describe_error, write_atomic

logger = logging.getLogger(__name__)

_FORMAT = 2
"""Of the file, and of the code that computes features: a new number makes all old files useless."""
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class CachedFeatures:
    """What is known of N images, on the CPU."""

    digests: Tensor
    """N x 32, uint8: the SHA-256 of size and pixels of each image."""
    features: Tensor
    """N x D, float32."""
    logits: Tensor | None
    """N x classes, float32, of networks that have classes."""


class FeatureCache:
    """A file with features of a set of images. Only images that it lacks go through the network.

    With several ranks each extracts features of its own share; the first one saves the gathered rows of all. What is
    wrong with the file or the disk is logged, and never ends a run.
    """

    def __init__(self, folder: Path, protocol: Mapping[str, Any], name: str) -> None:
        """folder: where the files lie; made when there is something to save. protocol: `FeatureExtractor.describe()`.
        name: says which set it is, such as its folders; sets of one name replace each other's file, no more.
        """
        self._key = json.dumps([_FORMAT, dict(protocol), name], sort_keys=True)
        self.path = folder / f"{hashlib.sha256(self._key.encode()).hexdigest()}.npz"
        self._stored: CachedFeatures | None = None
        self._rows: dict[bytes, int] | None = None
        """The row of each image in what is stored, by its digest; None before the file was read."""

    def extract(self, images: Tensor, extractor: FeatureExtractor) -> CachedFeatures:
        """Features of images, N x 3 x H x W in [0, 1], in their order; out of the file as far as they are there."""
        if self._rows is None:
            self._stored = self._read(extractor)
            self._rows = {} if self._stored is None else _number_rows(self._stored.digests)
        digests = hash_images(images)
        known = torch.tensor([self._rows.get(digest.tobytes(), -1) for digest in digests.numpy()], dtype=torch.int64)
        missing = (known < 0).nonzero()[:, 0]
        features = torch.empty(len(images), extractor.space.dim)
        logits = None
        if len(missing):
            features[missing], new_logits = _to_host(extractor(images[missing.to(images.device)]))
            if new_logits is not None:
                logits = torch.empty(len(images), new_logits.shape[1])
                logits[missing] = new_logits
        if self._stored is not None and len(missing) < len(images):
            found = known >= 0
            features[found] = self._stored.features[known[found]]
            if self._stored.logits is not None:
                logits = torch.empty(len(images), self._stored.logits.shape[1]) if logits is None else logits
                logits[found] = self._stored.logits[known[found]]
        return CachedFeatures(digests, features, logits)

    def save(self, digests: Tensor, features: Tensor, logits: Tensor | None) -> None:
        """Replaces the file by these rows, each image once, unless the file has just them. See `CachedFeatures`."""
        rows = _number_rows(digests)
        if self._rows is not None and rows.keys() == self._rows.keys():
            return
        kept = torch.tensor(list(rows.values()), dtype=torch.int64)
        arrays = {"key": np.array(self._key), "digests": digests[kept].numpy(), "features": features[kept].numpy()}
        if logits is not None:
            arrays["logits"] = logits[kept].numpy()
        try:
            with write_atomic(self.path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes a keyword for allow_pickle
        except OSError as error:
            logger.warning(f"{self.path}: features are not cached: {describe_error(error)}")

    def _read(self, extractor: FeatureExtractor) -> CachedFeatures | None:
        """What the file holds; None if there is none, or if it is of no use."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.testzip() is not None:
                    raise ValueError("wrong checksum")
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                arrays = {name.removesuffix(".npy"): _read_array(archive, name) for name in names}
            return self._check(arrays, extractor)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning(f"{self.path}: cached features cannot be read: {describe_error(error)}")
        except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            logger.warning(f"{self.path}: is damaged, or no file of cached features; they are computed again")
        return None

    def _check(self, arrays: Mapping[str, np.ndarray], extractor: FeatureExtractor) -> CachedFeatures:
        """ValueError or KeyError unless these are arrays of this protocol and this set."""
        found = {name: torch.from_numpy(arrays[name]) for name in ("digests", "features", "logits") if name in arrays}
        digests, features, logits = found["digests"], found["features"], found.get("logits")
        is_right = (
            str(arrays["key"]) == self._key
            and digests.dtype == torch.uint8
            and digests.shape == (len(features), _DIGEST_BYTES)
            and features.shape == (len(digests), extractor.space.dim)
            and (logits is not None) == (extractor.space.logits is not None)
            and (logits is None or (logits.ndim == 2 and len(logits) == len(digests)))
            and all(tensor.dtype == torch.float32 for tensor in (features, logits) if tensor is not None)
        )
        if not is_right:
            raise ValueError("other arrays")
        return CachedFeatures(digests, features, logits)


def open_feature_cache(extractor: FeatureExtractor, name: str) -> FeatureCache | None:
    """The cache of the features that an extractor makes of a set; None for features that are not cached.

    name: as of `FeatureCache`.
    """
    if not extractor.is_cacheable:
        return None
    return FeatureCache(find_cache_folder() / "features", extractor.describe(), name)


def find_cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where files go that can be made again: $IMAGIER_CACHE, or else imagier in $XDG_CACHE_HOME or ~/.cache."""
    if environment.get("IMAGIER_CACHE"):
        return Path(environment["IMAGIER_CACHE"])
    if environment.get("XDG_CACHE_HOME"):
        return Path(environment["XDG_CACHE_HOME"]) / "imagier"
    try:
        return Path.home() / ".cache" / "imagier"
    except RuntimeError:  # a user of a container who has no home
        return Path(tempfile.gettempdir()) / "imagier"


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def hash_images(images: Tensor) -> Tensor:
    """N x 3 x H x W in [0, 1] -> N x 32, uint8: the SHA-256 of shape and pixels in 8 bits of each image."""
    pixels = (images.float() * 255).round().clamp(0, 255).to("cpu", torch.uint8).contiguous().numpy()
    shape = repr(tuple(images.shape[1:])).encode()
    digests = [hashlib.sha256(shape + image.tobytes()).digest() for image in pixels]
    return torch.tensor([list(digest) for digest in digests], dtype=torch.uint8).view(-1, _DIGEST_BYTES)


def _number_rows(digests: Tensor) -> dict[bytes, int]:
    """The first row of each digest."""
    rows: dict[bytes, int] = {}
    for row, digest in enumerate(digests.numpy()):
        rows.setdefault(digest.tobytes(), row)
    return rows


def _to_host(taken: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    features, logits = taken
    return features.cpu(), None if logits is None else logits.cpu()
