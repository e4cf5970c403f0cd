"""Which checkpoints are measured, by what, and in which folder of a run their cards go."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagier.config.check import Component
from imagier.errors import UserError
from imagier.run.experiment import CONFIG, ConfigSource, Experiment
from imagier.run.inference import read_experiment_of_run
from imagier.run.options import RunOptions
from imagier.run.weights import Weights
from imagier.train import manifest
from imagier.train.disk import describe_error
from imagier.train.hooks.evaluations import FOLDER


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Which checkpoints are measured, and by what."""

    metrics: Sequence[Component] | None = None
    """None: those of the config; and FD, KD and PRDC, if that has none that compare sets of images."""
    features: str | None = None
    """The space of FD, KD and PRDC, if they are added to the metrics of the config; None: efflite0."""
    weights: Sequence[Weights] = ("average",)
    """An average that a checkpoint does not hold is replaced by its regular weights."""
    folder: Path | None = None
    """All checkpoints of this folder, instead of one."""
    start_iter: int = 0
    """Of a folder: those from this iteration on."""
    end_iter: int = 10**9
    """Of a folder: those up to this iteration."""


def list_checkpoints(request: EvaluationRequest) -> list[Path]:
    """The checkpoints of a folder within the iterations that are asked for. UserError if there are none."""
    assert request.folder is not None
    entries = manifest.scan_folder(request.folder) if request.folder.is_dir() else []
    paths = [request.folder / entry.name for entry in entries if request.start_iter <= entry.step <= request.end_iter]
    if not paths:
        steps = f"; there are {len(entries)} of other iterations" if entries else ""
        what = f"holds no checkpoint of the iterations {request.start_iter:,} to {request.end_iter:,}{steps}"
        raise UserError(what, where=request.folder, advice="name another folder", code="missing-checkpoint")
    return paths


def read_experiment_to_measure(
    source: ConfigSource | None, options: RunOptions, request: EvaluationRequest, overrides: Sequence[str]
) -> tuple[Experiment, RunOptions]:
    """As `read_experiment_of_run`; but a log folder beside a config and checkpoints is only written to."""
    if source is None or options.logdir is None or (options.checkpoint is None and request.folder is None):
        return read_experiment_of_run(source, options, overrides)
    experiment, _ = read_experiment_of_run(source, dataclasses.replace(options, logdir=None), overrides)
    return experiment, options


def find_logdir(options: RunOptions, request: EvaluationRequest) -> Path | None:
    """The folder of the run whose checkpoints are measured; None if they are in no such folder."""
    if options.logdir is not None:
        return Path(options.logdir)
    if request.folder is not None:
        return request.folder
    if options.checkpoint is not None and (Path(options.checkpoint).parent / CONFIG).is_file():
        return Path(options.checkpoint).parent
    return None


def check_writable(logdir: Path) -> None:
    """UserError unless cards can be written into a log folder."""
    folder = logdir / FOLDER
    there = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    try:
        Path(tempfile.mkdtemp(dir=there)).rmdir()  # only trying shows it
    except OSError as error:
        advice = "name another folder for cards: --config of the run, --checkpoint, and a --logdir of your own"
        what = f"cannot be written to: {describe_error(error)}"
        raise UserError(what, where=folder, advice=advice, code="unwritable-cards") from error
