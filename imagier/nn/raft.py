"""RAFT (Teed & Deng 2020, Recurrent all-pairs field transforms for optical flow): a flow that is refined step by step.

Of the full size. Its parameters are called as in the files raft-things.pth and raft-sintel.pth, which its authors gave
away under the BSD license; these names are the only thing here that is not from the paper (arXiv 2003.12039).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.warp import list_places

STRIDE = 8
"""The flow is searched at 1 / 8 of the full size."""
LEVELS, RADIUS = 4, 4
"""Sizes of the second image at which a pixel is looked for, and how far around its place, in pixels of each size."""
SMALLEST_PX = STRIDE * 2 ** (LEVELS - 1)

_FEATURES, _HIDDEN, _CONTEXT, _MOTION = 256, 128, 128, 128


class Raft(nn.Module):
    """Flow between two images (section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.fnet = Encoder(_FEATURES, nn.InstanceNorm2d)
        self.cnet = Encoder(_HIDDEN + _CONTEXT, nn.BatchNorm2d)
        self.update_block = UpdateBlock()

    def forward(self, images: Tensor, others: Tensor, num_steps: int = 20) -> Tensor:
        """N x 3 x H x W in [0, 1] -> flow N x 2 x H x W in pixels from the images to the others (nn/warp.py).

        num_steps: how often the flow is refined. Sides must be multiples of 8, of 64 px or more.
        """
        images, others = images * 2 - 1, others * 2 - 1
        pyramid = build_pyramid(*self.fnet(torch.cat([images, others])).chunk(2))
        hidden, context = self.cnet(images).split([_HIDDEN, _CONTEXT], dim=1)
        hidden, context = hidden.tanh(), context.relu()
        height, width = hidden.shape[2:]
        flow = images.new_zeros(len(images), 2, height, width)
        for _ in range(num_steps):
            found = look_up(pyramid, list_places(flow))
            hidden, change = self.update_block(hidden, context, found, flow)
            flow = flow + change
        return upsample(flow, self.update_block.weigh_neighbors(hidden))


def build_pyramid(features: Tensor, others: Tensor) -> list[Tensor]:
    """How alike the pixels of two images are (section 3.2): features N x C x H x W ->

    N*H*W x 1 x H' x W' of each pixel of the first with all of the second, at full size and at 1/2, 1/4 and 1/8.
    """
    count, channels, height, width = features.shape
    alike = features.flatten(2).mT @ others.flatten(2) / channels**0.5
    pyramid = [alike.reshape(count * height * width, 1, height, width)]
    for _ in range(LEVELS - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid


def look_up(pyramid: list[Tensor], places: Tensor) -> Tensor:
    """What a pyramid holds around a place of each pixel (section 3.2), bilinear, 0 outside.

    places: N x 2 x H x W, column and row. -> N x LEVELS (2 RADIUS + 1)^2 x H x W, level after level, each column after
    column, as the authors' weights want it.
    """
    count, _, height, width = places.shape
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=places.dtype, device=places.device)
    around = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)  # x is the slower one
    centers = places.movedim(1, -1).reshape(-1, 1, 1, 2)
    found = []
    for level, alike in enumerate(pyramid):
        sides = places.new_tensor(alike.shape[:1:-1])
        grid = (2 * (centers / 2**level + around) + 1) / sides - 1  # also right where a side is one pixel
        values = F.grid_sample(alike, grid, align_corners=False)
        found.append(values.view(count, height, width, -1))
    return torch.cat(found, dim=-1).movedim(-1, 1)


def upsample(flow: Tensor, logits: Tensor) -> Tensor:
    """Eight times the size: each vector is a mean of the 3 x 3 around it, with weights of its own (section 3.3).

    flow: N x 2 x H x W. logits: N x 9*8*8 x H x W. -> N x 2 x 8H x 8W, eight times as long
    """
    count, _, height, width = flow.shape
    weights = logits.view(count, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
    around = F.unfold(STRIDE * flow, 3, padding=1).view(count, 2, 9, 1, 1, height, width)
    fine = (weights * around).sum(dim=2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(count, 2, STRIDE * height, STRIDE * width)


class Encoder(nn.Module):
    """Features at 1 / 8 of the size (figure 6 of the appendix)."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.norm1 = norm(64)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1, norm), ResidualBlock(64, 64, 1, norm))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2, norm), ResidualBlock(96, 96, 1, norm))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, 2, norm), ResidualBlock(128, 128, 1, norm))
        self.conv2 = nn.Conv2d(128, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """N x 3 x H x W in [-1, 1] -> N x channels x H/8 x W/8."""
        x = self.norm1(self.conv1(images)).relu()
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class ResidualBlock(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = norm(outputs), norm(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x outputs x H/stride x W/stride."""
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return (self.downsample(x) + y).relu()


class UpdateBlock(nn.Module):
    """One step: what the flow should be changed by (section 3.3)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = SeparableGru()
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(nn.Conv2d(_HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * STRIDE**2, 1))

    def forward(self, hidden: Tensor, context: Tensor, found: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The state, what the first image shows, what `look_up` finds, the flow so far -> the state, the change."""
        hidden = self.gru(hidden, torch.cat([context, self.encoder(found, flow)], dim=1))
        return hidden, self.flow_head(hidden)

    def weigh_neighbors(self, hidden: Tensor) -> Tensor:
        """The logits of `upsample`."""
        return 0.25 * self.mask(hidden)  # the authors' networks were trained with this factor


class MotionEncoder(nn.Module):
    """Features of the flow, and of how well it fits."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, _MOTION - 2, 3, padding=1)

    def forward(self, found: Tensor, flow: Tensor) -> Tensor:
        """N x 324 x H x W, N x 2 x H x W -> N x 128 x H x W, of which the last two channels are the flow."""
        of_fit = self.convc2(self.convc1(found).relu()).relu()
        of_flow = self.convf2(self.convf1(flow).relu()).relu()
        return torch.cat([self.conv(torch.cat([of_fit, of_flow], dim=1)).relu(), flow], dim=1)


class SeparableGru(nn.Module):
    """A recurrent unit of convolutions (section 3.3): first along rows, then along columns."""

    def __init__(self) -> None:
        super().__init__()
        for number, kernel in ((1, (1, 5)), (2, (5, 1))):
            for gate in "zrq":
                padding = (kernel[0] // 2, kernel[1] // 2)
                conv = nn.Conv2d(_HIDDEN + _CONTEXT + _MOTION, _HIDDEN, kernel, padding=padding)
                self.add_module(f"conv{gate}{number}", conv)

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        """N x 128 x H x W, N x 256 x H x W -> the new hidden state."""
        for number in (1, 2):
            update, reset, new = (self.get_submodule(f"conv{gate}{number}") for gate in "zrq")
            both = torch.cat([hidden, x], dim=1)
            share = update(both).sigmoid()
            fresh = new(torch.cat([reset(both).sigmoid() * hidden, x], dim=1)).tanh()
            hidden = (1 - share) * hidden + share * fresh
        return hidden


class FlowHead(nn.Module):
    """The change of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(_HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """N x 128 x H x W -> N x 2 x H x W."""
        return self.conv2(self.conv1(hidden).relu())


def get_file_key(key: str) -> str:
    """The name of a parameter in the authors' files."""
    return f"module.{key}"
