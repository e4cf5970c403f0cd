"""The reference's spellings of video methods: what becomes of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_config import read

from imagier.config.check import Config
from imagier.config.load import ConfigError
from imagier.models import fs_vid2vid, vid2vid
from imagier.nn.clip_discriminator import CropParams, TemporalParams
from imagier.nn.flow_network import CombineParams

CONFIG = """
single_frame_epoch: 2
num_epochs_temporal_step: 40
trainer:
  type: imaginaire.trainers.vid2vid
  gan_mode: hinge
  loss_weight: {gan: 1.0, feature_matching: 10.0, temporal_gan: 1.0, flow: 10.0, L1: 3.0}
gen:
  type: imaginaire.generators.vid2vid
  num_downsamples: 4
  do_checkpoint: false
  activation_norm_type: spatially_adaptive
  activation_norm_params: {activation_norm_type: instance, num_filters: 0, kernel_size: 1}
  embed: {use_embed: True, arch: encoderdecoder}
  flow:
    num_res_blocks: 2
    multi_spade_combine: {num_layers: 2, embed: {use_embed: 'True', arch: unet}}
dis:
  type: imaginaire.discriminators.fs_vid2vid
  image: {num_filters: 8, activation_norm_type: instance}
  temporal: {num_scales: 2, num_filters: 4}
  additional_discriminators:
    face: {loss_weight: 10.0, crop_func: imaginaire.model_utils.fs_vid2vid::crop_face_from_output, vis: a::b}
    hand: {loss_weight: 5.0, crop_func: imaginaire.model_utils.fs_vid2vid::crop_hand_from_output}
flow_network: {type: imaginaire.third_party.flow_net.flow_net}
data:
  type: imaginaire.datasets.paired_videos
  num_frames_G: 4
  num_frames_D: 2
  has_foreground: true
  for_pose_dataset: {pose_type: open, remove_face_labels: true, basic_points_only: false, random_drop_prob: 0.05}
  input_types:
  - images: {ext: png, num_channels: 3, normalize: true}
  - pose_maps-densepose: {ext: png, num_channels: 3}
  - poses-openpose: {ext: png, num_channels: 27}
  input_image: [images]
  input_labels: [pose_maps-densepose, poses-openpose]
  train:
    roots: [somewhere]
    initial_sequence_length: 4
    augmentations: {resize_h_w: "512, 256"}
