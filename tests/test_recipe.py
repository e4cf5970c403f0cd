"""The contract: totals, weights, and what all methods do to images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.recipe import Batch, Losses, Recipe, StepContext, fitted, shown


class Weighing(Recipe):
    """Nothing but weights."""

    def __init__(self, **weights: float) -> None:
        self.loss_weight = weights

    def step(self, batch: Batch, now: StepContext) -> Iterator[tuple[str, Losses]]:
        raise NotImplementedError

    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        raise NotImplementedError

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError


def test_the_total_adds_what_has_a_weight_and_parts_have_their_own_on_top() -> None:
    made = Weighing(gan=2.0, gan_a=0.5, l1=10.0, kl=0.0)
    losses = {"gan/a": torch.tensor(1.0), "gan/b": torch.tensor(10.0), "l1": torch.tensor(0.1), "kl": torch.tensor(1e6)}
    assert made.total(losses).item() == pytest.approx(2.5 * 1 + 2 * 10 + 10 * 0.1)


def test_a_player_must_have_something_to_learn() -> None:
    with pytest.raises(AssertionError, match="none of gan, kl has a weight"):
        Weighing(gan=0.0, kl=0.0).total({"gan": torch.tensor(1.0), "kl": torch.tensor(1.0)})


@pytest.mark.parametrize(
    ("weights", "losses", "message"),
    [
        ({"gan": 0.0}, ["gan"], "loss_weight.gan must be more than 0"),
        ({"gan": 0.0, "gan_a": 1.0, "gan_b": 0.0}, ["gan/a", "gan/b"], "loss_weight.gan or gan_b must be more than 0"),
        ({"gan": 0.0, "gan_a": 1.0, "gan_b": 1.0}, ["gan/a", "gan/b"], None),
        ({"gan": 1.0}, ["gan"], None),
    ],
)
def test_a_weight_that_a_discriminator_cannot_do_without_is_named(
    weights: dict[str, float], losses: list[str], message: str | None
) -> None:
    made = Weighing(**weights)
    if message is None:
        made.check_weights(*losses)
    else:
        with pytest.raises(UserError) as caught:
            made.check_weights(*losses)
        assert str(caught.value) == f"{message}, or the discriminator would learn nothing"


def test_images_to_look_at_have_three_channels_and_end_at_1() -> None:
    gray = torch.tensor([-3.0, 0.25, 3.0], dtype=torch.bfloat16).view(1, 1, 1, 3)
    seen = shown(gray)
    assert seen.dtype == torch.float32
    assert seen[0, :, 0].tolist() == [[-1, 0.25, 1]] * 3
    colors = torch.rand(2, 3, 4, 5)
    assert torch.equal(shown(colors), colors)


def test_images_and_labels_are_brought_to_multiples_each_in_its_way_and_what_fits_stays() -> None:
    given = Batch(
        {"images": torch.rand(1, 3, 9, 14), "label": torch.rand(1, 2, 9, 14), "other": torch.rand(1, 3, 8, 12)}
    )
    ready = fitted(given, ("label", "images", "other", "not there"), multiple=4, smallest_px=4)
    torch.testing.assert_close(ready["images"], F.interpolate(given["images"], size=(8, 12), mode="bicubic"))
    assert torch.equal(ready["label"], F.interpolate(given["label"], size=(8, 12), mode="nearest"))
    assert ready["other"] is given["other"]
    assert given["images"].shape == (1, 3, 9, 14)


@pytest.mark.parametrize(("multiple", "smallest", "least"), [(4, 1, 4), (4, 5, 8), (1, 5, 5), (8, 8, 8)])
def test_the_least_side_that_is_told_is_the_least_that_fits(multiple: int, smallest: int, least: int) -> None:
    ready = fitted(Batch({"x": torch.rand(1, 3, least, 9)}), ["x"], multiple=multiple, smallest_px=smallest)
    assert ready["x"].shape[2] == least
    with pytest.raises(UserError, match=rf"^x of 9 x {least - 1} px: .* from {least} px on"):
        fitted(Batch({"x": torch.rand(1, 3, 9, least - 1)}), ["x"], multiple=multiple, smallest_px=smallest)
