"""What `imagier train` does: config, data, objects, the run, and what it says about it."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console as RichConsole
from rich.table import Table

from imagier.config.check import Config
from imagier.config.read import read
from imagier.config.schema import BIG
from imagier.data.loading.faults import translate_worker_errors
from imagier.data.loading.loader import Loader
from imagier.errors import RunError, UserError
from imagier.run import build_data, build_training, status
from imagier.run.hooks import Hooks
from imagier.run.quick_check import quick_check
from imagier.run.resume_plan import ResumePlan, newest
from imagier.run.saving import first_save
from imagier.run.stopping import Stop, listening, slurm_job
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.clock import Stopwatch
from imagier.train.disk import reason, replacing
from imagier.train.guard import Guard, NonFinite
from imagier.train.hooks import evaluation, report, tensorboard
from imagier.train.recorder import FlightRecorder
from imagier.train.runtime import Runtime
from imagier.train.trainer import Outcome, Trainer, no_clock

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"

MOST_ROLLBACKS = 3
"""So often a run goes back to the same checkpoint."""

Run = Callable[[Config, argparse.Namespace, Runtime], int]


def started(args: argparse.Namespace, run: Run) -> int:
    """What `run` returns, called with the config and the runtime that the command line says."""
    config, notes = read_config(args)
    runtime = runtimes.start(args.device, single=args.single_gpu, local_rank=args.local_rank)
    try:
        with only_main_logs(runtime), translate_worker_errors():
            for note in notes:
                logger.info(note)
            return run(config, args, runtime)
    except RuntimeError as error:
        if runtime.world == 1 or not runtimes.is_lost_contact(error):
            raise
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"rank {runtime.rank}: another rank has ended, or cannot be reached ({reason}); the first line that any "
            "rank wrote says why; started again, the run goes on from its last checkpoint"
        ) from error
    finally:
        runtimes.stop(runtime)


@contextmanager
def only_main_logs(runtime: Runtime) -> Iterator[None]:
    """While this is open, ranks other than the first log warnings and errors only."""
    package = logging.getLogger("imagier")
    level = package.level
    if not runtime.is_main:
        package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(level)


def train(config: Config, args: argparse.Namespace, runtime: Runtime) -> int:
    """Trains; returns the exit status."""
    trainer = run_once(config, args, runtime)
    return status.interrupted() if trainer.outcome is Outcome.INTERRUPTED else status.DONE


def read_config(args: argparse.Namespace) -> tuple[Config, list[str]]:
    """The checked config, and what is to be told about it. A run in --logdir is continued with its own config."""
    path = args.config
    if path is None:
        if args.logdir is None or not (args.logdir / CONFIG).is_file():
            raise UserError("--config is missing: name the YAML of the experiment, or the --logdir of a run")
        path = args.logdir / CONFIG
    workers = [] if args.num_workers is None else [f"data.num_workers={args.num_workers}"]
    return read(path, [*args.overrides, *workers])


def run_once(
    config: Config, args: argparse.Namespace, runtime: Runtime, held_out_batches: int | None = None
) -> Trainer:
    """One run from its start, or from where it was left, to its end.

    held_out_batches: evaluate on so many batches instead of on the whole held-out set.
    """
    start = ResumePlan.resolve(args, runtime)
    runtimes.set_cudnn(deterministic=config.run.cudnn.deterministic, benchmark=config.run.cudnn.benchmark)
    logger.info(_choose_precision(config, runtime))
    training, held_out = _loaders(config, runtime, start.seed, held_out_batches)
    _check_data(config, runtime, training, held_out)
    recipe = build_training.recipe(config, runtime, start.seed, style_classes=len(training.dataset.classes))
    players = build_training.players(config, recipe, runtime)
    stopwatch = Stopwatch(runtime) if config.run.speed_benchmark else None
    trainer = Trainer(
        recipe,
        players,
        runtime,
        seed=start.seed,
        accumulate=config.trainer.accumulate,
        clock=stopwatch or no_clock,
    )
    total_steps = min(config.run.max_iter, training.steps_in(config.run.max_epoch))
    _announce(config, trainer, training, held_out, start, total_steps)
    if args.dry_run:
        logger.info(config.dump())
        return trainer
    if args.compile:
        for network in recipe.networks.values():
            network.compile()
    kept = start.restore(trainer, strict=config.trainer.strict_resume)
    _write_config(config, start, runtime)
    hooks = Hooks(config, args, start, trainer, training, held_out, total_steps, stopwatch, kept)
    trainer.hooks = hooks.all
    _run(config, args, start, trainer, training, hooks, total_steps)
    return trainer


def _run(
    config: Config,
    args: argparse.Namespace,
    start: ResumePlan,
    trainer: Trainer,
    training: Loader,
    hooks: Hooks,
    total_steps: int,
) -> None:
    """Trains until something ends it, and says what it was. RunError if the last state is not on the disk."""
    record = FlightRecorder(trainer, start.logdir)
    trainer.guard = Guard(
        trainer.players, trainer.runtime, policy=config.trainer.on_nonfinite, record=record, say=logger.info
    )
    job = slurm_job()
    requeues = job is not None and args.logdir is not None  # in another folder the run would begin anew each time
    if job is not None:
        logger.info(
            f"{job}, and the job is {'queued again' if requeues else 'not queued again, for want of a --logdir'}"
        )
    first_step = trainer.step
    with listening(Stop(config.run.max_iter, config.run.max_epoch, max_time=args.max_time, job=job)) as stop:
        try:
            _fit(trainer, training, stop, start, hooks)
        finally:
            hooks.close()
    _conclude(trainer, start, hooks, total_steps)
    if hooks.unsaved is not None:
        raise RunError(hooks.unsaved)
    got_further = first_step < trainer.step < total_steps
    if job is not None and requeues and job.is_over() and got_further and trainer.runtime.is_main:
        logger.info(job.requeue())


def _fit(trainer: Trainer, training: Loader, stop: Stop, start: ResumePlan, hooks: Hooks) -> None:
    """Trains; where numbers go bad and the config says rollback, from the last checkpoint on, with the data after."""
    gone_back_to: Counter[Path] = Counter()
    assert trainer.guard is not None
    while True:
        try:
            return trainer.fit(training.stream(trainer.position), stop)
        except NonFinite as error:
            if trainer.guard.policy != "rollback":
                raise
            hooks.finish_saving()
            found = newest(start.logdir, trainer.runtime)
            if found is None:
                raise NonFinite(f"{error}; and there is no checkpoint to go back to") from error
            if gone_back_to[found.path] == MOST_ROLLBACKS:
                name = found.path.name
                raise NonFinite(f"{error}; {name} was gone back to {MOST_ROLLBACKS} times already") from error
            gone_back_to[found.path] += 1
            position = trainer.position
            kept = checkpoint.restore(trainer, found.state, found.path)
            trainer.position = position  # the same data again would do the same again
            trainer.guard.restart()
            hooks.go_on_from(kept, trainer)
            for note in found.notes:
                logger.info(note)
            logger.info(f"{error}; back to iteration {trainer.step:,} ({found.path.name}), with the data after")


def _choose_precision(config: Config, runtime: Runtime) -> str:
    trainer = config.trainer
    runtime.precision, why = runtimes.choose_precision(trainer.precision, trainer.amp_config.enabled, runtime.device)
    return f"{runtime.describe()} ({why})"


def _loaders(config: Config, runtime: Runtime, seed: int, held_out_batches: int | None) -> tuple[Loader, Loader | None]:
    data = config.run.data
    training = build_data.train_loader(config, runtime, seed)
    if data.val is None:
        return training, None
    held_out = build_data.held_out_loader(config, runtime, build_data.for_validation(data), data.val, seed)
    held_out.most_batches = held_out_batches
    return training, held_out


def _check_data(config: Config, runtime: Runtime, training: Loader, held_out: Loader | None) -> None:
    """Reads some samples of each set; all ranks end if a file is wrong, and the first one says which."""
    problems: list[str] = []
    if runtime.is_main:
        kinds = build_data.input_types(config.run.data)
        skips = config.run.data.on_error == "skip"
        problems += quick_check(
            training.dataset, batch_size=training.batch_size, kinds=kinds, tell=logger.info, skips=skips
        )
        if held_out is not None:
            problems += quick_check(held_out.dataset, batch_size=held_out.batch_size, skips=skips)
    if runtime.all_reduce_max(len(problems)):
        shown, more = problems[:20], len(problems) - 20
        raise UserError("\n".join([*shown, *([f"... and {more} more files"] if more > 0 else [])]))


def _announce(
    config: Config,
    trainer: Trainer,
    training: Loader,
    held_out: Loader | None,
    start: ResumePlan,
    total_steps: int,
) -> None:
    """What a person should know before the first step."""
    counts = ", ".join(
        f"{name} {sum(p.numel() for p in network.parameters()):,}" for name, network in trainer.recipe.networks.items()
    )
    held = f", {len(held_out.dataset):,} held out" if held_out is not None else ""
    logger.info(f"{config.trainer.type}: parameters {counts}; {len(training.dataset):,} samples{held}")
    for note in start.notes:
        logger.info(note)
    logger.info(str(start))
    if config.trainer.image_to_tensorboard and not tensorboard.is_installed():
        logger.info(
            "trainer.image_to_tensorboard: TensorBoard is not installed (pip install tensorboard): no images for it"
        )
    run = config.run
    if total_steps >= BIG:
        logger.info("this run has no end: neither max_iter nor max_epoch is set")
    if first_save(run, training) >= total_steps:
        logger.info("no checkpoint before the end: neither snapshot_save_iter nor snapshot_save_epoch comes before it")


def _write_config(config: Config, start: ResumePlan, runtime: Runtime) -> None:
    problem = None
    if runtime.is_main:
        try:
            with replacing(start.logdir / CONFIG) as file:
                file.write(config.dump().encode())
        except OSError as error:
            problem = f"{start.logdir}: cannot be written to: {reason(error)}; make room, or name another --logdir"
    if problem := runtime.broadcast(problem):
        raise UserError(problem)


def _conclude(trainer: Trainer, start: ResumePlan, hooks: Hooks, total_steps: int) -> None:
    """The last lines of a run: what was reached, and where everything is."""
    if trainer.step < total_steps:
        goes_on = f"; --logdir {start.logdir} goes on from there" if hooks.unsaved is None else ""
        logger.info(f"stopped at iteration {trainer.step:,} of {total_steps:,}{goes_on}")
        return
    evaluated = hooks.evaluation
    if evaluated is not None and evaluated.last and trainer.runtime.is_main:
        headings, *rows = evaluation.table(evaluated.last)
        table = Table(*headings)
        for row in rows:
            table.add_row(*row)
        console = RichConsole(highlight=False, force_terminal=False)  # no colors: this may go to a log file
        with console.capture() as text:
            console.print(table)
        logger.info(text.get().removesuffix("\n"))
        if any(best.step != trainer.step for best in evaluated.best.values()):
            logger.info(evaluation.line(evaluated.best))
    logger.info(f"finished at iteration {trainer.step:,}; see {start.logdir / report.NAME}")
