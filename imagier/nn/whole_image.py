"""Networks that see an image in tiles: what depends on the whole of it is noted in a first pass over all tiles.

Instance norms take mean and variance of a whole image. Of tiles, each would take its own, and the tiles of one image
would differ in contrast and color. So in a first pass, in which each tile is normalized by itself, mean and variance of
all tiles are put together; in a second pass all tiles are normalized by these. For the first norm of a network they are
those of the whole image; for later ones nearly so, as what they see was normalized tile by tile.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.blocks import Noise
from imagier.nn.norm import LayerNorm2d
from imagier.nn.positions import PositionalChannels
from imagier.nn.precision import to_full_precision

Size = tuple[int, int]
"""Height and width, in pixels."""


class Tile(NamedTuple):
    """A part of an image."""

    top: int
    left: int
    size: Size
    whole: Size
    """Of the image."""


class SpatialMean(nn.Module):
    """The mean of an image's activations, which depends on the whole of it."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> N x C."""
        return x.mean(dim=(2, 3))


class WholeImage:
    """A network for tiles of an image; it shares its weights with the given one, which stays as it is.

    whole = WholeImage(network)
    whole.begin_notes()
    for tile in tiles:
        whole.look_at(tile)  # Tile(top=0, left=512, size=(512, 512), whole=(4096, 4096))
        whole.network(pixels(tile))  # statistics are noted
    whole.end_notes()
    for tile in tiles:
        whole.look_at(tile)
        whole.network(pixels(tile))  # they are used
    """

    def __init__(self, network: nn.Module) -> None:
        """UserError if tiles of its images would not fit together."""
        if any(isinstance(module, Noise) for module in network.modules()):
            what = "the network adds noise to every pixel, and tiles would not share it"
            advice = "leave it out, or train with gen.apply_noise: false"
            raise UserError(what, where="tile", advice=advice, code="no-tiles")
        self._state = _State()
        kept = [*network.parameters(), *network.buffers()]
        self.network = copy.deepcopy(network, {id(tensor): tensor for tensor in kept})
        self._noted: list[_Noted] = []
        for parent in list(self.network.modules()):
            for name, child in parent.named_children():
                setattr(parent, name, self._wrap(child))

    @property
    def has_statistics(self) -> bool:
        """Whether anything is to be noted of an image."""
        return bool(self._noted)

    def begin_notes(self) -> None:
        """The tiles that come are those of another image, and are noted."""
        self._state.is_noting = True
        for noted in self._noted:
            noted.notes = []

    def end_notes(self) -> None:
        """The tiles that come use what is noted."""
        self._state.is_noting = False
        for noted in self._noted:
            noted.merge()

    def look_at(self, tile: Tile) -> None:
        """What the network sees next."""
        self._state.tile = tile
        for noted in self._noted:
            noted.calls = 0

    def _wrap(self, module: nn.Module) -> nn.Module:
        if isinstance(module, PositionalChannels):
            return _Placed(module, self._state)
        for kind, note, merge, apply in _KINDS:
            if isinstance(module, kind) and _sees_whole(module):
                self._noted.append(_Noted(module, note, merge, apply, self._state))
                return self._noted[-1]
        return module


@dataclass
class _State:
    tile: Tile | None = None
    is_noting: bool = False


Note = tuple[Tensor, ...]
Measure = Callable[..., Note]
"""(module, what it sees of a tile) -> what is noted of that."""
Merge = Callable[..., Note]
"""(module, the notes of all tiles, one below the other) -> what is known of the image."""
Apply = Callable[[Note, Tensor], Tensor]
"""(what is known of the image, what the module sees of a tile) -> its result."""


