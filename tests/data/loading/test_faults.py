"""What becomes of samples that cannot be read, and of a run whose workers die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import weakref
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import counted
import pytest
import torch
from counted import Counted

from imagier.data.loading.faults import TRIES, OnError, translate_worker_errors
from imagier.data.loading.loader import Loader
from imagier.data.sample import Sample
from imagier.errors import RunError, UserError
from imagier.recipe import Batch, Position


class Holed(Counted):
    """Some of its samples are broken, from an epoch on."""

    def __init__(self, length: int, broken: Collection[int], from_epoch: int = 0) -> None:
        super().__init__(length)
        self.broken = set(broken)
        self.from_epoch = from_epoch

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if index in self.broken and epoch >= self.from_epoch:
            raise UserError(f"{index}.png: the file is empty; restore it or remove it from the set")
        return super().__getitem__(key)


def loader(dataset: Any, batch_size: int, **options: Any) -> Loader:
    return counted.loader(dataset, batch_size, **options)


def indices(batch: Batch) -> list[int]:
    return [index for _, index in counted.places(batch)]


def steps(made: Loader, count: int, start: Position | None = None) -> list[list[int]]:
    return [indices(batch) for batch, _ in islice(made.stream(start or Position()), count)]


# A broken sample


def test_in_place_of_a_broken_sample_comes_the_next_that_is_whole() -> None:
    assert steps(loader(Holed(10, [2, 3, 9]), 5, on_error=OnError.RESAMPLE), 2) == [[0, 1, 4, 4, 4], [5, 6, 7, 8, 0]]
    # In place of 2 come 3 (broken), then 2 + 2; of 3: 4; of 9: 10, which is 0.


def test_a_whole_folder_of_broken_files_is_stepped_over() -> None:
    broken = range(100, 400)
    (batch,) = steps(loader(Holed(1000, broken), 1000, on_error=OnError.RESAMPLE), 1)
    assert not set(batch) & set(broken)
    assert [index for index in batch if index < 100 or index >= 400][:100] == list(range(100))


def test_what_comes_instead_is_the_same_however_it_is_read() -> None:
    data = Holed(23, [1, 5, 6, 20])
    whole = steps(loader(data, 4, on_error=OnError.RESAMPLE, shuffle=True, seed=3), 12)
    for num_workers in (1, 2):
        made = loader(data, 4, on_error=OnError.RESAMPLE, shuffle=True, seed=3, num_workers=num_workers)
        assert steps(made, 5) == whole[:5]
    positions = [
        position
        for _, position in islice(
            loader(data, 4, shuffle=True, seed=3, on_error=OnError.RESAMPLE).stream(Position()), 12
        )
    ]
    assert steps(loader(data, 4, on_error=OnError.RESAMPLE, shuffle=True, seed=3), 7, positions[4]) == whole[5:]
    ranks = [
        steps(loader(data, 2, on_error=OnError.RESAMPLE, shuffle=True, seed=3, rank=rank, world=2), 12)
        for rank in range(2)
    ]
    assert [one + other for one, other in zip(*ranks)] == whole


def test_each_broken_sample_is_logged_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    made = loader(Holed(6, [1, 4]), 3, on_error=OnError.RESAMPLE)
    stream = made.stream(Position())
    next(stream)
    assert made.skipped == 1
    for _ in range(5):
        next(stream)
    assert made.skipped == 6
    assert caplog.messages == [
        f"skipped: {index}.png: the file is empty; restore it or remove it from the set" for index in (1, 4)
    ]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_vanishes_in_mid_run_follows_the_policy(num_workers: int) -> None:
    data = Holed(4, [2], from_epoch=1)
    assert steps(loader(data, 2, num_workers=num_workers, on_error=OnError.RESAMPLE), 4) == [
        [0, 1],
        [2, 3],
        [0, 1],
        [3, 3],
    ]
    stream = loader(data, 2, num_workers=num_workers).stream(Position())
    for _ in range(3):
        next(stream)
    with pytest.raises(UserError, match=r"^2\.png: the file is empty; restore it or remove it from the set$"):
        next(stream)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_set_that_is_mostly_broken_ends_the_run(num_workers: int) -> None:
    stream = loader(Holed(2000, range(5, 2000)), 5, on_error=OnError.RESAMPLE, num_workers=num_workers).stream(
        Position()
    )
    next(stream)
    with pytest.raises(UserError, match=r"^5\.png: the file is empty;.* are broken too: data\.on_error: skip is for"):
        next(stream)


def test_a_held_out_set_is_read_without_its_broken_samples() -> None:
    made = loader(Holed(9, [2, 3, 4, 5]), 2, on_error=OnError.DROP)
    assert [indices(batch) for batch in made.once()] == [[0, 1], [6, 7], [8]]
    assert made.skipped == 4


def test_a_held_out_set_that_is_mostly_broken_ends_the_run() -> None:
    made = loader(Holed(100, range(5, 100)), 4, on_error=OnError.DROP)
    with pytest.raises(UserError, match="are broken too"):
        list(made.once())
    assert made.skipped == TRIES + 1, "in the first batch that goes beyond it"


def test_the_samples_that_are_shown_are_whole_ones() -> None:
    assert indices(loader(Holed(4, [0, 2]), 2, on_error=OnError.RESAMPLE).some(4)) == [1, 1, 3, 3]
    assert indices(loader(Holed(4, [0, 2]), 2, on_error=OnError.DROP).some(4)) == [1, 3]
    with pytest.raises(UserError, match=r"0\.png: .* are broken too"):
        loader(Holed(4, range(4)), 2, on_error=OnError.DROP).some(4)


# Workers


def dying(how: int) -> Any:
    """A set whose sample 2 ends the process that reads it."""

    class Deadly(Holed):
        def __getitem__(self, key: tuple[int, int]) -> Sample:
            if key[1] == 2:
                os.kill(os.getpid(), how)
            return super().__getitem__(key)

    return Deadly(40, [])


def run(stream: Iterator[Any]) -> None:
    for _ in islice(stream, 40):
        pass


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (signal.SIGKILL, "was killed, as when memory is short: lower data.num_workers, or give the job more memory"),
        (signal.SIGBUS, r"died of a bus error, as when the shared memory \(/dev/shm\) is full: .*--shm-size=8g\)"),
        (signal.SIGALRM, "died: lower data.num_workers if memory is short; with --num_workers 0 the cause shows"),
    ],
)
def test_a_worker_that_dies_ends_the_run_with_one_line_and_leaves_none_behind(how: int, said: str) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(RunError, match=rf"^a process that reads data \(pid \d+\) {said}$"), translate_worker_errors():
        run(loader(dying(how), 1, num_workers=2).stream(Position()))
    left = set(multiprocessing.active_children()) - before
    for worker in left:
        worker.join(5)
    assert not any(worker.is_alive() for worker in left)


@pytest.mark.parametrize(("how", "said"), [(signal.SIGKILL, "was killed, as when"), (signal.SIGTERM, "died: lower")])
def test_a_connection_that_a_death_broke_is_told_as_that_death(how: int, said: str) -> None:
    worker = multiprocessing.get_context("fork").Process(target=signal.pause)
    worker.start()
    assert worker.pid is not None
    os.kill(worker.pid, how)
    told = rf"^a process that reads data \(pid {worker.pid}\) {said}"
    with pytest.raises(RunError, match=told), translate_worker_errors([worker]):
        raise ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(EOFError), translate_worker_errors([]):
        raise EOFError


class Iterated:
    """Stands for torch's iterator, whose end is the end of its workers."""


