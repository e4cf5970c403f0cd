"""Features of the user's own code."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from imagier.errors import UserError
from imagier.metrics.fd import Metric as Frechet
from imagier.metrics.features import FeatureExtractor

CPU = torch.device("cpu")
CODE = """
import functools

import torch

def colors(images):
    return images.mean(dim=(2, 3))

class Net(torch.nn.Module):
    def __init__(self, weight=1.0):
        super().__init__()
        self.fc = torch.nn.Linear(3, 4)
        torch.nn.init.constant_(self.fc.weight, weight)
    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        features = images.mean(dim=(2, 3))
        return features, self.fc(features)

one_number = lambda images: images.mean()
rows = lambda images: images.flatten(1)[:1]
nan = lambda images: colors(images) / 0
text = lambda images: "features"
raising = lambda images: images.no_such_thing
exact = lambda images: 1 / torch.backends.cudnn.allow_tf32
partial = functools.partial(lambda images, power: images.mean(dim=(2, 3)) ** power, power=2)

class one(Net):
    pass

class two(Net):
    def __init__(self):
        super().__init__(2.0)

class Sized(Net):
    def __init__(self, size):
        super().__init__()

a_constant = 3
"""


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of the user's module: another one for each test, as Python keeps what it has imported."""
    name = f"lab_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def images() -> torch.Tensor:
    return torch.rand(5, 3, 8, 9, generator=torch.Generator().manual_seed(0))


def test_a_function_gives_features_of_images_rounded_to_eight_bits(lab: str) -> None:
    features, logits = FeatureExtractor(f"{lab}:colors", CPU)(images())
    expected = (images() * 255).round().mean(dim=(2, 3)) / 255
    torch.testing.assert_close(features, expected)
    assert logits is None
    assert Frechet(features=f"{lab}:colors").name == "FD-colors"


def test_a_module_of_torch_may_give_classes_too(lab: str) -> None:
    features, logits = FeatureExtractor(f"{lab}:Net", CPU)(images())
    assert (features.shape, logits.shape) == ((5, 3), (5, 4))


def test_the_description_changes_with_the_code_and_with_the_weights(lab: str, tmp_path: Path) -> None:
    of_net, of_function, of_partial = (
        FeatureExtractor(f"{lab}:{name}", CPU).describe() for name in ("Net", "colors", "partial")
    )
    assert of_net["features"] == f"{lab}:Net"
    assert of_net["source_sha256"] == of_function["source_sha256"] == of_partial["source_sha256"]
    assert of_function["source_sha256"] == hashlib.sha256(CODE.encode()).hexdigest()
    assert "weights_sha256" in of_net.keys() - of_function.keys()
    hashes = []
    for name in ("one", "one", "two"):
        torch.manual_seed(0)  # draws the bias
        hashes.append(FeatureExtractor(f"{lab}:{name}", CPU).describe()["weights_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]
    (tmp_path / f"{lab}.py").write_text(CODE + "\n")
    assert FeatureExtractor(f"{lab}:colors", CPU).describe()["source_sha256"] != of_function["source_sha256"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nowhere.at.all:colors", "unknown-module"),
        ("{lab}:colours", "unknown-attribute"),
        ("{lab}:a_constant", "no-callable"),
        ("{lab}:one_number", "wrong-output"),
        ("{lab}:rows", "wrong-output"),
        ("{lab}:text", "wrong-output"),
        ("{lab}:raising", "broken-code"),
        ("{lab}:Sized", "broken-code"),
        ("{lab}:nan", "non-finite-output"),
        ("vgg", "unknown-features"),
    ],
)
def test_what_is_no_space_is_one_line(lab: str, name: str, code: str) -> None:
    with pytest.raises(UserError) as error:
        FeatureExtractor(name.format(lab=lab), CPU)(images())
    assert error.value.code == code
    assert "\n" not in str(error.value)
    assert (f"{lab}.py:" in str(error.value)) == name.endswith(":raising")


def test_the_network_sees_images_in_full_float32(lab: str) -> None:
    """On a device other than the CPU; its code divides by 0 if that is so."""
    device = torch.device("meta")
    assert torch.backends.cudnn.allow_tf32
    with pytest.raises(UserError, match="division by zero"):
        FeatureExtractor(f"{lab}:exact", device)(images().to(device))
    assert torch.backends.cudnn.allow_tf32


def test_nan_in_an_image_is_not_the_fault_of_the_users_code(lab: str) -> None:
    features, _ = FeatureExtractor(f"{lab}:colors", CPU)(images() * torch.nan)
    assert features.isnan().all()


def test_on_a_cpu_precision_may_be_set_by_torchs_newer_api(lab: str) -> None:
    """Reading the older flags would raise."""
    torch.backends.cudnn.allow_tf32 = True
    conv = torch.backends.cudnn.conv
    before, conv.fp32_precision = conv.fp32_precision, "ieee"
    try:
        features, _ = FeatureExtractor(f"{lab}:colors", CPU)(images())
        assert features.isfinite().all() and conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = before
