"""Shared by `data check` and `data preview`: read a config, list its splits, write a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imagier.config import schema
from imagier.config.check import Config
from imagier.config.find import find
from imagier.config.read import read
from imagier.errors import UserError
from imagier.run import build_data
from imagier.tools.doctor.file_table import Split
from imagier.train.disk import write_atomic


def read_config(path: Path, overrides: Sequence[str]) -> Config:
    """Reads and checks a config with overrides, and prints the notes on it. UserError with everything wrong in it."""
    config, notes = read(path, overrides)
    for note in notes:
        print(note)
    return config


def list_splits(config: Config) -> Iterator[tuple[str, schema.Data, schema.Split]]:
    """The splits of a config: name, data section that applies to it, split section."""
    data = config.run.data
    found = [
        ("train", data, data.train),
        ("val", build_data.select_validation_data(data), data.val),
        ("test", data, data.test),
    ]
    if config.run.test_data is not None:
        found.append(("test_data", config.run.test_data, config.run.test_data.test))
    yield from ((name, section, split) for name, section, split in found if split is not None)


def describe_split(config: Config, name: str, data: schema.Data, split: schema.Split) -> Split:
    """The description of a split that the doctor needs. UserError if a root does not exist."""
    codecs = build_data.build_codecs(data)
    return Split(
        name=name,
        sources=build_data.open_sources(data, split),
        codecs=codecs,
        augmentations=split.augmentations,
        interpolator=data.interpolator,
        is_paired=find(schema.DATASET, data.type).is_paired,
        is_video=find(schema.DATASET, data.type).is_video,
        is_cut=split.own.get("output_h_w") is not None,
        should_skip=data.on_error == "skip",
        batch_size=build_data.count_samples_per_iteration(config) if name == "train" else split.batch_size,
        labels=frozenset(codec.name for codec in codecs if codec.batch_name in data.input_labels),
        instances=frozenset(config.recipe.cls.instance_inputs),
    )


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Writes a text file atomically. UserError if that fails."""
    try:
        with write_atomic(path) as file:
            for piece in pieces:
                file.write(piece.encode())
    except OSError as error:
        raise UserError(
            str(error.strerror), where=path, advice="make room, or choose another file", code="write-failed"
        ) from error
