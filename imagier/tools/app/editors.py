"""The parts of a page in which an input is given: one for each way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np
from gradio.components import Component

from imagier.data.augmentation.augment import get_output_size
from imagier.data.augmentation.warp import Size
from imagier.data.codecs.image import lay_on
from imagier.data.decoding.decode import EncodedFile
from imagier.errors import UserError
from imagier.run.bundle.facts import find_class_names
from imagier.run.memory_source import Input
from imagier.tools.app.fields import Field, Form, Way
from imagier.tools.app.painting import Board, ClassColors, find_blank, to_grays, to_hex
from imagier.tools.app.samples import Sample

_SIZE = (256, 256)
"""Of a board, where neither a sample nor the config says it."""

_BRUSH = 12
"""Radius of the brush to begin with, in pixels of the board."""


class Editor(ABC):
    """A part of the page for one input type. `components` hold its value."""

    components: list[Component]

    def __init__(self, field: Field) -> None:
        self.field = field

    @property
    def css(self) -> str:
        """What it needs of the page."""
        return ""

    @abstractmethod
    def read(self, *values: Any) -> Input | None:
        """The input, made of the values of the components; None: nothing is given."""

    @abstractmethod
    def load(self, path: Path) -> list[Any]:
        """The values of the components that show a file. UserError if it is wrong."""

    @abstractmethod
    def rename(self, label: str) -> list[Any]:
        """Updates of the components that change what they are called."""


class FileEditor(Editor):
    """A file of any kind."""

    def __init__(self, field: Field, label: str) -> None:
        super().__init__(field)
        self.components = [gr.File(label=label, elem_id=f"input-{field.name}", height=140)]

    def read(self, *values: Any) -> Input | None:
        (path,) = values
        return path

    def load(self, path: Path) -> list[Any]:
        return [str(path)]

    def rename(self, label: str) -> list[Any]:
        return [gr.update(label=label)]


class ImageEditor(FileEditor):
    """An image, which is shown."""

    def __init__(self, field: Field, label: str) -> None:
        Editor.__init__(self, field)
        self.components = [
            gr.Image(
                label=label,
                type="filepath",
                image_mode=None,  # files stay as they are
                sources=["upload", "clipboard"],
                elem_id=f"input-{field.name}",
                height=300,
            )
        ]


class _Painted(Editor):
    """What is painted on a board. Its components: the board, and the size of the image on it."""

    sources: Sequence[Literal["upload", "clipboard"]] = ("upload", "clipboard")
    """Where the board itself takes images from."""

    def __init__(self, field: Field, label: str, board: Board, blank: np.ndarray, colors: Sequence[np.ndarray]) -> None:
        """blank: the color of an empty board. colors: those of the brush, the first one to begin with."""
        super().__init__(field)
        self.blank = blank
        self.hexes = [to_hex(color) for color in colors]
        self.canvas = gr.ImageEditor(
            value=_as_value(np.full((*board.shape, 3), blank, np.uint8)),
            label=label,
            type="numpy",
            image_mode="RGBA",
            format="png",
            sources=list(self.sources),
            transforms=[],
            layers=False,
            brush=self.make_brush(self.hexes[0]),
            eraser=gr.Eraser(default_size=_BRUSH),
            canvas_size=board.shape[::-1],
            elem_id=f"input-{field.name}",
            height=620,
        )
        self.size = gr.State(board.size)
        self.components = [self.canvas, self.size]

    def make_brush(self, color: str) -> Any:
        """The brush, in one of its colors."""
        return gr.Brush(default_size=_BRUSH, colors=list(self.hexes), default_color=color, color_mode="fixed")

    def read(self, *values: Any) -> Input | None:
        painted, size = values
        if painted is None or painted["composite"] is None:
            return None
        before = None if painted["background"] is None else self._lay(painted["background"])
        return self._store(self._lay(painted["composite"]), before, Board(tuple(size)))

    def load(self, path: Path) -> list[Any]:
        array = _read(self.field, path)
        board = Board((array.shape[0], array.shape[1]))
        return [_as_value(board.enlarge(self._show(array))), board.size]

    def rename(self, label: str) -> list[Any]:
        return [gr.update(label=label), gr.skip()]

    def _lay(self, painted: np.ndarray) -> np.ndarray:
        return lay_on(self.blank, painted)

    @abstractmethod
    def _store(self, painted: np.ndarray, before: np.ndarray | None, board: Board) -> np.ndarray:
        """Colors as the data set stores them. before: those of the board before it was painted on."""

    @abstractmethod
    def _show(self, array: np.ndarray) -> np.ndarray:
        """What the data set stores, H x W x C, in colors, H x W x 3, uint8."""


class ClassEditor(_Painted):
    """A map of classes, in their colors. `classes` chooses the brush, `file` opens a map of ids."""

    sources = ()  # a map of ids would be taken for one of colors

    def __init__(self, field: Field, label: str, size: Size, names: Sequence[str]) -> None:
        num_classes = field.codec.num_classes
        assert num_classes is not None
        self.class_colors = ClassColors(num_classes)
        shown = [*names, "nothing"][: len(self.class_colors.ids)]
        super().__init__(field, label, Board(size), self.class_colors.colors[0], list(self.class_colors.colors))
        choices = [(name, number) for number, name in enumerate(shown)]
        self.classes = gr.Radio(
            choices, value=0, label="Brush", elem_id=f"classes-{field.name}", elem_classes="classes"
        )
        self.file = gr.UploadButton("Open a map of class ids", size="sm", elem_id=f"open-{field.name}")

    @property
    def css(self) -> str:
        """Shows the color of each class before its name."""
        rule = "#classes-{} label:nth-of-type({})::before {{background: {}}}"
        return "\n".join(rule.format(self.field.name, i, color) for i, color in enumerate(self.hexes, 1))

    def choose(self, number: int) -> Any:
        """The update of the board that takes the brush of a class."""
        return gr.ImageEditor(brush=self.make_brush(self.hexes[number]))

    def _store(self, painted: np.ndarray, before: np.ndarray | None, board: Board) -> np.ndarray:
        return board.reduce_ids(self.class_colors.to_ids(painted, before))

    def _show(self, array: np.ndarray) -> np.ndarray:
        return self.class_colors.to_colors(array[..., 0])


class GrayEditor(_Painted):
    """A drawing in gray."""

    def __init__(self, field: Field, label: str, size: Size, blank: int) -> None:
        inks = [0, 85, 170, 255] if blank > 127 else [255, 170, 85, 0]
        super().__init__(field, label, Board(size), np.full(3, blank), [np.full(3, ink) for ink in inks])

    def _store(self, painted: np.ndarray, before: np.ndarray | None, board: Board) -> np.ndarray:
        return board.reduce_grays(to_grays(painted))

    def _show(self, array: np.ndarray) -> np.ndarray:
        if array.dtype != np.uint8:
            what, advice = (
                "holds numbers of more than 8 bits, which are not drawn",
                "make the image with `imagier infer`",
            )
            raise UserError(what, where=self.field.name, advice=advice, code="not-drawn")
        return self.field.codec.to_rgb(array)


def _as_value(background: np.ndarray) -> Any:
    """What a board shows."""
    return {"background": background, "layers": [], "composite": background}


def make_editor(form: Form, field: Field, label: str, samples: Sequence[Sample]) -> Editor:
    """The editor of a field. A board has the size and the paper of the first of the samples, if there is one."""
    if field.way in (Way.IMAGE, Way.FILE):
        return (ImageEditor if field.way is Way.IMAGE else FileEditor)(field, label)
    codec, size, blank = field.codec, get_output_size(form.generator.reader.split.augmentations) or _SIZE, 255
    if paths := [path for sample in samples for path in sample.files.get(field.name, [])]:
        array = _read(field, paths[0])
        if codec.num_classes is None and array.dtype != np.uint8:  # numbers, such as depths
            return FileEditor(field, label)
        size, blank = (array.shape[0], array.shape[1]), find_blank(to_grays(codec.to_rgb(array)))
    if codec.num_classes is None:
        return GrayEditor(field, label, size, blank)
    names = find_class_names(form.generator.config.run.data).get(codec.num_classes)
    return ClassEditor(field, label, size, names or [f"class {i}" for i in range(codec.num_classes)])


def _read(field: Field, path: Path) -> np.ndarray:
    return field.codec.load(EncodedFile(path.read_bytes(), path.suffix.removeprefix("."), path.name)).array
