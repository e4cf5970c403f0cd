"""A label map at the sizes of all layers that it modulates."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from imagier.nn.norm import PartialMap


class LabelMaps:
    """A label at several sizes, each computed once, when it is first needed."""

    def __init__(self, maps: Sequence[Tensor], channels: Tensor | None, interpolation: str, base: int) -> None:
        """maps: the label alone, or with all that it is needed at: at half, a quarter, ..., 1 / base of its size."""
        self.largest = maps[0]
        self.channels = channels
        self.interpolation = interpolation
        self.base = base
        self.by_scale = {2**halvings: x for halvings, x in enumerate(maps)} if len(maps) > 1 else {}

    def at(self, scale: int) -> PartialMap:
        """The label at 1 / scale of its size, which is rounded down to multiples of `base`."""
        if scale not in self.by_scale:
            self.by_scale[scale] = self._resize(scale, self.interpolation)
        return PartialMap(self.by_scale[scale], self.channels)

    def coarse(self) -> PartialMap:
        """The label at 1 / base of its size, by nearest neighbor if it has to be resized."""
        found = self.by_scale.get(self.base)
        return PartialMap(self._resize(self.base, "nearest") if found is None else found, self.channels)

    def _resize(self, scale: int, interpolation: str) -> Tensor:
        height, width = (side // self.base * (self.base // scale) for side in self.largest.shape[-2:])
        return F.interpolate(self.largest, size=(height, width), mode=interpolation)
