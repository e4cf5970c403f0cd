"""The contract between a method and everything around it: Batch, StepContext, Losses, Recipe."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Samples side by side: tensors by name (dimension 0 is the sample) and the files they came from.

    `keys` maps an input type to one "sequence/name" string per sample.
    """

    tensors: dict[str, Tensor]
    keys: dict[str, list[str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def replace(self, **tensors: Tensor) -> Batch:
        """This batch with some tensors added or replaced."""
        return replace(self, tensors={**self.tensors, **tensors})

    def split(self, parts: int) -> list[Batch]:
        """`parts` consecutive batches of equal length; the length must be divisible."""
        assert len(self) % parts == 0, f"a batch of {len(self)} cannot be split in {parts}"
        rows = len(self) // parts
        return [self._rows(slice(i * rows, (i + 1) * rows)) for i in range(parts)]

    def _rows(self, rows: slice) -> Batch:
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Batch(tensors, {name: names[rows] for name, names in self.keys.items()})


@dataclass(frozen=True)
class Position:
    """Where a run stands in its data: the running epoch, and the samples (of all ranks) taken from it."""

    epoch: int = 0
    samples: int = 0


@dataclass(frozen=True)
class StepContext:
    """When a training step happens, and its private source of randomness."""

    step: int
    epoch: int
    rng: torch.Generator


class Recipe(ABC):
    """One method (one paper): which losses move which network, and how images are made.

    Final: a recipe is written, never subclassed further. Loss names are the keys of `loss_weight`, optionally
    followed by "/part": parts share the weight of their loss.
    """

    players: ClassVar[tuple[str, ...]] = ("gen", "dis")
    """Names of the players; each one's network is the attribute of that name."""

    required_inputs: ClassVar[Sequence[str]] = ()
    """What a step reads of a batch: input types of the config, and `label`, which its input_labels make up."""

    is_video: ClassVar[bool] = False
    """Batches are of clips, with a dimension of frames behind that of samples."""

    loss_weight: Mapping[str, float]
    """Weight of every loss in its player's total; of a part ("gan/a") also one of its own ("gan_a"), on top of it."""

    log_names: ClassVar[Mapping[str, str]] = {}
    """Name under which a loss or a part of one is logged, where that differs from its own."""

    should_share_forward: bool = False
    """Whether one forward of the generator serves the updates of all players. A trainer that would hold the graphs of
    many parts of a batch at once sets it to False, for two forwards with smaller graphs."""

    has_before_checkpoint: bool = False
    """Whether `before_checkpoint` has something to do."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by the name of their player."""
        return {name: getattr(self, name) for name in self.players}

    def with_networks(self, **networks: nn.Module) -> Recipe:
        """This recipe with some of its networks replaced (by their averages, say)."""
        other = copy.copy(self)
        for name, network in networks.items():
            setattr(other, name, network)
        return other

    def train(self) -> None:
        """Puts all networks into training mode."""
        for network in self.networks.values():
            network.train()

    @abstractmethod
    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        """Yields (player, losses); the loop updates that player before it asks for the next."""

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum of a player's losses, a float32 scalar."""
        weights = {name: self._weight(name) for name in losses}
        weighted = [weight * losses[name].float() for name, weight in weights.items() if weight]
        assert weighted, f"none of {', '.join(losses)} has a weight"
        return torch.stack(weighted).sum()

    def check_weights(self, *losses: str) -> None:
        """UserError if one of these losses of a discriminator has no weight."""
        for name in losses:
            whole, _, part = name.partition("/")
            if self._weight(name) <= 0:
                key = f"{whole} or {whole}_{part}" if part else whole
                raise UserError(f"loss_weight.{key} must be more than 0, or the discriminator would learn nothing")

    def _weight(self, name: str) -> float:
        whole, _, part = name.partition("/")
        return self.loss_weight[whole] + (self.loss_weight.get(f"{whole}_{part}", 0.0) if part else 0.0)

    @abstractmethod
    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Everything that the generator returns for a batch, as in training."""

    @abstractmethod
    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Images for a batch, N x 3 x H x W in [-1, 1]."""

    infer: Callable[..., list[Tensor]]
    """(batch, rng, **inference_args of the config) -> an image per sample, 1 or 3 x H x W, to be cut to [-1, 1].

    An argument `seed` gets the run's, which is the same on all ranks; `rng` differs.
    """

    def infer_names(self, batch: Batch, *args: Any, **inference_args: Any) -> list[str]:
        """What to call the images that `infer` makes of a batch with these arguments, "sequence/name" each.

        A name that comes again in a run is taken for the same image. (A recipe names the arguments that it knows;
        `*args` stands here for the type checker alone.)
        """
        return next(iter(batch.keys.values()))

    @abstractmethod
    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """What an image of the training shows left of the results, N x 3 x H x W in [-1, 1] each."""

    def visualize_outputs(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The results that an image of the training shows, N x 3 x H x W in [-1, 1] each."""
        return {"fake": self.sample(batch, rng)}

    def prepare(self, batch: Batch) -> Batch:
        """What the method does to a batch on the device; all methods here but `step` want a prepared one."""
        return batch

    def target(self, batch: Batch) -> Tensor | None:
        """The images that `sample` should reproduce, N x 3 x H x W in [-1, 1]; None where there is no such thing."""
        return None

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """Images that need no training and that `sample` should beat at coming near the target, by what they are."""
        return {}

    def discriminator_logits(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]] | None:
        """What the discriminators think of real and of generated images, tensors of any shape: above 0 is "real".

        For a look at their balance; None for a method without a discriminator.
        """
        return None

    def warm_start(self, weights: Mapping[str, Tensor]) -> list[str] | None:
        """Begins with what fits of the weights of a smaller generator, where the method grows its networks.

        weights: by our state-dict names; those that this generator does not have may be by the reference's. Returns the
        parts of the generator that keep their first values; None if the method does not grow, or if nothing fits.
        """
        return None

    def load_losses(self) -> Sequence[nn.Module]:
        """Loads the pretrained networks that losses use, and returns them; only training needs it."""
        return ()

    def before_checkpoint(  # noqa: B027 - most have nothing to do
        self, held_out: Iterable[Batch], gathered: Callable[[Sequence[Tensor]], Tensor]
    ) -> None:
        """Stores in buffers of the networks what a checkpoint, soon to be written, should know of the held-out set.

        Called with the networks as they are looked at (averaged, in eval mode, without gradients) on every rank, with
        its share of the batches, not yet prepared. `gathered` gives the rows of all tensors of all ranks. Buffers that
        are to outlive the next update of an average are those of a `NotAveraged` module (nn/average.py).
        """


def shown(images: Tensor) -> Tensor:
    """N x 1 or 3 x H x W -> the same as images to look at, N x 3 x H x W, float32, cut to [-1, 1]."""
    return images.float().clamp(-1, 1).expand(-1, 3, -1, -1)


def fitted(batch: Batch, names: Sequence[str], *, multiple: int, smallest_px: int) -> Batch:
    """A batch whose images (bicubic) and `label` (nearest) have sides that networks can halve and double again.

    names: the tensors N x C x H x W in question, as far as they are there. Their sides are rounded down to multiples.
    UserError if one is smaller than `smallest_px`.
    """
    least = math.ceil(smallest_px / multiple) * multiple
    resized: dict[str, Tensor] = {}
    for name in names:
        if name not in batch:
            continue
        height, width = batch[name].shape[-2:]
        if min(height, width) < least:
            raise UserError(
                f"{name} of {height} x {width} px: these networks need sides from {least} px on",
                advice="enlarge the images (augmentations), or take networks of fewer halvings",
            )
        size = (height // multiple * multiple, width // multiple * multiple)
        if size != (height, width):
            resized[name] = F.interpolate(batch[name], size=size, mode="nearest" if name == "label" else "bicubic")
    return batch.replace(**resized)
