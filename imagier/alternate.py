"""The usual order of updates: the discriminator's, then the generator's, as often as a config says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from imagier.errors import UserError
from imagier.recipe import Batch, Losses, StepContext

Generated = TypeVar("Generated")


@dataclass(frozen=True)
class Updates:
    """How often a discriminator and a generator are updated in an iteration. UserError if that makes no sense."""

    dis_step: int = 1
    gen_step: int = 1
    can_share_forward: bool = True
    """One forward of the generator may serve one update of each. False: every update has its own."""

    def __post_init__(self) -> None:
        for name, steps in (("dis_step", self.dis_step), ("gen_step", self.gen_step)):
            if steps < 0:
                raise UserError(f"must not be negative, but is {steps}", where=name, code="negative-steps")
        if self.dis_step == self.gen_step == 0:
            raise UserError("are both 0: nothing would be trained", where="dis_step and gen_step", code="no-updates")

    @property
    def batches(self) -> int:
        """Batches that an iteration takes."""
        return max(self.dis_step, self.gen_step)


def alternate(
    batch: Batch,
    ctx: StepContext,
    updates: Updates,
    *,
    generate: Callable[[Batch], Generated],
    dis_losses: Callable[[Batch, Generated], Losses],
    gen_losses: Callable[[Batch, Generated], Losses],
    generate_for_dis: Callable[[Batch], Generated] | None = None,
) -> Iterator[tuple[str, Losses]]:
    """The phases of a `step` with a generator and a discriminator: updates of "dis", then of "gen".

    The i-th update of each is on the i-th part of the batch, which `updates.batches` of the loader make up, and the
    generator's are made with the discriminator already updated. If each is updated once, one forward of the generator
    may serve both. Else every update has its own, without gradients for the discriminator's, by `generate_for_dis` if
    given; also with `trainer.accumulate` > 1, as the generator's graphs of all parts would be in memory together.
    """
    if updates.can_share_forward and updates.dis_step == updates.gen_step == ctx.parts == 1:
        fake = generate(batch)
        yield "dis", dis_losses(batch, fake)
        yield "gen", gen_losses(batch, fake)
        return
    parts = batch.split(updates.batches)
    for part in parts[: updates.dis_step]:
        with torch.no_grad():
            fake = (generate_for_dis or generate)(part)
        yield "dis", dis_losses(part, fake)
    for part in parts[: updates.gen_step]:
        yield "gen", gen_losses(part, generate(part))
