"""Instance maps (which object a pixel belongs to): edges, means over instances, clusters of features per class.

Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs, 2018, sections 3.3, 3.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.nn.average import NotAveraged
from imagier.nn.precision import to_full_precision

_KMEANS_STEPS = 100


def instance_ids(stored: Tensor) -> Tensor:
    """Instance maps as the loader gives them, float of any shape -> ids, int64.

    Maps of 8 bits are divided by 255, those of 16 bits are not. Fractions tell them apart: in a map of 8 bits with no
    other values than 0 and 255, the latter becomes 1.
    """
    fractional = (stored != stored.round()).any()
    return torch.where(fractional, (stored * 255).round(), stored).long()


def instance_edges(instances: Tensor) -> Tensor:
    """Instance maps N x 1 x H x W -> 1 where a pixel differs from one of its four neighbors, else 0; float32.

    Pixels on both sides of a border are marked; the border of the image is not.
    """
    below = instances[..., 1:, :] != instances[..., :-1, :]
    right = instances[..., 1:] != instances[..., :-1]
    edges = torch.zeros_like(instances, dtype=torch.bool)
    edges[..., 1:, :] |= below
    edges[..., :-1, :] |= below
    edges[..., 1:] |= right
    edges[..., :-1] |= right
    return edges.float()


class Segments(NamedTuple):
    """Instance maps with ids numbered consecutively."""

    ids: Tensor
    """The distinct ids of all maps of a batch, ascending [S]."""
    numbers: Tensor
    """Index into `ids` of every pixel, N x 1 x H x W."""


def segments(instances: Tensor) -> Segments:
    """Instance maps N x 1 x H x W of integers -> their segments."""
    return Segments(*instances.unique(return_inverse=True))


def segment_means(x: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Features N x C x H x W -> mean N x C x S and number of pixels N x S of each segment; both 0 if it has none.

    numbers: the segment of every pixel, N x 1 x H x W; count: S. Half precision is summed in float32.
    """
    x = to_full_precision(x).flatten(2)
    numbers = numbers.flatten(2)
    sizes = numbers.new_zeros(len(x), 1, count).scatter_add(2, numbers, torch.ones_like(numbers))
    sums = x.new_zeros(len(x), x.shape[1], count).scatter_add(2, numbers.expand(-1, x.shape[1], -1), x)
    return sums / sizes.clamp(min=1), sizes[:, 0]


def paint_segments(values: Tensor, numbers: Tensor) -> Tensor:
    """One value per segment, N x C x S -> N x C x H x W. numbers: the segment of every pixel, N x 1 x H x W."""
    flat = numbers.flatten(2).expand(-1, values.shape[1], -1)
    return values.gather(2, flat).unflatten(2, numbers.shape[-2:])


def average_by_instance(x: Tensor, instances: Tensor) -> Tensor:
    """Replaces every pixel by the mean over its instance in its sample (section 3.4: instance-wise average pooling).

    Features N x C x H x W, instance maps N x 1 x H x W of integers -> N x C x H x W. Waits for no device.
    """
    if instances.is_cpu:  # which sorts more slowly
        ids, numbers = segments(instances)
        count = len(ids)
    else:
        numbers, count = _number_each(instances), instances[0].numel()
    return paint_segments(segment_means(x, numbers, count)[0], numbers)


def _number_each(instances: Tensor) -> Tensor:
    """Instance maps N x 1 x H x W of integers -> the same with the ids of each map numbered from 0 on.

    How many there are is not asked for: of another device that would be known only after a wait.
    """
    ids, order = instances.flatten(1).sort(dim=1)
    is_next = F.pad(ids[:, 1:] != ids[:, :-1], (1, 0))
    return torch.empty_like(order).scatter_(1, order, is_next.cumsum(dim=1)).view(instances.shape)


class Clusters(NotAveraged):
    """Clusters of the features of instances, per class.

    Buffers cluster_0, cluster_1, ... of the classes, each num_clusters x width; unused rows are 0 and come last.
    """

    def __init__(self, *, num_classes: int, num_clusters: int, width: int) -> None:
        super().__init__()
        for index in range(num_classes):
            self.register_buffer(f"cluster_{index}", torch.zeros(num_clusters, width))

    @torch.no_grad()
    def fit(self, classes: Tensor, features: Tensor) -> None:
        """Replaces the centers by those of features R x width of classes [R]; unknown classes are ignored.

        A class has at most as many centers as distinct instances. The order of instances does not matter.
        """
        rows, class_of = features.double().cpu().numpy(), classes.cpu().numpy()
        for index, cluster in enumerate(self.buffers()):
            cluster.zero_()
            centers = _centers(rows[class_of == index], len(cluster))
            cluster[: len(centers)] = torch.from_numpy(centers).to(cluster)

    def is_empty(self) -> bool:
        """Whether there is no center at all."""
        return not any(cluster.any() for cluster in self.buffers())

    def draw(self, classes: Tensor, rng: torch.Generator) -> Tensor:
        """Classes of any shape -> for each a center of its class, drawn uniformly, shape x width; 0 if it has none."""
        table = torch.stack(list(self.buffers()))
        counts = table.any(dim=2).sum(dim=1)
        known = classes.clamp(max=len(table) - 1)
        share = torch.rand(classes.shape, generator=rng, device=classes.device)
        centers = table[known, (share * counts[known]).long()]
        return centers.where((classes == known)[..., None], 0.0)


def _centers(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` centers of clusters of rows (k-means++, Arthur & Vassilvitskii 2007)."""
    from scipy.cluster.vq import kmeans2  # slow to import, and only training needs it

    different = np.unique(rows, axis=0)
    if len(different) <= most:
        return different
    rows = rows[np.lexsort(rows.T)]
    centers, _ = kmeans2(rows, most, iter=_KMEANS_STEPS, minit="++", rng=np.random.default_rng(0))
    return centers
