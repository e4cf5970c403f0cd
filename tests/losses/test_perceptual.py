"""The perceptual loss is the formula of its docstring, on VGG-19 with weights by formula."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from formula_vgg import CONVS, formula_vgg19, write_formula_vgg19
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from imagier.errors import UserError
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the reference numbers are not at {GOLDEN}")
LAYERS = ["relu_1_1", "relu_2_1", "relu_3_1"]
CONV_OF_LAYER = {"relu_1_1": 0, "relu_2_1": 2, "relu_3_1": 4}


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_formula_vgg19(tmp_path_factory.mktemp("weights") / "vgg19.pth", LAYERS))


@pytest.fixture(scope="module")
def direct() -> Callable[[Tensor], dict[str, Tensor]]:
    """Features of LAYERS, written out with torch's functions."""
    weights = formula_vgg19(5)

    def features(x: Tensor) -> dict[str, Tensor]:
        mean, std = x.new_tensor((0.485, 0.456, 0.406)), x.new_tensor((0.229, 0.224, 0.225))
        x = ((x + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        found = []
        for number in range(5):
            if number in (2, 4):
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, weights[f"features.{CONVS[number][0]}.weight"], padding=1).clamp(min=0)
            found.append(x)
        return {layer: found[number] for layer, number in CONV_OF_LAYER.items()}

    return features


def images(batch: int = 2, height: int = 32, width: int = 40) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, batch, 3, height, width, generator=rng) * 2 - 1
    return a, b


def test_l1_is_the_weighted_sum_of_mean_absolute_differences(vgg_file: str, direct: Callable) -> None:
    a, b = images()
    weights = [0.5, 2.0, 3.0]
    loss = PerceptualLoss(layers=LAYERS, weights=weights, weights_path=vgg_file)(a, b)
    x, y = direct(a), direct(b)
    expected = sum(w * (x[layer] - y[layer]).abs().mean() for w, layer in zip(weights, LAYERS))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("criterion", ["l2", "mse"])
def test_l2_is_the_sum_of_mean_squared_differences(criterion: str, vgg_file: str, direct: Callable) -> None:
    a, b = images()
    loss = PerceptualLoss(layers=LAYERS[:2], criterion=criterion, weights_path=vgg_file)(a, b)
    expected = sum((direct(a)[layer] - direct(b)[layer]).square().mean() for layer in LAYERS[:2])
    torch.testing.assert_close(loss, expected)


def test_gradient_is_that_of_the_formula_and_none_goes_to_the_target(vgg_file: str, direct: Callable) -> None:
    a, b = images()
    a.requires_grad_()
    b.requires_grad_()
    PerceptualLoss(layers="relu_2_1", criterion="l2", weights_path=vgg_file)(a, b).backward()
    twin = a.detach().clone().requires_grad_()
    F.mse_loss(direct(twin)["relu_2_1"], direct(b.detach())["relu_2_1"]).backward()
    torch.testing.assert_close(a.grad, twin.grad, rtol=1e-3, atol=1e-6)
    assert b.grad is None


def test_a_single_number_weights_every_layer(vgg_file: str) -> None:
    a, b = images()
    single = PerceptualLoss(layers="relu_1_1", weights=3, weights_path=vgg_file)(a, b)
    plain = PerceptualLoss(layers=["relu_1_1"], weights_path=vgg_file)(a, b)
    torch.testing.assert_close(single, 3 * plain)
    both = PerceptualLoss(layers=LAYERS, weights=0.5, weights_path=vgg_file)(a, b)
    torch.testing.assert_close(both, PerceptualLoss(layers=LAYERS, weights=[0.5] * 3, weights_path=vgg_file)(a, b))


@pytest.mark.parametrize("size", [(32, 40), (35, 41)])
def test_scales_are_means_over_2_by_2_pixels_and_add_up(size: tuple[int, int], vgg_file: str) -> None:
    a, b = images(2, *size)
    one = PerceptualLoss(layers="relu_2_1", weights_path=vgg_file)
    three = PerceptualLoss(layers="relu_2_1", num_scales=3, weights_path=vgg_file)(a, b)
    halves = [F.avg_pool2d(x, 2) for x in (a, b)]
    quarters = [F.avg_pool2d(x, 2) for x in halves]
    torch.testing.assert_close(three, one(a, b) + one(*halves) + one(*quarters))


