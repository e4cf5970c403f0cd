"""The images that inference writes: their formats and names; none is half-written, none replaces an input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from imagier.errors import UserError
from imagier.train.disk import describe_error, shorten_name, write_atomic
from imagier.train.hooks.images import encode

JPEG_QUALITY = 99

FORMATS = ("png", "jpg", "webp", "tiff")
"""All but jpg keep every value."""

_MOST_PX = {"webp": 16383, "jpg": 65500}
"""The longest side that a format can hold."""


class ImageFolder:
    """Writes images into a folder, as <sequence>/<name>.<format>."""

    def __init__(self, folder: Path, image_format: str, inputs: Iterable[Path] = ()) -> None:
        """inputs: the files or folders that are read, which must stay as they are. UserError if they would not."""
        if image_format not in FORMATS:
            advice = f"choose one of {', '.join(FORMATS)}"
            raise UserError(f"is {image_format!r}", where="format", advice=advice, code="wrong-format")
        self.folder = folder
        self.format = image_format
        self._inputs = [path.resolve() for path in inputs]
        self._refuse(folder.resolve(), folder)

    def descend(self, name: str) -> ImageFolder:
        """A folder within this one, for the same kind of images."""
        return ImageFolder(self.folder / name, self.format, self._inputs)

    def get_path(self, name: str, suffix: str = "") -> Path:
        """Where the image, or the file with another suffix, of a name, "sequence/name", goes.

        UserError if an input is there.
        """
        sequence, _, last = name.rpartition("/")
        path = self.folder / sequence / shorten_name(f"{last}.{suffix or self.format}")
        self._refuse((path.parent.resolve() / path.name), path)
        return path

    def write(self, name: str, image: np.ndarray) -> Path:
        """Writes H x W x 3, uint8; returns the path. UserError if it cannot be written; then nothing is left of it."""
        path = self.get_path(name)
        most = _MOST_PX.get(self.format)
        if most is not None and max(image.shape[:2]) > most:
            raise UserError(
                f"is {image.shape[0]} x {image.shape[1]} px, but {self.format} can hold at most {most}",
                where=path,
                advice="choose the `format` png",
                code="too-large-for-format",
            )
        with self.open(path) as file:
            file.write(encode(image, path.suffix, JPEG_QUALITY))
        return path

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """A file of the folder to write, complete or not at all. UserError if it cannot be written."""
        try:
            with write_atomic(path) as file:
                yield file
        except OSError as error:
            raise _explain(error, path) from error

    def _refuse(self, resolved: Path, path: Path) -> None:
        for taken in self._inputs:
            if resolved == taken or (resolved.is_relative_to(taken)):
                raise UserError(
                    "is an input" if resolved == taken else f"lies within the inputs, {taken}",
                    where=path,
                    advice="write elsewhere, so that no input is replaced",
                    code="output-in-input",
                )


def _explain(error: OSError, path: Path) -> UserError:
    blocking = next((parent for parent in reversed(path.parents) if parent.is_file()), None)
    if blocking is not None:
        what = f"cannot be written: {blocking} is a file, where a folder must go"
        return UserError(what, where=path, advice="remove it, or write elsewhere", code="file-in-the-way")
    if path.is_dir():
        what = "cannot be written: there is a folder of that name"
        return UserError(what, where=path, advice="remove it, or write elsewhere", code="file-in-the-way")
    what = f"cannot be written: {describe_error(error)}"
    return UserError(what, where=path, advice="make room, or write elsewhere", code="unwritable-image")
