"""A training in a process of its own, whose iterations are timed in turns with those of others."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imagier.data.loading.loader import Loader
from imagier.data.loading.start_methods import hide_script
from imagier.errors import UserError
from imagier.recipe import Batch, Position
from imagier.run import build_data
from imagier.run.experiment import read_experiment
from imagier.run.options import RunOptions
from imagier.run.process import is_out_of_memory, open_runtime
from imagier.run.session import build_trainer, set_up_runtime
from imagier.run.training import allow_recompiling, compile_networks
from imagier.train import runtime as runtimes
from imagier.train.memory import count_free_bytes
from imagier.train.runtime import Precision, Runtime

SEED = 0
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

MOST_BATCHES = 2
"""Different batches that are trained on in turn, where loading is not timed."""

MOST_NUMBERS = 10**6
"""Of all gradients that are compared."""

PREFETCHED = 2
"""Batches that torch's loader holds ready for each worker: those that it made while other trainings had their turn."""

LOOK_S = 0.05
"""Between two looks at the free memory."""

CLOSE_S = 3.0
"""How long a process may take to end before it is killed."""


@dataclass(frozen=True)
class Setup:
    """What is tried."""

    source: Path | Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    """Overrides of the config."""
    compile: bool = False
    has_loader: bool = False
    """Batches are loaded while it trains, as in a run. False: a few are loaded before."""
    device: str = "auto"


@dataclass(frozen=True)
class FirstStep:
    """What the first iteration shows, before any update: of the same weights, batch and seed in every attempt."""

    device: str
    """The type of the device."""
    precision: Precision
    precisions: tuple[Precision, ...]
    """Those that the device is made for."""
    images: int
    """Samples of an iteration."""
    num_samples: int
    """Of the training set."""
    workers: int
    seconds: float
    """Of the first iteration: with compiling, if that is on."""
    losses: np.ndarray
    """Of all phases."""
    gradients: np.ndarray
    """Of all phases, evenly drawn, at most MOST_NUMBERS."""
    peak_bytes: int


@dataclass(frozen=True)
class Turn:
    """What some iterations took."""

    seconds: float
    """Of one."""
    peak_bytes: int
    is_finite: bool
    """The losses of the last one are numbers."""


class Failed(Exception):
    """An attempt cannot be made, or not go on; its text says why."""

    def __init__(self, why: str, *, is_memory: bool = False) -> None:
        super().__init__(why)
        self.is_memory = is_memory