"""


def config_of(folder: Path, *overrides: str) -> tuple[Config, list[str]]:
    (folder / "video.yaml").write_text(CONFIG)
    return read(folder / "video.yaml", *overrides)


def codes(folder: Path, *overrides: str) -> list[tuple[str, str]]:
    """Place and code of all mistakes."""
    with pytest.raises(ConfigError) as caught:
        config_of(folder, *overrides)
    return [(error.where.partition(": ")[2], error.code) for error in caught.value.errors]


def test_a_config_of_the_reference_says_the_same_here(tmp_path: Path) -> None:
    config, notes = config_of(tmp_path)
    gen, dis, recipe = config.players["gen"].options, config.players["dis"].options, config.recipe.options
    assert (gen["num_frames"], dis["num_frames"]) == (4, 2)
    assert (gen["pose_type"], gen["remove_face_labels"]) == ("open", True)
    assert isinstance(gen["flow"].multi_spade_combine, CombineParams)
    assert gen["flow"].multi_spade_combine.embed.arch == "unet"
    assert isinstance(dis["temporal"], TemporalParams) and dis["temporal"].num_scales == 2
    crops: dict[str, CropParams] = dis["additional_discriminators"]
    assert {name: (crop.crop_func, crop.loss_weight) for name, crop in crops.items()} == {
        "face": ("face", 10.0),
        "hand": ("hand", 5.0),
    }
    assert (recipe["has_foreground"], recipe["random_drop_prob"]) == (True, 0.05)
    assert (recipe["single_frame_epoch"], recipe["num_epochs_temporal_step"]) == (2, 40)
    assert (recipe["loss_weight"].l1, recipe["loss_weight"].temporal_gan) == (3.0, 1.0)
    assert [note.partition(": ")[2].partition(":")[0] for note in notes] == ["gen.num_downsamples", "flow_network"]


def test_what_it_says_here_can_be_written_and_read_again(tmp_path: Path) -> None:
    config, _ = config_of(tmp_path)
    (tmp_path / "dumped.yaml").write_text(config.dump())
    again, notes = read(tmp_path / "dumped.yaml")
    assert (again, notes) == (config, [])


def test_no_combination_is_null_and_any_other_pose_is_both(tmp_path: Path) -> None:
    config, _ = config_of(tmp_path, "gen.flow.multi_spade_combine=False", "data.for_pose_dataset={pose_type: all}")
    assert config.players["gen"].options["flow"].multi_spade_combine is None
    assert config.players["gen"].options["pose_type"] == "both"
    without, _ = config_of(tmp_path, "data.for_pose_dataset=None")
    assert without.players["gen"].options["pose_type"] is None


REFUSED: list[tuple[str, str, str]] = [
    ("gen.embed.use_embed=False", "gen.embed.use_embed", "not-supported"),
    ("data.for_pose_dataset.basic_points_only=True", "data.for_pose_dataset", "not-supported"),
    ("gen.activation_norm_type=instance", "gen.activation_norm_type", "unknown-key"),
    ("gen.flow.warp=1", "gen.flow.warp", "unknown-key"),
    ("dis.additional_discriminators.face.kernel=3", "dis.additional_discriminators.face.kernel", "unknown-key"),
    ("dis.temporal.scales=3", "dis.temporal.scales", "unknown-key"),
    ("trainer.loss_weight.gann=1", "trainer.loss_weight.gann", "unknown-key"),
    ("data.num_frames_G=1", "gen.num_frames", "out-of-range"),
]


@pytest.mark.parametrize(("override", "where", "code"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_done_or_is_misspelled_is_refused_with_its_place(
    tmp_path: Path, override: str, where: str, code: str
) -> None:
    assert codes(tmp_path, override) == [(where, code)]


def test_keys_of_videos_stay_refused_for_a_method_that_has_none(tmp_path: Path) -> None:
    tree: dict[str, Any] = yaml.safe_load(CONFIG)
    assert "num_frames_G" in tree["data"]
    found = codes(
        tmp_path,
        "trainer={type: spade, gan_mode: hinge, loss_weight: {gan: 1, feature_matching: 1, kl: 0}}",
        "gen={type: spade}",
        "dis={type: spade}",
    )
    assert ("data.num_frames_G", "not-supported") in found and ("data.for_pose_dataset", "not-supported") in found


def test_arguments_of_the_references_inference_are_dropped_with_a_line_where_they_say_something(tmp_path: Path) -> None:
    _, before = config_of(tmp_path)
    _, notes = config_of(tmp_path, "inference_args={save_fake_only: false, seq_index: 3}")
    assert [note.partition(": ")[2].partition(":")[0] for note in notes if note not in before] == [
        "inference_args.save_fake_only",
        "inference_args.seq_index",
    ]
    assert config_of(tmp_path, "inference_args={save_fake_only: true}")[1] == before


def test_points_of_pickles_are_read_from_images_and_the_command_that_makes_them_is_named(tmp_path: Path) -> None:
    op = "convert::imaginaire.model_utils.wc_vid2vid.render::decode_unprojections"
    overrides = [
        "trainer.type=imaginaire.trainers.wc_vid2vid",
        "trainer.loss_weight.guidance=10.0",
        "gen.type=imaginaire.generators.wc_vid2vid",
        "gen.guidance={partial_conv: true, start_from: 1}",
        "gen.activation_norm_params.num_filters=[0, 0, 128]",
        "data.for_pose_dataset=None",
        "data.has_foreground=False",
        f"data.input_types.2={{unprojections: {{ext: pkl, post_aug_ops: '{op}'}}}}",
        "data.input_labels=[pose_maps-densepose]",
        "dis.additional_discriminators=None",
    ]
    config, notes = config_of(tmp_path, *overrides)
    (codec,) = [entry["unprojections"] for entry in config.run.data.input_types if "unprojections" in entry]
    assert (codec.type, codec.ext, codec.own) == ("unprojections", "png", {"cell": 1})
    assert config.players["gen"].options["guidance"].start_from == 1
    assert any("imagier data build unprojections" in note for note in notes)
    (tmp_path / "dumped.yaml").write_text(config.dump())
    assert read(tmp_path / "dumped.yaml") == (config, [])


FEW_SHOT = """
trainer:
  type: imaginaire.trainers.fs_vid2vid
  gan_mode: hinge
  loss_weight: {gan: 1.0, feature_matching: 10.0, flow: 10.0}
