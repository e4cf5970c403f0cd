"""Finds the flow of all sequences of a folder once, and stores it beside their frames as an input type."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Literal

from imagier.data.codec import InputType
from imagier.data.codecs import image
from imagier.data.codecs.flow import encode_flow
from imagier.data.decoding.video_files import EXTENSIONS, OpenVideos
from imagier.data.listing.frame_index import FrameIndex, SequenceRef
from imagier.data.sources.folder import FolderSource
from imagier.data.sources.opening import detect_store
from imagier.errors import UserError, suggest_sibling
from imagier.run.progress import ProgressBar, Update
from imagier.tools.flow.estimator import Estimator, Flow, Frame
from imagier.tools.flow.exact import Exact
from imagier.tools.flow.from_images import FromImages
from imagier.tools.flow.raft import RaftFlow
from imagier.train.disk import describe_error, remove_temporaries, write_atomic

FLOW = "flow"


@dataclass(frozen=True)
class FlowSummary:
    """What a call has done."""

    frames: int
    sequences: int
    known: int
    """Frames that were there before."""


def build_flow(
    root: Path,
    estimator: Literal["dis", "exact"] | RaftFlow = "dis",
    *,
    images: str = "images",
    extensions: dict[str, str] | None = None,
    workers: int = 2,
    progress: ProgressBar = lambda what: nullcontext(lambda done, total: None),
) -> FlowSummary:
    """Writes root/flow/<sequence>/<frame>.png for every frame: see imagier/data/codecs/flow.py.

    estimator: dis, exact, or RAFT. images: the input type of the frames; exact flow is not found in them. extensions:
    of the input types, where files of several lie in the folder; else found there. workers: threads, each with a
    sequence of its own.
    Frames that are there are not made again, so that a call continues one that was killed. UserError if it cannot be.
    """
    chosen, settings = _choose(estimator, root, images)
    known = dict(extensions or {})
    if root.is_dir() and detect_store(root, chosen.input_types) != "folder":
        advice = "find the flow of the folder that it was built from, and build it again"
        raise UserError("is no folder of files, but a store", where=root, advice=advice, code="not-a-folder")
    source = FolderSource(root, {name: known.get(name) or _find_extension(root, name) for name in chosen.input_types})
    codecs = [image.Codec(InputType(name=name, ext=source.extension(name))) for name in chosen.input_types]
    index = FrameIndex(source, codecs, OpenVideos())
    _claim(root, {**settings, "input_types": list(chosen.input_types)})
    named = _choose_names(root, index, known)
    paths = [_list_paths(root, named, sequence) for sequence in named.sequences]
    missing = [_list_missing(each) for each in paths]
    total, left = sum(map(len, paths)), sum(map(len, missing))
    if left:
        with progress(f"finding flow ({settings['estimator']})") as update:
            job = _Job(root, chosen, index, _Counter(total - left, total, update))
            job.run(list(zip(index.sequences, paths, missing)), workers)
    return FlowSummary(total, len(paths), total - left)


def _choose(estimator: Literal["dis", "exact"] | RaftFlow, root: Path, images: str) -> tuple[Estimator, dict[str, str]]:
    """The estimator, and what is to be written down about it."""
    if estimator == "exact":
        return Exact(root), {"estimator": estimator}
    if estimator == "dis":
        return FromImages(images), {"estimator": estimator}
    return FromImages(images, estimator), {"estimator": "raft", "weights_sha256": estimator.sha256}


class _Counter:
    """Counts frames over threads, which look at `stop` before each."""

    def __init__(self, done: int, total: int, update: Update) -> None:
        self.done, self.total, self.update = done, total, update
        self.lock, self.stop = Lock(), Event()

    def add(self) -> None:
        with self.lock:
            self.done += 1
            self.update(self.done, self.total)


_Task = tuple[SequenceRef, list[Path], list[int]]
"""A sequence, the files of its flow, and the numbers of those that are missing."""


@dataclass(frozen=True)
class _Job:
    root: Path
    estimator: Estimator
    index: FrameIndex
    counter: _Counter
    lock: Lock = field(default_factory=Lock)

    def run(self, tasks: list[_Task], workers: int) -> None:
        """All tasks, in threads. The first error stops them all."""
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._find_flow, *task) for task in tasks]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                self.counter.stop.set()  # where one has failed, and on Ctrl-C; else all have ended
                pool.shutdown(cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                future.result()

    def _find_flow(self, sequence: SequenceRef, paths: list[Path], missing: list[int]) -> None:
        before: tuple[int, Frame] | None = None
        for number in missing:
            if self.counter.stop.is_set():
                return
            frame = self._load(sequence, number)
            if number == 0:
                flow = Flow.unknown(*next(iter(frame.arrays.values())).shape[:2])
            else:
                is_next = before is not None and before[0] == number - 1
                past = before[1] if before is not None and is_next else self._load(sequence, number - 1)
                flow = self.estimator.estimate(frame, past)
            before = number, frame
            with _as_user_error(self.root), write_atomic(paths[number]) as file:
                file.write(encode_flow(flow.vectors, flow.known))
            self.counter.add()

    def _load(self, sequence: SequenceRef, number: int) -> Frame:
        with self.lock if self.index.video_keys else nullcontext():  # threads share the open video files
            stored = self.index.load(sequence, number)
        arrays = {name: each.array for name, each in stored.items()}
        return Frame(sequence.name, self.index.name(sequence, number), arrays)


def _choose_names(root: Path, index: FrameIndex, extensions: Mapping[str, str]) -> FrameIndex:
    """The same sequences, in which frames have names: those of a type with a file for each, if only videos are read."""
    stills = [name for name, ext in extensions.items() if name != FLOW and ext not in EXTENSIONS]
    if not index.video_keys or not stills:
        return index
    videos = {name: index.source.extension(name) for name in index.video_keys}
    source = FolderSource(root, {**videos, stills[0]: extensions[stills[0]]})
    codecs = [image.Codec(InputType(name=name, ext=source.extension(name))) for name in [*videos, stills[0]]]
    return FrameIndex(source, codecs, OpenVideos())


def _list_paths(root: Path, named: FrameIndex, sequence: SequenceRef) -> list[Path]:
    """The files of the flow of a sequence, without what a killed run may have left beside them."""
    folder = root / FLOW / sequence.name
    if folder.is_dir():
        remove_temporaries(folder)
    return [folder / f"{named.name(sequence, number)}.png" for number in range(sequence.length)]


def _list_missing(paths: Sequence[Path]) -> list[int]:
    """The numbers of the frames without flow, and of those after them: the frame before may be a new one."""
    is_there = [path.is_file() for path in paths]
    return [number for number in range(len(paths)) if not all(is_there[max(0, number - 1) : number + 1])]


def _claim(root: Path, settings: dict[str, object]) -> None:
    """Writes down how the flow of a folder is made. UserError if there is flow that was made in another way."""
    path, folder = root / f"{FLOW}.json", root / FLOW
    text = (json.dumps(settings) + "\n").encode()
    if path.is_file() and path.read_bytes() == text:
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            "holds flow that was made in another way",
            where=folder,
            advice=f"delete that folder, or ask for what it was made with (see {path})",
            code="other-flow",
        )
    with _as_user_error(root), write_atomic(path) as file:
        file.write(text)


def _find_extension(root: Path, input_type: str) -> str:
    """Of any file in the folder of an input type."""
    file = next((path for path in (root / input_type).rglob("*.*") if path.is_file()), None)
    if file is None:
        advice = suggest_sibling(root) if not root.is_dir() else f"frames are in {input_type}/<sequence>/"
        what = f"has no frames of the type {input_type!r}" if root.is_dir() else "no such folder"
        raise UserError(what, where=root, advice=advice or "check the path", code="missing-folder")
    return file.suffix.removeprefix(".")


@contextmanager
def _as_user_error(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "what is finished is kept; the same command continues"
        where = error.filename or root
        raise UserError(describe_error(error), where=where, advice=advice, code="unwritable") from error
