"""The contract between a method and everything around it: Batch, StepContext, Losses, Recipe."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imagier.errors import UserError

Losses = dict[str, Tensor]
Phases = Iterator[tuple[str, Losses]]  # the player of each, by name
State = dict[str, Tensor]  # what the next frames of clips follow from
Frames = Iterator[tuple[dict[str, Tensor], State]]  # the generator's outputs for each, and the state after it
Exported = tuple[nn.Module, dict[str, Tensor]]  # a network, and its keyword arguments for a batch

FEW_SHOT = "few_shot_"
"""How the names of tensors begin that belong to a clip as a whole: frames for reference."""


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
        """A copy with some tensors added or replaced."""
        return replace(self, tensors={**self.tensors, **tensors})

    def split(self, parts: int) -> list[Batch]:
        """`parts` consecutive batches of equal length. UserError if there are none."""
        if len(self) % parts:
            advice = "steps_keys of the recipe names its keys that say in how many parts"
            what = f"a batch of {len(self)} cannot be split in {parts}"
            raise UserError(what, advice=advice, code="indivisible-batch")
        rows = len(self) // parts
        return [self._rows(slice(i * rows, (i + 1) * rows)) for i in range(parts)]

    def frames(self) -> list[Batch]:
        """Clips as batches of N x 1 x ...: tensors of more than three dimensions, but for those of FEW_SHOT."""
        names = [name for name, each in self.tensors.items() if each.dim() > 3 and not name.startswith(FEW_SHOT)]
        count = max((self.tensors[name].shape[1] for name in names), default=0)
        return [self.replace(**{name: self.tensors[name][:, t : t + 1] for name in names}) for t in range(count)]

    def _rows(self, rows: slice) -> Batch:
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Batch(tensors, {name: names[rows] for name, names in self.keys.items()})


@dataclass(frozen=True)
class Position:
    """Where a run stands in its data: the current epoch, and the samples (of all ranks) taken from it."""

    epoch: int = 0
    samples: int = 0


@dataclass(frozen=True)
class StepContext:
    """When a training step happens, and its private source of randomness."""

    step: int
    epoch: int
    rng: torch.Generator
    parts: int = 1
    """Parts that the batch was split into (`trainer.accumulate`). Their steps take turns, phase by phase."""


@dataclass(frozen=True, kw_only=True)
class InferenceInputs:
    """What `Recipe.infer` reads of a batch, by its names there."""

    content: Sequence[str]
    """Each sample of these becomes one image, of their size."""
    style: str | None = None
    """Images that a style can be taken from."""
    is_style_aligned: bool = False
    """The style image of a sample shows the same as its content, pixel by pixel."""
    from_images: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `infer` that take the style from `style`."""
    at_random: Mapping[str, Any] | None = None
    """Arguments of `infer` that draw a style; None: there is nothing random about one."""
    references: Sequence[str] = ()
    """A clip needs some frames of these that show who or what is to move; a batch holds them under FEW_SHOT names."""

    @property
    def aligned(self) -> list[str]:
        """What shows the same, pixel by pixel: the content, and the style images if they do."""
        return [*self.content, *([self.style] if self.style and self.is_style_aligned else [])]


@dataclass(frozen=True)
class Domain:
    """A set of images that a generator makes. Every file counts once, even if a shorter list of files begins again."""

    real: str | None = None
    """Input type of the real images that they should look like; None: a real image belongs to a whole sample."""
    content: str | None = None
    """Input type that they are made of; None: each sample gives another image."""


