"""The content of a checkpoint: written, read, and restored."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagier.errors import UserError, suggest_sibling
from imagier.recipe import Position
from imagier.train.checkpoint_files import LATEST, Unusable, find_earlier, read_pointer, save_state, verify, write_state
from imagier.train.finite import find_nonfinite, name_moments
from imagier.train.manifest import find_entry, read_or_scan
from imagier.train.trainer import Trainer
from imagier.train.weight_file import SUFFIX, read_as_checkpoint

FORMAT = 2
"""Raised whenever names inside a checkpoint change; older ones are upgraded when they are read."""

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
"""The first bytes of torch's files before they were zip files (torch 1.6): a pickled number."""

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
"""What torch raises for files with a few wrong bytes."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint to continue from."""

    path: Path
    state: dict[str, Any]
    skipped: tuple[Path, ...] = ()
    """Later ones that cannot be read."""
    notes: tuple[str, ...] = ()
    """Lines about these."""


def find_newest(logdir: Path) -> FoundCheckpoint | None:
    """The newest intact checkpoint of a folder; None if it holds no run.

    That is the one that latest_checkpoint.txt names, or, if it is missing or damaged, the one before. Without that file
    it is the last one that was written. UserError if the file names nothing, or if no checkpoint can be read.
    """
    path = read_pointer(logdir)
    skipped: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    if path is None:
        written = read_or_scan(logdir)
        if not written:
            return None
        path = logdir / written[-1].name
        notes = (f"{logdir / LATEST}: missing; the last checkpoint that was written is {path.name}",)
    while True:
        try:
            return FoundCheckpoint(path, load(path), skipped, notes)
        except Unusable as error:
            before = [other for other in find_earlier(path) if other not in skipped]
            if not before:
                raise UserError(
                    "; ".join(filter(None, [error.what, error.advice])),
                    where=error.where,
                    advice=f"there is no other: correct {logdir / LATEST}, or start anew in another `logdir`",
                    code=error.code,
                ) from error
            notes += (f"{error}; going back to {before[0].name}",)
            skipped += (path,)
            path = before[0]


def save(logdir: Path, trainer: Trainer, extras: Mapping[str, Any]) -> Path:
    """Writes the whole state of a run at once, adds it to the manifest, and points latest_checkpoint.txt at it.

    (A training saves through saver.py.) extras: what other parts of the run keep (tensors, numbers, text, and mappings
    and lists of these). OSError if it is not on the disk; then everything is as before.
    """
    return save_state(logdir, build_state(trainer, extras))


def write(path: Path, trainer: Trainer, extras: Mapping[str, Any]) -> None:
    """Writes the whole state of a run to a file of any name, and nothing else; `extras` and errors as of `save`."""
    write_state(path, build_state(trainer, extras))


def build_state(trainer: Trainer, extras: Mapping[str, Any]) -> dict[str, Any]:
    """The whole state of a run, as in a checkpoint. Its tensors are those in use: the next step changes them."""
    return {
        "format": FORMAT,
        "current_epoch": trainer.position.epoch,
        "current_iteration": trainer.step,
        "epoch_samples": trainer.position.samples,
        "players": {name: player.state_dict() for name, player in trainer.players.items()},
        "optimizers": _name_optimizers(trainer),
        "extras": dict(extras),
    }


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, ours or the reference's, on the CPU. Never runs code from the file.

    UserError if it cannot be read; Unusable, a subclass, if it is missing or damaged.
    """
    try:
        if path.is_file() and (entry := find_entry(path)):
            verify(path, entry)
        state = _read(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        advice = suggest_sibling(path)
        raise Unusable("no such checkpoint", where=path, advice=advice, code="missing-checkpoint") from error
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise _not_a_checkpoint(path, error) from error
        raise UserError(
            f"holds a {foreign[1]}, but only tensors, numbers and text are read",
            where=path,
            advice=(
                "if you trust the file, load it with torch.load(..., weights_only=False), remove that, and save it "
                "again"
            ),
            code="unsafe-checkpoint",
        ) from error
    except _DAMAGE as error:
        raise _not_a_checkpoint(path, error) from error
    written_as = state.get("format") if isinstance(state, dict) else None
    if isinstance(written_as, int) and written_as > FORMAT:
        raise UserError(
            f"was written by a newer imagier (format {written_as}, here {FORMAT})",
            where=path,
            advice="update this one",
            code="newer-checkpoint",
        )
    if flaw := _find_flaw(state):
        raise UserError(f"not a checkpoint: {flaw}", where=path, code="not-a-checkpoint")
    return _upgrade_from_0_1(state) if written_as == 1 else state


def _not_a_checkpoint(path: Path, error: Exception) -> Unusable:
    reason = str(error).partition("\n")[0] or "it ends early"
    return Unusable(f"not a checkpoint, or damaged ({reason})", where=path, code="not-a-checkpoint")


def _upgrade_from_0_1(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of imagier 0.1 (format 1) with today's names of tensors and extras."""

    def upgrade_network(of_network: dict[str, Any]) -> dict[str, Any]:
        network = {_CRITICS.sub("discriminators.", name): tensor for name, tensor in of_network["network"].items()}
        return {**of_network, "network": network}

    players = {}
    for name, player in state["players"].items():
        players[name] = upgrade_network(player)
        if "average" in player:
            players[name]["average"] = upgrade_network(player["average"])
    extras = {{"began_with": "init_from"}.get(key, key): value for key, value in state["extras"].items()}
    return {**state, "format": FORMAT, "players": players, "extras": extras}


