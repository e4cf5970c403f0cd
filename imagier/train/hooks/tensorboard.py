"""Sends records and images to TensorBoard, with the reference's tags."""

from __future__ import annotations

from pathlib import Path

from imagier.errors import UserError
from imagier.train.hooks.images import read_image
from imagier.train.hooks.log import Record


class TensorBoard:
    """Writes <logdir>/tensorboard. Its library writes in a thread, which a failing disk (OSError) ends for good."""

    def __init__(self, logdir: Path, *, from_step: int, images: bool) -> None:
        """images: also write images, with the tag "Visualizations". UserError if tensorboard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            what = "TensorBoard is not installed: pip install 'imagier[tensorboard]'"
            raise UserError(what, code="missing-package") from error
        # The viewer hides what an attempt that got further wrote from here on.
        self.writer = SummaryWriter(str(logdir / "tensorboard"), purge_step=from_step + 1 if from_step else None)
        self.images = images

    def scalars(self, record: Record) -> None:
        for tag, value in record.scalars.items():
            self.writer.add_scalar(tag, value, record.step)

    def image(self, path: Path, step: int) -> None:
        if self.images:
            self.writer.add_image("Visualizations", read_image(path), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


def is_installed() -> bool:
    """Whether tensorboard can be imported."""
    import importlib.util

    return importlib.util.find_spec("tensorboard") is not None
