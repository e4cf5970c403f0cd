"""From stored bytes to what networks see, on the device: images in [-1, 1], labels with a channel per class.

Stills (N x H x W x C) and clips (N x T x H x W x C) alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from imagier.data.codec import Codec
from imagier.recipe import FEW_SHOT, Batch


class Expander:
    """Expands each input type and puts the label types together into `label`, in the order of `input_labels`.

    Those of several parts, such as flow, are there by themselves, too.
    """

    def __init__(self, codecs: Sequence[Codec], input_labels: Sequence[str], *, channels_last: bool = False) -> None:
        """input_labels: by their names in a batch."""
        self.codecs = {codec.name: codec for codec in codecs}
        self.labels = [codec for name in input_labels for codec in codecs if codec.batch_name == name]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def label_lengths(self) -> dict[str, int]:
        """Channels of every type in the label, in order."""
        lengths = {}
        for codec in self.labels:
            assert codec.channels is not None
            lengths[codec.batch_name] = codec.channels
        return lengths

    def __call__(self, batch: Batch) -> Batch:
        """Images N x ... x H x W x C as stored -> float32 N x ... x C x H x W; `label` replaces what makes it up,
        but for types of several parts.

        Of frames for reference the names begin with FEW_SHOT: `few_shot_images`, `few_shot_label`.

        Stored means uint8, int32 (holding 16 bits) or float32.
        """
        ready = {}
        for name, tensor in batch.tensors.items():
            prefix, codec = self._find(name)
            if codec is None:
                ready[name] = tensor
            elif codec not in self.labels or codec.batch_parts:  # flow may be a label, and losses look at it, too
                ready |= self._name_parts(codec, codec.expand(tensor), prefix)
        for prefix in ("", FEW_SHOT) if self.labels else ():
            if prefix + self.labels[0].name in batch.tensors:
                ready[f"{prefix}label"] = self._label(batch, prefix)
        return Batch(ready, batch.keys)

    def find_present(self, stored: Mapping[str, Tensor]) -> Tensor | None:
        """Which channels of `label` may hold other values than 0, N x L, bool; None without classes, or without label.

        stored: as in a batch, where it was read: there it costs little, and no device is waited for later.
        """
        if not any(codec.holds_classes for codec in self.labels) or any(
            codec.name not in stored for codec in self.labels
        ):
            return None
        return torch.cat([codec.find_present(stored[codec.name]) for codec in self.labels], dim=1)

    def _find(self, name: str) -> tuple[str, Codec | None]:
        """What a name begins with, if it is that of a frame for reference, and its codec, if it has one."""
        if name in self.codecs or not name.startswith(FEW_SHOT):
            return "", self.codecs.get(name)
        return FEW_SHOT, self.codecs.get(name.removeprefix(FEW_SHOT))

    def _name_parts(self, codec: Codec, expanded: Tensor, prefix: str) -> dict[str, Tensor]:
        """The tensors of an input type, by their names in a batch."""
        if not codec.gives_pixels:
            return {prefix + codec.batch_name: expanded}
        channels = codec.batch_parts or {"": expanded.shape[-3]}
        parts = expanded.split(list(channels.values()), dim=-3)
        return {prefix + codec.batch_name + end: self._lay_out(part) for end, part in zip(channels, parts)}

    def _label(self, batch: Batch, prefix: str) -> Tensor:
        lengths = list(self.label_lengths.values())
        some = batch[prefix + self.labels[0].name]
        *around, height, width, _ = some.shape
        label = self._lay_out(torch.zeros((*around, sum(lengths), height, width), device=some.device))
        for codec, part in zip(self.labels, label.split(lengths, dim=-3)):
            codec.write_label(batch[prefix + codec.name], part)
        return label

    def _lay_out(self, x: Tensor) -> Tensor:
        """The same values in the memory format; of a clip, those of each frame."""
        return x.flatten(0, -4).contiguous(memory_format=self.memory_format).unflatten(0, x.shape[:-3])
