"""Which discriminator judges what, in which order, and the two kinds of discriminator with their options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from second_way import block, leaky, weights_of
from torch import Tensor

from imagier.errors import UserError
from imagier.models import munit, unit
from imagier.nn.domain_discriminators import DomainDiscriminators

SMALL = {"num_filters": 2, "max_num_filters": 4, "num_layers": 2}
RESIDUAL = {**SMALL, "aggregation": "pool"}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images_of(*ways: str) -> dict[str, Tensor]:
    return {way: torch.randn(2, 3, 32, 48, dtype=torch.float64) for way in ways}


def kinds() -> list[DomainDiscriminators]:
    """UNIT's and MUNIT's patch discriminators, and the residual discriminators of both."""
    return [
        unit.Discriminator(**SMALL).double(),
        munit.Discriminator(**SMALL).double(),
        unit.Discriminator(patch_dis=False, **RESIDUAL).double(),
        munit.Discriminator(patch_wise=False, **RESIDUAL).double(),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_the_last_letter_of_a_way_is_the_domain_whose_discriminator_judges_it(kind: int) -> None:
    discriminators = kinds()[kind]
    given = images_of("aa", "a", "ab", "ba", "b", "bb")
    verdict = discriminators(given)
    for way, images in given.items():
        discriminator = discriminators.discriminator_a if way.endswith("a") else discriminators.discriminator_b
        scores, features = discriminator(images)
        torch.testing.assert_close(verdict[f"out_{way}"], scores)
        torch.testing.assert_close(verdict[f"fea_{way}"], features)
    assert len(verdict) == 12
    assert discriminators(images_of("ab")).keys() == {"out_ab", "fea_ab"}


def test_translations_are_judged_first_then_real_images_then_reconstructions() -> None:
    discriminators = munit.Discriminator(**SMALL).double()
    seen: list[Tensor] = []
    for discriminator in (discriminators.discriminator_a, discriminators.discriminator_b):
        discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    given = images_of("a", "b", "aa", "bb", "ab", "ba")
    discriminators(given)
    assert [next(way for way in given if given[way] is x) for x in seen] == ["ab", "ba", "a", "b", "aa", "bb"]


@pytest.mark.parametrize(("kernel", "norm"), [(3, "none"), (4, "instance")])
@pytest.mark.parametrize("shared", [True, False])
def test_scores_of_patch_discriminators_are_those_of_the_formulas(kernel: int, norm: str, shared: bool) -> None:
    module = unit if shared else munit
    options = {"kernel_size": kernel, "activation_norm_type": norm, "num_discriminators": 2, "num_image_channels": 1}
    discriminators = module.Discriminator(**SMALL, **options).double()
    weights = weights_of(discriminators, discriminators.reference_rules())
    x = torch.randn(2, 1, 48, 40, dtype=torch.float64)
    scores, features = discriminators({"ab": x})["out_ab"], discriminators({"ab": x})["fea_ab"]

    def normal(w: dict[str, Tensor], name: str, y: Tensor) -> Tensor:
        return F.instance_norm(y, weight=w[f"{name}.weight"], bias=w[f"{name}.bias"]) if norm == "instance" else y

    for scale in range(2):
        name = "discriminator_b.discriminator" if shared else f"discriminator_b.discriminators.{scale}"
        y = x if scale == 0 else F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)
        for layer, stride in enumerate((2, 2, 1)):
            y = block(
                weights, f"{name}.layer{layer}.0", y, padding=(kernel - 1) // 2, stride=stride, norm=normal, act=leaky
            )
            torch.testing.assert_close(features[scale][layer], y)
        torch.testing.assert_close(scores[scale], block(weights, f"{name}.layer3.0", y, padding=(kernel - 1) // 2))


@pytest.mark.parametrize("module", [unit, munit])
def test_patch_discriminators_have_three_scales_and_kernels_of_three_unless_told_otherwise(module: Any) -> None:
    verdict = module.Discriminator(num_filters=2)({"a": torch.randn(1, 3, 128, 128)})
    assert [tuple(x.shape[-2:]) for x in verdict["out_a"]] == [(8, 8), (4, 4), (2, 2)]
    assert [x.shape[1] for x in verdict["fea_a"][0]] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(("module", "discriminators"), [(unit, 1), (munit, 3)])
def test_a_power_iteration_is_done_for_each_scale_where_they_share_weights(module: Any, discriminators: int) -> None:
    made = module.Discriminator(weight_norm_type="spectral", **SMALL).double()
    assert len(made.discriminator_a.discriminators) == discriminators
    spectral = made.discriminator_a.discriminators[0].layers[1].conv.spectral
    matrix, u = made.discriminator_a.discriminators[0].layers[1].conv.weight.flatten(1), spectral.u.clone()
    made(images_of("a"))
    for _ in range(3 if module is unit else 1):
        v = F.normalize(matrix.T @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    torch.testing.assert_close(spectral.u, u.detach())


def test_discriminators_of_the_reference_size_have_its_numbers_of_weights() -> None:
    patch = {"num_filters": 24, "max_num_filters": 64, "kernel_size": 4, "weight_norm_type": "spectral"}
    with torch.device("meta"):
        shared = unit.Discriminator(**patch)
        separate = munit.Discriminator(num_filters=32, num_layers=6, weight_norm_type="spectral")
        residual = munit.Discriminator(num_filters=32, num_layers=6, weight_norm_type="spectral", patch_wise=False)
    for discriminators, numbers in (
        (shared, (401_298, 24, 48)),
        (separate, (37_756_806, 96, 192)),
        (residual, (32_322_498, 76, 144)),
    ):
        parameters = list(discriminators.parameters())
        names = weights_of(discriminators, discriminators.reference_rules())
        assert (sum(p.numel() for p in parameters), len(parameters), len(names)) == numbers


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (unit, {"patch_dis": False, "kernel_size": 3}),
        (munit, {"patch_wise": False, "num_discriminators": 3}),
        (unit, {"first_kernel_size": 1}),
        (unit, {"patch_dis": True, "aggregation": "pool"}),
        (munit, {"padding_mode": "zeros"}),
        (munit, {"order": "pre_act"}),
        (munit, {"anti_aliased": False}),
    ],
)
def test_an_option_of_the_other_kind_of_discriminator_is_the_users_mistake(
    module: Any, options: dict[str, Any]
) -> None:
    key = list(options)[-1]
    with pytest.raises(UserError) as caught:
        module.Discriminator(**SMALL, **options)
    assert (caught.value.where, caught.value.code) == (key, "option-without-effect")


def test_all_options_of_the_residual_discriminator_reach_it() -> None:
    made = unit.Discriminator(
        patch_dis=False,
        num_image_channels=1,
        num_filters=2,
        max_num_filters=4,
        num_layers=2,
        activation_norm_type="instance",
        weight_norm_type="spectral",
        first_kernel_size=5,
        padding_mode="reflect",
        aggregation="pool",
        order="CNACNA",
        anti_aliased=True,
    )
    names = weights_of(made, made.reference_rules())
    assert names["discriminator_a.model.0.layers.conv.weight_orig"].shape == (2, 1, 5, 5)
    assert "discriminator_b.model.2.kernel" in names and "discriminator_a.classifier.weight" in names
    assert "discriminator_a.model.1.conv_block_0.layers.norm.weight" in names
    assert not any("model.5" in name for name in names)
    block_of_a = made.discriminator_a.model[1].block_0
    assert block_of_a.conv.padding_mode == "reflect" and type(block_of_a).__name__ == "ConvNormAct"