def test_nothing_that_was_at_work_when_a_worker_died_is_kept_by_the_error() -> None:
    """Else the other workers would live for as long as somebody looks at the error."""
    worker = multiprocessing.get_context("fork").Process(target=os._exit, args=(1,))
    worker.start()
    worker.join()
    for error in (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), ConnectionResetError(104)):
        held: list[weakref.ref[Iterated]] = []

        def read(error: Exception = error, held: list[weakref.ref[Iterated]] = held) -> None:
            iterator = Iterated()
            held.append(weakref.ref(iterator))
            raise error

        with pytest.raises(RunError) as caught, translate_worker_errors([worker]):
            read()
        assert caught.value.__cause__ is error
        assert held[0]() is None


def test_other_mistakes_of_ours_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), translate_worker_errors():
        raise RuntimeError("something else")


def test_full_shared_memory_ends_the_run_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # workers are forked, and see it
    with pytest.raises(UserError, match=r"\(/dev/shm\) is full: lower data\.num_workers or the batch_size.*\(28\)\)$"):
        next(loader(Holed(8, []), 2, num_workers=1).stream(Position()))


def test_processes_that_cannot_be_started_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(multiprocessing.context.Process, "start", refused)
    with pytest.raises(
        RunError, match=r"^no process to read data can be started \(Cannot allocate memory\); lower data\.num_workers"
    ):
        next(loader(Holed(8, []), 2, num_workers=1).stream(Position()))
