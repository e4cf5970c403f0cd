"""Weights of one generator in a .safetensors file, which can be read in place of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from imagier.errors import UserError

SUFFIX = ".safetensors"

NAME = f"generator{SUFFIX}"
"""The file in a bundle."""

_KEY = "imagier"
"""The entry of the file's metadata that holds ours, as JSON."""


def write_weights(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes tensors by name, and facts about them: `player`, `weights` (average or regular), `iteration`, `epoch`."""
    from safetensors.torch import save

    data = save({name: x.contiguous() for name, x in tensors.items()}, {_KEY: json.dumps(facts)})
    path.write_bytes(data)  # its own function for files makes them unreadable for others


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of such a file, on the CPU, and the facts. UserError if it is none.

    FileNotFoundError if it is not there.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        advice = "run: pip install 'imagier[export]'"
        raise UserError("reading it needs safetensors", where=path, advice=advice, code="not-installed") from error
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        what = f"is damaged ({str(error).partition(chr(10))[0]})"
        raise UserError(what, where=path, advice="copy or download it again", code="damaged-weights") from error
    if _KEY not in metadata:
        what, advice = "holds weights of another program", "take the file of a bundle, or a checkpoint"
        raise UserError(what, where=path, advice=advice, code="not-a-checkpoint")
    return tensors, json.loads(metadata[_KEY])


def find_weights(folder: Path) -> Path | None:
    """The weights in the folder of a bundle; None if it is none."""
    return folder / NAME if (folder / NAME).is_file() else None


def read_as_checkpoint(path: Path, format_number: int) -> dict[str, Any]:
    """The state of a checkpoint that holds the generator alone. UserError as of `read_weights`."""
    tensors, facts = read_weights(path)
    is_average = facts["weights"] == "average"
    player: dict[str, Any] = {"network": {} if is_average else tensors}
    if is_average:
        player["average"] = {"network": tensors, "num_updates": 0}
    return {
        "format": format_number,
        "current_epoch": facts["epoch"],
        "current_iteration": facts["iteration"],
        "epoch_samples": 0,
        "players": {facts["player"]: player},
        "extras": {},
    }
