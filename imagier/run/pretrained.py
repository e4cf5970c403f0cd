"""Generators of other runs that a network is partly made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from imagier.config.read import read
from imagier.errors import UserError
from imagier.nn.pretrained import Pretrained, PretrainedParams
from imagier.run.paths import no_such_path
from imagier.run.reference_checkpoint import translate_reference
from imagier.train import checkpoint
from imagier.train.fit_state import fit_state

logger = logging.getLogger(__name__)

_GEN = "gen"


def open_pretrained(params: PretrainedParams, facts: Mapping[str, Any]) -> Pretrained:
    """The generator of a config, as its constructor makes it. Draws nothing from the source of the run.

    facts: what the data of the whole say (`build_data.collect_facts`). UserError if there is no such config.
    """
    path = Path(params.config)
    if not path.is_file():
        raise no_such_path(path, "no such config", code="missing-config")
    config, _ = read(path)
    with torch.random.fork_rng(devices=[]):
        network = config.players[config.generator].build(**facts)

    def load(network: nn.Module) -> None:
        if params.checkpoint is None:
            what = "needs a checkpoint to train with"
            raise UserError(what, where="gen.single_image_model", advice="name it: checkpoint", code="needs-key")
        _load(network, Path(params.checkpoint))

    return Pretrained(network, config.players[config.generator].type, load)


def _load(network: nn.Module, path: Path) -> None:
    """The learned weights, of ours or of the reference. UserError if they do not fit."""
    if not path.is_file():
        raise no_such_path(path, "no such checkpoint", code="missing-checkpoint")
    state, _ = translate_reference(checkpoint.load(path), {_GEN: network}, {}, {}, path)
    state, _ = fit_state(state, {_GEN: network}, {}, path, strict=True)
    with checkpoint.translate_load_errors(path):
        network.load_state_dict(state["players"][_GEN]["network"])
    logger.info(f"{path}: makes the frames before there is flow")
