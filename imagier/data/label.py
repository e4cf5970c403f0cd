"""From stored bytes to what networks see, on the device: pictures in [-1, 1], labels with a channel per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imagier.data.sample import InputType
from imagier.recipe import Batch


class Expander:
    """Normalises pictures and puts the label types together into `label`, in the order of `input_labels`."""

    def __init__(
        self,
        input_types: Sequence[InputType],
        input_labels: Sequence[str],
        *,
        use_dont_care: bool = False,
        channels_last: bool = False,
    ) -> None:
        self.input_types = {kind.name: kind for kind in input_types}
        self.input_labels = list(input_labels)
        self.use_dont_care = use_dont_care
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def label_lengths(self) -> dict[str, int]:
        """Channels of every type in the label, in order."""
        return {name: self._channels(self.input_types[name]) for name in self.input_labels}

    def __call__(self, batch: Batch) -> Batch:
        """Pictures N x H x W x C as stored -> float32 N x C x H x W; `label` replaces what it is made of.

        Stored means uint8, int32 (holding 16 bits) or float32.
        """
        ready = {}
        for name, tensor in batch.tensors.items():
            if name in self.input_labels:
                continue
            if name in self.input_types:
                tensor = self._picture(tensor, self.input_types[name]).contiguous(memory_format=self.memory_format)
            ready[name] = tensor
        if self.input_labels:
            ready["label"] = self._label(batch)
        return Batch(ready, batch.keys)

    def _label(self, batch: Batch) -> Tensor:
        lengths = self.label_lengths
        some = batch[self.input_labels[0]]
        shape = (some.shape[0], sum(lengths.values()), some.shape[1], some.shape[2])
        label = torch.zeros(shape, device=some.device).contiguous(memory_format=self.memory_format)
        for name, part in zip(lengths, label.split(list(lengths.values()), dim=1)):
            kind, stored = self.input_types[name], batch[name]
            if kind.num_classes is None:
                part.copy_(self._picture(stored, kind))
            else:
                _write_one_hot(part, stored.permute(0, 3, 1, 2), kind.num_classes)
        return label

    def _channels(self, kind: InputType) -> int:
        if kind.num_classes is None:
            assert kind.num_channels is not None
            return kind.num_channels
        return kind.num_classes + self.use_dont_care

    def _picture(self, stored: Tensor, kind: InputType) -> Tensor:
        scale = 255 if stored.dtype == torch.uint8 else 1  # 16-bit pictures hold numbers (instances), not light
        picture = stored.permute(0, 3, 1, 2).float() / scale
        return (picture - 0.5) / 0.5 if kind.normalize else picture


def _write_one_hot(part: Tensor, classes: Tensor, num_classes: int) -> None:
    """Writes classes N x 1 x H x W into zeros N x K x H x W, K = num_classes or one more.

    Classes beyond num_classes get the extra channel if there is one, else none at all.
    """
    known = (classes < num_classes).float()
    if part.shape[1] > num_classes:
        known.fill_(1)
    part.scatter_(1, classes.long().clamp(max=part.shape[1] - 1), known)
