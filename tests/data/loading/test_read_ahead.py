"""Many files are waited for at once, and nothing else happens at once; samples, resuming and errors stay the same."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from counted import Counted, content, loader
from images import noise, png
from small_data import build, codec_for

from imagier.data.dataset import Dataset, DatasetSpec
from imagier.data.datasets import paired_images
from imagier.data.loading import read_ahead
from imagier.data.loading.faults import Guarded, OnError
from imagier.data.loading.read_ahead import BatchRequest, PrefetchSampler, ReadAhead
from imagier.data.sample import Sample
from imagier.data.sources.compute_lock import ComputeLock
from imagier.data.sources.disk_cache import DiskCache
from imagier.data.sources.object_store import ObjectStoreSource
from imagier.data.sources.remote import ObjectStat, RemoteFolder
from imagier.errors import UserError
from imagier.recipe import Position

PATIENCE_S = 5.0
"""Only a test that fails waits so long."""


class Store:
    """Objects in memory; counts the reads that are under way, which `hold` may keep there."""

    path = address = "store"

    def __init__(self, files: dict[str, bytes], hold: Callable[[str], object] = str, is_shared: bool = True) -> None:
        self.files, self.hold, self.is_shared = files, hold, is_shared
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {**vars(self), "lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, lock=threading.Lock())

    def connect(self) -> bool:
        return self.is_shared

    def where(self, name: str) -> str:
        return f"store/{name}"

    def list_objects(self) -> dict[str, ObjectStat]:
        return {name: ObjectStat(len(data), "1") for name, data in self.files.items()}

    def read_range(self, name: str, offset: int, length: int, stat: ObjectStat) -> bytes:
        return self.read(name)[offset : offset + length]

    def read(self, name: str) -> bytes:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.hold(name)
            if name not in self.files:
                raise UserError("no such object", where=self.where(name))
            return self.files[name]
        finally:
            with self.lock:
                self.now -= 1


class Fetched(Dataset):
    """Samples of one object each, all of whose making but the fetching must happen alone."""

    def __init__(self, store: Store, length: int = 64) -> None:
        self.compute_lock = ComputeLock()
        super().__init__(DatasetSpec(sources=[], codecs=[], augmentations={}, compute_lock=self.compute_lock))
        self.folder = RemoteFolder(store, compute_lock=self.compute_lock)  # type: ignore[arg-type]
        self.length = length
        self.busy = 0
        self.was_alone = True

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        self.compute()
        data = self.folder.fetch(str(key[1]))
        self.compute()
        return Sample({"images": np.frombuffer(data, np.uint8).reshape(1, 1, -1)}, {"images": str(key[1])})

    def load(self, index: int) -> dict[str, np.ndarray]:
        return self[0, index].arrays

    def compute(self) -> None:
        self.busy += 1
        self.was_alone &= self.busy == 1
        let_others_run()
        self.was_alone &= self.busy == 1
        self.busy -= 1


def let_others_run(name: str = "") -> None:
    """Gives threads that wait for nothing their chance to come between."""
    for _ in range(20):
        time.sleep(0)


def objects(count: int) -> dict[str, bytes]:
    return {str(index): bytes([index % 256, index // 256]) for index in range(count)}


def ahead_of(dataset: Fetched, on_error: OnError = OnError.RAISE) -> ReadAhead:
    ahead = ReadAhead(Guarded(dataset, on_error), dataset.compute_lock)
    ahead._most_ahead = read_ahead.THREADS  # as after a batch of small samples
    return ahead


def keys(start: int, end: int) -> list[tuple[int, int]]:
    return [(0, index) for index in range(start, end)]


def indices(reads: list) -> list[int]:
    return [int(read.sample.keys["images"]) for read in reads]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "read ahead":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def test_the_files_of_a_batch_are_waited_for_together() -> None:
    everyone = threading.Barrier(16, timeout=PATIENCE_S)  # opens when 16 wait
    dataset = Fetched(Store(objects(16), lambda name: everyone.wait()))
    assert indices(ahead_of(dataset).__getitems__(BatchRequest(keys(0, 16), ()))) == list(range(16))
    assert dataset.was_alone


def test_only_files_are_waited_for_together() -> None:
    dataset = Fetched(Store(objects(64)))
    ahead = ahead_of(dataset)
    for start in range(0, 64, 8):
        assert indices(
            ahead.__getitems__(BatchRequest(keys(start, start + 8), keys(start + 8, min(start + 24, 64))))
        ) == list(range(start, start + 8))
    assert dataset.was_alone


def test_the_next_batch_is_fetched_before_it_is_asked_for() -> None:
    fetched = {str(index): threading.Event() for index in range(8)}
    ahead = ahead_of(Fetched(Store(objects(8), lambda name: fetched[name].set())))
    ahead.__getitems__(BatchRequest(keys(0, 4), keys(4, 8)))
    assert all(event.wait(PATIENCE_S) for event in fetched.values())
    store = ahead.guarded.dataset.folder.store
    store.files = {}
    assert indices(ahead.__getitems__(BatchRequest(keys(4, 8), ()))) == [4, 5, 6, 7], "fetched again"


def test_a_batch_does_not_wait_for_the_next_one() -> None:
    opened = threading.Event()
    late = {str(index) for index in range(4, 8)}
    ahead = ahead_of(Fetched(Store(objects(8), lambda name: name in late and opened.wait(PATIENCE_S))))
    assert indices(ahead.__getitems__(BatchRequest(keys(0, 4), keys(4, 8)))) == [0, 1, 2, 3]
    opened.set()
    assert indices(ahead.__getitems__(BatchRequest(keys(4, 8), ()))) == [4, 5, 6, 7]


def test_no_more_threads_wait_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "THREADS", 3)
    opened = threading.Event()
    store = Store(objects(64), lambda name: opened.wait(PATIENCE_S))
    ahead = ahead_of(Fetched(store))
    for start in (0, 8, 16):
        ahead.__getitems__(BatchRequest((), keys(start, start + 8)))
    assert ahead._threads == 3
    opened.set()
    assert indices(ahead.__getitems__(BatchRequest(keys(16, 32), ()))) == list(range(16, 32))
    assert store.most <= 3


def test_samples_ahead_are_as_many_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Fetched(Store(objects(64)))
    ahead = ReadAhead(Guarded(dataset, OnError.RAISE), dataset.compute_lock)
    ahead.__getitems__(BatchRequest(keys(0, 2), keys(2, 4)))
    assert list(ahead._made) == [] and ahead._most_ahead == read_ahead.THREADS, "the size was not known"
    monkeypatch.setattr(read_ahead, "MOST_BYTES", 5)  # of two bytes each
    ahead.__getitems__(BatchRequest(keys(32, 40), ()))
    ahead.__getitems__(BatchRequest(keys(40, 44), keys(44, 64)))
    assert list(ahead._made) == keys(44, 46)


def test_a_store_that_no_threads_may_share_is_read_by_one() -> None:
    store = Store(objects(16), let_others_run, is_shared=False)
    assert indices(ahead_of(Fetched(store)).__getitems__(BatchRequest(keys(0, 16), ()))) == list(range(16))
    assert store.most == 1


def test_what_is_not_asked_for_any_more_is_forgotten() -> None:
    ahead = ahead_of(Fetched(Store(objects(16))))
    ahead.__getitems__(BatchRequest(keys(0, 2), keys(2, 6)))
    ahead.__getitems__(BatchRequest(keys(8, 10), keys(10, 11)))
    assert list(ahead._made) == keys(10, 11)


def test_a_bug_is_raised_where_its_sample_is_asked_for() -> None:
    def fail(name: str) -> None:
        if name == "5":
            raise ZeroDivisionError

    ahead = ahead_of(Fetched(Store(objects(8), fail)))
    ahead.__getitems__(BatchRequest(keys(0, 4), keys(4, 8)))
    with pytest.raises(ZeroDivisionError):
        ahead.__getitems__(BatchRequest(keys(4, 8), ()))


def test_each_worker_looks_ahead_along_its_own_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "THREADS", 4)
    batches = [keys(2 * at, 2 * at + 2) for at in range(7)]
    requests = list(PrefetchSampler(batches, num_workers=3))
    assert [each.keys for each in requests] == batches
    assert (
        requests[0].ahead == [*batches[3], *batches[6]] and requests[3].ahead == batches[6] and requests[4].ahead == []
    )
    assert [each.ahead for each in PrefetchSampler(batches, num_workers=0)] == [()] * 7


# As without it -------------------------------------------------------------------------------------------------------


def stored(count: int, missing: tuple[str, ...] = ()) -> dict[str, bytes]:
    files = {f"images/{i}.png": png(noise(4, 5, seed=i)) for i in range(count)}
    files |= {f"maps/{i}.png": png(noise(4, 5, 1, seed=i)) for i in range(count)}
    names = ", ".join(f'"{i}"' for i in range(count))
    files["all_filenames.json"] = f'{{"images": {{".": [{names}]}}, "maps": {{".": [{names}]}}}}'.encode()
    files["metadata.json"] = b'{"images": "png", "maps": "png"}'
    return {name: data for name, data in files.items() if name not in missing}


def images(is_ahead: bool, missing: tuple[str, ...] = ()) -> paired_images.Dataset:
    compute_lock = ComputeLock() if is_ahead else None
    folder = RemoteFolder(Store(stored(20, missing)), compute_lock=compute_lock)  # type: ignore[arg-type]
    codecs = [codec_for(name="images", ext="png"), codec_for(name="maps", ext="png", is_mask=True)]
    return build(
        paired_images.Dataset,
        [ObjectStoreSource(folder, {"images": "png", "maps": "png"})],
        codecs=codecs,
        augmentations={"resize_h_w": "6, 6", "rotate": 30, "horizontal_flip": True, "random_crop_h_w": "4, 4"},
        compute_lock=compute_lock,
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_are_the_same_from_any_position(num_workers: int) -> None:
    start = Position(1, 9)
    plain, ahead = (
        [
            (content(batch), position)
            for batch, position in islice(
                loader(images(is_ahead), 3, shuffle=True, num_workers=workers).stream(start), 12
            )
        ]
        for is_ahead, workers in ((False, 0), (True, num_workers))
    )
    assert ahead == plain and len(plain) == 12


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_is_read_once_and_again(num_workers: int) -> None:
    each = loader(images(True), 3, num_workers=num_workers, persistent_workers=True)
    expected = [content(batch) for batch in loader(images(False), 3).once()]
    for _ in range(2):
        assert [content(batch) for batch in each.once()] == expected
    del each


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_are_the_same(num_workers: int) -> None:
    missing = ("images/7.png", "maps/11.png")

    def say(is_ahead: bool, workers: int, on_error: OnError) -> tuple[list, str]:
        stream = loader(images(is_ahead, missing), 4, num_workers=workers, on_error=on_error).stream(Position())
        seen: list = []
        try:
            for batch, _ in islice(stream, 5):
                seen.append(content(batch))
        except UserError as error:
            return seen, str(error)
        return seen, ""

    for on_error in (OnError.RAISE, OnError.RESAMPLE):
        assert say(True, num_workers, on_error) == say(False, 0, on_error)
    assert "store/images/7.png" in say(True, num_workers, OnError.RAISE)[1]


def test_it_can_be_sent_to_a_process_that_is_spawned() -> None:
    ahead = pickle.loads(pickle.dumps(ReadAhead(Guarded(images(True), OnError.RAISE), ComputeLock())))
    source = ahead.guarded.dataset.spec.sources[0]
    assert source.folder.compute_lock is ahead.guarded.dataset.spec.compute_lock
    ahead = ReadAhead(ahead.guarded, ahead.guarded.dataset.spec.compute_lock)
    reads = ahead.__getitems__(BatchRequest(keys(0, 3), keys(3, 6)))
    assert [read.sample.keys["images"] for read in reads] == ["./0", "./1", "./2"]


def test_stores_that_answer_at_once_are_read_as_before() -> None:
    each = loader(Counted(8), 2)
    assert isinstance(each._torch_loader([keys(0, 2)]).dataset, Guarded)


@pytest.mark.parametrize("is_cached", [False, True])
def test_parts_of_one_object_come_with_and_without_a_cache(tmp_path: Path, is_cached: bool) -> None:
    """Processes and threads lock an entry of the cache while it is fetched; a turn is not waited for meanwhile."""

    class Parts(Fetched):
        def __getitem__(self, key: tuple[int, int]) -> Sample:
            self.compute()
            array = np.frombuffer(self.folder.read("shard", key[1], 2), np.uint8)
            self.compute()
            return Sample({"images": array.reshape(1, 1, 2)}, {"images": str(key[1])})

    everyone = threading.Barrier(16, timeout=PATIENCE_S)
    store = Store({"shard": bytes(range(66))}, let_others_run if is_cached else lambda name: everyone.wait())
    dataset = Parts(store)
    cache = DiskCache(tmp_path, 10**6) if is_cached else None
    dataset.folder = RemoteFolder(store, cache, dataset.compute_lock)  # type: ignore[arg-type]
    reads = ahead_of(dataset).__getitems__(BatchRequest(keys(0, 16), keys(16, 64)))
    assert [read.sample.arrays["images"].ravel().tolist() for read in reads] == [[i, i + 1] for i in range(16)]
    assert dataset.was_alone
