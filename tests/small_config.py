"""A config in a few lines, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagier.config.check import Config, check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import ConfigError, load

TEXT = """\
max_iter: 10
trainer:
  type: spade
  gan_mode: hinge
  loss_weight: {gan: 1, feature_matching: 10, kl: 0.05}
gen_opt:
  lr: 1e-4
gen:
  type: spade
  num_filters: 8
  style_enc:
    num_filters: 4
dis:
  type: spade
data:
  type: paired_images
  input_types:
  - images: {ext: png, num_channels: 3, normalize: true}
  - seg_maps:
      ext: png
      num_channels: 1
      is_mask: true
  input_image: [images]
  input_labels: [seg_maps]
  one_hot_num_classes: {seg_maps: 4}
  train:
    roots: [somewhere/train]
    batch_size: 2
    augmentations:
      resize_h_w: 64, 64
      horizontal_flip: true
      random_crop_h_w: 32, 32
  val:
    roots: [somewhere/val]
    augmentations: {resize_h_w: "32, 32"}
"""


def write(folder: Path, text: str = TEXT) -> Path:
    """The text as the file small.yaml."""
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, *overrides: str) -> tuple[Config, list[str]]:
    """The config of a file, and the lines about what was dropped."""
    document = load(path, overrides)
    notes = translate_legacy(document)
    return check(document), notes


def errors(path: Path, *overrides: str) -> list[str]:
    """All that is wrong with a file, without the name of its folder."""
    with pytest.raises(ConfigError) as caught:
        read(path, *overrides)
    lines = [str(error) for error in caught.value.errors]
    assert str(caught.value) == "\n".join(lines)
    return [line.replace(str(path), path.name) for line in lines]


def mistakes(path: Path, *overrides: str) -> list[tuple[str, str]]:
    """All that is wrong with a file: (key, code) of each mistake."""
    with pytest.raises(ConfigError) as caught:
        read(path, *overrides)
    return [(error.where.rpartition(": ")[2], error.code) for error in caught.value.errors]


def swap(text: str, old: str, new: str) -> str:
    """The text with its one `old` replaced."""
    assert text.count(old) == 1, f"{text.count(old)} of {old!r}"
    return text.replace(old, new)
