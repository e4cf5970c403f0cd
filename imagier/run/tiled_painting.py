"""Images that are larger than memory, painted tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from imagier.data.augmentation.warp import Part, Size
from imagier.errors import UserError
from imagier.nn.whole_image import Tile, WholeImage
from imagier.recipe import Batch, InferenceInputs, Recipe
from imagier.run.inference import infer_alone
from imagier.run.memory_source import Input
from imagier.run.progress import Advance
from imagier.run.sample_reader import SampleReader, join_batches
from imagier.run.tiles import Tiling
from imagier.train.runtime import Runtime


@dataclass(frozen=True)
class PaintedRows:
    """An image that is still to be painted."""

    size: Size
    paint: Callable[[Advance], Iterator[Tensor]]
    """Makes it piece by piece, from top to bottom: C x h x width, in [-1, 1] or beyond. It tells how far it is."""

    @classmethod
    def of_image(cls, image: Tensor) -> PaintedRows:
        """An image C x H x W that is painted, as one piece."""

        def paint(advance: Advance) -> Iterator[Tensor]:
            advance(1)
            yield image

        return cls((image.shape[-2], image.shape[-1]), paint)


def check_can_tile(needs: InferenceInputs, method: str) -> None:
    """UserError if tiles of a method would not fit together."""
    if needs.is_style_aligned:
        what = f"{method} gives every object one look, and tiles cut objects"
        advice = "leave it out, or train without the encoder of objects (enc.num_feat_channels: 0)"
        raise UserError(what, where="tile", advice=advice, code="no-tiles")


class TiledSample:
    """The inputs of an image, of which a tile at a time is brought to the device."""

    def __init__(self, reader: SampleReader, inputs: Mapping[str, Input], together: Sequence[str], size: Size) -> None:
        """together: the input types that show the same, pixel by pixel. size: of the image."""
        self.reader, self.together, self.size = reader, together, size
        self.stored, self.expander = reader.read_stored(inputs, together, size)
        self.others = reader.read_others(inputs, together)

    def cut(self, part: Part) -> Batch:
        """A tile on the device. What lies beyond the image shows its last row and column."""
        height, width = self.size
        rows = torch.arange(part.top, part.bottom).clamp(max=height - 1)
        columns = torch.arange(part.left, part.right).clamp(max=width - 1)
        pixels = {
            name: x[:, rows][:, :, columns] if name in self.together else x for name, x in self.stored.tensors.items()
        }
        present = self.expander.find_present(pixels)
        on_device = {name: x.to(self.reader.device) for name, x in pixels.items()}
        batch = self.expander(Batch(on_device, self.stored.keys))
        return join_batches(batch if present is None else batch.replace(label_present=present), self.others)


class TilePainter:
    """Paints tiles of images so that they fit together."""

    def __init__(self, recipe: Recipe, runtime: Runtime, compute: Callable[[], AbstractContextManager[None]]) -> None:
        """recipe: in eval mode. compute: a context in which everything is computed."""
        self.recipe = recipe
        self.runtime = runtime
        self.compute = compute

    @cached_property
    def whole(self) -> WholeImage:
        """The network, which sees tiles as parts of their image. UserError if it cannot."""
        return WholeImage(self.recipe.networks[self.recipe.generator_name])

    def paint(
        self, sample: TiledSample, tiling: Tiling, seeds: Sequence[int], arguments: Mapping[str, Any]
    ) -> PaintedRows:
        """An image that is painted in tiles, of the size of its input.

        Statistics that a network takes of a whole image are those of a first pass, over tiles without overlap.
        """
        grid, apart = (each.lay(sample.size, self.recipe.size_multiple) for each in (tiling, tiling.without_overlap()))
        whole = self.whole
        recipe = self.recipe.with_networks(**{self.recipe.generator_name: whole.network})
        noted = apart.list_parts() if whole.has_statistics else []

        def paint(advance: Advance) -> Iterator[Tensor]:
            def paint_tile(part: Part) -> Tensor:
                whole.look_at(Tile(part.top, part.left, part.size, grid.size))
                advance(1 / (len(noted) + len(grid.list_parts())))
                with self.compute():
                    return infer_alone(recipe, recipe.prepare(sample.cut(part)), seeds, self.runtime, arguments)

            whole.begin_notes()
            for part in noted:
                paint_tile(part)
            whole.end_notes()
            below = sample.size[0]
            for rows in grid.paint(paint_tile):
                yield rows[:, :below, : sample.size[1]]
                below -= rows.shape[1]

        return PaintedRows(sample.size, paint)
