"""How many processes read data."""

from __future__ import annotations

import logging
import multiprocessing

import pytest
import torch

from imagier.run import workers
from imagier.train.runtime import Runtime

CPU = Runtime(torch.device("cpu"))
GPU = Runtime(torch.device("cuda"))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "count_cores", lambda: 4)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "fork")


@pytest.mark.parametrize(
    ("runtime", "ranks", "batches", "number"),
    [
        (GPU, 1, None, 4),
        (GPU, 2, None, 2),
        (GPU, 8, None, 0),
        (CPU, 1, None, 3),  # one core computes
        (CPU, 4, None, 0),
        (GPU, 1, 2, 2),
        (GPU, 1, 1, 0),
    ],
)
def test_a_config_that_gives_no_number_takes_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime, ranks: int, batches: int | None, number: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert workers.choose_workers(None, runtime, batches=batches) == number


def test_a_large_machine_starts_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "count_cores", lambda: 96)
    assert workers.choose_workers(None, GPU) == 8


@pytest.mark.parametrize("asked", [0, 1, 16])
def test_a_number_that_is_asked_for_is_taken(asked: int) -> None:
    assert workers.choose_workers(asked, CPU, batches=1) == asked


def test_where_processes_start_python_anew_none_is_started_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    assert workers.choose_workers(None, GPU) == 0


@pytest.mark.parametrize(("asked", "lines"), [(None, 0), (0, 0), (4, 0), (5, 1)])
def test_more_than_there_are_cores_are_told_in_a_line(
    caplog: pytest.LogCaptureFixture, asked: int | None, lines: int
) -> None:
    workers.warn_of_many(asked, CPU)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * lines
