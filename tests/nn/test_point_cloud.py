"""Colors of points against a table that is filled row by row, as the reference did it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imagier.nn.point_cloud import compact, empty_cloud, paint, render

CPU = torch.device("cpu")


class Table:
    """Colors by the number of a point, for one sample; rows (i, j, point) in order, the last one wins."""

    def __init__(self, size: int) -> None:
        self.colors = np.zeros((size, 3), np.uint8)
        self.seen = np.zeros(size, np.uint8)

    def render(self, rows: list[tuple[int, int, int]], shape: tuple[int, int]) -> np.ndarray:
        image = np.zeros((*shape, 4), np.uint8)
        for i, j, point in rows:
            image[i, j, :3], image[i, j, 3] = self.colors[point], 255 * self.seen[point]
        return image

    def update(self, image: np.ndarray, rows: list[tuple[int, int, int]]) -> None:
        before, colors = self.seen.copy(), self.colors.copy()
        for i, j, point in rows:
            self.colors[point] = colors[point] if before[point] else image[i, j]
            self.seen[point] = 1


def as_table_sees(image: torch.Tensor) -> np.ndarray:
    values = np.clip((image.movedim(0, -1).double().numpy() + 1) / 2 * 255, 0, 255)
    return np.floor(values).astype(np.uint8)


@pytest.mark.parametrize("is_compact", [False, True])
def test_points_keep_their_first_color_each_sample_for_itself(is_compact: bool) -> None:
    rng = np.random.default_rng(0)
    height, width, count = 5, 7, 20
    tables, cloud = [Table(count + 1) for _ in range(3)], empty_cloud(CPU)
    for _ in range(4):
        points = torch.from_numpy(rng.integers(0, count + 1, (3, 1, height, width)))
        images = torch.from_numpy(rng.uniform(-1.2, 1.2, (3, 3, height, width))).float()
        rendered = render(cloud, points)
        cloud = paint(cloud, points, images)
        cloud = compact(cloud) if is_compact else cloud
        for table, of_sample, image, found in zip(tables, points[:, 0].tolist(), images, rendered):
            rows = [(i, j, of_sample[i][j]) for i in range(height) for j in range(width) if of_sample[i][j]]
            expected = table.render(rows, (height, width))
            shown = torch.cat([(found[:3] / 2 + 0.5) * 255, found[3:] * 255]).round().movedim(0, -1).numpy()
            np.testing.assert_array_equal(shown, expected)
            table.update(as_table_sees(image), rows)
    assert sum(table.seen.sum() for table in tables) == len(compact(cloud).points) > 40


def test_colors_are_cut_to_8_bits_and_not_rounded() -> None:
    points = torch.ones(1, 1, 1, 1, dtype=torch.int64)
    cloud = paint(empty_cloud(CPU), points, torch.full((1, 3, 1, 1), 0.9999))
    assert compact(cloud).colors.tolist() == [[254, 254, 254]]
    torch.testing.assert_close(render(cloud, points)[0, :, 0, 0], torch.tensor([*[(254 / 255 - 0.5) * 2] * 3, 1.0]))


@pytest.mark.parametrize("point", [1, 2**48])
def test_the_largest_number_of_one_sample_is_no_point_of_the_next(point: int) -> None:
    points = torch.tensor([point, 0]).view(2, 1, 1, 1)
    cloud = paint(empty_cloud(CPU), points, torch.zeros(2, 3, 1, 1))
    assert render(cloud, points)[:, 3].flatten().tolist() == [1, 0]
    assert render(cloud, points.flip(0))[:, 3].flatten().tolist() == [0, 0]


def test_nothing_known_is_black_and_unmarked() -> None:
    points = torch.ones(1, 1, 2, 2, dtype=torch.int64)
    rendered = render(empty_cloud(CPU), points)
    assert (rendered[:, :3] == -1).all() and (rendered[:, 3] == 0).all()
