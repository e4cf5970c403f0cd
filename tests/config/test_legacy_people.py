"""The reference's spellings of key points and few-shot clips: what becomes of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reference_videos import CROP, FACE, FEW_SHOT_FACE_TEST, SECTIONS, write_config
from small_config import read

from imagier.config import schema
from imagier.config.load import ConfigError
from imagier.data.datasets.paired_few_shot_videos import NormalizeParams


def config_of(folder: Path, name: str, *overrides: str, **options: Any) -> tuple[schema.Run, list[str]]:
    (folder / "video.yaml").write_text(write_config(name, "somewhere", **options))
    config, notes = read(folder / "video.yaml", *overrides)
    return config.run, notes


def codes(folder: Path, name: str, *overrides: str, **options: Any) -> list[tuple[str, str]]:
    """Place and code of all mistakes."""
    with pytest.raises(ConfigError) as caught:
        config_of(folder, name, *overrides, **options)
    return [(error.where.partition(": ")[2], error.code) for error in caught.value.errors]


def input_type(data: schema.Data, name: str) -> schema.InputType:
    return {name: options for entry in data.input_types for name, options in entry.items()}[name]


@pytest.mark.parametrize("name", SECTIONS)
def test_data_sections_of_the_unit_tests_are_accepted_unchanged(tmp_path: Path, name: str) -> None:
    run, notes = config_of(tmp_path, name)
    places = [note.partition(": ")[2].partition(":")[0] for note in notes]
    expected = ["unprojections", "flow_network"] if name == "world" else ["flow_network"]
    assert [place for place in places if not place.startswith(("trainer.", "gen."))] == expected
    assert run.data.keypoint_data_types == []


@pytest.mark.parametrize("name", SECTIONS)
def test_what_they_say_here_can_be_written_and_read_again(tmp_path: Path, name: str) -> None:
    (tmp_path / "video.yaml").write_text(
        write_config(name, "somewhere", test_data=FEW_SHOT_FACE_TEST * (name == "few_shot_face"))
    )
    config, _ = read(tmp_path / "video.yaml")
    (tmp_path / "dumped.yaml").write_text(config.dump())
    assert read(tmp_path / "dumped.yaml") == (config, [])


def test_people_are_drawn_by_the_codec_of_their_ops(tmp_path: Path) -> None:
    run, _ = config_of(tmp_path, "pose")
    poses = input_type(run.data, "poses-openpose")
    assert poses.type == "openpose" and poses.num_channels == 27
    assert poses.own == {
        "largest_only": False,
        "basic_points_only": False,
        "remove_face": False,
        "random_drop_prob": 0.05,
    }
    run, _ = config_of(tmp_path, "few_shot_pose")
    assert input_type(run.data, "poses-openpose").own == {
        "largest_only": True,
        "basic_points_only": True,
        "remove_face": True,
        "random_drop_prob": 0.05,
    }
    assert run.data.train is not None
    assert (run.data.train.own["crop"], run.data.train.own["output_h_w"]) == ("person", "64, 32")


def test_networks_get_what_the_section_of_poses_says_to_them_too(tmp_path: Path) -> None:
    (tmp_path / "video.yaml").write_text(write_config("few_shot_pose", "somewhere"))
    config, _ = read(tmp_path / "video.yaml")
    assert config.players["gen"].options["pose_type"] == "both"
    assert config.players["gen"].options["remove_face_labels"] is True
    assert config.recipe.options["random_drop_prob"] == 0.05


def test_faces_are_drawn_cut_out_and_at_inference_normalized(tmp_path: Path) -> None:
    pins = "{driving_seq_index: 1, few_shot_seq_index: 0, few_shot_frame_index: 2}"
    run, notes = config_of(tmp_path, "few_shot_face", test_data=FEW_SHOT_FACE_TEST, inference_args=pins)
    assert [note for note in notes if ": data" in note] == []
    face = input_type(run.data, "landmarks-dlib68")
    assert (face.type, face.own["add_upper_face"]) == ("face_landmarks", False)
    assert run.data.train is not None and run.test_data is not None and run.test_data.test is not None
    assert run.data.train.own["crop"] == "face" and run.data.train.own["normalize_landmarks"] is None
    assert input_type(run.test_data, "landmarks-dlib68").own["add_upper_face"] is True
    own = run.test_data.test.own
    assert own["normalize_landmarks"] == NormalizeParams(momentum=0.8, window=3)
    assert (own["driving_seq_index"], own["few_shot_seq_index"], own["few_shot_frame_index"]) == (1, 0, 2)
    assert run.inference_args == {}


def test_a_sequence_may_be_chosen_on_the_command_line(tmp_path: Path) -> None:
    pins = ["inference_args.driving_seq_index=3", "data.val.few_shot_seq_index=ann"]
    run, _ = config_of(tmp_path, "few_shot_face", *pins)
    assert run.data.val is not None
    assert (run.data.val.own["driving_seq_index"], run.data.val.own["few_shot_seq_index"]) == (3, "ann")


@pytest.mark.parametrize(("value", "expected"), [("8", 8), ("-1", None)])
def test_how_many_videos_are_tested_belongs_to_the_held_out_set(
    tmp_path: Path, value: str, expected: int | None
) -> None:
    run, _ = config_of(tmp_path, "street", f"trainer.num_videos_to_test={value}", "trainer.num_frames_per_video=5")
    assert run.data.val is not None
    assert (run.data.val.own["num_videos_to_test"], run.data.val.own["num_frames_per_video"]) == (expected, 5)


def test_points_of_a_face_may_have_distances(tmp_path: Path) -> None:
    overrides = [
        "data.for_face_dataset={add_distance_transform: true}",
        "data.input_types.1.landmarks-dlib68.num_channels=15",
    ]
    run, _ = config_of(tmp_path, "few_shot_face", *overrides)
    assert input_type(run.data, "landmarks-dlib68").own["add_distance_transform"] is True


@pytest.mark.parametrize("has_distances", [True, False])
def test_the_positional_encoding_of_a_face_comes_with_distances_alone(tmp_path: Path, has_distances: bool) -> None:
    options = f"{{add_distance_transform: {has_distances}, add_positional_encode: true}}"
    channels = f"data.input_types.1.landmarks-dlib68.num_channels={35 if has_distances else 1}"
    run, _ = config_of(tmp_path, "few_shot_face", f"data.for_face_dataset={options}", channels)
    assert input_type(run.data, "landmarks-dlib68").own["add_positional_encode"] is has_distances


REFUSED: list[tuple[str, str, str, str]] = [
    ("few_shot_face", "data.input_few_shot_labels=[few_shot_images]", "data.input_few_shot_labels", "not-supported"),
    ("few_shot_face", "data.output_h_w=None", "data.crop", "needs-key"),
    ("few_shot_face", "data.output_h_w=big", "data.output_h_w", "not-a-size"),
    ("few_shot_face", "data.output_h_w='0, 64'", "data.output_h_w", "not-a-size"),
    ("few_shot_face", "data.train.driving_seq_index=1", "data.train.driving_seq_index", "has-no-effect"),
    ("few_shot_face", "data.initial_few_shot_K=0", "data.initial_few_shot_K", "out-of-range"),
    ("street", f"data.full_data_ops={CROP}crop_face_from_data", "data.full_data_ops", "not-supported"),
    ("street", "data.initial_few_shot_K=1", "data.initial_few_shot_K", "not-supported"),
    (
        "few_shot_face",
        f"data.input_types.1.landmarks-dlib68.post_aug_ops=vis::{FACE}other",
        "data.input_types.1.landmarks-dlib68.post_aug_ops",
        "not-supported",
    ),
]


@pytest.mark.parametrize(("name", "override", "where", "code"), REFUSED, ids=[f"{row[0]} {row[1]}" for row in REFUSED])
def test_what_cannot_be_done_is_refused_with_its_place(
    tmp_path: Path, name: str, override: str, where: str, code: str
) -> None:
    assert (where, code) in codes(tmp_path, name, override)


def test_two_frames_of_a_video_file_are_a_clip_and_its_reference(tmp_path: Path) -> None:
    overrides = [
        "data.type=imaginaire.datasets.paired_few_shot_videos_native",
        "data.input_types=[{videos: {ext: mp4, num_channels: 3, normalize: true}}, "
        "{edges: {ext: mp4, num_channels: 1}}]",
        "data.input_image=[videos]",
        "data.input_labels=[edges]",
        "data.input_few_shot_labels=[]",
        "data.full_data_ops=None",
        "data.output_h_w=None",
        "data.keypoint_data_types=[]",
        "data.for_face_dataset=None",
        "data.train={roots: [somewhere], augmentations: {resize_h_w: '32, 32'}}",
    ]
    run, _ = config_of(tmp_path, "few_shot_face", *overrides)
    assert run.data.type == "paired_few_shot_videos" and run.data.rename_inputs == {"images": "videos"}
    assert run.data.train is not None
    own = run.data.train.own
    assert (own["initial_few_shot_K"], own["initial_sequence_length"], own["max_sequence_length"]) == (1, 1, 1)
    for key in (
        "data.first_last_only=true",
        "data.train.individual_video_frame_augmentations={random_scale_limit: 0.1}",
    ):
        assert codes(tmp_path, "few_shot_face", *overrides, key) == [(key.partition("=")[0], "not-supported")]
