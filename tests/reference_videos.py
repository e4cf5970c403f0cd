"""Configs of the reference's unit tests of video methods, small, as the descriptions of their schema give them."""

from __future__ import annotations

from typing import Any

import yaml

POSE, FACE = "imaginaire.utils.visualization.pose::", "imaginaire.utils.visualization.face::"
LABEL, CROP = "imaginaire.model_utils.label::", "imaginaire.model_utils.fs_vid2vid::"

STREET = f"""
name: unit_test
type: imaginaire.datasets.paired_videos
num_frames_G: 3
num_frames_D: 3
num_workers: 0
input_types:
- images: {{ext: jpg, num_channels: 3, interpolator: None, normalize: True, pre_aug_ops: None, post_aug_ops: None}}
- seg_maps:
    ext: png
    num_channels: 1
    is_mask: True
    interpolator: None
    normalize: False
    pre_aug_ops: None
    post_aug_ops: None
full_data_ops: {LABEL}make_one_hot, {LABEL}concat_labels
use_dont_care: True
one_hot_num_classes: {{seg_maps: 35}}
input_labels: [seg_maps]
input_image: [images]
train:
  roots: [ROOT]
  batch_size: 1
  initial_sequence_length: 4
  max_sequence_length: 16
  augmentations: {{resize_smallest_side: 48, horizontal_flip: False}}
val:
  roots: [ROOT]
  batch_size: 1
  augmentations: {{resize_h_w: "48, 64", horizontal_flip: False}}
"""

POSES = f"""
type: imaginaire.datasets.paired_videos
num_frames_G: 3
num_frames_D: 3
num_workers: 0
has_foreground: True
for_pose_dataset: {{pose_type: both, remove_face_labels: False, basic_points_only: False, random_drop_prob: 0.05}}
input_types:
- images: {{ext: jpg, num_channels: 3, normalize: True}}
- pose_maps-densepose: {{ext: png, num_channels: 3, is_mask: True, interpolator: None, normalize: False}}
- poses-openpose:
    ext: json
    num_channels: 27
    interpolator: None
    normalize: False
    pre_aug_ops: decode_json, convert::{POSE}openpose_to_npy
    post_aug_ops: vis::{POSE}draw_openpose_npy
full_data_ops: {LABEL}concat_labels
input_labels: [pose_maps-densepose, poses-openpose]
keypoint_data_types: [poses-openpose]
input_image: [images]
train:
  roots: [ROOT]
  batch_size: 1
  initial_sequence_length: 4
  augmentations: {{resize_smallest_side: 64, horizontal_flip: False, random_crop_h_w: "64, 32"}}
val:
  roots: [ROOT]
  batch_size: 1
  augmentations: {{resize_smallest_side: 64, horizontal_flip: False, center_crop_h_w: "64, 32"}}
"""

FEW_SHOT_FACE = f"""
type: imaginaire.datasets.paired_few_shot_videos
num_frames_G: 2
num_frames_D: 2
num_workers: 0
initial_few_shot_K: 1
for_face_dataset: {{add_upper_face: False, add_distance_transform: False, add_positional_encode: False}}
input_types:
- images: {{ext: jpg, num_channels: 3, normalize: True}}
- landmarks-dlib68:
    ext: json
    num_channels: 1
    interpolator: None
    normalize: False
    pre_aug_ops: decode_json
    post_aug_ops: vis::{FACE}connect_face_keypoints
full_data_ops: >
  {LABEL}concat_labels, {LABEL}concat_few_shot_labels, {CROP}crop_face_from_data
output_h_w: 32, 32
input_labels: [landmarks-dlib68]
input_few_shot_labels: [few_shot_landmarks-dlib68]
keypoint_data_types: [landmarks-dlib68]
input_image: [images]
train:
  roots: [ROOT]
  batch_size: 1
  initial_sequence_length: 4
  augmentations: {{resize_smallest_side: 48, horizontal_flip: False}}
val:
  roots: [ROOT]
  batch_size: 1
  augmentations: {{resize_smallest_side: 48, horizontal_flip: False}}
"""

FEW_SHOT_FACE_TEST = f"""
type: imaginaire.datasets.paired_few_shot_videos
paired: True
num_workers: 0
for_face_dataset: {{add_upper_face: True, normalize_momentum: 0.8, smooth_kernel_size: 3}}
input_types:
- images: {{ext: jpg, num_channels: 3, normalize: True}}
- landmarks-dlib68:
    ext: json
    num_channels: 1
    pre_aug_ops: decode_json
    post_aug_ops: convert::{FACE}npy_to_tensor
full_data_ops: >
  {LABEL}concat_labels, {LABEL}concat_few_shot_labels, {FACE}normalize_and_connect_face_keypoints,
  {CROP}crop_face_from_data
output_h_w: 32, 32
input_labels: [landmarks-dlib68]
input_few_shot_labels: [few_shot_landmarks-dlib68]
keypoint_data_types: [landmarks-dlib68]
input_image: [images]
test:
  is_lmdb: False
  roots: [ROOT]
  batch_size: 1
  augmentations: {{resize_smallest_side: 48, horizontal_flip: False}}
"""