class Recipe(ABC):
    """One method (one paper): which losses move which network, and how images are made.

    Every key of a config's `trainer` section is a keyword of the constructor, with a type and maybe a default. So it is
    for the networks, which are the constructor's first keywords. This module is a whole method, if a bad one; with the
    file on the Python path as my_lab/colorize.py, `type: my_lab.colorize` finds its three classes::

        import torch.nn.functional as F
        from torch import nn

        from imagier.recipe import Recipe as BaseRecipe

        class Generator(nn.Module):
            def __init__(self, *, width: int = 8):
                super().__init__()
                self.hidden = nn.Conv2d(1, width, 3, padding=1)
                self.color = nn.Conv2d(width, 3, 3, padding=1)

            def forward(self, gray):
                return self.color(self.hidden(gray).relu()).tanh()

        class Discriminator(nn.Module):
            def __init__(self, *, width: int = 8):
                super().__init__()
                self.hidden = nn.Conv2d(3, width, 4, stride=2)
                self.logits = nn.Conv2d(width, 1, 4, stride=2)

            def forward(self, images):
                return self.logits(F.leaky_relu(self.hidden(images), 0.2))

        class Recipe(BaseRecipe):
            required_inputs = ("images",)

            def __init__(self, *, gen: Generator, dis: Discriminator, loss_weight: dict[str, float]):
                self.gen, self.dis, self.loss_weight = gen, dis, loss_weight

            def step(self, batch, ctx):
                real, fake = batch["images"], self.sample(batch, ctx.rng)
                logits = {"real": self.dis(real), "fake": self.dis(fake.detach())}
                yield "dis", {"gan": F.softplus(-logits["real"]).mean() + F.softplus(logits["fake"]).mean()}
                flatness = fake.diff(dim=-1).abs().mean() + fake.diff(dim=-2).abs().mean()
                yield "gen", {"gan": F.softplus(-self.dis(fake)).mean(), "flatness": flatness}

            def sample(self, batch, rng):
                return self.gen(batch["images"].mean(dim=1, keepdim=True))

            def target(self, batch):
                return batch["images"]

    `step` and `sample` are all that a recipe needs; with a `target`, its images are scored. Every other method has a
    default, for a method to replace. A recipe is final: it is not subclassed further. Loss names are the keys of
    `loss_weight`, optionally followed by "/part": parts share the weight of their loss.
    """

    players: ClassVar[tuple[str, ...]] = ("gen", "dis")
    """Names of the players, the generator first; each one's network is the attribute of that name."""
    required_inputs: ClassVar[Sequence[str]] = ()
    """What a step reads of a batch: input types of the config, and `label`, which its input_labels make up."""
    normalized_inputs: ClassVar[Sequence[str]] = ()
    """Input types that it compares with its own images, in [-1, 1]: a config without `normalize: true` is refused."""

    instance_inputs: ClassVar[Sequence[str]] = ()
    """Input types of the label whose values it reads as numbers of instances: they are no classes."""

    domains: ClassVar[Mapping[str, Domain]] = {"": Domain()}
    """The sets of images that it makes; the first is that of `sample`. A name follows those of its scores ("FD_a")."""

    is_video: ClassVar[bool] = False
    """Whether batches hold clips, with a dimension of frames after that of samples. `rollout` makes all their frames;
    methods that make or return one image a sample mean the last frame."""

    size_multiple: int = 1
    """`prepare` brings the sides of images to multiples of this."""

    loss_weight: Mapping[str, float] = {}
    """Weight of every loss in its player's total; that of a part ("gan/a"), named "gan_a", is added to the whole's."""

    log_names: ClassVar[Mapping[str, str]] = {}
    """Name under which a loss or a part of one is logged, where that differs from its own."""

    steps_keys: ClassVar[Sequence[str]] = ()
    """Keys that say how often a player is updated: an iteration takes as many batches as the largest of them, else one.
    They come as a single batch; `alternate` splits it."""

    data_keys: ClassVar[Sequence[str]] = ()
    """Keys that the data set reads, too, as fields of its `DatasetSpec`: when the clips of a video method grow."""

    loss_networks: Sequence[nn.Module] = ()
    """What `load_losses` has returned, once a training has called it."""

    has_before_checkpoint: bool = False
    """Whether `before_checkpoint` has something to do."""

    @property
    def generator_name(self) -> str:
        """The name of the player that makes the images: the first of `players`."""
        return self.players[0]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks by the name of their player."""
        return {name: getattr(self, name) for name in self.players}

    def with_networks(self, **networks: nn.Module) -> Recipe:
        """A copy of this recipe with some of its networks replaced (by their averages, say)."""
        other = copy.copy(self)
        for name, network in networks.items():
            setattr(other, name, network)
        return other

    def train(self) -> None:
        """Puts all networks into training mode."""
        for network in self.networks.values():
            network.train()

    @abstractmethod
    def step(self, batch: Batch, ctx: StepContext) -> Phases:
        """Yields (player, losses); the loop updates that player before it asks for the next.

        Never yields inside a `with torch.no_grad()`, which would last until the next phase is asked for.
        """

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum of a player's losses, a float32 scalar. UserError if one has no weight, or all have 0."""
        weights = {name: self._weight(name) for name in losses}
        weighted = [weight * losses[name].float() for name, weight in weights.items() if weight]
        if not weighted:
            what = f"is 0 for {', '.join(losses)}: the player with these losses would learn nothing"
            raise UserError(
                what, where="trainer.loss_weight", advice="give one of them a weight", code="no-loss-weight"
            )
        return torch.stack(weighted).sum()

    def check_weights(self, *losses: str) -> None:
        """UserError if one of these losses of a discriminator has no weight."""
        for name in losses:
            whole, _, part = name.partition("/")
            if self._weight(name) <= 0:
                what = "must be more than 0, or the discriminator would learn nothing"
                where = f"loss_weight.{whole} or loss_weight.{whole}_{part}" if part else f"loss_weight.{whole}"
                raise UserError(what, where=where, code="no-loss-weight")

    def _weight(self, name: str) -> float:
        whole, _, part = name.partition("/")
        if whole not in self.loss_weight:
            what, where = f"missing: the recipe computes a loss {name}", f"trainer.loss_weight.{whole}"
            raise UserError(what, where=where, advice="give it a weight, or 0", code="missing-loss-weight")
        return self.loss_weight[whole] + (self.loss_weight.get(f"{whole}_{part}", 0.0) if part else 0.0)

    @abstractmethod
    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """Images for a batch, N x 3 x H x W in [-1, 1]."""

    def generate(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """All that the generator returns for a batch, as in training; batch norms of an average are measured on it."""
        return {"fake_images": self.sample(batch, rng)}

    def rollout(self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None) -> Frames:
        """Generates the frames of clips in order, in constant memory; by default each by itself.

        frames: prepared batches of N samples x 1 frame, with what belongs to a clip as a whole (FEW_SHOT) in each.
        Yields for each, before it asks for the next, the generator's outputs (`fake_images` N x 3 x H x W, ...) and the
        state after it, which nothing changes later. A state given begins where that frame ended.
        """
        for frame in frames:
            yield {"fake_images": self.sample(frame, rng)}, {}

    def infer(self, batch: Batch, rng: torch.Generator) -> list[Tensor]:
        """One image per sample, C x H x W, to be clamped to [-1, 1].

        Keyword-only arguments are the config's `inference_args`. An argument `seed` gets the run's, which is the same
        on all ranks; `rng` differs.
        """
        return list(self.sample(batch, rng))

    def tune(self, batch: Batch, rng: torch.Generator, *args: Any, **inference_args: Any) -> Phases | None:
        """Phases like those of `step` that fit copies of the networks to a prepared batch before its clip is made.

        All of these learns but for what the phases freeze. None: nothing to do.
        """
        return None

    def infer_names(self, batch: Batch, *args: Any, **inference_args: Any) -> list[str]:
        """Names of the images that `infer` makes of a batch with these arguments, "sequence/name" each.

        A name that comes again in a run is taken for the same image. (`*args` is here for the type checker alone.)
        """
        return next(iter(batch.keys.values()))

    def inference_inputs(self, *args: Any, **inference_args: Any) -> InferenceInputs:
        """What `infer` needs with these arguments, for those who have files and no data set. (`*args`: as above.)"""
        return InferenceInputs(content=self.required_inputs)

    def export_network(self, batch: Batch, rng: torch.Generator, *args: Any, **inference_args: Any) -> Exported | None:
        """`infer` as a network of tensors, and its arguments for a prepared batch, called by what they are (`label`,
        `images`, `style_images`, `noise`, ...) -> N x C x H x W in [-1, 1]. None: there is no such form.
        """
        return None

    def visualize_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The columns left of the results in the image grids of a training, N x 3 x H x W in [-1, 1] each."""
        target = self.target(batch)
        return {} if target is None else {"target": target}

    def visualize_outputs(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The columns of results in the image grids of a training, N x 3 x H x W in [-1, 1] each."""
        return {"fake": self.sample(batch, rng)}

    def visualize_frame(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `visualize_outputs`, of what `rollout` yields; the frame is `fake`."""
        return {"fake": outputs["fake_images"]}

    def prepare(self, batch: Batch) -> Batch:
        """What the method does to a batch on the device; all methods here but `step` expect a prepared one."""
        return batch

    def target(self, batch: Batch) -> Tensor | None:
        """The images that `sample` should reproduce, N x 3 x H x W in [-1, 1]; None if the data have none."""
        return None

    def translate(self, batch: Batch, rng: torch.Generator, sample: Tensor) -> dict[str, Tensor]:
        """Images of every one of `domains`, N x 3 x H x W in [-1, 1]. sample: those of `sample`, which may be taken."""
        return {next(iter(self.domains)): sample}

    def real_images(self, batch: Batch) -> dict[str, Tensor]:
        """The real images that those of each domain should look like as a set, N x 3 x H x W in [-1, 1]."""
        target = self.target(batch)
        return {} if target is None else {next(iter(self.domains)): target}

    def image_classes(self, batch: Batch) -> Tensor | None:
        """The class of each image of the first domain, real or generated, N, int64; None without classes."""
        return None

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """Images by name that need no training and that `sample` should beat at coming near the target."""
        return {}

    def class_map(self, batch: Batch) -> Tensor | None:
        """The class of each pixel of the target, N x K x H x W in {0, 1}, for scores by class; None without classes."""
        return None

    def discriminator_logits(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]] | None:
        """Logits of the discriminators, if any, for real and for generated images, of any shape: above 0 is "real"."""
        return None

    def warm_start(self, weights: Mapping[str, Tensor]) -> list[str] | None:
        """Loads what fits of the weights of a smaller generator, where the method grows its networks.

        weights: by our state-dict names; those that this generator does not have may be by the reference's. Returns the
        parts of the generator that keep their initial values; None if the method does not grow, or if nothing fits.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep of each rank's recipe (a queue, a counter): tensors, numbers, text, nested."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Continues from what `state_dict` returned, unless that was empty; its tensors are on the CPU."""

    def load_losses(self) -> Sequence[nn.Module]:
        """Loads the pretrained networks that losses use, and returns them; only training needs it."""
        return ()

    def before_checkpoint(  # noqa: B027 - most have nothing to do
        self, held_out: Iterable[Batch], all_gather: Callable[[Sequence[Tensor]], Tensor]
    ) -> None:
        """Stores in buffers of the networks what a checkpoint about to be written should know of the held-out set.

        Called with the networks that the checkpoint is for (averaged, in eval mode, without gradients) on every rank,
        with its share of the batches, not yet prepared. `all_gather` returns the rows of all tensors of all ranks.
        Buffers that must outlive the next update of an average belong to a `NotAveraged` module (nn/average.py).
        """


def name_in_style(content: str, style: str) -> str:
    """The name of an image, "sequence/name", from those of its content and its style."""
    return f"{content}_style_{style.removeprefix('./').replace('/', '_')}"
