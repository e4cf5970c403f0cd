"""All networks against recorded numbers: names and shapes of weights, images, scores, defaults, what 0.1.0 had."""

from __future__ import annotations

import hashlib
import inspect
import json
import struct
from pathlib import Path

import parity
import parity_clips
import pytest
import torch
from formula_vgg import write_formula_vgg19
from golden import golden

from imagier.config.check import check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.models import coco_funit, fs_vid2vid, funit, munit, pix2pixHD, spade, unit, vid2vid, wc_vid2vid
from imagier.nn.clip_discriminator import PatchParams
from imagier.nn.few_shot_flow import FewShotCombineParams, FewShotFlowParams
from imagier.nn.flow_network import CombineParams, FlowParams
from imagier.nn.frame_generator import GuidanceParams, MultiSpadeParams
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.norm import NormParams
from imagier.nn.residual_discriminator import ResidualDiscriminator
from imagier.nn.weight_generator import AttentionParams, HyperParams
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
    "vid2vid_street_a": vid2vid,
    "vid2vid_pose_a": vid2vid,
    "wc_vid2vid_a": wc_vid2vid,
    "fs_vid2vid_face_a": fs_vid2vid,
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
    parity_clips.take_label_as_given(document)
    translate_legacy(document)
    return build_training.build_untrained_recipe(check(document), Runtime(torch.device("cpu")))


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
    case.processes = [process for process in ("eval", "dis") if process in case.processes]
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


