"""RAFT as an estimator: the file of its weights, frames of any size, what is written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from images import png, write

from imagier.cli import main
from imagier.data.codecs.flow import unpack
from imagier.nn.raft import Raft
from imagier.tools.flow.raft import RaftFlow

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file as that of its authors, of a network that finds 1.5 px to the right and 0.5 px down everywhere."""
    network = Raft()
    for name, tensor in network.state_dict().items():
        if name.startswith("update_block.flow_head.conv2"):
            tensor.zero_()
    torch.nn.init.constant_(network.update_block.mask[2].weight, 0.0)
    network.update_block.flow_head.conv2.bias.data = torch.tensor([1.5, 0.5]) / 8 / 20
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    state["module.cnet.layer2.0.norm3.weight"] = torch.ones(96)
    path = tmp_path / "raft-things.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(2):
        write(tmp_path / "set/images/a" / f"{number}.png", png(rng.integers(0, 255, (61, 90, 3), np.uint8)))
    return tmp_path / "set"


def test_weights_of_the_authors_form_are_loaded_and_frames_of_any_size_have_flow(weights: Path) -> None:
    raft = RaftFlow(weights, CPU)
    assert raft.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    flow = raft(torch.rand(1, 3, 61, 90), torch.rand(1, 3, 61, 90))
    assert flow.shape == (1, 2, 61, 90)
    inside = flow[..., 8:56, 8:80].flatten(2).mean(dim=-1)
    assert inside[0].tolist() == pytest.approx([1.5, 0.5], abs=1e-4)


def test_the_command_shows_the_sha256_and_writes_it_down(
    weights: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "build", "flow", str(frames), "--estimator", "raft", "--weights", str(weights), "--device", "cpu"]
    assert main(words) == 0
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert sha256 in capsys.readouterr().out
    assert json.loads((frames / "flow.json").read_text())["weights_sha256"] == sha256
    stored = unpack(cv2.imread(str(frames / "flow/a/1.png"), cv2.IMREAD_UNCHANGED)[..., ::-1])
    assert stored.shape == (61, 90, 3) and not stored[..., 2].any()  # forward and backward agree nowhere
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "module.fnet.conv1.bias": torch.ones(64)}, weights)
    assert main(words) == 2  # flow of other weights is there
    assert main([*words[:4], "--weights", str(weights)]) == 2  # weights, but no raft


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"


@pytest.mark.parametrize("given", [[], ["--weights", "nowhere.pth"], ["--weights", "raft-0123456789ab.pth"]])
def test_missing_or_damaged_weights_are_a_line(
    frames: Path,
    weights: Path,
    empty_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
) -> None:
    monkeypatch.chdir(frames.parent)
    weights.rename(frames.parent / "raft-0123456789ab.pth")
    assert main(["data", "build", "flow", "set", "--estimator", "raft", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    place = given[-1] if given else str(empty_cache / "hub/checkpoints")
    assert place in line and ("SHA-256" in line if "raft-0" in place else "princeton-vl/RAFT" in line)
    assert not (frames / "flow").exists()
