"""Generators that were never trained, on data of the contract's experiments."""

from __future__ import annotations

from pathlib import Path

import torch
from contract.experiment import CPU, SIZE, config_of

from imagier.run import TrainedGenerator, build_training


def make_generator(method: str, data: Path, *overrides: str) -> TrainedGenerator:
    """That of a method, the same each time; its images are not flat. data: of `write_data`."""
    val = f"data.val={{roots: ['{data}'], augmentations: {{resize_h_w: '{SIZE}, {SIZE}'}}}}"
    config = config_of(method, data, val, *overrides)
    torch.manual_seed(0)
    recipe = build_training.build_untrained_recipe(config, CPU)
    network = recipe.networks[recipe.generator_name].eval()
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return TrainedGenerator(config, recipe, CPU)
