"""SPADE: sizes, style, losses and schedule, on networks of a few filters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.feature_matching import feature_matching
from imagier.losses.gan import dis_fake_loss, dis_real_loss, gen_loss
from imagier.losses.kl import gaussian_kl
from imagier.models import spade
from imagier.models.spade import (
    Discriminator,
    Generator,
    LabelPyramid,
    LossWeights,
    PositionalChannels,
    Recipe,
    SpadeNormParams,
    StyleEncoderParams,
)
from imagier.nn.blocks import ConvNormAct
from imagier.nn.colorize import colorize
from imagier.recipe import Batch, Losses, StepContext
from imagier.train.runtime import Runtime

LABELS = {"seg_maps": 4, "edge_maps": 1}
NORM = SpadeNormParams(num_filters=3, activation_norm_type="instance")
STYLED = {"style_dims": 5, "global_adaptive_norm_type": "instance", "style_enc": StyleEncoderParams(num_filters=1)}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def generator(**options: Any) -> Generator:
    small = {"label_channels": 5, "image_channels": 3, "crop_h_w": (256, 256), "num_filters": 2}
    return Generator(**{**small, "activation_norm_params": NORM, **options})


def make_discriminator(**options: Any) -> Discriminator:
    small = {"label_channels": 5, "image_channels": 3, "num_filters": 2, "max_num_filters": 4, "num_layers": 2}
    return Discriminator(**{**small, **options})


def recipe(gen: Generator | None = None, dis: Discriminator | None = None, **options: Any) -> Recipe:
    weights = LossWeights(gan=1.0, feature_matching=2.0, kl=0.5)
    basic = {"label_lengths": LABELS, "one_hot": ["seg_maps"], "gan_mode": "hinge", "loss_weight": weights}
    return Recipe(gen=gen or generator(), dis=dis or make_discriminator(), **{**basic, **options})


def labels(count: int = 2, height: int = 32, width: int = 32, lengths: dict[str, int] = LABELS) -> Tensor:
    """A one-hot map and a map of edges."""
    classes = torch.randint(lengths["seg_maps"], (count, height, width))
    one_hot = F.one_hot(classes, lengths["seg_maps"]).movedim(-1, 1).float()
    return torch.cat([one_hot, torch.randint(2, (count, 1, height, width)).float()], dim=1)


def batch(count: int = 2, height: int = 32, width: int = 32) -> Batch:
    images = torch.rand(count, 3, height, width) * 2 - 1
    return Batch({"images": images, "label": labels(count, height, width)})


def rng(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def moment(epoch: int = 0) -> StepContext:
    return StepContext(step=0, epoch=epoch, rng=rng())


def inputs_of(module: nn.Module) -> list[Tensor]:
    """A list that will hold the first input of every forward of a module."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


# Networks ------------------------------------------------------------------------------------------------------------


def test_networks_of_the_reference_size_have_its_numbers_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spade, "PositionalChannels", nn.Identity)  # it has none, and to make it takes torch a second
    norm = SpadeNormParams(num_filters=64, kernel_size=5)
    with torch.device("meta"):
        gen = Generator(
            label_channels=185,
            image_channels=3,
            crop_h_w=(256, 256),
            num_filters=64,
            style_dims=256,
            weight_norm_type="none",
            activation_norm_params=norm,
            style_enc=StyleEncoderParams(num_filters=32),
        )
        dis = Discriminator(label_channels=185, image_channels=3, num_filters=64, weight_norm_type="none")
    assert sum(p.numel() for p in gen.parameters()) == 109_247_811
    assert sum(p.numel() for p in dis.parameters()) == 17_961_347
    assert len(list(gen.parameters())) == 197
    assert len(list(dis.parameters())) == 58


@pytest.mark.parametrize(
    ("crop", "size", "painted"),
    [
        ((256, 256), (32, 48), (32, 48)),
        ((64, 128), (47, 32), (32, 32)),
        ((512, 700), (64, 96), (64, 96)),
        ((1024, 1024), (128, 200), (128, 192)),
    ],
)
@pytest.mark.parametrize("label_features", [None, 3])
def test_images_have_the_size_of_the_label_rounded_down_to_what_can_be_halved(
    crop: tuple[int, int], size: tuple[int, int], painted: tuple[int, int], label_features: int | None
) -> None:
    gen = generator(crop_h_w=crop, label_features=label_features)
    assert gen.size_multiple == {256: 16, 64: 16, 512: 32, 1024: 64}[min(crop)]
    if gen.pyramid is not None:
        assert len(gen.pyramid.down) == {256: 4, 64: 4, 512: 5, 1024: 6}[min(crop)]
    label = labels(1, *(painted if label_features else size))
    with torch.no_grad():
        images = gen(label)["fake_images"]
    assert images.shape == (1, 3, *painted)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("crop", [16, 28, 31, 300, 511, 768, 2048])
