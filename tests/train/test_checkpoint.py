"""Files of checkpoints: whole or not there, and never trusted."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import Line, trainer

from imagier.errors import UserError
from imagier.nn.average import ModelAverage
from imagier.train import checkpoint
from imagier.train.checkpoint_files import Unusable, find_latest
from imagier.train.fit_state import fit_state


def saved(folder: Path, **extras: object) -> Path:
    return checkpoint.save(folder, trainer(Line()), dict(extras))


def test_names_are_those_of_the_reference(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert path.name == "epoch_00000_iteration_000000000_checkpoint.pt"
    assert (tmp_path / "latest_checkpoint.txt").read_text() == f"latest_checkpoint: {path.name}\n"
    assert find_latest(tmp_path) == path


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"players": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt: holds a \S+, but only tensors"):
        checkpoint.load(tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "raw.pt")
    assert not (tmp_path / "ran").exists()


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path).rename(tmp_path / "unlisted.pt")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    assert str(error.value).startswith(f"{path}: not a checkpoint, or damaged")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], r"is damaged: it has [\d,]+ bytes, [\d,]+ were written"),
        (
            lambda whole: whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:],
            r"is damaged: its hash is not the one in checkpoints\.json",
        ),
    ],
)
def test_what_is_not_as_it_was_written_is_told_in_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    path = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Unusable, match=message) as error:
        checkpoint.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def saved_at(folder: Path, *steps: int) -> list[Path]:
    run = trainer(Line())
    paths = []
    for run.step in steps:
        paths.append(checkpoint.save(folder, run, {}))
    return paths


def break_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("break_it", [break_file, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("manifest", [None, "", "{}", '{"format": 1, "checkpoints": [3]}'])
def test_a_run_goes_on_from_the_one_before_if_the_newest_is_damaged_or_gone(
    tmp_path: Path, break_it: Any, manifest: str | None
) -> None:
    """With a manifest, without one, and with a damaged one."""
    first, second, third = saved_at(tmp_path, 10, 20, 30)
    (tmp_path / "other.pt").write_bytes(first.read_bytes())
    if manifest is not None:
        (tmp_path / "checkpoints.json").write_text(manifest)
    break_it(third)
    found = checkpoint.find_newest(tmp_path)
    assert found is not None
    assert (found.path, found.state["current_iteration"], found.skipped) == (second, 20, (third,))
    (note,) = found.notes
    assert note.startswith(f"{third}: ") and note.endswith(f"; going back to {second.name}")
    assert "\n" not in note
    break_it(second)
    found = checkpoint.find_newest(tmp_path)
    assert found is not None
    assert found.path == first
    break_it(first)
    with pytest.raises(UserError) as error:
        checkpoint.find_newest(tmp_path)
    assert error.value.where in (str(first), str(third)), "gone files are only known from a manifest"
    assert str(tmp_path / "latest_checkpoint.txt") in error.value.advice


def test_a_whole_newest_is_taken_without_a_word(tmp_path: Path) -> None:
    last = saved_at(tmp_path, 10, 30, 20)[-1]
    found = checkpoint.find_newest(tmp_path)
    assert found is not None
    assert (found.path, found.notes, found.skipped) == (last, (), ())


def test_one_that_was_written_by_nobody_here_is_never_gone_back_to(tmp_path: Path) -> None:
    """The manifest lists what belongs to the run; a file that lies beside it may be another's."""
    first, second = saved_at(tmp_path, 10, 30)
    (tmp_path / "epoch_00000_iteration_000000020_checkpoint.pt").write_bytes(first.read_bytes())
    break_file(second)
    found = checkpoint.find_newest(tmp_path)
    assert found is not None and found.path == first


def test_a_newer_version_or_foreign_content_is_a_mistake_to_mend_and_no_damage(tmp_path: Path) -> None:
    path = saved_at(tmp_path, 10, 20)[-1]
    state = copy.deepcopy(checkpoint.load(path))  # else it lies in the file itself
    (tmp_path / "checkpoints.json").unlink()
    torch.save({**state, "format": checkpoint.FORMAT + 1}, path)
    with pytest.raises(UserError) as error:
        checkpoint.find_newest(tmp_path)
    assert (error.value.where, error.value.code) == (str(path), "newer-checkpoint")


@pytest.mark.parametrize(
    ("pointer", "code", "where"),
    [
        (b"", "bad-checkpoint-pointer", "latest_checkpoint.txt"),
        (b"\xff\xfe\x00", "bad-checkpoint-pointer", "latest_checkpoint.txt"),
        (b"latest_checkpoint: gone.pt\n", "missing-checkpoint", "gone.pt"),
    ],
    ids=["empty", "not text", "gone"],
)
def test_a_pointer_to_nothing_is_an_error_and_not_a_new_run(
    tmp_path: Path, pointer: bytes, code: str, where: str
) -> None:
    (tmp_path / "latest_checkpoint.txt").write_bytes(pointer)
    with pytest.raises(UserError) as error:
        find_latest(tmp_path)
    assert (error.value.where, error.value.code) == (str(tmp_path / "latest_checkpoint.txt"), code)
    with pytest.raises(UserError) as error:
        checkpoint.find_newest(tmp_path)
    assert (error.value.where, error.value.code) == (str(tmp_path / where), code)


