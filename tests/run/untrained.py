"""Networks that were never trained in place of a checkpoint's, for tests of how images are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from imagier.config.check import Config
from imagier.recipe import Recipe
from imagier.run import build_training, generation, inference
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.runtime import Runtime


def replace_weights(
    monkeypatch: pytest.MonkeyPatch, folder: Path, change: Callable[[nn.Parameter], object] | None = None
) -> Path:
    """Lets `generate` and `infer` take networks as they are first, the same each time; returns the checkpoint's file.

    The file is of no use. change: is called with each of the generator's parameters.
    """
    found = FoundCheckpoint(folder / "x.pt", {})
    found.path.write_bytes(b"some")

    def build(config: Config, weights: object, runtime: Runtime) -> Recipe:
        torch.manual_seed(0)
        recipe = build_training.build_untrained_recipe(config, runtime)
        network = recipe.networks[recipe.generator_name].eval()
        for parameter in network.parameters() if change is not None else ():
            change(parameter)
        return recipe

    for module in (inference, generation):
        monkeypatch.setattr(module, "load_recipe", build)
        monkeypatch.setattr(module, "load_weights", lambda *args: found)
    return found.path