def test_a_crop_that_spade_is_not_defined_for_is_the_users_mistake(crop: int) -> None:
    with pytest.raises(UserError, match=f"crop of {crop} px") as caught:
        generator(crop_h_w=(crop, crop))
    assert caught.value.code == "crop-size"


def test_positional_channels_grow_downwards_in_the_first_and_to_the_right_in_the_second() -> None:
    positions = PositionalChannels()
    rows, columns = positions(torch.zeros(1, 1, 16, 16))[0]
    line = -1 + torch.arange(16) * 2 / 15
    torch.testing.assert_close(rows, line[:, None].expand(16, 16))
    torch.testing.assert_close(columns, line[None, :].expand(16, 16))
    rows, columns = positions(torch.zeros(2, 1, 4, 8))[1]
    assert (rows.diff(dim=0) > 0).all() and rows.diff(dim=1).abs().max() < 1e-6
    assert (columns.diff(dim=1) > 0).all() and columns.diff(dim=0).abs().max() < 1e-6


def test_the_first_convolution_sees_the_coarse_label_then_rows_then_columns() -> None:
    gen = generator(activation_norm_params=SpadeNormParams(num_filters=3, interpolation="bilinear"))
    seen = inputs_of(gen.decoder.head_0.conv)
    label = labels(2, 48, 64)
    gen(label)
    coarse = label[:, :, ::16, ::16]  # nearest neighbor takes the first of every 16 pixels
    torch.testing.assert_close(seen[0], torch.cat([coarse, PositionalChannels()(coarse)], dim=1))
    plain = generator(use_posenc_in_input_layer=False)
    seen = inputs_of(plain.decoder.head_0.conv)
    plain(label)
    torch.testing.assert_close(seen[0], coarse)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_norms_see_the_label_at_their_own_size(interpolation: str) -> None:
    params = SpadeNormParams(num_filters=3, activation_norm_type="instance", interpolation=interpolation)
    gen = generator(activation_norm_params=params)
    stages = [gen.decoder.head_2, *(stage.b for stage in gen.decoder.up)]
    seen = [inputs_of(block.block_0.norm.mlp[0]) for block in stages]
    label = labels(1, 32, 48)
    gen(label)
    for found, factor in zip(seen, (16, 8, 4, 2)):
        expected = F.interpolate(label, size=(32 // factor, 48 // factor), mode=interpolation)
        torch.testing.assert_close(found[0], expected)


def test_the_output_multiplier_stands_inside_tanh() -> None:
    gen = generator(weight_norm_type="none").double()
    label = labels().double()
    once = gen(label)["fake_images"]
    gen.decoder.output_multiplier = 2.0
    torch.testing.assert_close(gen(label)["fake_images"].atanh(), 2 * once.atanh())


@pytest.mark.parametrize(("crop", "names"), [(256, ["256"]), (512, ["256", "512"]), (1024, ["256", "512", "1024"])])
def test_a_large_image_is_a_sum_of_images_of_all_sizes(crop: int, names: list[str]) -> None:
    gen = generator(crop_h_w=(crop, crop), num_filters=4).eval()
    outputs: list[Tensor] = []
    for layer in gen.decoder.to_image.values():
        layer.register_forward_hook(lambda *args: outputs.append(args[-1]))
    image = gen(labels(1, crop // 8, crop // 8))["fake_images"]
    assert list(gen.decoder.to_image) == names
    summed = sum(F.interpolate(x, size=image.shape[-2:], mode="nearest") for x in outputs)
    torch.testing.assert_close(image, torch.tanh(summed))


def test_stages_beyond_256_px_halve_the_width_without_a_style() -> None:
    """Written out for 4 filters: 8, 4, 2; the stages before have the widths 64, 32, 16, 8."""
    gen = generator(crop_h_w=(1024, 1024), num_filters=4, **STYLED)
    stages = [
        [stage.a.block_0, stage.a.block_1, stage.styled, stage.b.block_0, stage.b.block_1] for stage in gen.decoder.up
    ]
    shapes = [
        [None if block is None else tuple(block.conv.weight.shape[:2]) for block in stage]  # outputs, inputs
        for stage in stages
    ]
    assert shapes == [
        [(32, 64), (32, 32), (32, 32), (32, 32), (32, 32)],
        [(16, 32), (16, 16), (16, 16), (16, 16), (16, 16)],
        [(16, 16), (16, 16), (16, 16), (8, 16), (8, 8)],
        [(4, 8), (4, 4), None, (4, 4), (4, 4)],
        [(2, 4), (2, 2), None, (2, 2), (2, 2)],
    ]
    images = {name: tuple(layer.conv.weight.shape) for name, layer in gen.decoder.to_image.items()}
    assert images == {"256": (3, 8, 5, 5), "512": (3, 4, 5, 5), "1024": (3, 2, 5, 5)}


def test_with_label_features_every_pixel_depends_on_the_whole_label_and_without_it_does_not() -> None:
    def is_seen(gen: Generator, y: int, x: int) -> Tensor:
        label = torch.rand(1, 5, 32, 32, dtype=torch.float64, requires_grad=True)
        image = gen.double()(label)["fake_images"]
        return torch.autograd.grad(image[0, :, y, x].sum(), label)[0].abs().sum(dim=(0, 1)) > 0

    for y, x in [(0, 0), (13, 20), (31, 31)]:
        assert is_seen(generator(label_features=3), y, x).all()
        assert not is_seen(generator(), y, x).all()


def test_the_label_pyramid_doubles_its_width_twice_on_the_way_down() -> None:
    """Written out for 6 channels, 5 features and 4 halvings: 5, 10, 20, 20, 20."""
    shapes = {
        name: (tuple(layer.weight.shape), layer.stride[0])
        for name, layer in LabelPyramid(6, 5, num_halvings=4).named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    assert shapes == {
        "first.conv": ((5, 6, 3, 3), 1),
        "down.0.conv": ((10, 5, 3, 3), 2),
        "down.1.conv": ((20, 10, 3, 3), 2),
        "down.2.conv": ((20, 20, 3, 3), 2),
        "down.3.conv": ((20, 20, 3, 3), 2),
        "context.0.conv": ((20, 20, 3, 3), 1),
        "context.1.conv": ((20, 20, 3, 3), 1),
        "lateral.0": ((5, 5, 1, 1), 1),
        "lateral.1": ((5, 10, 1, 1), 1),
        "lateral.2": ((5, 20, 1, 1), 1),
        "lateral.3": ((5, 20, 1, 1), 1),
        "lateral.4": ((5, 20, 1, 1), 1),
        **{f"merge.{level}.conv": ((5, 5, 3, 3), 1) for level in range(4)},
    }


def test_the_label_pyramid_passes_context_on_from_coarse_to_fine() -> None:
    """Layer by layer with torch's functions."""
    pyramid = LabelPyramid(4, 3, num_halvings=2).double()
    w = pyramid.state_dict()

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding=w[f"{name}.weight"].shape[-1] // 2)

    def layer(x: Tensor, name: str, stride: int = 1) -> Tensor:
        x = F.instance_norm(conv(x, f"{name}.conv", stride), weight=w[f"{name}.norm.weight"])
        return F.leaky_relu(x + w[f"{name}.norm.bias"][:, None, None], 0.2)

    label = torch.rand(2, 4, 16, 24, dtype=torch.float64)
    full = F.leaky_relu(conv(label, "first.conv"), 0.2)
    half = layer(full, "down.0", 2)
    quarter = layer(layer(layer(half, "down.1", 2), "context.0"), "context.1")
    third = conv(quarter, "lateral.2")
    second = layer(conv(half, "lateral.1") + third.repeat_interleave(2, 2).repeat_interleave(2, 3), "merge.1")
    first = layer(conv(full, "lateral.0") + second.repeat_interleave(2, 2).repeat_interleave(2, 3), "merge.0")
    torch.testing.assert_close(pyramid(label, None), [first, second, third])


def test_label_features_of_every_size_see_the_whole_of_a_small_label() -> None:
    """By convolutions alone, without the norms, whose statistics tell every pixel a little of all others."""
    pyramid = LabelPyramid(5, 3, num_halvings=4).double()
    for layer in pyramid.modules():
        if isinstance(layer, ConvNormAct):
            layer.norm = nn.Identity()
    label = torch.rand(1, 5, 32, 48, dtype=torch.float64, requires_grad=True)
    features = pyramid(label, None)
    assert [tuple(x.shape) for x in features] == [(1, 3, 32 >> level, 48 >> level) for level in range(5)]
    for x in features:
        seen = torch.autograd.grad(x[0, :, 0, 0].sum(), label, retain_graph=True)[0].abs().sum(dim=(0, 1)) > 0
        assert seen.all()


def test_the_discriminator_gives_the_pyramids_scores_then_those_of_each_patch_discriminator() -> None:
    dis = make_discriminator(num_discriminators=2)
    outputs, features = dis(labels(2, 64, 96), torch.rand(2, 3, 64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (16, 24), (8, 12)]
    assert [tuple(x.shape) for x in outputs] == [(2, 1, *size) for size in sizes]
    assert [len(layers) for layers in features] == [3, 3]
    outputs, features = make_discriminator(num_discriminators=3, use_fpse=False)(
        labels(2, 64, 96), torch.rand(2, 3, 64, 96)
    )
    assert len(outputs) == len(features) == 3


def test_the_patch_discriminators_see_label_and_image_at_halved_sizes() -> None:
    dis = make_discriminator(num_discriminators=2)
    seen = [inputs_of(discriminator.layers[0].conv) for discriminator in dis.patch.discriminators]
    label, images = labels(1, 32, 64), torch.rand(1, 3, 32, 64)
    dis(label, images)
    both = torch.cat([label, images], dim=1)
    torch.testing.assert_close(seen[0][0], both)
    torch.testing.assert_close(seen[1][0], F.interpolate(both, size=(16, 32), mode="bilinear", align_corners=True))


def test_the_pyramids_scores_compare_features_with_the_averaged_embedding_of_the_label() -> None:
    """Embedding first and averaging then, as the paper has it."""
    dis = make_discriminator()
    assert dis.fpse is not None
    finals: list[Tensor] = []
    for layer in (dis.fpse.final2, dis.fpse.final3, dis.fpse.final4):
        layer.register_forward_hook(lambda *args: finals.append(args[-1]))
    label = labels(2, 32, 64)
    scores = dis.fpse(label, torch.rand(2, 3, 32, 64), None)
    for factor, x, score in zip((4, 8, 16), finals, scores):
        embedded = F.avg_pool2d(dis.fpse.embedding(label), factor)
        expected = dis.fpse.output(x) + (embedded * dis.fpse.seg(x)).sum(dim=1, keepdim=True)
        torch.testing.assert_close(score, expected)


# Style ---------------------------------------------------------------------------------------------------------------


def test_the_style_of_an_image_is_its_mean_plus_noise_times_its_deviation() -> None:
    gen = generator(**STYLED, weight_norm_type="none")
    label, images, noise = labels(), torch.rand(2, 3, 32, 32), torch.randn(2, 5)
    out = gen(label, noise=noise, images=images)
    mu, logvar = gen.encoder(images)
    torch.testing.assert_close((out["mu"], out["logvar"]), (mu, logvar))
    code = mu + noise * logvar.exp().sqrt()
    torch.testing.assert_close(out["fake_images"], gen(label, noise=code)["fake_images"])


def test_the_encoder_sees_images_at_256_pixels() -> None:
    gen = generator(**STYLED)
    seen = inputs_of(gen.encoder.layers["layer1"].conv)
    images = torch.rand(1, 3, 32, 48)
    gen.encoder(images)
    torch.testing.assert_close(seen[0], F.interpolate(images, size=(256, 256), mode="bilinear", align_corners=False))


def test_a_random_style_needs_no_image_and_other_styles_are_those_of_the_images() -> None:
    made = recipe(generator(**STYLED))
    made.gen.eval()
    full = batch()
    bare = Batch({"label": full["label"]})
    other = full.replace(images=-full["images"])
    random = made.generate(bare, rng(), random_style=True)
    assert random.keys() == {"fake_images"}
    torch.testing.assert_close(random, made.generate(full, rng(), random_style=True))
    assert not torch.equal(random["fake_images"], made.generate(bare, rng(1), random_style=True)["fake_images"])
    styled = made.generate(full, rng())
    assert styled.keys() == {"fake_images", "mu", "logvar"}
    assert not torch.equal(styled["fake_images"], made.generate(other, rng())["fake_images"])
    torch.testing.assert_close(made.sample(full, rng()), random["fake_images"])


@pytest.mark.parametrize("style", [{}, STYLED])
def test_attributes_stand_after_the_style_in_the_code(style: dict[str, Any]) -> None:
    made = recipe(generator(attribute_dims=2, **style))
    assert made.gen.decoder.style_mlp is not None
    seen = inputs_of(made.gen.decoder.style_mlp.fc_0)
    attributes = torch.randn(2, 1, 2)
    made.generate(batch().replace(attributes=attributes), rng(), random_style=True)
    noise = torch.randn(2, 5, generator=rng()) if style else torch.zeros(2, 0)
    torch.testing.assert_close(seen[0], torch.cat([noise, attributes[:, 0]], dim=1))


def test_attributes_that_the_data_lack_are_told() -> None:
    made = recipe(generator(attribute_dims=2))
    for run in (lambda: made.sample(batch(), rng()), lambda: next(made.step(batch(), moment()))):
        with pytest.raises(UserError) as caught:
            run()
        assert (caught.value.where, caught.value.code) == ("gen.attribute_dims", "no-attributes")


def test_a_fixed_random_style_is_that_of_all_images_in_batches_of_any_size_on_any_rank() -> None:
    made = recipe(generator(**STYLED))
    assert made.gen.decoder.style_mlp is not None
    seen = inputs_of(made.gen.decoder.style_mlp)
    of_ranks = [Runtime(torch.device("cpu"), rank=rank).generator(7) for rank in range(2)]
    for count, draws in ((2, of_ranks[0]), (3, of_ranks[0]), (1, of_ranks[1])):
        made.infer(made.prepare(batch(count)), draws, use_fixed_random_style=True, seed=7)
    codes = torch.cat(seen)
    assert codes.shape == (6, 5)
    assert torch.equal(codes, codes[:1].expand(6, -1))
    made.infer(batch(1), of_ranks[0], use_fixed_random_style=True, seed=8)
    assert not torch.equal(seen[-1], codes[:1])


def test_random_styles_differ_from_image_to_image_and_batch_to_batch() -> None:
    made = recipe(generator(**STYLED))
    assert made.gen.decoder.style_mlp is not None
    seen = inputs_of(made.gen.decoder.style_mlp)
    one = rng()
    for _ in range(2):
        made.infer(batch(2), one, random_style=True)
    assert len({tuple(code) for code in torch.cat(seen).tolist()}) == 4


# What comes in and what goes out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop", "size", "prepared"), [(256, (70, 100), (64, 96)), (512, (40, 64), (32, 64)), (1024, (100, 130), (64, 128))]
)
def test_prepare_brings_labels_by_nearest_and_images_by_bicubic_to_what_both_networks_can_halve(
    crop: int, size: tuple[int, int], prepared: tuple[int, int]
) -> None:
    made = recipe(generator(crop_h_w=(crop, crop)))
    raw = batch(1, *size)
    ready = made.prepare(raw)
    torch.testing.assert_close(ready["label"], F.interpolate(raw["label"], size=prepared, mode="nearest"))
    expected = F.interpolate(raw["images"], size=prepared, mode="bicubic", align_corners=False)
    torch.testing.assert_close(ready["images"], expected)
    again = made.prepare(ready)
    assert again["label"] is ready["label"] and again["images"] is ready["images"]


@pytest.mark.parametrize(("crop", "least"), [(256, 32), (1024, 64)])
def test_a_label_that_cannot_be_halved_often_enough_is_the_users_mistake(crop: int, least: int) -> None:
    made = recipe(generator(crop_h_w=(crop, crop)))
    too_small = [lambda: made.prepare(batch(1, least - 1, 70)), lambda: next(made.step(batch(1, 16, 16), moment()))]
    for run, size in zip(too_small, (f"{least - 1} x 70", "16 x 16")):
        with pytest.raises(UserError, match=f"label of {size} px") as caught:
            run()
        assert (caught.value.where, caught.value.code) == ("gen", "image-too-small")
        assert caught.value.what.endswith(f"at least {2 * least if crop == 1024 else least} px")


def test_infer_gives_images_of_the_prepared_size_or_of_each_samples_original_one() -> None:
    made = recipe()
    made.gen.eval()
    given = made.prepare(batch(2, 40, 64)).replace(original_h_w=torch.tensor([[50, 70], [20, 31]]))
    images = made.infer(given, rng())
    assert [tuple(x.shape) for x in images] == [(3, 32, 64)] * 2
    originals = made.infer(given, rng(), keep_original_size=True)
    assert [tuple(x.shape) for x in originals] == [(3, 50, 70), (3, 20, 31)]
    for original, image in zip(originals, images):
        assert image.abs().max() <= 1
        rows, columns = (torch.arange(n) * m // n for n, m in zip(original.shape[1:], image.shape[1:]))
        assert torch.equal(original, image[:, rows][:, :, columns])


def test_inputs_are_the_images_the_colors_of_classes_and_the_edges() -> None:
    given = batch()
    shown = recipe().visualize_inputs(given)
    assert list(shown) == ["images", "seg_maps", "edge_maps"]
    assert all(x.shape == (2, 3, 32, 32) and x.min() >= -1 and x.max() <= 1 for x in shown.values())
    assert torch.equal(shown["images"], given["images"])
    assert torch.equal(shown["edge_maps"], (given["label"][:, 4:] * 2 - 1).expand(-1, 3, -1, -1))
    classes = given["label"][:, :4].argmax(dim=1)
    assert torch.equal(shown["seg_maps"][0, :, 0, 0], shown["seg_maps"].movedim(1, -1)[classes == classes[0, 0, 0]][0])
    assert len(shown["seg_maps"].movedim(1, -1).reshape(-1, 3).unique(dim=0)) == 4


def test_what_is_a_class_is_told_by_the_data_and_not_by_the_name() -> None:
    given = Batch({"images": torch.zeros(2, 3, 32, 32), "label": labels()})
    lengths = {"things": 4, "seg_lines": 1}
    shown = recipe(label_lengths=lengths, one_hot=["things"]).visualize_inputs(given)
    assert torch.equal(shown["things"], colorize(given["label"][:, :4]))
    assert torch.equal(shown["seg_lines"], (given["label"][:, 4:] * 2 - 1).expand(-1, 3, -1, -1))


def test_gray_images_are_shown_with_three_channels() -> None:
    made = recipe(generator(image_channels=1, **STYLED), make_discriminator(image_channels=1))
    given = batch().replace(images=torch.rand(2, 1, 32, 32) * 2 - 1)
    learned(made, given)
    shown = {**made.visualize_inputs(given), **made.visualize_outputs(given, rng()), "target": made.target(given)}
    assert {name: tuple(x.shape) for name, x in shown.items()} == dict.fromkeys(shown, (2, 3, 32, 32))
    assert torch.equal(shown["target"][:, 2:], given["images"])


def test_outputs_are_images_in_range_and_float32() -> None:
    made = recipe()
    with torch.autocast("cpu", torch.bfloat16):
        shown = made.visualize_outputs(batch(), rng())
    assert list(shown) == ["fake"]
    assert shown["fake"].shape == (2, 3, 32, 32)
    assert shown["fake"].dtype == torch.float32
    assert shown["fake"].abs().max() <= 1


def test_the_target_of_a_sample_is_its_image() -> None:
    given = batch()
    assert torch.equal(recipe().target(given), given["images"])


# Label maps of which most channels are empty -------------------------------------------------------------------------

MANY = {"seg_maps": 19, "edge_maps": 1}


def mostly_empty(present: list[int]) -> Batch:
    """Of 20 label channels those `present` hold something."""
    label = torch.zeros(2, 20, 32, 32)
    label[:, present] = torch.rand(2, len(present), 32, 32)
    return Batch({"images": torch.rand(2, 3, 32, 32) * 2 - 1, "label": label})


@pytest.mark.parametrize("present", [[3, 7, 19], [0], []])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_posenc_in_input_layer": False, "weight_norm_type": "none"},
        {"activation_norm_params": SpadeNormParams(num_filters=0, activation_norm_type="instance")},
        {"label_features": 3},
    ],
    ids=["default", "no positions", "no hidden layer", "pyramid"],
)
def test_leaving_out_empty_channels_changes_neither_losses_nor_gradients(
    options: dict[str, Any], present: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(generator(label_channels=20, **options), make_discriminator(label_channels=20), label_lengths=MANY)
    dense = copy.deepcopy(made)
    given = mostly_empty(present)
    assert spade._partial_label(made.prepare(given)).map.shape[1] == max(1, len(present))
    found = losses_and_gradients(made, given)
    monkeypatch.setattr(spade, "MANY_CHANNELS", 1000)
    assert "label_present" not in dense.prepare(given)
    torch.testing.assert_close(found, losses_and_gradients(dense, given), rtol=1e-3, atol=1e-5)


def test_parts_of_a_prepared_batch_leave_out_what_is_empty_in_each() -> None:
    made = recipe(generator(label_channels=20), make_discriminator(label_channels=20), label_lengths=MANY)
    given = mostly_empty([3, 7])
    given["label"][0, 3] = 0
    parts = made.prepare(given).split(2)
    assert [spade._partial_label(part).channels.tolist() for part in parts] == [[7], [3, 7]]
    for part, label in zip(parts, given["label"]):
        assert torch.equal(spade._partial_label(part).map[0], label[spade._partial_label(part).channels])


def losses_and_gradients(made: Recipe, given: Batch) -> dict[str, Any]:
    """Of every player, in double precision."""
    for network in made.networks.values():
        network.double()
    double = Batch({name: tensor.double() for name, tensor in given.tensors.items()})
    found: dict[str, Any] = {}
    for player, losses in made.step(double, moment()):
        parameters = list(made.networks[player].parameters())
        gradients = torch.autograd.grad(made.total(losses), parameters, retain_graph=True)
        found[player] = {**{name: loss.detach() for name, loss in losses.items()}, "gradients": list(gradients)}
    return found


# Losses and schedule -------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_scores_features_and_codes() -> None:
    made = recipe(generator(**STYLED), loss_weight=LossWeights(gan=1, feature_matching=1, kl=1, perceptual=1, l1=1))
    made.perceptual = lambda images, target: (images - target).square().mean()
    made.dis.eval()
    given = batch()
    fake = made.generate(given, rng())
    images = fake["fake_images"]
    real_scores, real_features = made.dis(given["label"], given["images"])
    fake_scores, fake_features = made.dis(given["label"], images)
    torch.testing.assert_close(
        made.dis_losses(given, fake),
        {"gan/fake": dis_fake_loss(fake_scores, "hinge"), "gan/true": dis_real_loss(real_scores, "hinge")},
    )
    torch.testing.assert_close(
        made.gen_losses(given, fake, moment()),
        {
            "gan": gen_loss(fake_scores, "hinge"),
            "feature_matching": feature_matching(fake_features, real_features),
            "kl": gaussian_kl(fake["mu"], fake["logvar"]),
            "perceptual": (images - given["images"]).square().mean(),
            "l1": (images - given["images"]).abs().mean(),
        },
    )


def test_relativistic_losses_are_those_of_the_differences_of_scores() -> None:
    made = recipe(gan_relativistic=True, gan_mode="non_saturated")
    made.dis.eval()
    given = batch()
    fake = made.generate(given, rng())
    real_scores, fake_scores = (made.dis(given["label"], x)[0] for x in (given["images"], fake["fake_images"]))
    behind = [f - r for f, r in zip(fake_scores, real_scores)]
    ahead = [-x for x in behind]
    losses = made.dis_losses(given, fake)
    torch.testing.assert_close(losses["gan/fake"], dis_fake_loss(behind, "softplus"))
    torch.testing.assert_close(losses["gan/true"], dis_real_loss(ahead, "softplus"))
    torch.testing.assert_close(made.gen_losses(given, fake, moment())["gan"], gen_loss(behind, "softplus"))


@pytest.mark.parametrize(("epoch", "keep"), [(0, 1.0), (1, 0.6), (2, 0.36), (3, 0.3), (9, 0.3)])
@pytest.mark.parametrize("per_sample", [False, True])
def test_the_share_of_scores_that_counts_shrinks_every_epoch(epoch: int, keep: float, per_sample: bool) -> None:
    made = recipe(gan_decay_k=0.6, gan_min_k=0.3, gan_separate_topk=per_sample)
    made.dis.eval()
    given = batch()
    fake = made.generate(given, rng())
    scores, _ = made.dis(given["label"], fake["fake_images"])
    found = made.gen_losses(given, fake, moment(epoch))["gan"]
    torch.testing.assert_close(found, gen_loss(scores, "hinge", keep, per_sample))


def test_losses_of_weight_zero_are_not_computed() -> None:
    made = recipe(generator(**STYLED), loss_weight=LossWeights(gan=1, feature_matching=0, kl=0))
    given = batch()
    assert made.gen_losses(given, made.generate(given, rng()), moment()).keys() == {"gan"}
    assert made.load_losses() == ()


def test_a_discriminator_without_a_loss_is_the_users_mistake() -> None:
    weights = LossWeights(gan=0, feature_matching=1, kl=0, l1=1)
    with pytest.raises(UserError) as caught:
        recipe(loss_weight=weights)
    assert (caught.value.where, caught.value.code) == ("loss_weight.gan", "no-loss-weight")
    recipe(loss_weight=weights, dis_step=0)


def test_a_perceptual_weight_without_its_section_is_the_users_mistake() -> None:
    made = recipe(loss_weight=LossWeights(gan=1, feature_matching=1, kl=1, perceptual=10))
    with pytest.raises(UserError, match="perceptual_loss"):
        made.load_losses()


def test_each_loss_moves_its_own_player_only() -> None:
    made = recipe(generator(**STYLED))
    for player, losses in made.step(batch(), moment()):
        other = made.dis if player == "gen" else made.gen
        own = torch.autograd.grad(made.total(losses), list(made.networks[player].parameters()), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in own)
        if player == "dis":
            unused = torch.autograd.grad(made.total(losses), list(other.parameters()), allow_unused=True)
            assert all(gradient is None for gradient in unused)


def learned(made: Recipe, given: Batch) -> tuple[dict[str, Losses], list[Tensor]]:
    """Losses of one iteration with plain gradient descent by player, and all weights after it."""
    seen = {}
    for player, losses in made.step(given, moment()):
        seen[player] = {name: loss.detach() for name, loss in losses.items()}
        parameters = list(made.networks[player].parameters())
        gradients = torch.autograd.grad(made.total(losses), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter.sub_(0.01 * gradient)
    return seen, list(chain(*(network.parameters() for network in made.networks.values())))


def test_one_forward_or_two_is_the_same_where_nothing_is_random_and_no_layer_has_a_memory() -> None:
    gen, dis = generator(weight_norm_type="none"), make_discriminator(weight_norm_type="none")
    given = batch()
    default = learned(recipe(copy.deepcopy(gen), copy.deepcopy(dis)), given)
    reference = learned(recipe(gen, dis, reference_order=True), given)
    torch.testing.assert_close(default, reference)
    assert list(default[0]) == ["dis", "gen"]


@pytest.mark.parametrize(("reference_order", "forwards"), [(False, 1), (True, 2)])
def test_the_generator_runs_once_an_iteration_or_twice_in_the_order_of_the_reference(
    reference_order: bool, forwards: int
) -> None:
    made = recipe(reference_order=reference_order)
    seen = inputs_of(made.gen.decoder.head_0.conv)
    learned(made, batch())
    assert len(seen) == forwards


@pytest.mark.parametrize(("dis_step", "gen_step"), [(2, 3), (3, 1), (1, 2)])
def test_several_steps_come_in_order_each_on_its_own_slice(dis_step: int, gen_step: int) -> None:
    made = recipe(dis_step=dis_step, gen_step=gen_step)
    given = batch(2 * max(dis_step, gen_step))
    seen: list[Batch] = []
    discriminate = made.discriminate

    def recorded(part: Batch, fake: Tensor, *, should_learn_from_real: bool) -> dict[str, Any]:
        seen.append(part)
        return discriminate(part, fake, should_learn_from_real=should_learn_from_real)

    made.discriminate = recorded
    players = []
    for player, losses in made.step(given, moment()):
        assert torch.is_grad_enabled()
        assert made.total(losses).requires_grad
        players.append(player)
    assert players == ["dis"] * dis_step + ["gen"] * gen_step
    for part, index in zip(seen, (*range(dis_step), *range(gen_step)), strict=True):
        assert torch.equal(part["images"], given["images"][2 * index : 2 * index + 2])
        assert torch.equal(part["label"], given["label"][2 * index : 2 * index + 2])


def test_all_losses_of_half_precision_are_float32_and_finite() -> None:
    made = recipe(generator(**STYLED), loss_weight=LossWeights(gan=1, feature_matching=1, kl=1, l1=1))
    phases: Iterator[tuple[str, Losses]] = made.step(batch(), moment())
    with torch.autocast("cpu", torch.bfloat16):
        found = [losses for _, losses in phases]
    assert [len(losses) for losses in found] == [2, 4]
    for losses in found:
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        made.total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.gen.parameters())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("normalized", [(), ("edges",)])
def test_a_label_that_equals_the_image_has_no_error_in_whatever_range_the_network_sees_it(
    channels: int, normalized: tuple[str, ...]
) -> None:
    images = torch.rand(2, channels, 32, 32) * 2 - 1
    label = images if normalized else (images + 1) / 2
    gen = generator(label_channels=channels, image_channels=channels)
    dis = make_discriminator(label_channels=channels, image_channels=channels)
    made = recipe(gen, dis, label_lengths={"edges": channels}, one_hot=[], normalized=normalized)
    given = Batch({"images": images, "label": label})
    torch.testing.assert_close(made.baselines(given)["edges as they are"], made.target(given))
    torch.testing.assert_close(made.visualize_inputs(given)["edges"], made.target(given))
