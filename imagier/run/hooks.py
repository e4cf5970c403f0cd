"""The hooks of a run, as its config and options want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from imagier.data.loading.faults import OnError
from imagier.data.loading.loader import Loader
from imagier.recipe import Batch
from imagier.run import build_training, class_names, status
from imagier.run.about import describe_run
from imagier.run.saving import build_checkpoint_hook, build_saver, find_next_save, make_before_checkpoint
from imagier.run.session import Session
from imagier.run.stopping import SlurmJob
from imagier.train.hooks import baselines, files, report, tensorboard
from imagier.train.hooks.checkpoints import Checkpoints, Stateful
from imagier.train.hooks.console import Console
from imagier.train.hooks.evaluation import MEASURED_LATER, Evaluation, name_weights
from imagier.train.hooks.health import Health
from imagier.train.hooks.images import FOLDER, Images
from imagier.train.hooks.log import Log, Sink
from imagier.train.hooks.page import NAME as PAGE
from imagier.train.hooks.profile import Profile
from imagier.train.hooks.tolerant import SkippedWhenStopped, TolerantHook, TolerantSink
from imagier.train.hooks.wandb import WandB
from imagier.train.hooks.watchdog import Watchdog
from imagier.train.rank_state import RankState
from imagier.train.ranks import raise_on_all_ranks
from imagier.train.saver import Saver
from imagier.train.scoring import Scores
from imagier.train.trainer import Hook, Outcome, Progress, Trainer
from imagier.train.view import View

FEW = 8
"""Samples that are looked at throughout a run: the rows of its images, and those that its health is read from."""

SHOWN_CLIPS, SHOWN_FRAMES = 3, 12
"""Rows of the images of a method for clips, and frames of its animations."""

HEALTH_EVERY = 100
"""Iterations between two readings of a run's health, or more, if it is logged less often."""


@dataclass(frozen=True)
class Hooks:
    """All hooks of a run, and those that the run itself talks to."""

    all: Sequence[Hook]
    """In the order in which they are called."""
    sinks: Sequence[Sink]
    saves: Checkpoints
    health: Health
    saver: Saver | None
    """None on all ranks but the first."""
    evaluation: Evaluation | None
    """None if there is no held-out set."""
    watchdog: Watchdog | None
    page: report.Report | None
    """None on all ranks but the first."""
    first_step: int
    """The iteration that the run continues from."""

    def resume(self, extras: Mapping[str, Any], trainer: Trainer) -> None:
        """Gives each hook the state that a checkpoint's extras hold for it, once the trainer has its own."""
        self.saves.load_state_dict(extras, trainer.runtime)
        self.health.prepare(trainer, trainer.step)
        if self.saver is not None and self.evaluation is not None:
            # Scores of a checkpoint are measured after it is written, so that they are not in it.
            for entry in self.saver.files.entries:
                if entry.step <= trainer.step:
                    self.evaluation.remember(entry.step, entry.metrics)

    @property
    def unsaved(self) -> str | None:
        """Why the last state of the run is not on the disk; None if it is."""
        return self.saver.unsaved if self.saver is not None else None

    def finish_saving(self) -> None:
        """Waits until every checkpoint so far is on the disk, or is known not to be."""
        if self.saver is not None:
            self.saver.close()

    def fail(self, trainer: Trainer, why: str) -> None:
        """Shows in the report that the run ended early. If that cannot be written, the report stays as it was."""
        if self.page is not None:
            with suppress(OSError):
                self.page.write(trainer, "failed", why)

    def close(self) -> None:
        """Finishes the files, the last checkpoint first, and ends the watch."""
        self.finish_saving()
        if self.watchdog is not None:
            self.watchdog.close()
        for sink in self.sinks:
            sink.close()


