"""The same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable without which cuBLAS may give other bits each time."""


@contextmanager
def make_deterministic() -> Iterator[None]:
    """Within this context every operation gives the same bits each time, or warns where it cannot."""
    has_workspace = _CUBLAS_WORKSPACE in os.environ
    os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_deterministic, warn_only=warns_only)
        cudnn.deterministic, cudnn.benchmark = flags
        if not has_workspace:
            del os.environ[_CUBLAS_WORKSPACE]
