"""Features of images for metrics: which network, and how an image gets into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.user_network import UserNetwork
from imagier.nn.backbones.i3d import FRAMES
from imagier.nn.backbones.network import build_feature_network, find_weights
from imagier.nn.backbones.weights import hash_file
from imagier.nn.precision import full_precision
from imagier.user_code import load_user_object

Resize = Callable[[Tensor, int], Tensor]


def resize_clean(images: Tensor, size: int) -> Tensor:
    """Bicubic with antialiasing, in floats, as Parmar et al. 2022 recommend: Pillow's to 0.0001 of 255.

    N x 3 x H x W -> N x 3 x size x size; it may leave the range of the images a little.
    """
    exact = torch.float32 if images.device.type == "mps" else torch.float64  # which that lacks
    return F.interpolate(images.to(exact), (size, size), mode="bicubic", antialias=True).to(images.dtype)


def resize_like_tensorflow1(images: Tensor, size: int) -> Tensor:
    """Bilinear without antialiasing, from the upper left corners of the pixels, as in the program that defined FID.

    N x 3 x H x W -> N x 3 x size x size.
    """
    for dim in (-2, -1):
        count = images.shape[dim]
        position = torch.arange(size, device=images.device) * (count / size)
        lower = position.floor().long()
        weight = (position - lower).view((-1, 1) if dim == -2 else (-1,))
        upper = (lower + 1).clamp(max=count - 1)
        images = torch.lerp(images.index_select(dim, lower), images.index_select(dim, upper), weight)
    return images


def resize_by_corners(images: Tensor, size: int) -> Tensor:
    """Bicubic without antialiasing, corner pixels on corner pixels, as imaginaire's scores had it."""
    return F.interpolate(images, (size, size), mode="bicubic", align_corners=True)


@dataclass(frozen=True)
class FeatureSpace:
    """Where distances between images are measured."""

    label: str
    """In the names of metrics: FD-EffLite0."""
    network: str
    layer: str
    dim: int
    size: int
    """Of the images that the network gets, in pixels."""
    resize: Resize = resize_clean
    logits: str | None = None
    """The layer of its class logits, if it has classes."""
    has_unit_length: bool = False
    """Whether features are divided by their lengths."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Of metrics, by their titles, where they are not title and label."""
    takes_clips: bool | None = False
    """Whether its network sees clips, and not images; None if that is not known."""


FEATURE_SPACES = {
    "efflite0": FeatureSpace("EffLite0", "efficientnet_lite0", "pool", 1280, 224, logits="fc"),
    "inception_fid": FeatureSpace("Inception", "inception_fid", "pool", 2048, 299, logits="logits"),
    "inception_fid_tf1": FeatureSpace(
        "Inception-TF1", "inception_fid", "pool", 2048, 299, resize_like_tensorflow1, logits="logits"
    ),
    "reference_inception": FeatureSpace(
        "Reference", "inception_v3_signed", "pool_3", 2048, 299, resize_by_corners, names={"FD": "FID", "KD": "KID"}
    ),
    "dinov2": FeatureSpace("DINOv2-B", "dinov2_vitb14", "pool", 768, 224),
    "dinov2_large": FeatureSpace("DINOv2-L", "dinov2_vitl14", "pool", 1024, 224),
    "clip": FeatureSpace("CLIP", "clip_vitl14_336", "pool", 768, 336, has_unit_length=True),
}
"""By the name in a config. `inception_fid` resizes as Parmar et al. 2022 do; `inception_fid_tf1` as older programs.

`reference_inception` is for comparisons with old logs of imaginaire, which called its distances FID and KID.
"""


CLIP_SPACES = {
    "i3d": FeatureSpace(
        "I3D", "i3d", "logits", 400, 224, resize_like_tensorflow1, names={"FVD": "FVD"}, takes_clips=True
    ),
}
"""Those of clips. The 400 logits, resized as in the program that defined FVD."""


@dataclass(frozen=True)
class UserSpace:
    """The features of a callable of the user's: "module:name"."""

    name: str
    names: Mapping[str, str] = field(default_factory=dict)
    takes_clips: bool | None = None
    dim: int = 0
    """0: not known before the first image."""
    logits: str | None = None
    """Not known either."""

    @property
    def label(self) -> str:
        """In the names of metrics."""
        return self.name.partition(":")[2]


