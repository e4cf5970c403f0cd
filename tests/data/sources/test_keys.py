"""`Keys` behaves like a list of keys."""

from __future__ import annotations

import pickle
import zlib

import numpy as np
import pytest

from imagier.data.sources.keys import Keys

MANY = [f"sequence{i % 7}/猫 {i * 7919 % 1000}" for i in range(1000)]


@pytest.mark.parametrize("keys", [[], ["a"], ["", "b", ""], MANY])
def test_they_are_the_keys_of_the_list_in_order(keys: list[str]) -> None:
    held = Keys(keys)
    assert list(held) == [held[i] for i in range(len(held))] == keys
    again = pickle.loads(pickle.dumps(held))
    assert list(again) == list(Keys.from_block(held.text, held.ends)) == keys


def test_a_key_is_found_as_in_a_dictionary() -> None:
    held = Keys(MANY)
    places = {key: place for place, key in enumerate(MANY)}
    assert {key: held.find(key) for key in MANY} == places
    assert held.find("sequence0/dog") is None
    assert Keys([]).find("a") is None


def test_two_keys_with_the_same_hash_are_distinguished() -> None:
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    held = Keys(["a", "plumless", "b"])
    assert held.find("buckeroo") is None
    both = Keys(["plumless", "buckeroo"])
    assert [both.find("plumless"), both.find("buckeroo"), both.find_repeated()] == [0, 1, None]


def test_a_repeated_key_is_found() -> None:
    assert Keys(MANY).find_repeated() is None
    assert Keys([*MANY, MANY[3]]).find_repeated() == MANY[3]
    assert Keys(["plumless", "buckeroo", "plumless"]).find_repeated() == "plumless"


@pytest.mark.parametrize("ends", [[1], [3, 2, 4], [-1, 4], [4, 5], [[2, 4]]])
def test_wrong_ends_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="ends"):
        Keys.from_block(b"abcd", np.array(ends))


def test_they_take_less_than_half_the_memory_of_a_list() -> None:
    held = Keys(MANY)
    arrays = sum(numbers.itemsize * len(numbers) for numbers in (held._ends, held._by_hash, held._hashes))
    listed = sum(key.__sizeof__() for key in MANY) + [].__sizeof__() + 8 * len(MANY)
    assert len(held.text) + arrays < listed / 2
