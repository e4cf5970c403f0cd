"""Tiles: their places, their weights, and the rows that they are blended into."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from imagier.data.augmentation.warp import Part
from imagier.errors import UserError
from imagier.run.tiles import Tiling


@pytest.mark.parametrize("size", [(64, 64), (65, 130), (100, 333), (31, 400), (257, 97)])
@pytest.mark.parametrize("overlap", [0, 8, 20, 32])
def test_tiles_cover_an_image_and_what_is_cut_out_is_put_together_again(size: tuple[int, int], overlap: int) -> None:
    multiple = 8
    grid = Tiling(height=64, width=80, overlap=overlap).lay(size, multiple)
    height, width = grid.size
    assert (height, width) == tuple(-(-side // multiple) * multiple for side in size)
    image = torch.randn(2, height, width, generator=torch.Generator().manual_seed(0))
    parts: list[Part] = []

    def paint(part: Part) -> torch.Tensor:
        parts.append(part)
        return image[:, part.top : part.bottom, part.left : part.right]

    torch.testing.assert_close(torch.cat(list(grid.paint(paint)), dim=1), image)
    assert parts == grid.list_parts()
    assert all(part.top % multiple == part.left % multiple == 0 for part in parts)
    assert {part.size for part in parts} == {(min(64, height), min(80, width))}
    tops, lefts = sorted({part.top for part in parts}), sorted({part.left for part in parts})
    assert all(a + 64 - b >= min(overlap, 64 - multiple) for a, b in pairwise(tops))
    assert all(a + 80 - b >= overlap for a, b in pairwise(lefts))


def test_the_outer_quarter_of_an_overlap_counts_nothing_and_between_tiles_there_is_no_step() -> None:
    grid = Tiling(height=64, width=64, overlap=32).lay((64, 96), 1)
    assert grid.columns.starts == [0, 32]
    (rows,) = grid.paint(lambda part: torch.full((1, 64, 64), float(part.left > 0)))
    line = rows[0, 0]
    assert (line[:40] == 0).all() and (line[56:] == 1).all()  # of columns 32 to 63, which both have
    assert (line[40:56].diff() > 0).all() and line.diff().max() < 0.12
    torch.testing.assert_close(line[40:56] + line[40:56].flip(0), torch.ones(16))


def test_rows_come_as_soon_as_they_are_done_and_only_one_row_of_tiles_waits() -> None:
    grid = Tiling(height=64, width=64, overlap=16).lay((1024, 64), 16)
    painted: list[int] = []

    def paint(part: Part) -> torch.Tensor:
        painted.append(part.top)
        return torch.zeros(3, 64, 64)

    done = 0
    for count, rows in enumerate(grid.paint(paint), start=1):
        assert len(painted) == count and rows.shape[1] <= 64
        done += rows.shape[1]
    assert done == 1024


@pytest.mark.parametrize(
    ("height", "width", "overlap", "where"),
    [(0, 64, None, "tile"), (64, 64, 33, "overlap"), (64, 64, -1, "overlap"), (64, 200, 40, "overlap")],
)
def test_numbers_that_no_tiles_can_have_are_named(height: int, width: int, overlap: int | None, where: str) -> None:
    with pytest.raises(UserError) as error:
        Tiling(height=height, width=width, overlap=overlap)
    assert (error.value.where, error.value.code) == (where, "wrong-number")


def test_a_tile_that_the_network_does_not_take_is_refused_with_one_that_it_does() -> None:
    with pytest.raises(UserError) as error:
        Tiling(height=100, width=32).check_multiple(32)
    assert (error.value.code, error.value.advice) == ("wrong-tile", "try `tile` 96 64")
