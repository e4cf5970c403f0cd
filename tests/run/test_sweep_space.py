"""What is wrong with the space of a sweep is said before the first trial, with the line of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_config

from imagier.config.load import ConfigError
from imagier.run.sweep_space import Categorical, Float, Int, read_space


def write(folder: Path, text: str) -> tuple[Path, Path]:
    (folder / "space.yaml").write_text(text)
    return folder / "space.yaml", small_config.write(folder)


def mistakes(folder: Path, text: str, *overrides: str) -> list[tuple[str, str]]:
    """(line and key, code) of each."""
    space, config = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_space(space, config, overrides)
    return [(error.where.removeprefix(f"{space}:"), error.code) for error in caught.value.errors]


def test_a_space_has_ranges_by_key(tmp_path: Path) -> None:
    text = """\
gen_opt.lr: {type: float, low: 1e-5, high: 1e-3, log: true}
trainer.loss_weight.kl: {type: float, low: 0, high: 1, step: 0.25}
gen.num_filters: {type: int, low: 4, high: 16, step: 4}
trainer.gan_mode: {type: categorical, choices: [hinge, least_square]}
data.train.augmentations.horizontal_flip: {type: categorical, choices: [true, false]}
"""
    assert read_space(*write(tmp_path, text), []) == {
        "gen_opt.lr": Float(low=1e-5, high=1e-3, log=True),
        "trainer.loss_weight.kl": Float(low=0.0, high=1.0, step=0.25),
        "gen.num_filters": Int(low=4, high=16, step=4),
        "trainer.gan_mode": Categorical(choices=["hinge", "least_square"]),
        "data.train.augmentations.horizontal_flip": Categorical(choices=[True, False]),
    }


@pytest.mark.parametrize(
    ("line", "place", "code"),
    [
        ("gen.num_filterz: {type: int, low: 1, high: 2}", "1: gen.num_filterz", "unknown-key"),
        ("gen.num_filters: {type: float, low: 1.5, high: 2.5}", "1: gen.num_filters", "wrong-type"),
        ("gen_opt.lr: {type: float, low: 1e-3, high: 1e-3}", "1: gen_opt.lr.high", "empty-range"),
        ("gen_opt.lr: {type: float, low: 2, high: 1}", "1: gen_opt.lr.high", "empty-range"),
        ("gen.num_filters: {type: int, low: 9, high: 2}", "1: gen.num_filters.high", "empty-range"),
        ("gen_opt.lr: {type: float, low: 0, high: 1, log: true}", "1: gen_opt.lr.low", "wrong-range"),
        ("gen_opt.lr: {type: float, low: 1, high: 2, log: true, step: 1}", "1: gen_opt.lr.step", "wrong-range"),
        ("gen_opt.lr: {type: float, low: 1, high: 2, step: -1}", "1: gen_opt.lr.step", "wrong-range"),
        ("gen_opt.lr: {type: float, low: 1, high: 2, step: 3}", "1: gen_opt.lr.step", "wrong-range"),
        ("gen.num_filters: {type: int, low: 0, high: 2, log: true}", "1: gen.num_filters.low", "wrong-range"),
        ("gen.num_filters: {type: int, low: 1, high: 4, log: true, step: 2}", "1: gen.num_filters.step", "wrong-range"),
        ("gen.num_filters: {type: int, low: 1, high: 4, step: 0}", "1: gen.num_filters.step", "wrong-range"),
        ("gen.num_filters: {type: int, low: 1.5, high: 4}", "1: gen.num_filters.low", "wrong-type"),
        ("gen_opt.lr: {type: float, low: 1}", "1: gen_opt.lr.high", "missing-key"),
        ("gen_opt.lr: {type: float, low: 1, high: 2, logg: true}", "1: gen_opt.lr.logg", "unknown-key"),
        ("gen_opt.lr: {type: floot, low: 1, high: 2}", "1: gen_opt.lr.type", "unknown-type"),
        ("gen_opt.lr: {low: 1, high: 2}", "1: gen_opt.lr.type", "unknown-type"),
        ("gen_opt.lr: {type: [float], low: 1, high: 2}", "1: gen_opt.lr.type", "unknown-type"),
        ("gen_opt.lr: [1, 2]", "1: gen_opt.lr", "wrong-type"),
        ("gen_opt: {lr: {type: float, low: 1, high: 2}}", "1: gen_opt", "wrong-type"),
        ("gen.num_filters: {type: float, low: 1, high: 4}", "1: gen.num_filters", "wrong-type"),
        ("trainer.gan_mode: {type: categorical, choices: [hinge]}", "1: trainer.gan_mode.choices", "empty-range"),
        (
            "trainer.gan_mode: {type: categorical, choices: [hinge, hinge]}",
            "1: trainer.gan_mode.choices",
            "wrong-range",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(tmp_path: Path, line: str, place: str, code: str) -> None:
    assert mistakes(tmp_path, line) == [(place, code)]


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = """\
gen_opt.lr: {type: float, low: 1, high: 0}
gen.num_filter: {type: int, low: 1, high: 2}
trainer.gan_mode: {type: categorical, choices: [hinge, hing, wgann]}
gen.num_filters: {type: int, low: 1, high: 2}
"""
    found = mistakes(tmp_path, text, "gen.num_filters=3")
    assert [place for place, _ in found] == [
        "1: gen_opt.lr.high",
        "2: gen.num_filter",
        "3: trainer.gan_mode",
        "3: trainer.gan_mode",
        "4: gen.num_filters",
    ]


def test_a_value_that_another_key_forbids_is_named_with_both(tmp_path: Path) -> None:
    text = "data.train.augmentations.random_crop_h_w: {type: categorical, choices: ['32, 32', '128, 128']}"
    space, config = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_space(space, config, [])
    assert "128, 128" in str(caught.value) and str(caught.value).startswith(f"{space}:1: ")


def test_an_empty_file_is_no_space(tmp_path: Path) -> None:
    space, config = write(tmp_path, "# nothing yet\n")
    with pytest.raises(ConfigError) as caught:
        read_space(space, config, [])
    assert [error.code for error in caught.value.errors] == ["empty-space"]
