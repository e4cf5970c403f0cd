"""Learning rates over time, against torch's own schedules and numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from docstrings import example

import imagier.train.schedule
from imagier.config.find import find, list_types
from imagier.config.schema import SCHEDULE
from imagier.errors import UserError
from imagier.train.schedule import Constant, Cosine, Linear, Schedule, Step, warm_up


def rates(make: Any, length: int) -> list[float]:
    """What a schedule of torch's sets a rate of 1 to, from time 0 on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(length):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_that_of_torch_with_a_start_and_an_end() -> None:
    expected = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=8, eta_min=0.25), 9)
    tested = Cosine(decay_start=3, decay_end=11, decay_target=0.25)
    assert [tested(t) for t in range(3, 12)] == pytest.approx(expected)
    assert [tested(t) for t in (0, 1, 2)] == [1.0] * 3
    assert [tested(t) for t in (12, 100)] == [0.25] * 2


def test_step_is_that_of_torch() -> None:
    expected = rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.5), 10)
    assert [Step(step_size=3, gamma=0.5)(t) for t in range(10)] == pytest.approx(expected)


def test_warm_up_rises_by_the_same_amount_each_time_and_then_leaves_the_schedule_alone() -> None:
    assert [warm_up(Constant(), 4)(t) for t in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    step = Step(step_size=3, gamma=0.5)
    assert [warm_up(step, 2)(t) for t in range(7)] == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.5, 0.25])
    assert [warm_up(step, 0)(t) for t in range(7)] == [step(t) for t in range(7)]


@pytest.mark.parametrize("cls", [Linear, Cosine])
def test_a_decay_that_ends_before_it_begins_is_refused(cls: Any) -> None:
    with pytest.raises(UserError) as caught:
        cls(decay_start=3, decay_end=3, decay_target=0.5)
    assert (caught.value.where, caught.value.code) == ("decay_end", "wrong-order")


def test_the_classes_of_the_file_are_the_types() -> None:
    assert set(list_types(SCHEDULE)) == {"constant", "step", "linear", "cosine"}
    assert find(SCHEDULE, "Cosine") is find(SCHEDULE, "cosine") is Cosine


def test_the_example_in_the_docstring_is_a_schedule() -> None:
    namespace: dict[str, Any] = {"imagier": imagier}
    exec(example(Schedule), namespace)
    tested = namespace["Schedule"](at=2)
    assert isinstance(tested, Schedule)
    assert [tested(t) for t in range(4)] == [1, 1, 0.5, 0.5]
    assert math.isclose(namespace["Schedule"]()(99), 1.0)