def test_resize_compares_images_of_224_pixels(vgg_file: str) -> None:
    a, b = images(1, 448, 448)
    resized = PerceptualLoss(layers="relu_1_1", resize=True, weights_path=vgg_file)(a, b)
    plain = PerceptualLoss(layers="relu_1_1", weights_path=vgg_file)
    torch.testing.assert_close(resized, plain(F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)))


def test_sample_weights_multiply_the_loss_of_each_image(vgg_file: str) -> None:
    a, b = images(3)
    loss = PerceptualLoss(layers=LAYERS, num_scales=2, weights_path=vgg_file)
    alone = torch.stack([loss(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(a, b, torch.ones(3)), loss(a, b))
    weights = torch.tensor([0.0, 2.0, 5.0])
    torch.testing.assert_close(loss(a, b, weights), (weights * alone).mean())


def test_info_nce_tells_the_images_of_a_batch_apart_by_their_features(vgg_file: str, direct: Callable) -> None:
    a, b = images(3)
    options = {"layers": ["relu_1_1", "relu_2_1"], "weights": [0.5, 2.0], "weights_path": vgg_file}
    loss = PerceptualLoss(criterion="info_nce", info_nce_temperature=0.5, info_nce_flatten=False, **options)
    x, y = direct(a), direct(b)
    expected = 0
    for weight, layer in zip((0.5, 2.0), options["layers"]):
        found, wanted = (F.normalize(features[layer].mean(dim=(2, 3))) for features in (x, y))
        expected = expected + weight * F.cross_entropy(found @ wanted.T / 0.5, torch.arange(3))
    torch.testing.assert_close(loss(a, b), expected)
    torch.testing.assert_close(loss(a, b, torch.full((3,), 2.0)), 2 * expected)
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_equal_images_cost_nothing(vgg_file: str) -> None:
    a, _ = images()
    assert PerceptualLoss(layers=LAYERS, num_scales=2, weights_path=vgg_file)(a, a.clone()).item() == 0


def test_under_autocast_the_loss_is_float32_and_close(vgg_file: str) -> None:
    a, b = images()
    loss = PerceptualLoss(layers=LAYERS, weights_path=vgg_file)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = loss(a.bfloat16(), b)
    assert rough.dtype == torch.float32
    assert rough != loss(a.bfloat16().float(), b), "the network itself computes in bfloat16"
    torch.testing.assert_close(rough, loss(a, b), rtol=0.01, atol=0)


def test_in_a_float16_run_the_network_computes_in_float32(vgg_file: str) -> None:
    """There the gradient of a mean over many features is below the smallest number of float16."""
    loss = PerceptualLoss(layers=LAYERS, weights_path=vgg_file)
    a, b = images()
    exact, under_autocast = (a.half().float().requires_grad_() for _ in range(2))
    loss(exact, b).backward()
    with torch.autocast("cpu", dtype=torch.float16):
        loss(under_autocast, b).backward()
    assert torch.equal(under_autocast.grad, exact.grad)


def test_training_mode_leaves_the_network_frozen(vgg_file: str) -> None:
    loss = PerceptualLoss(layers="relu_1_1", weights_path=vgg_file).train()
    assert not loss.network.training
    assert not any(p.requires_grad for p in loss.parameters())


def test_compiled_whole_the_loss_is_the_same(vgg_file: str) -> None:
    a, b = images()
    loss = PerceptualLoss(layers="relu_1_1", num_scales=2, weights_path=vgg_file)
    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="eager")(a, b), loss(a, b))


