"""MUNIT: networks against formulas, losses, styles, the order of updates and draws; on networks of a few filters."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from second_way import NORMS, adaptive, content, decoded, mlp, style, weights_of
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.gradient_penalty import gradient_penalty
from imagier.models import munit
from imagier.models.munit import Discriminator, Generator, LossWeights, Recipe, random_shift
from imagier.nn.norm import NormParams
from imagier.recipe import Batch, Losses, StepContext
from imagier.train.hooks.log import tag_losses


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def generator(**options: Any) -> Generator:
    small = {"num_filters": 2, "max_num_filters": 6, "num_filters_mlp": 5, "latent_dim": 3, "num_res_blocks": 1}
    return Generator(**{**small, "num_downsamples_style": 2, **options})


def make_discriminator(**options: Any) -> Discriminator:
    small = {"num_filters": 2, "max_num_filters": 4, "num_layers": 2}
    return Discriminator(**{**small, **options})


WEIGHTS = {"gan": 1.0, "image_recon": 10.0, "style_recon": 2.0, "content_recon": 3.0, "cycle_recon": 5.0}


def recipe(gen: Generator | None = None, dis: Discriminator | None = None, **options: Any) -> Recipe:
    basic = {"gan_mode": "hinge", "loss_weight": LossWeights(**WEIGHTS)}
    return Recipe(gen=gen or generator(), dis=dis or make_discriminator(), **{**basic, **options})


def weighing(**weights: float) -> LossWeights:
    return LossWeights(**{**WEIGHTS, **weights})


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
@pytest.mark.parametrize(
    ("content_norm", "style_norm", "decoder_norm", "params", "weight_norm", "noise"),
    [
        ("instance", "none", "instance", NormParams(affine=False), "none", False),
        ("none", "instance", "none", None, "spectral", True),
        ("layer_2d", "layer_2d", "instance", NormParams(affine=True), "weight", True),
        ("instance", "none", "instance", None, "none", True),
    ],
)
@pytest.mark.parametrize(
    ("halvings", "style_halvings", "blocks", "layers", "output"), [(2, 3, 2, 2, "none"), (1, 1, 0, 4, "tanh")]
)
@pytest.mark.parametrize("random_style", [False, True])
def test_all_outputs_are_those_of_the_formulas(
    pre_act: bool,
    content_norm: str,
    style_norm: str,
    decoder_norm: str,
    params: NormParams | None,
    weight_norm: str,
    noise: bool,
    halvings: int,
    style_halvings: int,
    blocks: int,
    layers: int,
    output: str,
    random_style: bool,
) -> None:
    gen = with_some_weights(
        generator(
            num_res_blocks=blocks,
            num_mlp_blocks=layers,
            num_downsamples_content=halvings,
            num_downsamples_style=style_halvings,
            content_norm_type=content_norm,
            style_norm_type=style_norm,
            decoder_norm_type=decoder_norm,
            decoder_norm_params=params,
            weight_norm_type=weight_norm,
            output_nonlinearity=output,
            pre_act=pre_act,
            apply_noise=noise,
        )
    )
    torch.set_default_dtype(torch.float64)
    try:
        found, made = both_ways(gen, locals())
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, made)
    w = weights_of(gen, gen.reference_rules())
    inner = [name for name in w if ".layers.norm.norm." in name]
    assert bool(inner) == (params is not None and params.affine)


def both_ways(gen: Generator, o: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All outputs of a generator with the options `o`, and the same in plain functions, in the order of the draws."""
    w = weights_of(gen, gen.reference_rules())
    images = {d: torch.rand(2, 3, 16, 24) * 2 - 1 for d in "ab"}
    order = "NACNAC" if o["pre_act"] else "CNACNA"

    def codes(domain: str, x: Tensor) -> tuple[Tensor, Tensor]:
        name = f"autoencoder_{domain}"
        options = {"halvings": o["halvings"], "blocks": o["blocks"], "order": order, "norm": NORMS[o["content_norm"]]}
        return (
            content(w, f"{name}.content_encoder", x, **options),
            style(w, f"{name}.style_encoder", x, halvings=o["style_halvings"], norm=NORMS[o["style_norm"]]),
        )

    def image(domain: str, x: Tensor, code: Tensor) -> Tensor:
        name = f"autoencoder_{domain}"
        norm = adaptive(mlp(w, f"{name}.mlp", code), NORMS[o["decoder_norm"]])
        options = {"doublings": o["halvings"], "blocks": o["blocks"], "order": order, "norm": norm}
        return decoded(w, f"{name}.decoder", x, **options, output={"none": None, "tanh": torch.tanh}[o["output"]])

    random = [torch.randn(2, 3, 1, 1) for _ in "ab"] if o["random_style"] else []
    torch.manual_seed(1)
    found = gen(images["a"], images["b"], *random, within_latent_recon=True)
    torch.manual_seed(1)
    made = {}
    for d in "ab":
        made[f"content_{d}"], made[f"style_{d}"] = codes(d, images[d])
    for d in "ab":
        made[f"images_{d}{d}"] = image(d, made[f"content_{d}"], made[f"style_{d}"])
    for d, style_of_d in zip("ab", random or (made["style_a"], made["style_b"])):
        made[f"style_{d}_rand"] = style_of_d
    made["images_ba"] = image("a", made["content_b"], made["style_a_rand"])
    made["images_ab"] = image("b", made["content_a"], made["style_b_rand"])
    for way in ("ba", "ab", "aa", "bb"):
        made[f"content_{way}"], made[f"style_{way}"] = codes(way[-1], made[f"images_{way}"])
    made["images_aba"] = image("a", made["content_ab"], made["style_a"])
    made["images_bab"] = image("b", made["content_ba"], made["style_b"])
    return found, made


