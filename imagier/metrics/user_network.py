"""A network of the user's that metrics apply to images, named "module:name"."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.user_code import calling_user_code, load_user_object

UserCode = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""The name of something in a module of the user's, as "my_lab.nets:Segmenter"."""


class UserNetwork:
    """A callable of the user's, or what its class makes without arguments. It gets images in [0, 1]."""

    def __init__(self, name: str, device: torch.device, key: str) -> None:
        """key: the option whose value the name is. UserError if there is none of this name."""
        found = load_user_object(name, key)
        with calling_user_code(name, "cannot be made without arguments"):
            made = found() if isinstance(found, type) else found
        if not callable(made):
            raise UserError("cannot be called", where=name, advice="expected a function or a class", code="no-callable")
        self.name = name
        self._made: Callable[[Tensor], Any] = made
        self._file: str | None = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
        if isinstance(made, nn.Module):
            made.to(device).eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """What it returns for a batch."""
        with calling_user_code(self.name, "fails"):
            return self._made(images)

    def check(self, output: Any, shape: tuple[int | str, ...], images: Tensor) -> Tensor:
        """A part of what it returned, as float32. UserError if that has another shape, or numbers that are not finite.

        shape: sizes that it must have; words stand for any. images: what it was given; NaN may come of NaN.
        """
        expected = f"expected {' x '.join(map(str, shape))}"
        if not isinstance(output, Tensor):
            raise UserError(f"returns {type(output).__name__}", where=self.name, advice=expected, code="wrong-output")
        fits = len(output.shape) == len(shape) and all(
            isinstance(wanted, str) or size == wanted for size, wanted in zip(output.shape, shape)
        )
        if not fits:
            found = " x ".join(map(str, output.shape)) or "one number"
            raise UserError(f"returns {found}", where=self.name, advice=expected, code="wrong-output")
        if not output.isfinite().all() and images.isfinite().all():
            what = "returns numbers that are NaN or infinite"
            raise UserError(what, where=self.name, advice="correct it", code="non-finite-output")
        return output.float()

    def describe(self) -> dict[str, str]:
        """The SHA-256 of its source file, and of its weights if it is a module of torch."""
        source = Path(self._file).read_bytes() if self._file is not None else b""
        described = {"source_sha256": hashlib.sha256(source).hexdigest()}
        if isinstance(self._made, nn.Module):
            weights = hashlib.sha256()
            for key, tensor in self._made.state_dict().items():
                data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
                weights.update(key.encode() + b"\0" + data.tobytes())
            described["weights_sha256"] = weights.hexdigest()
        return described
