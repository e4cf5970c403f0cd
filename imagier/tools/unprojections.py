"""Turns the reference's pickles of points into images, once: trainings read no pickle."""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from imagier.data.codecs.unprojections import LARGEST, encode_points
from imagier.data.sources.opening import detect_store, open_local
from imagier.errors import UserError
from imagier.run.progress import ProgressBar
from imagier.train.disk import describe_error, remove_temporaries, write_atomic

POINTS = "unprojections"
"""The input type, and its folder."""

_ALLOWED = frozenset(
    {
        *(("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")),
        ("numpy._core.numeric", "_frombuffer"),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        *(("collections", name) for name in ("OrderedDict", "defaultdict")),
        *((module, "list") for module in ("builtins", "__builtin__")),
        ("_codecs", "encode"),
    }
)
"""What a pickle may name: arrays and plain containers."""

_RESOLUTION = re.compile(r"w([1-9][0-9]{0,3})xh([1-9][0-9]{0,3})")


class Resolution(NamedTuple):
    """The size of the images of points."""

    height: int
    width: int

    @classmethod
    def parse(cls, name: str, where: str) -> Resolution:
        """ "w1024xh512". where: where it was found. UserError if it is none."""
        found = _RESOLUTION.fullmatch(name)
        if found is None:
            raise UserError(f"{name!r} is no resolution such as w1024xh512", where=where, code="not-points")
        return cls(int(found[2]), int(found[1]))

    @property
    def name(self) -> str:
        """Its key in a pickle."""
        return f"w{self.width}xh{self.height}"


@dataclass(frozen=True)
class Summary:
    """What a call has done."""

    frames: int
    known: int
    """Frames that were there before."""
    resolution: str


def build_unprojections(
    root: Path,
    out: Path | None = None,
    *,
    resolution: str | None = None,
    progress: ProgressBar = lambda what: nullcontext(lambda done, total: None),
) -> Summary:
    """Writes out/unprojections/<sequence>/<frame>.png for every root/unprojections/<sequence>/<frame>.pkl.

    root: a folder of files, or a store. out: the same folder if left out. resolution: which of those in the pickles,
    such as w1024xh512; the largest of the first that has any if left out. Of several points in one pixel, the last is
    kept, as the reference drew them. Frames that are there are not made again. UserError if it cannot be.
    """
    if not root.is_dir():
        raise UserError("no such folder", where=root, advice="check the path", code="missing-folder")
    if out is None and detect_store(root, [POINTS]) != "folder":
        advice = "say where the images should go: --output_root DIR"
        raise UserError("is no folder of files, but a store", where=root, advice=advice, code="not-a-folder")
    source = open_local(root, {POINTS: "pkl"})
    keys = source.keys(POINTS)
    paths = [(out or root) / POINTS / f"{key}.png" for key in keys]
    for folder in {path.parent for path in paths if path.parent.is_dir()}:
        remove_temporaries(folder)
    chosen = None if resolution is None else Resolution.parse(resolution, "--resolution")
    for key in keys if chosen is None else ():
        where = source.where(POINTS, key)
        names = unpickle(source.read(POINTS, key), where)
        if names:
            sizes = [Resolution.parse(name, where) for name in names]
            chosen = max(sizes, key=lambda each: each.height * each.width)
            break
    if chosen is None:
        advice = "say which: --resolution w1024xh512"
        raise UserError("holds no points at all", where=root / POINTS, advice=advice, code="no-points")
    known = [path for path in paths if path.is_file()]
    _check_size(known, chosen)
    with progress("turning points into images") as update:
        for done, (key, path) in enumerate(zip(keys, paths), start=1):
            if not path.is_file():
                where = source.where(POINTS, key)
                _write(path, encode_points(draw(unpickle(source.read(POINTS, key), where), chosen, where)))
            update(done, len(paths))
    return Summary(len(paths), len(known), chosen.name)


def _check_size(known: Sequence[Path], resolution: Resolution) -> None:
    """UserError if a call with another resolution has made the images that are there."""
    for path in known[:1]:  # each call has looked at this one
        array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if array is None or array.shape[:2] != resolution:
            what = f"is there already, and not of {resolution.name}"
            raise UserError(what, where=path, advice="delete the images, or choose theirs", code="other-resolution")


def draw(points: Mapping[str, np.ndarray], resolution: Resolution, where: str) -> np.ndarray:
    """Rows, columns and points, flat, by resolution -> the number of the point of each pixel, H x W, int64.

    Numbers begin at 1; 0 where there is none. UserError if they are no points of such an image.
    """
    numbers = np.zeros(resolution, np.int64)
    if not points:
        return numbers
    if resolution.name not in points:
        what = f"holds points of {', '.join(sorted(points))}, but not of {resolution.name}"
        raise UserError(what, where=where, advice="choose one that all have: --resolution", code="other-resolution")
    flat = points[resolution.name]
    if flat.size % 3:
        raise UserError(f"holds {flat.size} numbers, which are not in threes", where=where, code="not-points")
    triples = flat.reshape(-1, 3)
    if ((triples < 0) | (triples >= (*resolution, LARGEST))).any():
        what = f"holds points outside of {resolution.height} x {resolution.width} pixels, or with negative numbers"
        raise UserError(what, where=where, code="not-points")
    rows, columns, names = triples.T
    numbers[rows, columns] = names + 1  # of a pixel that comes again, the last stays
    return numbers


def unpickle(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Flat integers by resolution. UserError if the pickle names anything but plain containers and arrays."""
    try:
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except UserError as error:
        raise error.at(where) from error
    except _DAMAGES as error:
        raise UserError(f"is no pickle that can be read ({error})", where=where, code="damaged") from error
    if not isinstance(loaded, np.ndarray) and not loaded:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise UserError("holds no points by resolution", where=where, code="not-points")
    return {name: _to_integers(value, where) for name, value in loaded.items()}


_DAMAGES = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What a damaged pickle can raise."""


class _Unpickler(pickle.Unpickler):
    """Reads arrays and plain containers, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """UserError for anything that points do not need."""
        module = module.replace("numpy.core.", "numpy._core.")  # what it was called before
        if (module, name) not in _ALLOWED:
            what = f"is a pickle that asks for {module}.{name}, which points do not need"
            raise UserError(what, advice="do not trust it", code="unsafe-pickle")
        return super().find_class(module, name)


def _to_integers(value: Any, where: str) -> np.ndarray:
    """A list, an array or nothing -> integers, flat."""
    try:
        array = np.asarray([] if value is None else value).reshape(-1)
    except ValueError as error:  # lists of unequal lengths
        raise UserError("holds no flat list of integers", where=where, code="not-points") from error
    if array.size and array.dtype.kind not in "iu":
        raise UserError(f"holds {array.dtype} instead of integers", where=where, code="not-points")
    return array.astype(np.int64)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomic(path) as file:
            file.write(data)
    except OSError as error:
        advice = "what is finished is kept; the same command continues"
        raise UserError(describe_error(error), where=path, advice=advice, code="unwritable") from error
