"""A training, from its config to its result."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from imagier.config.check import Config
from imagier.errors import RunError, UserError
from imagier.recipe import Recipe
from imagier.run.class_names import check_class_names
from imagier.run.config_changes import FOLDER, list_changes, write_config
from imagier.run.dry_run import dry_run
from imagier.run.experiment import ConfigSource, Experiment, read_experiment
from imagier.run.folder_lock import lock_folder, unwritable
from imagier.run.hooks import Hooks, build_hooks
from imagier.run.options import RunOptions
from imagier.run.process import open_runtime
from imagier.run.resume_plan import ResumePlan, choose_logdir, find_newest
from imagier.run.session import Session, announce, announce_end, build_session
from imagier.run.stopping import SlurmJob, Stop, handle_signals
from imagier.train import checkpoint
from imagier.train.checkpoint_files import read_pointer
from imagier.train.disk import describe_error
from imagier.train.guard import Guard, NonFinite
from imagier.train.hooks import evaluation, page
from imagier.train.manifest import choose_epoch_in_name, format_file_name
from imagier.train.ranks import raise_on_all_ranks
from imagier.train.recorder import FlightRecorder
from imagier.train.runtime import Runtime
from imagier.train.scoring import Scores
from imagier.train.trainer import Outcome

logger = logging.getLogger(__name__)

MOST_CHANGES = 10
"""Changed keys of a config that are logged, a line each."""

RECOMPILE_LIMIT = 64
"""How often the same code is compiled before it runs as it is: torch's 8 are few for code that several discriminators
share, each with and without gradients, and for the first frames of clips."""

MOST_ROLLBACKS = 3
"""How often a run goes back to the same checkpoint before it ends."""


@dataclass(frozen=True)
class TrainResult:
    """What came of a training."""

    logdir: Path
    """The folder of the run. After a dry run it need not exist."""
    outcome: Literal["done", "interrupted", "dry run"]
    """interrupted: saved before its end, by a signal or a time limit; the same call again continues from there."""
    steps: int
    """Iterations done, those of earlier calls that this one went on from included."""
    epochs: int
    """Whole epochs done."""
    checkpoint: Path | None = None
    """The last checkpoint; None if there is none."""
    scores: dict[str, Scores] = field(default_factory=dict)
    """On the held-out set at the end: by name ("generator", then the baselines) and metric. Empty if the run was
    interrupted, or has no held-out set."""


def train(
    config: ConfigSource | None, options: RunOptions | None = None, *, overrides: Sequence[str] = ()
) -> TrainResult:
    """Trains the networks of a config, from their first weights or from where the run in `options.logdir` was left.

    config: a YAML file, its content as a mapping, or a checked Config; None: that of the run in `options.logdir`.
    overrides: "section.key=value" each, as on the command line.

    Progress goes to the loggers `imagier.*` and to the run's folder. Afterwards the process is as it was before. In the
    main thread SIGINT (the stop button of a notebook), SIGTERM, SIGHUP and SIGUSR1 save the run while it continues.

    UserError for a mistake in config, data or options. RunError if the run cannot continue, or if its last state could
    not be saved.
    """
    options = options or RunOptions()
    experiment = read_experiment(config, options, overrides)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        if options.dry_run:
            return _summarize(dry_run(experiment, options, runtime), None)
        session, hooks = run_session(experiment, options, runtime)
        return _summarize(session, hooks)


def run_session(
    experiment: Experiment, options: RunOptions, runtime: Runtime, held_out_batches: int | None = None
) -> tuple[Session, Hooks]:
    """One run from its start, or from where it was left, to its end.

    held_out_batches: evaluate on this many batches instead of on the whole held-out set.
    """
    _check_ranks_agree(experiment.config, options, runtime)
    logdir = choose_logdir(options, runtime, experiment.name)
    with lock_folder(logdir, runtime):
        return _run_in(logdir, experiment.config, options, runtime, held_out_batches)


def _run_in(
    logdir: Path, config: Config, options: RunOptions, runtime: Runtime, held_out_batches: int | None
) -> tuple[Session, Hooks]:
    plan, found = ResumePlan.resolve(options, logdir, runtime)
    with _log_what_an_abort_kept(options, plan), allow_recompiling(options.compile):
        session = build_session(config, options, plan, runtime, held_out_batches)
        trainer = session.trainer
        announce(session)
        if options.compile:
            compile_networks(trainer.recipe)
        changes = [] if plan.checkpoint is None else list_changes(plan.checkpoint.parent, config)
        extras = plan.restore(trainer, found, changes, strict=config.trainer.strict_resume)
        trainer.position = session.training.fit_position(trainer.position)
        del found  # or the checkpoint would stay in memory, or its file in use, as long as the run lasts
        check_class_names(extras, session.training.dataset.classes, plan.checkpoint)
        if plan.is_resume:
            _announce_changes(session, changes, extras)
        _write_config(session)
        announce_end(session)
        hooks = build_hooks(session, extras)
        trainer.hooks = hooks.all
        _run(session, hooks)
    return session, hooks


def _run(session: Session, hooks: Hooks) -> None:
    """Trains until something ends it, and logs what it was. RunError if the last state is not on the disk."""
    run, options, trainer = session.config.run, session.options, session.trainer
    trainer.guard = Guard(
        trainer.players,
        trainer.runtime,
        policy=session.config.trainer.on_nonfinite,
        record=FlightRecorder(trainer, session.plan.logdir),
    )
    job = SlurmJob.from_environment()
    requeues = job is not None and options.logdir is not None  # in another folder the run would start afresh each time
    if job is not None:
        then = "is queued again" if requeues else "is not queued again, because the run was given no log folder"
        logger.info(f"{job}; then the job {then}")
    with handle_signals(Stop(run.max_iter, run.max_epoch, max_time_s=options.max_time_s, job=job)) as stop:
        try:
            _fit(session, hooks, stop)
        except BaseException as error:
            hooks.fail(trainer, str(error) or type(error).__name__)
            raise
        finally:
            hooks.close()
    _log_outcome(session, hooks)
    if hooks.unsaved is not None:
        raise RunError(hooks.unsaved)
    got_further = trainer.outcome is Outcome.INTERRUPTED and trainer.step > hooks.first_step
    if job is not None and requeues and job.is_over() and got_further and session.runtime.is_main:
        logger.info(job.requeue())


def _fit(session: Session, hooks: Hooks, stop: Stop) -> None:
    """Trains. With the policy rollback, bad numbers send the run back to its last checkpoint, to skip their data."""
    trainer = session.trainer
    rollbacks: Counter[Path] = Counter()
    assert trainer.guard is not None
    while True:
        try:
            return trainer.fit(session.training.stream(trainer.position), stop)
        except NonFinite as error:
            if trainer.guard.policy != "rollback":
                raise
            hooks.finish_saving()
            found = find_newest(session.plan.logdir, session.runtime)
            if found is None:
                raise NonFinite(f"{error}; and there is no checkpoint to go back to") from error
            if rollbacks[found.path] == MOST_ROLLBACKS:
                name = found.path.name
                raise NonFinite(f"{error}; the run went back to {name} {MOST_ROLLBACKS} times already") from error
            rollbacks[found.path] += 1
            position = trainer.position
            extras = checkpoint.restore(trainer, found.state, found.path)
            trainer.position = position  # the same data again would do the same again
            hooks.resume(extras, trainer)  # gives ranks buffers of their own back, which the guard copies
            trainer.guard.restart()
            for note in found.notes:
                logger.info(note)
            logger.info(f"{error}; back to iteration {trainer.step:,} ({found.path.name}), with the data after it")
            del found  # as in run_session


def _announce_changes(session: Session, changes: Sequence[str], extras: Mapping[str, Any]) -> None:
    """Logs what differs between a run that is continued and what it was."""
    plan = session.plan
    for change in changes[:MOST_CHANGES]:
        logger.info(f"changed: {change}")
    if len(changes) > MOST_CHANGES:
        logger.info(f"changed: {len(changes) - MOST_CHANGES} more keys; {plan.logdir / FOLDER} holds all configs")
    if session.options.seed not in (None, plan.seed):
        logger.info(f"the run keeps its seed {plan.seed}; {session.options.seed} would be for a new one")
    before, now = extras.get("samples"), len(session.training.dataset)
    if before not in (None, now):
        logger.info(f"the training set has changed: {before:,} -> {now:,} samples, in a new order")


def _write_config(session: Session) -> None:
    """Writes the config into the run's folder. All ranks raise a UserError if that fails."""
    logdir = session.plan.logdir
    with raise_on_all_ranks(session.runtime):
        if session.runtime.is_main:
            try:
                write_config(logdir, session.config, session.trainer.step)
            except OSError as error:
                raise unwritable(logdir, describe_error(error)) from error


