"""Clips through the command line: a method of one's own that reads them, from the config to the losses of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from images import png, write
from small_config import read
from videos import counting, number_of

from imagier.cli import main
from imagier.config.check import Config
from imagier.recipe import Position
from imagier.run import build_data
from imagier.run.quick_check import quick_check
from imagier.train.runtime import Runtime

CPU = Runtime(torch.device("cpu"))

METHOD = '''
import torch
from torch import nn
from imagier.recipe import Recipe as Base


class Generator(nn.Module):
    def __init__(self, *, label_channels: int, image_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(label_channels, image_channels, 1)

    def forward(self, label):
        return self.conv(label)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))


class Recipe(Base):
    """Its loss `frames` is the number of frames of a clip."""

    is_video = True
    required_inputs = ("images", "label")
    data_keys = ("single_frame_epoch", "num_epochs_temporal_step")

    def __init__(
        self, *, gen: Generator, dis: Discriminator, single_frame_epoch: int = 0, num_epochs_temporal_step: int
    ):
        self.gen, self.dis, self.loss_weight = gen, dis, {"frames": 1.0, "gan": 1.0}

    def step(self, batch, now):
        yield "dis", {"gan": self.dis.bias.sum()}
        frames = batch["images"].shape[1]
        yield "gen", {"frames": frames + 0 * sum(self.gen(batch["label"][:, t]).sum() for t in range(frames))}

    def sample(self, batch, rng):
        return self.gen(batch["label"][:, 0])
'''

NAME = "lab_of_clips.nets"


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Films of 9, 2 and 5 frames with maps whose class is the number of the frame."""
    write(tmp_path / "lab_of_clips" / "__init__.py")
    write(tmp_path / "lab_of_clips" / "nets.py", METHOD.encode())
    monkeypatch.syspath_prepend(tmp_path)
    for sequence, length in (("b", 9), ("c", 2), ("a", 5)):
        write(tmp_path / "root" / "images" / f"{sequence}.mkv", counting(length))
        for t in range(length):
            write(tmp_path / "root" / "maps" / sequence / f"{t}.png", png(np.full((16, 64, 1), t, np.uint8)))
    split = {"roots": [str(tmp_path / "root")], "augmentations": {"resize_h_w": "16, 64"}}
    return {
        "logging_iter": 1,
        "max_iter": 12,
        "single_frame_epoch": 1,
        "num_epochs_temporal_step": 1,
        "trainer": {"type": NAME},
        "gen": {"type": NAME},
        "dis": {"type": NAME},
        "data": {
            "type": "imaginaire.datasets.paired_videos",
            "input_types": [
                {"images": {"ext": "mkv", "num_channels": 3, "normalize": True}},
                {"maps": {"ext": "png", "num_channels": 1, "is_mask": True}},
            ],
            "input_image": ["images"],
            "input_labels": ["maps"],
            "one_hot_num_classes": {"maps": 10},
            "train": {**split, "batch_size": 4, "initial_sequence_length": 2, "max_sequence_length": 5},
            "val": split,
        },
    }


def checked(folder: Path, experiment: dict[str, Any], *overrides: str) -> Config:
    (folder / "clips.yaml").write_text(yaml.safe_dump(experiment))
    config, notes = read(folder / "clips.yaml", *overrides)
    assert notes == []
    return config


def test_a_batch_holds_clips_that_grow_and_their_label(tmp_path: Path, experiment: dict[str, Any]) -> None:
    loader = build_data.build_train_loader(checked(tmp_path, experiment), CPU, seed=0)
    assert len(loader.dataset) == 16  # all frames, in whole steps
    for epoch, frames in ((0, 1), (1, 2), (2, 4), (3, 5), (9, 5)):
        batch, _ = next(loader.stream(Position(epoch)))
        assert batch["images"].shape == (4, frames, 3, 16, 64)
        assert batch["label"].shape == (4, frames, 10, 16, 64)
        assert batch["images"].min() == -1
        numbers = batch["frame"][:, None] + torch.arange(frames)
        assert torch.equal(batch["label"], F.one_hot(numbers, 10)[..., None, None].expand(-1, -1, -1, 16, 64).float())
        seen = (batch["images"].movedim(2, -1).flatten(0, 1) + 1) * 127.5
        assert [number_of(image) for image in seen.numpy()] == numbers.flatten().tolist()


