"""InfoNCE against its definition, one sample at a time, alone and on two ranks."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import info_nce_ranks
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from imagier.errors import UserError
from imagier.losses.info_nce import LARGEST_LOGIT_SCALE, InfoNCE


def features(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, *shape, generator=rng)
    return a, b


def by_hand(a: list[list[float]], b: list[list[float]], temperature: float) -> float:
    """Mean of -log of the share that the right partner has among exp(cosine / temperature)."""

    def cosine(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y)) / math.hypot(*x) / math.hypot(*y)

    losses = []
    for i, x in enumerate(a):
        shares = [math.exp(cosine(x, y) / temperature) for y in b]
        losses.append(-math.log(shares[i] / sum(shares)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_it_is_the_definition_in_one_direction_and_the_sum_of_both(temperature: float) -> None:
    a, b = features(5, 7)
    there, back = by_hand(a.tolist(), b.tolist(), temperature), by_hand(b.tolist(), a.tolist(), temperature)
    one = InfoNCE(temperature=temperature, single_direction=True)
    assert one(a, b).item() == pytest.approx(there, rel=1e-4)
    assert InfoNCE(temperature=temperature)(a, b).item() == pytest.approx(there + back, rel=1e-4)


def test_images_are_compared_at_every_place_or_by_their_means() -> None:
    a, b = features(4, 3, 2, 2)
    flat = InfoNCE()(a, b)
    torch.testing.assert_close(flat, InfoNCE()(a.reshape(4, 12), b.reshape(4, 12)))
    means = InfoNCE(flatten=False)(a, b)
    torch.testing.assert_close(means, InfoNCE()(a.mean(dim=(2, 3)), b.mean(dim=(2, 3))))
    assert flat != means
    vectors = features(4, 6)
    assert torch.equal(InfoNCE(flatten=False)(*vectors), InfoNCE()(*vectors))


def test_size_does_not_matter_and_nothing_is_as_far_as_anything() -> None:
    a, b = features(4, 6)
    torch.testing.assert_close(InfoNCE()(3 * a, 0.1 * b), InfoNCE()(a, b))
    nothing = torch.zeros_like(a).requires_grad_()
    loss = InfoNCE(single_direction=True)(nothing, b)
    assert loss.item() == pytest.approx(math.log(4), rel=1e-5)
    assert torch.autograd.grad(loss, nothing)[0].isfinite().all()


def test_the_temperature_is_learned_if_wanted_and_stays_in_its_range() -> None:
    a, b = features(4, 6)
    tested = InfoNCE()
    assert tested.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    tested(a, b).backward()
    assert tested.logit_scale.grad is not None
    assert not InfoNCE(learn_temperature=False).logit_scale.requires_grad
    for value, expected in ((9.0, LARGEST_LOGIT_SCALE), (-1.0, 0.0)):
        tested.logit_scale.data.fill_(value)
        tested.eval()(a, b)
        assert tested.logit_scale.item() == value, "looking at a loss writes nothing"
        tested.train()(a, b)
        assert tested.logit_scale.item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.0, 0.0099, 1.01, float("nan")])
def test_a_temperature_outside_its_range_is_told(temperature: float) -> None:
    with pytest.raises(UserError, match=r"give a number from 0\.01 to 1"):
        InfoNCE(temperature=temperature)
    for allowed in (0.01, 1.0):
        tested = InfoNCE(temperature=allowed)
        tested(*features(4, 6))
        assert math.exp(-tested.logit_scale.item()) == pytest.approx(allowed)


def test_samples_have_losses_of_their_own_whose_mean_it_is() -> None:
    a, b = features(4, 6)
    tested = InfoNCE()
    rows = tested.per_sample(a, b)
    assert rows.shape == (4,)
    torch.testing.assert_close(rows.mean(), tested(a, b))


def test_similarities_are_computed_in_float32_under_autocast() -> None:
    a, b = features(4, 6)
    full = InfoNCE()(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(InfoNCE()(a, b), full)


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_on_one_rank_the_samples_of_all_ranks_are_its_own(group_of_one: None) -> None:
    a, b = (x.requires_grad_() for x in features(4, 6))
    gathered, alone = InfoNCE()(a, b), InfoNCE(gather_distributed=False)(a, b)
    assert torch.equal(gathered, alone)
    for found, expected in zip(torch.autograd.grad(gathered, (a, b)), torch.autograd.grad(alone, (a, b))):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_two_ranks_tell_the_samples_of_both_apart_and_have_the_gradient_of_the_whole(tmp_path: Path) -> None:
    script = Path(info_nce_ranks.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = info_nce_ranks.loss_and_gradients(*info_nce_ranks.samples())
    torch.testing.assert_close((parts[0]["loss"] + parts[1]["loss"]) / 2, alone["loss"])
    for name in ("a", "b"):
        # Each rank's loss is a mean over its half of the samples.
        torch.testing.assert_close(torch.cat([part[name] for part in parts]) / 2, alone[name])
