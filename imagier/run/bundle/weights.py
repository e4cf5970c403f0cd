"""The weights of a bundle: written with the arguments of the generator's constructor, so that it can be built again."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

from torch import nn

from imagier.config import schema
from imagier.config.check import Config, check_options
from imagier.config.find import find
from imagier.errors import UserError
from imagier.nn.average import fold_spectral_norm
from imagier.run import build_data
from imagier.run.paths import no_such_path
from imagier.run.weights import Weights
from imagier.train.weight_file import read_weights, write_weights


def write_network(
    path: Path, network: nn.Module, config: Config, weights: Weights, *, iteration: int, epoch: int
) -> None:
    """Writes the weights of a config's generator, and what builds it. weights: which ones of a checkpoint they are."""
    component = config.players[config.generator]
    split = config.run.data.train
    assert split is not None
    facts = build_data.collect_facts(config.run.data, split)
    wanted = inspect.signature(component.cls).parameters
    arguments = {**component.options, **{name: value for name, value in facts.items() if name in wanted}}
    about = {
        "player": config.generator,
        "type": component.type,
        "arguments": json.loads(json.dumps(arguments, default=_to_plain)),
        "method": config.trainer.type,
        "weights": weights,
        "is_folded": weights == "average" and config.trainer.model_average_config.remove_sn,
        "iteration": iteration,
        "epoch": epoch,
    }
    write_weights(path, network.state_dict(), about)


def load_network(path: str | Path) -> nn.Module:
    """The generator of a bundle's .safetensors file, in eval mode: built by its constructor, no config needed.

    UserError if the file is not there, or holds no generator of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise no_such_path(path, "no such file", code="missing-checkpoint")
    tensors, facts = read_weights(path)
    cls = find(schema.player(facts["player"]), facts["type"])
    network = cls(**check_options(cls, facts["arguments"]))
    network = fold_spectral_norm(network) if facts["is_folded"] else network
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        what = f"does not fit the generator that it names ({facts['type']})"
        advice = "it was written by another version of imagier"
        raise UserError(what, where=path, advice=advice, code="checkpoint-mismatch") from error
    return network.eval().requires_grad_(False)


def _to_plain(value: Any) -> Any:
    """For JSON: the fields of a dataclass."""
    return dataclasses.asdict(value)
