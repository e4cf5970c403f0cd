"""The data sections of the reference's unit tests of video methods, as spec/data.md and ops.md give their schema."""

from __future__ import annotations

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

SECTIONS = {"street": STREET, "pose": POSES, "few_shot_face": FEW_SHOT_FACE, "few_shot_pose": FEW_SHOT_POSE}

METHOD = """
max_iter: 10
trainer:
  type: imaginaire.trainers.vid2vid
  gan_mode: hinge
  loss_weight: {gan: 1.0, feature_matching: 10.0, temporal_gan: 1.0, flow: 10.0}
gen:
  type: imaginaire.generators.vid2vid
  num_layers: 3
  num_downsamples_img: 2
  activation_norm_type: spatially_adaptive
  activation_norm_params: {activation_norm_type: instance, num_filters: 0, kernel_size: 1}
  embed: {use_embed: True, arch: encoderdecoder}
  flow: {num_res_blocks: 2, multi_spade_combine: {num_layers: 2, embed: {use_embed: 'True', arch: unet}}}
dis:
  type: imaginaire.discriminators.fs_vid2vid
  image: {num_filters: 8, activation_norm_type: instance}
flow_network: {type: imaginaire.third_party.flow_net.flow_net}
"""
"""Of a method that reads clips; the data sections stand alone."""


def write_config(name: str, root: str, test_data: str = "", inference_args: str = "{}") -> str:
    """The text of a config with one of the sections."""
    tree = yaml.safe_load(METHOD) | {"data": yaml.safe_load(SECTIONS[name].replace("ROOT", root))}
    if test_data:
        tree["test_data"] = yaml.safe_load(test_data.replace("ROOT", root))
    return yaml.safe_dump({**tree, "inference_args": yaml.safe_load(inference_args)}, sort_keys=False)
