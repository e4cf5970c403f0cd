"""Frames come in the order of the numbers in their names, in every kind of store."""

from __future__ import annotations

import random

import pytest
from images import Memory, noise, png
from small_data import codec_for

from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex
from imagier.data.sources.source import sort_frames

IMAGES = codec_for(name="images", ext="png", num_channels=3)


def frames(*keys: str) -> list[str]:
    """The keys of all frames of a source that lists these."""
    source = Memory({("images", key): png(noise(4, 4)) for key in keys})
    return list(FrameIndex(source, [IMAGES], OpenVideos()).keys)


def test_frame_2_comes_before_frame_10() -> None:
    names = [f"frame{number}" for number in range(1, 13)]
    assert sort_frames(sorted(names)) == names
    assert frames(*sorted(f"s1/{name}" for name in names)) == [f"s1/{name}" for name in names]


def test_each_sequence_has_its_order_and_sequences_are_sorted() -> None:
    listed = ["t/1", "t/10", "t/2", "s/a9b1", "s/a10b0"]
    assert frames(*listed) == ["s/a9b1", "s/a10b0", "t/1", "t/2", "t/10"]


def test_a_list_in_an_order_of_its_own_keeps_it() -> None:
    names = ["frame3", "frame1", "frame2", "frame10"]
    assert sort_frames(names) == names
    assert frames(*(f"s/{name}" for name in names)) == [f"s/{name}" for name in names]


@pytest.mark.parametrize("seed", range(50))
def test_names_with_zeros_in_front_keep_the_order_of_letters_exactly(seed: int) -> None:
    rng = random.Random(seed)
    template = rng.choice(["{:04d}", "f_{:03d}", "cam{:02d}-{:05d}", "{:03d}.{:02d}b", "a{:01d}"])
    count, digits = template.count("{"), (10, 100, 100)
    names = {template.format(*(rng.randrange(digits[i]) for i in range(count))) for _ in range(40)}
    names |= {rng.choice(["x", "x-", "x_", "-x", "猫"]) + name for name in list(names)[:10]}
    assert sort_frames(sorted(names)) == sorted(names)


def test_equal_numbers_are_ordered_by_their_letters() -> None:
    assert sort_frames(["a01", "a1", "a2"]) == ["a01", "a1", "a2"]
