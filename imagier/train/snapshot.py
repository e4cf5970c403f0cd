"""A copy of a run's state in the host's memory, taken between two steps, for a thread to write."""

from __future__ import annotations

import copy
import ctypes
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from imagier.train.runtime import Runtime

_Key = tuple[torch.device, int, int]


class Snapshot:
    """Copies states, and keeps the memory for the next copy: new memory costs more than the copying.

    The memory is pinned for an accelerator that copies by itself. For one copy at a time.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._memory: dict[int, list[Tensor]] = defaultdict(list)
        """Pieces of memory (uint8), by their size in bytes."""

    def reserve(self, state: Mapping[str, Any]) -> None:
        """Allocates the memory for a state like this one."""
        needed: dict[int, int] = defaultdict(int)
        for piece in _storages(state).values():
            needed[len(piece)] += 1
        for size, count in needed.items():
            self._memory[size] += [self._piece(size) for _ in range(count - len(self._memory[size]))]

    def take(
        self, state: Mapping[str, Any], constant: Iterable[Tensor] = ()
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        """A copy, and a function that completes it, in any thread. The copy before is overwritten.

        constant: tensors that do not change until the copy is complete; on the CPU they are copied only then. The copy
        holds what torch.save would write: tensors that share memory share it there, too.
        """
        deferred = set() if self.runtime.is_asynchronous else {_key(tensor) for tensor in constant}
        later: list[tuple[Tensor, Tensor]] = []
        used: dict[int, int] = defaultdict(int)
        copies = {}
        for key, piece in _storages(state).items():
            size = len(piece)
            if used[size] == len(self._memory[size]):
                self._memory[size].append(self._piece(size))
            copies[key] = self._memory[size][used[size]]
            used[size] += 1
            if key in deferred:
                later.append((copies[key], piece))
            else:
                copies[key].copy_(piece, non_blocking=True)
        memo = {id(tensor): _view(copies[_key(tensor)], tensor) for tensor in _tensors(state)}
        wait_for_device = self.runtime.record_event()

        def complete() -> None:
            for target, source in later:
                # Not copy_: in another thread it would start threads of its own, besides those of the training.
                ctypes.memmove(target.data_ptr(), source.data_ptr(), len(source))
            wait_for_device()

        return copy.deepcopy(dict(state), memo), complete

    def _piece(self, size: int) -> Tensor:
        piece = torch.empty(size, dtype=torch.uint8, pin_memory=self.runtime.pins_memory)
        ctypes.memset(piece.data_ptr(), 0, size)  # or the system would allocate its pages only when the copy is taken
        return piece


def count_bytes(state: Mapping[str, Any]) -> int:
    """The memory that the tensors of a state take."""
    return sum(len(piece) for piece in _storages(state).values())


def _storages(state: object) -> dict[_Key, Tensor]:
    """The memory of all tensors, each once, as uint8."""
    found: dict[_Key, Tensor] = {}
    for tensor in _tensors(state):
        key = _key(tensor)
        if key not in found:
            found[key] = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    return found


def _key(tensor: Tensor) -> _Key:
    storage = tensor.untyped_storage()
    return tensor.device, storage.data_ptr() or id(tensor), storage.nbytes()  # without memory, each is its own


def _view(memory: Tensor, like: Tensor) -> Tensor:
    """A tensor on copied memory, with the offset, size and strides of the original."""
    view = torch.empty(0, dtype=like.dtype)
    return view.set_(memory.untyped_storage(), like.storage_offset(), like.size(), like.stride())


def _tensors(state: object) -> Iterator[Tensor]:
    """All tensors in nested mappings, lists and tuples."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
