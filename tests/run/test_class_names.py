"""Classes of a continued run."""

from __future__ import annotations

import logging

import pytest

from imagier.errors import UserError
from imagier.run.class_names import check_class_names

BOTH = {"labels_content": ["cat", "dog"], "labels_style": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["cat", "dog"], ["cat", "cow", "dog"]),  # dog was 1
        (["cat", "dog"], ["cat"]),
        (["cat"], []),
    ],
)
def test_a_run_does_not_continue_on_data_that_number_classes_in_another_way(before: list[str], now: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_class_names({"seed": 2, "classes": {"labels": before}}, {"labels": now}, "a.pt")
    assert (caught.value.where, caught.value.code) == ("a.pt", "other-classes")


@pytest.mark.parametrize(
    ("extras", "now"),
    [
        ({}, BOTH),  # a new run, or one of the reference
        ({}, {"labels_content": ["cat"], "labels_style": ["dog"]}),
        ({"seed": 2}, BOTH),  # of a version that numbered both together: the same numbers
        ({"seed": 2}, {}),
        ({"seed": 2, "classes": BOTH}, BOTH),
        ({"seed": 2, "classes": {"labels": ["cat"]}}, {"labels": ["cat", "dog"]}),
    ],
)
def test_the_same_classes_and_new_ones_at_the_end_continue_without_a_word(
    extras: dict, now: dict, caplog: pytest.LogCaptureFixture
) -> None:
    check_class_names(extras, now, "a.pt")
    assert not caplog.records


def test_a_run_of_a_version_that_numbered_contents_and_styles_together_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_class_names({"seed": 2}, {"labels_content": ["cat"], "labels_style": ["dog"]}, "a.pt")
    assert [(record.levelno, "a.pt" in record.getMessage()) for record in caplog.records] == [(logging.WARNING, True)]
