"""How small images may be for a network, so that a smaller one is reported as such and not by some layer inside."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn

from imagier.errors import UserError

LARGEST_PX = 4096
"""Where the search for the smallest size ends."""

Size = tuple[int, int]
"""Height and width, in px."""


class SizeProbe:
    """Finds out by trying: runs a copy of the network that holds no data, on torch's meta device.

    There layers check shapes and compute nothing. A run of sizes that fit costs nothing at all: the copy is made when
    something has failed.
    """

    def __init__(
        self,
        network: nn.Module,
        run: Callable[..., object] = nn.Module.__call__,
        *,
        where: str,
        multiple: int = 1,
        depth_keys: str = "",
    ) -> None:
        """run: calls a network on tensors N x C x H x W by name, `run(network, label=..., images=...)`.

        where: the section of the network in a config. multiple: sides are rounded down to multiples before the network
        sees them. depth_keys: keys of the section that can be lowered for smaller images.
        """
        self.network = network
        self.run = run
        self.where = where
        self.multiple = multiple
        self.depth_keys = depth_keys
        self._known: dict[object, bool] = {}

    def check(self, tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
        """UserError if a side of one of the named tensors N x C x H x W, if there, cannot be rounded down."""
        named = {name: tensors[name] for name in names if name in tensors}
        for name, tensor in named.items():
            if min(tensor.shape[-2:]) < self.multiple:
                raise self._too_small(name, tensor, self.smallest_px(_channels(named)) or self.multiple)

    @contextmanager
    def explain(self, **tensors: Tensor) -> Iterator[None]:
        """A context for running the network on these tensors: UserError if it fails because one is too small."""
        try:
            yield
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:  # how torch reports a map smaller than a kernel, padding or norm
            channels = _channels(tensors)
            for name, tensor in tensors.items():
                if self.passes((tensor.shape[-2], tensor.shape[-1]), channels):
                    continue
                smallest = self.smallest_px(channels)
                if smallest is not None:
                    raise self._too_small(name, tensor, smallest) from error
            raise

    def smallest_px(self, channels: Mapping[str, int]) -> int | None:
        """The smallest side of a square that the network takes, with those channels by name; None if there is none."""
        fails, passes = 0, self.multiple
        while not self.passes((passes, passes), channels):
            fails, passes = passes, 2 * passes
            if passes > LARGEST_PX:
                return None
        while passes - fails > self.multiple:
            middle = (fails + passes) // 2 // self.multiple * self.multiple
            if self.passes((middle, middle), channels):
                passes = middle
            else:
                fails = middle
        return passes

    def passes(self, size: Size, channels: Mapping[str, int]) -> bool:
        """Whether the network takes tensors of that size and those channels, by name."""
        question = (size, *channels.items())
        if question not in self._known:
            zeros = {name: torch.zeros(1, count, *size, device="meta") for name, count in channels.items()}
            self._known[question] = self._runs(zeros)
        return self._known[question]

    def _runs(self, tensors: Mapping[str, Tensor]) -> bool:
        try:
            with torch.no_grad():
                self.run(self._without_data, **tensors)
        except (RuntimeError, ValueError):
            return False
        return True

    @cached_property
    def _without_data(self) -> nn.Module:
        """A copy in eval mode whose parameters and buffers are on the meta device, at no cost of memory."""
        replaced: dict[int, object] = {}
        for parameter in self.network.parameters():
            replaced[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for buffer in self.network.buffers():
            replaced[id(buffer)] = buffer.detach().to("meta")
        return copy.deepcopy(self.network, replaced).float().eval()

    def _too_small(self, name: str, tensor: Tensor, smallest: int) -> UserError:
        height, width = tensor.shape[-2:]
        rounded = f", in multiples of {self.multiple} px," if self.multiple > 1 else ""
        what = f"{name} of {height} x {width} px{rounded} is too small: both sides must be at least {smallest} px"
        advice = "enlarge the images (augmentations)" + (f", or lower {self.depth_keys}" if self.depth_keys else "")
        return UserError(what, where=self.where, advice=advice, code="image-too-small")


def _channels(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: tensor.shape[1] for name, tensor in tensors.items()}
