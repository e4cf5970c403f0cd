"""The JSON Schema of configs, judged by an independent validator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from golden import golden
from small_config import TEXT, read, write

from imagier.config.json_schema import json_schema
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import dump, load

ROOT = Path(__file__).parents[2]
CONFIGS = [*sorted((ROOT / "benchmarks" / "sizes").glob("*.yaml")), *sorted((ROOT / "configs").rglob("*.yaml"))]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema())


def test_it_is_a_json_schema(validator: jsonschema.Draft202012Validator) -> None:
    validator.check_schema(validator.schema)
    assert validator.schema["$schema"] == validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_shipped_config_fits(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    validator.validate(load(path).tree)


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_shipped_config_fits_as_any_yaml_reader_sees_it(
    validator: jsonschema.Draft202012Validator, path: Path
) -> None:
    """To many readers `3e-3` is a text, because it has no dot."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    validator.validate(tree)
    assert tree == load(path).tree


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_dumped_config_fits_as_any_yaml_reader_sees_it(
    validator: jsonschema.Draft202012Validator, tmp_path: Path, path: Path
) -> None:
    text = read(path, "gen_opt.lr=3e-7", "dis_opt.lr=1e-20")[0].dump()
    tree = yaml.safe_load(text)
    validator.validate(tree)
    assert (tree["gen_opt"]["lr"], tree["dis_opt"]["lr"]) == (3e-7, 1e-20)
    assert tree == load(write(tmp_path, text)).tree


@pytest.mark.parametrize("text", ["1e-3", "0o17", "017", "y", "N", "yes", "off", "1:30", "2021-01-01", "~", "1_000"])
def test_a_text_that_some_reader_may_take_for_something_else_is_quoted(text: str) -> None:
    assert dump({"name": text}) == f"name: '{text}'\n"


def list_properties(node: object) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name and schema of each key, and whether it is required. Conditions are left out: they are no keys."""
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items():
            yield name, value, name in node.get("required", [])
        for key, value in node.items():
            if key != "if":
                yield from list_properties(value)
    elif isinstance(node, list):
        for value in node:
            yield from list_properties(value)


def test_every_key_has_a_description(validator: jsonschema.Draft202012Validator) -> None:
    found = list(list_properties(validator.schema))
    assert len(found) > 437
    assert [name for name, part, _ in found if not part.get("description")] == []


def test_a_key_has_its_default_and_its_unit(validator: jsonschema.Draft202012Validator) -> None:
    properties = validator.schema["properties"]
    assert properties["logging_iter"]["default"] == 100
    assert properties["logging_iter"]["description"].endswith("Unit: iterations.")
    assert properties["metrics"]["default"] == ["l1", "psnr", "l1_changed"]
    without = {
        name for name, part, is_required in list_properties(validator.schema) if not is_required | ("default" in part)
    }
    changes = set(validator.schema["$defs"]["AugmentationKeys"]["properties"])
    assert without <= changes | {"gen", "dis"}  # none of the changes has a default, and recipes say which players


@pytest.mark.parametrize("case", ["spade_a", "spade_b"])
def test_a_config_of_the_reference_fits_once_it_is_in_our_spelling(
    validator: jsonschema.Draft202012Validator, case: str
) -> None:
    document = load(golden(case, "config.yaml"))
    translate_legacy(document)
    validator.validate(document.tree)


def test_a_resolved_config_fits(validator: jsonschema.Draft202012Validator, tmp_path: Path) -> None:
    validator.validate(read(write(tmp_path))[0].to_dict())


def test_a_config_with_a_model_of_the_users_own_fits(
    validator: jsonschema.Draft202012Validator, tmp_path: Path
) -> None:
    validator.validate(load(write(tmp_path), ["gen={type: my_lab.nets, anything: 3}"]).tree)


@pytest.mark.parametrize(
    "override",
    [
        "max_itr=3",
        "max_iter=many",
        "max_iter=-1",
        "gen.num_filter=3",
        "gen.num_filters=many",
        "gen.style_enc.num_filter=3",
        "gen.type=spode",
        "gen.label_channels=3",
        "dis={num_filters: 3}",
        "trainer.lossweight={}",
        "trainer.loss_weight.l2=1",
        "trainer.gan_mode=hing",
        "trainer.init.gian=1",
        "gen_opt.lr=fast",
        "gen_opt.lr_policy.steps=3",
        "gen_opt.type=adm",
        "gen_opt={type: adamw, amsgrd: true}",
        "gen_opt={type: adamw, betas: [0.5]}",
        "gen_opt={params: []}",
        "gen_opt.lr_policy={type: linear}",
        "gen_opt.lr_policy.warmup=-1",
        "metrics=psnr",
        "metrics=[psnrr]",
        "metrics=[{type: l1_changed, tolerence: 1}]",
        "metrics=[{type: l1_changed, tolerance: -1}]",
        "head={num_filters: 3}",
        "data.input_types.0.images.exxt=png",
        "data.min_side_px=3",
        "data.own={}",
        "data.train.initial_sequence_length=many",
        "data.input_types.0.images.own={}",
        "data.train.augmentations.horizontal_flipp=true",
        "data.train.augmentations.gamma={p: 1}",
        "data.background=[0, 0, 256]",
        "data.background=[0, 0]",
        "data.train.batch_size=0",
        "data.one_hot_num_classes.seg_maps=x",
    ],
)
def test_a_mistake_does_not_fit(validator: jsonschema.Draft202012Validator, tmp_path: Path, override: str) -> None:
    assert not validator.is_valid(load(write(tmp_path), [override]).tree)


@pytest.mark.parametrize(
    "override",
    [
        "gen_opt={type: adamw, amsgrad: true, betas: [0.5, 0.9], lr_policy: {type: cosine, decay_end: 3}}",
        "gen_opt={type: my_lab.optim, anything: 3}",
        "gen_opt.lr_policy={type: my_lab.schedules.Mine, anything: 3}",
        "metrics=[psnr, my_lab.metrics, {type: l1_changed, tolerance: 0.5}, {type: my_lab.metrics.Mine, anything: 3}]",
        "head={type: my_lab.nets, anything: 3}",
        "head_opt={type: sgd, momentum: 0.5}",
        "data.train.initial_sequence_length=3",
        "data.max_sequence_length=3",
        "data.input_types.0.images={ext: png, type: my_lab.depth, anything: 3}",
        "data={type: my_lab.sets, anything: 3}",
        "data.val={type: my_lab.sets, anything: 3}",
    ],
)
def test_components_of_any_kind_fit(validator: jsonschema.Draft202012Validator, tmp_path: Path, override: str) -> None:
    validator.validate(load(write(tmp_path), [override]).tree)


def test_a_recipe_of_the_users_may_have_other_players(
    validator: jsonschema.Draft202012Validator, tmp_path: Path
) -> None:
    tree = load(write(tmp_path), ["trainer={type: my_lab.solo}", "painter={type: my_lab.solo}"]).tree
    del tree["gen"], tree["dis"]
    validator.validate(tree)


@pytest.mark.parametrize("section", ["trainer", "gen", "dis", "data"])
def test_a_missing_section_does_not_fit(
    validator: jsonschema.Draft202012Validator, tmp_path: Path, section: str
) -> None:
    tree = load(write(tmp_path, TEXT)).tree
    validator.validate(tree)
    del tree[section]
    assert not validator.is_valid(tree)