FEW_SHOT_POSE = f"""
type: imaginaire.datasets.paired_few_shot_videos
num_frames_G: 2
num_frames_D: 2
num_workers: 0
initial_few_shot_K: 1
has_foreground: True
for_pose_dataset: {{pose_type: both, remove_face_labels: True, basic_points_only: True, random_drop_prob: 0.05}}
input_types:
- images: {{ext: jpg, num_channels: 3, normalize: True}}
- pose_maps-densepose: {{ext: png, num_channels: 3, is_mask: True, normalize: False}}
- poses-openpose:
    ext: json
    num_channels: 3
    normalize: False
    pre_aug_ops: decode_json, convert::{POSE}openpose_to_npy_largest_only
    post_aug_ops: vis::{POSE}draw_openpose_npy
- human_instance_maps: {{ext: png, num_channels: 1, is_mask: True, normalize: False}}
full_data_ops: {LABEL}concat_labels, {LABEL}concat_few_shot_labels, {CROP}crop_person_from_data
output_h_w: 64, 32
input_labels: [pose_maps-densepose, poses-openpose]
input_few_shot_labels: [few_shot_pose_maps-densepose, few_shot_poses-openpose]
keypoint_data_types: [poses-openpose]
input_image: [images]
train:
  roots: [ROOT]
  batch_size: 1
  initial_sequence_length: 4
  augmentations: {{resize_smallest_side: 64, horizontal_flip: False}}
val:
  roots: [ROOT]
  batch_size: 1
  augmentations: {{resize_smallest_side: 64, horizontal_flip: False}}
"""

WORLD = f"""
name: unit_test
type: imaginaire.datasets.paired_videos
num_frames_G: 3
num_frames_D: 3
num_workers: 0
input_types:
- images: {{ext: jpg, num_channels: 3, interpolator: None, normalize: True, pre_aug_ops: None, post_aug_ops: None}}
- seg_maps: {{ext: png, num_channels: 1, is_mask: True, interpolator: None, normalize: False}}
- depth_maps-megadepth: {{ext: png, num_channels: 3, interpolator: None, normalize: False}}
- unprojections:
    ext: pkl
    pre_aug_ops: None
    post_aug_ops: convert::imaginaire.model_utils.wc_vid2vid.render::decode_unprojections
full_data_ops: {LABEL}make_one_hot, {LABEL}concat_labels
use_dont_care: False
one_hot_num_classes: {{seg_maps: 5}}
input_labels: [seg_maps]
input_image: [images]
train:
  roots: [ROOT]
  batch_size: 1
  initial_sequence_length: 4
  max_sequence_length: 16
  augmentations: {{resize_h_w: "48, 64", horizontal_flip: False}}
val:
  roots: [ROOT]
  batch_size: 1
  augmentations: {{resize_h_w: "48, 64", horizontal_flip: False}}
"""

SECTIONS = {
    "street": STREET,
    "pose": POSES,
    "few_shot_face": FEW_SHOT_FACE,
    "few_shot_pose": FEW_SHOT_POSE,
    "world": WORLD,
}

TRAINING = """
image_save_iter: 1000
image_display_iter: 100
max_epoch: 20
logging_iter: 1
snapshot_save_iter: 10
snapshot_save_epoch: 20
snapshot_save_start_epoch: 1
max_iter: 10
single_frame_epoch: 0
num_epochs_temporal_step: 40
cudnn: {benchmark: True}
trainer:
  type: imaginaire.trainers.METHOD
  model_average_config: {enabled: False, beta: 0.999}
  num_videos_to_test: -1
  num_frames_per_video: -1
  distributed_data_parallel_params: {find_unused_parameters: True}
  image_to_tensorboard: True
  hparam_to_tensorboard: True
  amp_config: {enabled: False}
  gan_mode: hinge
  gan_relativistic: False
  perceptual_loss:
    mode: vgg19
    layers: [relu_1_1, relu_2_1, relu_3_1, relu_4_1, relu_5_1]
    weights: [0.03125, 0.0625, 0.125, 0.25, 1.0]
  loss_weight: {gan: 1.0, feature_matching: 10.0, temporal_gan: 1.0, perceptual: 10.0, flow: 10.0}
  init: {type: xavier, gain: 0.02}
gen_opt:
  type: adam
  fused_opt: False
  lr: 0.0001
  adam_beta1: 0.
  adam_beta2: 0.999
  lr_policy: {iteration_mode: False, type: step, step_size: 20, gamma: 0.1}
dis_opt:
  type: adam
  fused_opt: False
  lr: 0.0004
  adam_beta1: 0.
  adam_beta2: 0.999
  lr_policy: {iteration_mode: False, type: step, step_size: 20, gamma: 0.1}
dis:
  type: imaginaire.discriminators.fs_vid2vid
  image: PATCH
  temporal: {num_scales: 1, num_filters: 4, max_num_filters: 16, num_discriminators: 1, num_layers: 2,
    weight_norm_type: spectral, activation_norm_type: instance}
flow_network: {type: imaginaire.third_party.flow_net.flow_net}
"""
"""What all have in common: the keys of spec/config.md that their authors gave, and the discriminators."""

