"""Patch discriminators of an image with what it is made from, of parts of it, and of clips of frames.

Wang et al., Video-to-Video Synthesis, 2018, section 3.1; parts of people as in few-shot vid2vid (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.conv import WeightNorm
from imagier.nn.norm import Norm
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.poses import FINDERS, CropKind, Crops, crop
from imagier.nn.reference_names import Rules
from imagier.ranges import Count, NonNegative, Positive

Judgment = tuple[list[Tensor], list[list[Tensor]]]
"""Of one image or clip by one discriminator: logits of each scale, and features of each scale and layer."""


@dataclass(frozen=True, kw_only=True)
class PatchParams:
    """Patch discriminators of images, or of clips, at several scales."""

    kernel_size: Positive = 4
    """Height and width of the kernels. [pixels]"""
    num_filters: Positive = 64
    """Width of the first layer; it doubles from layer to layer. [channels]"""
    max_num_filters: Positive = 512
    """Largest width. [channels]"""
    num_discriminators: Positive = 3
    """Scales: the first discriminator sees full size, each other one half the size of the one before."""
    num_layers: Count = 3
    """Layers after the first, the score aside; all but the last of them halve the size."""
    activation_norm_type: Norm = "none"
    """Norm after each convolution but the last."""
    weight_norm_type: WeightNorm = "spectral"
    """Norm of the weights of convolutions."""


@dataclass(frozen=True, kw_only=True)
class CropParams(PatchParams):
    """Discriminators of a part of each image."""

    crop_func: CropKind
    """The part: face, or hand (each hand that is seen), as the label shows them."""
    loss_weight: NonNegative = 1.0
    """Weight of their adversarial loss."""


@dataclass(frozen=True, kw_only=True)
class TemporalParams(PatchParams):
    """Discriminators of clips; those of scale s see every num_frames^s-th frame."""

    num_scales: Count = 1
    """Scales in time, each with discriminators of its own."""


class ClipDiscriminator(nn.Module):
    """Discriminators of one frame, of parts of it, and of the clips that end with it."""

    def __init__(
        self,
        *,
        image_channels: int,
        context_channels: int,
        crop_channels: int,
        num_frames: int,
        image: PatchParams,
        additional_discriminators: Mapping[str, CropParams] | None,
        temporal: TemporalParams | None,
    ) -> None:
        """context_channels: of what is shown beside an image. crop_channels: of an image whose parts are shown.

        num_frames: length of the clips. UserError if a discriminator cannot be called so, or cannot have its norm.
        """
        super().__init__()
        self.num_frames = num_frames
        others = additional_discriminators or {}
        _check_names(others, [f"T{scale}" for scale in range(temporal.num_scales if temporal else 0)])
        _check_norms(others)
        self.crop_funcs = {name: params.crop_func for name, params in others.items()}
        self.crop_weights = {name: params.loss_weight for name, params in others.items()}
        self.image = _patches(context_channels + image_channels, image)
        self.crops = nn.ModuleDict({name: _patches(crop_channels, params) for name, params in others.items()})
        scales = range(temporal.num_scales) if temporal else ()
        self.temporal = nn.ModuleList(_patches(image_channels * num_frames, temporal or image) for _ in scales)

    @property
    def temporal_names(self) -> list[str]:
        """The names of the discriminators of clips."""
        return [f"T{scale}" for scale in range(len(self.temporal))]

    def judge(self, context: Tensor, images: Tensor) -> Judgment:
        """N x L x H x W, N x C x H x W -> what is thought of the images as a whole."""
        return self.image(torch.cat([context, images], dim=1))

    def find_crops(self, label: Tensor, lengths: Mapping[str, int]) -> dict[str, Crops]:
        """Where the parts by name are in the images of a label N x L x H x W. lengths: channels of its input types."""
        return {name: FINDERS[part](label, lengths) for name, part in self.crop_funcs.items()}

    @property
    def memory(self) -> int:
        """How many frames before the current one it looks at."""
        return (self.num_frames - 1) * self.num_frames ** (len(self.temporal) - 1) if len(self.temporal) else 0

    def forward(
        self,
        context: Tensor,
        images: Tensor,
        crops: Mapping[str, Crops],
        past: Sequence[Tensor] = (),
        reference: Tensor | None = None,
    ) -> dict[str, Judgment | None]:
        """What is shown beside the images, N x L x H x W, and they themselves, N x C x H x W.

        crops: the parts by name. past: the images of the frames before, the oldest first. reference: N x C x H x W, the
        same parts of which are shown beside those of the images.

        -> what each finds: "image", the names of the parts, "T0", "T1", ... None: no part is seen, or no clip is long
        enough.
        """
        found: dict[str, Judgment | None] = {"image": self.judge(context, images)}
        cropped = images if reference is None else torch.cat([images, reference], dim=1)
        for name, network in self.crops.items():
            part = crop(cropped, crops[name])
            found[name] = None if part is None else network(part)
        for scale, network in enumerate(self.temporal):
            clip = pick_clip([*past, images], self.num_frames, scale)
            found[f"T{scale}"] = None if clip is None else network(clip)
        return found

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the networks alone, as torch's Module.compile: what they are shown differs from frame to frame."""
        for network in (self.image, *self.crops.values(), *self.temporal):
            network.compile(*args, **kwargs)

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return (
            (r"\bdiscriminators\.(\d+)\.layers\.(\d+)\.", r"discriminator_\1.layer\2.0."),
            (r"^image\.", "net_D."),
            (r"^crops\.(\w+)\.", r"net_D_\1."),
            (r"^temporal\.(\d+)\.", r"net_DT\1."),
        )


def _check_names(names: Iterable[str], of_clips: Sequence[str]) -> None:
    """UserError if a discriminator of parts cannot be called so."""
    for name in names:
        if name in ("image", "raw", *of_clips) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            what = f"a discriminator cannot be called {name!r}"
            advice = "choose another name of letters, digits and underscores"
            raise UserError(what, where="additional_discriminators", advice=advice, code="name-taken")


def _check_norms(others: Mapping[str, CropParams]) -> None:
    """UserError if ranks that see hands would wait for those that see none."""
    for name, params in others.items():
        if params.crop_func == "hand" and params.activation_norm_type == "sync_batch":
            what = "cannot be sync_batch for hands, which one process may see and another not"
            where = f"additional_discriminators.{name}.activation_norm_type"
            raise UserError(what, where=where, advice="choose instance", code="not-supported")


def _patches(in_channels: int, params: PatchParams) -> MultiScalePatchDiscriminator:
    options = {name: getattr(params, name) for name in PatchParams.__dataclass_fields__}
    return MultiScalePatchDiscriminator(in_channels, **options)


def pick_clip(frames: Sequence[Tensor], num_frames: int, scale: int) -> Tensor | None:
    """The last frame, and those before it, each num_frames^scale earlier, as channels: N x (num_frames C) x H x W.

    frames: N x C x H x W each, the oldest first. None if there are not enough of them.
    """
    stride = num_frames**scale
    span = stride * (num_frames - 1)
    return torch.cat(list(frames[-span - 1 :: stride]), dim=1) if len(frames) > span else None
