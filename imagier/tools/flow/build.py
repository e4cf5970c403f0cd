"""Finds the flow of all sequences of a folder once, and stores it beside their frames as an input type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock

from imagier.data.codec import InputType
from imagier.data.codecs import image
from imagier.data.codecs.flow import encode_flow
from imagier.data.decoding.video_files import OpenVideos
from imagier.data.listing.frame_index import FrameIndex, SequenceRef
from imagier.data.sources.folder import FolderSource
from imagier.errors import UserError, suggest_sibling
from imagier.tools.flow.dis import Dis
from imagier.tools.flow.estimator import Estimator, Flow, Frame
from imagier.tools.flow.exact import Exact
from imagier.tools.progress import ProgressBar, Update
from imagier.train.disk import describe_error, remove_temporaries, write_atomic

FLOW = "flow"
ESTIMATORS = ("dis", "exact")


@dataclass(frozen=True)
class FlowSummary:
    """What a call has done."""

    frames: int
    sequences: int
    known: int
    """Frames that were there before."""


def build_flow(
    root: Path,
    estimator: str = "dis",
    *,
    images: str = "images",
    extensions: dict[str, str] | None = None,
    workers: int = 2,
    progress: ProgressBar = lambda what: nullcontext(lambda done, total: None),
) -> FlowSummary:
    """Writes root/flow/<sequence>/<frame>.png for every frame: see imagier/data/codecs/flow.py.

    estimator: dis or exact. images: the input type of the frames, for dis. extensions: of the input types, where
    files of several lie in the folder; else found there. workers: threads, each with a sequence of its own.
    Frames that are there are not made again, so that a call continues one that was killed. UserError if it cannot be.
    """
    made: Estimator = Exact(root) if estimator == "exact" else Dis(images)
    known = dict(extensions or {})
    source = FolderSource(root, {name: known.get(name) or _find_extension(root, name) for name in made.input_types})
    codecs = [image.Codec(InputType(name=name, ext=source.extension(name))) for name in made.input_types]
    index = FrameIndex(source, codecs, OpenVideos())
    _claim(root, {"estimator": estimator, "input_types": list(made.input_types)})
    tasks = [(index, sequence, _list_missing(root, index, sequence)) for sequence in index.sequences]
    total, left = sum(each.length for each in index.sequences), sum(len(missing) for _, _, missing in tasks)
    if left:
        with progress(f"finding flow ({estimator})") as update:
            _run_all(root, made, tasks, workers, _Counter(total - left, total, update))
    return FlowSummary(total, len(index.sequences), total - left)


class _Counter:
    """Counts frames over threads, and tells them when to stop."""

    def __init__(self, done: int, total: int, update: Update) -> None:
        self.done, self.total, self.update = done, total, update
        self.lock, self.stop = Lock(), Event()

    def add(self) -> None:
        with self.lock:
            self.done += 1
            self.update(self.done, self.total)


_Task = tuple[FrameIndex, SequenceRef, list[int]]


def _run_all(root: Path, estimator: Estimator, tasks: list[_Task], workers: int, counter: _Counter) -> None:
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_run, root, estimator, *task, counter) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            counter.stop.set()  # where one has failed, and on Ctrl-C; else all have ended
            pool.shutdown(cancel_futures=True)
    for future in futures:
        if not future.cancelled():
            future.result()


def _run(
    root: Path, estimator: Estimator, index: FrameIndex, sequence: SequenceRef, missing: list[int], counter: _Counter
) -> None:
    """The flow of some frames of a sequence."""
    load = partial(_load, index, sequence)
    before: tuple[int, Frame] | None = None
    for number in missing:
        if counter.stop.is_set():
            return
        frame = load(number)
        if number == 0:
            flow = Flow.unknown(*next(iter(frame.arrays.values())).shape[:2])
        else:
            past = before[1] if before is not None and before[0] == number - 1 else load(number - 1)
            flow = estimator.estimate(frame, past)
        before = number, frame
        with _as_user_error(root), write_atomic(_get_path(root, index, sequence, number)) as file:
            file.write(encode_flow(flow.vectors, flow.known))
        counter.add()


def _load(index: FrameIndex, sequence: SequenceRef, number: int) -> Frame:
    stored = index.load(sequence, number)
    arrays = {name: each.array for name, each in stored.items()}
    return Frame(sequence.name, index.name(sequence, number), arrays)


def _get_path(root: Path, index: FrameIndex, sequence: SequenceRef, number: int) -> Path:
    return root / FLOW / sequence.name / f"{index.name(sequence, number)}.png"


def _list_missing(root: Path, index: FrameIndex, sequence: SequenceRef) -> list[int]:
    folder = root / FLOW / sequence.name
    if folder.is_dir():
        remove_temporaries(folder)
    return [number for number in range(sequence.length) if not _get_path(root, index, sequence, number).is_file()]


def _claim(root: Path, settings: dict[str, object]) -> None:
    """Writes down how the flow of a folder is made. UserError if there is flow that was made in another way."""
    path, folder = root / f"{FLOW}.json", root / FLOW
    text = json.dumps(settings) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            "holds flow that was made in another way",
            where=folder,
            advice=f"delete that folder, or ask for what it was made with (see {path})",
            code="other-flow",
        )
    with _as_user_error(root), write_atomic(path) as file:
        file.write(text.encode())


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
