"""AlexNet in its one-tower form (Krizhevsky 2014), convolutions only."""

from __future__ import annotations

from functools import partial

from torch import nn

from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.weights import find_cached_file


def _steps() -> Steps:
    yield "features.0", nn.Conv2d(3, 64, 11, stride=4, padding=2)
    yield "features.1", nn.ReLU(inplace=True)
    yield "features.2", nn.MaxPool2d(3, stride=2)
    yield "features.3", nn.Conv2d(64, 192, 5, padding=2)
    yield "features.4", nn.ReLU(inplace=True)
    yield "features.5", nn.MaxPool2d(3, stride=2)
    yield "features.6", nn.Conv2d(192, 384, 3, padding=1)
    yield "features.7", nn.ReLU(inplace=True)
    yield "features.8", nn.Conv2d(384, 256, 3, padding=1)
    yield "features.9", nn.ReLU(inplace=True)
    yield "features.10", nn.Conv2d(256, 256, 3, padding=1)
    yield "features.11", nn.ReLU(inplace=True)


_RELUS = {1: "features.1", 2: "features.4", 3: "features.7", 4: "features.9", 5: "features.11"}

ALEXNET = Backbone(
    name="alexnet",
    steps=_steps,
    # conv_i is taken after its ReLU and so equals relu_i, as by all programs with torchvision's in-place ReLUs.
    taps={f"{kind}_{i}": path for i, path in _RELUS.items() for kind in ("conv", "relu")},
    find_weights=partial(find_cached_file, ("alexnet-owt-7be5be79.pth",)),
)
