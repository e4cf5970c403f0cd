"""Instance maps: against loops over pixels and instances."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from imagier.nn.average import ModelAverage
from imagier.nn.instances import (
    Clusters,
    _number_each,
    average_by_instance,
    instance_edges,
    instance_ids,
    paint_segments,
    segment_means,
    segments,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def rng(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def maps(count: int = 3, height: int = 6, width: int = 8) -> Tensor:
    """Some ids far apart, as in Cityscapes, not all of them in every map."""
    ids = torch.tensor([0, 7, 1000, 1001, 26003, 65535])
    return ids[torch.randint(len(ids), (count, 1, height, width))]


# Ids and edges -------------------------------------------------------------------------------------------------------


def test_all_ids_of_8_and_of_16_bits_come_back() -> None:
    eight, sixteen = torch.arange(256), torch.arange(65536)
    assert torch.equal(instance_ids(eight.float() / 255), eight)
    assert torch.equal(instance_ids(sixteen.float()), sixteen)
    assert instance_ids(eight.float() / 255).dtype == torch.int64


def test_ids_0_and_1_of_16_bits_stay_as_they_are() -> None:
    stored = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    assert torch.equal(instance_ids(stored), stored.long())


def edges_by_pixel(instances: Tensor) -> Tensor:
    """Written out: look at each of the four neighbors of every pixel."""
    found = torch.zeros(instances.shape)
    height, width = instances.shape[-2:]
    for n, y, x in itertools.product(range(len(instances)), range(height), range(width)):
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                found[n, 0, y, x] += float(instances[n, 0, y, x] != instances[n, 0, y + dy, x + dx])
    return found.clamp(max=1)


def test_a_pixel_is_an_edge_if_it_differs_from_a_neighbor() -> None:
    instances = maps().where(torch.rand(3, 1, 6, 8) < 0.3, 7)
    expected = edges_by_pixel(instances)
    assert 0 < expected.mean() < 1
    found = instance_edges(instances.float())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(instance_edges(instances.float() / 255), expected)


def test_both_sides_of_a_border_are_marked_and_neither_the_rim_nor_the_inside() -> None:
    row = torch.tensor([5.0, 5.0, 5.0, 9.0, 9.0, 9.0]).expand(1, 1, 4, 6)
    assert instance_edges(row)[0, 0].tolist() == [[0, 0, 1, 1, 0, 0]] * 4
    assert instance_edges(row.mT)[0, 0].T.tolist() == [[0, 0, 1, 1, 0, 0]] * 4


# Means over instances ------------------------------------------------------------------------------------------------


def each_instance(instances: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Sample, id, and where it is (H x W)."""
    for n, one in enumerate(instances[:, 0]):
        for number in one.unique().tolist():
            yield n, number, one == number


