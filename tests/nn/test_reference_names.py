"""Our names of weights and the reference's belong together one to one."""

from __future__ import annotations

import warnings

import pytest
import torch
from golden import golden
from parity import NETWORKS, names_of
from safetensors.torch import load_file
from torch import Tensor, nn

from imagier.config.check import check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.nn.conv import Conv2d, WeightNorm, conv2d
from imagier.nn.reference_names import reference_names
from imagier.recipe import Recipe
from imagier.run import build_training
from imagier.train.runtime import Runtime

CASES = ("spade_a", "spade_b")


def untrained(case: str) -> Recipe:
    document = load(golden(case, "config.yaml"), [])
    translate_legacy(document)
    return build_training.build_untrained_recipe(check(document), Runtime(torch.device("cpu")))


def recorded_state(case: str, letter: str) -> dict[str, Tensor]:
    prefix = f"net_{letter}."
    tensors = load_file(golden(case, "state.safetensors"))
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


@pytest.mark.parametrize("player", NETWORKS)
@pytest.mark.parametrize("case", CASES)
def test_names_are_a_bijection_onto_the_recorded_keys(case: str, player: str) -> None:
    network = untrained(case).networks[player]
    names = names_of(network)
    assert names.keys() == network.state_dict().keys()
    assert sorted(names.values()) == sorted(recorded_state(case, NETWORKS[player]))


@pytest.mark.parametrize("player", NETWORKS)
@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_from_ours_to_theirs_and_back_is_bit_for_bit(case: str, player: str) -> None:
    network = untrained(case).networks[player]
    names = names_of(network)
    theirs = recorded_state(case, NETWORKS[player])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ours_as_theirs = {names[name]: tensor for name, tensor in before.items()}
    network.load_state_dict({name: theirs[reference] for name, reference in names.items()})
    after = {names[name]: tensor for name, tensor in network.state_dict().items()}
    assert all(torch.equal(after[name], theirs[name]) for name in theirs)
    network.load_state_dict({name: ours_as_theirs[reference] for name, reference in names.items()})
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def hooked(layer: nn.Module, weight_norm: WeightNorm) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old hooks are what the reference used
        if weight_norm == "spectral":
            return nn.utils.spectral_norm(layer)
        return nn.utils.weight_norm(layer) if weight_norm == "weight" else layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight_norm", ["none", "spectral", "weight"])
def test_weight_norms_have_the_keys_and_shapes_of_torchs_hooks(weight_norm: WeightNorm, bias: bool) -> None:
    ours = conv2d(3, 4, 5, bias=bias, weight_norm=weight_norm).state_dict(prefix="x.")
    theirs = hooked(Conv2d(3, 4, 5, bias=bias), weight_norm).state_dict(prefix="x.")
    names = reference_names(ours, ())
    assert {names[name]: tensor.shape for name, tensor in ours.items()} == {k: t.shape for k, t in theirs.items()}


def test_two_weights_with_one_reference_name_are_noticed() -> None:
    with pytest.raises(AssertionError, match="same reference name"):
        reference_names(["a.weight", "b.weight"], [(r"^[ab]\.", "c.")])
