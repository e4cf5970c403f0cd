"""Clips with frames for reference: which ones they are, how they are cut, and which sequences are read."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import png, write
from people import make_face, make_person, openpose_json
from small_data import build, codec_for

from imagier.data.codec import Codec, InputType
from imagier.data.codecs import face_landmarks, openpose
from imagier.data.datasets.paired_few_shot_videos import Dataset, NormalizeParams
from imagier.data.drawing.face import draw_face, fit_proportions
from imagier.data.loading.collate import collate
from imagier.data.loading.faults import Guarded, OnError
from imagier.data.loading.on_device import Expander
from imagier.data.sample import random_source
from imagier.data.sources.folder import FolderSource
from imagier.errors import UserError
from imagier.recipe import Batch

IMAGES = codec_for(name="images", ext="png", num_channels=3, normalize=True)
MAPS = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=200)
LANDMARKS = face_landmarks.Codec(InputType(name="landmarks-dlib68", ext="json", num_channels=1))
SIDE = 48
LENGTHS = {"a": 7, "b": 3, "c": 7, "d": 12}
AS_STORED = {"resize_h_w": f"{SIDE}, {SIDE}"}


def face_at(sequence: str, t: int) -> np.ndarray:
    """Faces of different shapes, which move to the right."""
    return make_face(18 + t, 24, 9 + "abcd".index(sequence))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In frame t of the sequence number s all pixels are 20 s + t."""
    root = tmp_path_factory.mktemp("few_shot")
    for number, (sequence, length) in enumerate(LENGTHS.items()):
        for t in range(length):
            value = 20 * number + t
            write(root / "images" / sequence / f"{t}.png", png(np.full((SIDE, SIDE, 3), value, np.uint8)))
            write(root / "maps" / sequence / f"{t}.png", png(np.full((SIDE, SIDE, 1), value, np.uint8)))
            face = json.dumps(face_at(sequence, t).tolist()).encode()
            write(root / "landmarks-dlib68" / sequence / f"{t}.json", face)
    return root


def dataset(root: Path, kinds: tuple[Codec, ...] = (IMAGES, MAPS), **options: Any) -> Dataset:
    source = FolderSource(root, {kind.name: kind.input_type.ext for kind in kinds})
    if options.get("is_training"):
        options = {"initial_sequence_length": 3, **options}
    return build(Dataset, [source], codecs=kinds, **{"augmentations": AS_STORED, **options})


def values(array: np.ndarray) -> list[int]:
    """What the frames of a clip show: 20 * sequence + frame."""
    return array.reshape(len(array), -1).max(axis=1).tolist()


# Training