class _Noted(nn.Module):
    """A module whose result depends on the whole image: in tiles it follows from what was noted, call by call."""

    def __init__(self, module: nn.Module, note: Measure, merge: Merge, apply: Apply, state: _State) -> None:
        super().__init__()
        self.module = module
        self.note, self.merge_notes, self.apply_merged = note, merge, apply
        self.state = state
        self.notes: list[list[Note]] = []
        """Of each call that a pass makes, those of all tiles."""
        self.merged: list[Note] = []
        """Of each call."""
        self.calls = 0
        """Of the tile that is looked at."""

    def merge(self) -> None:
        """Puts together what is noted of all tiles."""
        self.merged = [self.merge_notes(self.module, *map(torch.stack, zip(*of_call))) for of_call in self.notes]
        self.notes = []

    def forward(self, x: Tensor) -> Tensor:
        """As of the module."""
        call, self.calls = self.calls, self.calls + 1
        if not self.state.is_noting:
            return self.apply_merged(self.merged[call], x)
        if call == len(self.notes):
            self.notes.append([])
        self.notes[call].append(self.note(self.module, x))
        return self.module(x)


class _Placed(nn.Module):
    """Positions in the whole image."""

    def __init__(self, positions: PositionalChannels, state: _State) -> None:
        super().__init__()
        self.positions = positions
        self.state = state

    def forward(self, like: Tensor) -> Tensor:
        """N x C x h x w, a tile at a smaller size -> N x 2 x h x w."""
        tile = self.state.tile
        assert tile is not None, "look_at says where a tile lies"
        height, width = like.shape[-2:]
        factor = tile.size[0] // height
        whole = self.positions(like.new_empty(len(like), 1, tile.whole[0] // factor, tile.whole[1] // factor))
        top, left = tile.top // factor, tile.left // factor
        return whole[:, :, top : top + height, left : left + width]


def _sees_whole(module: nn.Module) -> bool:
    """Whether a norm, of a kind that can, takes its statistics of whole images."""
    if isinstance(module, nn.InstanceNorm2d):
        return not module.track_running_stats
    return not isinstance(module, LayerNorm2d) or 2 in module.dims


def _moments(x: Tensor, dims: Sequence[int]) -> Note:
    """Mean and variance, which is biased, with the dimensions kept."""
    variance, mean = torch.var_mean(to_full_precision(x), dim=list(dims), keepdim=True, correction=0)
    return mean, variance


def _total(means: Tensor, variances: Tensor) -> Note:
    """Mean and variance of all tiles, which are as large as each other, from those of each (law of total variance)."""
    mean = means.mean(dim=0)
    return mean, (variances + (means - mean).square()).mean(dim=0)


def _affine(mean: Tensor, scale: Tensor, weight: Tensor | None, bias: Tensor | None) -> Note:
    """Factor and summand of x that normalize, N x C x 1 x 1, from what is subtracted and what is then multiplied by."""
    if weight is not None:
        scale = scale * weight[:, None, None]
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias[:, None, None]


def _merge_by_variance(norm: nn.InstanceNorm2d | nn.GroupNorm, means: Tensor, variances: Tensor) -> Note:
    mean, variance = _total(means, variances)
    return _affine(mean, torch.rsqrt(variance + norm.eps), norm.weight, norm.bias)


def _merge_layers(norm: LayerNorm2d, means: Tensor, variances: Tensor) -> Note:
    mean, variance = _total(means, variances)
    return _affine(mean, 1 / (variance.sqrt() + norm.eps), norm.gamma, norm.beta)


def _note_groups(norm: nn.GroupNorm, x: Tensor) -> Note:
    groups = x.unflatten(1, (norm.num_groups, -1))
    mean, variance = (each[..., 0] for each in _moments(groups, (2, 3, 4)))
    width = groups.shape[2]
    return mean.repeat_interleave(width, dim=1), variance.repeat_interleave(width, dim=1)


def _normalize(known: Note, x: Tensor) -> Tensor:
    scale, shift = known
    return torch.addcmul(shift, to_full_precision(x), scale).to(x.dtype)


_KINDS: tuple[tuple[type[nn.Module], Measure, Merge, Apply], ...] = (
    (nn.InstanceNorm2d, lambda norm, x: _moments(x, (2, 3)), _merge_by_variance, _normalize),
    (LayerNorm2d, lambda norm, x: _moments(x, norm.dims), _merge_layers, _normalize),
    (nn.GroupNorm, _note_groups, _merge_by_variance, _normalize),
    (SpatialMean, lambda mean, x: (mean(x),), lambda mean, means: (means.mean(dim=0),), lambda known, x: known[0]),
)
"""What depends on a whole image; what is noted of it; what that makes of a tile."""