def build_hooks(session: Session, extras: Mapping[str, Any]) -> Hooks:
    """The hooks of a run. extras: what the checkpoint of a continued run keeps of them; empty for a new run."""
    config, plan, trainer = session.config, session.plan, session.trainer
    is_main = session.runtime.is_main
    has_bar = is_main and session.options.owns_process
    console = Console(total_steps=session.total_steps, from_step=trainer.step, has_bar=has_bar)
    saver = build_saver(config.run, session.scores, plan, session.runtime) if is_main else None
    with raise_on_all_ranks(session.runtime):
        wandb = _build_wandb(session, extras.get("wandb_id")) if is_main and session.options.wandb else None
        written = [*_build_file_sinks(session), *_tolerate_sink(wandb, "W&B's log")] if is_main else []
    sinks = [console, *written]
    log = _build_log(session, sinks)
    num_batches = build_training.count_calibration_batches(config)
    view = View(build_training.build_calibration(session.training, num_batches, session.runtime))
    evaluation = _build_evaluation(session, view, log, saver)
    few = (session.held_out or session.training).some(FEW)
    health = _build_health(session, view, log, few if session.held_out else None)
    stateful: dict[str, Stateful] = {"log": log, "health": health, "rank_state": RankState(trainer)}
    if evaluation is not None:
        stateful["evaluation"] = evaluation
    wandb_id = extras.get("wandb_id") if wandb is None else wandb.run_id
    calibrated = view if num_batches else None
    saves = build_checkpoint_hook(
        config.run,
        saver,
        partial(_collect_extras, session, wandb_id, calibrated, trainer),
        stateful,
        before_checkpoint=make_before_checkpoint(trainer, view, session.held_out),
        prepares=find_next_save(config.run, session.training, trainer) < session.total_steps,
    )
    images = TolerantHook(_build_images(session, view, sinks, _choose_frames(session, few)), "an image")
    page = _build_page(session, evaluation, health, saver) if is_main else None
    pages = _tolerate_pages(session, page) if page is not None else []
    watchdog = _build_watchdog(session)
    # Records first, so that a checkpoint lacks none. It then holds the step, whatever happens to its scores and images.
    # The watchdog last: a step is all that hooks do, too.
    hooks: list[Hook] = [log, console, health, saves, *_list_after_save(evaluation, images), *pages]
    hooks += [] if watchdog is None else [watchdog]
    built = Hooks(hooks, sinks, saves, health, saver, evaluation, watchdog, page, trainer.step)
    built.resume(extras, trainer)
    _make_up(session, evaluation, images)
    return built


def _list_after_save(evaluation: Evaluation | None, images: Hook) -> list[Hook]:
    hooks: list[Hook] = [images] if evaluation is None else [evaluation, images]
    if SlurmJob.from_environment() is None:
        return hooks
    return [SkippedWhenStopped(hook) for hook in hooks]  # else the time to queue the job again might run out


def _make_up(session: Session, evaluation: Evaluation | None, images: Hook) -> None:
    """Makes the scores and the image of the step where a run continues, if it was killed before they were made."""
    plan, trainer = session.plan, session.trainer
    if not plan.is_resume or plan.checkpoint is None or plan.checkpoint.parent != plan.logdir:
        return
    is_scored, is_shown = trainer.runtime.broadcast(_find_made(session) if trainer.runtime.is_main else (False, False))
    position = trainer.position
    epoch_ended = position.epoch > 0 and position.samples < session.training.samples_per_step
    outcome = Outcome.DONE if trainer.step >= session.total_steps else Outcome.GO_ON
    progress = Progress(trainer.step, position, epoch_ended, outcome, ())
    if evaluation is not None and not is_scored:
        evaluation.after_step(trainer, progress)
    if not is_shown:
        images.after_step(trainer, progress)


def _find_made(session: Session) -> tuple[bool, bool]:
    """Whether the scores, and the image, of the current step are in the run's folder."""
    step, logdir = session.trainer.step, session.plan.logdir
    tags = _list_score_tags(session)
    own = [record for record in files.read(logdir) if record["step"] == step and MEASURED_LATER not in record]
    is_scored = any(not record.keys().isdisjoint(tags) for record in own)
    return is_scored, any((logdir / FOLDER).glob(f"*_iteration_{step:09d}.jpg"))


def _list_score_tags(session: Session) -> list[str]:
    """The tags of the scores by which checkpoints are compared."""
    return [f"{score.name}/{name_weights(session.trainer)}" for score in session.scores]


def _build_file_sinks(session: Session) -> list[Sink]:
    """What writes records into the run's folder. None of them ends a run when its disk fails."""
    logdir, step = session.plan.logdir, session.trainer.step
    sinks = _tolerate_sink(files.JsonLines(logdir, from_step=step), files.NAME)
    if tensorboard.is_installed():
        board = tensorboard.TensorBoard(
            logdir,
            from_step=step,
            images=session.config.trainer.image_to_tensorboard,
            config=session.config.to_dict(),
            config_text=session.config.dump(),
            metrics=_list_score_tags(session),
        )
        sinks += _tolerate_sink(board, "TensorBoard's log")
    return sinks