@pytest.mark.parametrize(
    ("options", "where", "code"),
    [
        ({"layers": LAYERS, "weights": [1.0, 2.0]}, "perceptual_loss.weights", "number-of-weights"),
        ({"layers": "relu_9_1"}, "feature network vgg19", "unknown-layer"),
        ({"layers": []}, "feature network vgg19", "no-layers"),
        ({"network": "vgg91"}, "", "unknown-network"),
        ({"network": "dinov2_vitb14"}, "", "unknown-network"),
        ({"criterion": "cosine"}, "perceptual_loss.criterion", "unknown-value"),
        ({"resize_mode": "nearest"}, "perceptual_loss.resize_mode", "unknown-value"),
        ({"num_scales": 0}, "perceptual_loss.num_scales", "out-of-range"),
    ],
)
def test_mistakes_are_reported_at_construction(options: dict, where: str, code: str, vgg_file: str) -> None:
    with pytest.raises(UserError) as caught:
        PerceptualLoss(**{"weights_path": vgg_file, **options})
    assert (caught.value.where, caught.value.code) == (where, code)


def test_config_section_checked_by_pydantic_builds_the_same_loss(vgg_file: str) -> None:
    section = {"mode": "vgg19", "layers": LAYERS, "weights": [1, 2, 0.5], "num_scales": 2, "weights_path": vgg_file}
    config = TypeAdapter(PerceptualConfig).validate_python({**section, "fp16": True})
    a, b = images()
    expected = PerceptualLoss(layers=LAYERS, weights=[1, 2, 0.5], num_scales=2, weights_path=vgg_file)(a, b)
    assert torch.equal(PerceptualLoss.from_config(config)(a, b), expected)  # fp16 does nothing on the CPU
    with pytest.raises(ValidationError):
        TypeAdapter(PerceptualConfig).validate_python({**section, "layers": 3})


def test_a_section_and_the_constructor_have_the_same_defaults() -> None:
    of_section = {field.name: field.default for field in fields(PerceptualConfig) if field.default is not MISSING}
    of_constructor = {name: inspect.signature(PerceptualLoss).parameters[name].default for name in of_section}
    assert of_section == of_constructor


@pytest.mark.parametrize("weights", [(0.0,), (0.0, 0.0), ()])
def test_a_loss_that_counts_nowhere_is_not_built(weights: tuple[float, ...]) -> None:
    assert PerceptualLoss.create_if_weighted(PerceptualConfig(mode="vgg91", layers=[]), *weights) is None
    assert PerceptualLoss.create_if_weighted(None, *weights) is None


def test_a_loss_that_counts_somewhere_is_built_from_its_section_which_must_be_there(vgg_file: str) -> None:
    config = PerceptualConfig(mode="vgg19", layers="relu_1_1", weights_path=vgg_file)
    assert isinstance(PerceptualLoss.create_if_weighted(config, 0.0, 0.5), PerceptualLoss)
    with pytest.raises(UserError):
        PerceptualLoss.create_if_weighted(None, 0.0, 0.5)


@needs_golden
def test_squared_distance_to_the_mean_color_is_the_reference_mean_square_of_relu_4_1(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.torch").load_file(GOLDEN / "optim" / "vgg_check.safetensors")
    rms = json.loads((GOLDEN / "optim" / "vgg_check.json").read_text())["feature_rms"]["relu_4_1"]
    path = write_formula_vgg19(tmp_path / "vgg19.pth", "relu_4_1")
    loss = PerceptualLoss(criterion="l2", weights_path=str(path))
    gray = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1) * 2 - 1  # normalizes to 0, so all features are 0
    x = reference["input"]
    assert loss(x, gray.expand_as(x)).item() == pytest.approx(rms**2, rel=1e-5)


@needs_golden
@pytest.mark.parametrize("case", ["spade_a", "spade_b", "pix2pixHD_b"])
def test_loss_of_a_recorded_training_step_is_reproduced(case: str, tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    section = yaml.safe_load((GOLDEN / case / "config.yaml").read_text())["trainer"]["perceptual_loss"]
    path = write_formula_vgg19(tmp_path / "vgg19.pth", section["layers"])
    loss = PerceptualLoss.from_config(PerceptualConfig(**section, weights_path=str(path)))
    batch, expected = load_file(GOLDEN / case / "batch.safetensors"), load_file(GOLDEN / case / "expected.safetensors")
    found = loss(expected["gen.out.fake_images"], batch["images"])
    assert found.item() == pytest.approx(expected["gen.loss.Perceptual"].item(), rel=1e-5)
