"""Sets of images to be measured: a folder of images or videos, shards, or an LMDB."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from imagier.data.decoding.decode import EncodedFile, read_pixels
from imagier.data.decoding.video_files import EXTENSIONS as VIDEOS
from imagier.data.decoding.video_files import OpenVideos, count_frames
from imagier.data.sources.opening import detect_store, open_local
from imagier.data.sources.source import Source, one_line, unique_names
from imagier.errors import UserError
from imagier.run.input_files import InputLister
from imagier.run.paths import COMPARISON, ROOT_NAME, no_such_path

logger = logging.getLogger(__name__)

_DECODED_AHEAD = 64
"""Images; more would take memory that large ones do not leave."""


@dataclass(frozen=True)
class StoredImage:
    """An image of a set, not yet decoded."""

    name: str
    where: str
    ext: str
    open: Callable[[], BinaryIO]
    frame: int | None = None
    """Its number, if it is one of a video."""

    def read(self, videos: OpenVideos) -> np.ndarray:
        """H x W x 3, uint8, red, green, blue; gray images become three equal channels. UserError if it is none."""
        if self.frame is not None:
            return videos.frame(self.frame, self.where, self.open)
        with self.open() as file:
            encoded = EncodedFile(file.read(), self.ext, self.where)
        return _to_rgb(read_pixels(encoded, 3), self.where)


def open_image_set(path: Path, input_type: str) -> list[StoredImage]:
    """All images of a set, sorted by name.

    path: a folder that has images or videos in it, or below; shards; an LMDB; or a file. input_type: that of the
    images, in shards and LMDBs. UserError if there are none. What `imagier infer` writes beside frames is not counted
    a second time: the video of a folder of frames, and comparisons.
    """
    if not path.exists():
        raise no_such_path(path, "no such file or folder", code="missing-input")
    if path.is_dir() and detect_store(path, [input_type]) != "folder":
        stored = _list_store(open_local(path, {input_type: "png"}), input_type)
        if not stored:
            raise UserError(f"holds no {input_type}", where=path, advice="name its input type", code="no-images")
        return stored
    images: list[StoredImage] = []
    files = InputLister([input_type], extensions=VIDEOS).list_files([path])
    if path.is_dir():
        kept = _leave_out_copies([file for _, file in files], path)
        files = list(zip(unique_names(file.relative_to(path).with_suffix("").as_posix() for file in kept), kept))
    for name, file in files:
        images += _list_file(name.removeprefix("./"), file)
    return sorted(images, key=lambda image: image.name)


def read_images(images: Sequence[StoredImage], num_threads: int) -> Iterator[np.ndarray]:
    """The pixels of the images, in order; decoded ahead by threads. UserError at the first one that is damaged."""
    videos = OpenVideos()
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(images), _DECODED_AHEAD):
            part = images[start : start + _DECODED_AHEAD]
            if any(image.frame is not None for image in part):  # a decoder goes through its file once, in order
                yield from (image.read(videos) for image in part)
            else:
                yield from pool.map(lambda image: image.read(videos), part)


def label_by_folder(sets: Sequence[Sequence[StoredImage]], names: Sequence[object]) -> list[Tensor]:
    """The class of each image of each set, int64: the first folder of its name, of all sets together.

    names: of the sets, in messages. UserError: an image that lies in no folder; sets that share no class.
    """
    folders = [[image.name.rpartition("/")[0].partition("/")[0] for image in images] for images in sets]
    for of_set, images, name in zip(folders, sets, names):
        if not all(of_set):
            what = f"{images[of_set.index('')].name!r} lies in no folder that says its class"
            raise UserError(what, where=name, advice="give each class a folder", code="no-classes")
    if not set.intersection(*map(set, folders)):
        what = (
            f"no class of {' is one of '.join(f'{name} ({min(of_set)}, ...)' for name, of_set in zip(names, folders))}"
        )
        raise UserError(what, where=names[-1], advice="name folders alike, at the top of each set", code="no-classes")
    numbers = {folder: i for i, folder in enumerate(sorted({folder for of_set in folders for folder in of_set}))}
    return [torch.tensor([numbers[folder] for folder in of_set]) for of_set in folders]


def hash_image_set(images: Sequence[StoredImage]) -> str:
    """The SHA-256 of the names and stored contents of a set: another one is another set."""
    whole = hashlib.sha256()
    hashed: dict[str, bytes] = {}
    for image in images:
        if image.where not in hashed:
            with image.open() as file:
                hashed[image.where] = hashlib.sha256(file.read()).digest()
        whole.update(image.name.encode("utf-8", "surrogateescape") + b"\0" + hashed[image.where])
    return whole.hexdigest()


def _leave_out_copies(files: Sequence[Path], root: Path) -> list[Path]:
    """All but what `imagier infer` writes beside the frames of videos."""
    within = {file: file.relative_to(root) for file in files}
    images = {path.parent for path in within.values() if not _is_video(path)}
    has_results = any(path.parts[0] != COMPARISON for path in within.values())

    def is_copy(path: Path) -> bool:
        if path.parts[0] == COMPARISON and has_results:
            return True
        return _is_video(path) and (
            path.with_suffix("") in images or (path == Path(f"{ROOT_NAME}.mp4") and Path() in images)
        )

    kept = [file for file in files if not is_copy(within[file])]
    if len(kept) < len(files):
        logger.info(f"{root}: left out {len(files) - len(kept)} files that show the same frames again")
    return kept


def _is_video(path: Path) -> bool:
    return path.suffix.removeprefix(".").lower() in VIDEOS


def _list_store(source: Source, input_type: str) -> list[StoredImage]:
    images = [
        StoredImage(
            key, source.where(input_type, key), source.extension(input_type), partial(source.open, input_type, key)
        )
        for key in source.keys(input_type)
    ]
    return sorted(images, key=lambda image: image.name)


def _list_file(name: str, file: Path) -> list[StoredImage]:
    where, ext = one_line(str(file)), file.suffix.removeprefix(".").lower()
    opened = partial(_open_file, file)
    if ext not in VIDEOS:
        return [StoredImage(name, where, ext, opened)]
    return [StoredImage(f"{name}/{i:06}", where, ext, opened, i) for i in range(count_frames(opened(), where))]


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(str(error.strerror), where=one_line(str(path)), code="unreadable-file") from error


def _to_rgb(pixels: np.ndarray, where: str) -> np.ndarray:
    """Three channels of 8 bits."""
    if pixels.dtype == np.uint16:
        pixels = (pixels / 257).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        advice = "metrics are of images of 8 or 16 bits"
        raise UserError(f"holds {pixels.dtype} numbers", where=where, advice=advice, code="wrong-image")
    channels = pixels.shape[2]
    if channels == 4 and (pixels[..., 3] == 255).all():
        return pixels[..., :3]
    if channels not in (1, 3):
        what = "has transparent pixels" if channels in (2, 4) else f"has {channels} channels"
        raise UserError(what, where=where, advice="lay it on a background first", code="wrong-image")
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if channels == 1 else pixels
