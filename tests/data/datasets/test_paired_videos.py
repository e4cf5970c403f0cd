"""Clips from folders of images and from video files: which frames they have, and that all types have the same."""

from __future__ import annotations

import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import noise, png, write
from small_data import build, codec_for
from videos import counting, number_of, numbered, video

from imagier.data.datasets.paired_videos import LEAST_STEPS, Dataset
from imagier.data.loading.loader import Loader
from imagier.data.sample import Sample, random_source
from imagier.data.sources.folder import FolderSource
from imagier.data.sources.shard_files import LocalFiles
from imagier.data.sources.shards import ShardsSource
from imagier.errors import UserError
from imagier.recipe import Batch, Position

IMAGES = codec_for(name="images", ext="png", num_channels=3)
FILMS = codec_for(name="images", ext="mkv", num_channels=3)
MAPS = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=200)
AS_STORED = {"resize_h_w": "16, 64"}
RANDOM = {"resize_h_w": "20, 70", "rotate": 10, "horizontal_flip": True, "random_crop_h_w": "16, 64"}
LENGTHS = {"b": 12, "a/z": 5, "c": 1}
FORMS = {"images": (IMAGES, MAPS), "films": (FILMS, MAPS), "maps, then films": (MAPS, FILMS)}


def number_map(number: int) -> np.ndarray:
    return np.full((16, 64, 1), number, np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame t of a sequence shows t and is called by its number from 100 on; in images, films and maps."""
    root = tmp_path_factory.mktemp("videos")
    for sequence, length in LENGTHS.items():
        write(root / "images" / f"{sequence}.mkv", counting(length, gop=4))
        for t in range(length):
            write(root / "images" / sequence / f"{100 + t}.png", png(numbered(t)))
            write(root / "maps" / sequence / f"{100 + t}.png", png(number_map(t)))
            write(root / "points" / sequence / f"{100 + t}.json", json.dumps([[t, 2], [3, 4.5]]).encode())
    return root


def dataset(root: Path | list[Path], form: str = "images", **options: Any) -> Dataset:
    roots = root if isinstance(root, list) else [root]
    kinds = options.pop("kinds", FORMS[form])
    sources = [FolderSource(root, {kind.name: kind.input_type.ext for kind in kinds}) for root in roots]
    if options.get("is_training"):
        options = {"initial_sequence_length": 3, **options}
    return build(Dataset, sources, codecs=kinds, **{"augmentations": AS_STORED, **options})


def shown(sample: Sample) -> list[int]:
    """The numbers of a clip's frames, which all its types agree about."""
    numbers = [number_of(image) for image in sample.arrays["images"]]
    assert [int(frame.max()) for frame in sample.arrays["maps"]] == numbers
    assert sample.arrays["images"].shape == (len(numbers), 16, 64, 3)
    assert sample.arrays["maps"].shape == (len(numbers), 16, 64, 1)
    return numbers


each_form = pytest.mark.parametrize("form", FORMS)


# Training


@each_form
def test_a_clip_has_frames_of_one_sequence_one_after_the_other_in_all_types(root: Path, form: str) -> None:
    clips = dataset(root, form, is_training=True)
    seen = set()
    for index in range(60):
        sample = clips[0, index]
        frames = shown(sample)
        assert frames == list(range(frames[0], frames[0] + 3))
        sequence = clips.names[int(sample.numbers["sequence"])]  # type: ignore[arg-type]
        assert sample.keys == dict.fromkeys(("images", "maps"), f"{sequence}/{100 + frames[0]}")
        assert (sample.numbers["frame"], sample.numbers["time_step"]) == (frames[0], 1)
        seen.add((sequence, frames[0]))
    assert seen == {("a/z", start) for start in range(3)} | {("b", start) for start in range(10)}


def test_the_frames_of_films_alone_are_called_by_their_numbers(root: Path) -> None:
    assert dataset(root, kinds=[FILMS])[0, 13].keys == {"images": "b/000008"}


def test_the_draws_are_those_of_the_reference(root: Path) -> None:
    """First the stride, then the sequence, of those that are long enough, then the start."""
    clips = dataset(root, is_training=True, seed=4, augmentations={**AS_STORED, "max_time_step": 4})
    lengths = [5, 12, 1]  # in the order of the names
    for index in range(40):
        rng = random_source(4, 0, index)
        step = rng.randint(1, 4)
        span = 1 + 2 * step
        sequence = rng.choice([i for i, length in enumerate(lengths) if length >= span])
        start = rng.randint(0, lengths[sequence] - span)
        sample = clips[0, index]
        assert shown(sample) == list(range(start, start + span, step))
        assert sample.numbers["sequence"] == sequence
        assert sample.numbers["time_step"] == step


def test_a_stride_that_no_sequence_is_long_enough_for_is_1(root: Path) -> None:
    clips = dataset(root, is_training=True, initial_sequence_length=8, augmentations={**AS_STORED, "max_time_step": 2})
    strides = {int(np.diff(shown(clips[0, index]))[0]) for index in range(20)}
    assert strides == {1}


@each_form
def test_clips_grow_with_the_epoch(root: Path, form: str) -> None:
    """vid2vid: one frame at first; then the initial length, doubled every so many epochs up to the most, here 9."""
    growth = {"single_frame_epoch": 2, "num_epochs_temporal_step": 3, "max_sequence_length": 9}
    clips = dataset(root, form, is_training=True, initial_sequence_length=2, **growth)
    lengths = [1 if epoch < 2 else min(2 * 2 ** ((epoch - 2) // 3), 9) for epoch in range(20)]
    assert [clips.frames(epoch) for epoch in range(20)] == lengths
    assert [len(shown(clips[epoch, 0])) for epoch in (0, 1, 2, 4, 5, 8, 11)] == [1, 1, 2, 2, 4, 8, 9]


def test_clips_never_grow_longer_than_the_longest_sequence(root: Path) -> None:
    clips = dataset(root, is_training=True, num_epochs_temporal_step=1)
    assert [clips.frames(epoch) for epoch in (0, 1, 2, 3, 1000)] == [3, 6, 12, 12, 12]
    assert shown(clips[1000, 0]) == list(range(12))


def test_an_epoch_has_each_long_enough_sequence_once_or_if_these_are_few_each_frame(root: Path) -> None:
    assert len(dataset(root, is_training=True)) == 12 + 5
    assert len(dataset(root, is_training=True, initial_sequence_length=6)) == 12
    assert len(dataset(root, is_training=True, samples_per_step=5)) == 15  # whole steps
    assert len(dataset(root, is_training=True, samples_per_step=18)) == 17  # the loader says that this is not enough
    assert len(dataset([root] * 20, is_training=True, samples_per_step=1)) == 40
    assert len(dataset([root] * LEAST_STEPS, is_training=True, samples_per_step=2)) == 2 * LEAST_STEPS


def test_one_draw_changes_all_frames_and_types_of_a_clip_alike(root: Path) -> None:
    still = {"images": np.stack([numbered(7)] * 3), "maps": np.stack([number_map(7)] * 3)}
    for sequence in ("p", "q"):
        for t in range(3):
            write(root / "still" / "images" / sequence / f"{t}.png", png(still["images"][t]))
            write(root / "still" / "maps" / sequence / f"{t}.png", png(numbered(7)[..., :1] // 2))
    clips = dataset(root / "still", is_training=True, augmentations=RANDOM)
    looks = set()
    for index in range(6):
        sample = clips[0, index]
        for frames in sample.arrays.values():
            assert (frames == frames[:1]).all()
        looks.add(sample.arrays["images"].tobytes())
    assert len(looks) == 6


def test_a_root_is_drawn_by_its_weight(root: Path) -> None:
    clips = dataset([root, root], is_training=True, root_weights=[3.0, 1.0])
    drawn = Counter(int(clips[0, index].numbers["sequence"]) // 3 for index in range(200))  # type: ignore[arg-type]
    assert 125 < drawn[0] < 175  # 4 standard deviations


def test_a_root_without_a_sequence_that_is_long_enough_is_not_drawn(root: Path) -> None:
    short = dataset([root / "still", root], is_training=True, root_weights=[1e9, 1.0], initial_sequence_length=4)
    assert {len(shown(short[0, index])) for index in range(5)} == {4}


def test_films_in_shards_give_the_frames_of_films_in_folders(root: Path, tmp_path: Path) -> None:
    for number, ext in enumerate(("mkv", "png")):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for path in sorted((root / ("images" if ext == "mkv" else "maps")).rglob(f"*.{ext}")):
                kind, *sequence = path.parent.relative_to(root).parts
                archive.add(path, "/".join([*sequence, f"{path.stem}.{kind}.{ext}"]))
    shards = ShardsSource(LocalFiles(tmp_path), {"images": "mkv", "maps": "png"})
    clips = build(Dataset, [shards], codecs=FORMS["films"], augmentations=AS_STORED)
    folders = dataset(root, "films")
    assert len(clips) == len(folders)
    for index in range(len(clips)):
        assert shown(clips[0, index]) == shown(folders[0, index])
        assert clips[0, index].keys == folders[0, index].keys


# The stream


def content(batch: Batch) -> tuple[dict[str, tuple[torch.Size, bytes]], dict[str, list[str]]]:
    return {name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in batch.tensors.items()}, batch.keys


def stream(root: Path, form: str, workers: int, at: Position) -> Iterator[tuple[Batch, Position]]:
    growth = {"single_frame_epoch": 1, "num_epochs_temporal_step": 1, "samples_per_step": 4}
    clips = dataset(root, form, is_training=True, seed=3, augmentations=RANDOM, **growth)
    clips.load(0)  # opens films before the workers are forked
    loader = Loader(
        clips,
        4,
        device=torch.device("cpu"),
        finish=lambda batch: batch,
        seed=3,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return loader.stream(at)


@pytest.mark.parametrize(("form", "workers"), [("images", 1), ("films", 1), ("films", 2)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_neither_workers_nor_a_stop_change_a_byte_while_clips_grow(root: Path, form: str, workers: int) -> None:
    alone = [(content(batch), at) for batch, at in islice(stream(root, form, 0, Position()), 12)]
    assert [tensors["images"][0][1] for (tensors, _), _ in alone] == [1] * 4 + [3] * 4 + [6] * 4
    by_workers = islice(stream(root, form, workers, Position()), 12)
    assert [(content(batch), at) for batch, at in by_workers] == alone
    for done in (3, 4, 6):
        resumed = islice(stream(root, form, 0, alone[done - 1][1]), 12 - done)
        assert [(content(batch), at) for batch, at in resumed] == alone[done:]


@each_form
def test_a_data_set_can_be_sent_to_a_worker_that_is_not_forked(root: Path, form: str) -> None:
    clips = dataset(root, form, is_training=True)
    before = shown(clips[0, 5])
    assert shown(pickle.loads(pickle.dumps(clips))[0, 5]) == before


# Held-out sets


@each_form
def test_held_out_sequences_come_whole_in_the_order_of_their_names_frame_by_frame(root: Path, form: str) -> None:
    frames = dataset(root, form)
    assert len(frames) == sum(LENGTHS.values())
    assert list(frames.blocks) == [5, 12, 1]
    samples = [frames[0, index] for index in range(len(frames))]
    assert [shown(sample) for sample in samples] == [[t] for name in sorted(LENGTHS) for t in range(LENGTHS[name])]
    names = [f"{name}/{100 + t}" for name in sorted(LENGTHS) for t in range(LENGTHS[name])]
    assert [sample.keys["maps"] for sample in samples] == names
    places = [(sample.numbers["sequence"], sample.numbers["frame"]) for sample in samples]
    assert places == [(i, t) for i, name in enumerate(sorted(LENGTHS)) for t in range(LENGTHS[name])]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_rank_gets_whole_sequences_and_all_ranks_every_frame_once(root: Path, world: int) -> None:
    frames = dataset(root, "films")
    seen = []
    for rank in range(world):
        options: dict[str, Any] = {"blocks": frames.blocks, "rank": rank, "world": world}
        loader = Loader(frames, 1, device=torch.device("cpu"), finish=lambda batch: batch, **options)
        mine = [(int(batch["sequence"]), int(batch["frame"])) for batch in loader.once()]
        for (sequence, frame), (next_sequence, next_frame) in pairwise(mine):
            assert (next_sequence, next_frame) == (sequence, frame + 1) or next_frame == 0
        seen += mine
    assert sorted(seen) == [(i, t) for i, name in enumerate(sorted(LENGTHS)) for t in range(LENGTHS[name])]


def test_all_frames_of_a_held_out_sequence_are_changed_alike(root: Path) -> None:
    frames = dataset(root, augmentations=RANDOM)
    flips = [frames[0, index].numbers["is_flipped"] for index in range(len(frames))]
    assert len(set(flips[:5])) == len(set(flips[5:17])) == 1
    seeds = [dataset(root, augmentations=RANDOM, seed=seed)[0, 0].numbers["is_flipped"] for seed in range(12)]
    assert set(seeds) == {False, True}


@each_form
def test_a_frame_of_a_held_out_sequence_can_be_asked_for(root: Path, form: str) -> None:
    frames = dataset(root, form)
    assert frames.sequences == [(name, LENGTHS[name]) for name in sorted(LENGTHS)]
    asked = [(1, 11), (0, 0), (2, 0), (1, 3)]
    assert [shown(frames.frame(*each)) for each in asked] == [[t] for _, t in asked]
    assert [frames.frame(*each).numbers["sequence"] for each in asked] == [sequence for sequence, _ in asked]


def test_a_held_out_set_may_be_the_first_frames_of_the_first_sequences(root: Path) -> None:
    frames = dataset(root, num_videos_to_test=2, num_frames_per_video=6)
    assert frames.sequences == [("a/z", 5), ("b", 6)] and list(frames.blocks) == [5, 6]
    assert [shown(frames[0, index]) for index in range(len(frames))] == [[t] for t in (*range(5), *range(6))]
    whole = dataset(root, is_training=True, num_videos_to_test=1, num_frames_per_video=1)
    assert len(whole) == 17 and len(shown(whole[0, 0])) == 3


def test_equal_names_of_sequences_in_two_roots_get_numbers(root: Path) -> None:
    frames = dataset([root, root])
    assert frames.names == ["a/z", "b", "c", "a/z_2", "b_2", "c_2"]
    assert frames[0, len(frames) - 1].keys["images"] == "c_2/100"


# Key points


def test_key_points_of_every_frame_ride_along(root: Path) -> None:
    kinds = [IMAGES, codec_for(name="points", ext="json", is_points=True)]
    augmentations = {"resize_h_w": "32, 128", "horizontal_flip": True}
    clips = dataset(root, kinds=kinds, is_training=True, augmentations=augmentations)
    flips = set()
    for index in range(12):
        sample = clips[0, index]
        numbers = int(sample.numbers["frame"]) + np.arange(3)  # type: ignore[arg-type]
        stored = np.stack([np.stack([numbers, np.full(3, 2)], 1), np.full((3, 2), [3, 4.5])], axis=1)
        expected = 2 * (stored + 0.5) - 0.5  # centers of pixels are whole numbers
        if sample.numbers["is_flipped"]:
            expected[..., 0] = 127 - expected[..., 0]
        assert sample.arrays["points"].shape == (3, 2, 2)
        np.testing.assert_allclose(sample.arrays["points"], expected, atol=1e-4)
        flips.add(sample.numbers["is_flipped"])
    assert flips == {False, True}


def test_frames_with_different_numbers_of_points_are_told(root: Path, tmp_path: Path) -> None:
    kinds = [IMAGES, codec_for(name="points", ext="json", is_points=True)]
    for t in range(2):
        write(tmp_path / "images" / "s" / f"{t}.png", png(numbered(t)))
        write(tmp_path / "points" / "s" / f"{t}.json", json.dumps([[1, 2]] * (t + 1)).encode())
    clips = dataset(tmp_path, kinds=kinds, is_training=True, initial_sequence_length=2)
    with pytest.raises(UserError, match=r"^[^:]*points/s/1\.json: holds 2 x 2 numbers, but 1 x 2 numbers in the frame"):
        clips[0, 0]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (noise(16, 64, 3), noise(16, 64, 4), "pixels of 4 x uint8, but pixels of 3 x uint8"),
        (noise(16, 64, 1), noise(16, 64, 1, below=65536), "pixels of 1 x uint16, but pixels of 1 x uint8"),
    ],
)
def test_frames_that_do_not_fit_into_one_clip_are_told(
    tmp_path: Path, first: np.ndarray, second: np.ndarray, says: str
) -> None:
    write(tmp_path / "images" / "s" / "0.png", png(first))
    write(tmp_path / "images" / "s" / "1.png", png(second))
    kinds = [codec_for(name="images", ext="png")]
    clips = dataset(tmp_path, kinds=kinds, is_training=True, initial_sequence_length=2)
    with pytest.raises(UserError, match=rf"^[^:]*images/s/1\.png: holds {says} in the frame before; correct the file$"):
        clips[0, 0]


# A look at the files


def test_a_look_at_a_training_set_comes_by_all_its_frames(root: Path) -> None:
    clips = dataset(root, is_training=True)
    looked = [int(clips.load(index)["maps"].max()) for index in range(len(clips))]
    assert looked == [t for length in (5, 12, 1) for t in range(length)][: len(clips)]
    held_out = dataset(root, "maps, then films")
    for index, t in enumerate(t for name in sorted(LENGTHS) for t in range(LENGTHS[name])):
        stored = held_out.load(index)
        assert list(stored) == ["maps", "images"]
        assert number_of(stored["images"]) == t
    assert Path(held_out.where(6)) == root / "maps" / "b" / "101.png"
    assert dataset(root, "films").where(6) == f"{root / 'images' / 'b.mkv'}, frame 1"


# Mistakes


def copy(root: Path, to: Path, *, lost: str = "", films: Mapping[str, int] = LENGTHS) -> Path:
    for sequence, length in LENGTHS.items():
        for t in range(length):
            path = f"maps/{sequence}/{100 + t}.png"
            if path != lost:
                write(to / path, (root / path).read_bytes())
    for sequence, length in films.items():
        write(to / "images" / f"{sequence}.mkv", counting(length))
    return to


@pytest.mark.parametrize(
    ("form", "films", "line"),
    [
        (
            "films",
            {**LENGTHS, "b": 11},
            "images/b.mkv, frame 0: the sequence 'b' has 11 frames, but 12 in input type 'maps'; make them agree",
        ),
        (
            "maps, then films",
            {**LENGTHS, "b": 11},
            "maps/b/100.png: the sequence 'b' has 12 frames, but 11 in input type 'images'; make them agree",
        ),
        (
            "maps, then films",
            {"b": 12, "c": 1},
            "maps/a/z/100.png: input type 'images' has no sequence 'a/z'; add it or remove this one",
        ),
        (
            "films",
            {**LENGTHS, "d": 2},
            "images/d.mkv, frame 0: input type 'maps' has no sequence 'd'; add it or remove this one",
        ),
    ],
)
def test_a_sequence_without_partner_is_told(
    root: Path, tmp_path: Path, form: str, films: dict[str, int], line: str
) -> None:
    with pytest.raises(UserError) as caught:
        dataset(copy(root, tmp_path, films=films), form)
    assert str(caught.value) == f"{tmp_path}/{line}"


def test_a_frame_without_partner_is_told(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "images" / "s" / "1.png", png(numbered(1)))
    write(tmp_path / "images" / "s" / "2.png", png(numbered(2)))
    write(tmp_path / "maps" / "s" / "2.png", png(number_map(2)))
    with pytest.raises(UserError, match=r"images/s/1\.png: has no partner .*maps/s/1\.png; add it or remove the file$"):
        dataset(tmp_path)


def test_sequences_that_are_all_too_short_are_told(root: Path) -> None:
    with pytest.raises(UserError, match=r"^initial_sequence_length: is 13, but the longest sequence has 12 frames"):
        dataset(root, is_training=True, initial_sequence_length=13)


def test_a_wrong_class_is_told_with_the_name_of_its_file_or_frame(root: Path) -> None:
    few = codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=4)
    with pytest.raises(UserError, match=r"maps/b/104\.png: holds class 4, but one_hot_num_classes\.maps is 4"):
        dataset(root, kinds=[FILMS, few])[0, 9]
    ids = codec_for(name="images", ext="mkv", is_mask=True, num_classes=4)
    with pytest.raises(UserError, match=r"images/b\.mkv: is stored as bgr0, which does not keep ids as they are"):
        dataset(root, kinds=[ids])[0, 9]


def test_a_film_whose_maps_lie_on_their_side_is_told(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "images" / "s.mkv", counting(2))
    for t in range(2):
        write(tmp_path / "maps" / "s" / f"{t}.png", png(np.zeros((64, 16, 1), np.uint8)))
    films = dataset(tmp_path, "films")
    for take in (lambda: films[0, 1], lambda: films.load(1)):
        with pytest.raises(UserError, match=r"maps/s/1\.png: is 64 x 16, but its partner .*s\.mkv, frame 1 is 16 x 64"):
            take()


def test_a_film_of_more_than_8_bits_is_not_taken_for_light(tmp_path: Path) -> None:
    deep = [np.full((16, 64, 1), 40_000, np.uint16)] * 2
    write(tmp_path / "images" / "s.mkv", video(deep, pixels="gray10le"))
    gray = {"name": "images", "ext": "mkv", "num_channels": 1}
    with pytest.raises(UserError, match=r"images/s\.mkv, frame 0: holds 16-bit values"):
        dataset(tmp_path, kinds=[codec_for(**gray, normalize=True)])[0, 0]  # type: ignore[arg-type]
    assert dataset(tmp_path, kinds=[codec_for(**gray)])[0, 0].arrays["images"].max() == 625  # type: ignore[arg-type]


def test_a_crop_that_does_not_fit_names_the_frame(root: Path) -> None:
    small = dataset(root, "films", augmentations={"resize_h_w": "4, 4", "random_crop_h_w": "5, 4"})
    with pytest.raises(UserError, match=r"images/b\.mkv, frame 4: crop 5 x 4 is larger than the image, 4 x 4"):
        small[0, 9]


def test_a_damaged_film_is_told_when_the_set_is_made(root: Path, tmp_path: Path) -> None:
    path = copy(root, tmp_path) / "images" / "b.mkv"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"images/b\.mkv: the file is cut off; restore it"):
        dataset(tmp_path, "films")


def test_a_film_that_vanishes_is_told_when_it_is_read(root: Path, tmp_path: Path) -> None:
    films = dataset(copy(root, tmp_path), "films")
    (tmp_path / "images" / "b.mkv").unlink()
    with pytest.raises(UserError, match=r"images/b\.mkv: No such file or directory$"):
        films[0, 9]
