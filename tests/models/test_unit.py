"""UNIT: networks against formulas, losses, the order of updates, and what goes out; on networks of a few filters."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from formula_vgg import write_formula_vgg19
from second_way import NORMS, content, decoded, weights_of
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.models.unit import Discriminator, Generator, LossWeights, Recipe
from imagier.recipe import Batch, Losses, StepContext
from imagier.train.hooks.log import tag_losses


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def generator(**options: Any) -> Generator:
    small = {"num_filters": 2, "max_num_filters": 6, "num_res_blocks": 1, "num_downsamples_content": 2}
    return Generator(**{**small, **options})


def make_discriminator(**options: Any) -> Discriminator:
    small = {"num_filters": 2, "max_num_filters": 4, "num_layers": 2}
    return Discriminator(**{**small, **options})


def recipe(gen: Generator | None = None, dis: Discriminator | None = None, **options: Any) -> Recipe:
    basic = {"gan_mode": "hinge", "loss_weight": LossWeights(gan=1.0, image_recon=10.0, cycle_recon=5.0)}
    return Recipe(gen=gen or generator(), dis=dis or make_discriminator(), **{**basic, **options})


def batch(count: int = 2, height: int = 16, width: int = 24) -> Batch:
    images = {name: torch.rand(count, 3, height, width) * 2 - 1 for name in ("images_a", "images_b")}
    keys = {"images_a": [f"s/a{i}" for i in range(count)], "images_b": [f"t/b{i}" for i in range(count)]}
    return Batch(images, keys)


def rng(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def moment() -> StepContext:
    return StepContext(step=0, epoch=0, rng=rng())


def with_some_weights(network: nn.Module) -> Any:
    """In double precision and eval mode, with affine parts and biases that are not at their first values."""
    network.double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.05, 0.4)
    return network


# Networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre_act", [False, True])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(
    ("content_norm", "decoder_norm", "weight_norm"),
    [("instance", "instance", "none"), ("none", "layer_2d", "spectral"), ("layer_2d", "none", "weight")],
)
@pytest.mark.parametrize(("halvings", "blocks", "output"), [(2, 2, "none"), (1, 0, "tanh"), (0, 1, "sigmoid")])
def test_all_outputs_are_those_of_the_formulas(
    pre_act: bool,
    noise: bool,
    content_norm: str,
    decoder_norm: str,
    weight_norm: str,
    halvings: int,
    blocks: int,
    output: str,
) -> None:
    gen = with_some_weights(
        generator(
            num_res_blocks=blocks,
            num_downsamples_content=halvings,
            content_norm_type=content_norm,
            decoder_norm_type=decoder_norm,
            weight_norm_type=weight_norm,
            output_nonlinearity=output,
            pre_act=pre_act,
            apply_noise=noise,
            num_image_channels=1,
        )
    )
    w = weights_of(gen, gen.reference_rules())
    images = {d: torch.rand(2, 1, 8, 12, dtype=torch.float64) * 2 - 1 for d in "ab"}
    order = "NACNAC" if pre_act else "CNACNA"

    def code(domain: str, x: Tensor) -> Tensor:
        options = {"halvings": halvings, "blocks": blocks, "order": order, "norm": NORMS[content_norm]}
        return content(w, f"autoencoder_{domain}.content_encoder", x, **options)

    def image(domain: str, x: Tensor) -> Tensor:
        options = {"doublings": halvings, "blocks": blocks, "order": order, "norm": NORMS[decoder_norm]}
        function = {"none": None, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[output]
        return decoded(w, f"autoencoder_{domain}.decoder", x, **options, output=function)

    torch.manual_seed(1)
    found = gen(images["a"], images["b"])
    torch.manual_seed(1)  # the noise is drawn in the order of the formulas
    made = {"content_a": code("a", images["a"]), "content_b": code("b", images["b"])}
    made["images_aa"], made["images_bb"] = image("a", made["content_a"]), image("b", made["content_b"])
    made["images_ba"], made["images_ab"] = image("a", made["content_b"]), image("b", made["content_a"])
    made["content_ba"], made["content_ab"] = code("a", made["images_ba"]), code("b", made["images_ab"])
    made["images_aba"], made["images_bab"] = image("a", made["content_ab"]), image("b", made["content_ba"])
    torch.testing.assert_close(found, made)
    assert any("noise" in name for name in w) == noise


def test_a_generator_of_the_reference_size_has_its_numbers_of_weights() -> None:
    with torch.device("meta"):
        gen = Generator(num_filters=24, max_num_filters=64, pre_act=True)
    names = weights_of(gen, gen.reference_rules())
    assert sum(p.numel() for p in gen.parameters()) == 1_461_830
    assert len(list(gen.parameters())) == 172
    indices = {int(name.split(".")[3]) for name in names if name.startswith("autoencoder_b.decoder.decoder.")}
    assert indices == {0, 1, 2, 3, 5, 7, 8}


def test_the_last_convolution_has_neither_norm_nor_noise() -> None:
    gen = generator(weight_norm_type="spectral", apply_noise=True)
    names = weights_of(gen, gen.reference_rules())
    last = [name for name in names if name.startswith("autoencoder_a.decoder.decoder.5.")]
    assert sorted(last) == [f"autoencoder_a.decoder.decoder.5.layers.conv.{kind}" for kind in ("bias", "weight")]
    assert gen.autoencoder_a.decoder.layers[-1].conv.in_channels == 6 // 4


@pytest.mark.parametrize("image_recon", [True, False])
@pytest.mark.parametrize("cycle_recon", [True, False])
def test_only_what_is_asked_for_is_made(image_recon: bool, cycle_recon: bool) -> None:
    gen = generator()
    a, b = batch().tensors.values()
    expected = {"content_a", "content_b", "images_ba", "images_ab"}
    expected |= {"images_aa", "images_bb"} if image_recon else set()
    expected |= {"content_ba", "content_ab", "images_aba", "images_bab"} if cycle_recon else set()
    found = gen(a, b, image_recon=image_recon, cycle_recon=cycle_recon)
    assert found.keys() == expected
    full = gen(a, b)
    torch.testing.assert_close(found, {name: full[name] for name in found})


# Losses --------------------------------------------------------------------------------------------------------------


def hinge(real: Any, fake: Any) -> Tensor:
    """Of the discriminator, mean over scales."""
    return sum(F.relu(1 - x).mean() + F.relu(1 + y).mean() for x, y in zip(real, fake)) / len(real)


def test_the_discriminators_compare_real_images_with_translations_into_their_domain() -> None:
    made = recipe()
    given = batch()
    fake = made.generate(given, rng())
    losses = made.dis_losses(given, fake)
    a, b = made.dis.discriminator_a, made.dis.discriminator_b
    expected = {
        "gan/a": hinge(a(given["images_a"])[0], a(fake["images_ba"])[0]),
        "gan/b": hinge(b(given["images_b"])[0], b(fake["images_ab"])[0]),
    }
    torch.testing.assert_close(losses, expected)
    made.total(losses).backward()
    assert all(p.grad is None for p in made.gen.parameters())
    assert all(p.grad is not None for p in made.dis.parameters())


def test_the_generator_fools_reproduces_and_comes_back() -> None:
    made = recipe()
    given = batch()
    fake = made.generate(given, rng())
    losses = made.gen_losses(given, fake)
    scores_a = made.dis.discriminator_a(fake["images_ba"])[0]
    scores_b = made.dis.discriminator_b(fake["images_ab"])[0]
    expected = {
        "gan/a": -sum(x.mean() for x in scores_a) / 3,
        "gan/b": -sum(x.mean() for x in scores_b) / 3,
        "image_recon": sum((fake[f"images_{d}{d}"] - given[f"images_{d}"]).abs().mean() for d in "ab"),
        "cycle_recon/aba": (fake["images_aba"] - given["images_a"]).abs().mean(),
        "cycle_recon/bab": (fake["images_bab"] - given["images_b"]).abs().mean(),
    }
    torch.testing.assert_close(losses, expected)
    total = sum(losses[f"gan/{d}"] for d in "ab") + 10 * losses["image_recon"]
    total = total + 5 * (losses["cycle_recon/aba"] + losses["cycle_recon/bab"])
    torch.testing.assert_close(made.total(losses), total)


def test_a_weight_of_a_part_comes_on_top_of_that_of_the_whole() -> None:
    weights = LossWeights(gan=2.0, gan_b=0.5, cycle_recon_aba=3.0)
    made = recipe(loss_weight=weights)
    given = batch()
    losses = made.gen_losses(given, made.generate(given, rng()))
    assert losses.keys() == {"gan/a", "gan/b", "cycle_recon/aba", "cycle_recon/bab"}
    expected = 2 * losses["gan/a"] + 2.5 * losses["gan/b"] + 3 * losses["cycle_recon/aba"]
    torch.testing.assert_close(made.total(losses), expected)


def test_losses_are_logged_under_the_names_of_the_reference() -> None:
    made = recipe(reference_order=True)
    logged = tag_losses(dict(made.step(batch(), moment())), made.log_names)
    dis = {f"dis_update/{name}" for name in ("gan", "gan_a", "gan_b")}
    names = ("gan", "gan_a", "gan_b", "image_recon", "cycle_recon", "cycle_recon_aba", "cycle_recon_bab")
    assert logged.keys() == dis | {f"gen_update/{name}" for name in names}
    torch.testing.assert_close(logged["gen_update/gan"], logged["gen_update/gan_a"] + logged["gen_update/gan_b"])


@pytest.mark.parametrize("weight", [{"perceptual": 2.0}, {"perceptual_b": 1.0}])
def test_the_perceptual_loss_compares_translations_with_their_sources(
    weight: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_formula_vgg19(tmp_path_factory.mktemp("vgg") / "vgg19.pth")
    config = PerceptualConfig(mode="vgg19", layers="relu_1_1", weights_path=str(path))
    made = recipe(loss_weight=LossWeights(gan=1.0, **weight), perceptual_loss=config)
    assert made.load_losses() == (made.perceptual,)
    given = batch()
    fake = made.generate(given, rng())
    losses = made.gen_losses(given, fake)
    loss = PerceptualLoss.from_config(config)
    torch.testing.assert_close(losses["perceptual/a"], loss(fake["images_ab"], given["images_a"]))
    torch.testing.assert_close(losses["perceptual/b"], loss(fake["images_ba"], given["images_b"]))


def test_a_perceptual_loss_without_its_section_is_the_users_mistake_and_without_weight_is_none() -> None:
    assert recipe().load_losses() == ()
    with pytest.raises(UserError, match="perceptual_loss"):
        recipe(loss_weight=LossWeights(gan=1.0, perceptual=1.0)).load_losses()


def test_losses_of_weight_0_cost_nothing_but_are_logged_in_the_order_of_the_reference() -> None:
    for reference_order in (False, True):
        made = recipe(loss_weight=LossWeights(gan=1.0), reference_order=reference_order)
        losses = dict(made.step(batch(), moment()))["gen"]
        assert ("image_recon" in losses) == reference_order
        torch.testing.assert_close(made.total(losses), losses["gan/a"] + losses["gan/b"])


@pytest.mark.parametrize("weights", [{"gan": 0}, {"gan": 0, "gan_b": 1}, {"gan": -1, "gan_a": 1, "gan_b": 2}])
def test_a_discriminator_without_a_loss_is_the_users_mistake(weights: dict[str, float]) -> None:
    with pytest.raises(UserError) as caught:
        recipe(loss_weight=LossWeights(**weights, cycle_recon=1.0))
    assert (caught.value.where, caught.value.code) == ("loss_weight.gan or loss_weight.gan_a", "no-loss-weight")
    recipe(loss_weight=LossWeights(gan=0, gan_a=1.0, gan_b=1.0))


# The order of updates ------------------------------------------------------------------------------------------------


def learned(made: Recipe, given: Batch) -> tuple[dict[str, Losses], list[Tensor]]:
    """The losses of an iteration and all weights after it, each player having moved along its gradient."""
    seen = {}
    for player, losses in made.step(given, moment()):
        seen[player] = losses
        parameters = list(made.networks[player].parameters())
        gradients = torch.autograd.grad(made.total(losses), parameters, retain_graph=True, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter.sub_(0.01 * gradient)
    return seen, list(chain(*(network.parameters() for network in made.networks.values())))


@pytest.mark.parametrize("discriminator", [{}, {"patch_dis": False, "aggregation": "conv"}])
def test_one_forward_or_two_is_the_same_where_nothing_is_random_and_no_layer_has_a_memory(
    discriminator: dict[str, Any],
) -> None:
    gen, dis = generator(), make_discriminator(**discriminator)
    given = batch(2, 16, 16)
    default = learned(recipe(copy.deepcopy(gen), copy.deepcopy(dis)), given)
    reference = learned(recipe(gen, dis, reference_order=True), given)
    torch.testing.assert_close(default, reference)
    assert list(default[0]) == ["dis", "gen"]


def forwards(module: nn.Module) -> list[None]:
    """A list that grows with every forward of a module."""
    seen: list[None] = []
    module.register_forward_pre_hook(lambda *_: seen.append(None))
    return seen


@pytest.mark.parametrize(
    ("reference_order", "cycle", "encoder", "decoder", "discriminator"),
    [(True, 1.0, 1 + 2, 1 + 3, 2 + 1), (True, 0.0, 1 + 1, 1 + 2, 2 + 1), (False, 1.0, 2, 2, 2), (False, 0.0, 1, 1, 2)],
)
def test_each_network_runs_as_often_as_told(
    reference_order: bool, cycle: float, encoder: int, decoder: int, discriminator: int
) -> None:
    weights = LossWeights(gan=1.0, image_recon=1.0, cycle_recon=cycle)
    made = recipe(loss_weight=weights, reference_order=reference_order)
    counts = {}
    for domain in "ab":
        autoencoder = getattr(made.gen, f"autoencoder_{domain}")
        counts[f"encoder_{domain}"] = forwards(autoencoder.content_encoder)
        counts[f"decoder_{domain}"] = forwards(autoencoder.decoder)
        counts[f"discriminator_{domain}"] = forwards(getattr(made.dis, f"discriminator_{domain}"))
    learned(made, batch())
    assert {name: len(seen) for name, seen in counts.items()} == {
        f"{part}_{domain}": count
        for part, count in (("encoder", encoder), ("decoder", decoder), ("discriminator", discriminator))
        for domain in "ab"
    }


@pytest.mark.parametrize(("dis_step", "gen_step"), [(2, 3), (3, 1), (1, 2)])
def test_several_steps_come_in_order_each_on_its_own_slice(dis_step: int, gen_step: int) -> None:
    made = recipe(dis_step=dis_step, gen_step=gen_step)
    given = batch(2 * max(dis_step, gen_step))
    seen: list[Tensor] = []
    generate = made.generate

    def recorded(part: Batch, *args: Any, **options: Any) -> dict[str, Tensor]:
        seen.append(part["images_b"])
        return generate(part, *args, **options)

    made.generate = recorded
    players = []
    for player, losses in made.step(given, moment()):
        assert torch.is_grad_enabled() and made.total(losses).requires_grad
        players.append(player)
    assert players == ["dis"] * dis_step + ["gen"] * gen_step
    for images, index in zip(seen, (*range(dis_step), *range(gen_step)), strict=True):
        assert torch.equal(images, given["images_b"][2 * index : 2 * index + 2])


def test_all_losses_of_half_precision_are_float32_and_finite() -> None:
    made = recipe()
    phases = made.step(batch(), moment())
    with torch.autocast("cpu", torch.bfloat16):
        found = list(phases)
    for _, losses in found:
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        made.total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.gen.parameters())


@pytest.mark.parametrize(("size", "fitting"), [((16, 18), (16, 16)), ((15, 17), (12, 16))])
def test_images_that_would_come_back_in_another_size_are_brought_to_the_next_that_does_not(
    size: tuple[int, int], fitting: tuple[int, int]
) -> None:
    made = recipe()
    given = batch(1, *size)
    ready = made.prepare(given)
    expected = F.interpolate(given["images_a"], size=fitting, mode="bicubic")
    torch.testing.assert_close(ready["images_a"], expected)
    assert [player for player, _ in made.step(given, moment())] == ["dis", "gen"]
    columns = [*made.visualize_inputs(ready).values(), *made.visualize_outputs(ready, rng()).values()]
    assert {column.shape for column in columns} == {(1, 3, *fitting)}


@pytest.mark.parametrize(("halvings", "least"), [(0, 4), (1, 4), (2, 8)])
def test_the_smallest_images_can_be_translated_and_smaller_ones_are_the_users_mistake(
    halvings: int, least: int
) -> None:
    made = recipe(generator(num_downsamples_content=halvings, num_res_blocks=0))
    assert made.sample(made.prepare(batch(1, least, least)), rng()).shape == (1, 3, least, least)
    smaller = made.prepare(batch(1, least, least - 1))
    for run in (made.generate, made.sample, made.infer):
        with pytest.raises(UserError, match=f"images_a of {least} x .* at least {least} px") as caught:
            run(smaller, rng())
        assert (caught.value.where, caught.value.code) == ("gen", "image-too-small")


# What goes out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a2b", [True, False])
def test_inference_translates_in_either_direction_from_one_domain_alone(a2b: bool) -> None:
    made = recipe()
    made.gen.eval()
    given = batch(3)
    source = "images_a" if a2b else "images_b"
    alone = Batch({source: given[source]}, {source: given.keys[source]})
    images = made.infer(alone, rng(), a2b=a2b)
    way = "images_ab" if a2b else "images_ba"
    torch.testing.assert_close(torch.stack(images), made.generate(given, rng())[way])
    assert made.infer_names(alone, a2b=a2b) == given.keys[source]
    with pytest.raises(UserError, match=f"a2b: {str(not a2b).lower()} the data must have"):
        made.infer(alone, rng(), a2b=not a2b)


def test_there_is_a_target_only_where_files_of_both_domains_have_the_same_names_and_sizes() -> None:
    made = recipe()
    given = batch()
    assert made.target(given) is None
    assert made.target(Batch(given.tensors)) is None
    pairs = Batch(given.tensors, {name: ["./1", "./2"] for name in given.tensors})
    assert torch.equal(made.target(pairs), given["images_b"])
    assert made.target(pairs.replace(images_b=given["images_b"][..., 4:])) is None
    assert made.target(Batch({"images_a": given["images_a"]}, {"images_a": ["./1", "./2"]})) is None
    assert list(made.baselines(pairs)) == ["images_a as they are"]
    assert torch.equal(made.baselines(pairs)["images_a as they are"], given["images_a"])


def test_images_of_the_training_are_in_the_order_of_the_reference_and_in_range() -> None:
    made = recipe(generator(num_image_channels=1))
    made.gen.eval()
    nn.init.constant_(made.gen.autoencoder_b.decoder.layers[-1].conv.bias, 3.0)
    given = Batch({name: images[:, :1] for name, images in batch().tensors.items()})
    columns = {**made.visualize_inputs(given), **made.visualize_outputs(given, rng())}
    ways = ("a", "b", "aa", "bb", "ab", "ba", "aba", "bab")
    assert list(columns) == [f"images_{way}" for way in ways]
    assert all(column.shape == (2, 3, 16, 24) and column.abs().max() <= 1 for column in columns.values())
    assert columns["images_ab"].max() == 1
    torch.testing.assert_close(columns["images_ab"], made.sample(given, rng()))
