"""Segmentation score: can the class map be seen in the image that was made from it (Park et al. 2019, section 4)?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.metric import Metric as BaseMetric
from imagier.metrics.small_unet import UNKNOWN, train_unet
from imagier.metrics.user_network import UserCode, UserNetwork
from imagier.ranges import Count, Positive, PositiveFloat
from imagier.user_code import load_user_object


class Metric(BaseMetric):
    """Mean IoU, and share of right pixels, of the classes that a segmenter sees in the generated images.

    Only its score on the real images says how good a score can be: no segmenter is perfect.
    """

    name = "mIoU"
    higher_is_better = True
    needs = ("classes",)
    learns = True

    def __init__(
        self,
        *,
        segmenter: UserCode | None = None,
        ignore_index: Count | None = None,
        steps: Positive = 200,
        learning_rate: PositiveFloat = 3e-3,
        seed: int = 0,
    ) -> None:
        """segmenter: "module:name" of a callable, or of a class that makes one without arguments: N x 3 x H x W in
          [0, 1] -> logits, N x classes x H x W; null: a small U-Net, trained on real images at the first scores.
        ignore_index: A class whose pixels do not count, such as "unlabeled".
        steps: Iterations in which the small U-Net learns.
        learning_rate: Learning rate at its first iteration; it falls to 0 along a line.
        seed: Draws its first weights and which images are mirrored.
        """
        if segmenter is not None:
            load_user_object(segmenter, "segmenter")  # so that a mistake is found at the start
        self.segmenter = segmenter
        self.ignore_index = ignore_index
        self.steps = steps
        self.learning_rate = learning_rate
        self.seed = seed
        self.num_classes = 0
        self._users: UserNetwork | None = None
        self._trained: torch.nn.Module | None = None

    @property
    def scores(self) -> dict[str, bool]:
        return {self.name: True, "pixel accuracy": True}

    def describe(self) -> Mapping[str, str | int | float | bool]:
        ignored = {} if self.ignore_index is None else {"ignore_index": self.ignore_index}
        if self._users is not None:
            return {"segmenter": self._users.name, **self._users.describe(), **ignored}
        return {
            "segmenter": "small U-Net",
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            **ignored,
        }

    def load(self, device: torch.device) -> None:
        if self.segmenter is not None:
            self._users = UserNetwork(self.segmenter, device, "segmenter")

    def fit(self, real: Iterable[tuple[Tensor, Mapping[str, Tensor]]]) -> None:
        for _, known in real:
            self.num_classes = known["classes"].shape[1]
            break
        if self._users is None and self.num_classes:
            batches = _Pairs(real, self.ignore_index)
            self._trained = train_unet(
                batches, self.num_classes, steps=self.steps, lr=self.learning_rate, seed=self.seed
            )

    def reset(self, device: torch.device) -> None:
        shape = self.num_classes, self.num_classes
        self.state = {"confusion": torch.zeros(shape, dtype=torch.int64, device=device)}

    @torch.no_grad()
    def update(self, images: Tensor, known: Mapping[str, Tensor]) -> None:
        truth = _find_ids(known["classes"], self.ignore_index)
        seen = self._segment(images).argmax(dim=1)
        counts = truth != UNKNOWN
        pairs = truth[counts] * self.num_classes + seen[counts]
        found = torch.bincount(pairs, minlength=self.num_classes**2)
        self.state["confusion"] = self.state["confusion"] + found.view_as(self.state["confusion"])

    def compute(self) -> float:
        return self.compute_all()[self.name]

    def compute_all(self) -> dict[str, float]:
        iou, accuracy = measure_confusion(self.state["confusion"])
        return {self.name: iou, "pixel accuracy": accuracy}

    def _segment(self, images: Tensor) -> Tensor:
        if self._users is not None:
            shape = len(images), self.num_classes, *images.shape[2:]
            return self._users.check(self._users(images), shape, images)
        if self._trained is None:
            what = "nothing to learn from: no real images with class maps"
            raise UserError(what, where="segmentation", advice="leave it out", code="no-class-maps")
        return self._trained(images.float())


class _Pairs:
    """Real images and the ids of their pixels' classes, as often as one goes through them."""

    def __init__(self, real: Iterable[tuple[Tensor, Mapping[str, Tensor]]], ignore_index: int | None) -> None:
        self.real = real
        self.ignore_index = ignore_index

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((images.float(), _find_ids(known["classes"], self.ignore_index)) for images, known in self.real)


def _find_ids(classes: Tensor, ignore_index: int | None) -> Tensor:
    """N x K x H x W in {0, 1} -> N x H x W: the class of each pixel, UNKNOWN if it has none, or one to ignore."""
    ids = classes.argmax(dim=1)
    ids = torch.where(classes.amax(dim=1) > 0, ids, UNKNOWN)
    return ids if ignore_index is None else torch.where(ids == ignore_index, UNKNOWN, ids)


def measure_confusion(confusion: Tensor) -> tuple[float, float]:
    """Mean over the classes of intersection over union, and share of right pixels; NaN if there are none.

    A class that occurs neither in truth nor in prediction does not count. confusion: K x K numbers of pixels, by true
    and predicted class.
    """
    confusion = confusion.double()
    right, total = confusion.diagonal(), confusion.sum().item()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - right
    if not total:
        return math.nan, math.nan
    occurs = union > 0
    return (right[occurs] / union[occurs]).mean().item(), right.sum().item() / total
