"""Generators that were hardly trained, on data of the contract's experiments."""

from __future__ import annotations

from pathlib import Path

from contract.experiment import CPU, SIZE, config_of, train, trainer_of

from imagier.run import TrainedGenerator

STEPS = 5
"""Before, spectral norms are far from their values, and images are black or white."""


def make_generator(method: str, data: Path, *overrides: str) -> TrainedGenerator:
    """That of a method, the same each time. data: of `write_data`."""
    val = f"data.val={{roots: ['{data}'], augmentations: {{resize_h_w: '{SIZE}, {SIZE}'}}}}"
    clips = ["data.initial_sequence_length=2", f"data.type=paired_{'few_shot_' if method[0] == 'f' else ''}videos"]
    config = config_of(method, data, val, "gen_opt.lr=0.03", *(clips if "vid2vid" in method else []), *overrides)
    trainer = trainer_of(config)
    train(trainer, config, STEPS)
    trainer.recipe.networks[trainer.recipe.generator_name].eval()
    return TrainedGenerator(config, trainer.recipe, CPU)