@pytest.mark.parametrize("count", [1, 3])
def test_frames_for_reference_are_of_the_same_sequence_and_outside_of_the_clip(root: Path, count: int) -> None:
    clips = dataset(root, is_training=True, initial_few_shot_K=count)
    for index in range(40):
        sample = clips[0, index]
        clip, reference = values(sample.arrays["images"]), values(sample.arrays["few_shot_images"])
        assert clip == list(range(clip[0], clip[0] + 3)) and len(reference) == count
        assert reference == sorted(set(reference)) and not set(reference) & set(clip)
        assert {value // 20 for value in clip + reference} == {clip[0] // 20}
        assert values(sample.arrays["few_shot_maps"]) == reference
        assert sample.keys["few_shot_images"] == f"{'abcd'[clip[0] // 20]}/{reference[0] % 20}"


def test_the_draws_are_those_of_the_reference(root: Path) -> None:
    """First the stride, then the sequence, of those that are long enough, the start, and the frames for reference."""
    clips = dataset(
        root, is_training=True, initial_few_shot_K=2, augmentations={**AS_STORED, "max_time_step": 3}, seed=3
    )
    lengths = list(LENGTHS.values())
    for index in range(30):
        rng = random_source(3, 0, index)
        step = rng.randint(1, 3)
        span = 1 + 2 * step
        sequence = rng.choice([i for i, length in enumerate(lengths) if length >= span + 2])
        start = rng.randint(0, lengths[sequence] - span)
        inside = range(start, start + span)
        reference = sorted(rng.sample([i for i in range(lengths[sequence]) if i not in inside], 2))
        sample = clips[0, index]
        assert values(sample.arrays["images"]) == [20 * sequence + n for n in inside[::step]]
        assert values(sample.arrays["few_shot_images"]) == [20 * sequence + n for n in reference]


def test_an_epoch_has_each_sequence_once_that_is_long_enough(root: Path) -> None:
    assert len(dataset(root, is_training=True)) == 3
    assert len(dataset(root, is_training=True, initial_few_shot_K=5)) == 1
    assert len(dataset(root, is_training=True, samples_per_step=2)) == 2  # whole steps
    assert len(dataset(root, is_training=True, samples_per_step=8)) == 24  # too few: every frame
    clips = dataset(root, is_training=True, initial_few_shot_K=2, num_epochs_temporal_step=1)
    assert [clips.frames(epoch) for epoch in range(4)] == [3, 6, 10, 10]
    assert len(values(clips[3, 0].arrays["images"])) == 10
    with pytest.raises(UserError) as caught:
        dataset(root, is_training=True, initial_sequence_length=9, initial_few_shot_K=4)
    assert (caught.value.where, caught.value.code) == ("initial_sequence_length", "clip-too-long")


def test_clip_and_reference_are_mirrored_by_draws_of_their_own(root: Path) -> None:
    clips = dataset(root, is_training=True, augmentations={**AS_STORED, "horizontal_flip": True})
    flips = {(s.numbers["is_flipped"], s.numbers["few_shot_is_flipped"]) for s in (clips[0, i] for i in range(30))}
    assert len(flips) == 4


def test_a_sample_is_the_same_in_every_process(root: Path) -> None:
    clips = dataset(root, is_training=True, augmentations={**AS_STORED, "horizontal_flip": True})
    there = pickle.loads(pickle.dumps(clips))
    for index in range(6):
        one, other = clips[1, index], there[1, index]
        assert one.numbers == other.numbers and one.keys == other.keys
        assert all((one.arrays[name] == other.arrays[name]).all() for name in one.arrays)


def test_a_held_out_set_that_was_read_can_be_sent_to_a_worker(root: Path) -> None:
    frames = dataset(
        root, (IMAGES, LANDMARKS), crop="face", output_h_w="24, 32", augmentations={"resize_h_w": "50, 60"}
    )
    before = frames[0, 3]
    after = pickle.loads(pickle.dumps(frames))[0, 3]
    assert all((before.arrays[name] == after.arrays[name]).all() for name in before.arrays)


# The batch


def test_networks_see_images_and_labels_of_both(root: Path) -> None:
    clips = dataset(root, is_training=True, initial_few_shot_K=2)
    loaded = collate([Guarded(clips, OnError.RAISE)[0, index] for index in range(3)])
    batch = Expander([IMAGES, MAPS], ["maps"])(Batch(loaded.tensors, loaded.keys))
    assert set(batch.tensors) == {"images", "label", "few_shot_images", "few_shot_label"}
    assert batch["images"].shape == (3, 3, 3, SIDE, SIDE) and batch["few_shot_images"].shape == (3, 2, 3, SIDE, SIDE)
    for name, count in (("", 3), ("few_shot_", 2)):
        classes = batch[f"{name}label"]
        assert classes.shape == (3, count, 200, SIDE, SIDE) and bool((classes.sum(dim=2) == 1).all())
        pixels = ((batch[f"{name}images"] + 1) * 127.5).round()[:, :, 0]
        assert torch.equal(classes.argmax(dim=2).float(), pixels)


# Held-out sequences


def test_held_out_sequences_come_whole_each_with_its_own_reference(root: Path) -> None:
    frames = dataset(root)
    assert list(frames.blocks) == [7, 3, 7, 12]
    assert frames.sequences == list(LENGTHS.items())
    for sequence, length in enumerate(LENGTHS.values()):
        for t in range(length):
            sample = frames.frame(sequence, t)
            assert values(sample.arrays["images"]) == [20 * sequence + t]
            assert values(sample.arrays["few_shot_images"]) == [20 * sequence]
    several = dataset(root, initial_few_shot_K=3)
    assert values(several[0, 3].arrays["few_shot_images"]) == [0, 2, 4]


def test_frames_may_be_read_in_any_order(root: Path) -> None:
    in_order, mixed = (
        dataset(root, augmentations={**AS_STORED, "horizontal_flip": True}),
        dataset(root, augmentations={**AS_STORED, "horizontal_flip": True}),
    )
    order = list(range(len(mixed)))
    random.Random(0).shuffle(order)
    samples = {index: mixed[0, index] for index in order}
    assert all(samples[i].numbers == in_order[0, i].numbers for i in range(len(in_order)))


def test_one_sequence_is_driven_and_another_is_the_reference(root: Path) -> None:
    pinned = dataset(root, driving_seq_index="b", few_shot_seq_index="d", few_shot_frame_index=9)
    assert pinned.sequences == [("b", 3)]
    for t in range(3):
        assert values(pinned[0, t].arrays["images"]) == [20 + t]
        assert values(pinned[0, t].arrays["few_shot_images"]) == [69]
    assert pinned[0, 0].keys["images"] == "b/0"


def test_numbers_of_sequences_are_those_of_the_reference(root: Path) -> None:
    """Sequences of one length come together: a and c have 7 frames, then b, then d."""
    driven = [dataset(root, driving_seq_index=number).sequences[0][0] for number in range(4)]
    assert driven == ["a", "c", "b", "d"]


@pytest.mark.parametrize(
    ("options", "where", "code"),
    [
        ({"driving_seq_index": 4}, "driving_seq_index", "unknown-sequence"),
        ({"few_shot_seq_index": "e"}, "few_shot_seq_index", "unknown-sequence"),
        ({"few_shot_frame_index": 3}, "few_shot_frame_index", "out-of-range"),
        ({"few_shot_seq_index": "a", "few_shot_frame_index": 7}, "few_shot_frame_index", "out-of-range"),
        ({"crop": "face", "output_h_w": "8, 8"}, "crop", "missing-input-type"),
        ({"normalize_landmarks": NormalizeParams()}, "normalize_landmarks", "missing-input-type"),
    ],
)
def test_what_is_not_there_is_told(root: Path, options: dict[str, Any], where: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        dataset(root, **options)
    assert (caught.value.where, caught.value.code) == (where, code)


def test_a_held_out_set_may_be_the_beginning_of_some_sequences(root: Path) -> None:
    frames = dataset(root, num_videos_to_test=2, num_frames_per_video=4)
    assert frames.sequences == [("a", 4), ("b", 3)] and len(frames) == 7
    assert values(frames[0, 4].arrays["images"]) == [20]


# Faces


def test_a_face_is_cut_out_where_it_is_in_the_first_frame(root: Path) -> None:
    """fs_vid2vid.md, section 6: twice as wide as the face, from 1.25 of its width above it to 0.75 below."""
    frames = dataset(root, (IMAGES, LANDMARKS), crop="face", output_h_w="32, 32", driving_seq_index="a")
    points = face_at("a", 0)
    width = int(points[:, 0].max()) - int(points[:, 0].min())
    center = (int(points[:, 0].max()) + int(points[:, 0].min())) // 2
    middle = (int(points[:, 1].max()) + int(points[:, 1].min())) // 2
    center, middle = max(width, min(SIDE - width, center)), max(1.25 * width, min(SIDE - 0.75 * width, middle))
    box = slice(int(middle - 1.25 * width), int(middle + 0.75 * width)), slice(int(center - width), int(center + width))
    for t in (5, 0):
        sample = frames[0, t]
        assert sample.arrays["images"].shape == (1, 32, 32, 3)
        sketch = torch.from_numpy(draw_face(face_at("a", t), (SIDE, SIDE), width=1)[..., 0][box])[None, None]
        expected = torch.nn.functional.interpolate(sketch, size=(32, 32), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(sample.arrays["landmarks-dlib68"][0, ..., 0], expected[0, 0], atol=1e-5)


def test_in_training_all_frames_are_cut_alike(root: Path) -> None:
    clips = dataset(root, (IMAGES, LANDMARKS), crop="face", output_h_w="24, 32", is_training=True)
    shapes = {name: array.shape for name, array in clips[0, 0].arrays.items()}
    assert shapes == {
        "images": (3, 24, 32, 3),
        "landmarks-dlib68": (3, 24, 32, 1),
        "few_shot_images": (1, 24, 32, 3),
        "few_shot_landmarks-dlib68": (1, 24, 32, 1),
    }
    assert (clips[0, 0].arrays["landmarks-dlib68"] != clips[1, 0].arrays["landmarks-dlib68"]).any()


def test_a_driving_face_gets_the_proportions_of_the_reference(root: Path) -> None:
    pins = {"driving_seq_index": "a", "few_shot_seq_index": "d", "few_shot_frame_index": 2}
    frames = dataset(root, (IMAGES, LANDMARKS), normalize_landmarks=NormalizeParams(momentum=0.5, window=3), **pins)
    video = np.stack([face_at("a", t) for t in range(LENGTHS["a"])])
    fitted = fit_proportions(video, face_at("d", 2), momentum=0.5, window=3)
    for t in (6, 1):
        expected = draw_face(fitted[t].astype(np.float32), (SIDE, SIDE), width=1)
        np.testing.assert_array_equal(frames[0, t].arrays["landmarks-dlib68"][0], expected)
    plain = draw_face(face_at("d", 2), (SIDE, SIDE), width=1)
    np.testing.assert_array_equal(frames[0, 0].arrays["few_shot_landmarks-dlib68"][0], plain)


# People


def save_crowds(root: Path, length: int = 3) -> Dataset:
    """Frames with a person at the left, and another one of half the size; who is meant, says all_indices.json."""
    for t in range(length):
        write(root / "images" / "s" / f"{t}.png", png(np.full((64, 64, 3), t, np.uint8)))
        write(root / "poses-openpose" / "s" / f"{t}.json", openpose_json(make_person(0.25), make_person(0.125)))
    poses = openpose.Codec(InputType(name="poses-openpose", ext="json", num_channels=27))
    kinds = (codec_for(name="images", ext="png", num_channels=3), poses)
    return dataset(root, kinds, augmentations={"resize_h_w": "64, 64"})


def test_the_person_that_a_list_names_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "all_indices.json").write_text('{"s": [1, 0, 1], "another": [0]}')
    found = save_crowds(tmp_path)
    lowest = [np.flatnonzero(found[0, t].arrays["poses-openpose"][0].any(axis=(1, 2))).max() for t in range(3)]
    assert [bool(row > 57) for row in lowest] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"s": [0, 0]}', "bad-index"),
        ('{"s": [0, -1, 0]}', "bad-index"),
        ('{"s": 1}', "bad-index"),
        ('{"S": [0, 0, 0]}', "bad-index"),
        ("{", "not-json"),
        ('{"s": [0, 2, 0]}', "no-person"),
    ],
)
def test_a_list_of_people_that_does_not_fit_is_told(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "all_indices.json").write_text(text)
    with pytest.raises(UserError) as caught:
        save_crowds(tmp_path)[0, 1]
    assert caught.value.code == code


