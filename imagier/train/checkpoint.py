"""Checkpoints on disk: whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.recipe import Position
from imagier.train.trainer import Trainer

LATEST = "latest_checkpoint.txt"
FORMAT = 1

_KINDS = {
    "format": int,
    "current_epoch": int,
    "current_iteration": int,
    "epoch_samples": int,
    "players": dict,
    "extras": dict,
}
"""What a checkpoint of ours holds."""

BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What torch's files began with before they were zip files (torch 1.6): a pickled number."""

_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    zipfile.BadZipFile,
)
"""What torch raises over files with a few wrong bytes."""

MOST_NAMES = 12
"""Longer lists of tensors are told by what their names have in common."""


def path_of(logdir: Path, epoch: int, step: int) -> Path:
    """Where the checkpoint of a moment lies."""
    return logdir / f"epoch_{epoch:05d}_iteration_{step:09d}_checkpoint.pt"


def latest(logdir: Path) -> Path | None:
    """The checkpoint that latest_checkpoint.txt names, None if there is no such file. UserError if it names none."""
    pointer = logdir / LATEST
    try:
        first_line = pointer.read_text().split("\n")[0]
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{pointer}: is not text; write the name of a checkpoint into it, or remove it to start afresh"
        ) from error
    words = first_line.split()
    if not words:
        raise UserError(f"{pointer}: is empty; write the name of a checkpoint into it, or remove it to start afresh")
    path = logdir / words[-1]
    if not path.is_file():
        raise UserError(f"{pointer}: names {path.name}, which is not there; correct it, or remove it to start afresh")
    return path


def save(logdir: Path, trainer: Trainer, extras: dict[str, Any]) -> Path:
    """Writes the whole state of a run and points latest_checkpoint.txt at it.

    extras: what other parts of the run want to keep (tensors, numbers, text, and mappings and lists of these).
    """
    path = path_of(logdir, trainer.position.epoch, trainer.step)
    write(path, trainer, extras)
    with replacing(logdir / LATEST) as file:
        file.write(f"latest_checkpoint: {path.name}\n".encode())
    return path


def write(path: Path, trainer: Trainer, extras: dict[str, Any]) -> None:
    """Writes the whole state of a run to a file; `extras` as in `save`."""
    state = {
        "format": FORMAT,
        "current_epoch": trainer.position.epoch,
        "current_iteration": trainer.step,
        "epoch_samples": trainer.position.samples,
        "players": {name: player.state_dict() for name, player in trainer.players.items()},
        "optimizers": _optimizers(trainer),
        "extras": extras,
    }
    with replacing(path) as file:
        torch.save(state, file)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, of ours or of the reference's, on the CPU. Never runs code from the file.

    UserError if it cannot be read.
    """
    try:
        state = _read(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise UserError(f"{path}: not a checkpoint, or damaged ({str(error).splitlines()[0]})") from error
        raise UserError(
            f"{path}: holds a {foreign[1]}, but only tensors, numbers and text are read; if you trust the file, "
            "load it with torch.load(..., weights_only=False), remove that, and save it again"
        ) from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or "it ends early"
        raise UserError(f"{path}: not a checkpoint, or damaged ({reason})") from error
    written_as = state.get("format") if isinstance(state, dict) else None
    if isinstance(written_as, int) and written_as > FORMAT:
        raise UserError(f"{path}: was written by a newer imagier (format {written_as}, here {FORMAT}); update this one")
    if flaw := _flaw(state):
        raise UserError(f"{path}: not a checkpoint: {flaw}")
    return state


def _flaw(state: Any) -> str | None:
    """In what it differs from what we or the reference would have written; None if in nothing."""
    if not isinstance(state, dict) or not ("players" in state or "net_G" in state):
        return "holds neither players nor net_G"
    if "players" not in state:
        networks = {name: state[name] for name in ("net_G", "net_D") if name in state}
    else:
        if wrong := [key for key, kind in _KINDS.items() if not isinstance(state.get(key), kind)]:
            return f"holds no {wrong[0]}, or something else under that name"
        networks = {}
        for name, player in state["players"].items():
            if not isinstance(player, dict) or not isinstance(player.get("optimizer", {}), dict):
                return f"its player {name} is no state of a network and an optimizer"
            networks[f"players.{name}.network"] = player.get("network")
            if "average" in player:
                average = player["average"]
                networks[f"players.{name}.average"] = average.get("network") if isinstance(average, dict) else None
    for name, network in networks.items():
        if not isinstance(network, dict) or not all(isinstance(tensor, Tensor) for tensor in network.values()):
            return f"{name} holds no tensors by name"
    return None


def _read(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if not zipped and file.read(len(BEFORE_ZIP)) != BEFORE_ZIP:
            raise EOFError("torch.save did not write it, or not all of it")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def restore(trainer: Trainer, state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Continues exactly where a checkpoint of ours was written; returns its extras."""
    written_by = state.get("optimizers", {})
    for name, kind in _optimizers(trainer).items():
        if written_by.get(name, kind) != kind:
            raise UserError(
                f"{path}: {name} was trained by {written_by[name]}, but {name}_opt is {kind}; "
                "keep it, or take the weights alone (--resume 0)"
            )
    with fitting(path):
        for name, player in trainer.players.items():
            player.load_state_dict(state["players"][name])
            if player.average is not None and "average" not in state["players"][name]:
                player.average.restart()
    trainer.step = state["current_iteration"]
    trainer.position = Position(state["current_epoch"], state["epoch_samples"])
    return state["extras"]


