"""FUNIT: networks against formulas, losses, order of updates, and what its user sees."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from few_shot import Formulas, batch, randomize
from golden import golden
from torch import Tensor, nn

from imagier.config.check import check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.config.schema import METRICS
from imagier.errors import UserError
from imagier.losses.gan import dis_fake_loss, dis_real_loss, gen_loss
from imagier.models.funit import Discriminator, Generator, LossWeights, Recipe
from imagier.nn.diff_augment import augment
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Losses, StepContext

WEIGHTS = LossWeights(gan=1.0, feature_matching=1.0, image_recon=0.1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def generator(**options: Any) -> Generator:
    small = {"num_filters": 2, "num_filters_mlp": 5, "style_dims": 3, "num_downsamples_style": 2}
    return Generator(**{**small, **options})


def discriminator(**options: Any) -> Discriminator:
    small = {"num_classes": 5, "num_filters": 2, "max_num_filters": 4, "num_layers": 2, "weight_norm_type": "spectral"}
    return Discriminator(**{**small, **options})


def recipe(gen: Generator | None = None, dis: Discriminator | None = None, **options: Any) -> Recipe:
    basic = {"gan_mode": "hinge", "loss_weight": WEIGHTS}
    return Recipe(gen=gen or generator(), dis=dis or discriminator(), **{**basic, **options})


def rng(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def moment() -> StepContext:
    return StepContext(step=0, epoch=0, rng=rng())


def inputs_of(module: nn.Module) -> list[tuple[Tensor, ...]]:
    """A list that will hold the inputs of every forward of a module."""
    seen: list[tuple[Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(tuple(x.detach().clone() for x in args)))
    return seen


# Networks ------------------------------------------------------------------------------------------------------------


def test_networks_of_the_reference_size_have_its_numbers_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Embedding, "reset_parameters", lambda embedding: None)  # takes a second without a device
    with torch.device("meta"):
        gen = Generator(num_filters=32, num_downsamples_content=4, num_downsamples_style=5)
        dis = Discriminator(num_filters=32, num_classes=3)
    assert sum(p.numel() for p in gen.parameters()) == 31_222_851
    assert len(gen.state_dict()) == len(list(gen.parameters())) == 120
    assert gen.content_encoder.out_channels == 512
    assert sum(p.numel() for p in dis.parameters()) == 54_180_257
    assert dis.embedder.weight.shape == (3, 1024)


def test_a_discriminator_of_the_reference_depth_has_its_layers() -> None:
    dis = Discriminator(num_filters=1, max_num_filters=32, weight_norm_type="spectral")
    assert dis(torch.rand(1, 3, 256, 256), torch.tensor([118]))[0].shape == (1, 1, 8, 8)
    assert (len(list(dis.parameters())), len(dis.state_dict())) == (63, 125)
    names = reference_names(dis.state_dict(), dis.reference_rules()).values()
    assert {int(name.split(".")[2]) for name in names if ".conv_block_s." in name} == {2, 6, 10, 14, 18}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_downsamples_content": 0, "num_res_blocks": 0},
        {"num_downsamples_content": 1, "num_res_blocks": 3, "weight_norm_type": "weight"},
        {"num_downsamples_content": 3, "num_res_blocks": 1, "num_downsamples_style": 4},
        {"num_downsamples_style": 0, "num_mlp_blocks": 1, "weight_norm_type": "spectral"},
        {"num_downsamples_style": 3, "num_mlp_blocks": 5, "num_filters_mlp": 2},
    ],
    ids=str,
)
def test_the_generator_computes_its_formula(options: dict[str, Any]) -> None:
    gen = randomize(generator(**options))
    formulas = Formulas(gen)
    content, style = torch.rand(2, 3, 24, 32).double() * 2 - 1, torch.rand(2, 3, 24, 16).double() * 2 - 1
    features = formulas.content(content, options.get("num_downsamples_content", 2))
    made = gen(content, style)
    assert list(made) == ["images_trans", "images_recon"]
    for name, shown in (("images_trans", style), ("images_recon", content)):
        code = formulas.mlp(formulas.style(shown), "mlp")
        torch.testing.assert_close(made[name], formulas.decoded(features, code))


@pytest.mark.parametrize(("num_mlp_blocks", "layers"), [(1, 2), (2, 2), (3, 2), (4, 3), (5, 4), (8, 7)])
def test_the_mlp_has_one_layer_fewer_than_blocks_and_at_least_two(num_mlp_blocks: int, layers: int) -> None:
    shapes = [tuple(layer.weight.shape) for layer in generator(num_mlp_blocks=num_mlp_blocks).mlp.model]
    assert shapes == [(5, 3), *[(5, 5)] * (layers - 1)]


@pytest.mark.parametrize(("num_downsamples_style", "halvings"), [(0, 2), (1, 2), (2, 2), (3, 3), (5, 5)])
def test_the_style_encoder_halves_at_least_twice_and_stops_widening_after_that(
    num_downsamples_style: int, halvings: int
) -> None:
    encoder = generator(num_downsamples_style=num_downsamples_style).style_encoder
    widths = [layer.conv.out_channels for layer in encoder.model if hasattr(layer, "conv")]
    assert widths == [2, 4, *[8] * (halvings - 1)]
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 3, 1, 1)


def test_without_reconstruction_the_translation_is_the_same() -> None:
    gen = generator()
    given = batch()
    images = given["images_content"], given["images_style"]
    assert gen(*images, recon=False).keys() == {"images_trans"}
    assert torch.equal(gen(*images, recon=False)["images_trans"], gen(*images)["images_trans"])


def test_an_image_in_the_style_of_itself_is_its_reconstruction() -> None:
    images = batch()["images_content"]
    made = generator()(images, images)
    assert torch.equal(made["images_trans"], made["images_recon"])


def test_images_are_in_range_and_their_sides_those_of_the_content_rounded_down() -> None:
    made = generator(num_downsamples_content=3)(torch.rand(1, 3, 30, 41), torch.rand(1, 3, 16, 17))
    for images in made.values():
        assert images.shape == (1, 3, 24, 40)
        assert images.abs().max() < 1


@pytest.mark.parametrize("options", [{}, {"max_num_filters": 3}, {"num_layers": 1}, {"num_layers": 3}], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "zeros", "replicate", "circular"])
@pytest.mark.parametrize("weight_norm", ["spectral", "none", "weight"])
def test_the_discriminator_computes_its_formula(options: dict[str, Any], mode: str, weight_norm: str) -> None:
    dis = randomize(discriminator(**options, padding_mode=mode, weight_norm_type=weight_norm))
    images, labels = torch.rand(3, 3, 13, 10).double() * 2 - 1, torch.tensor([4, 0, 4])
    expected = Formulas(dis).scores(images, labels, num_layers=options.get("num_layers", 2), mode=mode)
    torch.testing.assert_close(dis(images, labels), expected)


def test_another_class_moves_all_scores_of_an_image_alike_by_its_features() -> None:
    dis = discriminator().eval()
    images = batch()["images_style"]
    scores, features = dis(images, torch.tensor([1, 1]))
    others, same = dis(images, torch.tensor([3, 1]))
    moved = (dis.embedder.weight[3] - dis.embedder.weight[1]) @ features[0]
    torch.testing.assert_close(others[0] - scores[0], moved.expand_as(scores[0]))
    assert torch.equal(others[1], scores[1])
    assert torch.equal(same, features)


# Losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hinge", "least_square", "non_saturated", "softplus", "wasserstein"])
def test_losses_are_those_of_the_scores_images_and_features(mode: str) -> None:
    made = recipe(gan_mode=mode)
    made.dis.eval()
    given = batch()
    fake = made.generate(given, rng())
    trans, trans_features = made.dis(fake["images_trans"], given["labels_style"])
    real, real_features = made.dis(given["images_style"], given["labels_style"])
    recon, _ = made.dis(fake["images_recon"], given["labels_content"])
    torch.testing.assert_close(
        made.dis_losses(given, fake, rng()), {"gan": dis_real_loss([real], mode) + dis_fake_loss([trans], mode)}
    )
    expected = {
        "gan": (gen_loss([trans], mode) + gen_loss([recon], mode)) / 2,
        "image_recon": (fake["images_recon"] - given["images_content"]).abs().mean(),
        "feature_matching": (trans_features - real_features).abs().mean(),
    }
    losses = made.gen_losses(given, fake, rng())
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(
        made.total(losses), expected["gan"] + expected["feature_matching"] + 0.1 * expected["image_recon"]
    )


def test_losses_of_weight_zero_are_not_computed() -> None:
    made = recipe(loss_weight=LossWeights(gan=2.0))
    given = batch()
    fake = made.generate(given, rng())
    assert made.gen_losses(given, fake, rng()).keys() == {"gan"}


@pytest.mark.parametrize("reference_order", [False, True])
def test_the_discriminator_sees_translation_real_image_and_for_the_generator_the_reconstruction(
    reference_order: bool,
) -> None:
    """In this order, each with its class: the number of calls is also that of the steps of its spectral norms."""
    made = recipe(reference_order=reference_order)
    given = batch().replace(labels_content=torch.tensor([0, 1]), labels_style=torch.tensor([2, 3]))
    seen = inputs_of(made.dis)
    fake = made.generate(given, rng())
    phases = [player for player, _ in made.step(given, moment())]
    trans, real, recon = fake["images_trans"], given["images_style"], fake["images_recon"]
    style, content = given["labels_style"], given["labels_content"]
    in_turn = [(trans, style), (real, style), (trans, style), (real, style), (recon, content)]
    both = [(torch.cat([trans, other]), torch.cat([style, of])) for other, of in ((real, style), (recon, content))]
    torch.testing.assert_close(seen, in_turn if reference_order else [*both, (real, style)])
    assert phases == ["dis", "gen"]


def test_diff_augment_changes_what_the_discriminator_sees_real_before_fake_and_spares_what_is_compared() -> None:
    policy = "color,translation,cutout"
    made = recipe(aug_policy=policy)
    given = batch()
    fake = made.generate(given, rng())
    seen = inputs_of(made.dis)
    draws = rng()
    made.dis_losses(given, fake, rng())
    real = augment(given["images_style"], policy, draws)
    torch.testing.assert_close(seen[0][0], torch.cat([augment(fake["images_trans"], policy, draws), real]))
    seen.clear()
    draws = rng()
    losses = made.gen_losses(given, fake, rng())
    trans, recon = (augment(fake[name], policy, draws) for name in ("images_trans", "images_recon"))
    torch.testing.assert_close([x for x, _ in seen], [torch.cat([trans, recon]), given["images_style"]])
    torch.testing.assert_close(losses["image_recon"], F.l1_loss(fake["images_recon"], given["images_content"]))


def test_gradients_flow_through_diff_augment() -> None:
    made = recipe(aug_policy="color,translation_scale", loss_weight=LossWeights(gan=1.0))
    for player, losses in made.step(batch(), moment()):
        gradients = torch.autograd.grad(made.total(losses), list(made.networks[player].parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)


def test_each_loss_moves_its_own_player_only() -> None:
    made = recipe()
    for player, losses in made.step(batch(), moment()):
        own = torch.autograd.grad(made.total(losses), list(made.networks[player].parameters()), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in own)
        if player == "dis":
            other = torch.autograd.grad(made.total(losses), list(made.gen.parameters()), allow_unused=True)
            assert all(gradient is None for gradient in other)


def test_features_of_the_real_image_have_no_graph_where_the_generator_learns() -> None:
    made = recipe()
    given = batch()
    fake = made.generate(given, rng())
    verdict = made.discriminate(given, given["images_style"], fake["images_trans"], fake["images_recon"])
    assert not verdict["real_features_style"].requires_grad and not verdict["real_out_style"].requires_grad
    assert verdict["fake_features_trans"].requires_grad
    assert made.discriminate(given, given["images_style"], fake["images_trans"])["real_out_style"].requires_grad


# Order ---------------------------------------------------------------------------------------------------------------


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


def test_one_forward_or_two_is_the_same_where_the_generator_has_no_memory() -> None:
    gen, dis = generator(), discriminator(weight_norm_type="none")  # spectral norms would step once for two images
    given = batch()
    default = learned(recipe(copy.deepcopy(gen), copy.deepcopy(dis)), given)
    reference = learned(recipe(gen, dis, reference_order=True), given)
    torch.testing.assert_close(default, reference)


@pytest.mark.parametrize(
    ("options", "contents", "decodings"),
    [
        ({}, 1, 1),
        ({"reference_order": True}, 2, 4),  # the reference also reconstructs for the discriminator, which does not look
        ({"dis_step": 2}, 3, 3),
        ({"dis_step": 2, "reference_order": True}, 3, 6),
    ],
    ids=str,
)
def test_the_generator_runs_as_often_as_its_images_are_needed(
    options: dict[str, Any], contents: int, decodings: int
) -> None:
    made = recipe(**options)
    encoded, decoded = inputs_of(made.gen.content_encoder), inputs_of(made.gen.decoder)
    learned(made, batch(2))
    assert (len(encoded), len(decoded)) == (contents, decodings)


@pytest.mark.parametrize(("dis_step", "gen_step"), [(2, 3), (3, 1), (1, 2)])
def test_several_steps_come_in_order_each_on_its_own_slice(dis_step: int, gen_step: int) -> None:
    made = recipe(dis_step=dis_step, gen_step=gen_step)
    given = batch(2 * max(dis_step, gen_step))
    seen: list[Batch] = []
    discriminate = made.discriminate
    made.discriminate = lambda part, *images: seen.append(part) or discriminate(part, *images)
    players = []
    for player, losses in made.step(given, moment()):
        assert torch.is_grad_enabled()
        assert made.total(losses).requires_grad
        players.append(player)
    assert players == ["dis"] * dis_step + ["gen"] * gen_step
    for part, index in zip(seen, (*range(dis_step), *range(gen_step)), strict=True):
        for name in given.tensors:
            assert torch.equal(part[name], given[name][2 * index : 2 * index + 2])


def test_all_losses_of_half_precision_are_float32_and_finite() -> None:
    made = recipe(aug_policy="color,translation,cutout,translation_scale")
    phases: Iterator[tuple[str, Losses]] = made.step(batch(), moment())
    with torch.autocast("cpu", torch.bfloat16):
        found = [losses for _, losses in phases]
    for losses in found:
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        made.total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.gen.parameters())


# What its user sees --------------------------------------------------------------------------------------------------


def test_inferred_images_are_translations_in_the_original_sizes_of_their_contents() -> None:
    made = recipe()
    given = batch(2, 16, 24)
    translated = made.generate(given, rng(), recon=False)["images_trans"]
    assert torch.equal(torch.stack(made.infer(given, rng())), translated)
    sized = given.replace(original_h_w=torch.tensor([[20, 31], [8, 24]]))
    images = made.infer(sized, rng())
    assert [tuple(x.shape) for x in images] == [(3, 20, 31), (3, 8, 24)]
    for image, source in zip(images, translated):
        rows, columns = (torch.arange(n) * m // n for n, m in zip(image.shape[1:], source.shape[1:]))
        assert torch.equal(image, source[:, rows][:, :, columns])
    assert torch.equal(torch.stack(made.infer(sized, rng(), keep_original_size=False)), translated)
    own = sized.replace(original_h_w_images_content=torch.tensor([[5, 6], [7, 8]]))
    assert [tuple(x.shape) for x in made.infer(own, rng())] == [(3, 5, 6), (3, 7, 8)]


def test_inferred_images_are_called_like_their_contents_and_styles() -> None:
    of_both = batch()
    names = recipe().infer_names(of_both, keep_original_size=False)
    assert names == [f"images_content/{i}_style_images_style_{i}" for i in range(2)]
    pair = Batch(of_both.tensors, {key: ["a/0", "a/1"] for key in of_both.keys})
    assert recipe().infer_names(pair) == ["a/0", "a/1"]


def test_the_target_is_the_true_image_where_there_is_one() -> None:
    made, given = recipe(), batch()
    assert made.target(given) is None
    truth = torch.rand(2, 3, 16, 16)
    assert torch.equal(made.target(given.replace(images=truth)), truth)
    assert made.target(given.replace(images=truth[..., 1:])) is None
    assert torch.equal(made.baselines(given)["content as it is"], given["images_content"])


def test_columns_are_content_style_reconstruction_and_translation() -> None:
    made, given = recipe(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        shown = {**made.visualize_inputs(given), **made.visualize_outputs(given, rng())}
        sample = made.sample(given, rng())
    assert list(shown) == ["images_content", "images_style", "images_recon", "images_trans"]
    assert all(x.shape == (2, 3, 16, 16) and x.dtype == torch.float32 for x in shown.values())
    assert torch.equal(shown["images_style"], given["images_style"])
    assert torch.equal(sample, shown["images_trans"])


def test_gray_images_are_shown_with_three_channels() -> None:
    made = recipe(generator(num_image_channels=1), discriminator(num_image_channels=1))
    given = Batch({k: x[:, :1] if x.ndim == 4 else x for k, x in batch().tensors.items()})
    learned(made, given)
    shown = {**made.visualize_inputs(given), **made.visualize_outputs(given, rng())}
    assert all(x.shape == (2, 3, 16, 16) for x in shown.values())
    assert [tuple(x.shape) for x in made.infer(given, rng())] == [(1, 16, 16)] * 2


def test_more_classes_than_the_discriminator_knows_are_the_users_mistake() -> None:
    recipe(style_classes=5)
    with pytest.raises(UserError, match="6 classes") as caught:
        recipe(style_classes=6)
    assert (caught.value.where, caught.value.code) == ("dis.num_classes", "too-few-classes")


def test_a_discriminator_that_learns_nothing_and_an_unknown_augmentation_are_the_users_mistakes() -> None:
    with pytest.raises(UserError) as caught:
        recipe(loss_weight=LossWeights(gan=0.0, image_recon=1.0))
    assert (caught.value.where, caught.value.code) == ("loss_weight.gan", "no-loss-weight")
    with pytest.raises(UserError) as caught:
        recipe(aug_policy="colour")
    assert (caught.value.where, caught.value.code) == ("aug_policy", "unknown-augmentation")


@pytest.mark.parametrize("name", ["images_content", "images_style", "labels_content", "labels_style"])
def test_samples_without_an_image_or_class_are_the_users_mistake(name: str) -> None:
    given = Batch({key: x for key, x in batch().tensors.items() if key != name})
    with pytest.raises(UserError, match=f"no {name}") as caught:
        next(recipe().step(given, moment()))
    assert (caught.value.where, caught.value.code) == ("data.type", "missing-input")


def test_translating_needs_no_classes() -> None:
    given = batch()
    bare = Batch({name: given[name] for name in ("images_content", "images_style")}, given.keys)
    made = recipe()
    assert torch.equal(made.sample(bare, rng()), made.sample(given, rng()))


def test_too_small_images_are_the_users_mistake_and_others_are_brought_to_sides_that_come_back() -> None:
    deep = recipe(generator(num_downsamples_content=3))
    with pytest.raises(UserError, match=r"images_content of 16 x 16 px, .* at least 24 px") as caught:
        next(deep.step(batch(), moment()))
    assert (caught.value.where, caught.value.code) == ("gen", "image-too-small")
    demanding = recipe(dis=discriminator(num_layers=6))
    with pytest.raises(UserError, match=r"images_content of 16 x 16 px .* at least 33 px") as caught:
        next(demanding.step(batch(), moment()))
    assert (caught.value.where, caught.value.code) == ("dis", "image-too-small")
    assert demanding.sample(demanding.prepare(batch()), rng()).shape == (2, 3, 16, 16)
    given = batch(2, 28, 33)
    ready = deep.prepare(given)
    expected = F.interpolate(given["images_content"], size=(24, 32), mode="bicubic")
    torch.testing.assert_close(ready["images_content"], expected)
    assert [player for player, _ in deep.step(given, moment())] == ["dis", "gen"]
    columns = [*deep.visualize_inputs(ready).values(), *deep.visualize_outputs(ready, rng()).values()]
    assert {column.shape for column in columns} == {(2, 3, 24, 32)}


# The reference's configs ---------------------------------------------------------------------------------------------

NAMES = {"gen": "generators", "dis": "discriminators", "trainer": "trainers"}


@pytest.mark.parametrize("name", ["funit", "coco_funit"])
def test_configs_are_read_whichever_of_both_methods_they_call_discriminator_and_trainer_by(
    name: str, tmp_path: Path
) -> None:
    text = golden("coco_funit_a", "config.yaml").read_text()
    config = yaml.safe_load(text)
    for section in ("dis", "trainer"):
        config[section]["type"] = f"imaginaire.{NAMES[section]}.{name}"
    config["dis"]["image_channels"] = config["gen"]["num_image_channels"] = 1
    for kinds in config["data"]["input_types"]:
        for options in kinds.values():
            options["num_channels"] = 1
    config["trainer"]["aug_policy"] = "color"
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(config))
    document = load(path)
    assert translate_legacy(document) == []
    checked = check(document)
    assert (checked.recipe.cls, checked.players["dis"].cls) == (Recipe, Discriminator)
    assert checked.players["dis"].options["num_image_channels"] == 1
    assert checked.recipe.options["aug_policy"] == "color"


def test_distances_of_old_configs_are_measured_class_by_class(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text("trainer: {type: imaginaire.trainers.funit, use_fid: true, kid_subset_size: 8}\n")
    document = load(path)
    assert translate_legacy(document) == []
    assert document.tree["trainer"] == {"type": "funit"}
    shared = {"features": "reference_inception", "per_class": True, "optional": True}
    kid = {"type": "kd", **shared, "num_subsets": 1, "subset_size": 8, "sample_size": 256}
    assert document.tree["metrics"] == [*METRICS, kid, {"type": "fd", **shared}]


@pytest.mark.parametrize("keys", ["use_kid: false", "kid_num_subsets: 3, use_kid: false", "gan_mode: hinge"])
def test_without_distances_the_metrics_are_the_usual_ones(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(f"trainer: {{type: imaginaire.trainers.funit, {keys}}}\n")
    document = load(path)
    translate_legacy(document)
    assert "metrics" not in document.tree
