"""Gradients averaged over ranks, in buckets that travel while backward computes the rest.

Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training, 2020, section 3.2.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from imagier.train.runtime import Runtime

BUCKET_BYTES = 25 * 2**20


class GradientAverage:
    """Replaces the gradients of a player, and its loss, by their means over all ranks.

    A parameter without a gradient on this rank, but with one on another, counts as 0 here; one without a gradient on
    any rank keeps none. Buckets leave in one order on all ranks, each as soon as its gradients and all buckets before
    it are there. They have a process group of their own: norms that communicate in backward may take other turns.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._params: list[nn.Parameter] = []
        """The last ones first: backward reaches them in about this order."""
        self._hooks: list[Any] = []
        self._buckets: list[list[int]] = [[]]
        """Indices of parameters."""
        self._loss: Tensor | None = None
        self._missing: list[int] = []
        """For each bucket, how many gradients it still waits for."""
        self._sent = 0
        """How many buckets have left."""
        self._messages: deque[tuple[list[Tensor], Tensor, dist.Work]] = deque()
        """Of each of them, until it is back, its tensors, the message that was made of them, and the transport."""
        self._is_open = False
        """Whether gradients that arrive are the last of an update."""

    def begin(self, params: Sequence[nn.Parameter], loss: Tensor) -> None:
        """To be called before the last backward of an update: buckets may leave while it computes.

        loss: of all parts of the batch, a tensor [1].
        """
        if self.runtime.world == 1:
            return
        self._follow(list(reversed(params)))
        self._loss = loss.clone()
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sent, self._is_open = 0, True

    def finish(self, params: Sequence[nn.Parameter], loss: Tensor | None) -> Tensor | None:
        """Waits for the means, which are then the gradients; returns that of the loss, which stays as it was."""
        if self.runtime.world == 1:
            return loss
        if not self._is_open:
            self.begin(params, torch.zeros(1, device=self.runtime.device) if loss is None else loss)
        present = [p.grad is not None for p in self._params]
        # Between hosts: no device is waited for, and a rank that has all gradients waits for nobody.
        counts = torch.tensor([*present, True], dtype=torch.int32)  # an empty tensor is no message
        counting = dist.all_reduce(counts, group=self.runtime.control, async_op=True)
        self._send_rest()
        while self._messages:
            self._receive()  # a function, whose end frees the message
        if not all(present):
            counting.wait()
            for p, count in zip(self._params, counts.tolist()):
                if count == 0:
                    p.grad = None
        return None if loss is None else self._loss

    def discard(self) -> None:
        """Ends what `begin` began, on all ranks; gradients are worth nothing afterwards."""
        if self._is_open:
            self._send_rest()
            while self._messages:
                self._messages.popleft()[2].wait()

    def _follow(self, params: list[nn.Parameter]) -> None:
        """Waits for the gradients of other parameters from now on, if others learn."""
        if len(params) == len(self._params) and all(p is known for p, known in zip(params, self._params)):
            return
        for hook in self._hooks:
            hook.remove()
        self._params, self._buckets = params, _split_into_buckets(params)
        me = weakref.ref(self)  # parameters hold their hooks
        self._hooks = [
            params[index].register_post_accumulate_grad_hook(partial(_arrive, me, number))
            for number, bucket in enumerate(self._buckets)
            for index in bucket
        ]

    def _arrive(self, number: int) -> None:
        """One more gradient of a bucket is there."""
        if not self._is_open:
            return
        self._missing[number] -= 1
        assert self._missing[number] >= 0, "a parameter got its gradient twice in one backward"
        while self._sent < len(self._buckets) and not self._missing[self._sent]:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        """Sends the next bucket; the first one has the loss."""
        params = [self._params[index] for index in self._buckets[self._sent]]
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        tensors = [p.grad for p in params if p.grad is not None]
        if self._loss is not None and not self._sent:
            tensors = [self._loss, *tensors]
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self._messages.append((tensors, flat, dist.all_reduce(flat, group=self.runtime.gradients, async_op=True)))
        self._sent += 1

    def _receive(self) -> None:
        """Waits for the next bucket, and copies its means back."""
        tensors, flat, work = self._messages.popleft()
        work.wait()
        flat /= self.runtime.world
        pieces = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors)])

    def _send_rest(self) -> None:
        self._is_open = False
        while self._sent < len(self._buckets):
            self._send()


def _arrive(average: weakref.ref[GradientAverage], bucket: int, parameter: Tensor) -> None:
    """After a parameter of this bucket got its gradient."""
    if (found := average()) is not None:
        found._arrive(bucket)


def _split_into_buckets(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Indices of consecutive tensors of one type that make up a message; the first one is there without any tensor."""
    buckets: list[list[int]] = [[]]
    size, dtype = 0, torch.float32  # that of the loss
    for index, tensor in enumerate(tensors):
        bytes_ = tensor.numel() * tensor.element_size()
        if tensor.dtype != dtype or (buckets[-1] and size + bytes_ > BUCKET_BYTES):
            buckets.append([])
            size = 0
        buckets[-1].append(index)
        size, dtype = size + bytes_, tensor.dtype
    return buckets
