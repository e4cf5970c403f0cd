"""What `imagier train` does: config, data, objects, the run, and what it leaves behind."""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table

from imagier.cli import build
from imagier.config.check import Config, check
from imagier.config.legacy import modernize
from imagier.config.load import load
from imagier.config.schema import BIG
from imagier.data.check import quick_check
from imagier.data.loader import Loader
from imagier.errors import UserError
from imagier.recipe import Batch
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.hooks import evaluation, files, report, tensorboard
from imagier.train.hooks.checkpoints import Checkpoints
from imagier.train.hooks.console import Console
from imagier.train.hooks.log import Log, Sink
from imagier.train.hooks.pictures import Pictures
from imagier.train.hooks.profile import Profile
from imagier.train.hooks.wandb import WandB
from imagier.train.runtime import Runtime
from imagier.train.trainer import Hook, Outcome, Trainer
from imagier.train.view import View

CONFIG = "config.yaml"
DEFAULT_SEED = 2
PICTURE_ROWS = 8

Say = Callable[[str], None]


def train(args: argparse.Namespace) -> int:
    """Trains as the command line says; returns the exit status."""
    config, notes = read_config(args)
    runtime = runtimes.start(args.device, single=args.single_gpu, local_rank=args.local_rank)
    try:
        say = print if runtime.is_main else _silent
        for note in notes:
            say(note)
        if args.debug:
            from imagier.cli.debug import debug

            return debug(config, args, runtime)
        run_once(config, args, runtime)
    finally:
        runtimes.stop()
    return 0


def read_config(args: argparse.Namespace) -> tuple[Config, list[str]]:
    """The checked config, and what is to be told about it. A run in --logdir is continued with its own config."""
    path = args.config
    if path is None:
        if args.logdir is None or not (args.logdir / CONFIG).is_file():
            raise UserError(
                "--config is missing: name the YAML of the experiment (or the --logdir of a run that has one)"
            )
        path = args.logdir / CONFIG
    document = load(path, args.overrides)
    notes = modernize(document)
    if args.num_workers is not None:
        document.set(("data", "num_workers"), args.num_workers, origin="command line")
    return check(document), notes


def run_once(
    config: Config, args: argparse.Namespace, runtime: Runtime, held_out_batches: int | None = None
) -> Trainer:
    """One run from its start, or from where it was left, to its end.

    held_out_batches: evaluate on so many batches instead of on the whole held-out set.
    """
    start = Start.find(config, args, runtime)
    say = print if runtime.is_main else _silent
    _set_up(config, args, runtime, say)
    training, held_out = _loaders(config, runtime, start.seed, held_out_batches)
    _check_data(runtime, [loader for loader in (training, held_out) if loader is not None])
    recipe = build.recipe(config, runtime, start.seed)
    players = build.players(config, recipe, runtime)
    total_steps = min(config.run.max_iter, config.run.max_epoch * training.steps_per_epoch)
    _announce(config, runtime, training, held_out, recipe, start, total_steps, say)
    if args.dry_run:
        say(config.dump())
        return Trainer(recipe, players, runtime, seed=start.seed)
    if args.compile:
        for network in recipe.networks.values():
            network.compile()

    trainer = Trainer(recipe, players, runtime, seed=start.seed, accumulate=config.trainer.accumulate)
    extras = start.restore(trainer, strict=config.trainer.strict_resume)
    if runtime.is_main:
        start.logdir.mkdir(parents=True, exist_ok=True)
        with checkpoint.replacing(start.logdir / CONFIG) as file:
            file.write(config.dump().encode())
    hooks = _Hooks(config, args, runtime, start, trainer, training, held_out, total_steps)
    if extras:
        hooks.log.load_state_dict(extras["log"], runtime.device)
    trainer.hooks = hooks.all
    with _stopping(config, args.max_time) as stop:
        try:
            trainer.fit(training.stream(trainer.position), stop)
        finally:
            hooks.close()
    _conclude(trainer, start.logdir, hooks.evaluation, total_steps, say)
    return trainer


