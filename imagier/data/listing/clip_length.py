"""How many frames a clip has in which epoch of a training: first one, then some, then twice as many, and so on.

Wang et al., Video-to-Video Synthesis, 2018, section 4: temporally progressive training.
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DOUBLINGS = 62


@dataclass(frozen=True, kw_only=True)
class ClipLength:
    """A function of the epoch, and so the same for a run that is resumed, in every process that reads samples."""

    initial: int
    most: int
    single_frame_epoch: int = 0
    """The first epoch with more than one frame."""
    num_epochs_temporal_step: int | None = None
    """Epochs after which the length doubles; None for never."""

    def frames(self, epoch: int) -> int:
        """1 before `single_frame_epoch`, then `initial`, doubled as often as steps have passed; `most` stops that."""
        since = epoch - self.single_frame_epoch
        if since < 0:
            return 1
        doublings = since // self.num_epochs_temporal_step if self.num_epochs_temporal_step else 0
        return max(self.initial, min(self.initial << min(doublings, _MOST_DOUBLINGS), self.most))
