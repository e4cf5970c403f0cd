"""Videos of a game: its maps, what rays see in them, walks, and a recorded set."""

from __future__ import annotations

import json
import struct
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from imagier.cli import main
from imagier.data.codecs.flow import unpack
from imagier.errors import UserError
from imagier.tools.demo.doom import recording
from imagier.tools.demo.doom.doom_map import NO_SECTOR, DoomMap, list_maps, read_map
from imagier.tools.demo.doom.ray_casting import (
    CEILING,
    FLOOR,
    LIQUID,
    LOWER,
    SKY,
    UPPER,
    WALL,
    Lens,
    Pose,
    cast_rays,
    find_sector,
)
from imagier.tools.demo.doom.recording import record
from imagier.tools.demo.doom.textures import measure_colors
from imagier.tools.demo.doom.walks import find_ground, plan_walk

LENS = Lens(fx=100, fy=120, cx=49.5, cy=49.5, width=100, height=100)
ROOM = 1024
"""A room from 0 to ROOM; its part with x > 768 is a yard, open to the sky, with a higher floor of water."""
HALL, YARD = 0, 1


PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def make_patch(columns: list[list[tuple[int, list[int]]]], height: int) -> bytes:
    """A patch of columns of posts, each the row where it begins and the numbers of its colors."""
    header = 8 + 4 * len(columns)
    offsets, posts = [], b""
    for column in columns:
        offsets.append(header + len(posts))
        for top, colors in column:
            posts += bytes([top, len(colors), 0, *colors, 0])
        posts += b"\xff"
    return struct.pack("<HHhh", len(columns), height, 0, 0) + struct.pack(f"<{len(columns)}I", *offsets) + posts


def make_wad(path: Path, step: int = 16) -> Path:
    """A WAD file with one map of two sectors, and a thing in each."""
    points = [(0, 0), (0, ROOM), (768, ROOM), (ROOM, ROOM), (ROOM, 0), (768, 0)]
    # Lines run clockwise, so that the room lies to the right of them; the last one has the yard to its left.
    lines = [(0, 1, HALL), (1, 2, HALL), (2, 3, YARD), (3, 4, YARD), (4, 5, YARD), (5, 0, HALL)]
    sides = [sector for *_, sector in lines] + [HALL, YARD]
    lumps = {
        "MAP01": b"",
        "THINGS": b"".join(struct.pack("<5h", x, 300, 0, 1, 7) for x in (300, 900)),
        "LINEDEFS": b"".join(
            struct.pack("<7H", start, end, 1, 0, 0, side, 0xFFFF) for side, (start, end, _) in enumerate(lines)
        )
        + struct.pack("<7H", 2, 5, 4, 0, 0, 6, 7),
        "SIDEDEFS": b"".join(
            struct.pack("<hh8s8s8sH", 0, 0, b"-", b"BRICKS", b"BRICKS" if side < len(lines) else b"-", sector)
            for side, sector in enumerate(sides)
        ),
        "VERTEXES": b"".join(struct.pack("<hh", *point) for point in points),
        "SEGS": b"",
        "SSECTORS": b"",
        "NODES": b"",
        "SECTORS": struct.pack("<hh8s8sHHH", 0, 128, b"FLOOR0_1", b"CEIL1_1", 160, 0, 0)
        + struct.pack("<hh8s8sHHH", step, 200, b"FWATER1", b"F_SKY1", 80, 0, 0),
    }
    lumps |= {
        "PLAYPAL": PALETTE.tobytes(),
        "PNAMES": struct.pack("<i8s8s", 2, b"leftpart", b"HOLEPART"),
        # A texture of 4 x 2: one patch at its left, another one that begins above it, with a hole, at its right.
        "TEXTURE1": struct.pack("<2i", 1, 8)
        + struct.pack("<8s4xhh4xh", b"BRICKS", 4, 2, 2)
        + struct.pack("<hhh4x", 0, 0, 0)
        + struct.pack("<hhh4x", 2, -1, 1),
        "LEFTPART": make_patch([[(0, [1, 2])], [(0, [3, 4])]], 2),
        "HOLEPART": make_patch([[(0, [99, 5]), (9, [97])], [(1, [6, 7])], [(0, [98, 98, 98])]], 3),
        "F_START": b"",
        "FLOOR0_1": bytes([8, 9] * 2048),
        "CEIL1_1": bytes([10] * 4096),
        "FWATER1": bytes([11] * 4096),
        "LEFTPART ": bytes([12] * 4096),
        "F_END": b"",
    }
    directory, data = b"", b""
    for name, content in lumps.items():
        directory += struct.pack("<ii8s", 12 + len(data), len(content), name.strip().encode())
        data += content
    path.write_bytes(struct.pack("<4sii", b"PWAD", len(lumps), 12 + len(data)) + data + directory)
    return path