PATCH = """{num_filters: 4, max_num_filters: 16, num_discriminators: 2, num_layers: 2, weight_norm_type: spectral,
    activation_norm_type: instance}"""

PARTS = f"""
face:
  loss_weight: 10.0
  crop_func: {CROP}crop_face_from_output
  vis: {CROP}get_face_bbox_for_output
  num_filters: 4
  max_num_filters: 16
  num_discriminators: 1
  num_layers: 2
  weight_norm_type: spectral
  activation_norm_type: instance
hand:
  loss_weight: 10.0
  crop_func: {CROP}crop_hand_from_output
  vis: {CROP}get_hand_bbox_for_output
  num_filters: 4
  max_num_filters: 16
  num_discriminators: 1
  num_layers: 1
  weight_norm_type: spectral
  activation_norm_type: instance
"""
"""Discriminators of parts of people."""

EMBED = "num_filters: 4, max_num_filters: 16, num_downsamples: 3, kernel_size: 3, weight_norm_type: spectral"

GENERATOR = f"""
type: imaginaire.generators.vid2vid
num_layers: 3
num_downsamples: 2
num_downsamples_img: 2
num_filters: 4
max_num_filters: 16
kernel_size: 3
activation_norm_type: spatially_adaptive
activation_norm_params: {{activation_norm_type: instance, num_filters: 0, kernel_size: 1}}
weight_norm_type: spectral
use_segmap_as_input: True
flow:
  num_filters: 4
  max_num_filters: 16
  num_downsamples: 2
  num_res_blocks: 2
  activation_norm_type: instance
  weight_norm_type: spectral
  flow_output_multiplier: 20
  generate_raw_output: False
  multi_spade_combine: {{num_layers: 2, embed: {{use_embed: 'True', arch: unet, {EMBED}}}}}
embed: {{use_embed: 'True', arch: encoderdecoder, {EMBED}}}
"""

FEW_SHOT_GENERATOR = f"""
type: imaginaire.generators.fs_vid2vid
num_filters: 4
max_num_filters: 16
num_downsamples: 3
kernel_size: 3
activation_norm_type: spatially_adaptive
activation_norm_params: {{activation_norm_type: instance, num_filters: 0, kernel_size: 1}}
weight_norm_type: spectral
do_checkpoint: False
hyper:
  is_hyper_spade: True
  is_hyper_embed: True
  is_hyper_conv: False
  num_hyper_layers: 2
  num_fc_layers: 2
  kernel_size: 1
  activation_norm_type: instance
  weight_norm_type: spectral
  method_to_use_ref_labels: mul
  attention: {{num_filters: 4, num_downsamples: 2}}
flow:
  generate_raw_output: False
  warp_ref: True
  num_filters: 4
  max_num_filters: 16
  num_downsamples: 2
  num_res_blocks: 6
  activation_norm_type: instance
  weight_norm_type: spectral
  flow_output_multiplier: 20
  sep_prev_flow: False
  multi_spade_combine:
    num_layers: 2
    embed: {{use_embed: 'True', arch: unet, {EMBED}, sep_warp_embed: True}}
embed: {{use_embed: 'True', arch: encoderdecoder, {EMBED}}}
"""


def _method(name: str) -> dict[str, Any]:
    """All sections but data of one of them."""
    is_few_shot, is_world = name.startswith("few_shot"), name == "world"
    kind = "fs_vid2vid" if is_few_shot else "wc_vid2vid" if is_world else "vid2vid"
    tree = yaml.safe_load(TRAINING.replace("METHOD", kind).replace("PATCH", PATCH))
    tree["gen"] = yaml.safe_load(FEW_SHOT_GENERATOR if is_few_shot else GENERATOR)
    tree["gen"]["type"] = f"imaginaire.generators.{kind}"
    if is_world:
        tree["gen"]["guidance"] = {"partial_conv": True, "only_with_flow": False}
        tree["trainer"]["loss_weight"]["guidance"] = 20.0
    if name.endswith("pose"):
        parts = yaml.safe_load(PARTS)
        tree["dis"]["additional_discriminators"] = {"face": parts["face"]} if is_few_shot else parts
    return tree


def write_config(name: str, root: str, test_data: str = "", inference_args: str = "{}") -> str:
    """The text of a config with one of the sections."""
    tree = _method(name) | {"data": yaml.safe_load(SECTIONS[name].replace("ROOT", root))}
    if test_data:
        tree["test_data"] = yaml.safe_load(test_data.replace("ROOT", root))
    return yaml.safe_dump({**tree, "inference_args": yaml.safe_load(inference_args)}, sort_keys=False)
