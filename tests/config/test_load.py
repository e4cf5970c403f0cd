"""Reading YAML: its numbers, the line of each value, broken files, overrides."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path

import pytest
import yaml

from imagier.config.load import ConfigError, Document, dump, load, load_mapping


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, *overrides: str) -> Document:
    return load(written(folder, text), overrides)


def complaint(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, *overrides)
    (error,) = caught.value.errors
    return str(error).replace(f"{folder}/", "")


NUMBERS = [
    ("1e-4", 1e-4),
    ("1E5", 1e5),
    ("-1e-3", -1e-3),
    ("+2e3", 2e3),
    ("1e+3", 1e3),
    ("1.5e3", 1500.0),
    ("0.", 0.0),
    (".5", 0.5),
    (".5e-3", 0.5e-3),
    ("-.5", -0.5),
    ("1_000.5", 1000.5),
    (".inf", math.inf),
    ("-.inf", -math.inf),
    ("1_0", 10),
    ("12:30", 750),
    ("0x1F", 31),
    ("-7", -7),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_a_number_is_read_as_the_config_format_says(tmp_path: Path, text: str, number: float) -> None:
    value = loaded(tmp_path, f"x: {text}\ny: [{text}]").tree
    assert value == {"x": number, "y": [number]}
    assert type(value["x"]) is type(number)


def test_nan_is_a_number(tmp_path: Path) -> None:
    assert math.isnan(loaded(tmp_path, "x: .nan").tree["x"])


@pytest.mark.parametrize("text", ["e5", "1e", "1e-", "1.2.3", "1-4", ".", "2021-01-01", "'1e-4'", "1e5x", "relu_1_1"])
def test_what_is_no_number_is_text(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, f"x: {text}").tree == {"x": text.strip("'")}


def test_the_yaml_of_others_is_as_it_was(tmp_path: Path) -> None:
    loaded(tmp_path, "x: 1e-4")
    assert yaml.safe_load("x: 1e-4") == {"x": "1e-4"}


def test_every_value_knows_its_line(tmp_path: Path) -> None:
    document = loaded(
        tmp_path,
        "# a comment\n"  # 1
        "a: 1\n"
        "b:\n"  # 3
        "  c:\n"
        "\n"
        "    d: {e: 1,\n"  # 6
        "        f: 2}\n"
        "  g:\n"  # 8
        "  - h\n"
        "  - i: 1\n"  # 10
        "    j: 2\n"
        "  - [k,\n"  # 12
        "     l]\n",
    )
    lines = {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "c", "d"): 6,
        ("b", "c", "d", "e"): 6,
        ("b", "c", "d", "f"): 7,
        ("b", "g", 0): 9,
        ("b", "g", 1): 10,
        ("b", "g", 1, "i"): 10,
        ("b", "g", 1, "j"): 11,
        ("b", "g", 2, 1): 13,
    }
    assert {key_path: document.origin(key_path) for key_path in lines} == {
        p: f"{document.name}:{n}" for p, n in lines.items()
    }


def test_a_missing_key_is_said_to_be_where_its_section_begins(tmp_path: Path) -> None:
    document = loaded(tmp_path, "a: 1\nb:\n  c: 2\n")
    assert document.origin(("b", "x", "y")) == f"{document.name}:2"
    assert document.origin(("x",)) == f"{document.name}:1"


MERGED = """\
base: &base
  roots: [a, b]
  size: 1
  deep: {x: 1}
other: &other {size: 5, extra: 6}
one:
  <<: *base
  size: 2
two:
  <<: [*other, *base]
three:
  <<: *base
  roots:
  - c