@pytest.fixture
def room(tmp_path: Path) -> DoomMap:
    return read_map(make_wad(tmp_path / "a.wad"), "MAP01")


def test_the_maps_of_a_file_are_found(tmp_path: Path) -> None:
    assert list_maps(make_wad(tmp_path / "a.wad")) == ["MAP01"]


def test_rays_end_where_walls_floors_and_ceilings_are(room: DoomMap) -> None:
    # From (300, 500), 40 high, to the west: a wall at x = 0, straight across the view.
    depth, seen, _ = cast_rays(room, Pose(300, 500, 40, 180), LENS)
    rise = (49.5 - np.arange(100)) / 120
    expected = np.minimum(np.where(rise < 0, 40 / np.maximum(-rise, 1e-9), 88 / np.maximum(rise, 1e-9)), 300)
    np.testing.assert_allclose(depth, np.repeat(expected[:, None], 100, axis=1))
    kinds = np.where(expected == 300, WALL, np.where(rise < 0, FLOOR, CEILING))
    np.testing.assert_array_equal(seen, np.repeat(kinds[:, None], 100, axis=1))


def test_behind_an_opening_are_a_step_a_pond_and_the_sky(room: DoomMap) -> None:
    depth, seen, _ = cast_rays(room, Pose(500, 500, 40, 0), LENS)
    column, rise = 50, (49.5 - np.arange(100)) / 120
    to_line, to_end = 768 - 500, ROOM - 500
    for row, slope in enumerate(rise):
        at_line, at_end = 40 + slope * to_line, 40 + slope * to_end
        if at_line < 0:
            expected = FLOOR, -40 / slope
        elif at_line < 16:
            expected = WALL, to_line
        elif at_line > 128:
            expected = CEILING, 88 / slope
        elif at_end < 16:
            expected = LIQUID, -24 / slope
        else:
            expected = (WALL, to_end) if at_end <= 200 else (SKY, np.inf)
        assert (seen[row, column], depth[row, column]) == (expected[0], pytest.approx(expected[1])), row
    assert set(np.unique(seen[:, column])) == {SKY, FLOOR, CEILING, WALL, LIQUID}


def test_every_pixel_shows_a_surface_in_its_color_and_light(tmp_path: Path) -> None:
    wad = make_wad(tmp_path / "a.wad")
    doom_map = read_map(wad, "MAP01")
    depth, seen, surface = cast_rays(doom_map, Pose(500, 500, 40, 0), LENS)
    found = measure_colors(wad, doom_map)[surface]
    bricks = PALETTE[[1, 2, 3, 4, 5, 6, 7]].mean(axis=0)  # without what lies beyond the texture, and without the hole
    floor = PALETTE[[8, 9]].mean(axis=0)
    expected = {WALL: bricks, FLOOR: floor, CEILING: PALETTE[10], LIQUID: PALETTE[11], SKY: np.zeros(3)}
    is_yard = (seen == LIQUID) | (depth > 768 - 500)
    light = np.where(is_yard, 80, 160) / 255
    assert (surface[:, 50] >= 0).all()
    for kind, color in expected.items():
        assert (seen == kind).any()
        np.testing.assert_allclose(found[seen == kind], light[seen == kind][:, None] * color)


def test_a_closed_door_shows_the_part_above_it_and_the_step_below(room: DoomMap) -> None:
    door = replace(room, ceiling=np.array([128, 16]), floor=np.array([0, 16]), is_sky=np.zeros(2, bool))
    depth, seen, surface = cast_rays(door, Pose(500, 500, 40, 0), LENS)
    height = 40 + (49.5 - np.arange(100)) / 120 * (768 - 500)
    is_wall = (height > 0) & (height < 128)
    assert (seen[is_wall, 50] == WALL).all() and np.allclose(depth[is_wall, 50], 768 - 500)
    np.testing.assert_array_equal(surface[is_wall, 50] % 3, np.where(height < 16, LOWER, UPPER)[is_wall])