def _optimizers(trainer: Trainer) -> dict[str, str]:
    """The type of each player's optimizer, by name."""
    return {name: type(player.optimizer).__name__ for name, player in trainer.players.items()}


def restore_weights(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    """Starts a new run from the weights (and averages) of a checkpoint of ours; what else it holds is left."""
    with fitting(path):
        for name, player in trainer.players.items():
            if name not in state["players"]:
                continue
            saved = state["players"][name]
            player.network.load_state_dict(saved["network"])
            if player.average is None:
                continue
            if "average" in saved:
                player.average.load_state_dict(saved["average"])
            else:
                player.average.restart()


def fitted(
    state: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    averages: Mapping[str, nn.Module],
    path: Path,
    *,
    strict: bool,
) -> tuple[dict[str, Any], list[str]]:
    """A checkpoint's state with exactly the tensors that the networks and averages of some players have.

    What it lacks keeps its value. Also returns lines about all that did not match; UserError with these if `strict`, or
    if a shape differs or it holds none of these players. Those that it says nothing about are told and left out.
    """
    players, misfits = dict(state["players"]), []
    absent = [name for name in networks if name not in players]
    if len(absent) == len(networks):
        raise UserError(f"{path}: holds nothing for {' or '.join(absent)}")
    for name in [name for name in networks if name in players]:
        players[name] = saved = dict(players[name])
        saved["network"], found = _fitted(networks[name], saved["network"], name)
        misfits += found
        if name in averages and "average" in saved:
            network, found = _fitted(averages[name], saved["average"]["network"], f"the average of {name}")
            saved["average"] = {**saved["average"], "network": network}
            misfits += found
    if misfits and (strict or any(misfit.fatal for misfit in misfits)):
        raise UserError(f"{path}: does not fit this config: {'; '.join(misfit.line for misfit in misfits)}")
    misfits = [_Misfit(f"holds nothing for {name}") for name in absent] + misfits
    return {**state, "players": players}, [f"{path.name}: {misfit.line}" for misfit in misfits]


@dataclass(frozen=True)
class _Misfit:
    """Tensors that are on one side only, or of another shape there."""

    line: str
    fatal: bool = False


def _fitted(network: nn.Module, found: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], list[_Misfit]]:
    own = network.state_dict()
    misfits = []
    if homeless := [name for name in found if name not in own]:
        misfits.append(_Misfit(f"{what} has no place for {listed(homeless)}"))
    if missing := [name for name in own if name not in found]:
        misfits.append(_Misfit(f"{what} gets nothing for {listed(missing)}"))
    for name, tensor in own.items():
        if name in found and found[name].shape != tensor.shape:
            sizes = f"{list(found[name].shape)} in the file, {list(tensor.shape)} here"
            misfits.append(_Misfit(f"{what}: size mismatch for {name}: {sizes}", fatal=True))
    return {name: found.get(name, tensor) for name, tensor in own.items()}, misfits


def listed(names: Sequence[str]) -> str:
    """Names of tensors for people: all of them if they are few, else by what they have in common."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    for parts in (3, 2, 1):
        groups = Counter(".".join(name.split(".")[:parts]) for name in names)
        if len(groups) <= MOST_NAMES:
            break
    return ", ".join(group if group in names else f"{group}.* ({count})" for group, count in groups.items())


@contextlib.contextmanager
def replacing(path: Path) -> Any:
    """A binary file to write; takes the place of `path` once it is written and on the disk, or leaves it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        file: IO[bytes]
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def fitting(path: Path) -> Any:
    """Turns torch's report of keys that do not fit into one line."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path}: holds nothing for the network {error.args[0]!r}") from error
    except RuntimeError as error:
        details = re.sub(r"\s+", " ", str(error))
        raise UserError(f"{path}: does not fit this config: {details[:400]}") from error
    except ValueError as error:
        raise UserError(f"{path}: its optimizer state does not fit this config: {error}") from error
