"""A device that computes without values: what reads one raises, as it would wait for an accelerator.

torch's "meta" device knows shapes alone. There `.item()`, `bool(tensor)`, `nonzero`, `unique`, indexing by a mask and
copies to the host raise.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imagier.recipe import Batch
from imagier.train.runtime import Runtime

DEVICE = torch.device("meta")
MISSING_KERNELS = ("_fused_adam_.tensor_lr", "_fused_adamw_.tensor_lr", "_fused_sgd_", "_fused_adagrad_")
"""torch has none of these for this device."""


class NoValues(Runtime):
    """A process on that device, as on an accelerator. Its random numbers have no values either."""

    def __init__(self) -> None:
        super().__init__(DEVICE)

    @property
    def captures_graphs(self) -> bool:
        return True

    def generator(self, *numbers: int) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def to_host_async(self, values: Tensor) -> Callable[[], list[float]]:
        """Of a copy that has arrived a step later; all is finite."""
        assert values.device == DEVICE
        return lambda: [0.0] * len(values)


@contextmanager
def note_copies_from_host() -> Iterator[list[str]]:
    """The places where tensors, lists or arrays of the host are copied to the device so that the process waits.

    But for lists as indices (`x[[0, 1]]`), which nothing shows.
    """
    found: list[str] = []

    def note(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noting(*args: Any, **options: Any) -> Tensor:
            result = function(*args, **options)
            if result.device == DEVICE:
                found.append(_describe(function))
            return result

        return noting

    with pytest.MonkeyPatch.context() as patched, _Tensors(found):
        for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (torch, "asarray"), (Tensor, "new_tensor")):
            patched.setattr(owner, name, note(getattr(owner, name)))  # no operation shows these
        yield found


class _Tensors(TorchDispatchMode):
    """Notes operations with tensors of both."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_of_host = any(x.is_cpu and x.dim() for x in inputs)  # single numbers travel with the kernel
        if is_of_host and not kwargs.get("non_blocking") and _is_on_device([*inputs, result]):
            self.found.append(_describe(func))
        return result


def _is_on_device(tree: Any) -> bool:
    return any(isinstance(value, Tensor) and value.device == DEVICE for value in tree_leaves(tree))


def _describe(function: object) -> str:
    *_, place = (frame for frame in traceback.extract_stack()[:-2] if "site-packages" not in frame.filename)
    return f"{function}: {place.filename}:{place.lineno}"


@contextmanager
def let_kernels_run() -> Iterator[None]:
    """While this is open, the kernels of optimizers are there, and these take this device for one that has them."""
    with torch.library._scoped_library("aten", "IMPL", "Meta") as library, pytest.MonkeyPatch.context() as patched:
        for name in MISSING_KERNELS:
            library.impl(name, lambda *args, **options: None)
        _name_device(patched)
        yield


def _name_device(patched: pytest.MonkeyPatch) -> None:
    for kind in ("fused_kernels", "foreach_kernels", "capturable"):
        name = f"_get_{kind}_supported_devices"
        for module in [module for key, module in sys.modules.items() if key.startswith(("torch.optim", "torch.utils"))]:
            if hasattr(module, name):
                patched.setattr(module, name, lambda *args, **options: [DEVICE.type])


def without_values(batch: Batch) -> Batch:
    """The batch on that device, but for what stays on the host."""
    present = {"label_present": batch["label_present"]} if "label_present" in batch else {}
    moved = {name: torch.empty_like(x, device=DEVICE) for name, x in batch.tensors.items() if name not in present}
    return Batch({**moved, **present}, batch.keys)
