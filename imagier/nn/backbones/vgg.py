"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015, table 1, columns D and E), and VGG-Face (Parkhi et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.weights import find_cached_file
from imagier.nn.conv import Conv2d

_WIDTHS = (64, 128, 256, 512, 512)


def _steps(depths: Sequence[int], num_classes: int) -> Steps:
    """Groups of `depths` convolutions, each group ended by a 2 x 2 pool; then three linear layers.

    The dropouts, at classifier.2 and classifier.5, are left out: they do nothing in evaluation mode.
    """
    index, channels = 0, 3
    for depth, width in zip(depths, _WIDTHS):
        for _ in range(depth):
            yield f"features.{index}", Conv2d(channels, width, 3, padding=1)
            yield f"features.{index + 1}", nn.ReLU(inplace=True)
            index, channels = index + 2, width
        yield f"features.{index}", nn.MaxPool2d(2)
        index += 1
    yield "avgpool", nn.AdaptiveAvgPool2d(7)
    yield "flatten", nn.Flatten()
    yield "classifier.0", nn.Linear(512 * 7 * 7, 4096)
    yield "classifier.1", nn.ReLU(inplace=True)
    yield "classifier.3", nn.Linear(4096, 4096)
    yield "classifier.4", nn.ReLU(inplace=True)
    yield "classifier.6", nn.Linear(4096, num_classes)


def _conv_indices(depths: Sequence[int]) -> dict[str, int]:
    """`group_position`, both from 1, of every convolution -> its index in `features`; its ReLU is at index + 1."""
    indices = {}
    index = 0
    for group, depth in enumerate(depths, start=1):
        for position in range(1, depth + 1):
            indices[f"{group}_{position}"] = index
            index += 2
        index += 1
    return indices


def _face_key(key: str) -> str:
    """features.0.weight -> conv1_1.weight, classifier.0.bias -> fc6.bias."""
    layer, kind = key.rsplit(".", 1)
    return f"{_FACE_LAYERS[layer]}.{kind}"


_DEPTHS_16 = (2, 2, 3, 3, 3)
_DEPTHS_19 = (2, 2, 4, 4, 4)
_CONVS_16 = _conv_indices(_DEPTHS_16)
_CONVS_19 = _conv_indices(_DEPTHS_19)
_RELUS_16 = {f"relu_{place}": f"features.{index + 1}" for place, index in _CONVS_16.items()}
_RELUS_19 = {f"relu_{place}": f"features.{index + 1}" for place, index in _CONVS_19.items()}
_FACE_LAYERS = {f"features.{index}": f"conv{place}" for place, index in _CONVS_16.items()} | {
    "classifier.0": "fc6",
    "classifier.3": "fc7",
    "classifier.6": "fc8",
}

VGG19 = Backbone(
    name="vgg19",
    steps=partial(_steps, _DEPTHS_19, 1000),
    # fc_2, the second linear layer, is taken after its ReLU, as by all programs with torchvision's in-place ReLUs.
    taps=_RELUS_19 | {"pool_5": "features.36", "fc_2": "classifier.4"},
    find_weights=partial(find_cached_file, ("vgg19-dcbb9e9d.pth",)),
)

VGG16 = Backbone(
    name="vgg16",
    steps=partial(_steps, _DEPTHS_16, 1000),
    taps=_RELUS_16,
    find_weights=partial(find_cached_file, ("vgg16-397923af.pth",)),
)

VGG_FACE = Backbone(
    name="vgg_face_dag",
    steps=partial(_steps, _DEPTHS_16, 2622),
    # conv_*, fc6 and fc7 are taken after their ReLU too (see fc_2): conv_1_1 and relu_1_1 are the same. The images
    # are normalized as for ImageNet, although these weights were trained on BGR in [0, 255]: the loss weights of the
    # published configurations were tuned that way.
    taps={f"conv_{place}": f"features.{index + 1}" for place, index in _CONVS_16.items()}
    | {layer: path for layer, path in _RELUS_16.items() if layer.endswith("_1")}
    | {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
    find_weights=partial(find_cached_file, ("vgg_face_dag.pth",), "www.robots.ox.ac.uk/~albanie/pytorch-models.html"),
    file_key=_face_key,
)