def test_a_person_is_cut_out_and_the_others_are_removed(tmp_path: Path) -> None:
    names = ("images", "pose_maps-densepose", "human_instance_maps")
    for t in range(4):
        body, ids = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 1), np.uint8)
        body[12:60, 20:40], body[12:60, 50:60] = 4, 4
        ids[:, :45], ids[:, 45:] = 1, 2
        for name, array in zip(names, (np.full((64, 64, 3), t, np.uint8), body, ids)):
            write(tmp_path / name / "s" / f"{t}.png", png(array))
        write(tmp_path / "poses-openpose" / "s" / f"{t}.json", openpose_json(make_person(0.25)))
    kinds = (
        codec_for(name="images", ext="png", num_channels=3),
        codec_for(name="pose_maps-densepose", ext="png", num_channels=3, is_mask=True),
        openpose.Codec(InputType(name="poses-openpose", ext="json", num_channels=27)),
        codec_for(name="human_instance_maps", ext="png", num_channels=1, is_mask=True),
    )
    options: dict[str, Any] = {"augmentations": {"resize_h_w": "64, 64"}, "crop": "person", "output_h_w": "64, 32"}
    sample = dataset(tmp_path, kinds, **options)[0, 1]
    assert set(sample.arrays) == {
        f"{prefix}{name}" for prefix in ("", "few_shot_") for name in (*names, "poses-openpose")
    }
    assert sample.arrays["poses-openpose"].shape == (1, 64, 32, 27)
    # Rows 12 to 59, columns 20 to 39: half the height is int(64) // 2 = 32, at row 32; half the width 16, at column 29.
    expected = np.zeros((64, 32), np.uint8)
    expected[12:60, 20 - 13 : 40 - 13] = 4
    np.testing.assert_array_equal(sample.arrays["pose_maps-densepose"][0, ..., 2], expected)
    in_training = dataset(tmp_path, kinds, is_training=True, initial_sequence_length=2, **options)[0, 0]
    assert in_training.arrays["pose_maps-densepose"].shape == (2, 64, 32, 3)
