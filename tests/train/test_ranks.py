"""Two ranks train as one process does with the batch of both."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import rank_scores
import ranks
import torch
import torch.distributed as dist

from imagier.errors import UserError
from imagier.train import runtime as runtimes
from imagier.train.hooks.baselines import SAMPLES
from imagier.train.runtime import Runtime


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what both ranks had at the end of every training."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(Path(ranks.__file__), str(folder))
    return folder


def torchrun(script: Path, *words: str, nproc: int = 2) -> str:
    """Runs a script in several gloo processes; returns what they wrote."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}", str(script)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def loaded(folder: Path, name: str, rank: int) -> dict[str, Any]:
    return torch.load(folder / f"{name}_{rank}.pt", weights_only=True)


@pytest.mark.parametrize("name", ranks.COMBINATIONS)
def test_both_ranks_hold_the_same_bits(two_ranks: Path, name: str) -> None:
    assert loaded(two_ranks, name, 0)["digest"] == loaded(two_ranks, name, 1)["digest"]


@pytest.mark.parametrize("name", ranks.COMBINATIONS)
def test_two_ranks_equal_one_process_with_the_whole_batch(two_ranks: Path, name: str) -> None:
    """Weights, averages and the statistics of synchronized batch norms."""
    alone = ranks.train(Runtime(torch.device("cpu")), **ranks.COMBINATIONS[name])
    together = loaded(two_ranks, name, 0)["state"]
    for player in alone:
        for part in ("network", "average"):
            expected = alone[player].get(part, {})
            expected = expected.get("network", expected)
            found = together[player].get(part, {})
            found = found.get("network", found)
            for key, tensor in expected.items():
                torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def test_the_penalty_and_the_clipping_change_the_training() -> None:
    """Else the tests above would say nothing about them."""
    digests = {ranks.digest(ranks.train(Runtime(torch.device("cpu")), **o)) for o in ranks.COMBINATIONS.values()}
    assert len(digests) == len(ranks.COMBINATIONS)


def test_all_ranks_gather_the_rows_of_all_in_their_order(two_ranks: Path) -> None:
    """The first time, the first rank has none."""
    none, one, two = (ranks.own_rows(count) for count in range(3))
    for rank in (0, 1):
        first, second = loaded(two_ranks, "gathered", rank)["rows"]
        assert torch.equal(first, torch.cat([*none, *one]))
        assert torch.equal(second, torch.cat([*one, *two]))
    assert torch.equal(Runtime(torch.device("cpu")).all_gather(two), torch.cat(two))


def test_all_ranks_hold_the_same_loss_of_a_player_that_learns_nothing_now(two_ranks: Path) -> None:
    assert [loaded(two_ranks, "gathered", rank)["loss"].tolist() for rank in (0, 1)] == [[0.5], [0.5]]


@pytest.mark.parametrize("samples", ranks.CALIBRATED)
def test_batch_norms_of_the_average_see_as_many_batches_on_one_rank_as_on_the_other(
    two_ranks: Path, samples: int
) -> None:
    """Or else one of them would wait for ever. Two ranks take 2 samples each: of 5, one batch; of 9, two.

    Of fewer than 4, which are not a batch, both take the first 2, or the only one.
    """
    one, other = (loaded(two_ranks, f"calibrated{samples}", rank) for rank in (0, 1))
    batches, mean = max(1, samples // 4), one["0.running_mean"][0].item()
    assert int(one["0.num_batches_tracked"]) == batches
    if samples < 4:
        assert mean == pytest.approx(sum(at**2 for at in range(min(samples, 2))) / min(samples, 2))
    else:  # of 4 n + 1 samples, the mean leaves out one
        left_out = sum(at**2 for at in range(samples)) - 4 * batches * mean
        assert any(left_out == pytest.approx(at**2, abs=1e-3) for at in range(samples))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_batch_norms_of_the_average_see_random_samples_of_the_whole_set_each_once() -> None:
    """20 of 100; the values that they see are the squares of the indices."""
    found = ranks.calibrated(Runtime(torch.device("cpu")), 100, shuffle=True)
    assert int(found["0.num_batches_tracked"]) == 10
    mean = found["0.running_mean"][0].item()
    assert mean > 19**2, "not the first ones"
    assert abs(mean - 33**2 * 3) < 4 * 2950 / 20**0.5, "within 4 standard errors of the mean of the set"
    assert torch.equal(
        found["0.running_mean"], ranks.calibrated(Runtime(torch.device("cpu")), 100, shuffle=True)["0.running_mean"]
    )


@pytest.mark.parametrize("world", [1, 2, 3])
def test_scores_and_baselines_do_not_depend_on_ranks_and_batches(tmp_path: Path, world: int) -> None:
    """With three ranks the last of 7 held-out samples is a batch of one rank alone."""
    alone = rank_scores.score(Runtime(torch.device("cpu")), batch_size=9)
    assert len(set(alone["drawn"])) == SAMPLES < SAMPLES + 90
    assert min(alone["drawn"]) < 60 and max(alone["drawn"]) > SAMPLES + 30, "from the whole set"
    assert list(alone["scores"]) == ["generator", "mean color", "mean color of each class"]
    torchrun(Path(rank_scores.__file__), str(tmp_path), nproc=world)
    found = torch.load(tmp_path / f"scores{world}.pt", weights_only=True)
    assert found["drawn"] == alone["drawn"]
    for name, scores in alone["scores"].items():
        assert found["scores"][name] == pytest.approx(scores, rel=1e-5, nan_ok=True)
    for name, (values, shares) in alone["classes"].items():
        assert found["classes"][name][0] == pytest.approx(values, rel=1e-5, nan_ok=True)
        assert found["classes"][name][1] == pytest.approx(shares)


def test_a_rank_that_cannot_find_the_others_is_told_what_to_start_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"WORLD_SIZE is 2, but it has no RANK, MASTER_ADDR, MASTER_PORT; .*torchrun"):
        runtimes.start("cpu", single=False, local_rank=None)


def test_no_group_outlives_the_end_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    group = dist.group.WORLD
    runtime = Runtime(torch.device("cpu"), control=group, owns_process_group=True)
    alive = weakref.ref(group)
    del group
    runtimes.stop(runtime)
    gc.collect()
    assert not dist.is_initialized()
    assert runtime.control is None
    assert alive() is None
