"""Inception v3 (Szegedy et al. 2016, table 1): up to the global average pool, and the one that FID is defined by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.weights import find_cached_file


class _ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self, in_channels: int, width: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | str = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


@dataclass(frozen=True)
class _Conv:
    """A convolution of a branch: its name in the weight file, its number of filters, its size."""

    name: str
    width: int
    kernel: int | tuple[int, int] = 1


@dataclass(frozen=True)
class _Branch:
    """A chain of convolutions of one block."""

    convs: Sequence[_Conv]
    ends: Sequence[_Conv] = ()
    """Convolutions that all read the chain's output, and whose outputs are concatenated."""
    pool: Callable[[Tensor], Tensor] | None = None
    """What it begins with."""
    stride: int = 1
    """Of the last of `convs`. One that strides is not padded; all others keep the size."""


# A 3 x 3 pool that keeps the size. In the mean of the first, the border's zeros count.
_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)
_average_inside = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_Pool = Callable[[Tensor], Tensor]


class _Mixed(nn.Module):
    """Branches beside each other, concatenated (Szegedy et al. 2016, figures 5 to 7 and 10)."""

    def __init__(self, in_channels: int, branches: Sequence[_Branch], max_pool: bool = False) -> None:
        """`max_pool` adds a branch that is a 3 x 3 max-pool of stride 2 and nothing else."""
        super().__init__()
        self._branches = branches
        self._max_pool = max_pool
        for branch in branches:
            channels = in_channels
            for conv in branch.convs:
                strides = branch.stride > 1 and conv is branch.convs[-1]
                stride, padding = (branch.stride, 0) if strides else (1, "same")
                self.add_module(conv.name, _ConvNorm(channels, conv.width, conv.kernel, stride, padding))
                channels = conv.width
            for end in branch.ends:
                self.add_module(end.name, _ConvNorm(channels, end.width, end.kernel, padding="same"))

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch in self._branches:
            y = branch.pool(x) if branch.pool is not None else x
            for conv in branch.convs:
                y = self.get_submodule(conv.name)(y)
            outputs += [self.get_submodule(end.name)(y) for end in branch.ends] or [y]
        if self._max_pool:
            outputs.append(F.max_pool2d(x, 3, stride=2))
        return torch.cat(outputs, dim=1)


def _make_mixed_5(in_channels: int, pool_width: int, pool: _Pool) -> _Mixed:
    """Figure 5: the 5 x 5 convolution of the first Inception also as two of 3 x 3; 35 x 35 pixels."""
    return _Mixed(
        in_channels,
        [
            _Branch([_Conv("branch1x1", 64)]),
            _Branch([_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, 5)]),
            _Branch([_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, 3), _Conv("branch3x3dbl_3", 96, 3)]),
            _Branch([_Conv("branch_pool", pool_width)], pool=pool),
        ],
    )


def _make_mixed_6a() -> _Mixed:
    """Figure 10: halves the size; 35 x 35 -> 17 x 17 pixels."""
    double = [_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, 3), _Conv("branch3x3dbl_3", 96, 3)]
    return _Mixed(288, [_Branch([_Conv("branch3x3", 384, 3)], stride=2), _Branch(double, stride=2)], max_pool=True)


def _make_mixed_6(width: int, pool: _Pool) -> _Mixed:
    """Figure 6: 7 x 7 convolutions split into rows and columns; 17 x 17 pixels."""
    row, column = (1, 7), (7, 1)
    single = [
        _Conv("branch7x7_1", width),
        _Conv("branch7x7_2", width, row),
        _Conv("branch7x7_3", 192, column),
    ]
    double = [
        _Conv("branch7x7dbl_1", width),
        _Conv("branch7x7dbl_2", width, column),
        _Conv("branch7x7dbl_3", width, row),
        _Conv("branch7x7dbl_4", width, column),
        _Conv("branch7x7dbl_5", 192, row),
    ]
    pooled = _Branch([_Conv("branch_pool", 192)], pool=pool)
    return _Mixed(768, [_Branch([_Conv("branch1x1", 192)]), _Branch(single), _Branch(double), pooled])


