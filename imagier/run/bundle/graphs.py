"""A generator as a graph without Python: ONNX, and the file of torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from imagier.errors import UserError

OUTPUT = "fake_images"
"""The name of what all graphs return."""

OPSET = 18
"""Of ONNX: what ONNX Runtime has known since 1.14, in browsers and on phones, too."""

STYLE_IMAGES = "style_images"
"""The input whose images have a size of their own."""

_AXES = ("height", "width")


@dataclass(frozen=True)
class Graph:
    """A network of tensors, and the arguments that it takes for some samples."""

    network: nn.Module
    inputs: Mapping[str, Tensor]
    """Keyword arguments by name, float32: N x ... or N x C x H x W."""
    multiple: int
    """Sides of images are multiples of this."""

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The images N x C x H x W that the network makes of inputs."""
        return self.network(**inputs)

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as torch.export sees it, for any number and any size of images. UserError if it cannot."""
        samples = {name: self._enlarge(name, x) for name, x in self.inputs.items()}
        dims = {name: self._name_dims(name, x) for name, x in self.inputs.items()}
        try:
            with torch.no_grad(), _quiet():
                program = torch.export.export(self.network, (), kwargs=samples, dynamic_shapes=dims, strict=False)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise _cannot_export(error) from error
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # which names files of this machine
        return program

    def select(self, count: int, *, enlarged: bool = False) -> dict[str, Tensor]:
        """The inputs of the first `count` samples, again from the first one if there are fewer.

        enlarged: resized (nearest) to a size that is not square, if the samples are; images of styles to another one.
        """
        rows = torch.arange(count) % len(next(iter(self.inputs.values())))
        chosen = {name: x[rows] for name, x in self.inputs.items()}
        steps = {STYLE_IMAGES: (2, 1)}
        return {name: self._resize(x, steps.get(name, (1, 2))) if enlarged else x for name, x in chosen.items()}

    def write_pt2(self, path: Path) -> None:
        """Writes the file of torch.export."""
        with _quiet():
            torch.export.save(self.program, path)

    def write_onnx(self, path: Path) -> None:
        """Writes the ONNX file, its sides called batch, height and width."""
        import onnx_ir

        try:
            with torch.no_grad(), _quiet():
                made = torch.onnx.export(
                    self.program,
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=list(self.inputs),
                    output_names=[OUTPUT],
                    verbose=False,
                )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise _cannot_export(error) from error
        assert made is not None
        for value in (*made.model.graph.inputs, *made.model.graph.outputs):
            assert value.shape is not None
            value.shape = onnx_ir.Shape(name_shape(str(value.name), list(value.shape)))
        for node in made.model.graph.all_nodes():
            node.metadata_props.clear()  # names of modules, and once more the files
        made.save(path)

    def _resize(self, x: Tensor, steps: tuple[int, int]) -> Tensor:
        """Images with so many multiples more in height and width."""
        if x.dim() != 4:
            return x
        size = [side + step * self.multiple for side, step in zip(x.shape[-2:], steps)]
        return F.interpolate(x, size=size, mode="nearest")

    def _enlarge(self, name: str, x: Tensor) -> Tensor:
        """Two samples whose sides are all different, so that none is taken for another or for a constant."""
        x = x[torch.arange(2) % len(x)]
        return self._resize(x, (5, 6) if name == STYLE_IMAGES else (3, 4))

    def _name_dims(self, name: str, x: Tensor) -> dict[int, Any]:
        dims: dict[int, Any] = {0: Dim("batch", min=1)}
        if x.dim() == 4:
            prefix = "style_" if name == STYLE_IMAGES else ""
            for axis, side in enumerate(_AXES, start=2):
                dims[axis] = self.multiple * Dim(f"{prefix}{side}_units", min=1)
        return dims


def name_shape(name: str, shape: Sequence[object]) -> list[str | int]:
    """The shape of an input or output: "batch", "height" and "width" for what can vary, numbers for the rest."""
    words: list[str | int] = ["batch", *(int(str(size)) for size in shape[1:2])]
    if len(shape) == 4:
        words += [f"style_{side}" if name == STYLE_IMAGES else side for side in _AXES]
    return words


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While this is open, torch does not speak of its own affairs."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = [(each, each.level) for each in map(logging.getLogger, names)]
    for each, _ in levels:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in levels:
            each.setLevel(level)


def _cannot_export(error: Exception) -> UserError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    what = f"torch cannot make a graph of it ({reason[:200]})"
    advice = "its forward may use sizes only as numbers of dimensions: no `len`, no `int`, no branch on them"
    return UserError(what, where="the generator", advice=advice, code="no-graph")