gen:
  type: imaginaire.generators.fs_vid2vid
  num_downsamples: 4
  activation_norm_type: spatially_adaptive
  activation_norm_params: {activation_norm_type: instance, num_filters: 0}
  hyper: {num_hyper_layers: -1, kernel_size: 3, method_to_use_ref_labels: mul_it, attention: {num_downsamples: 1}}
  embed: {use_embed: True, num_downsamples: 4}
  flow:
    warp_ref: true
    num_res_blocks: 6
    no_flow: true
    multi_spade_combine: {embed: {use_embed: True, arch: unet, sep_warp_embed: true}}
dis:
  type: imaginaire.discriminators.fs_vid2vid
  image: {num_filters: 8}
data:
  type: imaginaire.datasets.paired_videos
  num_frames_G: 2
  num_frames_D: 2
  input_types:
  - images: {ext: png, num_channels: 3, normalize: true}
  - maps: {ext: png, num_channels: 1}
  input_image: [images]
  input_labels: [maps]
  train:
    roots: [somewhere]
    initial_sequence_length: 4
    augmentations: {resize_h_w: "512, 256"}
"""


def test_few_shot_vid2vid_reads_what_the_reference_read_and_tells_the_rest(tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text(FEW_SHOT)
    config, notes = read(tmp_path / "few.yaml")
    gen = config.players["gen"].options
    assert (gen["hyper"].method_to_use_ref_labels, gen["hyper"].attention.num_downsamples) == ("mul", 1)
    assert (gen["activation_norm_params"].kernel_size, gen["flow"].num_blocks, gen["num_frames"]) == (1, 6, 2)
    assert gen["flow"].multi_spade_combine.embed.sep_warp_embed
    noted = [note.partition(": ")[2].partition(":")[0] for note in notes]
    assert noted == ["gen.hyper.kernel_size", "gen.flow.no_flow"]
    assert config.players["dis"].cls is fs_vid2vid.Discriminator
    (tmp_path / "dumped.yaml").write_text(config.dump())
    assert read(tmp_path / "dumped.yaml") == (config, [])


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("mul", "mul"), ("concat", "concat"), ("concat_mul", "concat"), ("none", "none"), ("''", "none")],
)
def test_the_use_of_labels_of_references_is_part_of_a_word(word: str, meaning: str, tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text(FEW_SHOT)
    config, _ = read(tmp_path / "few.yaml", f"gen.hyper.method_to_use_ref_labels={word}")
    assert config.players["gen"].options["hyper"].method_to_use_ref_labels == meaning
    with pytest.raises(ConfigError, match="did you mean 'mul'"):
        read(tmp_path / "few.yaml", "gen.hyper.method_to_use_ref_labels=mlu")


def test_the_one_discriminator_of_the_reference_is_that_of_the_method(tmp_path: Path) -> None:
    config, _ = config_of(tmp_path)
    assert config.players["dis"].cls is vid2vid.Discriminator
