"""Segmentation score: can the class map be seen in the image that was made from it (Park et al. 2019, section 4)?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.metrics.metric import Metric as BaseMetric
from imagier.metrics.small_unet import UNKNOWN, SmallUNet, train_unet
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
        self._users: UserNetwork | None = None
        self._trained: SmallUNet | None = None

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
        if self._users is not None:
            return
        for _, known in real:
            num_classes, pairs = known["classes"].shape[1], _Pairs(real, self.ignore_index)
            self._trained = train_unet(pairs, num_classes, steps=self.steps, lr=self.learning_rate, seed=self.seed)
            break

    def learned_state(self) -> dict[str, Tensor]:
        return {} if self._trained is None else self._trained.state_dict()

    def load_learned(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        if state:
            self._trained = SmallUNet(len(state["head.bias"])).to(device).eval()
            self._trained.load_state_dict(state)

    def reset(self, device: torch.device) -> None:
        self.state = {"confusion": torch.zeros(0, 0, dtype=torch.int64, device=device)}

    @torch.no_grad()
    def update(self, images: Tensor, known: Mapping[str, Tensor]) -> None:
        num_classes = known["classes"].shape[1]
        truth = _find_ids(known["classes"], self.ignore_index)
        seen = self._segment(images, num_classes).argmax(dim=1)
        counts = truth != UNKNOWN
        pairs = truth[counts] * num_classes + seen[counts]
        found = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
        self.state["confusion"] = self._pad(num_classes) + found

    def merge(self, all_gather: Callable[[Sequence[Tensor]], Tensor]) -> None:
        num_classes = all_gather([torch.tensor([len(self.state["confusion"])])]).max().item()
        self.state["confusion"] = self._pad(int(num_classes))
        super().merge(all_gather)

    def compute(self) -> float:
        return self.compute_all()[self.name]

    def compute_all(self) -> dict[str, float]:
        iou, accuracy = measure_confusion(self.state["confusion"])
        return {self.name: iou, "pixel accuracy": accuracy}

    def _pad(self, num_classes: int) -> Tensor:
        """The confusion of so many classes; before the first image there are none."""
        confusion = self.state["confusion"]
        return confusion if len(confusion) else confusion.new_zeros(num_classes, num_classes)

    def _segment(self, images: Tensor, num_classes: int) -> Tensor:
        if self._users is not None:
            shape = len(images), num_classes, *images.shape[2:]
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