def find_space(name: str) -> FeatureSpace | UserSpace:
    """A key of `FEATURE_SPACES` or `CLIP_SPACES`, or "module:name" of the user's. UserError if there is none."""
    if ":" in name:
        load_user_object(name, "features")
        return UserSpace(name)
    spaces = FEATURE_SPACES | CLIP_SPACES
    if name not in spaces:
        advice = f"choose from {', '.join(spaces)}, or name your own as module:name"
        raise UserError(f"no features {name!r}", where="features", advice=advice, code="unknown-features")
    return spaces[name]


class FeatureExtractor:
    """Images, or clips, -> features of one space, and class logits where it has them."""

    def __init__(self, name: str, device: torch.device, weights_path: str | None = None) -> None:
        """name: as of `find_space`. UserError: there is none; its weights are not there, or damaged."""
        self.name = name
        self.space = find_space(name)
        self._apply: _NetworkFeatures | _UserFeatures
        if isinstance(self.space, UserSpace):
            if weights_path is not None:
                advice = "leave them out; your code loads its own"
                raise UserError(f"{name} takes no weight file", where="weights", advice=advice, code="unused-weights")
            self._apply = _UserFeatures(name, device)
        else:
            self._apply = _NetworkFeatures(self.space, device, weights_path)

    @property
    def is_cacheable(self) -> bool:
        """Whether `describe` tells all that features depend on; code of the user's may read other files."""
        return isinstance(self.space, FeatureSpace)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """N x 3 x H x W in [0, 1] -> features, N x dim, and logits, N x classes or None; float32, on the same device.

        The images are first rounded to 8 bits, as they would be in files. Clips are N x T x 3 x H x W, cut into parts
        of 16 frames, each of which has a row. UserError: the user's code gives no features; a clip is too short.
        """
        images = cut_clips(images) if images.dim() == 5 else images
        cudnn = torch.backends.cudnn
        exact: AbstractContextManager[None] = nullcontext()
        if not images.is_cpu:  # there, torch may refuse to read these flags: after its newer API
            exact = cudnn.flags(cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False)
        with exact, full_precision(images):  # a run may make its images in less precision, but compares them in full
            return self._apply((images.float() * 255).round().clamp(0, 255))

    def describe(self) -> dict[str, str | int]:
        """What two numbers must have in common to be comparable."""
        return {
            "features": self.name,
            **self._apply.describe(),
            "quantization": "8 bit",
            "precision": "float32",
        }


class _NetworkFeatures:
    """Pixels in [0, 255] -> features and logits of one of our spaces."""

    def __init__(self, space: FeatureSpace, device: torch.device, weights_path: str | None) -> None:
        self._space = space
        layers = [layer for layer in (space.layer, space.logits) if layer is not None]
        self._network = build_feature_network(space.network, layers, weights_path).to(device)
        self._file = find_weights(space.network, weights_path)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        space = self._space
        resized = space.resize(pixels.flatten(0, -4), space.size) * (2 / 255) - 1
        # Networks of clips want N x 3 x T x H x W.
        taken = self._network(resized.unflatten(0, pixels.shape[:2]).transpose(1, 2) if pixels.dim() == 5 else resized)
        features = taken[space.layer].flatten(1)
        if space.has_unit_length:
            features = F.normalize(features, dim=1)
        return features, taken[space.logits] if space.logits is not None else None

    def describe(self) -> dict[str, str | int]:
        space = self._space
        return {
            "network": space.network,
            "layer": space.layer,
            "weights_sha256": hash_file(self._file),
            **({"frames": FRAMES} if space.takes_clips else {}),
            "size": space.size,
            "resize": space.resize.__name__.removeprefix("resize_"),
        }


class _UserFeatures:
    """Pixels in [0, 255] -> what the user's callable returns for them in [0, 1]: features, or features and logits."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._network = UserNetwork(name, device, "features")

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        output = self._network(pixels / 255)
        parts = output if isinstance(output, tuple) and len(output) == 2 else (output,)
        names = ("features", "classes")
        features, *logits = (self._network.check(part, (len(pixels), name), pixels) for part, name in zip(parts, names))
        return features, logits[0] if logits else None

    def describe(self) -> dict[str, str]:
        return self._network.describe()


def cut_clips(clips: Tensor) -> Tensor:
    """N x T x 3 x H x W -> M x 16 x 3 x H x W: consecutive parts without overlap; what is left over is not used.

    UserError: clips shorter than that.
    """
    count = clips.shape[1] // FRAMES
    if not count:
        what = f"clips of {clips.shape[1]} frames, but {FRAMES} are needed"
        raise UserError(what, where="features", advice="make longer ones, or leave the metric out", code="short-clips")
    return clips[:, : count * FRAMES].unflatten(1, (count, FRAMES)).flatten(0, 1)
