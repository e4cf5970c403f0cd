"""Files of checkpoints: whole or not there, and never trusted."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch
from test_trainer import Line, trainer

from imagier.errors import UserError
from imagier.nn.average import ModelAverage
from imagier.train import checkpoint


def saved(folder: Path, **extras: object) -> Path:
    return checkpoint.save(folder, trainer(Line()), dict(extras))


def test_names_are_those_of_the_reference(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert path.name == "epoch_00000_iteration_000000000_checkpoint.pt"
    assert (tmp_path / "latest_checkpoint.txt").read_text() == f"latest_checkpoint: {path.name}\n"
    assert checkpoint.latest(tmp_path) == path


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), checkpoint.replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    assert str(error.value).startswith(f"{path}: not a checkpoint, or damaged")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pointer", "message"),
    [("", "is empty"), ("latest_checkpoint: gone.pt\n", r"names gone\.pt, which is not there")],
)
def test_a_pointer_to_nothing_is_an_error_and_not_a_new_run(tmp_path: Path, pointer: str, message: str) -> None:
    (tmp_path / "latest_checkpoint.txt").write_text(pointer)
    with pytest.raises(UserError, match=message):
        checkpoint.latest(tmp_path)


def test_no_pointer_is_a_new_run(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None


def test_weights_of_another_network_are_refused_with_the_file_and_the_reason(tmp_path: Path) -> None:
    path = saved(tmp_path)
    other = Line()
    other.gen = torch.nn.Linear(3, 1, bias=False)
    with pytest.raises(UserError, match=rf"{path.name}: does not fit this config: .*size mismatch for weight"):
        checkpoint.restore(trainer(other), checkpoint.load(path), path)


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
    path = saved(tmp_path)
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
    ("change", "message"),
    [
        ({"players": 3}, "holds no players"),
        ({"players": {"gen": {}}}, "players.gen.network holds no tensors"),
        ({"players": {"gen": 3}}, "its player gen is no state"),
        ({"players": {"gen": {"network": {}, "average": 3}}}, "players.gen.average holds no tensors"),
        ({"extras": None}, "holds no extras"),
        ({"current_iteration": "x"}, "holds no current_iteration"),
        ({"format": 2, "players": 3}, "written by a newer imagier"),
    ],
)
def test_a_file_of_another_structure_is_told_when_it_is_read(tmp_path: Path, change: dict, message: str) -> None:
    torch.save({**checkpoint.load(saved(tmp_path)), **change}, tmp_path / "changed.pt")
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path / "changed.pt")


@pytest.mark.parametrize("network", [3, {"a": 3}])
def test_a_file_of_the_reference_without_tensors_is_told(tmp_path: Path, network: object) -> None:
    torch.save({"net_G": network}, tmp_path / "old.pt")
    with pytest.raises(UserError, match="net_G holds no tensors"):
        checkpoint.load(tmp_path / "old.pt")


def test_a_pointer_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpoint.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"latest_checkpoint\.txt: is not text"):
        checkpoint.latest(tmp_path)


def test_another_type_of_optimizer_cannot_continue_a_run(tmp_path: Path) -> None:
    path, other = saved(tmp_path), trainer(Line())
    other.players["gen"].optimizer = torch.optim.Adam(other.players["gen"].params)
    with pytest.raises(UserError, match=r"gen was trained by SGD, but gen_opt is Adam"):
        checkpoint.restore(other, checkpoint.load(path), path)


@pytest.mark.parametrize(
    ("kept", "strict", "refused"), [([], False, True), (["gen"], True, False), (["gen"], False, False)]
)
def test_players_that_a_file_lacks_are_told(tmp_path: Path, kept: list[str], strict: bool, refused: bool) -> None:
    path = saved(tmp_path)
    state = checkpoint.load(path)
    state["players"] = {name: state["players"][name] for name in kept}
    networks = Line().networks
    if refused:
        with pytest.raises(UserError, match="holds nothing for gen or dis"):
            checkpoint.fitted(state, networks, {}, path, strict=strict)
    else:
        _, lines = checkpoint.fitted(state, networks, {}, path, strict=strict)
        assert lines == [f"{path.name}: holds nothing for dis"]
