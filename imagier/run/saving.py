"""How a run is saved: when, what, and which checkpoints stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagier.config.schema import AUTO, Run
from imagier.data.loading.loader import Loader
from imagier.metrics.metric import Score
from imagier.run.resume_plan import ResumePlan
from imagier.train.checkpoint_files import CheckpointFiles, RetentionPolicy, read_entries, read_pointer
from imagier.train.disk import remove_temporaries
from imagier.train.hooks import images, profile
from imagier.train.hooks.checkpoints import Checkpoints, Stateful
from imagier.train.manifest import Entry
from imagier.train.runtime import Runtime
from imagier.train.saver import Saver
from imagier.train.snapshot import Snapshot
from imagier.train.trainer import Trainer
from imagier.train.view import View


def build_saver(run: Run, scores: Sequence[Score], plan: ResumePlan, runtime: Runtime) -> Saver:
    """What writes the checkpoints of a run; for the first rank."""
    first = scores[0].name if scores else None
    best = first if run.keep_best == AUTO else run.keep_best
    higher_is_better = any(score.higher_is_better for score in scores if score.name == best)
    keep = RetentionPolicy(run.keep_last, run.keep_every, best, higher_is_better=higher_is_better)
    return Saver(open_checkpoint_files(plan, keep), Snapshot(runtime))


def open_checkpoint_files(plan: ResumePlan, keep: RetentionPolicy) -> CheckpointFiles:
    """The checkpoints of a run's folder, to which more will be added. Removes what a killed process left unfinished.

    From here on latest_checkpoint.txt names the checkpoint that the run continues from.
    """
    for folder in (plan.logdir, plan.logdir / images.FOLDER, plan.logdir / profile.FOLDER):
        remove_temporaries(folder)
    entries: list[Entry] = []
    if plan.is_resume:
        entries = read_entries(plan.logdir, [path.name for path in plan.skipped])
    files = CheckpointFiles(plan.logdir, keep, entries)
    if plan.is_resume and plan.checkpoint is not None and plan.checkpoint.parent == plan.logdir:
        files.last_good = plan.checkpoint.name
        if read_pointer(plan.logdir) != plan.checkpoint:
            files.point(plan.checkpoint.name)
    return files


def build_checkpoint_hook(
    run: Run,
    saver: Saver | None,
    extras: Callable[[], dict[str, Any]],
    stateful: Mapping[str, Stateful],
    *,
    before_checkpoint: Callable[[Trainer], None] | None,
    prepares: bool,
) -> Checkpoints:
    """The hook that saves when the config says so; its other arguments are those of Checkpoints."""
    return Checkpoints(
        saver,
        extras,
        stateful,
        every=run.snapshot_save_iter,
        start=run.snapshot_save_start_iter,
        every_epochs=run.snapshot_save_epoch,
        start_epoch=run.snapshot_save_start_epoch,
        max_iter=run.max_iter,
        before_checkpoint=before_checkpoint,
        prepares=prepares,
    )


def find_next_save(run: Run, training: Loader, trainer: Trainer) -> int:
    """The iteration of the next checkpoint, if the run does not end before."""
    every, every_epochs, position = run.snapshot_save_iter, run.snapshot_save_epoch, trainer.position
    next_epoch = (position.epoch // every_epochs + 1) * every_epochs
    return min((trainer.step // every + 1) * every, trainer.step + training.steps_until(next_epoch, position))


def make_before_checkpoint(trainer: Trainer, view: View, held_out: Loader | None) -> Callable[[Trainer], None] | None:
    """What the recipe stores of the held-out set before a checkpoint; None if it stores nothing."""
    if held_out is None or not trainer.recipe.has_before_checkpoint:
        return None

    def before_checkpoint(trainer: Trainer) -> None:
        with view.use_average_weights(trainer) as recipe:
            recipe.before_checkpoint(held_out.once(), trainer.runtime.all_gather)

    return before_checkpoint