def _check_ranks_agree(config: Config, options: RunOptions, runtime: Runtime) -> None:
    """UserError if ranks were not started for the same run, as when a launcher starts several runs at once."""
    own = config.dump(), None if options.logdir is None else str(options.logdir)
    if runtime.all_reduce_max(int(own != runtime.broadcast(own))):
        raise UserError(
            f"the {runtime.world} ranks were started with different configs or log folders",
            advice="start all with the same words; if each is a run of its own, run alone (`single_process=True`)",
            code="ranks-differ",
        )


def _log_outcome(session: Session, hooks: Hooks) -> None:
    """The last lines of a run: what was reached, and where everything is."""
    step, logdir = session.trainer.step, session.plan.logdir
    if session.trainer.outcome is Outcome.INTERRUPTED:
        stopped = f"stopped at iteration {step:,} of {session.total_steps:,}"
        if step == hooks.first_step:
            logger.info(f"{stopped}, before the first one; {_describe_last(session.options, session.plan)}")
        elif hooks.unsaved is None:
            how = _describe_continuing(session.options, session.plan)
            logger.info(f"{stopped}\nsaved iteration {step:,} in {logdir}; {how}")
        return
    evaluated = hooks.evaluation
    if evaluated is not None and evaluated.last:
        logger.info(format_scores(evaluated.last))
        if any(best.step != step for best in evaluated.best.values()):
            logger.info(evaluation.format_best(evaluated.best))
    see = f"; see {logdir / page.NAME}" if hooks.page is not None and hooks.page.is_current else ""
    logger.info(f"finished at iteration {step:,}{see}")