@dataclass(frozen=True)
class Start:
    """Where a run begins: its folder, its seed, and the checkpoint it begins from, if any."""

    logdir: Path
    seed: int
    path: Path | None = None
    state: dict[str, Any] | None = None
    continues: bool = False
    """All of the checkpoint counts, not its weights alone."""

    @staticmethod
    def find(config: Config, args: argparse.Namespace, runtime: Runtime) -> Start:
        """A given checkpoint, else the latest of the log folder, else nothing. UserError if a given one is missing."""
        stem = args.config.stem if args.config is not None else "run"
        logdir = args.logdir or Path(str(runtime.shared(f"logs/{time.strftime('%Y_%m%d_%H%M_%S')}_{stem}")))
        drawn = int(str(runtime.shared(random.SystemRandom().randint(0, 10000)))) if args.randomized_seed else None
        seed = next(seed for seed in (drawn, args.seed, DEFAULT_SEED) if seed is not None)
        path = args.checkpoint or checkpoint.latest(logdir)
        if path is None:
            return Start(logdir, seed)
        state = checkpoint.load(path)
        resume = args.resume if args.resume is not None else int(args.checkpoint is None)
        if not resume:
            return Start(logdir, seed, path, state)
        # The data order and all noise follow from the seed: a continued run keeps it.
        return Start(logdir, int(state["extras"]["seed"]), path, state, continues=True)

    def restore(self, trainer: Trainer, *, strict: bool) -> dict[str, Any]:
        """Loads the checkpoint into a trainer; returns what the hooks kept in it, nothing for a new run."""
        if self.path is None or self.state is None:
            return {}
        if self.continues:
            return checkpoint.restore(trainer, self.state, self.path)
        checkpoint.restore_weights(trainer, self.state, self.path, strict=strict)
        return {}


class _Hooks:
    """The hooks of a run, in the order in which they watch."""

    def __init__(
        self,
        config: Config,
        args: argparse.Namespace,
        runtime: Runtime,
        start: Start,
        trainer: Trainer,
        training: Loader,
        held_out: Loader | None,
        total_steps: int,
    ) -> None:
        run = config.run
        average = config.trainer.model_average_config
        count = average.num_batch_norm_estimation_iterations if average.enabled else 0
        view = View(build.calibrated(training.once, count, runtime))
        console = Console(total_steps=total_steps, from_step=trainer.step, is_main=runtime.is_main)
        self.sinks: list[Sink] = [console]
        if runtime.is_main:
            self.sinks += _files(config, args, start, trainer.step)
        self.log = Log(
            self.sinks,
            every=run.logging_iter,
            samples_per_step=training.batch_size * training.world,
            log_names=trainer.recipe.log_names,
        )
        snapshot = run.snapshot_save_iter
        metrics_every = run.metrics_iter or snapshot
        pictures = Pictures(
            start.logdir,
            _first_samples(held_out or training),
            view,
            self.sinks,
            every=[run.image_save_iter, metrics_every],
            display_every=run.image_display_iter,
            seed=start.seed,
        )
        self.evaluation: evaluation.Evaluation | None = None
        if held_out is not None and config.run.data.input_image:
            self.evaluation = evaluation.Evaluation(
                held_out.once,
                view,
                self.log.write,
                every=metrics_every,
                every_epochs=run.metrics_epoch or run.snapshot_save_epoch,
                baselines=build.baselines(run.data, training),
                seed=start.seed,
            )
        checkpoints = Checkpoints(
            start.logdir,
            lambda: {
                "log": self.log.state_dict(),
                "seed": start.seed,
                "batch_norm": build.measured_batch_norm(view, trainer) if count else {},
            },
            every=snapshot,
            start=run.snapshot_save_start_iter,
            every_epochs=run.snapshot_save_epoch,
            start_epoch=run.snapshot_save_start_epoch,
        )
        self.all: list[Hook] = [self.log, console, checkpoints, pictures]
        if self.evaluation is not None:
            self.all.append(self.evaluation)
        if args.profile and runtime.is_main:
            self.all.append(Profile(start.logdir, runtime.device))
        if runtime.is_main:
            self.all.append(report.Report(start.logdir, shlex.join(sys.argv), start.seed, self.evaluation))

    def close(self) -> None:
        """Finishes the files."""
        for sink in self.sinks:
            sink.close()


def _files(config: Config, args: argparse.Namespace, start: Start, from_step: int) -> list[Sink]:
    sinks: list[Sink] = [files.JsonLines(start.logdir, from_step=from_step)]
    if tensorboard.is_installed():
        pictures = config.trainer.image_to_tensorboard
        sinks.append(tensorboard.TensorBoard(start.logdir, from_step=from_step, pictures=pictures))
    if args.wandb:
        whole = {**config.resolved(), "dataset": config.run.data.name, "seed": start.seed}
        sinks.append(
            WandB(
                start.logdir,
                project=args.wandb_name,
                run_id=args.wandb_id,
                resuming=start.continues,
                config=whole,
            )
        )
    return sinks


