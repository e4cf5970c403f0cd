"""The configs that a run had: what changed since the last one, and each with the iteration from which on it held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from imagier.config.check import Config
from imagier.config.load import dump_inline
from imagier.config.schema import AUTO
from imagier.run.experiment import CONFIG
from imagier.train.disk import write_atomic

FOLDER = "configs"

_NEW_DEFAULTS = [("keep_best", None, AUTO), ("trainer.image_to_tensorboard", False, True)]
"""What an older version wrote into the config of a run for a key that the user's does not have, and what this one does:
the user has changed nothing."""

LONGEST_VALUE = 40
"""Characters of a value that are shown."""


def list_changes(folder: Path, config: Config) -> list[str]:
    """What differs from the config of the run in a folder, as "gen_opt.lr 1.0e-4 -> 2.0e-4".

    Nothing if that config is missing or cannot be read.
    """
    kept = _read(folder / CONFIG)
    if kept is None:
        return []
    old, new = dict(_flatten(kept)), dict(_flatten(yaml.safe_load(config.dump())))
    pairs = [(key, old.get(key, _UNSET), new.get(key, _UNSET)) for key in {**old, **new}]
    changed = [pair for pair in pairs if pair[1] != pair[2] and pair not in _NEW_DEFAULTS]
    return [f"{key} {_show(before)} -> {_show(after)}" for key, before, after in changed]


def write_config(folder: Path, config: Config, step: int) -> None:
    """Makes a config that of the run in a folder from an iteration on, and keeps those before. OSError as of a disk."""
    text = config.dump().encode()
    path, kept = folder / CONFIG, folder / FOLDER
    if path.is_file() and not kept.is_dir():
        _write(kept / _name(0), path.read_bytes())  # an older version kept none
    _write(path, text)
    names = sorted(other.name for other in kept.glob("config_iteration_*.yaml"))
    for name in names:
        if name > _name(step):  # of iterations that the run went back from
            (kept / name).unlink()
    last = max((name for name in names if name <= _name(step)), default=None)
    if last is None or (kept / last).read_bytes() != text:
        _write(kept / _name(step), text)


_UNSET = object()
"""The value of a key that is not there."""


def _name(step: int) -> str:
    return f"config_iteration_{step:09d}.yaml"


def _write(path: Path, text: bytes) -> None:
    with write_atomic(path) as file:
        file.write(text)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        tree = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return tree if isinstance(tree, dict) else None


def _flatten(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, of lists only those that hold mappings."""
    if isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        tree = dict(enumerate(tree))
    if not isinstance(tree, Mapping) or not tree:
        yield key, tree
        return
    for name, value in tree.items():
        yield from _flatten(value, f"{key}.{name}" if key else str(name))


def _show(value: Any) -> str:
    text = "unset" if value is _UNSET else dump_inline(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