def test_no_pointer_is_a_new_run(tmp_path: Path) -> None:
    assert find_latest(tmp_path) is None
    assert checkpoint.find_newest(tmp_path) is None


def test_weights_of_another_network_are_refused_with_the_file_and_the_reason(tmp_path: Path) -> None:
    path = saved(tmp_path)
    other = Line()
    other.gen = torch.nn.Linear(3, 1, bias=False)
    with pytest.raises(UserError, match="size mismatch for weight") as error:
        checkpoint.restore(trainer(other), checkpoint.load(path), path)
    assert (error.value.where, error.value.code) == (str(path), "checkpoint-mismatch")


def test_extras_come_back(tmp_path: Path) -> None:
    path = saved(tmp_path, seed=7, log={"sums": torch.ones(2)})
    extras = checkpoint.restore(trainer(Line()), checkpoint.load(path), path)
    assert extras["seed"] == 7
    assert torch.equal(extras["log"]["sums"], torch.ones(2))


def test_weights_without_an_average_start_it_at_the_weights(tmp_path: Path) -> None:
    path = saved(tmp_path)
    other = trainer(Line())
    with torch.no_grad():
        other.recipe.networks["gen"].weight.fill_(9)  # type: ignore[union-attr]
    other.players["gen"].average = ModelAverage(other.recipe.networks["gen"], start_iteration=0)
    checkpoint.restore_weights(other, checkpoint.load(path), path)
    average = other.players["gen"].average
    assert average is not None
    assert torch.equal(
        average.network.state_dict()["weight"], checkpoint.load(path)["players"]["gen"]["network"]["weight"]
    )


def test_flipped_bits_and_cut_ends_are_told_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path).rename(tmp_path / "unlisted.pt")
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            checkpoint.load(path)  # a flipped bit of a weight is none of its business
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"players": 3}, "not-a-checkpoint", "players"),
        ({"players": {"gen": {}}}, "not-a-checkpoint", "players.gen.network"),
        ({"players": {"gen": 3}}, "not-a-checkpoint", "player gen"),
        ({"players": {"gen": {"network": {}, "average": 3}}}, "not-a-checkpoint", "players.gen.average"),
        ({"extras": None}, "not-a-checkpoint", "extras"),
        ({"current_iteration": "x"}, "not-a-checkpoint", "current_iteration"),
        ({"format": checkpoint.FORMAT + 1, "players": 3}, "newer-checkpoint", f"format {checkpoint.FORMAT + 1}"),
    ],
)
def test_a_file_of_another_structure_is_refused_when_it_is_read(
    tmp_path: Path, change: dict, code: str, part: str
) -> None:
    path = tmp_path / "changed.pt"
    torch.save({**checkpoint.load(saved(tmp_path)), **change}, path)
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    assert (error.value.where, error.value.code) == (str(path), code)
    assert part in error.value.what


@pytest.mark.parametrize("network", [3, {"a": 3}])
def test_a_file_of_the_reference_without_tensors_is_refused(tmp_path: Path, network: object) -> None:
    torch.save({"net_G": network}, tmp_path / "old.pt")
    with pytest.raises(UserError, match="net_G") as error:
        checkpoint.load(tmp_path / "old.pt")
    assert error.value.code == "not-a-checkpoint"


def test_another_type_of_optimizer_cannot_continue_a_run(tmp_path: Path) -> None:
    path, other = saved(tmp_path), trainer(Line())
    other.players["gen"].optimizer = torch.optim.Adam(other.players["gen"].params)
    with pytest.raises(UserError, match=r"gen .* SGD, .* gen_opt .* Adam") as error:
        checkpoint.restore(other, checkpoint.load(path), path)
    assert (error.value.where, error.value.code) == (str(path), "other-optimizer")


@pytest.mark.parametrize(
    ("kept", "strict", "refused"), [([], False, True), (["gen"], True, False), (["gen"], False, False)]
)
def test_players_that_a_file_lacks_are_named(tmp_path: Path, kept: list[str], strict: bool, refused: bool) -> None:
    path = saved(tmp_path)
    state = checkpoint.load(path)
    state["players"] = {name: state["players"][name] for name in kept}
    networks = Line().networks
    if refused:
        with pytest.raises(UserError, match="gen or dis") as error:
            fit_state(state, networks, {}, path, strict=strict)
        assert (error.value.where, error.value.code) == (str(path), "missing-player")
    else:
        _, lines = fit_state(state, networks, {}, path, strict=strict)
        assert lines == [f"{path.name}: has no player dis"]
