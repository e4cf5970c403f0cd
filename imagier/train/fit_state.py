"""Makes a checkpoint's tensors those of the networks of a config, and says what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imagier.errors import UserError
from imagier.train.finite import find_nonfinite, is_finite

MOST_NAMES = 4
"""Longer lists of tensors are summarized by what their names have in common."""

MOST_LINES = 3
"""Lines about what does not fit that an error holds."""


def fit_state(
    state: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    averages: Mapping[str, nn.Module],
    path: Path,
    *,
    strict: bool,
) -> tuple[dict[str, Any], list[str]]:
    """A checkpoint's state with exactly the tensors that the networks and averages of some players have.

    Missing tensors keep their values, and so do the parts that a smaller one of the file does not have. Also returns
    lines about everything that did not match; UserError with these if `strict`, or if all players are missing. A
    missing player alone is no error. UserError if a number is not finite.
    """
    players, misfits = dict(state["players"]), []
    absent = [name for name in networks if name not in players]
    if len(absent) == len(networks):
        raise UserError(f"has no player {' or '.join(absent)}", where=path, code="missing-player")
    for name in [name for name in networks if name in players]:
        players[name] = saved = dict(players[name])
        if "optimizer" in saved:
            saved["optimizer"] = _drop_moments(saved["optimizer"], networks[name], saved["network"])
        found: list[str] = []
        if saved["network"] or "average" not in saved:  # a bundle has the average alone
            _check_finite(networks[name], saved["network"], name, path)
            saved["network"], found = _fit_network(networks[name], saved["network"], name)
        if name in averages and "average" in saved:
            what = f"the average of {name}"
            _check_finite(averages[name], saved["average"]["network"], what, path)
            network, of_average = _fit_network(averages[name], saved["average"]["network"], what)
            saved["average"] = {**saved["average"], "network": network}
            found = found or of_average  # of the average they are the same once more
        misfits += found
    if misfits and strict:
        raise UserError(f"does not fit this config: {_join_lines(misfits)}", where=path, code="checkpoint-mismatch")
    misfits = [f"has no player {name}" for name in absent] + misfits
    return {**state, "players": players}, [f"{path.name}: {misfit}" for misfit in misfits]


def _fit_network(network: nn.Module, found: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], list[str]]:
    """What a network takes of the tensors that were found, and lines about the others."""
    own = network.state_dict()
    resized = [name for name in own if name in found and found[name].shape != own[name].shape]
    misfits = []
    for names, kind in (
        ([name for name in found if name not in own], "unexpected keys"),
        ([name for name in own if name not in found], "missing keys"),
    ):
        if names:
            misfits.append(f"{what}: {kind} {summarize_names(names)}{_name_cause(names, what)}")
    if resized:
        first, more = resized[0], f" and {len(resized) - 1} more" if len(resized) > 1 else ""
        sizes = f"{list(found[first].shape)} in the file, {list(own[first].shape)} here"
        misfits.append(f"{what}: size mismatch for {first}{more}: {sizes}")
    fitted = {name: _fit_tensor(found.get(name, tensor), tensor) for name, tensor in own.items()}
    return fitted, misfits


def _check_finite(network: nn.Module, found: Mapping[str, Tensor], what: str, path: Path) -> None:
    """UserError if a network would take a number that is not finite, but for masks, which are -inf by design."""
    own = {name: tensor for name, tensor in network.state_dict().items() if is_finite([tensor])}
    if broken := find_nonfinite({name: found[name] for name in own if name in found}):
        what = f"{what}: {broken} holds numbers that are not finite"
        raise UserError(what, where=path, advice="take an earlier checkpoint", code="not-finite")


def _drop_moments(optimizer: dict[str, Any], network: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state of an optimizer without that of the weights whose shape has changed, which begin anew."""
    changed = {
        number
        for number, (name, weight) in enumerate(network.named_parameters())
        if name in found and found[name].shape != weight.shape
    }
    state = optimizer.get("state", {})
    return {**optimizer, "state": {number: of for number, of in state.items() if number not in changed}}


def _fit_tensor(found: Tensor, own: Tensor) -> Tensor:
    """A tensor of the shape of `own`: what was found, where that has other lengths in one dimension the part in common.

    That dimension is a number of classes or channels; new ones, after the old ones, keep the values of `own`.
    """
    if found.shape == own.shape:
        return found
    if found.dim() != own.dim() or sum(a != b for a, b in zip(found.shape, own.shape)) > 1:
        return own
    common = tuple(slice(min(a, b)) for a, b in zip(found.shape, own.shape))
    fitted = own.detach().clone()
    fitted[common] = found[common].to(own.device, own.dtype)
    return fitted


def _name_cause(names: Sequence[str], what: str) -> str:
    """The key that decides whether there are such tensors, if all have the same cause."""
    if not all(".spectral." in f".{name}" for name in names):
        return ""
    of_average = what.startswith("the average")
    return " (trainer.model_average_config.remove_sn)" if of_average else f" ({what}: weight_norm_type: spectral)"


def _join_lines(lines: Sequence[str]) -> str:
    """A few lines in one; of more, only their number is said."""
    more = f"; and {len(lines) - MOST_LINES} more differences" if len(lines) > MOST_LINES else ""
    return "; ".join(lines[:MOST_LINES]) + more


def summarize_names(names: Sequence[str]) -> str:
    """Names of tensors for people: all of them if they are few, else what they have in common."""
    shown = list(names)
    for parts in (3, 2, 1):
        if len(shown) <= MOST_NAMES:
            break
        groups = Counter(".".join(name.split(".")[:parts]) for name in names)
        shown = [group if group in names else f"{group}.* ({count})" for group, count in groups.items()]
    more = f", and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
    return ", ".join(shown[:MOST_NAMES]) + more