DEFAULTS: dict[type, dict[str, object]] = {
    spade.Generator: {
        "num_filters": 128,
        "kernel_size": 3,
        "weight_norm_type": "spectral",
        "style_dims": None,
        "attribute_dims": None,
        "skip_activation_norm": True,
        "global_adaptive_norm_type": "sync_batch",
        "use_posenc_in_input_layer": True,
        "output_multiplier": 1.0,
        "label_features": None,
    },
    spade.SpadeNormParams: {
        "num_filters": 128,
        "kernel_size": 3,
        "activation_norm_type": "sync_batch",
        "separate_projection": False,
        "bias_only": False,
        "weight_norm_type": None,
        "interpolation": "nearest",
    },
    spade.StyleEncoderParams: {"num_filters": 128, "kernel_size": 3, "weight_norm_type": None},
    spade.Discriminator: {
        "kernel_size": 3,
        "num_filters": 128,
        "max_num_filters": 512,
        "num_discriminators": 2,
        "num_layers": 5,
        "activation_norm_type": "none",
        "weight_norm_type": "spectral",
        "use_fpse": True,
        "fpse_kernel_size": 3,
        "fpse_activation_norm_type": "none",
    },
    spade.Recipe: {"gan_relativistic": False, "gan_decay_k": 1.0, "gan_min_k": 1.0, "gen_step": 1, "dis_step": 1},
    pix2pixHD.GlobalGeneratorParams: {"num_filters": 64, "num_downsamples": 4, "num_res_blocks": 9},
    pix2pixHD.LocalEnhancerParams: {"num_enhancers": 1, "num_res_blocks": 3},
    pix2pixHD.EncoderParams: {
        "num_filters": 64,
        "num_downsamples": 4,
        "weight_norm_type": "none",
        "activation_norm_type": "instance",
        "padding_mode": "reflect",
        "num_clusters": 10,
    },
    pix2pixHD.Generator: {
        "weight_norm_type": "none",
        "activation_norm_type": "instance",
        "padding_mode": "reflect",
        "is_cityscapes": False,
    },
    pix2pixHD.Discriminator: {
        "kernel_size": 3,
        "num_filters": 128,
        "max_num_filters": 512,
        "num_discriminators": 2,
        "num_layers": 5,
        "activation_norm_type": "none",
        "weight_norm_type": "spectral",
    },
    pix2pixHD.Recipe: {"gan_relativistic": False, "gan_decay_k": 1.0, "gan_min_k": 1.0, "gen_step": 1, "dis_step": 1},
    unit.Generator: {
        "num_filters": 64,
        "max_num_filters": 256,
        "num_res_blocks": 4,
        "num_downsamples_content": 2,
        "num_image_channels": 3,
        "content_norm_type": "instance",
        "decoder_norm_type": "instance",
        "weight_norm_type": "none",
        "output_nonlinearity": "none",
        "pre_act": False,
        "apply_noise": False,
    },
    unit.Discriminator: {
        "patch_dis": True,
        "num_image_channels": 3,
        "num_filters": 64,
        "max_num_filters": 512,
        "num_layers": 4,
        "activation_norm_type": "none",
        "weight_norm_type": "none",
    },
    unit.Recipe: {"gen_step": 1, "dis_step": 1},
    munit.Generator: {
        "num_filters": 64,
        "max_num_filters": 256,
        "num_filters_mlp": 256,
        "latent_dim": 8,
        "num_res_blocks": 4,
        "num_mlp_blocks": 2,
        "num_downsamples_style": 4,
        "num_downsamples_content": 2,
        "num_image_channels": 3,
        "content_norm_type": "instance",
        "style_norm_type": "none",
        "decoder_norm_type": "instance",
        "decoder_norm_params": NormParams(affine=False),
        "weight_norm_type": "none",
        "output_nonlinearity": "none",
        "pre_act": False,
        "apply_noise": False,
    },
    munit.Discriminator: {
        "patch_wise": True,
        "num_image_channels": 3,
        "num_filters": 64,
        "max_num_filters": 512,
        "num_layers": 4,
        "activation_norm_type": "none",
        "weight_norm_type": "none",
    },
    munit.Recipe: {"gan_recon": False, "aug_policy": "", "gen_step": 1, "dis_step": 1},
    ResidualDiscriminator: {
        "num_filters": 64,
        "max_num_filters": 512,
        "num_layers": 4,
        "first_kernel_size": 1,
        "padding_mode": "zeros",
        "activation_norm_type": "none",
        "weight_norm_type": "none",
        "aggregation": "conv",
        "order": "pre_act",
        "anti_aliased": False,
    },
    funit.Generator: {
        "num_filters": 64,
        "num_filters_mlp": 256,
        "style_dims": 64,
        "num_res_blocks": 2,
        "num_mlp_blocks": 3,
        "num_downsamples_style": 4,
        "num_downsamples_content": 2,
        "num_image_channels": 3,
        "weight_norm_type": "none",
    },
    coco_funit.Generator: {
        "num_filters": 64,
        "num_filters_mlp": 256,
        "style_dims": 64,
        "usb_dims": 1024,
        "num_res_blocks": 2,
        "num_mlp_blocks": 3,
        "num_downsamples_style": 4,
        "num_downsamples_content": 2,
        "num_image_channels": 3,
        "weight_norm_type": "none",
    },
    funit.Discriminator: {
        "num_image_channels": 3,
        "num_classes": 119,
        "num_filters": 64,
        "max_num_filters": 1024,
        "num_layers": 6,
        "padding_mode": "reflect",
        "weight_norm_type": "none",
    },
    funit.Recipe: {"aug_policy": "", "gen_step": 1, "dis_step": 1},
    vid2vid.Generator: {
        "num_layers": 7,
        "num_downsamples_img": 4,
        "num_filters": 32,
        "max_num_filters": 1024,
        "kernel_size": 3,
        "style_dims": 256,
        "use_segmap_as_input": False,
        "weight_norm_type": "spectral",
        "remove_face_labels": False,
    },
    wc_vid2vid.Generator: {
        "num_layers": 7,
        "num_downsamples_img": 4,
        "num_filters": 32,
        "max_num_filters": 1024,
        "kernel_size": 3,
        "style_dims": 256,
        "use_segmap_as_input": False,
        "weight_norm_type": "spectral",
    },
    GuidanceParams: {"partial_conv": False, "only_with_flow": False, "start_from": 0},
    MultiSpadeParams: {
        "num_filters": 0,
        "kernel_size": 3,
        "activation_norm_type": "sync_batch",
        "activation_norm_params": None,
        "separate_projection": False,
        "weight_norm_type": "none",
    },
    EmbedParams: {
        "arch": "encoderdecoder",
        "num_filters": 32,
        "max_num_filters": 1024,
        "num_downsamples": 5,
        "kernel_size": 3,
        "weight_norm_type": "spectral",
        "activation_norm_type": "none",
    },
    FlowParams: {
        "num_filters": 32,
        "max_num_filters": 1024,
        "num_downsamples": 5,
        "kernel_size": 3,
        "num_res_blocks": 6,
        "flow_output_multiplier": 20,
        "activation_norm_type": "sync_batch",
        "weight_norm_type": "spectral",
        "generate_raw_output": False,
    },
    CombineParams: {"num_layers": 3},
    PatchParams: {
        "kernel_size": 4,
        "num_filters": 64,
        "max_num_filters": 512,
        "num_discriminators": 3,
        "num_layers": 3,
        "activation_norm_type": "none",
    },
    fs_vid2vid.Generator: {
        "num_frames": 2,
        "num_downsamples": 5,
        "num_filters": 32,
        "max_num_filters": 1024,
        "kernel_size": 3,
        "weight_norm_type": "spectral",
        "init_temporal": True,
        "remove_face_labels": False,
    },
    fs_vid2vid.FewShotSpadeParams: {"num_filters": 0, "kernel_size": 1},
    HyperParams: {
        "num_hyper_layers": 4,
        "num_fc_layers": 2,
        "activation_norm_type": "sync_batch",
        "weight_norm_type": "spectral",
        "hyper_block_order": "NAC",
        "attention": None,
    },
    AttentionParams: {"num_filters": 32, "num_downsamples": 2},
    FewShotFlowParams: {
        "warp_ref": True,
        "generate_raw_output": False,
        "num_filters": 32,
        "max_num_filters": 1024,
        "num_downsamples": 3,
        "kernel_size": 3,
        "num_blocks": 6,
        "flow_output_multiplier": 20,
        "sep_up_mask": False,
        "activation_norm_type": "sync_batch",
        "weight_norm_type": "spectral",
    },
    FewShotCombineParams: {"num_layers": 3},
    fs_vid2vid.Recipe: {"has_foreground": False, "random_drop_prob": 0, "reuse_gen_output": True},
    vid2vid.Recipe: {"has_foreground": False, "random_drop_prob": 0, "reuse_gen_output": True},
    NormParams: {"affine": True, "eps": 1e-5, "momentum": 0.1, "num_groups": 4, "channel_only": False},
}
"""As the description of the reference has them; a config that leaves a key out relies on it."""


@pytest.mark.parametrize("cls", DEFAULTS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_keys_that_a_config_leaves_out_have_the_references_defaults(cls: type) -> None:
    parameters = inspect.signature(cls).parameters
    assert {name: parameters[name].default for name in DEFAULTS[cls]} == DEFAULTS[cls]


def test_patch_discriminators_of_both_domains_have_the_references_defaults() -> None:
    """Three scales and kernels of 3; these options have no value of their own where the other kind is chosen."""
    for module in (unit, munit):
        made = module.Discriminator(num_filters=1, num_layers=1)
        assert made.discriminator_a.num_scales == 3
        assert made.discriminator_a.discriminators[0].layers[0].conv.kernel_size == (3, 3)
