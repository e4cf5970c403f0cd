"""Weights from references: attention by hand, the meaning of products, and what cannot fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.weight_generator import AttentionParams, HyperParams, WeightGenerator

RNG = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG)


def generator(
    widths: tuple[int, ...] = (2, 4, 8, 8),
    *,
    num_references: int = 1,
    embed: dict[str, Any] | None = None,
    **hyper: Any,
) -> WeightGenerator:
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_hyper_layers": 2, "activation_norm_type": "instance", "weight_norm_type": "none"}
    made = WeightGenerator(
        widths=widths,
        label_channels=3,
        image_channels=3,
        num_references=num_references,
        kernel_size=3,
        spade_kernel_size=1,
        params=HyperParams(**(options | hyper)),
        embed=EmbedParams(**({"num_filters": 2, "max_num_filters": widths[-1], "num_downsamples": 2} | (embed or {}))),
    )
    return made.eval()


SEVERAL = AttentionParams(num_filters=2, num_downsamples=1)


def test_attention_is_a_softmax_over_all_places_of_all_references() -> None:
    made = generator(num_references=2, attention=SEVERAL)
    images, labels, label = drawn(1, 2, 3, 16, 8), drawn(1, 2, 3, 16, 8), drawn(1, 3, 16, 8)
    atn = made.attention_module
    assert atn is not None
    with torch.no_grad():
        shares = atn(labels, label)
        keys = [atn.atn_key[0](atn.atn_key_first(labels[:, k])) for k in range(2)]
        query = atn.atn_query[0](atn.atn_query_first(label))
        found = made(images, labels, label)
    energy = torch.tensor(
        [[sum(key[0, :, y, x] * query[0, :, 5, 2]).item() for y in range(8) for x in range(4)] for key in keys]
    )
    torch.testing.assert_close(shares[0, :, 5 * 4 + 2], energy.flatten().softmax(dim=0), rtol=1e-4, atol=1e-6)
    assert found.attention is not None and found.chosen is not None
    torch.testing.assert_close(found.attention.sum(dim=1), torch.ones(1, 8, 4))
    total = [shares[0, :32].sum(), shares[0, 32:].sum()]
    assert found.chosen.tolist() == [int(total[1] > total[0])]


def test_the_order_of_references_does_not_matter_nor_does_one_that_comes_twice_as_often_as_all() -> None:
    made = generator(num_references=3, attention=SEVERAL).double()
    images, labels, label = (drawn(*size, 3, 16, 8).double() for size in ((2, 3), (2, 3), (2,)))
    with torch.no_grad():
        first, turned = made(images, labels, label), made(images.flip(1), labels.flip(1), label)
        doubled = made(images.repeat(1, 2, 1, 1, 1), labels.repeat(1, 2, 1, 1, 1), label)
    for other in (turned, doubled):
        torch.testing.assert_close(other.start, first.start, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.maps, first.maps, rtol=1e-3, atol=1e-4)
    assert first.attention is not None and turned.attention is not None and first.chosen is not None
    torch.testing.assert_close(turned.attention.flip(1), first.attention, rtol=1e-4, atol=1e-6)
    assert torch.equal(2 - first.chosen, turned.chosen)  # type: ignore[arg-type]


def test_products_sum_each_image_channel_over_the_places_that_each_label_channel_claims() -> None:
    made, of_image, of_label = generator(), drawn(1, 4, 3, 2), drawn(1, 5, 3, 2) * 3
    found = made._features(of_image, of_label)
    shares = of_label[0].exp() / of_label[0].exp().sum(dim=0)
    expected = [[(of_image[0, a] * shares[b]).sum().item() for b in range(5)] for a in range(4)]
    torch.testing.assert_close(found[0], torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["mul", "concat", "none"])
def test_labels_of_references_count_if_and_only_if_they_are_used(method: str) -> None:
    made = generator(method_to_use_ref_labels=method)
    images, labels, label = drawn(1, 1, 3, 16, 8), drawn(1, 1, 3, 16, 8), drawn(1, 3, 16, 8)
    with torch.no_grad():
        one, other = made(images, labels, label), made(images, labels + drawn(1, 1, 3, 16, 8), label)
    assert torch.equal(one.for_norms[0][0].weight, other.for_norms[0][0].weight) is (method == "none")


@pytest.mark.parametrize("norm", ["instance", "batch", "layer_2d"])
def test_the_encoder_of_labels_has_another_epsilon_and_an_average_the_usual_one(norm: str) -> None:
    made = generator(activation_norm_type=norm)

    def eps(network: nn.Module) -> set[float]:
        return {module.eps for module in network.modules() if hasattr(module, "eps")}  # type: ignore[misc]

    assert eps(made.ref_label_up) == eps(made.ref_label_first) == {0.1} and eps(made.ref_img_down) == {1e-5}
    made.enter_average()
    assert eps(made.ref_label_up) == eps(made.ref_label_down) == eps(made.ref_label_first) == {1e-5}


@pytest.mark.parametrize(
    ("options", "where", "code"),
    [
        ({"num_hyper_layers": 3}, "hyper.num_hyper_layers", "too-deep"),
        ({"widths": (2, 4, 4, 4)}, "hyper.num_hyper_layers", "misfit"),
        ({"widths": (2, 4, 6, 6), "is_hyper_embed": False}, "hyper.num_hyper_layers", "misfit"),
        (
            {"widths": (2, 4, 4, 4), "is_hyper_embed": False, "hyper_block_order": "CNA"},
            "hyper.num_hyper_layers",
            "misfit",
        ),
        ({"is_hyper_spade": False}, "hyper.is_hyper_embed", "needs-key"),
        ({"embed": {"arch": "unet"}}, "embed.arch", "misfit"),
        ({"num_references": 2}, "hyper.attention", "needs-key"),
        (
            {"num_references": 2, "attention": AttentionParams(num_downsamples=3)},
            "hyper.attention.num_downsamples",
            "too-deep",
        ),
    ],
    ids=["depth", "equal widths", "other widths", "order", "embed alone", "unet", "no attention", "late attention"],
)
def test_weights_that_would_not_fit_are_the_users_mistake(options: dict[str, Any], where: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        generator(**options)
    assert (caught.value.where, caught.value.code) == (where, code)


@pytest.mark.parametrize(
    "options",
    [{"widths": (2, 4, 4, 4), "is_hyper_embed": False}, {"widths": (2, 4, 4, 4), "embed": {"arch": "encoder"}}],
    ids=["no embed", "encoder"],
)
def test_the_width_may_stay_where_only_norms_or_an_encoder_are_generated(options: dict[str, Any]) -> None:
    made = generator(**options)
    found = made(drawn(1, 1, 3, 16, 8), drawn(1, 1, 3, 16, 8), drawn(1, 3, 16, 8))
    assert [part.weight.shape[1] for part in found.for_norms[1]] == [8, 8, 8]
