"""What a metric learns on the first rank, the others get as tensors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from imagier.metrics.metric import MeanOverImages
from imagier.train.scoring import Scorer


class Learner(MeanOverImages):
    """Learns the number 3, and holds something that cannot be pickled."""

    name = "learner"
    learns = True

    def __init__(self) -> None:
        self.users = lambda images: images
        self.learned = torch.zeros(1)

    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        return self.learned.expand(len(images))

    def fit(self, real: object) -> None:
        self.learned = torch.full((1,), 3.0)

    def learned_state(self) -> dict[str, Tensor]:
        return {"number": self.learned}

    def load_learned(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.learned = state["number"].to(device)


def test_ranks_get_what_the_first_has_learned() -> None:
    sent: list[bytes] = []
    for rank in (0, 1):
        received = iter(sent)

        def broadcast(value: Any, rank: int = rank, received: Iterator[bytes] = received) -> Any:
            if rank == 0:
                sent.append(pickle.dumps(value))
                return value
            return pickle.loads(next(received))

        metric = Learner()
        runtime: Any = SimpleNamespace(device=torch.device("cpu"), is_main=rank == 0, broadcast=broadcast)
        recipe: Any = None
        Scorer([metric], runtime).fit(recipe, list)
        assert metric.learned.tolist() == [3.0]
