"""How long clips are, from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagier.data.dataset import DatasetSpec
from imagier.errors import UserError

_MOST_DOUBLINGS = 62


@dataclass(frozen=True, kw_only=True)
class ClipLength:
    """How many frames a clip has in each epoch: first one, then some, then twice as many, and so on.

    A function of the epoch, and so the same for a run that is resumed, and in every process that reads samples.
    Wang et al., Video-to-Video Synthesis, 2018, section 4: temporally progressive training.
    """

    initial: int
    most: int
    single_frame_epoch: int = 0
    """The first epoch with more than one frame."""
    num_epochs_temporal_step: int | None = None
    """Epochs after which the length doubles; None for never."""

    def frames(self, epoch: int) -> int:
        """1 before `single_frame_epoch`, then `initial`, doubled with every step until it reaches `most`."""
        since = epoch - self.single_frame_epoch
        if since < 0:
            return 1
        doublings = since // self.num_epochs_temporal_step if self.num_epochs_temporal_step else 0
        return max(self.initial, min(self.initial << min(doublings, _MOST_DOUBLINGS), self.most))

    @classmethod
    def of(cls, spec: DatasetSpec, initial: int | None, most: int) -> ClipLength:
        """That of a split. initial: None outside of training, where it has no effect."""
        return cls(
            initial=initial or 1,
            most=most,
            single_frame_epoch=spec.single_frame_epoch,
            num_epochs_temporal_step=spec.num_epochs_temporal_step,
        )


def check_clip_keys(keys: Mapping[str, Any], *, is_training: bool) -> None:
    """UserError if training does not say how long clips are, or if they can grow to less than that."""
    initial, most = keys["initial_sequence_length"], keys["max_sequence_length"]
    if initial is None and is_training:
        raise UserError("needs initial_sequence_length, the number of frames of a clip", code="needs-key")
    if initial is not None and most < initial:
        raise UserError(
            "must not be less than initial_sequence_length", where="max_sequence_length", code="wrong-order"
        )


def clip_too_long(initial: int, longest: int, others: int = 0) -> UserError:
    """The error where no sequence has so many frames, and so many others."""
    more = f", and {others} more are for reference" if others else ""
    what = f"is {initial}{more}, but the longest sequence has {longest} frames"
    return UserError(what, where="initial_sequence_length", advice="lower it", code="clip-too-long")
