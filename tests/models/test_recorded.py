"""All networks against recorded numbers: names and shapes of weights, images, scores, and what 0.1.0 had."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import parity
import pytest
import torch
from formula_vgg import write_formula_vgg19
from golden import golden

from imagier.config.check import check
from imagier.config.legacy import translate_legacy
from imagier.config.load import load
from imagier.models import coco_funit, funit, munit, pix2pixHD, spade, unit
from imagier.recipe import Recipe
from imagier.run import build_training
from imagier.train.runtime import Runtime

CASES = {
    "spade_a": spade,
    "spade_b": spade,
    "pix2pixHD_a": pix2pixHD,
    "pix2pixHD_b": pix2pixHD,
    "unit_a": unit,
    "munit_a": munit,
    "munit_patch_a": munit,
    "funit_a": funit,
    "coco_funit_a": coco_funit,
}
each_case = pytest.mark.parametrize("name", CASES)

CONFIGS = Path(__file__).parents[2] / "configs"
OF_0_1_0 = {
    "coco_funit/openmoji_tones64": {
        "gen": (266_539, "1d3d0d64785c3448"),
        "dis": (359_633, "e0fd09047659c1a8"),
    },
    "funit/openmoji_tones64": {"gen": (244_203, "cf225499e44959f8"), "dis": (359_633, "e0fd09047659c1a8")},
    "munit/openmoji_tones64": {"gen": (439_818, "4f50608bb99632f0"), "dis": (122_178, "a8952e5eacdfe64e")},
    "pix2pixHD/openmoji128": {"gen": (1_430_387, "a1d487fee9e64386"), "dis": (61_233, "39620242920cd86a")},
    "pix2pixHD/openmoji64": {"gen": (1_419_363, "893e51a2af6da430"), "dis": (61_233, "39620242920cd86a")},
    "spade/openmoji64": {"gen": (1_572_243, "e5bf9af27f3ea91a"), "dis": (61_233, "39620242920cd86a")},
    "unit/openmoji_tones64": {"gen": (200_774, "cecced655bb4c329"), "dis": (122_178, "a8952e5eacdfe64e")},
}
"""Of every config of 0.1.0 and each network: the number of parameters, and a digest of all names and shapes of its
state dict (with the names that reading a checkpoint of 0.1.0 gives them)."""


def untrained(path: Path) -> Recipe:
    document = load(path)
    translate_legacy(document)
    return build_training.untrained(check(document), Runtime(torch.device("cpu")))


def recorded_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a .safetensors file, from its header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


@each_case
def test_weights_have_the_recorded_names_and_shapes(name: str) -> None:
    recipe = untrained(golden(name, "config.yaml"))
    found = {
        f"net_{parity.NETWORKS[player]}.{theirs}": tuple(network.state_dict()[ours].shape)
        for player, network in recipe.networks.items()
        for ours, theirs in parity.names_of(network).items()
    }
    assert type(recipe.networks["gen"]).__module__ == CASES[name].__name__
    assert found == recorded_shapes(golden(name, "state.safetensors"))


@pytest.fixture(scope="session")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_formula_vgg19(tmp_path_factory.mktemp("weights") / "vgg19.pth")


@each_case
def test_images_and_scores_are_the_recorded_ones(name: str, vgg: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The quick half of tests/test_parity.py: the generator as it is used, and an update of the discriminator."""
    case = parity.Case(golden(name))
    case.processes = ["eval", "dis"]
    begins = ("eval.", "dis.", "after.dis.")
    case.expected = {key: tensor for key, tensor in case.expected.items() if key.startswith(begins)}
    passed = parity.report(case, vgg)
    assert passed, capsys.readouterr().out


@pytest.mark.parametrize("name", OF_0_1_0)
def test_networks_of_the_configs_have_the_weights_that_they_had_in_0_1_0(name: str) -> None:
    """So that old checkpoints load."""
    networks = untrained(CONFIGS / f"{name}.yaml").networks
    found = {}
    for player, network in networks.items():
        lines = (f"{key} {tuple(tensor.shape)}\n" for key, tensor in network.state_dict().items())
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
        found[player] = (sum(parameter.numel() for parameter in network.parameters()), digest)
    assert found == OF_0_1_0[name]
