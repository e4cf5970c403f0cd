"""The configs that a run had: what changed since the last one, and each with the iteration from which on it held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from imagier.config.check import Config
from imagier.config.load import dump_inline
from imagier.run.experiment import CONFIG
from imagier.train.disk import write_atomic

FOLDER = "configs"

LONGEST_VALUE = 40
"""Characters of a value that are shown."""


def list_changes(folder: Path, config: Config) -> list[str]:
    """What differs from the config of the run in a folder, as "gen_opt.lr 1.0e-4 -> 2.0e-4".

    Nothing if that config is missing or cannot be read.
    """
    before = _read(folder / CONFIG)
    if before is None:
        return []
    old, new = dict(_flatten(before)), dict(_flatten(yaml.safe_load(config.dump())))
    changed = [key for key in {**old, **new} if old.get(key, _UNSET) != new.get(key, _UNSET)]
    return [f"{key} {_show(old.get(key, _UNSET))} -> {_show(new.get(key, _UNSET))}" for key in changed]


def write_config(folder: Path, config: Config, step: int) -> None:
    """Makes a config that of the run in a folder from an iteration on, and keeps those before. OSError as of a disk."""
    text = config.dump().encode()
    path, kept = folder / CONFIG, folder / FOLDER
    before = path.read_bytes() if path.is_file() else None
    _write(path, text)
    if before is not None and not kept.is_dir():
        _write(kept / _name(0), before)  # an older version kept none
    if before != text:
        _write(kept / _name(step), text)


class _Unset:
    """The value of a key that is not there."""


_UNSET = _Unset()


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
