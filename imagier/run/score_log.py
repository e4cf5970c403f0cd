"""Scores of cards in the log of a run, as if its training had measured them."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.run.folder_lock import lock_folder
from imagier.run.options import RunOptions
from imagier.train.card import Card
from imagier.train.disk import describe_error
from imagier.train.hooks import files, tensorboard
from imagier.train.hooks.evaluation import AVERAGE, MEASURED_LATER, REGULAR
from imagier.train.hooks.log import Record, Sink
from imagier.train.hooks.wandb import WandB
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)


def record_scores(cards: Sequence[Card], logdir: Path, config: Config, options: RunOptions, runtime: Runtime) -> None:
    """Adds scores that the log of a run lacks, with the tags of its training, unless the run is still writing it.

    Called on all ranks. What keeps the log from being written is one line: the cards hold all numbers.
    """
    try:
        with lock_folder(logdir, runtime):
            records = list_records(cards, files.read(logdir)) if runtime.is_main else []
            if records:
                for sink in _open_sinks(logdir, config, options):
                    for record in records:
                        sink.scalars(record)
                    sink.close()
    except UserError as error:
        if error.code == "folder-locked":
            logger.info(f"{logdir}: a run is writing there, so its log gets no scores; their cards are there")
        else:
            logger.warning(f"the log gets no scores: {error}")
    except OSError as error:
        logger.warning(f"{logdir}: its log gets no scores: {describe_error(error)}")


def _open_sinks(logdir: Path, config: Config, options: RunOptions) -> list[Sink]:
    sinks: list[Sink] = [files.JsonLines(logdir, from_step=sys.maxsize)]
    if tensorboard.is_installed():
        sinks.append(tensorboard.TensorBoard(logdir, from_step=0, images=False))
    if options.wandb:
        described = {**config.to_dict(), "dataset": config.run.data.name}
        project, run_id = options.wandb_project, options.wandb_id
        sinks.append(WandB(logdir, project=project, run_id=run_id, resuming=True, config=described))
    return sinks


def list_records(cards: Sequence[Card], logged: Sequence[Mapping[str, float]]) -> list[Record]:
    """What a log lacks: values by the reference's tags, FID/average, and the best so far, best_FID.

    The best is that of the weights that a training compares: the average ones, where a checkpoint has any.
    """
    known = {(int(record["step"]), tag): value for record in logged for tag, value in record.items()}
    added: dict[int, dict[str, float]] = {}
    by_step = sorted(cards, key=lambda card: card.subject["iteration"])
    values = dict(known)
    for card in by_step:
        for name, value in card.values.items():
            key = card.subject["iteration"], f"{name}/{card.subject['weights']}"
            if math.isfinite(value) and key not in values:
                values[key] = value
                added.setdefault(key[0], {})[key[1]] = value
    for card in by_step:
        step = card.subject["iteration"]
        for name, is_better in card.higher_is_better.items():
            best = _find_best(values, name, step, is_better)
            if best is not None and (step, f"best_{name}") not in known:
                added.setdefault(step, {})[f"best_{name}"] = best
    epochs = {card.subject["iteration"]: card.subject["epoch"] for card in by_step}
    counts = {card.subject["iteration"]: card.protocol["num_samples"] for card in by_step}
    return [Record(step, epochs[step], {**of_step, MEASURED_LATER: counts[step]}) for step, of_step in added.items()]


def _find_best(
    values: Mapping[tuple[int, str], float], name: str, last_step: int, higher_is_better: bool
) -> float | None:
    """The best value of a score up to a step; None if there is none."""
    compared: dict[int, float] = {}
    for weights in (REGULAR, AVERAGE):  # the latter replace the former
        compared |= {step: value for (step, tag), value in values.items() if tag == f"{name}/{weights}"}
    so_far = [value for step, value in compared.items() if step <= last_step]
    return (max if higher_is_better else min)(so_far, default=None)