def test_a_held_out_batch_is_the_next_frame_of_a_sequence(tmp_path: Path, experiment: dict[str, Any]) -> None:
    config = checked(tmp_path, experiment)
    assert config.run.data.val is not None
    loader = build_data.build_held_out_loader(config, CPU, config.run.data, config.run.data.val, seed=0)
    batches = list(loader.once())
    assert [batch.keys["images"] for batch in batches] == [
        [f"{name}/{t}"] for name, length in (("a", 5), ("b", 9), ("c", 2)) for t in range(length)
    ]
    assert {batch["images"].shape for batch in batches} == {(1, 1, 3, 16, 64)}


def test_the_first_frames_of_a_few_sequences_come_side_by_side(tmp_path: Path, experiment: dict[str, Any]) -> None:
    config = checked(tmp_path, experiment)
    assert config.run.data.val is not None
    loader = build_data.build_held_out_loader(config, CPU, config.run.data, config.run.data.val, seed=0)

    def names(count: int, frames: int) -> list[list[str]]:
        return [batch.keys["images"] for batch in loader.some_clips(count, frames)]

    assert names(2, 4) == [[f"a/{t}", f"b/{t}"] for t in range(4)]
    assert names(3, 2) == [[f"{name}/{t}" for name in "abc"] for t in range(2)]
    assert names(3, 100) == [[f"b/{t}"] for t in range(9)]
    assert names(1, 1) == [["a/0"]]
    whole = loader.list_runs()
    assert [batch.keys["images"][0] for batch in loader.read([whole[1][7:], whole[2][1:]])] == ["b/7", "b/8", "c/1"]


def test_the_quick_check_finds_a_wrong_frame(tmp_path: Path, experiment: dict[str, Any]) -> None:
    write(tmp_path / "root" / "maps" / "b" / "7.png", png(np.full((16, 64, 1), 12, np.uint8)))
    config = checked(tmp_path, experiment)
    assert config.run.data.val is not None
    data = build_data.build_dataset(config.run.data, config.run.data.val, seed=0)
    (line,) = quick_check(data, seconds=60)
    assert line.startswith(f"{tmp_path}/root/maps/b/7.png: holds class 12, but one_hot_num_classes.maps is 10")


def test_networks_know_the_channels_of_a_frame(tmp_path: Path, experiment: dict[str, Any]) -> None:
    config = checked(tmp_path, experiment)
    assert config.run.data.train is not None
    facts = build_data.collect_facts(config.run.data, config.run.data.train)
    assert (facts["label_channels"], facts["image_channels"], facts["crop_h_w"]) == (10, 3, (16, 64))


@pytest.mark.parametrize("stops", [[], [6], [3, 10]])
def test_clips_grow_while_a_run_goes_on_and_when_it_is_resumed(
    tmp_path: Path, experiment: dict[str, Any], stops: list[int]
) -> None:
    """An epoch has 4 steps: clips of 1 frame, of 2, of 4."""
    (tmp_path / "clips.yaml").write_text(yaml.safe_dump(experiment))
    for until in (*stops, 12):
        run = ["train", "--config", str(tmp_path / "clips.yaml"), "--logdir", str(tmp_path / "run"), "--device", "cpu"]
        assert main([*run, f"max_iter={until}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    frames = {line["step"]: line["gen_update/frames"] for line in lines if "gen_update/frames" in line}
    assert [frames[step] for step in sorted(frames)] == [1] * 4 + [2] * 4 + [4] * 4
