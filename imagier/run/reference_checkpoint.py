"""Translates checkpoints of the reference to ours."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.reference_names import Rules, reference_names
from imagier.train.checkpoint import FORMAT
from imagier.train.optim import Adam, Fromage, Madam

LETTERS = {"gen": "G", "dis": "D"}
"""The reference's letter of each player that it knew."""

_WRAPPER = "module."
"""The prefix of all entries of a network; with a running average, the live ones have it twice."""

_AVERAGE, _UPDATES = "averaged_model.", "num_updates_tracked"

_STATISTICS = ("weight_u", "running_mean", "running_var", "num_batches_tracked", "kernel")

_MOMENTS: dict[type[torch.optim.Optimizer], set[str]] = {
    Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.RMSprop: {"step", "square_avg"},
    torch.optim.SGD: set(),
    Fromage: set(),
    Madam: {"step", "max", "exp_avg_sq"},
}
"""The state that each optimizer needs of every weight that it has updated."""


def translate_reference(
    state: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    averages: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    path: Path,
) -> tuple[dict[str, Any], list[str]]:
    """A checkpoint of the reference as one of ours, for the given networks, averages and optimizers by player.

    Also returns lines about what the config has no use for. A checkpoint of ours is returned as it is. Weights that
    have no place here keep the reference's names, for `fit_state` to report. UserError if optimizers or
    networks do not correspond.
    """
    if "net_G" not in state:
        return dict(state), []
    players: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for player, network in networks.items():
        letter = LETTERS.get(player)
        if letter is None or f"net_{letter}" not in state:
            continue
        weights, average, num_updates = _split_average(state[f"net_{letter}"])
        saved: dict[str, Any] = {"network": _rename(weights, network, player, path)}
        players[player] = saved
        if average and player in averages:
            network_of_average = _rename(average, averages[player], player, path)
            saved["average"] = {"network": network_of_average, "num_updates": num_updates}
        elif average:
            notes.append(f"{path.name}: holds an average of {player}, which this config does not use")
        if player in optimizers and f"opt_{letter}" in state:
            saved["optimizer"] = _translate_optimizer(
                state[f"opt_{letter}"], weights, network, optimizers[player], f"{path}: opt_{letter}"
            )
    whole = {
        "format": FORMAT,
        "current_epoch": int(state.get("current_epoch", 0)),
        "current_iteration": int(state.get("current_iteration", 0)),
        "epoch_samples": 0,  # the reference began an epoch again
        "players": players,
        "extras": {},
    }
    return whole, notes


def _split_average(entries: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """The live weights and the averaged ones (if any) without prefixes, and the number of updates of the average."""
    if all(name.startswith(_WRAPPER) for name in entries):
        entries = _strip_prefix(_WRAPPER, entries)
    if _UPDATES not in entries:
        return dict(entries), {}, 0
    return _strip_prefix(_WRAPPER, entries), _strip_prefix(_AVERAGE, entries), int(entries[_UPDATES])


def _strip_prefix(prefix: str, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in entries.items() if name.startswith(prefix)}


def _map_names(network: nn.Module, where: str) -> dict[str, str]:
    """Our state-dict names of a network -> the reference's."""
    try:
        rules: Rules = network.reference_rules()  # type: ignore[operator]
    except AttributeError as error:
        raise UserError(
            f"was written by the reference, which had no {type(network).__module__}.{type(network).__name__} (without "
            "reference_rules)",
            where=where,
            code="not-of-reference",
        ) from error
    return reference_names(network.state_dict(), rules)


def _rename(entries: Mapping[str, Tensor], network: nn.Module, player: str, path: Path) -> dict[str, Tensor]:
    ours = {theirs: name for name, theirs in _map_names(network, f"{path}: {player}").items()}
    return {ours.get(name, name): tensor for name, tensor in entries.items()}


def _translate_optimizer(
    saved: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    where: str,
) -> dict[str, Any]:
    """Moments in our order of parameters; learning rate, betas and the like come from the config."""
    names = _map_names(network, where)
    numbered = [number for group in saved["param_groups"] for number in group["params"]]
    listed = _list_optimized(weights, network, names, len(numbered))
    index = {name: number for number, name in enumerate(listed)}
    if len(saved["param_groups"]) != 1 or numbered != list(range(len(index))):
        what = f"holds the state of {len(numbered)} weights, but its network has {len(index)}"
        raise UserError(what, where=where, code="misfit-optimizer")
    kind = type(optimizer).__name__
    needed = _MOMENTS.get(type(optimizer))
    if needed is None:
        raise UserError(
            f"holds the state of another optimizer: the reference had no {kind}",
            where=where,
            advice="load the weights only (`resume=False`)",
            code="other-optimizer",
        )
    moments: dict[int, dict[str, Any]] = {}
    for ours, (name, _) in enumerate(network.named_parameters()):
        theirs = names[name]
        found = saved["state"].get(index.get(theirs))
        if not found:
            continue  # never updated, or missing
        # The fused Adam of apex counts the steps of all weights together.
        steps = {"step": saved["param_groups"][0].get("step")}
        moments[ours] = {key: value for key, value in {**steps, **found}.items() if value is not None}
        if missing := sorted(needed - moments[ours].keys()):
            raise UserError(
                f"has no {missing[0]} of {theirs}",
                where=where,
                advice=f"was it written by another optimizer than {kind}?",
                code="other-optimizer",
            )
        shapes = {key: x.shape for key, x in found.items() if key in needed - {"step", "max"}}
        if wrong := [key for key, shape in shapes.items() if shape != weights[theirs].shape]:
            what = f"{wrong[0]} of {theirs} has another shape than the weight itself"
            raise UserError(what, where=where, code="misfit-optimizer")
    return {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}


def _list_optimized(
    weights: Mapping[str, Tensor], network: nn.Module, names: Mapping[str, str], count: int
) -> list[str]:
    """The names of what an optimizer of that many weights updated: without a part that was added to the network later.

    Such a part stands last, and does not learn here either. names: ours -> theirs.
    """
    listed = list(_list_parameters(weights, _list_second_names(network, names)))
    frozen = {names[name] for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return listed[:count] if frozen.issuperset(listed[count:]) else listed


def _list_second_names(network: nn.Module, names: Mapping[str, str]) -> set[str]:
    """The reference's names of weights that have another one, too, which comes before. names: ours -> theirs."""
    named = network.named_parameters(remove_duplicate=False)
    return {names[name] for name, _ in named} - {names[name] for name, _ in network.named_parameters()}


def _list_parameters(entries: Iterable[str], again: Collection[str] = ()) -> Iterator[str]:
    """The names of what an optimizer updated, in its order: that of all entries, without what is not learned.

    again: second names of weights, which it updated once.
    """
    entries = list(entries)
    spectral = {name.removesuffix("_orig") for name in entries if name.endswith("weight_orig")}
    for name in entries:
        leaf = name.rpartition(".")[2]
        singular_vector = name.endswith("weight_v") and name.removesuffix("_v") in spectral
        if name not in again and leaf not in _STATISTICS and not leaf.startswith("cluster_") and not singular_vector:
            yield name