def _set_up(config: Config, args: argparse.Namespace, runtime: Runtime, say: Say) -> None:
    cudnn = config.run.cudnn
    runtimes.set_cudnn(deterministic=cudnn.deterministic, benchmark=cudnn.benchmark)
    trainer = config.trainer
    runtime.precision, why = runtimes.choose_precision(trainer.precision, trainer.amp_config.enabled, runtime.device)
    say(f"{runtime.describe()} ({why})")


def _loaders(config: Config, runtime: Runtime, seed: int, held_out_batches: int | None) -> tuple[Loader, Loader | None]:
    data = config.run.data
    training = build.train_loader(config, runtime, seed)
    if data.val is None:
        return training, None
    held_out = build.held_out_loader(config, runtime, build.for_validation(data), data.val, seed)
    held_out.most_batches = held_out_batches
    return training, held_out


def _check_data(runtime: Runtime, loaders: Sequence[Loader]) -> None:
    """Reads some samples of each set; all ranks end if a file is wrong, the main one says which."""
    problems: list[str] = []
    if runtime.is_main:
        problems = [line for loader in loaders for line in quick_check(loader.dataset)]
    if runtime.largest(len(problems)):
        shown, more = problems[:20], len(problems) - 20
        raise UserError("\n".join([*shown, *([f"... and {more} more files"] if more > 0 else [])]))


def _announce(
    config: Config,
    runtime: Runtime,
    training: Loader,
    held_out: Loader | None,
    recipe: Any,
    start: Start,
    total_steps: int,
    say: Say,
) -> None:
    counts = ", ".join(
        f"{name} {sum(p.numel() for p in network.parameters()):,}" for name, network in recipe.networks.items()
    )
    held = f", {len(held_out.dataset)} held out" if held_out is not None else ""
    say(f"{config.trainer.type}: parameters {counts}; {len(training.dataset)} samples{held}")
    say(
        f"{start.logdir}: {'continues from' if start.continues else 'weights of' if start.path else 'a new run'}"
        f"{f' {start.path}' if start.path else ''}; seed {start.seed}"
    )
    run = config.run
    if total_steps >= BIG:
        say("this run has no end: neither max_iter nor max_epoch is set")
    saves = run.snapshot_save_iter <= total_steps or run.snapshot_save_epoch * training.steps_per_epoch <= total_steps
    if not saves:
        say("checkpoints: only at the end, since neither snapshot_save_iter nor snapshot_save_epoch comes before it")


def _first_samples(loader: Loader) -> Batch:
    """A few samples, spread over the set, to show again and again."""
    return loader.some(PICTURE_ROWS)


@contextmanager
def _stopping(config: Config, max_time: float | None) -> Iterator[_Stop]:
    """Says when to stop; while it is in force, SIGTERM asks for a clean end."""
    stop = _Stop(config.run.max_iter, config.run.max_epoch, max_time)
    before = signal.signal(signal.SIGTERM, stop.interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


class _Stop:
    """Done at max_iter or max_epoch; interrupted by SIGTERM and by --max_time."""

    def __init__(self, max_iter: int, max_epoch: int, max_time: float | None) -> None:
        self.max_iter = max_iter
        self.max_epoch = max_epoch
        self.deadline = float("inf") if max_time is None else time.monotonic() + max_time
        self.terminated = False

    def interrupt(self, signum: int, frame: object) -> None:
        self.terminated = True

    def __call__(self, step: int, epoch: int) -> Outcome:
        if step >= self.max_iter or epoch >= self.max_epoch:
            return Outcome.DONE
        if self.terminated or time.monotonic() > self.deadline:
            return Outcome.INTERRUPTED
        return Outcome.GO_ON


def _conclude(
    trainer: Trainer, logdir: Path, evaluated: evaluation.Evaluation | None, total_steps: int, say: Say
) -> None:
    """The last lines of a run: what was reached, and where everything is."""
    if trainer.step < total_steps:
        say(f"stopped at iteration {trainer.step:,} of {total_steps:,}; the same command goes on from there")
        return
    if evaluated is not None and trainer.runtime.is_main:
        table = Table("held out", *evaluation.METRICS, title=None)
        for row in evaluation.table(evaluated.last):
            table.add_row(*row)
        RichConsole(highlight=False).print(table)
    say(f"finished at iteration {trainer.step:,}; see {logdir / report.NAME}")


def _silent(line: str) -> None:
    """The voice of all ranks but the first."""
