"""Sends records and images to Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imagier.errors import UserError
from imagier.train.disk import describe_error
from imagier.train.hooks.images import CLIPS_TAG, TAG
from imagier.train.hooks.log import Record

ID_FILE = "wandb_id.txt"
STEP = "iteration"
"""The axis of all charts, and the slider of the images. W&B's own step never goes back, as a rollback does."""


class WandB:
    """One W&B run per log folder; a resumed run continues the same W&B run."""

    def __init__(
        self,
        logdir: Path,
        *,
        project: str,
        run_id: str | None,
        resuming: bool,
        config: dict[str, Any],
        kept_id: str | None = None,
    ) -> None:
        """run_id: None: when resuming, the id in <logdir>/wandb_id.txt, or kept_id, that of the checkpoint; otherwise a
        new one.

        UserError if wandb is not installed or cannot start. Whatever fails later is an OSError. W&B reads its
        environment variables (WANDB_MODE=offline).
        """
        try:
            import wandb
        except ImportError as error:
            what = "Weights & Biases is not installed: pip install 'imagier[wandb]'"
            raise UserError(what, where="wandb", code="missing-package") from error
        self.wandb = wandb
        id_file = logdir / ID_FILE
        if run_id is None and resuming:
            run_id = _read_id(id_file) or kept_id
        self.run_id = run_id = run_id or secrets.token_hex(4)
        try:
            self.run = wandb.init(
                project=project, id=run_id, name=logdir.name, dir=str(logdir), resume="allow", config=config
            )
            self.run_id = self.run.id  # that of W&B's agent, in one of its sweeps
            id_file.write_text(f"{self.run_id}\n")
        except (wandb.Error, OSError) as error:
            raise UserError(
                (str(error).splitlines() or [type(error).__name__])[0],
                where="wandb",
                advice="WANDB_MODE=offline works without a login",
                code="wandb-failed",
            ) from error
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)

    def scalars(self, record: Record) -> None:
        self._log({**record.scalars, "epoch": record.epoch}, record.step)

    def image(self, path: Path, step: int) -> None:
        is_clip = path.suffix == ".gif"
        shown = self.wandb.Video(str(path), format="gif") if is_clip else self.wandb.Image(str(path))
        self._log({CLIPS_TAG if is_clip else TAG: shown}, step)

    def close(self) -> None:
        with self._translate_errors():
            self.run.finish()

    def _log(self, values: dict[str, Any], step: int) -> None:
        with self._translate_errors():
            self.run.log({**values, STEP: step})

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raises W&B's errors as what it raises when its service is gone, OSErrors."""
        try:
            yield
        except self.wandb.Error as error:
            raise OSError(str(error)) from error


def _read_id(path: Path) -> str:
    """The id in a file; empty if there is none. UserError if it cannot be read, or is none."""
    try:
        found = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        found = "\0"
    except OSError as error:
        raise _refuse_id(path, f"cannot be read: {describe_error(error)}") from error
    if not found.isprintable():
        raise _refuse_id(path, "does not hold the id of a W&B run")
    return found


def _refuse_id(path: Path, what: str) -> UserError:
    advice = "write the id into it, or remove it to take that of the checkpoint"
    return UserError(what, where=path, advice=advice, code="bad-wandb-id")
