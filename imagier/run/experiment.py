"""A checked config, whether it comes from a file or from Python."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.config.check import Config
from imagier.config.read import read, read_mapping
from imagier.errors import UserError
from imagier.run.options import RunOptions
from imagier.run.paths import check_logdir

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""In the folder of a run: its config, with all defaults."""

ConfigSource = str | Path | Mapping[str, Any] | Config
"""A YAML file, the content of one as a mapping, or a config that is checked already."""


@dataclass(frozen=True)
class Experiment:
    """A checked config, and where it was read."""

    config: Config
    path: Path | None = None
    """The file; None if it came from Python."""
    notes: tuple[str, ...] = ()
    """Lines for the user: keys that were dropped or translated."""

    @property
    def name(self) -> str:
        """A short name for folders."""
        return "run" if self.path is None else self.path.stem

    def log_notes(self) -> None:
        """Logs the notes."""
        for note in self.notes:
            logger.info(note)


def read_experiment(source: ConfigSource | None, options: RunOptions, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a config; without one, that of the run in `options.logdir`.

    overrides: "section.key=value" each. UserError names all that is wrong.
    """
    if options.num_workers is not None:
        overrides = [*overrides, f"data.num_workers={options.num_workers}"]
    if isinstance(source, Config):
        if not overrides:
            return Experiment(source)
        source = source.to_dict()
    if isinstance(source, Mapping):
        config, notes = read_mapping(source, overrides)
        return Experiment(config, notes=tuple(notes))
    if not isinstance(source, str | Path | None):
        what = f"is a {type(source).__name__}"
        advice = "name a YAML file, or give its content as a mapping"
        raise UserError(what, where="config", advice=advice, code="wrong-config")
    path = _find_config(source, options)
    config, notes = read(path, overrides)
    return Experiment(config, path, tuple(notes))


def _find_config(source: str | Path | None, options: RunOptions) -> Path:
    if source is not None:
        return Path(source)
    if options.logdir is None:
        raise UserError(
            "missing",
            where="config",
            advice="name the YAML of the experiment, or the `logdir` of a run",
            code="missing-config",
        )
    check_logdir(options.logdir)
    path = Path(options.logdir) / CONFIG
    if not path.is_file():
        what, advice = f"holds no {CONFIG}: it is not the folder of a run", "name that, or the YAML as `config`"
        raise UserError(what, where=f"logdir {options.logdir}", advice=advice, code="missing-config")
    return path
