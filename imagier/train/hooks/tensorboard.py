"""Sends records and images to TensorBoard, with the reference's tags."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from io import BytesIO
from os import getpid
from pathlib import Path
from typing import Any

from PIL import Image

from imagier.errors import UserError
from imagier.train.disk import AppendFile
from imagier.train.flatten import flatten_tree
from imagier.train.hooks.images import CLIPS_TAG, TAG
from imagier.train.hooks.log import Record

FOLDER = "tensorboard"


class TensorBoard:
    """Writes <logdir>/tensorboard, in this thread: the library's own writer would end for good with a failing disk."""

    def __init__(
        self,
        logdir: Path,
        *,
        from_step: int,
        images: bool,
        config: Mapping[str, Any] | None = None,
        config_text: str = "",
        metrics: Sequence[str] = (),
    ) -> None:
        """images: also write images. config: shown as hyperparameters, and its text as it is. metrics: the tags by
        which runs are compared.

        UserError if tensorboard is not installed. What cannot be written (OSError) waits for the next record.
        """
        if not is_installed():
            what = "TensorBoard is not installed: pip install 'imagier[tensorboard]'"
            raise UserError(what, code="missing-package")
        self.images = images
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{getpid()}.0"
        self._path = logdir / FOLDER / name
        self._from_step = from_step
        self._config = config
        self._config_text = config_text
        self._metrics = metrics

    @cached_property
    def _file(self) -> AppendFile:
        """Made with the first record, as the package takes a third of a second to import. OSError if it cannot be."""
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from torch.utils.tensorboard import summary
        except ImportError as error:
            raise OSError(f"the package cannot be imported: {error}") from error
        step = self._from_step
        beginning = [Event(file_version="brain.Event:2")]
        if step:  # the viewer hides what an attempt that got further wrote from here on
            beginning.append(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
        if self._config is not None:
            described = [summary.text("config", f"```yaml\n{self._config_text}```")]
            described += summary.hparams(flatten(self._config), dict.fromkeys(self._metrics, 0.0))[:2]
            beginning += [Event(step=step, summary=part) for part in described]
        return AppendFile(self._path, b"".join(map(_encode, beginning)))

    def scalars(self, record: Record) -> None:
        self._write(record.step, [{"tag": tag, "simple_value": value} for tag, value in record.scalars.items()])

    def image(self, path: Path, step: int) -> None:
        if self.images:
            with Image.open(path) as opened:
                width, height = opened.size
            image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": path.read_bytes()}
            self._write(step, [{"tag": CLIPS_TAG if path.suffix == ".gif" else TAG, "image": image}])

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, values: Sequence[Mapping[str, Any]]) -> None:
        file = self._file
        from tensorboard.compat.proto.event_pb2 import Event

        file.append(_encode(Event(step=step, summary={"value": values})))


def _encode(event: Any) -> bytes:
    """An event as it stands in a file, with its length and checksums."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    event.wall_time = time.time()
    file = BytesIO()
    RecordWriter(file).write(event.SerializeToString())
    return file.getvalue()


def flatten(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The values of a config by their whole key, "gen.num_filters"; lists as text."""
    values = flatten_tree(config).items()
    return {key: value if isinstance(value, int | float) else str(value) for key, value in values}


def is_installed() -> bool:
    """Whether tensorboard can be imported."""
    import importlib.util

    return importlib.util.find_spec("tensorboard") is not None