def averaged_by_loop(x: Tensor, instances: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for n, _, where in each_instance(instances):
        mean = x[n][:, where].mean(dim=1, keepdim=True)
        out = out.clone()
        out[n][:, where] = mean.expand(-1, int(where.sum()))
    return out


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_pixel_gets_the_mean_of_its_instance_in_its_own_sample(memory_format: torch.memory_format) -> None:
    instances = maps()
    x = torch.randn(3, 4, 6, 8, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    found, expected = average_by_instance(x, instances), averaged_by_loop(x, instances)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_objects_of_one_pixel_stay_as_they_are() -> None:
    """More in the batch than pixels in a map."""
    x = torch.randn(3, 4, 6, 8)
    assert torch.equal(average_by_instance(x, torch.arange(3 * 6 * 8).view(3, 1, 6, 8)), x)


def test_ids_of_each_map_are_numbered_as_by_unique() -> None:
    """As devices that must not wait number them."""
    instances = maps()
    for found, one in zip(_number_each(instances), instances):
        assert torch.equal(found, one.unique(return_inverse=True)[1])


def test_gradients_of_the_mean_agree_with_finite_differences() -> None:
    instances = maps(2, 3, 4)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: average_by_instance(y, instances), x)


def test_what_is_constant_on_instances_stays_as_it_is() -> None:
    found = segments(maps())
    x = paint_segments(torch.randn(3, 2, len(found.ids), dtype=torch.float64), found.numbers)
    torch.testing.assert_close(average_by_instance(x, found.ids[found.numbers]), x)


def test_segments_number_the_ids_of_all_maps_and_their_sizes_count_pixels() -> None:
    instances = maps()
    found = segments(instances)
    assert torch.equal(found.ids[found.numbers], instances)
    assert torch.equal(found.ids, instances.unique())
    _, sizes = segment_means(torch.zeros(3, 1, 6, 8), found.numbers, len(found.ids))
    expected = torch.stack([(instances == number).sum(dim=(1, 2, 3)) for number in found.ids], dim=1)
    assert torch.equal(sizes, expected)


def test_the_mean_of_an_instance_that_a_sample_lacks_is_0() -> None:
    instances = torch.tensor([3, 8]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    found = segments(instances)
    means, sizes = segment_means(torch.ones(2, 5, 2, 2), found.numbers, len(found.ids))
    assert torch.equal(means[:, 0], torch.eye(2))
    assert torch.equal(sizes, 4 * torch.eye(2, dtype=torch.int64))


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.rand(1, 2, 64, 64).bfloat16()
    found = average_by_instance(x, torch.zeros(1, 1, 64, 64, dtype=torch.int64))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, :, 0, 0], x.float().mean(dim=(0, 2, 3)))


# Clusters ------------------------------------------------------------------------------------------------------------

CENTERS = torch.tensor([[0.9, 0.9, -0.5], [-0.9, 0.9, 0.5], [0.9, -0.9, 0.1]])


def blobs(per_blob: int = 20) -> Tensor:
    """Points close to CENTERS, whose means are these exactly."""
    noise = 0.05 * torch.randn(len(CENTERS), per_blob, CENTERS.shape[1])
    points = CENTERS[:, None] + noise - noise.mean(dim=1, keepdim=True)
    return points.flatten(0, 1)


def clusters(num_classes: int = 3, num_clusters: int = 3) -> Clusters:
    return Clusters(num_classes=num_classes, num_clusters=num_clusters, width=3)


def fitted(points: Tensor, of_class: int = 1, num_clusters: int = 3) -> Clusters:
    found = clusters(num_clusters=num_clusters)
    found.fit(torch.full((len(points),), of_class), points)
    return found


def rows(x: Tensor) -> list[list[float]]:
    """Rounded and in order, for comparing sets of points."""
    return sorted([round(value, 4) for value in row] for row in x.tolist())


def test_the_centers_of_separate_clouds_are_their_means() -> None:
    assert rows(fitted(blobs()).cluster_1) == rows(CENTERS)


def test_a_partition_into_clusters_is_the_best_one() -> None:
    """Of all partitions of a few points into two groups, by the sum of squared distances."""
    points = torch.tensor([0.1, 0.2, 0.3, 0.75, 0.8, 0.9, 0.95])[:, None] * torch.ones(3)

    def spread(members: tuple[int, ...]) -> float:
        inside = torch.zeros(len(points), dtype=torch.bool)
        inside[list(members)] = True
        groups = points[inside], points[~inside]
        return sum(float((group - group.mean(dim=0)).square().sum()) for group in groups)

    best = min((some for size in (1, 2, 3) for some in itertools.combinations(range(7), size)), key=spread)
    others = [index for index in range(7) if index not in best]
    expected = torch.stack([points[list(best)].mean(dim=0), points[others].mean(dim=0)])
    assert rows(fitted(points, num_clusters=2).cluster_1) == rows(expected)


def test_the_order_of_instances_and_what_was_stored_before_do_not_count() -> None:
    points = torch.randn(40, 3)
    expected = fitted(points).cluster_1
    found = fitted(points[torch.randperm(40)])
    assert torch.equal(found.cluster_1, expected)
    found.fit(torch.ones(40), points)
    assert torch.equal(found.cluster_1, expected)


