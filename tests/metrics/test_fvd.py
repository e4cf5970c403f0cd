"""FVD: clips on their way to features, and their distance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.fd import Metric as Frechet
from imagier.metrics.features import FeatureExtractor, cut_clips, resize_like_tensorflow1
from imagier.metrics.fvd import Metric
from imagier.nn.backbones.i3d import I3D

CPU = torch.device("cpu")


def clips(frames: int, count: int = 2, size: tuple[int, int] = (10, 12)) -> Tensor:
    return torch.rand(count, frames, 3, *size, generator=torch.Generator().manual_seed(0))


def test_clips_are_cut_into_parts_of_16_frames() -> None:
    numbered = torch.arange(2 * 37).view(2, 37, 1, 1, 1)
    parts = cut_clips(numbered)
    assert parts.flatten(1).tolist() == [list(range(start, start + 16)) for start in (0, 16, 37, 37 + 16)]
    with pytest.raises(UserError) as error:
        cut_clips(clips(15))
    assert error.value.code == "short-clips"


def test_the_network_gets_resized_clips_with_time_as_third_dimension(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A network that gives the mean colors of the frames in place of I3D, whose weights nobody may pass on."""

    class Colors(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1:] == (3, 16, 224, 224)
            return x.mean(dim=(3, 4)).flatten(1)

    path = tmp_path / "i3d.pt"
    torch.save({}, path)
    colors = replace(I3D, steps=lambda: iter([("mean", Colors())]))
    monkeypatch.setattr("imagier.nn.backbones.network._OF_METRICS", {"i3d": colors})
    extractor = FeatureExtractor("i3d", CPU, str(path))
    features, logits = extractor(clips(33))
    assert (features.shape, logits) == ((4, 48), None)
    part = (clips(33)[1, 16:32] * 255).round()
    expected = resize_like_tensorflow1(part, 224).mean(dim=(2, 3)).T.flatten() * 2 / 255 - 1
    torch.testing.assert_close(features[3], expected)
    described = extractor.describe()
    assert (described["frames"], described["resize"]) == (16, "like_tensorflow1")


def test_its_name_and_the_features_that_it_takes() -> None:
    assert Metric().name == "FVD"
    for make in (lambda: Frechet(features="i3d"), lambda: Metric(features="clip")):
        with pytest.raises(UserError) as error:
            make()
        assert error.value.code == "wrong-features"


def test_code_of_the_users_gets_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip_lab.py").write_text("def colors(clips):\n    return clips.mean(dim=(3, 4)).flatten(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    features, _ = FeatureExtractor("clip_lab:colors", CPU)(clips(32))
    assert features.shape == (4, 48)
    assert Metric(features="clip_lab:colors").name == "FVD-colors"
