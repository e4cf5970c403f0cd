"""Sends records and images to Weights & Biases."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from imagier.errors import UserError
from imagier.train.hooks.log import Record

ID_FILE = "wandb_id.txt"


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

        UserError if wandb is not installed or cannot start. It reads its environment variables (WANDB_MODE=offline).
        """
        try:
            import wandb
        except ImportError as error:
            what = "Weights & Biases is not installed: pip install 'imagier[wandb]'"
            raise UserError(what, where="wandb", code="missing-package") from error
        self.wandb = wandb
        id_file = logdir / ID_FILE
        if run_id is None and resuming:
            run_id = id_file.read_text().strip() if id_file.exists() else kept_id
        self.run_id = run_id = run_id or secrets.token_hex(4)
        try:
            self.run = wandb.init(
                project=project, id=run_id, name=logdir.name, dir=str(logdir), resume="allow", config=config
            )
        except wandb.Error as error:
            raise UserError(
                str(error).splitlines()[0],
                where="wandb",
                advice="WANDB_MODE=offline works without a login",
                code="wandb-failed",
            ) from error
        id_file.write_text(f"{run_id}\n")

    def scalars(self, record: Record) -> None:
        self.run.log({**record.scalars, "epoch": record.epoch}, step=record.step)

    def image(self, path: Path, step: int) -> None:
        self.run.log({path.stem: self.wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        self.run.finish()
