"""The images that inference writes: their formats and names; none is half-written, none replaces an input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from imagier.data.augmentation.warp import Size
from imagier.errors import UserError
from imagier.run.row_files import PngRows, TiffRows
from imagier.train.disk import describe_error, shorten_name, write_atomic
from imagier.train.hooks.images import encode

JPEG_QUALITY = 99

FORMATS = ("png", "jpg", "webp", "tiff")
"""All but jpg keep every value."""

_WITH_QUALITY, _WITH_16_BITS, _WITH_ALPHA = ("jpg", "webp"), ("png", "tiff"), ("png", "webp", "tiff")
_MOST_PX = {"webp": 16383, "jpg": 65500}
"""The longest side that a format can hold."""


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How images are stored."""

    name: str = "jpg"
    """One of FORMATS."""
    quality: int | None = None
    """Of jpg or webp, 1 to 100. None: JPEG_QUALITY; webp that keeps every value."""
    bits: int = 8
    """Of a channel: 8 or 16."""
    has_alpha: bool = False
    """Images have the alpha of their input, if that has one."""

    def __post_init__(self) -> None:
        """UserError for a format that there is not."""
        if self.name not in FORMATS:
            advice = f"choose one of {', '.join(FORMATS)}"
            raise UserError(f"is {self.name!r}", where="format", advice=advice, code="wrong-format")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"is {self.quality}, not 1 to 100", where="quality", code="wrong-number")
        if self.bits not in (8, 16):
            raise UserError(f"is {self.bits}, not 8 or 16", where="bits", code="wrong-number")
        self._refuse(self.quality is not None, "quality", _WITH_QUALITY, "keeps every value at any quality")
        self._refuse(self.bits == 16, "bits", _WITH_16_BITS, "has 8 bits")
        self._refuse(self.has_alpha, "alpha", _WITH_ALPHA, "has no alpha")

    def _refuse(self, is_wanted: bool, where: str, possible: tuple[str, ...], reason: str) -> None:
        if is_wanted and self.name not in possible:
            advice = f"leave it out, or choose the `format` {' or '.join(possible)}"
            raise UserError(f"{self.name} {reason}", where=where, advice=advice, code="wrong-format")

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the numbers of an image."""
        return np.uint8 if self.bits == 8 else np.uint16

    def encode(self, image: np.ndarray) -> bytes:
        """H x W x 3 or 4, red, green, blue, alpha -> the bytes of a file."""
        quality = JPEG_QUALITY if self.name == "jpg" and self.quality is None else self.quality
        return encode(image, f".{self.name}", quality)


class ImageFolder:
    """Writes images into a folder, as <sequence>/<name>.<format>."""

    def __init__(self, folder: Path, image_format: str | ImageFormat, inputs: Iterable[Path] = ()) -> None:
        """inputs: the files or folders that are read, which must stay as they are. UserError if they would not."""
        self.how = ImageFormat(name=image_format) if isinstance(image_format, str) else image_format
        self.folder = folder
        self._inputs = {path.resolve() for path in inputs}
        self._refuse(folder.resolve(), folder)

    @property
    def format(self) -> str:
        """What names of images end in."""
        return self.how.name

    def descend(self, name: str) -> ImageFolder:
        """A folder within this one, for the same kind of images."""
        return ImageFolder(self.folder / name, self.how, self._inputs)

    def get_path(self, name: str, suffix: str = "") -> Path:
        """Where the image, or the file with another suffix, of a name, "sequence/name", goes.

        UserError if an input is there.
        """
        sequence, _, last = name.rpartition("/")
        path = self.folder / sequence / shorten_name(f"{last}.{suffix or self.format}")
        self._refuse((path.parent.resolve() / path.name), path)
        return path

    def write(self, name: str, image: np.ndarray) -> Path:
        """Writes H x W x 3 or 4, of the format's numbers; returns the path.

        UserError if it cannot be written; then nothing is left of it.
        """
        path = self.get_path(name)
        if self.format == "tiff":  # OpenCV's do not say what a fourth channel is
            with self.open_rows(name, (image.shape[0], image.shape[1]), image.shape[2]) as write:
                write(image)
            return path
        self._check_size(path, image.shape[:2])
        with self.open(path) as file:
            file.write(self.how.encode(image))
        return path

    @contextmanager
    def open_rows(self, name: str, size: Size, channels: int) -> Iterator[Callable[[np.ndarray], None]]:
        """A function that writes the next rows of an image, h x W x channels: from top to bottom, all of them.

        The file is complete or not there. In memory is no more than some rows, where the format allows it: png, tiff.
        UserError as of `write`.
        """
        path = self.get_path(name)
        self._check_size(path, size)
        with self.open(path) as file:
            rows = _begin_rows(file, size, channels, self.how)
            yield rows.write
            rows.finish()

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """A file of the folder to write, complete or not at all. UserError if it cannot be written."""
        try:
            with write_atomic(path) as file:
                yield file
        except OSError as error:
            raise _explain(error, path) from error

    def _check_size(self, path: Path, size: tuple[int, ...]) -> None:
        most = _MOST_PX.get(self.format)
        if most is not None and max(size) > most:
            raise UserError(
                f"is {size[0]} x {size[1]} px, but {self.format} can hold at most {most}",
                where=path,
                advice="choose the `format` png",
                code="too-large-for-format",
            )

    def _refuse(self, resolved: Path, path: Path) -> None:
        for taken in (resolved, *resolved.parents):
            if taken in self._inputs:
                raise UserError(
                    "is an input" if resolved == taken else f"lies within the inputs, {taken}",
                    where=path,
                    advice="write elsewhere, so that no input is replaced",
                    code="output-in-input",
                )


class _Rows(Protocol):
    """A file that is being written."""

    def write(self, rows: np.ndarray) -> None: ...

    def finish(self) -> None: ...


class _AllRows:
    """A file whose format needs the whole image."""

    def __init__(self, file: IO[bytes], how: ImageFormat) -> None:
        self.file = file
        self.how = how
        self.rows: list[np.ndarray] = []

    def write(self, rows: np.ndarray) -> None:
        self.rows.append(rows)

    def finish(self) -> None:
        self.file.write(self.how.encode(np.concatenate(self.rows)))


def _begin_rows(file: IO[bytes], size: Size, channels: int, how: ImageFormat) -> _Rows:
    if how.name == "png":
        return PngRows(file, size, channels, how.bits)
    if how.name == "tiff":
        return TiffRows(file, size, channels, how.bits)
    return _AllRows(file, how)


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