def test_a_class_with_few_instances_keeps_these_and_shrinks_no_other_class() -> None:
    found = clusters()
    few, many = torch.tensor([[0.5, 0.1, 0.2]]), blobs()
    found.fit(torch.tensor([0] + [1] * len(many)), torch.cat([few, many]))
    assert rows(found.cluster_0) == rows(torch.cat([torch.zeros(2, 3), few]))
    assert torch.equal(found.cluster_0[1:], torch.zeros(2, 3))
    assert rows(found.cluster_1) == rows(CENTERS)
    assert torch.equal(found.cluster_2, torch.zeros(3, 3))


def test_instances_that_look_alike_make_one_center() -> None:
    found = fitted(torch.tensor([[0.25, 0.5, 0.75], [-0.5, 0.5, 0.5]]).repeat_interleave(10, dim=0))
    assert rows(found.cluster_1) == rows(torch.tensor([[0.25, 0.5, 0.75], [-0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]))


def test_classes_beyond_the_last_do_not_count_and_a_class_that_is_gone_is_emptied() -> None:
    found = fitted(blobs())
    assert not found.is_empty()
    found.fit(torch.tensor([3, 255]), torch.randn(2, 3))
    assert found.is_empty()
    found.fit(torch.zeros(0), torch.zeros(0, 3))
    assert found.is_empty()


def test_all_centers_of_the_class_are_drawn_equally_often_and_no_others() -> None:
    found = clusters(num_clusters=4)
    found.fit(torch.tensor([0, 1, 1, 1]), torch.cat([torch.ones(1, 3), CENTERS]))
    drawn = found.draw(torch.ones(6, 1000, dtype=torch.int64), rng())
    assert drawn.shape == (6, 1000, 3)
    different, counts = drawn.view(-1, 3).unique(dim=0, return_counts=True)
    assert rows(different) == rows(CENTERS)
    assert (counts / 6000 - 1 / 3).abs().max() < 0.03


def test_for_a_class_without_centers_nothing_is_drawn() -> None:
    found = fitted(blobs())
    drawn = found.draw(torch.tensor([[0, 1], [3, 70]]), rng())
    assert torch.equal(drawn.any(dim=2), torch.tensor([[False, True], [False, False]]))


def test_draws_follow_from_the_random_source() -> None:
    found = fitted(blobs())
    classes = torch.ones(50, dtype=torch.int64)
    assert torch.equal(found.draw(classes, rng(3)), found.draw(classes, rng(3)))
    assert not torch.equal(found.draw(classes, rng(3)), found.draw(classes, rng(4)))


class WithClusters(nn.Module):
    """A network that has clusters inside, and what an average follows besides."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.inner = nn.Sequential(nn.BatchNorm1d(2), clusters())


@pytest.mark.parametrize("start_iteration", [0, 100])
def test_an_average_keeps_its_own_clusters_and_follows_in_all_else(start_iteration: int) -> None:
    source = WithClusters()
    average = ModelAverage(source, beta=0.5, start_iteration=start_iteration)
    average.network.inner[1].fit(torch.ones(60), blobs())
    kept = copy.deepcopy(average.network.inner[1].state_dict())
    before = average.network.layer.weight.clone()
    with torch.no_grad():
        source.layer.weight += 1
        source.inner[0].running_mean += 1
    average.update()
    assert all(torch.equal(x, kept[name]) for name, x in average.network.inner[1].state_dict().items())
    assert source.inner[1].is_empty()
    moved = 0.5 if start_iteration == 0 else 1.0
    torch.testing.assert_close(average.network.layer.weight, before + moved)
    torch.testing.assert_close(average.network.inner[0].running_mean, torch.full((2,), moved))


def test_clusters_of_an_average_come_back_from_its_state() -> None:
    average = ModelAverage(WithClusters())
    average.network.inner[1].fit(torch.ones(60), blobs())
    again = ModelAverage(WithClusters())
    again.load_state_dict(copy.deepcopy(average.state_dict()))
    assert torch.equal(again.network.inner[1].cluster_1, average.network.inner[1].cluster_1)
