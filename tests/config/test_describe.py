"""Descriptions of keys: every key has one, and it says what the check of configs does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from small_config import read, write
from typing_extensions import TypedDict

from imagier.config import schema
from imagier.config.describe import Key, describe_keys, describe_section, list_sections
from imagier.config.descriptions import describe_arguments, describe_fields, read_entries, split_unit
from imagier.config.find_keys import find_keys, locate, select_read
from imagier.config.load import load
from imagier.config.type_words import name_range, name_type
from imagier.errors import UserError
from imagier.ranges import Odd


@pytest.mark.parametrize("section", list_sections())
def test_every_key_is_described(section: str) -> None:
    keys = describe_section(section)
    assert keys
    assert [key.name for key in keys if len(key.description) < 10] == []


def test_every_key_of_a_resolved_config_is_there(tmp_path: Path) -> None:
    """The other way round: what a config holds once all defaults are in can be looked up."""
    tree = read(write(tmp_path))[0].to_dict()
    missing = []

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                visit(child, (*path, key))
        elif isinstance(node, list) and node and isinstance(node[0], dict) and path != ("metrics",):
            for i, child in enumerate(node):
                visit(child, (*path, str(i)))
        elif path[-2:-1] != ("one_hot_num_classes",):
            try:
                assert find_keys(".".join(path))[0]
            except (UserError, AssertionError):
                missing.append(path)

    visit(tree, ())
    assert missing == []


@pytest.mark.parametrize("kind", [schema.RECIPE, schema.OPTIMIZER])
def test_a_default_that_is_described_is_the_one_that_a_config_gets(tmp_path: Path, kind: object) -> None:
    config = read(write(tmp_path))[0].to_dict()
    section, name = ("trainer", "trainer") if kind is schema.RECIPE else ("PLAYER_opt", "dis_opt")
    given = {"loss_weight", "type"}
    described = {
        key.path[1]: key.default
        for key in describe_section(section)
        if len(key.path) == 2 and key.default and key.path[1] not in given
        if not key.readers or config[name]["type"] in key.readers
    }
    values = {key: config[name][key] for key in described if key != "lr_policy"}
    for key, value in values.items():
        text = described[key]
        assert load_inline(tmp_path, text) == value, key


def load_inline(folder: Path, text: str) -> Any:
    return load(write(folder, f"x: {text}\n")).tree["x"]


def test_a_key_has_unit_range_type_default_and_readers() -> None:
    (key,) = find_keys("gen_opt.lr_policy.step_size")[0]
    assert (key.unit, key.range, key.type, key.readers) == ("epochs or iterations", "> 0", "int", ("step",))
    assert key.default == "1000000000 (never)"
    assert [key.readers for key in find_keys("gen.style_dims")[0]] == [
        ("coco_funit", "funit"),
        ("spade",),
        ("vid2vid", "wc_vid2vid"),
    ]
    (rotate,) = find_keys("data.train.augmentations.rotate")[0]
    assert (rotate.unit, rotate.readers) == ("degrees", ())


def test_a_default_of_a_section_reaches_its_keys() -> None:
    """MUNIT's decoders have norms without an affine part, pix2pixHD's generator has them with one."""
    affine = [find_keys(f"gen.{key}.affine")[0][0] for key in ("decoder_norm_params", "activation_norm_params")]
    assert [key.default for key in affine] == ["false", "true"]


@pytest.mark.parametrize(
    "name",
    [
        "data.input_types.0.images.ext",
        "data.input_types.images.ext",
        "data.input_types.ext",
        "data.val.input_types.0.images.ext",
        "test_data.input_types.0.labels.ext",
    ],
)
def test_places_in_lists_may_be_left_out(name: str) -> None:
    (key,) = find_keys(name)[0]
    assert key.name == "data.input_types.N.NAME.ext"


def test_keys_of_a_data_set_may_stand_in_a_split() -> None:
    assert find_keys("data.train.max_sequence_length") == find_keys("data.max_sequence_length")


def test_a_section_lists_what_is_below_it() -> None:
    meanings, below = find_keys("trainer")
    assert meanings == []
    assert {"trainer.type", "trainer.init.bias.gain", "trainer.loss_weight.kl"} <= {key.name for key in below}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("gen.style_dim", "did you mean 'gen.style_dims'?"),
        ("style_dims", "did you mean gen.style_dims?"),
        ("dis_opt.beta", "did you mean 'dis_opt.betas'?"),
        ("gne", "did you mean 'gen'?"),
        ("gen_op.skip_grad", "did you mean gen_opt.skip_grad?"),
        ("trainer.model_average_config.bta", "did you mean 'trainer.model_average_config.beta'?"),
    ],
)
def test_a_typo_is_corrected(name: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        find_keys(name)
    assert (caught.value.code, caught.value.where, caught.value.advice) == ("unknown-key", name, advice)


def test_only_the_meaning_of_a_configs_own_type_is_selected(tmp_path: Path) -> None:
    document = load(write(tmp_path))
    keys = find_keys("gen.num_filters")[0]
    assert len(keys) > 1
    (key,) = select_read(document, ("gen", "num_filters"), keys)
    assert key.readers == ("spade",)
    assert select_read(document, ("gen", "latent_dim"), find_keys("gen.latent_dim")[0]) == []


def test_entries_of_a_list_are_found_by_their_name(tmp_path: Path) -> None:
    document = load(write(tmp_path))
    assert locate(document, "data.input_types.seg_maps.ext") == ("data", "input_types", 1, "seg_maps", "ext")


def test_a_class_of_the_users_is_described_by_its_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_described").mkdir()
    (tmp_path / "my_described" / "nets.py").write_text(
        "from torch import nn\n\n\nclass Generator(nn.Module):\n"
        "    def __init__(self, *, width: int = 8):\n"
        '        """width: Of the only layer. [channels]"""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    document = load(write(tmp_path), ["gen={type: my_described.nets}"])
    (key,) = find_keys("gen.width", document)[0]
    assert (key.description, key.unit, key.default, key.readers) == (
        "Of the only layer.",
        "channels",
        "8",
        ("my_described.nets",),
    )


@dataclasses.dataclass
class Parent:
    """A section."""

    first: int = 0
    """What the
    parent says."""
    second: int = 1
    third: int = 2
    """The third."""


@dataclasses.dataclass
class Child(Parent):
    """Another section."""

    second: int = 3
    """What the child says."""


class Mapped(TypedDict):
    """A mapping."""

    angle: float
    """Of a turn. [degrees]"""


def test_texts_below_fields_describe_them() -> None:
    assert describe_fields(Parent) == {"first": "What the parent says.", "third": "The third."}
    assert describe_fields(Child) == {**describe_fields(Parent), "second": "What the child says."}
    assert describe_fields(Mapped) == {"angle": "Of a turn. [degrees]"}


class Documented:
    """A class. width: not at the beginning of a line."""

    def __init__(self, *, width: int, depth: int = 1, other: int = 2) -> None:
        """width: Of every layer,
            the last one too.
        depth: How many layers: a number. [layers]

        other things are not described here.
        """


def test_entries_of_a_docstring_describe_arguments() -> None:
    assert describe_arguments(Documented) == {
        "width": "Of every layer, the last one too.",
        "depth": "How many layers: a number. [layers]",
    }


def test_torch_s_docstrings_are_read() -> None:
    """Types in parentheses, defaults at the end, texts on the next line."""
    texts = describe_arguments(torch.optim.RMSprop)
    assert {"alpha", "eps", "weight_decay", "momentum", "centered"} <= texts.keys()
    assert not any("(default" in text for text in texts.values())
    assert read_entries("Args:\n    a (tuple[int, int], optional):\n        two numbers (default: (1, 2))", ["a"]) == {
        "a": "two numbers"
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A time. [iterations]", ("A time.", "iterations")),
        ("From [0, 1] to [-1, 1].", ("From [0, 1] to [-1, 1].", "")),
        ("Points [x, y].", ("Points [x, y].", "")),
    ],
)
def test_a_unit_stands_at_the_end_in_brackets(text: str, parts: tuple[str, str]) -> None:
    assert split_unit(text) == parts


@pytest.mark.parametrize(
    ("hint", "type_", "range_"),
    [
        (int, "int", ""),
        (Annotated[int, Field(gt=0)] | None, "int or null", "> 0"),
        (Odd, "int", "> 0 and odd"),
        (Annotated[float, Field(ge=0, le=1)], "number", "from 0 to 1"),
        (Annotated[float, Field(ge=0, lt=1)], "number", ">= 0 and < 1"),
        (list[str] | str, "list of texts or text", ""),
        (Annotated[list[float], Field(min_length=2, max_length=2)], "list of 2 numbers", ""),
        (tuple[int, int], "list of 2 ints", ""),
        (dict[str, Annotated[int, Field(gt=0)]], "section of ints by name, each > 0", ""),
        (Literal["a", 1, True], "one of a, 1, true", ""),
        (Parent, "section", ""),
        (list[dict[str, Mapped]], "list of sections of sections by name", ""),
        (Any, "anything", ""),
    ],
)
def test_types_are_named_in_words(hint: Any, type_: str, range_: str) -> None:
    assert (name_type(hint), name_range(hint)) == (type_, range_)


def test_keys_are_not_repeated() -> None:
    """A key comes once for each type that reads it."""
    seen: set[tuple[str, str]] = set()
    for key in describe_keys():
        for reader in key.readers or ("all",):
            assert (key.name, reader) not in seen, key.name
            seen.add((key.name, reader))


def test_an_optimizer_that_no_training_can_use_is_not_described() -> None:
    types = next(key for key in describe_section("PLAYER_opt") if isinstance(key, Key) and key.path[-1] == "type").type
    assert "adamw" in types
    assert "lbfgs" not in types
