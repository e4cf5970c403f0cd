"""The order of samples, whatever the workers and ranks; resuming; and mistakes that leave a worker as one line."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counted import Counted, content, loader, places, taken
from images import Memory, noise, png
from small_data import build, codec_for

from imagier.data.datasets.paired_images import Dataset
from imagier.data.loading.loader import Loader, _start_worker
from imagier.data.sample import Sample
from imagier.errors import UserError
from imagier.recipe import Batch, Position


def augmented(length: int, **options: Any) -> Dataset:
    """Small images under augmentation."""
    files = {}
    for i in range(length):
        files["images", f"./{i}"] = png(noise(4, 5, seed=i))
        files["maps", f"./{i}"] = png(noise(4, 5, 1, seed=i, below=65536))
    kinds = [codec_for(name="images", ext="png"), codec_for(name="maps", ext="png", is_mask=True)]
    keys = {"resize_h_w": "6, 6", "rotate": 30, "random_scale_limit": 0.5, "horizontal_flip": True}
    return build(Dataset, [Memory(files)], codecs=kinds, augmentations={**keys, "random_crop_h_w": "4, 4"}, **options)


# What a batch holds


def test_a_batch_holds_its_samples_side_by_side() -> None:
    dataset = augmented(3)
    batch = loader(dataset, 3).some(3)
    samples = [dataset[0, i] for i in range(3)]
    sizes = {"original_h_w", "original_h_w_images", "original_h_w_maps"}
    assert set(batch.tensors) == {"images", "maps", "is_flipped", *sizes}
    for name in ("images", "maps"):
        np.testing.assert_array_equal(batch[name].numpy(), np.stack([sample.arrays[name] for sample in samples]))
    assert batch["images"].dtype == torch.uint8
    assert batch["maps"].dtype == torch.int32
    assert batch["original_h_w"].tolist() == [[4, 5]] * 3
    assert batch["is_flipped"].tolist() == [sample.numbers["is_flipped"] for sample in samples]
    assert batch.keys == {"images": ["./0", "./1", "./2"], "maps": ["./0", "./1", "./2"]}


def test_images_of_floats_stay_floats() -> None:
    class Depth(Counted):
        def __getitem__(self, key: tuple[int, int]) -> Sample:
            return Sample({"at": np.full((1, 1, 1), 0.7, np.float32)}, {"at": "./0"})

    assert loader(Depth(2), 2).some(2)["at"].flatten().tolist() == pytest.approx([0.7, 0.7])


def test_a_batch_is_finished_by_what_the_loader_was_given() -> None:
    made = Loader(Counted(4), 2, device=torch.device("cpu"), finish=lambda batch: batch.replace(double=2 * batch["at"]))
    batches = [*made.once(), made.some(2), next(made.stream(Position()))[0]]
    for batch in batches:
        assert torch.equal(batch["double"], 2 * batch["at"])


# Training


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("length", [16, 17, 23])
def test_ranks_together_see_every_sample_of_every_epoch_exactly_once(world: int, length: int) -> None:
    streams = [
        loader(Counted(length), 2, seed=3, shuffle=True, rank=rank, world=world).stream(Position())
        for rank in range(world)
    ]
    steps = loader(Counted(length), 2, world=world).steps_until(3, Position())
    seen = [place for _ in range(steps) for stream in streams for place in places(next(stream)[0])]
    assert [epoch for epoch, _ in seen] == sorted(epoch for epoch, _ in seen)
    orders = [[index for at, index in seen if at == epoch] for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(length))
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_what_is_left_of_an_epoch_begins_the_first_batch_of_the_next() -> None:
    batches = taken(loader(Counted(5), 2).stream(Position()), 5)
    assert [batch for batch, _ in batches] == [
        [(0, 0), (0, 1)],
        [(0, 2), (0, 3)],
        [(0, 4), (1, 0)],
        [(1, 1), (1, 2)],
        [(1, 3), (1, 4)],
    ]
    ends = [Position(0, 2), Position(0, 4), Position(1, 1), Position(1, 3), Position(2, 0)]
    assert [position for _, position in batches] == ends


def test_more_processes_than_cores_bring_no_warning_of_torch(recwarn: pytest.WarningsRecorder) -> None:
    made = loader(Counted(8), 2, num_workers=64)
    made._torch_loader([])
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("length", [8, 9, 11, 23])
@pytest.mark.parametrize("epochs", [0, 1, 2, 5, 10**9])
def test_so_many_epochs_take_the_steps_that_are_told(length: int, epochs: int) -> None:
    made = loader(Counted(length), 2, world=4)
    assert made.steps_per_epoch == length // 8
    steps = made.steps_until(epochs, Position())
    assert (steps - 1) * 8 < epochs * length <= steps * 8


def test_the_last_of_those_steps_ends_the_epoch() -> None:
    for epochs, length in ((1, 8), (1, 9), (2, 11), (5, 23)):
        made = loader(Counted(length), 2, world=4)
        ends = [position.epoch for _, position in taken(made.stream(Position()), made.steps_until(epochs, Position()))]
        assert ends[-1] >= epochs > max([0, *ends[:-1]])


@pytest.mark.parametrize("start", [Position(0, 6), Position(1, 0), Position(1, 10), Position(3, 2)])
def test_what_is_left_of_a_run_is_the_steps_that_its_stream_takes(start: Position) -> None:
    made = loader(Counted(11), 2, world=2)
    expected, position = 0, start
    stream = made.stream(start)
    while position.epoch < 3:
        _, position = next(stream)
        expected += 1
        assert made.epoch_after(expected, start) == position.epoch
    assert made.steps_until(3, start) == expected


def test_a_position_beyond_the_end_of_a_set_is_the_next_epoch() -> None:
    made = loader(Counted(11), 2)
    places = [Position(2, samples) for samples in (0, 10, 11, 99)]
    assert [made.fit_position(place) for place in places] == [*places[:2], Position(3, 0), Position(3, 0)]


def test_the_order_is_a_function_of_the_seed_and_the_epoch() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        return taken(loader(Counted(50), 50, seed=seed, shuffle=True).stream(Position(epoch)), 1)[0][0]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(i for _, i in order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("length", [12, 13, 15])
def test_a_position_counts_the_samples_of_all_ranks(length: int) -> None:
    for rank in range(2):
        batches = taken(loader(Counted(length), 2, rank=rank, world=2).stream(Position()), 9)
        taken_of_all = [position.epoch * length + position.samples for _, position in batches]
        assert taken_of_all == [4 * step for step in range(1, 10)]
        assert all(position.samples < length for _, position in batches)


@pytest.mark.parametrize(("world", "rank"), [(1, 0), (2, 1)])
def test_a_stream_resumed_at_any_position_is_the_stream_that_was_never_stopped(world: int, rank: int) -> None:
    def start(at: Position) -> Iterator[tuple[Batch, Position]]:
        return loader(Counted(11), 2, seed=7, shuffle=True, rank=rank, world=world).stream(at)

    uninterrupted = taken(start(Position()), 12)
    for done, (_, position) in enumerate(uninterrupted[:-1], 1):
        assert taken(start(position), 12 - done) == uninterrupted[done:]


def test_a_resumed_stream_brings_the_same_augmented_images() -> None:
    def start(at: Position) -> Iterator[tuple[Batch, Position]]:
        return loader(augmented(5, seed=2), 2, seed=2, shuffle=True).stream(at)

    uninterrupted = list(islice(start(Position()), 5))
    for done, (_, position) in enumerate(uninterrupted[:-1], 1):
        rest = [content(batch) for batch, _ in islice(start(position), 5 - done)]
        assert rest == [content(batch) for batch, _ in uninterrupted[done:]]


def test_a_position_from_another_batch_size_wastes_no_sample() -> None:
    first = taken(loader(Counted(12), 2, shuffle=True).stream(Position()), 2)
    rest = taken(loader(Counted(12), 4, shuffle=True).stream(first[-1][1]), 2)
    seen = [place for batch, _ in first + rest for place in batch]
    assert sorted(seen) == [(0, index) for index in range(12)]


def test_two_ranks_side_by_side_are_one_process_with_a_batch_of_both() -> None:
    data = augmented(7, seed=1)
    alone = loader(data, 4, seed=1, shuffle=True).stream(Position())
    ranks = [loader(data, 2, seed=1, shuffle=True, rank=rank, world=2).stream(Position()) for rank in range(2)]
    for _ in range(4):
        batch, position = next(alone)
        parts = [next(rank) for rank in ranks]
        assert [content(half) for half in batch.split(2)] == [content(part) for part, _ in parts]
        assert {at for _, at in parts} == {position}


# Held-out sets


@pytest.mark.parametrize("length", [1, 2, 8, 11])
@pytest.mark.parametrize("world", [1, 3])
def test_once_covers_everything_once_over_all_ranks_in_order(length: int, world: int) -> None:
    ranks = [[places(b) for b in loader(Counted(length), 2, rank=r, world=world).once()] for r in range(world)]
    everything = sorted(place for batches in ranks for batch in batches for place in batch)
    assert everything == [(0, index) for index in range(length)]
    for rank, batches in enumerate(ranks):
        mine = [index for batch in batches for _, index in batch]
        assert mine == list(range(rank, length, world))
        assert all(len(batch) == 2 for batch in batches[:-1])


@pytest.mark.parametrize("blocks", [None, [15, 1, 1]])
def test_a_training_set_has_as_many_whole_batches_on_each_rank(blocks: list[int] | None) -> None:
    """What all ranks do together on its first batches would else never end."""
    for rank in range(3):
        made = loader(Counted(17), 2, shuffle=True, blocks=blocks, rank=rank, world=3)
        assert [len(batch) for batch in islice(made.once(), made.steps_per_epoch)] == [2, 2]


def test_once_ends_after_the_most_batches() -> None:
    short = loader(Counted(9), 2)
    short.most_batches = 2
    for _ in range(2):
        assert [places(batch) for batch in short.once()] == [[(0, 0), (0, 1)], [(0, 2), (0, 3)]]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_ranks_read_whole_blocks_and_no_batch_reaches_over_the_end_of_one(world: int, num_workers: int) -> None:
    blocks = [3, 1, 8, 2, 5]
    block_of = [number for number, length in enumerate(blocks) for _ in range(length)]
    seen: list[tuple[int, list[int]]] = []
    for rank in range(world):
        made = loader(Counted(19), 2, blocks=blocks, rank=rank, world=world, num_workers=num_workers)
        seen += [(rank, [index for _, index in places(batch)]) for batch in made.once()]
    assert sorted(index for _, batch in seen for index in batch) == list(range(19))
    assert all(len({block_of[index] for index in batch}) == 1 for _, batch in seen)
    assert len({(rank, block_of[batch[0]]) for rank, batch in seen}) == len(blocks), "a block was shared"
    assert [batch for _, batch in sorted(seen)] == [batch for _, batch in seen], "not in order"


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))]
)
def test_some_are_spread_evenly_and_the_same_on_all_ranks(count: int, expected: list[int]) -> None:
    for rank in range(2):
        batch = loader(Counted(10), 3, shuffle=True, rank=rank, world=2).some(count)
        assert places(batch) == [(0, index) for index in expected]


# Workers


def stopped_twice(start: Callable[[Position], Iterator[tuple[Batch, Position]]], at: Position) -> list[Any]:
    """The content of eight batches from a position on, of which three and then two are taken before a new start."""
    found: list[Any] = []
    for count in (3, 2, 3):
        stream = start(at)
        for _ in range(count):
            batch, at = next(stream)
            found.append((content(batch), at))
        stream.close()  # type: ignore[attr-defined]
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("blocks", [None, [3, 2, 4]])
@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_workers_change_neither_the_order_nor_a_byte(num_workers: int, blocks: list[int] | None) -> None:
    data = augmented(9, seed=4)
    options = {"seed": 4, "shuffle": True, "blocks": blocks}
    start = Position(1, 2)
    expected = [(content(batch), at) for batch, at in islice(loader(data, 2, **options).stream(start), 8)]
    assert stopped_twice(loader(data, 2, **options, num_workers=num_workers).stream, start) == expected


@pytest.mark.slow  # every worker imports torch
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_bring_the_same(method: str, request: pytest.FixtureRequest) -> None:
    data = augmented(9, seed=4)
    expected = [content(batch) for batch, _ in islice(loader(data, 2, seed=4, shuffle=True).stream(Position()), 8)]
    request.addfinalizer(partial(multiprocessing.set_start_method, multiprocessing.get_start_method(), force=True))
    multiprocessing.set_start_method(method, force=True)
    stream = loader(data, 2, seed=4, shuffle=True, num_workers=2).stream(Position())
    assert [content(batch) for batch, _ in islice(stream, 8)] == expected


def test_workers_live_as_long_as_the_stream() -> None:
    stream = loader(Counted(6), 2, num_workers=2, shuffle=True).stream(Position())
    next(stream)
    workers = set(multiprocessing.active_children())
    epochs = {position.epoch for _, position in islice(stream, 12)}
    assert epochs >= {1, 2, 3}
    assert set(multiprocessing.active_children()) == workers
    stream.close()
    assert not any(worker.is_alive() for worker in workers)


def test_a_worker_that_is_faster_does_not_overtake() -> None:
    class Waiting(Counted):
        """The first sample is there when the second one is."""

        second = multiprocessing.Event()

        def __getitem__(self, key: tuple[int, int]) -> Sample:
            assert key[1] != 0 or self.second.wait(10)
            if key[1] == 1:
                self.second.set()
            return super().__getitem__(key)

    batches = taken(loader(Waiting(4), 1, num_workers=2).stream(Position()), 4)
    assert [batch for batch, _ in batches] == [[(0, index)] for index in range(4)]


def test_no_draw_of_the_run_depends_on_what_is_loaded() -> None:
    before = torch.get_rng_state()
    for num_workers in (0, 1):
        list(loader(augmented(3), 2, num_workers=num_workers).once())
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_hand_over_images_in_shared_memory() -> None:
    (batch,) = loader(augmented(2), 2, num_workers=1).once()
    assert batch["images"].is_shared()
    (batch,) = loader(augmented(2), 2).once()
    assert not batch["images"].is_shared()


def test_persistent_workers_serve_every_pass_even_after_one_that_was_broken_off() -> None:
    data = augmented(5)
    expected = [content(batch) for batch in loader(data, 2).once()]
    kept = loader(data, 2, num_workers=1, persistent_workers=True)
    assert [content(batch) for batch in kept.once()] == expected
    assert content(next(kept.once())) == expected[0]
    assert [content(batch) for batch in kept.once()] == expected


def test_drawn_samples_are_random_ones_the_same_for_any_batch_size_and_number_of_ranks() -> None:
    """As batches, those of all ranks side by side are those of one process with a larger batch."""
    alone = [places(batch) for batch in loader(Counted(200), 6, shuffle=True, seed=3).draw(24)]
    drawn = [index for batch in alone for _, index in batch]
    assert len(set(drawn)) == 24 and max(drawn) - min(drawn) > 100 and drawn != sorted(drawn)
    of_ranks = [loader(Counted(200), 3, shuffle=True, seed=3, rank=rank, world=2).draw(24) for rank in (0, 1)]
    assert [places(one) + places(other) for one, other in zip(*of_ranks)] == alone
    uneven = [loader(Counted(200), 5, shuffle=True, seed=3, rank=rank, world=3).draw(24) for rank in (0, 1, 2)]
    assert sorted(place for of in uneven for batch in of for place in places(batch)) == sorted(
        place for batch in alone for place in batch
    )
    assert [places(batch) for batch in loader(Counted(200), 6, shuffle=True, seed=4).draw(24)] != alone
    whole = loader(Counted(5), 2, shuffle=True).draw(24)
    assert sorted(index for batch in whole for _, index in places(batch)) == [0, 1, 2, 3, 4]


def test_samples_are_drawn_from_all_over_a_set_in_blocks() -> None:
    """The order of an epoch would have them all from the first few blocks."""
    (batch,) = loader(Counted(400), 64, shuffle=True, blocks=[10] * 40).draw(64)
    assert len({index // 10 for _, index in places(batch)}) > 20


def test_a_data_set_can_be_sent_to_a_worker_that_is_not_forked() -> None:
    data = augmented(2)
    copy = pickle.loads(pickle.dumps(data))
    assert content(loader(copy, 2).some(2)) == content(loader(data, 2).some(2))


# Mistakes


def with_wrong(index: int, data: bytes) -> Dataset:
    dataset = augmented(4)
    source, key = dataset.files[index]
    source.files["images", key] = data  # type: ignore[attr-defined]
    return dataset


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_wrong_file_ends_the_stream_with_its_one_line(num_workers: int) -> None:
    broken = loader(with_wrong(2, b"hello"), 1, num_workers=num_workers)
    for batches in (broken.once(), (batch for batch, _ in broken.stream(Position()))):
        assert len(next(batches)) == 1
        assert len(next(batches)) == 1
        with pytest.raises(UserError) as caught:
            next(batches)
        expected = "memory/images/./2.png: not an image, or damaged; restore it or remove it from the set"
        assert str(caught.value) == expected


def test_some_names_a_wrong_file_too() -> None:
    with pytest.raises(UserError, match=r"^memory/images/\./1\.png: the file is empty"):
        loader(with_wrong(1, b""), 2).some(4)


class Uneven(Counted):
    """Samples of the given shapes and types."""

    def __init__(self, *forms: tuple[tuple[int, int, int], type]) -> None:
        super().__init__(len(forms))
        self.forms = forms

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        shape, dtype = self.forms[key[1]]
        return Sample({"images": np.zeros(shape, dtype)}, {"images": f"./{key[1]}"})


@pytest.mark.parametrize(
    ("forms", "shown"),
    [
        ([((4, 4, 3), np.uint8), ((4, 5, 3), np.uint8)], "4 x 4 x 3 uint8, 4 x 5 x 3 uint8"),
        ([((4, 4, 3), np.uint8), ((4, 4, 4), np.uint8)], "4 x 4 x 3 uint8, 4 x 4 x 4 uint8"),
        ([((4, 4, 1), np.uint16), ((4, 4, 1), np.uint8)], "4 x 4 x 1 uint16, 4 x 4 x 1 uint8"),
    ],
)
def test_images_that_do_not_fit_together_in_a_batch_are_named(forms: list, shown: str) -> None:
    with pytest.raises(UserError) as caught:
        next(loader(Uneven(*forms), 2).once())
    expected = f"./0 and its batch: images of different sizes ({shown}); crop or convert them, or use batch_size: 1"
    assert str(caught.value) == expected
    assert len(list(loader(Uneven(*forms), 1).once())) == 2


def test_some_are_those_as_large_as_the_first() -> None:
    tall, wide = ((5, 4, 3), np.uint8), ((4, 5, 3), np.uint8)
    batch = loader(Uneven(tall, wide, tall, tall, wide), 1).some(5)
    assert batch["images"].shape == (3, 5, 4, 3)
    assert batch.keys["images"] == ["./0", "./2", "./3"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_workers_outlive_the_signals_that_go_to_a_process_group_and_not_their_run(number: int) -> None:
    stream = loader(Counted(40), 1, num_workers=1).stream(Position())
    next(stream)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, number)
    assert len(taken(stream, 20)) == 20  # more than was read ahead
    assert worker.is_alive()
    stream.close()  # type: ignore[attr-defined]
    worker.join(5)
    assert not worker.is_alive()


ENDS = """
import sys
sys.path[:0] = {paths}
from counted import Counted, loader
from imagier.recipe import Position

stream = loader(Counted(40), 1, num_workers=1).stream(Position())
kept = loader(Counted(4), 1, num_workers=1, persistent_workers=True)
next(stream), list(kept.once())
ring = [stream, kept]
ring.append(ring)  # not to be freed before the end
print("done", flush=True)
{end}
"""


@pytest.mark.slow  # imports torch
@pytest.mark.parametrize(("end", "status"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError('ours')", 1)])
def test_a_program_ends_whatever_workers_it_has_left(end: str, status: int) -> None:
    tests = Path(__file__).parents[1]
    program = ENDS.format(paths=[str(tests), str(tests.parent)], end=end)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "done\n"
    assert ended.returncode == status
    assert ended.stderr == "" if status != 1 else ended.stderr.endswith("ValueError: ours\n")


def test_a_worker_that_begins_when_its_run_is_dead_already_ends() -> None:
    """As when a run is killed while it forks: nobody is left to end the worker."""
    worker = multiprocessing.get_context("fork").Process(target=_idle_worker)
    worker.start()
    worker.join(30)
    assert worker.exitcode == 1


def _idle_worker() -> None:
    no_process_of_ours = 1
    _start_worker(no_process_of_ours, 0)
    threading.Event().wait()