def test_a_generator_of_the_reference_size_has_its_numbers_of_weights() -> None:
    with torch.device("meta"):
        gen = Generator(weight_norm_type="spectral", pre_act=True)
    names = weights_of(gen, gen.reference_rules())
    assert sum(p.numel() for p in gen.parameters()) == 30_258_966
    assert (len(list(gen.parameters())), len(names)) == (204, 308)

    def indices(part: str) -> set[int]:
        prefix = f"autoencoder_a.{part}."
        return {int(name.removeprefix(prefix).partition(".")[0]) for name in names if name.startswith(prefix)}

    assert indices("style_encoder.model") == {0, 1, 2, 3, 4, 6}
    assert indices("content_encoder.model") == set(range(7))
    assert indices("decoder.decoder") == {0, 1, 2, 3, 5, 7, 8}
    assert indices("mlp.model") == {0, 1}
    assert not any("mlp" in name and "_u" in name for name in names)
    assert list(dict.fromkeys(name.split(".")[1] for name in names)) == [
        "style_encoder",
        "content_encoder",
        "decoder",
        "mlp",
    ]


@pytest.mark.parametrize(("layers", "count"), [(0, 2), (1, 2), (2, 2), (5, 5)])
def test_the_mlp_has_at_least_two_layers(layers: int, count: int) -> None:
    assert len(generator(num_mlp_blocks=layers).autoencoder_b.mlp.model) == count


@pytest.mark.parametrize("image_recon", [True, False])
@pytest.mark.parametrize("latent_recon", [True, False])
@pytest.mark.parametrize("cycle_recon", [True, False])
@pytest.mark.parametrize("within", [True, False])
def test_only_what_is_asked_for_is_made(image_recon: bool, latent_recon: bool, cycle_recon: bool, within: bool) -> None:
    gen = generator()
    a, b = batch().tensors.values()
    flags = {"image_recon": image_recon, "latent_recon": latent_recon, "cycle_recon": cycle_recon}
    styles = torch.randn(2, 2, 3, 1, 1)
    found = gen(a, b, *styles, **flags, within_latent_recon=within)
    expected = {f"{kind}_{domain}" for kind in ("content", "style") for domain in "ab"}
    expected |= {"style_a_rand", "style_b_rand", "images_ba", "images_ab"}
    if image_recon:
        expected |= {"images_aa", "images_bb"}
    if latent_recon or cycle_recon:
        expected |= {"content_ba", "content_ab", "style_ba", "style_ab"}
    if image_recon and within:
        expected |= {"content_aa", "content_bb", "style_aa", "style_bb"}
    if cycle_recon:
        expected |= {"images_aba", "images_bab"}
    assert found.keys() == expected
    full = gen(a, b, *styles, within_latent_recon=True)
    torch.testing.assert_close(found, {name: full[name] for name in found})


