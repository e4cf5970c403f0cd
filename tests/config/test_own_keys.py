"""Keys that data sets and kinds of input have of their own: where they may stand, and how wrong ones are reported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from images import write as write_file
from small_config import errors, read, write

from imagier.config.load import ConfigError

SETS = """
from imagier.data.datasets import paired_images
from imagier.errors import UserError


class Dataset(paired_images.Dataset):
    def __init__(self, spec, *, min_side_px: int, ratio: float = 0.5, tags: list[str] = []):
        super().__init__(spec)

    @classmethod
    def check_keys(cls, keys, *, is_training):
        if is_training and keys["ratio"] > keys["min_side_px"]:
            raise UserError("must not be above min_side_px", where="ratio", code="ratio")


class Other(paired_images.Dataset):
    def __init__(self, spec, *, margin_px: int = 3):
        super().__init__(spec)
"""

KINDS = """
from imagier.data.codecs import image


class Codec(image.Codec):
    num_channels = 3

    def __init__(self, input_type, *, gain: float = 1.0):
        super().__init__(input_type)
"""

OWN = "data.type=lab_of_keys.sets"
IMAGES = "data.input_types.0.images"
KIND = f"{IMAGES}={{ext: png, normalize: true, type: lab_of_keys.kinds"


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_of_keys"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {"__init__": "", "sets": SETS, "kinds": KINDS}.items():
        write_file(tmp_path / "lab_of_keys" / f"{name}.py", text.encode())


def own(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """The keys that the data set of each split gets."""
    data = read(write(folder), *overrides)[0].run.data
    assert data.train is not None and data.val is not None
    return {"train": data.train.own, "val": data.val.own}


def test_keys_in_the_section_are_for_all_splits_and_those_in_a_split_replace_them(tmp_path: Path) -> None:
    assert own(tmp_path, OWN, "data.min_side_px=8", "data.val.min_side_px=9", "data.val.ratio=2") == {
        "train": {"min_side_px": 8, "ratio": 0.5, "tags": []},
        "val": {"min_side_px": 9, "ratio": 2.0, "tags": []},
    }


@pytest.mark.parametrize(
    ("key", "base", "arguments"),
    [
        ("data.type", "paired_images.Dataset", "spec, *, batch_size: int = 7"),
        ("data.type", "paired_images.Dataset", "spec, *, num_classes: int"),
        ("data.type", "paired_images.Dataset", "settings, *, margin_px: int = 3"),
        (f"{IMAGES}.type", "image.Codec", "input_type, *, normalize: bool"),
        (f"{IMAGES}.type", "image.Codec", "*, gain: float"),
    ],
)
def test_a_class_whose_constructor_hides_shared_keys_is_refused(
    tmp_path: Path, key: str, base: str, arguments: str
) -> None:
    room, name = ("datasets", "Dataset") if "Dataset" in base else ("codecs", "Codec")
    module = f"from imagier.data.{room} import {base.partition('.')[0]}\n\n\nclass {name}({base}):\n"
    module += f"    def __init__(self, {arguments}):\n        pass\n"
    write_file(tmp_path / "lab_of_keys" / "hiding.py", module.encode())
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path), f"{key}=lab_of_keys.hiding")
    assert {(error.where, error.code) for error in caught.value.errors} == {
        (f"command line: {key}", "wrong-constructor")
    }


def test_an_override_of_a_resolved_config_counts_for_all_splits_that_gave_no_value(tmp_path: Path) -> None:
    config, _ = read(write(tmp_path), OWN, "data.min_side_px=8", "data.val.ratio=0.25")
    resolved = write(tmp_path, config.dump())
    again, _ = read(resolved, "data.min_side_px=77", "data.ratio=3")
    assert again.run.data.train is not None and again.run.data.val is not None
    assert again.run.data.train.own == {"min_side_px": 77, "ratio": 3.0, "tags": []}
    assert again.run.data.val.own == {"min_side_px": 77, "ratio": 0.25, "tags": []}


@pytest.mark.parametrize("key", ["data.type", "data.val.type", f"{IMAGES}.type"])
def test_of_a_class_that_is_not_there_only_the_type_is_wrong(tmp_path: Path, key: str) -> None:
    section = key.rpartition(".")[0]
    val = [
        "data.val.input_image=[images]",
        "data.val.input_types=[images: {ext: png, normalize: true}, seg_maps: {ext: png}]",
    ]
    overrides = [f"{key}=lab_of_keys.nothing", f"{section}.min_side_px=8", *(val if "val" in key else [])]
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path), *overrides, "logging_iter=often")
    assert {(error.where, error.code) for error in caught.value.errors} == {
        (f"command line: {key}", "unknown-type"),
        ("command line: logging_iter", "wrong-type"),
    }


def test_a_split_with_a_type_of_its_own_takes_only_its_own_keys(tmp_path: Path) -> None:
    val = ["data.val.type=lab_of_keys.sets.Other", "data.val.input_image=[images]", "data.val.margin_px=5"]
    val.append(
        "data.val.input_types=[images: {ext: png, num_channels: 3, normalize: true}, "
        "seg_maps: {ext: png, is_mask: true}]"
    )
    found = own(tmp_path, OWN, "data.min_side_px=8", *val)
    assert found["val"] == {"margin_px": 5}
    assert found["train"]["min_side_px"] == 8


def test_an_input_type_of_a_kind_of_its_own_has_the_keys_of_that(tmp_path: Path) -> None:
    config, _ = read(write(tmp_path), f"{KIND}, gain: 2}}")
    assert config.run.data.input_types[0]["images"].own == {"gain": 2.0}
    assert config.run.data.input_types[1]["seg_maps"].own == {}


@pytest.mark.parametrize("overrides", [[OWN, "data.min_side_px=8", "data.val.ratio=0.25"], [f"{KIND}, gain: 2}}"]])
def test_a_resolved_config_with_them_loads_to_itself(tmp_path: Path, overrides: list[str]) -> None:
    config, _ = read(write(tmp_path), *overrides)
    assert "own" not in config.dump()
    again, notes = read(write(tmp_path, config.dump()))
    assert (again, notes) == (config, [])


@pytest.mark.parametrize(
    ("overrides", "key", "code"),
    [
        ([OWN, "data.min_side_px=8", "data.min_side=8"], "data.min_side", "unknown-key"),
        ([OWN, "data.min_side_px=wide"], "data.min_side_px", "wrong-type"),
        ([OWN, "data.min_side_px=8", "data.val.ratio=wide"], "data.val.ratio", "wrong-type"),
        ([OWN, "data.min_side_px=8", "data.tags=[1]"], "data.tags.0", "wrong-type"),
        ([OWN, "data.min_side_px=8", "data.train.ratio=9"], "data.train.ratio", "ratio"),
        ([OWN, "data.min_side_px=8", "data.ratio=9"], "data.ratio", "ratio"),
        (["data.min_side_px=8"], "data.min_side_px", "unknown-key"),
        (["data.train.min_side_px=8"], "data.train.min_side_px", "unknown-key"),
        (["data.own={a: 1}"], "data.own", "unknown-key"),
        (["data.train.own={a: 1}"], "data.train.own", "unknown-key"),
        ([f"{IMAGES}.own={{a: 1}}"], f"{IMAGES}.own", "unknown-key"),
        ([f"{IMAGES}.gain=2"], f"{IMAGES}.gain", "unknown-key"),
        ([f"{KIND}, gian: 2}}"], f"{IMAGES}.gian", "unknown-key"),
        ([f"{KIND}, num_channels: 4}}"], f"{IMAGES}.num_channels", "different-channels"),
        ([f"{IMAGES}.type=imagr"], f"{IMAGES}.type", "unknown-type"),
        ([f"{IMAGES}.type=lab_of_keys.sets.Dataset"], f"{IMAGES}.type", "wrong-class"),
        ([f"{IMAGES}={{ext: png, type: class_map}}"], f"{IMAGES}.type", "needs-key"),
        (["data.input_types.1.seg_maps.type=mask"], "data.input_types.1.seg_maps.type", "not-classes"),
    ],
)
def test_a_mistake_in_them_is_reported_at_its_place(tmp_path: Path, overrides: list[str], key: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path), *overrides)
    assert {(error.where, error.code) for error in caught.value.errors} == {(f"command line: {key}", code)}


def test_a_missing_key_is_reported_at_each_split_that_needs_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path), OWN)
    found = [(error.where.rpartition(": ")[2], error.code) for error in caught.value.errors]
    assert found == [("data.train.min_side_px", "missing-key"), ("data.val.min_side_px", "missing-key")]


def test_a_key_misspelt_gets_the_nearest_of_its_own_and_of_the_shared_ones(tmp_path: Path) -> None:
    for wrong, right in (("min_side_pxl", "min_side_px"), ("num_wokers", "num_workers")):
        lines = errors(write(tmp_path), OWN, "data.min_side_px=8", f"data.{wrong}=1")
        assert lines == [f"command line: data.{wrong}: unknown key; did you mean {right!r}?"]


def test_the_word_of_version_0_1_for_what_ends_a_run_is_accepted_with_a_line(tmp_path: Path) -> None:
    config, notes = read(write(tmp_path), "data.on_error=stop")
    assert config.run.data.on_error == "raise"
    assert notes == ["command line: data.on_error: stop is called raise now"]