def test_under_the_sky_nothing_is_shut(room: DoomMap) -> None:
    shut = replace(room, ceiling=np.array([128, 60]), floor=np.array([0, 60]), is_sky=np.ones(2, bool))
    depth, seen, _ = cast_rays(shut, Pose(500, 500, 40, 0), LENS)
    height = 40 + (49.5 - np.arange(100)) / 120 * (768 - 500)
    assert (seen[height > 128, 50] == SKY).all()
    assert (seen[(height > 0) & (height < 60), 50] == WALL).all()
    is_over = (height > 60) & (height < 128)
    assert (seen[is_over, 50] == SKY).all() and np.isinf(depth[is_over, 50]).all()


def test_a_turn_moves_walls_sideways(room: DoomMap) -> None:
    # The corner (0, 0) from (300, 300): 45 degrees to the left of the south wall's foot.
    depth, _, _ = cast_rays(room, Pose(300, 300, 40, 225), LENS)
    assert depth[49].argmax() in (49, 50)
    np.testing.assert_allclose(depth[49], depth[49, ::-1])
    x = (0 - LENS.cx) / LENS.fx  # the leftmost ray looks to the east of the corner, onto the wall at y = 0
    assert depth[49, 0] == pytest.approx(300 * np.sqrt(2) / (1 - x))


def test_walks_keep_away_from_walls_and_steps(tmp_path: Path) -> None:
    low = read_map(make_wad(tmp_path / "low.wad", step=16), "MAP01")
    high = read_map(make_wad(tmp_path / "high.wad", step=32), "MAP01")
    crosses = {"low": False, "high": False}
    for name, doom_map in (("low", low), ("high", high)):
        ground = find_ground(doom_map)
        assert ground is not None
        walks = [plan_walk(ground, 60, np.random.default_rng(seed), returns=seed % 2 == 1) for seed in range(40)]
        found = [walk for walk in walks if walk is not None]
        for walk in walks[1::2]:
            if walk is not None:
                np.testing.assert_array_equal(walk.positions, walk.positions[::-1])
                np.testing.assert_array_equal(walk.angles, walk.angles[::-1])
        assert len(found) > 10
        for walk in found:
            assert len(walk.positions) == len(walk.angles) == 60
            assert walk.positions.min() > 20 and walk.positions.max() < ROOM - 20
            assert np.hypot(*np.diff(walk.positions, axis=0).T).max() < 8.5
            assert all(np.hypot(*(walk.positions - thing).T).min() > 36 for thing in doom_map.things)
            crosses[name] |= bool(walk.positions[:, 0].min() < 768 < walk.positions[:, 0].max())
    assert crosses == {"low": True, "high": False}


def test_nobody_walks_where_it_is_too_low_or_where_something_happens(room: DoomMap) -> None:
    places = [(300, 300, HALL), (767, 10, HALL), (769, 10, YARD), (900, 900, YARD), (-20, 40, NO_SECTOR)]
    assert [find_sector(room, x, y) for x, y, _ in places] == [sector for *_, sector in places]
    for changed in (replace(room, ceiling=np.array([40, 200])), replace(room, special_sector=np.array([9, 0]))):
        ground = find_ground(changed)
        assert ground is not None and ground.places[:, 0].min() > 768  # the hall is left out
    assert find_ground(replace(room, special_sector=np.array([9, 7]))) is None