"""


def test_a_section_that_merges_and_overrides_can_be_used_again(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    text = "base: &base {lr: 1, eps: 2}\ngen_opt: &gen\n  <<: *base\n  lr: 3\ndis_opt: *gen\nother: *gen\n"
    path.write_text(text)
    document = load(path)
    assert document.tree == yaml.safe_load(text)
    assert document.origin(("dis_opt", "lr")) == f"{path}:4"
    path.write_text(text.replace("  lr: 3", "  lr: 3\n  lr: 4"))
    with pytest.raises(ConfigError, match=r"a\.yaml:5: .*second time"):
        load(path)


def test_merge_keys_give_what_plain_yaml_gives_and_keep_the_line_of_their_source(tmp_path: Path) -> None:
    document = loaded(tmp_path, MERGED)
    assert document.tree == yaml.safe_load(MERGED)
    lines = {
        ("one", "roots"): 2,
        ("one", "roots", 1): 2,
        ("one", "deep", "x"): 4,
        ("one", "size"): 8,
        # Of mappings merged together, which one counts has changed between versions of PyYAML.
        ("two", "size"): 5 if document.tree["two"]["size"] == document.tree["other"]["size"] else 3,
        ("two", "extra"): 5,
        ("two", "deep"): 4,
        ("three", "roots"): 13,
        ("three", "roots", 0): 14,
    }
    assert {key_path: document.origin(key_path) for key_path in lines} == {
        p: f"{document.name}:{n}" for p, n in lines.items()
    }


BOMB = "\n".join([f"a{i}: &a{i} [" + ", ".join(9 * [f"*a{i - 1}" if i else "x"]) + "]" for i in range(9)])

BROKEN = [
    ("a: 1\nb: [1, 2\nc: 3", "a.yaml:3: broken YAML: "),
    ("a: 1\nb: 'x", "a.yaml:2: broken YAML: "),
    ("a: 1\n\tb: 2", "a.yaml:2: broken YAML: "),
    ("a: b: c", "a.yaml:1: broken YAML: mapping values are not allowed here"),
    ("a: 1\nb: *nothing", "a.yaml:2: broken YAML: found undefined alias 'nothing'"),
    ("a: 1\nb: !!set {x}", "a.yaml:2: broken YAML: could not determine a constructor for the tag"),
    ("a: 1\nb: !!python/object:os.system x", "a.yaml:2: broken YAML: could not determine a constructor"),
    ("a: !!int many", "a.yaml:1: broken YAML: 'many' is not a whole number"),
    ("a: 1\n--- \nb: 2", "a.yaml:2: broken YAML: expected a single document"),
    ("a: \0", "a.yaml:1: broken YAML: unacceptable character"),
    ("a: 1\nb: \0", "a.yaml:2: broken YAML: unacceptable character"),
    ('a: 1\nb: !!int ""', "a.yaml:2: broken YAML: '' is not a whole number"),
    ('a: 1\nb: !!float ""', "a.yaml:2: broken YAML: '' is not a number"),
    ("a: 1\nb: !!bool maybe", "a.yaml:2: broken YAML: 'maybe' is not true or false"),
    ("a: 1\nb: !!float [1]", "a.yaml:2: broken YAML: expected a scalar node"),
    ("a: 1\nb: 010", "a.yaml:2: broken YAML: '010' is 8 in YAML"),
    ("a: 1\nb: 0x" + 5000 * "f", "a.yaml:2: broken YAML: "),
    ("a: 1\nb: " + 5000 * "9", "a.yaml:2: broken YAML: "),
    ("a: 1\nb: 9223372036854775808", "a.yaml:2: broken YAML: '9223372036854775808' is too large a number"),
    ("a: " + 3000 * "[", "a.yaml:1: broken YAML: a section contains itself, or is nested too deeply"),
    (BOMB, "a.yaml:1: broken YAML: more than 100,000 values"),
    ("a:\n  b: 1\n  c: 2\n  b: 3", "a.yaml:4: broken YAML: the key 'b' stands here for the second time"),
    ("a: 1\nb: 2\na: 3", "a.yaml:3: broken YAML: the key 'a' stands here for the second time"),
    ("a:\n- {x: 1, x: 2}", "a.yaml:2: broken YAML: the key 'x' stands here for the second time"),
    ("? [a, b]\n: 1", "a.yaml:1: broken YAML: a key must be text"),
    ("a: &a {b: *a}", "a.yaml:1: broken YAML: a section contains itself"),
    ("a: 1\nb:\n  <<: 3", "a.yaml:3: broken YAML: "),
    ("- a\n- b", "a.yaml: a config is a mapping of sections"),
    ("just text", "a.yaml: a config is a mapping of sections"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_yaml_is_one_line_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    said = complaint(tmp_path, text)
    assert said.startswith(message)
    assert "\n" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: cannot read the config: {reason}"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("name: Grüße".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: cannot read the config: it is not a text file (UTF-8)"


def test_umlauts_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    assert loaded(tmp_path, "\ufeffname: Grüße").tree == {"name": "Grüße"}


def test_an_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    assert loaded(tmp_path, "# nothing\n").tree == {}


START = "a: 1\nb:\n  c: {d: 2, e: 3}\n  list:\n  - x: 1\n  - 5\nempty:\n"


@pytest.mark.parametrize(
    ("override", "key_path", "value"),
    [
        ("a=2", ("a",), 2),
        ("b.c.d=1e-3", ("b", "c", "d"), 1e-3),
        ("b.list.0.x=true", ("b", "list", 0, "x"), True),
        ("b.list.1=[1, {y: 2}]", ("b", "list", 1), [1, {"y": 2}]),
        ("b.list=[7]", ("b", "list"), [7]),
        ("b.c={f: 4}", ("b", "c"), {"f": 4}),
        ("new=text", ("new",), "text"),
        ("new.deep.key=1", ("new", "deep", "key"), 1),
        ("b.c.0=zero", ("b", "c", "0"), "zero"),
        ("empty.x=1", ("empty", "x"), 1),
        ("a=", ("a",), None),
        ("a=x=y", ("a",), "x=y"),
        ("a=64, 64", ("a",), "64, 64"),
        ("a=''", ("a",), ""),
    ],
)
def test_an_override_replaces_what_is_at_its_place_and_nothing_else(
    tmp_path: Path, override: str, key_path: tuple[str | int, ...], value: object
) -> None:
    document = loaded(tmp_path, START, override)
    assert document.get(key_path, "absent") == value
    assert document.origin(key_path) == "command line"
    before = loaded(tmp_path, START)
    for other in (("a",), ("b", "c", "d"), ("b", "c", "e"), ("b", "list", 0), ("b", "list", 1)):
        shared = min(len(other), len(key_path))
        if other[:shared] != key_path[:shared]:
            assert document.get(other) == before.get(other)
            assert document.origin(other) == before.origin(other)


def test_of_two_overrides_the_last_counts(tmp_path: Path) -> None:
    assert loaded(tmp_path, START, "a=2", "a=3").tree["a"] == 3


def test_what_an_override_brings_along_comes_from_the_command_line_too(tmp_path: Path) -> None:
    document = loaded(tmp_path, START, "b={c: {d: x}}", "new.section.key=1")
    for key_path in (("b", "c"), ("b", "c", "d"), ("new",), ("new", "section", "other")):
        assert document.origin(key_path) == "command line"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b=1", "command line: a: is a value, not a section; cannot set 'b' in it"),
        ("b.c.d.x.y=1", "command line: b.c.d: is a value, not a section; cannot set 'x' in it"),
        ("b.list.2=1", "command line: b.list: is a list of 2; cannot set 2 in it"),
        ("b.list.x=1", "command line: b.list: is a list of 2; cannot set 'x' in it"),
        ("b.list.x.y=1", "command line: b.list: is a list of 2; cannot set 'x' in it"),
        ("b.list.-1=1", "command line: b.list: is a list of 2; cannot set '-1' in it"),
        ("b.list.\u00b2=1", "command line: b.list: is a list of 2; cannot set '\u00b2' in it"),
        (
            "a=[1",
            "command line: a: cannot read the value '[1': while parsing a flow sequence, expected ',' or ']', "
            "but got '<stream end>'",
        ),
        ("a=!!int x", "command line: a: cannot read the value '!!int x': 'x' is not a whole number"),
        ("a", "command line: 'a': expected section.key=value"),
        ("=1", "command line: '=1': expected section.key=value"),
        ("a..b=1", "command line: 'a..b=1': expected section.key=value"),
        (
            "a=&a [*a]",
            "command line: a: cannot read the value '&a [*a]': a section contains itself, or is nested too deeply",
        ),
    ],
)
def test_an_override_that_cannot_be_is_one_line(tmp_path: Path, override: str, message: str) -> None:
    assert complaint(tmp_path, START, override) == message


def test_what_is_dumped_is_read_back_as_it_was(tmp_path: Path) -> None:
    tree = {
        "numbers": [1, 1.0, 1e-5, -3e300, math.inf, 0.1, True, None],
        "texts": ["1e-4", "1E5", "0.", "12:30", "2021-01-01", "none", "null", "yes", "", "64, 64", "Grüße", "a: b"],
        "nested": {"b": {"x": []}, "a": {}},
    }
    text = dump(tree)
    assert loaded(tmp_path, text).tree == tree
    assert list(loaded(tmp_path, text).tree["nested"]) == ["b", "a"]


def test_a_config_in_python_may_hold_paths_and_other_dictionaries() -> None:
    document = load_mapping(OrderedDict(data={"train": OrderedDict(roots=[Path("a") / "b"])}))
    assert document.tree == {"data": {"train": {"roots": ["a/b"]}}}


def test_an_override_changes_one_place_of_two_that_are_written_once(tmp_path: Path) -> None:
    text = "a: &x\n  k: {l: 1}\nb: *x\nc: [*x]\n"
    assert loaded(tmp_path, text, "b.k.l=2").tree == {
        "a": {"k": {"l": 1}},
        "b": {"k": {"l": 2}},
        "c": [{"k": {"l": 1}}],
    }
