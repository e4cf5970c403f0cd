"""Values change in the text of a config, and nothing else does."""

from __future__ import annotations

import difflib

import pytest
import yaml

from imagier.config.edit import edit
from imagier.errors import UserError

TEXT = """\
# What this is.
max_iter: 10  # few

trainer:
  type: spade  # the method
  amp_config: {enabled: true}   # half
  # about losses
  loss_weight:
    gan: 1
    kl: 0.05  # small

gen:   # the generator
  style_enc:
    num_filters: 4
empty:
data:
  input_types:
  - images: {ext: png}
  - seg_maps:
      ext: png
  train: {roots: [a, b], batch_size: 2}
  # the end
"""


@pytest.mark.parametrize(
    ("override", "removed", "added"),
    [
        ("max_iter=20", ["max_iter: 10  # few"], ["max_iter: 20  # few"]),
        ("trainer.precision=bf16", [], ["  precision: bf16"]),
        ("trainer.type=unit", ["  type: spade  # the method"], ["  type: unit  # the method"]),
        ("trainer.loss_weight.kl=0", ["    kl: 0.05  # small"], ["    kl: 0  # small"]),
        ("trainer.loss_weight.l1=1e-4", [], ["    l1: 0.0001"]),
        (
            "trainer.amp_config.enabled=false",
            ["  amp_config: {enabled: true}   # half"],
            ["  amp_config: {enabled: false}   # half"],
        ),
        (
            "data.train.num=64, 64",
            ["  train: {roots: [a, b], batch_size: 2}"],
            ["  train: {roots: [a, b], batch_size: 2, num: '64, 64'}"],
        ),
        ("data.input_types.0.images.ext=jpg", ["  - images: {ext: png}"], ["  - images: {ext: jpg}"]),
        ("data.input_types.1.seg_maps.is_mask=true", [], ["      is_mask: true"]),
        ("gen.type=spade", [], ["  type: spade"]),
        ("gen=null", ["gen:   # the generator", "  style_enc:", "    num_filters: 4"], ["gen: null   # the generator"]),
        ("empty.a.b=1", ["empty:"], ["empty: {a: {b: 1}}"]),
        ("cudnn.benchmark=true", [], ["cudnn:", "  benchmark: true"]),
    ],
)
def test_one_value_changes(override: str, removed: list[str], added: list[str]) -> None:
    changed = edit(TEXT, [override], "small.yaml")
    lines = [line for line in difflib.ndiff(TEXT.splitlines(), changed.splitlines()) if line[0] in "+-"]
    assert [line[2:] for line in lines if line[0] == "-"] == removed
    assert [line[2:] for line in lines if line[0] == "+"] == added
    tree, (keys, _, value) = yaml.safe_load(changed), override.partition("=")
    for key in keys.split("."):
        tree = tree[int(key) if isinstance(tree, list) else key]
    assert tree == (float(value) if "e-" in value else yaml.safe_load(value))


def test_several_values_change_one_after_the_other() -> None:
    changed = edit(TEXT, ["trainer.precision=bf16", "trainer.channels_last=true", "trainer.precision=fp32"], "x")
    assert changed == TEXT.replace("# the method\n", "# the method\n  channels_last: true\n  precision: fp32\n")


@pytest.mark.parametrize("text", ["a: &x {k: 1}\nb: *x\n", "a: &x\n  k: 1\nb: *x\n"])
def test_what_is_written_once_for_two_places_is_not_changed_in_both(text: str) -> None:
    with pytest.raises(UserError) as caught:
        edit(text, ["b.k=2"], "shared.yaml")
    assert (caught.value.where, caught.value.code) == ("shared.yaml", "cannot-edit")


def test_a_merged_section_gets_a_value_of_its_own() -> None:
    text = "a: &x\n  k: 1\nb:\n  <<: *x\n  l: 2\n"
    assert yaml.safe_load(edit(text, ["b.k=3"], "x")) == {"a": {"k": 1}, "b": {"k": 3, "l": 2}}


def test_a_file_without_an_end_of_line_gets_one() -> None:
    assert edit("a:\n  b: 1", ["a.c=2"], "x") == "a:\n  b: 1\n  c: 2"
    assert edit("a: 1", ["b.c=2"], "x") == "a: 1\nb:\n  c: 2\n"


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("a: {b: 1,}\n", "a: {b: 1, c: 2, d: 3}\n"),
        ("a: {\n  b: 1,  # few\n}\n", "a: {\n  b: 1, c: 2, d: 3  # few\n}\n"),
        ("a: {\n  b: 1  # few\n}\n", "a: {\n  b: 1, c: 2, d: 3  # few\n}\n"),
        ("x: &x 1\na: {b: *x}\n", "x: &x 1\na: {b: *x, c: 2, d: 3}\n"),
        ("a: { }\n", "a: {c: 2, d: 3 }\n"),
        ("b: 1\n...\n", "b: 1\na:\n  d: 3\n  c: 2\n...\n"),
        ("# few\n", "# few\n{a: {c: 2, d: 3}}\n"),
        ("", "{a: {c: 2, d: 3}}\n"),
    ],
)
def test_values_are_added_one_after_the_other_in_whatever_form(text: str, changed: str) -> None:
    added = edit(text, ["a.c=2", "a.d=3"], "x")
    assert sorted(added.splitlines()) == sorted(changed.splitlines())
    before, after = yaml.safe_load(text) or {}, yaml.safe_load(added)
    assert after == {**before, "a": {**before.get("a", {}), "c": 2, "d": 3}}


@pytest.mark.parametrize(
    "text", ["a: [1, 2]\n", "a: {b: 'x,', c}\n", "a: 1\n--- \nb: 1\n", "? [a, b]\n: 1\n", "a: !x {b: 1}\n"]
)
def test_a_text_in_an_odd_form_holds_the_values_or_is_refused(text: str) -> None:
    try:
        tree = yaml.safe_load(edit(text, ["a.k=1", "c.d=2"], "odd.yaml"))
    except UserError as error:
        assert "odd.yaml" in str(error.where)
    else:
        assert tree["a"]["k"] == 1 and tree["c"]["d"] == 2
