"""A run that is killed again and again: is it the run that nobody killed? `python benchmarks/kill_drill.py`.

A small SPADE is trained in short lives. Each ends with `kill -9`: at a random moment, in the midst of writing a file
(at a random one of the system calls of a save), of a process that reads data, or of one rank of two. After each death
every checkpoint must be readable, and the next life goes on from there. At the end the weights, moments and averages
must be those of an undisturbed run, bit for bit, and so must the log; no process and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny

from imagier.cli import main
from imagier.train import checkpoint
from imagier.train.compare import find_first_difference
from imagier.train.hooks import files
from imagier.train.trainer import Trainer

STEPS = 60
SAVE_EVERY = 3
CALLS_OF_A_SAVE = 6
"""System calls by which a save changes files: three are written, each is opened and renamed."""
MOST_LIVES_S = 120.0


class Drill:
    """One run, killed until it is at its end."""

    def __init__(self, folder: Path, config: Path, seed: int, ranks: int, steps: int) -> None:
        self.config = config
        self.ranks = ranks
        self.steps = steps
        self.rng = random.Random(seed)
        self.logdir = folder / f"killed_{ranks}_{seed}"
        kinds = ["save", "loader", "moment"] if ranks == 1 else ["rank", "save", "moment"]
        self.kinds = itertools.cycle(kinds[seed % 3 :] + kinds[: seed % 3])
        self.deaths: Counter[str] = Counter()
        self.problems: list[str] = []
        self.sessions: list[int] = []

    def run(self, most_kills: int) -> None:
        """Lives and deaths; after so many deaths a life that nobody ends."""
        ended = False
        while not ended:
            fate = next(self.kinds) if sum(self.deaths.values()) < most_kills else None
            ended = self.live(fate)
            self.inspect()

    def live(self, fate: str | None) -> bool:
        """One life; True if the run is at its end."""
        environments = _rank_environments(self.ranks)
        victim = self.rng.randrange(self.ranks) if fate == "rank" else 0
        numbers = random.Random(self.rng.random())
        children = []
        for rank, environment in enumerate(environments):
            own = fate if rank == victim or fate == "moment" else None
            children.append(self.born(environment, own, random.Random(numbers.random())))
        statuses = [_ended(child) for child in children]
        killed = any(os.WIFSIGNALED(status) for status in statuses)
        reader_died = fate == "loader" and any(statuses)
        if fate is not None and (killed or reader_died):
            self.deaths[fate] += 1
        elif any(statuses):
            self.problems.append(f"a life with the fate {fate} ended with {statuses}; see {self.logdir}.log")
            return True
        return not any(statuses)

    def born(self, environment: dict[str, str], fate: str | None, rng: random.Random) -> int:
        """Forks a process that trains; returns its number."""
        child = os.fork()
        if child:
            self.sessions.append(child)
            return child
        os.setsid()
        log = os.open(f"{self.logdir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        if fate is not None:
            FATES[fate](rng, self.steps)
        words = ["train", "--config", str(self.config), "--logdir", str(self.logdir), "--device", "cpu"]
        code = 1
        try:
            code = main([*words, "--num_workers", "1"])
        finally:
            os._exit(code)

    def inspect(self) -> None:
        """Every checkpoint that is there must be readable."""
        for path in self.logdir.glob("*_checkpoint.pt"):
            try:
                checkpoint.load(path)
            except ValueError as error:
                self.problems.append(str(error))

    def conclude(self, undisturbed: Path) -> None:
        """What must hold at the end."""
        states = [checkpoint.load(_last(path)) for path in (undisturbed, self.logdir)]
        kept = ("current_epoch", "current_iteration", "epoch_samples", "players")
        different = find_first_difference(*({key: state[key] for key in kept} for state in states))
        if different is not None:
            self.problems.append(f"differs from the undisturbed run, first in {different}")
        records, expected = (
            [_without_clock(record) for record in files.read(path)] for path in (self.logdir, undisturbed)
        )
        if records != expected:
            first = next(pair for pair in itertools.zip_longest(records, expected) if pair[0] != pair[1])
            self.problems.append(f"the log differs from that of the undisturbed run, first in {first}")
        if left := [str(path) for path in self.logdir.rglob("*.tmp")]:
            self.problems.append(f"temporary files are left: {', '.join(left)}")
        deadline = time.monotonic() + 30
        while (orphans := _alive(self.sessions)) and time.monotonic() < deadline:
            time.sleep(0.2)
        if orphans:
            self.problems.append(f"processes are left: {orphans}")


def at_a_moment(rng: random.Random, steps: int) -> None:
    """Dies some time after the life began."""
    timer = threading.Timer(rng.uniform(0, 1 + steps / 12), os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def in_a_save(rng: random.Random, steps: int) -> None:
    """Dies at one of the system calls that change a file of the run."""
    left = rng.randrange(1, CALLS_OF_A_SAVE * (steps // SAVE_EVERY) // 2)

    def watch(event: str, details: tuple) -> None:
        nonlocal left
        changes = event in ("os.rename", "os.remove") or (event == "open" and details[2] & os.O_CREAT)
        if not changes or "checkpoint" not in str(details[0]):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def in_the_loader(rng: random.Random, steps: int) -> None:
    """A process that reads data dies, after some steps."""
    at = rng.randrange(1, steps // 4)
    _after_steps(at, lambda: [os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()])


def in_a_step(rng: random.Random, steps: int) -> None:
    """This rank dies after some steps; the others must not wait for it."""
    _after_steps(rng.randrange(1, steps // 4), lambda: os.kill(os.getpid(), signal.SIGKILL))


def _after_steps(steps: int, act: Callable[[], object]) -> None:
    before = Trainer.train_step
    done = 0

    def train_step(self: Trainer, batch: object) -> object:
        nonlocal done
        done += 1
        if done == steps:
            act()
        return before(self, batch)  # type: ignore[arg-type]

    Trainer.train_step = train_step  # type: ignore[assignment, method-assign]


FATES = {"moment": at_a_moment, "save": in_a_save, "loader": in_the_loader, "rank": in_a_step}


def _rank_environments(ranks: int) -> list[dict[str, str]]:
    if ranks == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _ended(child: int) -> int:
    """The status of a process once it has ended; one that hangs is killed, which shows in its status."""
    deadline = time.monotonic() + MOST_LIVES_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.02)
    raise SystemExit(f"process {child} hangs for {MOST_LIVES_S:g} s: the drill has failed")


def _alive(sessions: Sequence[int]) -> list[int]:
    """Processes of these sessions that are there still."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) in sessions and fields[0] != "Z":
                alive.append(int(entry.name))
    return alive


