"""The label ops of a config, in their order: what becomes of each input type, and what cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_config import errors, read, write

from imagier.config.label_ops import TransformedType, apply_ops

DATA = "imaginaire.model_utils."
MOVE = f"{DATA}label::move_dont_care"
RENAME = f"{DATA}rename_inputs::rename_inputs"
ONE_HOT, CONCAT = f"{DATA}label::make_one_hot", f"{DATA}label::concat_labels"


def of(folder: Path, *overrides: str) -> dict[str, TransformedType]:
    return apply_ops(read(write(folder), *overrides)[0].run.data)


def test_without_ops_classes_get_channels_and_nothing_else_happens(tmp_path: Path) -> None:
    assert of(tmp_path) == {"images": TransformedType("images"), "seg_maps": TransformedType("seg_maps", num_classes=4)}


def test_values_may_be_moved_before_they_get_channels(tmp_path: Path) -> None:
    found = of(tmp_path, f"data.full_data_ops='{MOVE}, {ONE_HOT}, {CONCAT}'", "data.move_dont_care={seg_maps: 3}")
    assert found["seg_maps"] == TransformedType("seg_maps", num_classes=4, dont_care=3)


@pytest.mark.parametrize("first", ["old", "new"])
def test_each_op_calls_a_type_as_it_is_called_by_then(tmp_path: Path, first: str) -> None:
    ops, name = (f"{ONE_HOT}, {RENAME}", "seg_maps") if first == "old" else (f"{RENAME}, {ONE_HOT}", "labels")
    found = of(
        tmp_path,
        f"data.full_data_ops='{ops}, {CONCAT}'",
        "data.rename_inputs={labels: seg_maps}",
        f"data.one_hot_num_classes={{{name}: 4}}",
        "data.input_labels=[labels]",
    )
    assert found["seg_maps"] == TransformedType("labels", num_classes=4)


WRONG = [
    (
        f"{ONE_HOT}, {MOVE}, {CONCAT}",
        ["data.move_dont_care={seg_maps: 3}"],
        "data.full_data_ops: move_dont_care must come before make_one_hot, which makes channels of seg_maps",
    ),
    (
        f"{CONCAT}, {ONE_HOT}",
        [],
        "data.one_hot_num_classes.seg_maps: seg_maps is part of the label by then; put concat_labels at the end of "
        "full_data_ops",
    ),
    (
        f"{RENAME}, {ONE_HOT}, {CONCAT}",
        ["data.rename_inputs={images: seg_maps}"],
        "data.rename_inputs.images: is the name of another input type",
    ),
    (
        f"{RENAME}, {ONE_HOT}, {CONCAT}",
        ["data.rename_inputs={new: image}"],
        "data.rename_inputs.new: no input type 'image'; did you mean 'images'?",
    ),
    (
        f"{MOVE}, {ONE_HOT}, {CONCAT}",
        ["data.move_dont_care={seg_map: 1}"],
        "data.move_dont_care.seg_map: no input type 'seg_map'; did you mean 'seg_maps'?",
    ),
    (f"{MOVE}, {ONE_HOT}", [], "data.full_data_ops: move_dont_care needs the key of that name"),
    (
        f"{ONE_HOT}, {CONCAT}",
        ["data.rename_inputs={new: images}"],
        "data.full_data_ops: lacks rename_inputs, without which the key of that name has no effect",
    ),
]


@pytest.mark.parametrize(("ops", "overrides", "line"), WRONG, ids=[row[2][:50] for row in WRONG])
def test_what_cannot_be_done_is_told_with_its_place(tmp_path: Path, ops: str, overrides: list[str], line: str) -> None:
    found = errors(write(tmp_path), f"data.full_data_ops='{ops}'", *overrides)
    assert [line.partition(": ")[2] for line in found] == [line]


def test_the_channels_of_two_sections_are_compared_after_their_ops(tmp_path: Path) -> None:
    test_data = "test_data={type: paired_images, input_types: [maps: {ext: png, num_channels: 1, is_mask: true}], "
    test_data += "input_labels: [seg_maps], rename_inputs: {seg_maps: maps}, one_hot_num_classes: {seg_maps: 4}, "
    test_data += "full_data_ops: 'rename_inputs, make_one_hot, concat_labels', "
    test_data += "test: {roots: [a], augmentations: {resize_h_w: '32, 32'}}}"
    read(write(tmp_path), test_data)
    (line,) = errors(write(tmp_path), test_data, "test_data.one_hot_num_classes.seg_maps=5")
    assert "make a label of other channels (5) than those of data (4)" in line
