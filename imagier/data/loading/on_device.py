"""From stored bytes to what networks see, on the device: images in [-1, 1], labels with a channel per class.

Stills (N x H x W x C) and clips (N x T x H x W x C) alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imagier.data.decoding.sample import InputType
from imagier.recipe import Batch


class Expander:
    """Normalizes images and puts the label types together into `label`, in the order of `input_labels`."""

    def __init__(
        self,
        input_types: Sequence[InputType],
        input_labels: Sequence[str],
        *,
        use_dont_care: bool = False,
        channels_last: bool = False,
    ) -> None:
        """input_labels: by their names in a batch, which `renamed` may have changed."""
        self.input_types = {kind.name: kind for kind in input_types}
        self.labels = [kind for name in input_labels for kind in input_types if _called(kind) == name]
        self.use_dont_care = use_dont_care
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def label_lengths(self) -> dict[str, int]:
        """Channels of every type in the label, in order."""
        return {_called(kind): self._channels(kind) for kind in self.labels}

    def __call__(self, batch: Batch) -> Batch:
        """Images N x ... x H x W x C as stored -> float32 N x ... x C x H x W; `label` replaces what makes it up.

        Stored means uint8, int32 (holding 16 bits) or float32.
        """
        ready = {}
        for name, tensor in batch.tensors.items():
            kind = self.input_types.get(name)
            if kind is None or kind.is_points:
                ready[name if kind is None else _called(kind)] = tensor
            elif kind not in self.labels:
                ready[_called(kind)] = self._laid_out(_image(tensor, kind))
        if self.labels:
            ready["label"] = self._label(batch)
        return Batch(ready, batch.keys)

    def _label(self, batch: Batch) -> Tensor:
        lengths = list(self.label_lengths.values())
        some = batch[self.labels[0].name]
        *around, height, width, _ = some.shape
        label = self._laid_out(torch.zeros((*around, sum(lengths), height, width), device=some.device))
        for kind, part in zip(self.labels, label.split(lengths, dim=-3)):
            stored = batch[kind.name]
            if kind.num_classes is None:
                part.copy_(_image(stored, kind))
            else:
                _write_one_hot(part, _cared(stored, kind).movedim(-1, -3), kind.num_classes)
        return label

    def _channels(self, kind: InputType) -> int:
        if kind.num_classes is None:
            assert kind.num_channels is not None
            return kind.num_channels
        return kind.num_classes + self.use_dont_care

    def _laid_out(self, x: Tensor) -> Tensor:
        """The same values in the memory format; of a clip, those of each frame."""
        return x.flatten(0, -4).contiguous(memory_format=self.memory_format).unflatten(0, x.shape[:-3])


def _called(kind: InputType) -> str:
    return kind.renamed or kind.name


def _image(stored: Tensor, kind: InputType) -> Tensor:
    scale = 255 if stored.dtype == torch.uint8 else 1  # 16-bit images hold numbers (instances), not light
    image = _cared(stored, kind).movedim(-1, -3).float() / scale
    return (image - 0.5) / 0.5 if kind.normalize else image


def _cared(stored: Tensor, kind: InputType) -> Tensor:
    if kind.dont_care is None:
        return stored
    return stored.clamp(max=min(kind.dont_care, 255) if stored.dtype == torch.uint8 else kind.dont_care)


def _write_one_hot(part: Tensor, classes: Tensor, num_classes: int) -> None:
    """Writes classes ... x 1 x H x W into zeros ... x K x H x W, K = num_classes or one more.

    Classes beyond num_classes get the extra channel if there is one, else none at all.
    """
    known = (classes < num_classes).float()
    if part.shape[-3] > num_classes:
        known.fill_(1)
    part.scatter_(-3, classes.long().clamp(max=part.shape[-3] - 1), known)
