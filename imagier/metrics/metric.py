"""The contract of a metric: one number that says how good generated images are."""

from __future__ import annotations

import copy
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from imagier.errors import UserError


@dataclass(frozen=True)
class Score:
    """What people should know of one of the numbers of a run's metrics."""

    name: str
    """What logs, tables and cards call it: that of the metric, or of one of its values; it may end in a domain (_a)."""
    higher_is_better: bool
    meaning: str
    """A line that explains it; scores that are explained alike may share one."""


class AnyMetric(ABC):
    """What all metrics have in common."""

    name: str
    """What people and logs call it, and `keep_best`. No two metrics of a run have the same."""

    higher_is_better: bool = False

    needs: Sequence[str] = ()
    """What must be known about generated images, beside them. Without it there is no number.

    targets: the images that should have come out. start: what was there before, such as the gray image that was to be
    colored; the targets where there is no such thing. Both are N x 3 x H x W in [0, 1], like the generated images.
    classes: the class of each pixel of the target, N x K x H x W in {0, 1}. real: real images that they should look
    like, as a set. labels: the class of each image, N. Of clips also flow, N x 2 x H x W, in pixels to the right and
    down, which leads to where each pixel was in the frame before, and flow_confidence, N x 1 x H x W; unprojections,
    the point of the world that each pixel shows, N x 1 x H x W, int64, 0 where unknown.
    """

    uses: Sequence[str] = ()
    """What else of these it looks at, where it is known."""

    takes_clips: ClassVar[bool] = False
    """Whether it is given clips, N x T x 3 x H x W, and not images; what is known of them has T, too. Of a long clip it
    is given parts, which begin with the last frame of the part before.
    """

    @property
    def scores(self) -> dict[str, bool]:
        """The names of its numbers, the main one first, and whether higher is better."""
        return {self.name: self.higher_is_better}

    def list_scores(self, domains: Iterable[str] = ("",)) -> list[Score]:
        """What people should know of each of its numbers: the first line of its docstring, and which way is better.

        domains: those of the recipe, where each has numbers of its own.
        """
        documentation = (inspect.getdoc(type(self)) or "").partition("\n")[0]
        return [
            Score(name, is_better, f"{name}: {documentation} {'Higher' if is_better else 'Lower'} is better.")
            for name, is_better in self.scores.items()
        ]

    def describe(self) -> Mapping[str, str | int | float | bool]:
        """What two of its numbers must have in common to be comparable, beside features; once it is loaded."""
        return {}

    def load(self, device: torch.device) -> None:  # noqa: B027 - most have no network
        """Loads the networks that it uses, once, before its first image. UserError if their weights cannot be had."""


class Metric(AnyMetric):
    """One number for a set of generated images. A config names it by its module; its constructor is the schema.

    The evaluation makes an empty copy of it (`fresh`) for each set of images, calls `update` with every batch of this
    rank's share, adds up the states of all ranks (`merge`), and reads the number (`compute`). A whole example:

        from imagier.metrics.metric import Metric as BaseMetric

        class Metric(BaseMetric):
            '''Root mean squared difference from the targets, over the pixels of all images.'''

            name = "RMSE"

            def __init__(self, *, scale: float = 1.0) -> None:
                self.scale = scale

            def reset(self, device):
                self.state = {"squares": torch.zeros((), device=device), "count": torch.zeros((), device=device)}

            def update(self, images, known):
                self.state["squares"] += (images - known["targets"]).square().sum()
                self.state["count"] += images.numel()

            def compute(self):
                return self.scale * (self.state["squares"] / self.state["count"]).sqrt().item()
    """

    needs: Sequence[str] = ("targets",)

    learns: ClassVar[bool] = False
    """Whether `fit` has something to do."""

    state: dict[str, Tensor]
    """What the images so far have added up to: sums, whose sum over the ranks is the state of the whole set."""

    @abstractmethod
    def reset(self, device: torch.device) -> None:
        """Sets `state` to that of no images, on a device."""

    @abstractmethod
    def update(self, images: Tensor, known: Mapping[str, Tensor]) -> None:
        """Adds a batch of generated images, N x 3 x H x W in [0, 1], to `state`. known: what `needs` names."""

    @abstractmethod
    def compute(self) -> float:
        """The number that belongs to `state`; NaN if it is not defined, as that of no images may be."""

    def compute_all(self) -> dict[str, float]:
        """All numbers that belong to `state`, by the names in `scores`. A metric that has several defines this, too."""
        return {self.name: self.compute()}

    def compute_intervals(self) -> dict[str, tuple[float, float]]:
        """Where some of the numbers lie with 95 % confidence, over sets of this size, by their names."""
        return {}

    def fit(self, real: Iterable[tuple[Tensor, Mapping[str, Tensor]]]) -> None:
        """Learns from training images what it needs, once, before its first image.

        real: batches as of `update`, of real images and what is known of them; the same ones on all ranks. It may go
        through them several times.
        """

    def learned_state(self) -> dict[str, Tensor]:
        """What `fit` learned, for the other ranks. A metric that learns defines this and `load_learned`, too."""
        raise NotImplementedError

    def load_learned(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Takes over what `learned_state` of another rank gave."""
        raise NotImplementedError

    def fresh(self, device: torch.device) -> Self:
        """The same metric before its first image. It shares everything but the state with this one."""
        other = copy.copy(self)
        other.reset(device)
        return other

    def merge(self, all_gather: Callable[[Sequence[Tensor]], Tensor]) -> None:
        """Replaces the state by the sum of all ranks' states.

        all_gather: gives the rows of all ranks' tensors, as `Runtime.all_gather` does.
        """
        self.state = {name: all_gather([tensor[None]]).sum(dim=0) for name, tensor in self.state.items()}


class MeanOverImages(Metric):
    """A metric that is the mean of one number for each image."""

    @abstractmethod
    def measure(self, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        """N x 3 x H x W in [0, 1] -> N, NaN for an image that has no such number. known: what `needs` names."""

    def reset(self, device: torch.device) -> None:
        self.state = {name: torch.zeros((), dtype=torch.float64) for name in ("sum", "squares", "count")}

    def update(self, images: Tensor, known: Mapping[str, Tensor]) -> None:
        values = self.measure(images, known).cpu().double()
        is_broken = ~images.isfinite().flatten(1).all(dim=1).cpu()  # its NaN is not left out, but makes the mean NaN
        counted = values[~values.isnan() | is_broken]
        self.state["sum"] = self.state["sum"] + counted.sum()
        self.state["squares"] = self.state["squares"] + counted.square().sum()
        self.state["count"] = self.state["count"] + len(counted)

    def compute(self) -> float:
        count = self.state["count"].item()
        return self.state["sum"].item() / count if count else math.nan

    def compute_intervals(self) -> dict[str, tuple[float, float]]:
        """By Student's distribution of the mean over images."""
        from scipy.special import stdtrit

        count, mean = int(self.state["count"].item()), self.compute()
        if count < 2 or not math.isfinite(mean):
            return {}
        variance = max(0.0, (self.state["squares"].item() - count * mean**2) / (count - 1))
        half = float(stdtrit(count - 1, 0.975)) * (variance / count) ** 0.5
        return {self.name: (mean - half, mean + half)}


def check_size(images: Tensor, least: int, name: str) -> None:
    """UserError if images, N x C x H x W, are smaller than a metric's windows."""
    height, width = images.shape[2:]
    if min(height, width) < least:
        what = f"images of {width} x {height} px are too small: it needs {least} on each side"
        raise UserError(what, where=name, advice="leave it out", code="too-small-images")
