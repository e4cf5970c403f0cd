"""Checkpoints on disk: whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import tempfile
from pathlib import Path
from typing import IO, Any

import torch

from imagier.errors import UserError
from imagier.recipe import Position
from imagier.train.trainer import Trainer

LATEST = "latest_checkpoint.txt"
FORMAT = 1


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
    position = trainer.position
    state = {
        "format": FORMAT,
        "current_epoch": position.epoch,
        "current_iteration": trainer.step,
        "epoch_samples": position.samples,
        "players": {name: player.state_dict() for name, player in trainer.players.items()},
        "extras": extras,
    }
    path = path_of(logdir, position.epoch, trainer.step)
    with replacing(path) as file:
        torch.save(state, file)
    with replacing(logdir / LATEST) as file:
        file.write(f"latest_checkpoint: {path.name}\n".encode())
    return path


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Never runs code from the file. UserError if it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a checkpoint, or damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or "players" not in state:
        raise UserError(f"{path}: not a checkpoint of Imagier")
    return state


def restore(trainer: Trainer, state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Continues exactly where a checkpoint was written; returns its extras."""
    with fitting(path):
        for name, player in trainer.players.items():
            player.load_state_dict(state["players"][name])
    trainer.step = state["current_iteration"]
    trainer.position = Position(state["current_epoch"], state["epoch_samples"])
    return state["extras"]


def restore_weights(trainer: Trainer, state: dict[str, Any], path: Path, *, strict: bool) -> None:
    """Starts a new run from the weights (and averages) of a checkpoint; what else it holds is left."""
    with fitting(path):
        for name, player in trainer.players.items():
            if name not in state["players"]:
                continue
            saved = state["players"][name]
            player.network.load_state_dict(saved["network"], strict=strict)
            if player.average is not None:
                player.average.load_state_dict(saved.get("average", saved))


@contextlib.contextmanager
def replacing(path: Path) -> Any:
    """A binary file to write; takes the place of `path` once it is written and on the disk, or leaves it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        file: IO[bytes]
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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