def test_random_styles_are_drawn_for_a_then_for_b() -> None:
    found = recipe().generate(batch(), rng(3))
    one = rng(3)
    assert torch.equal(found["style_a_rand"], torch.randn(2, 3, 1, 1, generator=one))
    assert torch.equal(found["style_b_rand"], torch.randn(2, 3, 1, 1, generator=one))


@pytest.mark.slow
def test_the_generator_is_one_graph_to_a_compiler() -> None:
    gen = generator()
    given, styles = batch(), torch.randn(2, 2, 3, 1, 1)
    compiled = torch.compile(gen, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given.tensors.values(), *styles), gen(*given.tensors.values(), *styles))


# Losses --------------------------------------------------------------------------------------------------------------


def l1(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean()


@pytest.mark.parametrize("gan_recon", [False, True])
@pytest.mark.parametrize("discriminator", [{}, {"patch_wise": False}])
def test_the_losses_of_the_generator_are_those_of_the_formulas(gan_recon: bool, discriminator: dict[str, Any]) -> None:
    weights = weighing(kl=0.1, style_recon_within=7.0, content_recon_within=11.0)
    made = recipe(dis=make_discriminator(**discriminator), loss_weight=weights, gan_recon=gan_recon)
    given = batch(2, 16, 16)
    phases = dict(made.step(given, moment()))
    losses = phases["gen"]
    out = made.generate(given, rng(), within_latent_recon=True)
    fooled = {
        way: -sum(x.mean() for x in scores) / len(scores)
        for way in ("ab", "ba", "aa", "bb")
        for scores in [made.dis.of_domain(way[-1])(out[f"images_{way}"])[0]]
    }
    expected = {
        "gan/a": (fooled["ba"] + fooled["aa"]) / 2 if gan_recon else fooled["ba"],
        "gan/b": (fooled["ab"] + fooled["bb"]) / 2 if gan_recon else fooled["ab"],
        "image_recon": l1(out["images_aa"], given["images_a"]) + l1(out["images_bb"], given["images_b"]),
        "style_recon/a": l1(out["style_ba"], out["style_a_rand"]),
        "style_recon/b": l1(out["style_ab"], out["style_b_rand"]),
        "content_recon/a": l1(out["content_ab"], out["content_a"]),
        "content_recon/b": l1(out["content_ba"], out["content_b"]),
        "style_recon_within/aa": l1(out["style_aa"], out["style_a"]),
        "style_recon_within/bb": l1(out["style_bb"], out["style_b"]),
        "content_recon_within/aa": l1(out["content_aa"], out["content_a"]),
        "content_recon_within/bb": l1(out["content_bb"], out["content_b"]),
        "kl": ((out["style_a"] ** 2).sum() + (out["style_b"] ** 2).sum()) / 2,
        "cycle_recon": l1(out["images_aba"], given["images_a"]) + l1(out["images_bab"], given["images_b"]),
    }
    torch.testing.assert_close(losses, expected)
    factors = [1, 1, 10, 2, 2, 3, 3, 7, 7, 11, 11, 0.1, 5]
    total = sum(factor * loss for factor, loss in zip(factors, expected.values(), strict=True))
    torch.testing.assert_close(made.total(losses), total)


def test_codes_that_others_should_equal_get_no_gradient() -> None:
    out = {
        f"{kind}_{way}": torch.randn(2, 3, 1, 1, requires_grad=True)
        for kind in ("style", "content")
        for way in ("a", "b", "ab", "ba", "aa", "bb", "a_rand", "b_rand")
    }
    losses = munit._latent_losses(out)
    sum(losses.values()).backward()
    for way in ("a", "b"):
        assert out[f"style_{way}"].grad is None and out[f"content_{way}"].grad is None
    for way in ("ab", "ba", "aa", "bb"):
        assert out[f"style_{way}"].grad is not None and out[f"content_{way}"].grad is not None


def test_a_weight_of_a_part_comes_on_top_of_that_of_the_whole() -> None:
    parts = {"gan_a": 0.5, "style_recon_b": 4.0, "content_recon_a": 6.0, "style_recon_aa": 8.0, "content_recon_bb": 9.0}
    made = recipe(loss_weight=LossWeights(gan=1.0, **parts))
    losses = dict(made.step(batch(), moment()))["gen"]
    expected = 1.5 * losses["gan/a"] + losses["gan/b"] + 4 * losses["style_recon/b"] + 6 * losses["content_recon/a"]
    expected = expected + 8 * losses["style_recon_within/aa"] + 9 * losses["content_recon_within/bb"]
    torch.testing.assert_close(made.total(losses), expected)


def test_losses_are_logged_under_the_names_of_the_reference() -> None:
    weights = weighing(style_recon_within=1.0)
    made = recipe(loss_weight=weights, reference_order=True)
    logged = tag_losses(dict(made.step(batch(), moment())), made.log_names)
    dis = {"gan", "gan_a", "gan_b", "consistency_reg"}
    gen = {"gan", "gan_a", "gan_b", "image_recon", "kl", "cycle_recon"}
    for kind in ("style_recon", "content_recon"):
        gen |= {kind, f"{kind}_a", f"{kind}_b", f"{kind}_within", f"{kind}_aa", f"{kind}_bb"}
    assert logged.keys() == {f"dis_update/{name}" for name in dis} | {f"gen_update/{name}" for name in gen}
    assert logged["dis_update/consistency_reg"] == 0


@pytest.mark.parametrize("reference_order", [False, True])
@pytest.mark.parametrize(
    ("weights", "gan_recon", "made_of_it"),
    [
        ({}, False, set()),
        ({}, True, {"aa"}),
        ({"style_recon_bb": 1.0}, False, {"aa", "style_aa"}),
        ({"image_recon": 1.0}, False, {"aa"}),
        ({"content_recon_b": 1.0}, False, {"style_ba"}),
        ({"cycle_recon": 1.0}, False, {"style_ba", "aba"}),
    ],
)
def test_the_generator_makes_what_losses_need(
    weights: dict[str, float], gan_recon: bool, made_of_it: set[str], reference_order: bool
) -> None:
    made = recipe(loss_weight=LossWeights(gan=1.0, **weights), gan_recon=gan_recon, reference_order=reference_order)
    found = made._generate_to_learn(batch(), rng())
    watched = {"aa": "images_aa", "style_aa": "style_aa", "style_ba": "style_ba", "aba": "images_aba"}
    expected = made_of_it | ({"style_ba"} if reference_order else set())
    assert {name for name, key in watched.items() if key in found} == expected
    for _, losses in made.step(batch(), moment()):
        made.total(losses)


def test_the_discriminators_compare_real_images_with_translations_but_not_with_reconstructions() -> None:
    made = recipe(gan_recon=True)
    given = batch()
    fake = made.generate(given, rng())
    losses = made.dis_losses(given, fake, rng())
    expected = {}
    for domain, way in (("a", "ba"), ("b", "ab")):
        discriminator = made.dis.of_domain(domain)
        real, other = discriminator(given[f"images_{domain}"])[0], discriminator(fake[f"images_{way}"])[0]
        expected[f"gan/{domain}"] = sum(F.relu(1 - x).mean() + F.relu(1 + y).mean() for x, y in zip(real, other)) / 3
    torch.testing.assert_close(losses, expected)
    made.total(losses).backward()
    assert all(p.grad is None for p in made.gen.parameters())


@pytest.mark.parametrize("discriminator", [{}, {"patch_wise": False}])
def test_the_consistency_loss_compares_features_of_images_with_those_of_mirrored_and_shifted_ones(
    discriminator: dict[str, Any],
) -> None:
    made = recipe(dis=make_discriminator(**discriminator).double(), loss_weight=weighing(consistency_reg=2.0))
    given = batch(2, 16, 16)
    given = given.replace(**{name: images.double() for name, images in given.tensors.items()})
    fake = {name: images.double() for name, images in made.generate(batch(2, 16, 16), rng()).items()}
    losses = made.dis_losses(given, fake, rng(5))
    one = rng(5)
    expected = torch.zeros((), dtype=torch.float64)
    for way in ("a", "b", "ab", "ba"):
        images = given[f"images_{way}"] if len(way) == 1 else fake[f"images_{way}"].detach()
        moved = shifted(images.flip(3), 0.1 * torch.rand(2, 2, generator=one) - 0.05)
        discriminator_of = made.dis.of_domain(way[-1])
        pairs = [
            (f, g)
            for fs, gs in zip(discriminator_of(images)[1], discriminator_of(moved)[1])
            for f, g in zip(fs, gs, strict=True)
        ]
        means = [(f.mean(dim=(2, 3)), g.mean(dim=(2, 3))) for f, g in pairs]
        expected = expected + sum((f - g).square().mean() for f, g in means) / len(pairs)
    assert len(pairs) == (1 if discriminator else 9)
    torch.testing.assert_close(losses["consistency_reg"], expected, rtol=1e-4, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(made.total(losses), losses["gan/a"] + losses["gan/b"] + 2 * losses["consistency_reg"])


def test_a_discriminator_that_cannot_tell_left_from_right_is_consistent_about_mirrored_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(munit, "random_shift", lambda images, rng: images)
    dis = make_discriminator(num_discriminators=1)
    symmetric = copy.deepcopy(dis)
    for layer in symmetric.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data += layer.weight.data.flip(3)
    given = batch(2, 17, 17)  # of such a side, a stride of 2 takes the same places from either end
    fake = {f"images_{way}": given["images_a"] for way in ("ab", "ba")}
    lopsided, same = (
        recipe(dis=one, loss_weight=weighing(consistency_reg=1.0)).dis_losses(given, fake, rng())["consistency_reg"]
        for one in (dis, symmetric)
    )
    assert same < 1e-9 < 1e-5 < lopsided


def shifted(images: Tensor, by: Tensor) -> Tensor:
    """Images seen from by[:, 0] half widths further right and by[:, 1] half heights further down."""
    height, width = images.shape[2:]
    reach = 2
    padded = F.pad(images, [reach] * 4, mode="replicate")  # half-pixel mirror of less than a pixel is the border itself
    out = torch.empty_like(images)
    for n, (dx, dy) in enumerate((by * torch.tensor([width, height]) / 2).tolist()):
        y0, x0 = int(dy // 1), int(dx // 1)
        fy, fx = dy - y0, dx - x0
        corner = padded[n, :, reach + y0 :, reach + x0 :]
        rows = (1 - fy) * corner[:, :height] + fy * corner[:, 1 : height + 1]
        out[n] = (1 - fx) * rows[:, :, :width] + fx * rows[:, :, 1 : width + 1]
    return out


def test_a_random_shift_moves_every_image_by_an_amount_of_its_own() -> None:
    images = torch.rand(5, 3, 30, 20)
    draws = torch.rand(5, 2, generator=rng(2))
    torch.testing.assert_close(random_shift(images, rng(2)), shifted(images, 0.1 * draws - 0.05), rtol=1e-4, atol=1e-4)
    assert not torch.equal(random_shift(images, rng(2)), random_shift(images, rng(3)))


@pytest.mark.parametrize("discriminator", [{}, {"patch_wise": False}])
def test_the_gradient_penalty_is_that_of_both_discriminators_at_real_images(discriminator: dict[str, Any]) -> None:
    made = recipe(dis=make_discriminator(**discriminator), loss_weight=weighing(gradient_penalty=0.5))
    given = batch(2, 16, 16)
    losses = dict(made.step(given, moment()))["dis"]
    expected = sum(gradient_penalty(made.dis.of_domain(d), given[f"images_{d}"]) for d in "ab")
    torch.testing.assert_close(losses["gradient_penalty"], expected)
    torch.testing.assert_close(made.total(losses), losses["gan/a"] + losses["gan/b"] + 0.5 * expected)


def test_the_gradient_penalty_does_not_move_singular_vectors() -> None:
    dis = make_discriminator(weight_norm_type="spectral")
    given = batch()
    after = []
    for weight in (0.0, 1.0):
        made = recipe(dis=copy.deepcopy(dis), loss_weight=weighing(gradient_penalty=weight))
        dict(made.step(given, moment()))
        after.append(dict(made.dis.named_buffers()))
    torch.testing.assert_close(*after, rtol=0, atol=0)


# Augmentation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference_order", [False, True])
@pytest.mark.parametrize("gan_recon", [False, True])
def test_the_discriminators_see_augmented_images_in_the_order_of_the_draws(
    monkeypatch: pytest.MonkeyPatch, reference_order: bool, gan_recon: bool
) -> None:
    made = recipe(aug_policy="color", gan_recon=gan_recon, reference_order=reference_order)
    given = batch()
    changed: list[Tensor] = []
    made_images: list[dict[str, Tensor]] = []
    generate = made.generate

    def recording(*args: Any, **options: Any) -> dict[str, Tensor]:
        made_images.append(generate(*args, **options))
        return made_images[-1]

    def doubled(images: Tensor, policy: str, rng: torch.Generator) -> Tensor:
        assert policy == "color"
        changed.append(images)
        return 2 * images

    made.generate = recording
    monkeypatch.setattr(munit, "augment", doubled)
    seen: list[dict[str, Tensor]] = []
    discriminate = made.discriminate
    made.discriminate = lambda images: seen.append(images) or discriminate(images)
    dict(made.step(given, moment()))

    fakes = ["aa", "bb", "ba", "ab"] if gan_recon else ["ba", "ab"]
    in_dis = fakes if reference_order else ["ba", "ab"]
    expected = [given["images_a"], given["images_b"]]
    expected += [made_images[0][f"images_{way}"] for way in in_dis]
    expected += [made_images[-1][f"images_{way}"] for way in fakes]
    torch.testing.assert_close(changed, expected)
    assert [list(images) for images in seen] == [["a", "b", *in_dis], fakes]
    for judged, before in zip(seen, (changed[: 2 + len(in_dis)], changed[2 + len(in_dis) :])):
        torch.testing.assert_close(list(judged.values()), [2 * x for x in before])


def test_other_losses_see_images_as_they_are() -> None:
    plain = recipe(loss_weight=weighing(consistency_reg=1.0))
    changing = recipe(plain.gen, plain.dis, loss_weight=weighing(consistency_reg=1.0), aug_policy="color,translation")
    given = batch()
    first, second = (dict(made.step(given, moment()))["gen"] for made in (plain, changing))
    assert first.keys() == second.keys()
    for name, loss in first.items():
        assert torch.equal(loss, second[name]) == (not name.startswith("gan/"))


def test_an_unknown_augmentation_is_the_users_mistake() -> None:
    with pytest.raises(UserError) as caught:
        recipe(aug_policy="colour")
    assert (caught.value.where, caught.value.code) == ("aug_policy", "unknown-augmentation")


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
                if gradient is not None:
                    parameter.sub_(0.01 * gradient)
    return seen, list(chain(*(network.parameters() for network in made.networks.values())))


def test_one_forward_or_two_is_the_same_for_the_same_styles_where_no_layer_has_a_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Generator, "random_style", lambda *_: torch.linspace(-1, 1, 6).view(2, 3, 1, 1))
    gen, dis = generator(), make_discriminator()
    given = batch()
    default = learned(recipe(copy.deepcopy(gen), copy.deepcopy(dis)), given)
    reference = learned(recipe(gen, dis, reference_order=True), given)
    assert reference[0]["dis"].pop("consistency_reg") == 0
    torch.testing.assert_close(default, reference)
    assert list(default[0]) == ["dis", "gen"]


@pytest.mark.parametrize(
    ("options", "weights", "encoder", "styles", "decoder", "discriminator"),
    [
        ({"reference_order": True}, {}, 1 + 2, 1 + 3, 1 + 3, 2 + 1),
        ({"reference_order": True}, {"style_recon_within": 1.0}, 1 + 3, 1 + 3, 1 + 3, 2 + 1),
        ({"reference_order": True}, {"cycle_recon": 0.0}, 1 + 2, 1 + 2, 1 + 2, 2 + 1),
        ({"reference_order": True}, {"cycle_recon": 0.0, "image_recon": 0.0}, 1 + 2, 1 + 1, 1 + 1, 2 + 1),
        ({"reference_order": True, "gan_recon": True}, {}, 1 + 2, 2 + 3, 2 + 3, 3 + 2),
        ({"reference_order": True}, {"consistency_reg": 1.0}, 1 + 2, 1 + 3, 1 + 3, 4 + 1),
        ({}, {}, 2, 3, 2, 1 + 1),
        ({"gan_recon": True}, {}, 2, 3, 2, 1 + 1),
        ({}, {"style_recon": 0.0, "content_recon": 0.0, "cycle_recon": 0.0}, 1, 2, 1, 1 + 1),
    ],
)
def test_each_network_runs_as_often_as_told(
    options: dict[str, bool],
    weights: dict[str, float],
    encoder: int,
    styles: int,
    decoder: int,
    discriminator: int,
) -> None:
    made = recipe(loss_weight=weighing(**weights), **options)
    counts: dict[str, list[None]] = {}

    def count(name: str, module: nn.Module) -> None:
        counts[name] = []
        module.register_forward_pre_hook(lambda *_: counts[name].append(None))

    expected = {}
    for domain in "ab":
        autoencoder = getattr(made.gen, f"autoencoder_{domain}")
        for part in ("style_encoder", "content_encoder", "decoder", "mlp"):
            count(f"{part}_{domain}", getattr(autoencoder, part))
            expected[f"{part}_{domain}"] = {"decoder": decoder, "mlp": styles}.get(part, encoder)
        count(f"discriminator_{domain}", made.dis.of_domain(domain))
        expected[f"discriminator_{domain}"] = discriminator
    learned(made, batch())
    assert {name: len(seen) for name, seen in counts.items()} == expected


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


@pytest.mark.parametrize("discriminator", [{}, {"patch_wise": False}])
def test_all_losses_of_half_precision_are_float32_and_finite(discriminator: dict[str, Any]) -> None:
    weights = weighing(kl=0.1, content_recon_within=1.0, consistency_reg=1.0, gradient_penalty=1.0)
    made = recipe(
        dis=make_discriminator(**discriminator),
        loss_weight=weights,
        gan_recon=True,
        aug_policy="color,translation_scale",
    )
    phases = made.step(batch(2, 16, 16), moment())
    with torch.autocast("cpu", torch.bfloat16):
        found = list(phases)
    assert [len(losses) for _, losses in found] == [4, 13]
    for player, losses in found:
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        made.total(losses).backward(inputs=list(made.networks[player].parameters()))
    for network in made.networks.values():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_images_that_would_come_back_in_another_size_are_brought_to_the_next_that_does_not() -> None:
    made = recipe()
    given = batch(1, 17, 18)
    ready = made.prepare(given)
    torch.testing.assert_close(ready["images_b"], F.interpolate(given["images_b"], size=(16, 16), mode="bicubic"))
    assert [player for player, _ in made.step(given, moment())] == ["dis", "gen"]
    columns = [*made.visualize_inputs(ready).values(), *made.visualize_outputs(ready, rng()).values()]
    assert {column.shape for column in columns} == {(1, 3, 16, 16)}
    smaller = made.prepare(batch(1, 7, 18))
    for run in (made.generate, made.sample, made.infer):
        with pytest.raises(UserError, match=r"images_a of 4 x 16 px, in multiples of 4 px, .* at least 8 px") as caught:
            run(smaller, rng())
        assert (caught.value.where, caught.value.code) == ("gen", "image-too-small")
    deep = recipe(generator(num_downsamples_style=4))
    with pytest.raises(UserError, match=r"images_b of 8 x 16 px, .* at least 16 px"):
        deep.infer(ready.replace(images_b=ready["images_b"][:, :, :8]), rng(), random_style=False)


# What goes out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a2b", [True, False])
def test_inference_makes_random_styles_from_the_content_alone(a2b: bool) -> None:
    made = recipe()
    made.gen.eval()
    given = batch(3)
    source = "images_a" if a2b else "images_b"
    alone = Batch({source: given[source]}, {source: given.keys[source]})
    images = torch.stack(made.infer(alone, rng(4), a2b=a2b))
    styles = torch.randn(3, 3, 1, 1, generator=rng(4))
    a, b = made.gen.autoencoder_a, made.gen.autoencoder_b
    from_, to = (a, b) if a2b else (b, a)
    torch.testing.assert_close(images, to.decode(from_.encode(given[source])[0], styles))
    assert not torch.equal(images, torch.stack(made.infer(alone, rng(5), a2b=a2b)))
    assert made.infer_names(alone, a2b=a2b) == given.keys[source]
    with pytest.raises(UserError, match="random_style: false") as caught:
        made.infer(alone, rng(), a2b=a2b, random_style=False)
    assert (caught.value.where, caught.value.code) == ("inference_args", "no-source-images")


def test_inference_takes_styles_from_the_other_images() -> None:
    made = recipe()
    made.gen.eval()
    given = batch(3)
    expected = made.generate(given, rng(), random_style=False)
    for a2b, way in ((True, "images_ab"), (False, "images_ba")):
        images = made.infer(given, rng(), a2b=a2b, random_style=False)
        torch.testing.assert_close(torch.stack(images), expected[way])
    names = made.infer_names(given, a2b=True, random_style=False)
    assert names == ["s/a0_style_t_b0", "s/a1_style_t_b1", "s/a2_style_t_b2"]
    flat = Batch(given.tensors, {"images_a": ["./1", "./2", "./3"], "images_b": ["./4", "./5", "./6"]})
    assert made.infer_names(flat, a2b=False, random_style=False) == ["./4_style_1", "./5_style_2", "./6_style_3"]


def test_a_sample_takes_its_style_from_what_it_should_become() -> None:
    made = recipe()
    made.gen.eval()
    given = batch()
    assert made.target(given) is None
    pairs = Batch(given.tensors, {name: ["./1", "./2"] for name in given.tensors})
    assert torch.equal(made.target(pairs), given["images_b"])
    assert made.target(pairs.replace(images_b=given["images_b"][..., 4:])) is None
    assert torch.equal(made.baselines(pairs)["images_a as they are"], given["images_a"])
    expected = made.generate(given, rng(), random_style=False)["images_ab"].clamp(-1, 1)
    torch.testing.assert_close(made.sample(given, rng()), expected)


def test_images_of_the_training_are_in_the_order_of_the_reference_and_in_range() -> None:
    made = recipe()
    made.gen.eval()
    nn.init.constant_(made.gen.autoencoder_b.decoder.layers[-1].conv.bias, 3.0)
    given = batch()
    outputs = made.visualize_outputs(given, rng(1))
    assert list(made.visualize_inputs(given)) == ["images_a", "images_b"]
    ways = ("aa", "bb", "ab", "ab in a random style", "ba", "ba in a random style", "aba", "bab")
    assert list(outputs) == [f"images_{way}" for way in ways]
    assert all(column.shape == (2, 3, 16, 24) and column.abs().max() <= 1 for column in outputs.values())
    random = made.generate(given, rng(1))
    for way in ("ab", "ba"):
        torch.testing.assert_close(outputs[f"images_{way} in a random style"], random[f"images_{way}"].clamp(-1, 1))
    torch.testing.assert_close(outputs["images_ab"], made.sample(given, rng()))
