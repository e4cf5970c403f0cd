"""What a rank has of its own comes back with a checkpoint: buffers, and the state of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
import yaml

from imagier.cli import main
from imagier.run import status
from imagier.train.checkpoint import load
from imagier.train.compare import find_first_difference

RECIPE = '''\
import torch
from torch import nn

from imagier.recipe import Recipe as BaseRecipe


class Net(nn.Module):
    """Learns to be the mean of all images that this rank has seen, which is a buffer."""

    def __init__(self, *, label_channels: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(label_channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, label):
        return self.conv(label)


class Recipe(BaseRecipe):
    players = ("net",)
    required_inputs = ("images", "label")

    def __init__(self, *, net: Net):
        self.net, self.loss_weight = net, {"color": 1.0}
        self.queue, self.count = [], 0

    def step(self, batch, ctx):
        color = batch["images"].mean(dim=(0, 2, 3))
        self.net.seen += 0.1 * color
        self.queue = [*self.queue, color][-3:]
        self.count += 1
        target = self.net.seen + torch.stack(self.queue).sum(dim=0) + 0.01 * self.count
        yield "net", {"color": (self.net(batch["label"]).mean(dim=(0, 2, 3)) - target).square().sum()}

    def sample(self, batch, rng):
        return self.net(batch["label"])
'''

STATE = """
    def state_dict(self):
        return {"queue": self.queue, "count": self.count}

    def load_state_dict(self, state):
        self.queue, self.count = state["queue"], state["count"]
"""


def write_experiment(folder: Path, module: str) -> Path:
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "queue.py").write_text(module)
    content = tiny.config(tiny.write_data(folder / "data"))
    for name in ("gen", "dis", "gen_opt", "dis_opt"):
        del content[name]
    content |= {"trainer": {"type": "my_lab.queue"}, "net": {"type": "my_lab.queue"}}
    content["net_opt"] = {"type": "adam", "lr": 1e-3}
    del content["data"]["val"]
    path = folder / "queue.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(config: Path, logdir: Path, end: int) -> dict:
    assert main(["train", str(config), "--logdir", str(logdir), "--device", "cpu", f"max_iter={end}"]) == status.DONE
    return load(next(logdir.glob(f"*_iteration_{end:09d}_checkpoint.pt")))["players"]


@pytest.mark.parametrize(("state", "is_same"), [(STATE, True), ("", False)])
def test_the_state_of_a_recipe_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, is_same: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_experiment(tmp_path, RECIPE + state)
    whole = run(config, tmp_path / "whole", 4)
    run(config, tmp_path / "parts", 2)
    assert (find_first_difference(whole, run(config, tmp_path / "parts", 4)) is None) == is_same


@pytest.mark.slow
def test_each_of_two_ranks_gets_its_own_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_experiment(tmp_path, RECIPE + STATE)
    words = ["--ranks", "2", "--steps", "6", "--device", "cpu", "--folder", "kept"]
    assert main(["verify-resume", str(config), *words]) == status.DONE
    first, second = load(next(Path("kept/whole").glob("*.pt")))["extras"]["rank_state"]["ranks"]
    assert first["buffers"] == {}
    assert {"net.network.seen", "net.network.conv.1.running_mean"} <= set(second["buffers"])
    assert first["recipe"]["count"] == second["recipe"]["count"] == 6
    assert not torch.equal(first["recipe"]["queue"][0], second["recipe"]["queue"][0])
    capsys.readouterr()
    assert main(["train", str(config), "--logdir", "kept/whole", "--device", "cpu", "max_iter=7"]) == status.DONE
    assert "the 2 ranks are now all as on the first one" in capsys.readouterr().out


@pytest.mark.parametrize("lazy", ["LazyConv2d(4, 3)", "LazyBatchNorm2d()"])
def test_a_layer_whose_size_is_not_known_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lazy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_experiment(tmp_path, RECIPE.replace("nn.BatchNorm2d(4)", f"nn.{lazy}"))
    words = ["train", str(config), "--logdir", "run", "--device", "cpu"]
    assert main(words) == status.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("net: conv.1.")