_CRITICS = re.compile(r"\bcritics\.(?=\d)")


def _find_flaw(state: Any) -> str | None:
    """How it differs from what we or the reference would have written; None if it does not."""
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
                return f"its player {name} is not the state of a network and an optimizer"
            networks[f"players.{name}.network"] = player.get("network")
            if "average" in player:
                average = player["average"]
                networks[f"players.{name}.average"] = average.get("network") if isinstance(average, dict) else None
    for name, network in networks.items():
        if not isinstance(network, dict) or not all(isinstance(tensor, Tensor) for tensor in network.values()):
            return f"{name} holds no tensors by name"
    return None


def _read(path: Path) -> Any:
    if path.suffix == SUFFIX:
        return read_as_checkpoint(path, FORMAT)
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        if not zipped and file.read(len(BEFORE_ZIP)) != BEFORE_ZIP:
            raise EOFError("torch.save did not write it, or not all of it")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def restore(trainer: Trainer, state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Continues exactly where a checkpoint of ours was written; returns its extras.

    Nothing in the run refers to the file afterwards: it may be removed.
    """
    written_by = state.get("optimizers", {})
    for name, kind in _name_optimizers(trainer).items():
        if written_by.get(name, kind) != kind:
            raise UserError(
                f"{name} was trained by {written_by[name]}, but {name}_opt is {kind}",
                where=path,
                advice="keep that optimizer, or load the weights only (`resume=False`)",
                code="other-optimizer",
            )
    with translate_load_errors(path):
        for name, player in trainer.players.items():
            saved = state["players"][name]
            # An optimizer keeps the tensors that it is given. These are mapped from the file: removed, it would end the
            # process.
            player.load_state_dict({**saved, "optimizer": copy.deepcopy(saved["optimizer"])})
            if player.average is not None and "average" not in state["players"][name]:
                player.average.restart()
            if broken := find_nonfinite(name_moments(player.network, player.optimizer)):
                raise UserError(
                    f"{name}_opt: {broken} holds numbers that are not finite",
                    where=path,
                    advice="continue from an earlier checkpoint, or load the weights only (`resume=False`)",
                    code="not-finite",
                )
    trainer.step = state["current_iteration"]
    trainer.position = Position(state["current_epoch"], state["epoch_samples"])
    return copy.deepcopy(state["extras"])


def _name_optimizers(trainer: Trainer) -> dict[str, str]:
    """The type of each player's optimizer, by name."""
    return {name: type(player.optimizer).__name__ for name, player in trainer.players.items()}


def restore_weights(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    """Starts a new run from the weights (and averages) of a checkpoint of ours; the rest of it is ignored."""
    with translate_load_errors(path):
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


@contextlib.contextmanager
def translate_load_errors(path: Path) -> Any:
    """Turns torch's errors about states that do not fit into UserErrors of one line."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"has no player or tensor {error.args[0]!r}", where=path, code="missing-player") from error
    except RuntimeError as error:
        details = re.sub(r"\s+", " ", str(error))
        what = f"does not fit this config: {details[:400]}"
        raise UserError(what, where=path, code="checkpoint-mismatch") from error
    except ValueError as error:
        what = f"its optimizer state does not fit this config: {error}"
        advice = "load the weights only (`resume=False`)"
        raise UserError(what, where=path, advice=advice, code="checkpoint-mismatch") from error
