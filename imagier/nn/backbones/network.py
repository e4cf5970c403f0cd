"""Features of a frozen, pretrained network, computed only as deep as asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.backbones import alexnet, efficientnet_lite, i3d, inception, resnet, vgg, vit
from imagier.nn.backbones.backbone import Backbone
from imagier.nn.backbones.weights import fit_weights, read_weights

_BACKBONES = {
    backbone.name: backbone
    for backbone in (
        vgg.VGG19,
        vgg.VGG16,
        vgg.VGG_FACE,
        alexnet.ALEXNET,
        inception.INCEPTION_V3,
        inception.INCEPTION_V3_SIGNED,
        inception.INCEPTION_FID,
        resnet.RESNET50,
        resnet.ROBUST_RESNET50,
        efficientnet_lite.EFFICIENTNET_LITE0,
    )
}

_OF_METRICS = {
    backbone.name: backbone for backbone in (vit.DINOV2_VITB14, vit.DINOV2_VITL14, vit.CLIP_VITL14_336, i3d.I3D)
}
"""For images of one size, or for clips."""


def build_feature_network(network: str, layers: Sequence[str], weights_path: str | None = None) -> FeatureNetwork:
    """Build the frozen network `network` down to the deepest of `layers` and load its pretrained weights.

    `weights_path`: a .pth, .pt or .safetensors file with torchvision's keys, which may lack the layers that are not
    used. By default the file is looked for in torch's cache under its torchvision name, and downloaded there.
    UserError: unknown network or layer; weights that cannot be found, read or loaded.
    """
    if network not in _OF_METRICS:
        check_network(network)
    backbone = (_BACKBONES | _OF_METRICS)[network]
    where = f"feature network {network}"
    if not layers:
        raise UserError("no layers given", where=where, advice=_suggest("", backbone.taps), code="no-layers")
    for layer in layers:
        if layer not in backbone.taps:
            raise UserError(
                f"no layer {layer!r}", where=where, advice=_suggest(layer, backbone.taps), code="unknown-layer"
            )
    path = find_weights(network, weights_path)
    return FeatureNetwork(backbone, layers, read_weights(path), source=str(path))


def find_weights(network: str, weights_path: str | None = None) -> Path:
    """The file of a network that `build_feature_network` knows: the given one, or else the one in its usual place.

    UserError: there is none there.
    """
    backbone = (_BACKBONES | _OF_METRICS)[network]
    return backbone.find_weights() if weights_path is None else Path(weights_path).expanduser()


def check_network(network: str) -> None:
    """UserError if it is none of `list_networks`."""
    if network not in _BACKBONES:
        raise UserError(f"no feature network {network!r}", advice=_suggest(network, _BACKBONES), code="unknown-network")


def list_networks() -> list[str]:
    """The networks of images of any size. `build_feature_network` knows those of metrics, too."""
    return list(_BACKBONES)


def list_layers(network: str) -> list[str]:
    """All names that `build_feature_network` accepts as layers of `network`, a name that it knows."""
    return list((_BACKBONES | _OF_METRICS)[network].taps)


class FeatureNetwork(nn.Module):
    """Images in [-1, 1], N x 3 x H x W -> {layer name: features}, as the pretrained network computes them.

    i3d gets clips, N x 3 x T x H x W.

    Frozen: no parameter requires gradients, and `train()` leaves it in eval mode. Gradients flow to the images.
    The keys of its state dict are torchvision's. Made by `build_feature_network`.
    """

    def __init__(
        self, backbone: Backbone, layers: Sequence[str], weights: Mapping[str, Tensor], *, source: str
    ) -> None:
        """`layers` are keys of `backbone.taps`; `source` names where `weights` come from in error messages."""
        super().__init__()
        self._chain: list[tuple[str, nn.Module]] = []  # the order of computation; registered by `_place`
        self._taps = {layer: backbone.taps[layer] for layer in layers}
        open_taps = set(self._taps.values())
        with torch.device("meta"):  # no memory and no random numbers for weights that the file replaces
            for path, step in backbone.steps():
                _place(self, path, step)
                self._chain.append((path, step))
                open_taps.discard(path)
                if not open_taps:
                    break
        fit_weights(self, weights, file_key=backbone.file_key, source=source)
        mean, std = torch.tensor((backbone.mean, backbone.std))
        # ((x + 1) / 2 - mean) / std in one pass over the image. Not persistent: the state dict is torchvision's.
        self.register_buffer("_scale", 0.5 / std, persistent=False)
        self.register_buffer("_shift", (0.5 - mean) / std, persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """N x 3 x H x W in [-1, 1] -> {layer: features}, in the order in which the layers were asked for."""
        shape = 1, 3, *[1] * (images.dim() - 2)
        scale, shift = self.get_buffer("_scale").view(shape), self.get_buffer("_shift").view(shape)
        x = torch.addcmul(shift, images.to(scale.dtype), scale)
        taken = {}
        wanted = set(self._taps.values())
        for path, step in self._chain:
            x = step(x)
            if path in wanted:
                taken[path] = x
        return {layer: taken[path] for layer, path in self._taps.items()}

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Does nothing but return self: the statistics of normalization layers are part of the frozen weights."""
        return super().train(False)


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` under a dotted path, with plain modules as containers on the way."""
    *parents, leaf = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(leaf, module)


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
