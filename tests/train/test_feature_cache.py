"""Features are computed once for each image, and never taken for those of another."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imagier.train import feature_cache
from imagier.train.feature_cache import CachedFeatures, FeatureCache, find_cache_folder


class Extractor:
    """In place of a network: mean and standard deviation, with the number of images that it was given."""

    def __init__(self, has_logits: bool = True) -> None:
        self.space: Any = SimpleNamespace(dim=2, logits="fc" if has_logits else None)
        self.num_images = 0

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        self.num_images += len(images)
        pixels = (images * 255).round().flatten(1)
        features = torch.stack([pixels.mean(dim=1), pixels.std(dim=1)], dim=1)
        return features, pixels[:, :3].clone() if self.space.logits else None


def photos(count: int = 5, seed: int = 0, size: int = 4) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def extract(folder: Path, images: Tensor, extractor: Extractor, protocol: str = "one") -> CachedFeatures:
    """What a run does: all images, then the file."""
    cache = FeatureCache(folder, {"network": protocol}, "set")
    found = cache.extract(images, extractor)  # type: ignore[arg-type]
    cache.save(found.digests, found.features, found.logits)
    return found


def check(found: CachedFeatures, images: Tensor, has_logits: bool = True) -> None:
    features, logits = Extractor(has_logits)(images)
    assert torch.equal(found.features, features)
    assert found.logits is logits or torch.equal(found.logits, logits)  # type: ignore[arg-type]


@pytest.mark.parametrize("has_logits", [True, False])
def test_an_image_goes_through_the_network_once(tmp_path: Path, has_logits: bool) -> None:
    extractor = Extractor(has_logits)
    check(extract(tmp_path, photos(), extractor), photos(), has_logits)
    assert extractor.num_images == 5
    order = torch.tensor([3, 0, 3, 1])
    check(extract(tmp_path, photos()[order], extractor), photos()[order], has_logits)
    assert extractor.num_images == 5, "the second time all are in the file"


def test_an_image_with_one_other_pixel_is_another_image(tmp_path: Path) -> None:
    extractor = Extractor()
    extract(tmp_path, photos(), extractor)
    changed = photos()
    changed[2, 1, 3, 3] = (changed[2, 1, 3, 3] + 0.5) % 1
    check(extract(tmp_path, changed, extractor), changed)
    assert extractor.num_images == 5 + 1


def test_the_same_pixels_in_another_shape_are_another_image(tmp_path: Path) -> None:
    extractor = Extractor()
    extract(tmp_path, photos(), extractor)
    extract(tmp_path, photos().reshape(5, 3, 2, 8), extractor)
    assert extractor.num_images == 10


def test_what_rounds_to_the_same_file_is_the_same_image(tmp_path: Path) -> None:
    """And its digest is that of its shape and bytes."""
    extractor = Extractor()
    levels = (photos() * 255).round()
    found = extract(tmp_path, levels / 255, extractor)
    extract(tmp_path, (levels + 0.4) / 255, extractor)
    assert extractor.num_images == 5
    data = b"(3, 4, 4)" + levels[1].to(torch.uint8).numpy().tobytes()
    assert bytes(found.digests[1].tolist()) == hashlib.sha256(data).digest()


def test_another_protocol_and_another_set_have_other_files(tmp_path: Path) -> None:
    extractor = Extractor()
    for protocol in ("one", "two"):
        extract(tmp_path, photos(), extractor, protocol)
    assert (extractor.num_images, len(list(tmp_path.iterdir()))) == (10, 2)
    paths = {FeatureCache(tmp_path, {"a": a}, name).path for a in (1, 2) for name in ("x", "y")}
    assert len(paths) == 4


def test_the_file_holds_the_images_of_the_last_time_each_once(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {}, "set")
    images = photos()[[0, 1, 1, 0]]
    features, logits = Extractor()(images)
    digests = torch.eye(32, dtype=torch.uint8)[[0, 1, 1, 0]]
    cache.save(digests, features, logits)
    with np.load(cache.path) as arrays:
        assert np.array_equal(arrays["digests"], digests[:2])
        assert np.array_equal(arrays["features"], features[:2])
    cache.save(digests[:1], features[:1], None)
    with np.load(cache.path) as arrays:
        assert arrays["digests"].shape == (1, 32) and "logits" not in arrays


def write_other_key(path: Path) -> None:
    extract(path.parent, photos(), Extractor(), "two")
    (other,) = set(path.parent.iterdir()) - {path}
    other.replace(path)


def write_other_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **content | {"features": content["features"][:, :1]})


def flip(path: Path) -> None:
    """A bit of the first feature."""
    data = bytearray(path.read_bytes())
    place = data.index(Extractor()(photos())[0].numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"text"),
        lambda path: np.save(path.open("wb"), np.ones(3)),
        lambda path: np.save(path.open("wb"), np.array([{}]), allow_pickle=True),
        lambda path: np.savez(path, digests=np.ones(3)),
        lambda path: (path.unlink(), path.mkdir()),
        flip,
        write_other_key,
        write_other_arrays,
    ],
)
def test_a_file_that_is_of_no_use_is_one_line_and_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    extract(tmp_path, photos(), Extractor())
    path = FeatureCache(tmp_path, {"network": "one"}, "set").path
    damage(path)
    extractor = Extractor()
    check(extract(tmp_path, photos(), extractor), photos())
    assert extractor.num_images == 5
    assert {record.getMessage().partition(": ")[0] for record in caplog.records} == {str(path)}
    if path.is_file():
        assert len(caplog.records) == 1
        extract(tmp_path, photos(), extractor)
        assert extractor.num_images == 5, "the file was replaced"


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    extract(tmp_path, photos(2), Extractor())
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        found = FeatureCache(tmp_path, {"network": "one"}, "set").extract(photos(2), Extractor())  # type: ignore[arg-type]
        check(found, photos(2))


def test_a_disk_that_fails_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, **arrays: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(feature_cache.np, "savez", fail)
    check(extract(tmp_path, photos(), Extractor()), photos())
    (record,) = caplog.records
    assert record.getMessage().endswith("features are not cached: No space left on device")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys, numpy as np, torch
from pathlib import Path
from imagier.train.feature_cache import FeatureCache
real = np.savez
def savez(file, **arrays):
    real(file, **arrays)
    file.truncate(file.tell() // 2)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
np.savez = savez
cache = FeatureCache(Path(sys.argv[1]), {"network": "one"}, "set")
cache.save(torch.ones(9, 32, dtype=torch.uint8), torch.ones(9, 2), None)
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    extract(tmp_path, photos(), Extractor())
    (path,) = tmp_path.iterdir()
    old = path.read_bytes()
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2, "it had begun to write"
    assert path.read_bytes() == old
    extractor = Extractor()
    extract(tmp_path, photos(), extractor)
    assert extractor.num_images == 0


def test_the_folder_is_the_users_choice_or_that_of_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cache_folder({"IMAGIER_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert find_cache_folder({"IMAGIER_CACHE": "", "XDG_CACHE_HOME": "/b"}) == Path("/b/imagier")
    monkeypatch.setenv("HOME", "/home/me")
    assert find_cache_folder({}) == Path("/home/me/.cache/imagier")
