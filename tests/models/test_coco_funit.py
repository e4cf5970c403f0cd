"""COCO-FUNIT's generator: against formulas, against FUNIT's, and under FUNIT's recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from few_shot import Formulas, batch, randomize
from torch import Tensor, nn

from imagier.models import funit
from imagier.models.coco_funit import Generator
from imagier.nn.average import ModelAverage
from imagier.nn.reference_names import reference_names
from imagier.recipe import StepContext


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


SMALL = {"num_filters": 2, "num_filters_mlp": 5, "style_dims": 3, "num_downsamples_style": 2}


def generator(**options: Any) -> Generator:
    return Generator(**{**SMALL, "usb_dims": 4, **options})


def alive(**options: Any) -> Generator:
    """A generator in which some units of every layer pass their ReLU, in double precision and eval mode."""
    gen = generator(**options)
    randomize(gen)
    with torch.no_grad():
        for layer in (*gen.mlp.model, *gen.mlp_content.model, *gen.mlp_style.model):
            layer.bias.add_(0.5)
    return gen


def make_images() -> tuple[Tensor, Tensor]:
    """Content and style, in double precision."""
    draws = torch.Generator().manual_seed(1)
    content, style = torch.rand(2, 2, 3, 16, 24, generator=draws, dtype=torch.float64) * 2 - 1
    return content, style


def test_a_generator_of_the_reference_size_has_its_numbers_of_parameters() -> None:
    with torch.device("meta"):
        gen = Generator(num_filters=32, num_downsamples_content=4, num_downsamples_style=5)
    assert sum(p.numel() for p in gen.parameters()) == 31_666_883
    assert len(list(gen.parameters())) == 129
    assert gen.mlp_content.model[0].weight.shape == (256, 512)
    assert gen.mlp_style.model[0].weight.shape == (256, 1088)


def test_beside_funits_weights_there_are_nine_and_none_is_missing_or_has_another_shape() -> None:
    def shapes(gen: nn.Module) -> dict[str, torch.Size]:
        state = gen.state_dict()
        return {theirs: state[ours].shape for ours, theirs in reference_names(state, gen.reference_rules()).items()}

    found, of_funit = shapes(generator()), shapes(funit.Generator(**SMALL))
    assert {name: found[name] for name in of_funit} == of_funit
    more = {name: tuple(shape) for name, shape in found.items() if name not in of_funit}
    assert more == {
        "generator.usb": (1, 4),
        "generator.mlp_content.model.0.layers.conv.weight": (5, 8),
        "generator.mlp_content.model.0.layers.conv.bias": (5,),
        "generator.mlp_content.model.1.layers.conv.weight": (3, 5),
        "generator.mlp_content.model.1.layers.conv.bias": (3,),
        "generator.mlp_style.model.0.layers.conv.weight": (5, 7),
        "generator.mlp_style.model.0.layers.conv.bias": (5,),
        "generator.mlp_style.model.1.layers.conv.weight": (3, 5),
        "generator.mlp_style.model.1.layers.conv.bias": (3,),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_downsamples_content": 1, "num_res_blocks": 0, "num_mlp_blocks": 5, "usb_dims": 1},
        {"num_downsamples_style": 4, "weight_norm_type": "spectral", "style_dims": 2},
        {"num_mlp_blocks": 1, "weight_norm_type": "weight"},
    ],
    ids=str,
)
def test_the_generator_computes_its_formula(options: dict[str, Any]) -> None:
    gen = alive(**options)
    formulas = Formulas(gen)
    images, others = make_images()
    content = formulas.content(images, options.get("num_downsamples_content", 2))
    from_content = formulas.mlp(content.flatten(2).mean(dim=2), "mlp_content")
    assert from_content.any()
    usb = formulas.state["generator.usb"].repeat(2, 1)
    made = gen(images, others)
    assert list(made) == ["images_trans", "images_recon"]
    for name, shown in (("images_trans", others), ("images_recon", images)):
        from_style = formulas.mlp(torch.cat([formulas.style(shown), usb], dim=1), "mlp_style")
        code = formulas.mlp(from_style * from_content, "mlp")
        torch.testing.assert_close(made[name], formulas.decoded(content, code))


def test_where_the_content_says_one_and_the_styles_pass_it_is_funit() -> None:
    gen = alive(num_filters_mlp=3)
    plain = funit.Generator(**{**SMALL, "num_filters_mlp": 3}).double()
    with torch.no_grad():
        gen.style_encoder.model[-1].bias.fill_(10)  # positive styles pass the ReLUs
        for layer in (*gen.mlp_content.model, *gen.mlp_style.model):
            layer.weight.zero_()
            layer.bias.zero_()
        gen.mlp_content.model[1].bias.fill_(1)
        for layer in gen.mlp_style.model:
            layer.weight[:, :3].copy_(torch.eye(3))
    state = gen.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    torch.testing.assert_close(gen(*make_images()), plain(*make_images()))


def test_the_same_style_modulates_each_content_in_its_own_way() -> None:
    gen = alive()
    seen: list[Tensor] = []
    gen.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images, others = make_images()
    gen(images, others[:1].expand(2, -1, -1, -1), recon=False)
    assert not torch.allclose(seen[0][0], seen[0][1])
    assert (seen[0] >= 0).all()


def test_the_content_encoder_also_learns_through_the_code() -> None:
    gen = alive()
    content = gen.content_encoder(make_images()[0]).detach().requires_grad_()
    codes: list[Tensor] = []
    gen.mlp.register_forward_hook(lambda *args: codes.append(args[-1]))
    gen.code(content, gen.style_encoder(make_images()[1]))
    assert torch.autograd.grad(codes[0].sum(), content)[0].any()


def test_without_reconstruction_the_translation_is_the_same() -> None:
    gen = generator().double()
    assert gen(*make_images(), recon=False).keys() == {"images_trans"}
    assert torch.equal(gen(*make_images(), recon=False)["images_trans"], gen(*make_images())["images_trans"])


def test_the_universal_bias_starts_as_a_normal_draw_and_is_learned_and_averaged() -> None:
    wide = generator(usb_dims=4096).usb
    assert abs(wide.mean()) < 0.1 and abs(wide.std() - 1) < 0.05
    gen = generator()
    average = ModelAverage(gen, beta=0.75, start_iteration=0)
    before = gen.usb.detach().clone()
    with torch.no_grad():
        gen.usb.add_(1)
    average.update()
    torch.testing.assert_close(average.network.usb, before + 0.25)


def test_one_iteration_under_funits_recipe_gives_every_weight_a_gradient() -> None:
    dis = funit.Discriminator(num_classes=5, num_filters=2, num_layers=2, weight_norm_type="spectral")
    weights = funit.LossWeights(gan=1.0, feature_matching=1.0, image_recon=0.1)
    made = funit.Recipe(gen=generator(), dis=dis, gan_mode="hinge", loss_weight=weights)
    for player, losses in made.step(batch(), StepContext(step=0, epoch=0, rng=torch.Generator())):
        network = made.networks[player]
        made.total(losses).backward(inputs=list(network.parameters()))
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert made.gen.usb.grad.any()