def _build_wandb(session: Session, kept_id: str | None) -> WandB:
    config, options, plan = session.config, session.options, session.plan
    return WandB(
        plan.logdir,
        project=options.wandb_project,
        run_id=options.wandb_id,
        resuming=plan.is_resume,
        kept_id=kept_id,
        config={**config.to_dict(), "dataset": config.run.data.name, "seed": plan.seed},
    )


def _tolerate_sink(sink: Sink | None, what: str) -> list[Sink]:
    return [] if sink is None else [TolerantSink(sink, what)]


def _build_log(session: Session, sinks: Sequence[Sink]) -> Log:
    training, held_out = session.training, session.held_out
    return Log(
        sinks,
        every=session.config.run.logging_iter,
        samples_per_step=training.samples_per_step,
        log_names=session.trainer.recipe.log_names,
        stopwatch=session.stopwatch,
        tallies=partial(_count_skipped, [training, *([held_out] if held_out is not None else [])]),
    )


def _build_evaluation(session: Session, view: View, log: Log, saver: Saver | None) -> Evaluation | None:
    run = session.config.run
    if session.held_out is None or session.scorer is None:
        return None

    def note_scores(step: int, scores: Scores) -> None:
        if saver is not None:
            saver.note(step, scores)

    return Evaluation(
        session.held_out.once,
        partial(session.training.draw, baselines.SAMPLES),
        view,
        log.write,
        scorer=session.scorer,
        learning=partial(session.training.draw, baselines.SAMPLES, whole=True),
        every=run.metrics_iter or run.snapshot_save_iter,
        every_epochs=run.metrics_epoch or run.snapshot_save_epoch,
        seed=session.plan.seed,
        on_scores=note_scores,
    )


def _build_health(session: Session, view: View, log: Log, held_out: Batch | None) -> Health:
    return Health(
        partial(session.training.some, FEW),
        held_out,
        session.training.once,
        view,
        log.write,
        players=list(session.trainer.players),
        every=max(HEALTH_EVERY, session.config.run.logging_iter),
        seed=session.plan.seed,
    )


def _choose_frames(session: Session, few: Batch) -> Sequence[Batch]:
    """What the images of the run show: a few samples, or of clips their frames, of whole sequences if it has any."""
    if not session.trainer.recipe.is_video:
        return [few]
    return few.frames() if session.held_out is None else session.held_out.some_clips(SHOWN_CLIPS, SHOWN_FRAMES)


def _build_images(session: Session, view: View, sinks: Sequence[Sink], few: Sequence[Batch]) -> Images:
    run = session.config.run
    return Images(
        session.plan.logdir,
        few,
        view,
        sinks,
        every=[run.image_save_iter, run.metrics_iter or run.snapshot_save_iter],
        display_every=run.image_display_iter,
        seed=session.plan.seed,
    )


def _build_page(session: Session, evaluation: Evaluation | None, health: Health, saver: Saver | None) -> report.Report:
    return report.Report(
        session.plan.logdir,
        describe_run(session),
        verdicts=health.verdicts.list_standing,
        by_class=evaluation.by_class if evaluation is not None else None,
        unsaved=lambda: saver.unsaved if saver is not None else None,
    )


def _tolerate_pages(session: Session, page: report.Report) -> list[Hook]:
    """What the first rank writes about a run."""
    pages: list[Hook] = [TolerantHook(page, PAGE)]
    if session.options.profile:
        profile = Profile(session.plan.logdir, session.runtime.device)
        pages.insert(0, TolerantHook(profile, "the profile"))
    return pages


def _build_watchdog(session: Session) -> Watchdog | None:
    timeout_s = session.options.step_timeout_s
    if timeout_s is None:
        return None
    return Watchdog(session.plan.logdir, timeout_s, rank=session.runtime.rank, status=status.HUNG)


def _collect_extras(
    session: Session, wandb_id: str | None, calibrated: View | None, trainer: Trainer
) -> dict[str, Any]:
    """What a checkpoint keeps beside the state of the trainer and of the hooks."""
    statistics = build_training.measure_batch_norm(calibrated, trainer) if calibrated is not None else {}
    classes = {label: list(names) for label, names in session.training.dataset.classes.items()}
    samples = len(session.training.dataset)
    extras = {**session.plan.extras, class_names.KEY: classes, "samples": samples}
    return {**extras, "wandb_id": wandb_id, "batch_norm": statistics}


def _count_skipped(loaders: Sequence[Loader]) -> dict[str, int]:
    """How often samples were skipped, if broken ones are."""
    skipping = [loader.skipped for loader in loaders if loader.on_error is not OnError.RAISE]
    return {"data/skipped": sum(skipping)} if skipping else {}
