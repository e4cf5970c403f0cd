"""The files of several roots as one list."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from augmenting import Scripted
from images import Memory, noise, png
from small_data import build, codec_for

from imagier.data.datasets import images, unpaired_few_shot_images, unpaired_images
from imagier.data.listing.files import FileList
from imagier.data.sources.source import unique_names

SOURCES = [Memory({}, name) for name in ("one", "other", "third")]
KEYS = [["a/0", "a/1", "b/ä"], ["a/0"], ["a/1", "c/2"]]


def test_a_place_is_that_in_the_list_of_all_files() -> None:
    items = pickle.loads(pickle.dumps(FileList(SOURCES, KEYS)))
    flat = [(source, key) for source, keys in zip(SOURCES, KEYS) for key in keys]
    assert [items[i] for i in range(len(items))] == flat
    assert list(items.names) == unique_names(key for _, key in flat)


def test_without_weights_a_file_is_drawn_as_from_the_list_of_all() -> None:
    items = FileList(SOURCES, KEYS)
    for seed in range(20):
        assert items.draw(random.Random(seed)) == random.Random(seed).choice(range(6))


@pytest.mark.parametrize(
    ("u", "place"), [(0.0, 0), (0.49, 0), (0.5, 3), (0.74, 3), (0.76, 4), (0.999999999999999999, 4)]
)
def test_with_weights_the_root_is_drawn_first(u: float, place: int) -> None:
    assert FileList(SOURCES, KEYS, [2.0, 1.0, 1.0]).draw(Scripted(u, 0.0)) == place


@pytest.mark.parametrize("weights", [None, [1.0, 4.0]])
def test_sets_whose_files_are_drawn_draw_them_by_the_weights_of_their_roots(weights: list[float] | None) -> None:
    kinds = ["images", "images_content", "images_style"]
    sources = [
        Memory({(kind, f"x/{root}{i}"): png(noise(4, 4)) for kind in kinds for i in range(2)}) for root in ("p", "q")
    ]
    for types, module in (
        (kinds[:1], images),
        (kinds[1:], unpaired_images),
        (kinds[1:], unpaired_few_shot_images),
    ):
        data = build(
            module.Dataset,
            sources,
            codecs=[codec_for(name=name, ext="png") for name in types],
            augmentations={"resize_h_w": "2, 2"},
            is_training=True,
            root_weights=weights,
        )
        for name in types:
            drawn = Counter(data[epoch, 0].keys[name][2] for epoch in range(400))
            share = 0.5 if weights is None else 0.8
            assert abs(drawn["q"] - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5
        assert list(data.blocks) == [len(data)]


LOOK = """
import os
from imagier.data.listing.files import FileList

def private_kb():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))

keys = [f"sequence_{i % 100:05d}/frame_{i:012d}" for i in range(50_000)]
items = FileList([None], [keys])
for held, look in ((items, lambda i: (items[i], items.names[i])), (keys, lambda i: keys[i])):
    child = os.fork()
    if child == 0:
        before = private_kb()
        for _ in range(3):
            for i in range(len(held)):
                look(i)
        print(private_kb() - before, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells what memory is private")
def test_looking_at_all_files_three_times_costs_a_forked_process_no_memory() -> None:
    """As it does with a list, whose counts of references change with every look."""
    out = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True).stdout
    ours, of_a_list = map(int, out.split())
    assert ours < 1000
    assert of_a_list > 2500
