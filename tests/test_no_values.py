"""The device of no_values.py leaves nothing behind: other tests would find kernels that do nothing."""

from __future__ import annotations

import torch
from no_values import MISSING_KERNELS, let_kernels_run


def find_kernels() -> set[str]:
    """Those of optimizers that this device has."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return {name for name in MISSING_KERNELS if has_kernel(f"aten::{name}", "Meta")}


def test_the_kernels_of_optimizers_are_gone_afterwards() -> None:
    assert find_kernels() == set()
    with let_kernels_run():
        assert find_kernels() == set(MISSING_KERNELS)
    assert find_kernels() == set()