class Attempt:
    """A process that trains when it is told to. UserError if the config or its data are wrong."""

    def __init__(self, setup: Setup, *, reserve_bytes: int, deadline: float | None = None) -> None:
        """Starts it, and waits for its first iterations, until `deadline` (of time.monotonic) at most.

        reserve_bytes: it is ended when less memory of the machine is free. Failed if it cannot be made.
        """
        self.reserve_bytes = reserve_bytes
        context: Any = multiprocessing.get_context(START_METHOD)
        context.set_forkserver_preload([__name__])  # the server imports torch once
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_train, args=(other, setup), name="imagier tune")
        with hide_script():
            self._process.start()
        other.close()
        try:
            self.first_step: FirstStep = self._receive(deadline)
        except BaseException as error:
            is_urgent = isinstance(error, Failed) and error.is_memory
            (self._process.kill if is_urgent else self._process.terminate)()
            self.close()
            raise

    def take_turn(self, steps: int) -> Turn:
        """Trains for so many iterations. Failed if it cannot."""
        self._connection.send(steps)
        return self._receive(None)

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(CLOSE_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()

    def _receive(self, deadline: float | None) -> Any:
        while not self._connection.poll(LOOK_S):
            free = count_free_bytes()
            if free is not None and free < self.reserve_bytes:
                raise Failed(f"only {free / 2**20:,.0f} MiB of memory were left", is_memory=True)
            if deadline is not None and time.monotonic() > deadline:
                raise Failed("it was not ready before the time was over")
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(CLOSE_S)
            code = self._process.exitcode or 0
            how = f"by signal {-code}" if code < 0 else f"with status {code}"
            raise Failed(f"its process ended {how}", is_memory=code == -signal.SIGKILL) from None
        if isinstance(answer, UserError | Failed):
            raise answer
        return answer


# In the process that trains -----------------------------------------------------------------------------------------


def _train(connection: Connection, setup: Setup) -> None:
    """Sends a FirstStep, and a Turn for each number of iterations that is received; or why that cannot be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; it is for the first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # and not at once: what a compiler holds is to be released
    logging.disable()
    options = RunOptions(device=setup.device, single_process=True, owns_process=True)
    try:
        with open_runtime(options) as runtime, allow_recompiling(setup.compile):
            training = _Training(setup, runtime)
            with closing(training.batches):
                connection.send(training.first_step)
                while True:
                    connection.send(training.take_turn(connection.recv()))
    except (EOFError, ConnectionError):
        return  # nobody asks any more
    except UserError as error:
        connection.send(error)
    except (RuntimeError, ValueError, TypeError, MemoryError, OSError) as error:
        # Of a compiler, of a layer that lacks a kernel for the precision, ...: this attempt cannot be made.
        connection.send(Failed(_shorten(error), is_memory=is_out_of_memory(error)))


def _shorten(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:150]


class _Training:
    """A training without hooks, checkpoints and scores."""

    def __init__(self, setup: Setup, runtime: Runtime) -> None:
        overrides = [*setup.overrides, *([] if setup.has_loader else ["data.num_workers=0"])]
        config = read_experiment(setup.source, RunOptions(), overrides).config
        set_up_runtime(config, runtime, is_compiled=setup.compile)
        loader = build_data.build_train_loader(config, runtime, SEED)
        self.trainer = build_trainer(config, runtime, loader, SEED)
        if setup.compile:
            compile_networks(self.trainer.recipe)
        self.trainer.recipe.train()
        self.ahead = PREFETCHED * loader.num_workers if setup.has_loader else 0
        self.batches = _load(loader) if setup.has_loader else _hold(loader)
        begin = time.monotonic()
        losses, gradients = self._compute_first_gradients(next(self.batches))
        self.first_step = FirstStep(
            runtime.device.type,
            runtime.precision,
            _list_precisions(runtime),
            loader.batch_size,
            len(loader.dataset),
            loader.num_workers,
            time.monotonic() - begin,
            losses,
            gradients,
            runtime.peak_memory_bytes(),
        )
        self.take_turn(1)  # to warm up

    def take_turn(self, steps: int) -> Turn:
        """Trains for so many iterations."""
        runtime = self.trainer.runtime
        if self.ahead:  # what was loaded meanwhile would make it look faster than it is
            for _ in islice(self.batches, self.ahead):
                pass
            self.trainer.train_step(next(self.batches))
        runtime.synchronize()
        begin = time.perf_counter()
        for batch in islice(self.batches, steps):
            phases = self.trainer.train_step(batch)
            self.trainer.step += 1
        runtime.synchronize()
        seconds = (time.perf_counter() - begin) / steps
        is_finite = all(bool(loss.isfinite().all()) for phase in phases for loss in phase.losses.values())
        return Turn(seconds, runtime.peak_memory_bytes(), is_finite)

    def _compute_first_gradients(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """The losses of an iteration, and numbers of its gradients, of all phases.

        Nothing is updated between them: Adam's first steps have the size of the learning rate, however small a
        gradient is, and so would make a lot of what is only rounded in another way.
        """
        losses, gradients = [], []
        for name, of_phase in self.trainer.gradients(batch, 0, 0):
            player = self.trainer.players[name]
            scale = 1.0 if player.scaler is None else player.scaler.get_scale()
            losses += [loss.float().mean().item() for loss in of_phase.values()]
            grads = [p.grad for p in player.params if p.grad is not None]
            every = ceil(sum(grad.numel() for grad in grads) / MOST_NUMBERS)
            gradients += [grad.reshape(-1)[::every].float().cpu() / scale for grad in grads]
            player.drop_gradients()
        return np.array(losses), torch.cat(gradients).numpy() if gradients else np.zeros(0)


def _list_precisions(runtime: Runtime) -> tuple[Precision, ...]:
    """Those that the device is made for."""
    half, _ = runtimes.choose_precision("auto", True, runtime.device)
    return tuple(dict.fromkeys(("fp32", half, *(("fp16",) if runtime.is_asynchronous else ()))))


def _load(loader: Loader) -> Generator[Batch, None, None]:
    for batch, _ in loader.stream(Position()):
        yield batch


def _hold(loader: Loader) -> Generator[Batch, None, None]:
    """The first few batches, again and again."""
    yield from cycle([batch for batch, _ in islice(loader.stream(Position()), MOST_BATCHES)])
