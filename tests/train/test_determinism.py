"""What `make_deterministic` sets for a while, and puts back."""

from __future__ import annotations

import os

import pytest
import torch

from imagier.train.determinism import make_deterministic

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def state() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get(VARIABLE),
    )


@pytest.mark.parametrize("variable", [None, ":16:8"])
@pytest.mark.parametrize("flags", [(False, True), (True, False)])
def test_all_is_put_back_even_after_an_error(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, flags: tuple[bool, bool]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    for name, flag in zip(("deterministic", "benchmark"), flags):
        monkeypatch.setattr(torch.backends.cudnn, name, flag)
    before = state()
    with pytest.raises(KeyError), make_deterministic():
        assert state() == (True, True, True, False, variable or ":4096:8")
        raise KeyError
    assert state() == before