def _make_mixed_7a() -> _Mixed:
    """Figure 10 with a 7 x 7 branch: halves the size; 17 x 17 -> 8 x 8 pixels."""
    single = [_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, 3)]
    wide = [
        _Conv("branch7x7x3_1", 192),
        _Conv("branch7x7x3_2", 192, (1, 7)),
        _Conv("branch7x7x3_3", 192, (7, 1)),
        _Conv("branch7x7x3_4", 192, 3),
    ]
    return _Mixed(768, [_Branch(single, stride=2), _Branch(wide, stride=2)], max_pool=True)


def _make_mixed_7(in_channels: int, pool: _Pool) -> _Mixed:
    """Figure 7: 3 x 3 convolutions split into a row and a column beside each other; 8 x 8 pixels."""
    row, column = (1, 3), (3, 1)
    single = _Branch(
        [_Conv("branch3x3_1", 384)],
        ends=[_Conv("branch3x3_2a", 384, row), _Conv("branch3x3_2b", 384, column)],
    )
    double = _Branch(
        [_Conv("branch3x3dbl_1", 448), _Conv("branch3x3dbl_2", 384, 3)],
        ends=[_Conv("branch3x3dbl_3a", 384, row), _Conv("branch3x3dbl_3b", 384, column)],
    )
    pooled = _Branch([_Conv("branch_pool", 192)], pool=pool)
    return _Mixed(in_channels, [_Branch([_Conv("branch1x1", 320)]), single, double, pooled])


def _steps(pool: _Pool = _average, last_pool: _Pool = _average) -> Steps:
    yield "Conv2d_1a_3x3", _ConvNorm(3, 32, 3, stride=2)
    yield "Conv2d_2a_3x3", _ConvNorm(32, 32, 3)
    yield "Conv2d_2b_3x3", _ConvNorm(32, 64, 3, padding=1)
    yield "maxpool1", nn.MaxPool2d(3, stride=2)
    yield "Conv2d_3b_1x1", _ConvNorm(64, 80, 1)
    yield "Conv2d_4a_3x3", _ConvNorm(80, 192, 3)
    yield "maxpool2", nn.MaxPool2d(3, stride=2)
    yield "Mixed_5b", _make_mixed_5(192, 32, pool)
    yield "Mixed_5c", _make_mixed_5(256, 64, pool)
    yield "Mixed_5d", _make_mixed_5(288, 64, pool)
    yield "Mixed_6a", _make_mixed_6a()
    for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        yield name, _make_mixed_6(width, pool)
    yield "Mixed_7a", _make_mixed_7a()
    yield "Mixed_7b", _make_mixed_7(1280, pool)
    yield "Mixed_7c", _make_mixed_7(2048, last_pool)
    yield "avgpool", nn.AdaptiveAvgPool2d(1)


def _fid_steps() -> Steps:
    yield from _steps(_average_inside, _maximum)
    yield "flatten", nn.Flatten()
    yield "fc", nn.Linear(2048, 1008, bias=False)


INCEPTION_V3 = Backbone(
    name="inception_v3",
    steps=_steps,
    # Images are normalized by ImageNet's mean and deviation, as the loss has always fed this network, although
    # these weights were trained on images in [-1, 1].
    taps={"pool_1": "maxpool1", "pool_2": "maxpool2", "mixed_6e": "Mixed_6e", "pool_3": "avgpool"},
    find_weights=partial(find_cached_file, ("inception_v3_google-0cc3c7bd.pth",)),
)

INCEPTION_V3_SIGNED = replace(INCEPTION_V3, name="inception_v3_signed", mean=(0.5,) * 3, std=(0.5,) * 3)
"""The same, fed with images in [-1, 1]: of imaginaire's scores of images."""

INCEPTION_FID = Backbone(
    name="inception_fid",
    steps=_fid_steps,
    # The network of 2015 whose features define FID and KID, and whose classes, without their bias, define IS. Its
    # averages leave out the border, and its last block takes maxima.
    taps={"pool": "flatten", "logits": "fc"},
    find_weights=partial(
        find_cached_file,
        ("pt_inception-2015-12-05-6726825d.pth",),
        page="the releases of mseitzer/pytorch-fid on GitHub (fid_weights)",
    ),
    mean=(128 / 255,) * 3,
    std=(128 / 255,) * 3,
)
