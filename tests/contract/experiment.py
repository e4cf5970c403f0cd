"""The small experiment of every method: its config, data for it, and what is built of both.

Also what `torchrun` starts for test_contract.py: every rank trains an experiment and writes a digest of its networks.
"""

from __future__ import annotations

import hashlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

import imagier.models
from imagier.config.check import Config, check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.data.loading.loader import Loader
from imagier.recipe import Batch, Position
from imagier.run import build_data, build_training
from imagier.train import runtime as runtimes
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

FOLDER = Path(__file__).parent
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
METHODS = sorted(
    module.name
    for module in pkgutil.iter_modules(imagier.models.__path__)
    if "Recipe" in vars(import_module(f"imagier.models.{module.name}"))
)
"""Every module of imagier.models that has a recipe of its own."""

OWN = {"one_player": "contract.one_player"}
"""Experiments of methods that lie outside the package, and their types."""

SIZE = 32
SAMPLES = 8
CPU = Runtime(torch.device("cpu"))


def config_of(name: str, data: Path, *overrides: str) -> Config:
    """The checked config of an experiment on the data in a folder."""
    path = FOLDER / f"{name}.yaml"
    augmentations = f"{{resize_h_w: '{SIZE}, {SIZE}', random_crop_h_w: '{SIZE}, {SIZE}', horizontal_flip: true}}"
    players = yaml.safe_load(path.read_text()).keys() - {"trainer", "data"}
    words = [
        f"data.train={{roots: ['{data}'], batch_size: 2, augmentations: {augmentations}}}",
        *(f"{player}_opt={{type: adam, lr: 1e-3, adam_beta1: 0.5}}" for player in sorted(players)),
    ]
    document = load(path, [*words, *overrides])
    assert translate_legacy(document) == [], "no key of these is dropped"
    return check(document)


def write_data(folder: Path) -> Path:
    """Images of every input type that an experiment names, of two classes (folders), under the same names."""
    rng = np.random.default_rng(0)
    images = ("images", "images_a", "images_b", "images_content", "images_style")
    for kind in (*images, "seg_maps", "instance_maps"):
        for index in range(SAMPLES):
            small = rng.integers(0, 4 if kind not in images else 256, (4, 4, 3), np.uint8)
            how = cv2.INTER_CUBIC if kind in images else cv2.INTER_NEAREST
            image = cv2.resize(small, (SIZE, SIZE), interpolation=how)
            path = folder / kind / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image if kind in images else image[..., 0])
    for index in range(SAMPLES):
        path = folder / "unprojections" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 6, (SIZE, SIZE, 3), np.uint16))
    return folder


def trainer_of(config: Config, runtime: Runtime = CPU, seed: int = 0) -> Trainer:
    """A new trainer of an experiment."""
    recipe = build_training.build_recipe(config, runtime, seed)
    recipe.train()
    players = build_training.build_players(config, recipe, runtime)
    return Trainer(recipe, players, runtime, seed=seed, accumulate=config.trainer.accumulate)


def loader_of(config: Config, runtime: Runtime = CPU) -> Loader:
    """Its training data."""
    return build_data.build_train_loader(config, runtime, seed=0)


def batch_of(config: Config, runtime: Runtime = CPU) -> Batch:
    """Its first batch, as the loader gives it."""
    return next(loader_of(config, runtime).stream(Position()))[0]


def train(trainer: Trainer, config: Config, steps: int) -> None:
    """Some steps more, on the data that follow."""
    stream: Iterator[tuple[Batch, Position]] = loader_of(config, trainer.runtime).stream(trainer.position)
    for _ in range(steps):
        batch, position = next(stream)
        trainer.train_step(batch)
        trainer.step, trainer.position = trainer.step + 1, position


def digest(states: Iterable[dict]) -> str:
    """A hash of every bit of some state dicts."""
    hasher = hashlib.sha256()
    for state in states:
        for name, tensor in state.items():
            hasher.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def main() -> None:
    """Trains every experiment on the data of <folder>/data and writes <folder>/<name>_<rank>.txt."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(FOLDER.parent))  # for `contract.one_player`
    folder = Path(sys.argv[1])
    runtime = runtimes.start("cpu", single=False, local_rank=None)
    for name in EXPERIMENTS:
        config = config_of(name, folder / "data")
        trainer = trainer_of(config, runtime)
        before = digest(network.state_dict() for network in trainer.recipe.networks.values())
        train(trainer, config, 3)
        states = [player.network.state_dict() for player in trainer.players.values()]
        states += [player.average.network.state_dict() for player in trainer.players.values() if player.average]
        (folder / f"{name}_{runtime.rank}.txt").write_text(f"{before}\n{digest(states)}\n")
    runtimes.stop(runtime)


if __name__ == "__main__":
    main()