def test_a_map_in_which_nobody_is_has_no_ground(room: DoomMap) -> None:
    assert find_ground(replace(room, things=np.zeros((0, 2)))) is None


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (["--size", "20"], "size"),
        (["--minutes", "0"], "minutes"),
        (["--train_maps", "MAP99"], "maps"),
        (["--train_maps", "map01", "--test_maps", "MAP01"], "maps"),
    ],
)
def test_settings_out_of_range_are_a_line(
    tmp_path: Path, flags: list[str], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vizdoom")
    assert main(["data", "vizdoom", "--out", str(tmp_path / "set"), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"{place}: ")
    assert not (tmp_path / "set").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError) as caught:
        record(tmp_path, minutes=1, progress=quiet)
    assert caught.value.code == "other-data"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nearness_falls_with_the_distance_and_is_0_where_nothing_is_known() -> None:
    units = np.array([[0, 64, 192, 65535 / 16]])  # unknown, two walls, the sky
    found = recording.measure_nearness((units * 16).astype(np.uint16))
    assert found.dtype == np.uint8 and found.tolist() == [[0, 128, 64, 0]]


def quiet(what: str) -> nullcontext:
    return nullcontext(lambda done, total: None)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two recordings with one seed: walks of 24 frames, two for training, of which one returns, and one for val."""
    pytest.importorskip("vizdoom")
    folder = tmp_path_factory.mktemp("vizdoom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "FRAMES", 24)
        for name in ("a", "b"):
            record(folder / name, minutes=0.02, seed=3, train_maps=["MAP01"], test_maps=["MAP03"], progress=quiet)
    return folder / "a", folder / "b"


@pytest.mark.slow
def test_a_seed_makes_the_same_set(sets: tuple[Path, Path]) -> None:
    one, other = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()} for root in sets
    )
    assert one == other
    for folder in ("train/images/map01_0000/", "train/images/map01_0001_back/", "val/images/map03_0000/"):
        assert sum(name.startswith(folder) for name in one) == 24
    about = json.loads(one["vizdoom.json"])
    assert about["frames"] == {"train": 48, "val": 24} and about["seed"] == 3
    assert b"Freedoom project" in one["CREDITS.txt"]


@pytest.mark.slow
def test_exact_flow_explains_the_frames(sets: tuple[Path, Path]) -> None:
    known, error, still = [], [], []
    for folder in sorted(sets[0].glob("*/flow/*")):
        images = folder.parents[1] / "images" / folder.name
        for number in range(8, 24):
            flow = unpack(cv2.imread(str(folder / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)[..., ::-1])
            now, past = (
                cv2.imread(str(images / f"{each:06d}.png")).astype(np.float32) for each in (number, number - 1)
            )
            y, x = np.mgrid[: now.shape[0], : now.shape[1]].astype(np.float32)
            warped = cv2.remap(past, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
            is_known = flow[..., 2] > 0
            known.append(is_known.mean())
            error.append(np.abs(warped - now)[is_known].mean())
            still.append(np.abs(past - now)[is_known].mean())
    assert np.mean(known) > 0.7
    assert np.mean(error) < 0.6 * np.mean(still)


@pytest.mark.slow
def test_flat_colors_are_near_those_of_the_frames(sets: tuple[Path, Path]) -> None:
    errors: dict[str, list[float]] = {"colors": [], "mean color": []}
    for file in sorted(sets[0].glob("*/images/*/*.png")):
        image = cv2.imread(str(file)).astype(float)
        colors = cv2.imread(str(file).replace("/images/", "/colors/"))
        classes = cv2.imread(str(file).replace("/images/", "/seg_maps/"), cv2.IMREAD_UNCHANGED)
        is_static = np.isin(classes, (FLOOR, CEILING, WALL, LIQUID))
        errors["colors"].append(np.abs(colors - image)[is_static].mean())
        errors["mean color"].append(np.abs(image[is_static].mean(axis=0) - image)[is_static].mean())
    assert np.mean(errors["colors"]) < 0.9 * np.mean(errors["mean color"])


@pytest.mark.slow
def test_a_finished_set_is_kept(sets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"minutes": 0.02, "seed": 3, "train_maps": ["MAP01"], "test_maps": ["MAP03"], "progress": quiet}
    assert record(sets[0], **settings).is_reused
    with pytest.raises(UserError) as caught:
        record(sets[0], **{**settings, "seed": 4})
    assert caught.value.code == "other-settings"


@pytest.mark.slow
def test_a_point_of_the_world_keeps_its_place(sets: tuple[Path, Path]) -> None:
    distances = []
    for folder in sorted(sets[0].glob("*/unprojections/*")):
        for number in range(1, 24):
            names = [f"{each:06d}.png" for each in (number, number - 1)]
            now, past = (cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED).astype(int) for name in names)
            path = folder.parents[1] / "flow" / folder.name / names[0]
            flow = unpack(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1])
            y, x = np.mgrid[: now.shape[0], : now.shape[1]]
            there = past[(y + flow[..., 1]).round().astype(int), (x + flow[..., 0]).round().astype(int)]
            compared = (flow[..., 2] > 0) & (now > 0).all(axis=2) & (there > 0).all(axis=2)
            distances.append(np.abs(now - there).max(axis=2)[compared])
    assert np.median(np.concatenate(distances)) <= 4  # map units; half of a pixel's width at their depth


@pytest.mark.slow
def test_a_walk_back_shows_what_was_seen(sets: tuple[Path, Path]) -> None:
    (folder,) = sets[0].glob("train/images/*_back")
    frames = [cv2.imread(str(folder / f"{number:06d}.png")).astype(float) for number in range(24)]
    back = np.mean([np.abs(frames[number] - frames[23 - number]).mean() for number in range(8)])
    assert back < 0.5 * np.mean([np.abs(frames[number] - frames[number + 8]).mean() for number in range(8)])
