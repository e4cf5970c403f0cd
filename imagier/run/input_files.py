"""Which files of the caller's make up the inputs of an image: a folder, files, or a folder for each input type."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagier.data.sources.source import one_line, unique_names
from imagier.errors import UserError
from imagier.run.paths import no_such_path

logger = logging.getLogger(__name__)

IMAGES = frozenset(
    {"png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "hdr", "exr", "gif", "avif"}
)
"""Extensions of files that are taken for images."""


@dataclass(frozen=True)
class InputSample:
    """The files that one image is made of."""

    name: str
    """ "sequence/name"; also that of the image."""
    files: Mapping[str, Path]
    """By input type."""


class InputLister:
    """Finds the files of samples in what a caller names."""

    def __init__(self, types: Sequence[str], optional: Sequence[str] = (), extensions: Collection[str] = ()) -> None:
        """types: the input types that every sample has. optional: those that it may have, in folders of their own.

        extensions: those that count beside the usual ones of images.
        """
        self.types = list(types)
        self.optional = list(optional)
        self.extensions = IMAGES | {extension.lower() for extension in extensions}

    def list_samples(self, inputs: Sequence[str | Path]) -> list[InputSample]:
        """All samples, in order. UserError if something is not there, or lacks a partner."""
        by_type = self._split_by_type(inputs)
        if by_type is not None:
            return self._pair(by_type)
        files = self.list_files(inputs)
        if len(self.types) == 1:
            return [InputSample(name, {self.types[0]: path}) for name, path in files]
        return self._pair({name: self._strip_type(files, name) for name in self.types})

    def list_files(self, inputs: Sequence[str | Path]) -> list[tuple[str, Path]]:
        """The files that are named, or lie in named folders, with a name for each: its path within its folder."""
        found: list[tuple[str, Path]] = []
        left_out: list[Path] = []
        for each in map(Path, inputs):
            if each.is_dir():
                within = _walk(each)
                images = [path for path in within if self._is_image(path)]
                left_out += [path for path in within if not self._is_image(path)]
                found += [(path.relative_to(each).with_suffix("").as_posix(), path) for path in images]
            elif each.exists():
                found.append((each.stem, each))
            else:
                raise no_such_path(each, "no such file or folder", code="missing-input")
        if left_out:
            logger.info(f"left out, as they are no images: {len(left_out)} files, as {one_line(str(left_out[0]))}")
        if not found:
            where = ", ".join(str(each) for each in inputs)
            advice = f"expected files that end in {', '.join(sorted(self.extensions)[:6])}, ..."
            raise UserError("holds no images", where=where, advice=advice, code="no-files")
        names = [name if "/" in name else f"./{name}" for name, _ in found]
        return list(zip(unique_names(names), (path for _, path in found)))

    def _is_image(self, path: Path) -> bool:
        return path.suffix.removeprefix(".").lower() in self.extensions

    def _split_by_type(self, inputs: Sequence[str | Path]) -> dict[str, list[tuple[str, Path]]] | None:
        """The files of each type where a caller names them by type: TYPE=PATH, or a folder with one for each type."""
        known = [*self.types, *self.optional]
        named = [re.fullmatch(rf"({'|'.join(map(re.escape, known))})=(.+)", str(each)) for each in inputs]
        if any(named):
            if not all(named):
                advice = f"name all inputs by their type: {' '.join(f'{name}=DIR' for name in self.types)}"
                raise UserError("is only a part of them by type", where="inputs", advice=advice, code="mixed-inputs")
            paths: dict[str, list[str | Path]] = {}
            for match in named:
                if match is not None:
                    paths.setdefault(match[1], []).append(match[2])
        else:
            folders = [Path(each) for each in inputs]
            if not all((folder / name).is_dir() for folder in folders for name in self.types):
                return None
            there = [name for name in known if all((folder / name).is_dir() for folder in folders)]
            paths = {name: [folder / name for folder in folders] for name in there}
        missing = [name for name in self.types if name not in paths]
        if missing:
            what, advice = f"lack {', '.join(missing)}", f"add {missing[0]}=DIR"
            raise UserError(what, where="inputs", advice=advice, code="missing-input")
        return {name: self.list_files(of_type) for name, of_type in paths.items()}

    def _pair(self, by_type: Mapping[str, Sequence[tuple[str, Path]]]) -> list[InputSample]:
        first = self.types[0]
        if all(len(files) == 1 for files in by_type.values()):  # one of each: they belong together
            return [InputSample(by_type[first][0][0], {name: files[0][1] for name, files in by_type.items()})]
        tables = {name: dict(files) for name, files in by_type.items()}
        for name, files in tables.items():
            _check_partners(tables[first], files, name)
            if name in self.types:
                _check_partners(files, tables[first], first)
        return [InputSample(key, {name: files[key] for name, files in tables.items()}) for key in tables[first]]

    def _strip_type(self, files: Sequence[tuple[str, Path]], input_type: str) -> list[tuple[str, Path]]:
        """The files whose names end in a type, with what stands before it: "a_seg_maps" -> "a"."""
        pattern = re.compile(rf"(.+)[._-]{re.escape(input_type)}")
        stripped = [(match[1], path) for name, path in files if (match := pattern.fullmatch(name))]
        if not stripped:
            ways = " ".join(f"{name}=DIR" for name in self.types)
            raise UserError(
                f"an image is made of {' and '.join(self.types)}, but no file is of {input_type}",
                where="inputs",
                advice=f"name a folder that holds one for each of them, or {ways}, or files <name>_{input_type}",
                code="missing-input",
            )
        return stripped


def _check_partners(files: Mapping[str, Path], others: Mapping[str, Path], other_type: str) -> None:
    missing = [key for key in files if key not in others]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        what = f"has no partner of {other_type}{more}"
        where = one_line(str(files[missing[0]]))
        raise UserError(what, where=where, advice="add it or remove the file", code="missing-partner")


def _walk(top: Path) -> list[Path]:
    """All files below a folder, sorted, but for hidden ones. Follows links; UserError where it cannot look."""
    found: list[Path] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        where = one_line(str(error.filename))
        raise UserError(f"cannot be listed: {error.strerror}", where=where, code="unreadable-folder") from error

    for folder, subfolders, names in os.walk(top, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)  # a link to a folder that contains it
        subfolders[:] = [] if real in seen else sorted(name for name in subfolders if name[0] != ".")
        found += [Path(folder, name) for name in sorted(names) if name[0] != "." and real not in seen]
        seen.add(real)
    return found