def compile_networks(recipe: Recipe) -> None:
    """Lets torch compile the networks when they are first used."""
    for network in (*recipe.networks.values(), *recipe.loss_networks):
        network.compile()


def allow_recompiling(is_compiled: bool) -> AbstractContextManager[None]:
    """While this is open, the same code may be compiled as often as networks of ours need it."""
    if not is_compiled:
        return nullcontext()
    from torch._dynamo import config  # slow

    return config.patch(recompile_limit=RECOMPILE_LIMIT)


@contextmanager
def _log_what_an_abort_kept(options: RunOptions, plan: ResumePlan) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        logger.info(f"stopped at once; {_describe_last(options, plan)}")
        raise


def _describe_last(options: RunOptions, plan: ResumePlan) -> str:
    """What is left of a run that did not save its last state, and how it continues."""
    last = read_pointer(plan.logdir)
    if last is None:
        return "nothing was saved yet"
    return f"the last checkpoint is {last}; {_describe_continuing(options, plan)}"


def _describe_continuing(options: RunOptions, plan: ResumePlan) -> str:
    # Otherwise the same again would begin anew, be refused, or go back to the file.
    if options.logdir is not None and options.resume in (None, options.checkpoint is None):
        return "continue with the same command"
    return f"continue with --logdir {shlex.quote(str(plan.logdir))} alone"


def format_scores(scores: dict[str, Scores]) -> str:
    """Scores as a table of text, without colors: it may go to a log file."""
    headings, *rows = evaluation.format_table(scores)
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, force_terminal=False)
    with console.capture() as text:
        console.print(table)
    return text.get().removesuffix("\n")


def _summarize(session: Session, hooks: Hooks | None) -> TrainResult:
    trainer, plan = session.trainer, session.plan
    if hooks is None:
        return TrainResult(plan.logdir, "dry run", trainer.step, trainer.position.epoch, plan.checkpoint)
    has_trained = trainer.step > hooks.first_step
    epoch = choose_epoch_in_name(trainer.position, trainer.step, session.config.run.max_iter)
    return TrainResult(
        plan.logdir,
        "interrupted" if trainer.outcome is Outcome.INTERRUPTED else "done",
        trainer.step,
        trainer.position.epoch,
        plan.logdir / format_file_name(epoch, trainer.step) if has_trained else plan.checkpoint,
        hooks.evaluation.last if hooks.evaluation is not None else {},
    )