def _without_clock(record: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in record.items() if not key.startswith(("time", "speed/", "memory/"))}


def _last(logdir: Path) -> Path:
    return max(logdir.glob("*_checkpoint.pt"), key=lambda path: int(path.name.split("_")[3]))


def write_experiment(folder: Path, steps: int) -> Path:
    """A small SPADE that is saved and scored every few iterations and keeps the last few checkpoints."""
    data = tiny.write_data(folder / "data", val=2)
    config = tiny.config(data, max_iter=steps, snapshot_save_iter=SAVE_EVERY, keep_last=3)
    path = folder / "drill.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def drilled(folder: Path, kills: int, steps: int, ranks: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Drills until there were so many deaths; returns how many of each kind, and what went wrong."""
    config = write_experiment(folder, steps)
    whole = Drill(folder, config, -1, ranks, steps)
    whole.run(0)
    deaths: Counter[str] = Counter()
    problems = list(whole.problems)
    while sum(deaths.values()) < kills and not problems:
        drill = Drill(folder, config, seed, ranks, steps)
        drill.run(kills - sum(deaths.values()))
        drill.conclude(whole.logdir)
        print(
            f"{ranks} rank(s), run {seed}: {dict(drill.deaths)}; {drill.problems or 'equal to the last bit'}",
            flush=True,
        )
        deaths += drill.deaths
        problems += drill.problems
        shutil.rmtree(drill.logdir)
        seed += 1
    return deaths, problems


def run() -> int:
    """Prints how many deaths of each kind there were; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="deaths, at least; a quarter of them with two ranks")
    parser.add_argument("--steps", type=int, default=STEPS, help="iterations of a run, at least 9")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    total: Counter[str] = Counter()
    failed = False
    shares = {1: args.kills - args.kills // 4, 2: args.kills // 4}
    for ranks, kills in shares.items():
        if not kills:
            continue
        with tempfile.TemporaryDirectory() as folder:
            deaths, problems = drilled(Path(folder), kills, args.steps, ranks, args.seed)
        total += Counter({f"{name}, {ranks} rank(s)": count for name, count in deaths.items()})
        failed |= bool(problems)
        for problem in problems:
            print(problem)
    print(f"{sum(total.values())} deaths in {time.monotonic() - begin:.0f} s: {dict(total)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(run())
