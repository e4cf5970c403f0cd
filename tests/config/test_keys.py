"""Every key of the reference's configs: accepted and used, or dropped with a line, or refused with a reason."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_config import errors, read, write

import imagier
from imagier.config import schema
from imagier.config.augmentation_keys import AugmentationKeys
from imagier.data.augmentation.augment import Augmenter

TEST = (
    "test_data={input_types: [a: {ext: png, num_channels: 4}], input_labels: [a], "
    "test: {roots: [x], augmentations: {resize_h_w: '8, 8'}}}"
)
LINEAR = "{type: linear, decay_start: 3, decay_end: 9, decay_target: 0.1}"

# key: a value that is not its default; where it needs others, these before it
ACCEPTED: dict[str, str | list[str]] = {
    "logging_iter": "7",
    "image_save_iter": "7",
    "image_display_iter": "7",
    "snapshot_save_iter": "7",
    "snapshot_save_start_iter": "7",
    "snapshot_save_epoch": "7",
    "snapshot_save_start_epoch": "7",
    "metrics_iter": "7",
    "metrics_epoch": "7",
    "max_iter": "7",
    "max_epoch": "7",
    "speed_benchmark": "true",
    "pretrained_weight": "abc",
    "inference_args": "{random_style: true}",
    "cudnn.deterministic": "true",
    "cudnn.benchmark": "false",
    "trainer.type": "spade",
    "trainer.model_average_config.enabled": "true",
    "trainer.model_average_config.beta": "0.5",
    "trainer.model_average_config.start_iteration": "7",
    "trainer.model_average_config.num_batch_norm_estimation_iterations": "7",
    "trainer.model_average_config.remove_sn": "false",
    "trainer.model_average_config.g_smooth_img": "1000",
    "trainer.init.type": "orthogonal",
    "trainer.init.gain": "0.5",
    "trainer.init.bias": "{type: normal, gain: 0.1}",
    "trainer.gan_mode": "softplus",
    "trainer.gan_relativistic": "true",
    "trainer.gan_decay_k": "0.9",
    "trainer.gan_min_k": "0.5",
    "trainer.gan_separate_topk": "true",
    "trainer.gen_step": "2",
    "trainer.dis_step": "2",
    "trainer.loss_weight.gan": "7.5",
    "trainer.loss_weight.feature_matching": "7.5",
    "trainer.loss_weight.kl": "7.5",
    "trainer.loss_weight.perceptual": "7.5",
    "trainer.perceptual_loss": "{mode: vgg19, layers: [relu_1_1], weights: [1.5], fp16: true}",
    "trainer.amp_config.enabled": "true",
    "trainer.amp_config.init_scale": "8",
    "trainer.amp_config.growth_factor": "3",
    "trainer.amp_config.backoff_factor": "0.25",
    "trainer.amp_config.growth_interval": "7",
    "trainer.channels_last": "true",
    "trainer.strict_resume": "false",
    "trainer.image_to_tensorboard": "false",
    "gen.type": "spade",
    "gen.num_filters": "7",
    "gen.kernel_size": "5",
    "gen.weight_norm_type": "weight",
    "gen.style_dims": "7",
    "gen.attribute_dims": "7",
    "gen.skip_activation_norm": "false",
    "gen.activation_norm_params.num_filters": "7",
    "gen.activation_norm_params.kernel_size": "5",
    "gen.activation_norm_params.activation_norm_type": "batch",
    "gen.activation_norm_params.separate_projection": "true",
    "gen.activation_norm_params.activation_norm_params.affine": "false",
    "gen.activation_norm_params.weight_norm_type": "spectral",
    "gen.activation_norm_params.bias_only": "true",
    "gen.activation_norm_params.interpolation": "bilinear",
    "gen.global_adaptive_norm_type": "batch",
    "gen.use_posenc_in_input_layer": "false",
    "gen.output_multiplier": "2.5",
    "gen.style_enc.num_filters": "7",
    "gen.style_enc.kernel_size": "5",
    "gen.style_enc.weight_norm_type": "weight",
    "dis.type": "spade",
    "dis.kernel_size": "5",
    "dis.num_filters": "7",
    "dis.max_num_filters": "7",
    "dis.num_discriminators": "3",
    "dis.num_layers": "4",
    "dis.activation_norm_type": "batch",
    "dis.weight_norm_type": "none",
    "dis.use_fpse": "false",
    "dis.fpse_kernel_size": "5",
    "dis.fpse_activation_norm_type": "batch",
    **{
        f"{optimizer}_opt.{key}": value if type_ is None else [f"{optimizer}_opt.type={type_}", value]
        for optimizer in ("gen", "dis")
        for key, (value, type_) in {
            "type": ("sgd", None),
            "lr": ("0.5", None),
            "betas": ("[0.25, 0.75]", None),
            "eps": ("0.5", None),
            "momentum": ("0.5", "sgd"),
            "weight_decay": ("0.5", "rmsprop"),
            "clip_grad_norm": ("2.5", None),
            "lr_policy.iteration_mode": ("true", None),
            "lr_policy.type": ("constant", None),
            "lr_policy.step_size": ("7", None),
            "lr_policy.gamma": ("0.5", None),
            "lr_policy": (LINEAR, None),
        }.items()
    },
    "gen_opt.g_bound": ["gen_opt.type=madam", "gen_opt.scale=3", "10"],
    "dis_opt.scale": ["dis_opt.scale=2", "dis_opt.type=madam", "3"],
    "gen_opt.skip_grad": ["gen_opt.clip_grad_norm=1", "true"],
    "dis_opt.type": ["dis_opt.scale=3", "madam"],
    "dis_opt.skip_grad": ["dis_opt.clip_grad_norm=1", "true"],
    "data.name": "seven",
    "data.type": "paired_images",
    "data.num_workers": "7",
    "data.persistent_workers": "true",
    "data.input_types.0.images.ext": "jpg",
    "data.input_types.0.images.num_channels": "1",
    "data.input_types.0.images.normalize": ["data.input_types.0.images.ext=tif", "false"],
    "data.input_types.0.images.is_mask": "true",
    "data.input_image": "[images]",
    "data.input_labels": ["data.input_types.0.maps={ext: png, num_channels: 1}", "[maps, seg_maps]"],
    "data.one_hot_num_classes": "{seg_maps: 7}",
    "data.use_dont_care": "true",
    "data.full_data_ops": "make_one_hot, concat_labels",
    "data.keypoint_data_types": ["data.input_types.0.marks={ext: json, pre_aug_ops: decode_json}", "[marks]"],
    "data.reduced_jpeg": "true",
    "data.background": "[0, 128, 255]",
    "data.interpolator": "INTER_AREA",
    "data.on_error": "skip",
    "data.val_data_loader_not_distributed": "true",
    "data.cache": ["data.val.dataset_type=object_store", "{root: x, size_GB: 1.5}"],
    "data.storage_options": [
        "data.val={dataset_type: object_store, roots: ['gs://a/b'], augmentations: {resize_h_w: '32, 32'}}",
        "{token: anon, project: mine}",
    ],
    "data.aws_credentials_file": [
        "data.train={dataset_type: object_store, roots: [a], augmentations: {resize_h_w: '32, 32'}}",
        "x.json",
    ],
    "data.train.roots": "[a, b]",
    "data.train.shuffle": "shards",
    "data.train.root_weights": ["data.train.roots=[a, b]", "[0.5, 2.0]"],
    "data.train.batch_size": "7",
    "data.train.dataset_type": "shards",
    "data.val.dataset_type": "lmdb",
    "data.train.is_lmdb": "true",
    "data.val.type": [
        "data.val.input_types=[images: {ext: png, normalize: true}, seg_maps: {ext: png, is_mask: true}]",
        "data.val.input_image=[images]",
        "unpaired_images",
    ],
    **{
        f"data.train.augmentations.{key}": value
        for key, value in {
            "rotate": "7",
            "random_rotate_90": "true",
            "random_scale_limit": "0.5",
            "random_resize_h_w_aspect": "8, 8, (1, 2)",
            "center_crop_h_w": "32, 32",
            "horizontal_flip": "false",
            "contrast": "{brightness_limit: [0.5, 1.5], contrast_limit: 0.5, p: 0.5}",
            "blur": "{blur_limit: 7, p: 0.5}",
            "motion_blur": "{blur_limit: [3, 7], p: 0.5}",
            "compression": "{quality_lower: 50, p: 0.5}",
            "gamma": "{gamma_limit_lb: 80, gamma_limit_ub: 120, p: 0.5}",
        }.items()
    },
    "data.val.augmentations": "{resize_smallest_side: 64}",
    "test_data.name": [TEST, "seven"],
    "test_data.num_workers": [TEST, "7"],
    "test_data.test.batch_size": [TEST, "7"],
    "test_data.test.roots": [TEST, "[a]"],
}


@pytest.mark.parametrize("key", ACCEPTED)
def test_a_key_is_accepted_and_its_value_arrives(tmp_path: Path, key: str) -> None:
    *before, value = [ACCEPTED[key]] if isinstance(ACCEPTED[key], str) else ACCEPTED[key]
    config, notes = read(write(tmp_path), *before, f"{key}={value}")
    assert notes == []
    node: Any = config.to_dict()
    for part in key.split("."):
        node = node[int(part) if part.isdecimal() else part]
    expected = yaml.safe_load(value)
    if isinstance(expected, dict):
        node = {name: node[name] for name in expected}
    assert node == expected


# key: (a value that says something, the reason), where a line is printed and the run goes on
RETIRED = {
    "aws_credentials_file": "x.json",
    "data.aws_credentials_file": "x.json",
    "data.cache": "{root: x, size_GB: 1}",
    "common": "{a: 1}",
    "source_filename": "x.yaml",
    "logdir": "x",
    "date_uid": "x",
    "local_rank": "1",
    "trainer.hparam_to_tensorboard": "true",
    "trainer.distributed_data_parallel": "apex",
    "trainer.delay_allreduce": "false",
    "trainer.amp_gp": "true",
    "trainer.distributed_data_parallel_params": "{find_unused_parameters: true}",
    "trainer.val_sample_size": "1",
    "trainer.kid_num_subsets": "1",
    "trainer.eval_network": "[x]",
    "trainer.use_kid": "false",
    "trainer.use_fid": "true",
    "trainer.kid_sample_size": "1",
    "trainer.kid_subset_size": "1",
    "trainer.perceptual_mode": "vgg19",
    "trainer.perceptual_layers": "relu_4_1",
    "trainer.gan_recon": "true",
    "trainer.aug_policy": "color",
    "gen.version": "2",
    "gen.activation_norm_params.cond_dims": "3",
    "gen_opt.fused_opt": "true",
    "dis_opt.fused_opt": "true",
    "data.paired": "false",
    "data.num_classes": "7",
    "gen_opt.momentum": "0.5",
    "gen_opt.weight_decay": "0.5",
    "gen_opt.scale": "3",
    "gen_opt.g_bound": "10",
    "gen_opt.lr_policy.decay_start": "7",
    "dis_opt.lr_policy.decay_target": "0.5",
    "data.val.drop_last": "true",
    "data.train.initial_sequence_length": "4",
    "data.val.max_sequence_length": "16",
    "data.train.augmentations.max_time_step": "2",
    "data.input_types.0.images.use_dont_care": "true",
    "data.input_types.0.images.interpolator": "INTER_AREA",
}


@pytest.mark.parametrize("key", RETIRED)
def test_a_key_without_effect_is_dropped_with_a_line(tmp_path: Path, key: str) -> None:
    config, notes = read(write(tmp_path), f"{key}={RETIRED[key]}")
    assert len(notes) == 1
    assert notes[0].startswith(f"command line: {key}: ")
    assert config == read(write(tmp_path))[0]


REFUSED = {
    "gen.image_channels": "1",
    "gen.num_labels": "1",
    "gen.activation_norm_params.partial": "true",
    "dis.image_channels": "1",
    "dis.num_labels": "1",
    "gen_opt.type": "lion",
    "gen.type": "imaginaire.generators.dummy",
    "dis.type": "imaginaire.discriminators.dummy",
    "data.type": "imaginaire.datasets.dummy",
    "data.input_types.0.images.computed_on_the_fly": "true",
    "data.input_types.0.images.pre_aug_ops": "decode_json",
    "data.input_types.0.images.post_aug_ops": "a::b",
    "data.full_data_post_aug_ops": "a::b",
    "data.full_data_ops": "a::b",
    "data.input_few_shot_labels": "[a]",
    "data.output_h_w": "8, 8",
    "data.initial_few_shot_K": "1",
    "data.num_frames_G": "2",
    "data.num_frames_D": "2",
    "data.has_foreground": "true",
    "data.for_pose_dataset": "{pose_type: open}",
    "data.first_last_only": "true",
    "data.sample_far_frames_more": "true",
    "data.train.individual_video_frame_augmentations": "{random_scale_limit: 0.1}",
    "data.train.augmentations.resize_smallest_side": "64",
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_cannot_be_honored_is_refused_with_a_reason(tmp_path: Path, key: str) -> None:
    lines = errors(write(tmp_path), f"{key}={REFUSED[key]}")
    about = [line for line in lines if f": {key}" in line or key.endswith("resize_smallest_side")]
    assert about
    assert not any("unknown key" in line for line in lines)


@pytest.mark.parametrize("key", ["data.is_lmdb", "data.roots", "gen.cond_dims", "trainer.lr", "hue", "optimizer"])
def test_what_never_was_a_key_is_unknown(tmp_path: Path, key: str) -> None:
    assert any(f"{key}: unknown key" in line for line in errors(write(tmp_path), f"{key}=1"))


def test_every_key_of_the_schema_is_read_by_the_code_or_ruled_on() -> None:
    """An attribute of that name is looked up somewhere outside the files that only pass keys on."""
    package = Path(imagier.__file__).parent
    names = ("schema", "check", "legacy", "json_schema", "describe", "type_words", "find_keys")
    passing_on = {package / "config" / f"{name}.py" for name in names} | {package / "tools" / "keys_page.py"}
    read_names = {
        node.attr
        for path in package.rglob("*.py")
        if path not in passing_on
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    sections = [item for item in vars(schema).values() if getattr(item, "__module__", "") == schema.__name__]
    keys = {f.name for section in sections if dataclasses.is_dataclass(section) for f in dataclasses.fields(section)}
    assert {"lr_policy", "interpolator", "augmentations"} < keys
    assert keys - read_names == set()


@pytest.mark.parametrize("key", sorted(AugmentationKeys.__annotations__.keys() - {"horizontal_flip", "max_time_step"}))
def test_every_augmentation_of_the_schema_is_carried_out(key: str) -> None:
    value = ACCEPTED.get(f"data.train.augmentations.{key}", "8, 8")
    assert isinstance(value, str)
    augmenter = Augmenter({"random_crop_h_w": "4, 4", key: yaml.safe_load(value)})
    sizes = [augmenter.target_size((32, 48)), Augmenter({"random_crop_h_w": "4, 4"}).target_size((32, 48))]
    assert key in [name for name, _ in augmenter.ops] or sizes[0] != sizes[1]
