"""A data set of videos from a game: walks through maps of Freedoom, with everything that the game knows about them.

Frames, classes, depth, cameras and exact flow. Training and held-out walks are in different maps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

from imagier.errors import UserError
from imagier.run.output_folder import replace_folder
from imagier.run.progress import ProgressBar
from imagier.tools.demo.doom.doom_map import DoomMap, list_maps, read_map
from imagier.tools.demo.doom.game import BRIGHTER, SCREEN_PX, View, find_wad, follow, make_lens, open_game
from imagier.tools.demo.doom.licenses import CREDITS
from imagier.tools.demo.doom.ray_casting import SKY, Lens, Pose, cast_rays
from imagier.tools.demo.doom.textures import measure_colors
from imagier.tools.demo.doom.walks import Ground, find_ground, plan_walk
from imagier.tools.demo.recorded import Summary, reuse
from imagier.tools.demo.set_folder import encode_png, is_taken, write_manifest
from imagier.tools.flow.build import FLOW, build_flow
from imagier.tools.flow.exact import CAMERAS, DEPTH, FAR_DEPTH, UNKNOWN_DEPTH, Cameras

CLASSES = ("sky", "floor", "ceiling", "wall", "liquid", "monster", "item", "decoration", "other")
"""Of seg_maps. The first five are those of ray_casting.py; "other" is what hangs in the way, such as a grating."""
TRAIN_MAPS = ("MAP01", "MAP02", "MAP03", "MAP04", "MAP06", "MAP08", "MAP10", "MAP13")
TEST_MAPS = ("MAP05", "MAP11")
FRAMES = 120
"""In a sequence; the game has 35 a second."""
FRAMES_PER_SECOND = 35
MANIFEST = "vizdoom.json"
NEARNESS = "nearness"
"""255 at the camera, half of it at 64 map units, toward 0 far away; 0 where the depth is not known, or the sky is."""
COLORS = "colors"
"""The mean color of what covers each wall, floor and ceiling, in the light of its place; things are left out."""
POINTS = "unprojections"
"""The point of the world that each pixel shows: x, y and z in map units plus 32768; 0 where the depth is not known."""

INPUT_TYPES = ("images", "seg_maps", COLORS, DEPTH, NEARNESS, POINTS)
"""Of which the game gives frames; the flow follows from them."""

_SHARES = (("train", 1.0), ("val", 1 / 5))
"""Lengths of the splits, of that of the training set."""
_DEPTH_UNIT, _HALF_NEAR = 1 / 16, 64
_MONSTER, _ITEM, _DECORATION, _OTHER = range(5, 9)
_KINDS = {"Monster": _MONSTER, "Corpse": _MONSTER} | dict.fromkeys(
    ("Health", "Armor", "Weapon", "Ammo", "Key", "Powerup", "Item"), _ITEM
)
_ORIGIN = 1 << 15
_TRIES, _DARKEST = 200, 32
"""Walks that are tried for a sequence, and the mean level of its images that it must exceed, of 255."""
_GAME_DEPTH_UNIT, _GAME_DEPTH_END = 8, 250


def record(
    out: Path,
    *,
    minutes: float,
    size_px: int = 96,
    seed: int = 0,
    train_maps: Sequence[str] = TRAIN_MAPS,
    test_maps: Sequence[str] = TEST_MAPS,
    workers: int = 2,
    progress: ProgressBar,
) -> Summary:
    """Makes out/{train,val}/<folder>/<sequence>/<frame>.png for INPUT_TYPES and the flow, and cameras.

    minutes: of the training set; val has a fifth of it on top. size_px: 32 to 480. workers: threads that write.
    A folder made with the same settings is kept. Every other walk goes back the way it came. The same call makes the
    same bytes. UserError if `out` holds anything else, or for settings out of range.
    """
    maps = {"train": [name.upper() for name in train_maps], "val": [name.upper() for name in test_maps]}
    settings = {"minutes": minutes, "size_px": size_px, "seed": seed, "maps": maps}
    _check(minutes, size_px, maps)
    if is_taken(out):
        return reuse(out, MANIFEST, settings, (*INPUT_TYPES, FLOW))
    counts = {split: max(1, round(share * minutes * 60 * FRAMES_PER_SECOND / FRAMES)) for split, share in _SHARES}
    with replace_folder(out) as made:
        with progress("walking through the maps") as update:
            for done, _ in enumerate(_record_all(made, counts, maps, size_px, seed, workers), start=1):
                update(done, sum(counts.values()))
        for split in counts:
            build_flow(made / split, "exact", workers=workers, progress=progress)
        frames = {split: count * FRAMES for split, count in counts.items()}
        about = {**settings, "frames": frames, "classes": CLASSES, "vizdoom": version("vizdoom")}
        write_manifest(made, MANIFEST, about, CREDITS.format(version=version("vizdoom")))
    return Summary(frames, is_reused=False)


def _record_all(
    out: Path, counts: dict[str, int], maps: dict[str, list[str]], size_px: int, seed: int, workers: int
) -> Iterator[None]:
    """Records all sequences, those of a map one after the other. Threads write while the game goes on."""
    with ThreadPoolExecutor(workers) as pool:
        writing: deque[Future[None]] = deque()
        for split, count in counts.items():
            for position, name in enumerate(maps[split]):
                numbers = range(position, count, len(maps[split]))
                if not numbers:
                    continue
                doom_map = read_map(find_wad(), name)
                colors = BRIGHTER[measure_colors(find_wad(), doom_map).round().astype(np.uint8)]
                for sequence, views in _record_map(name, doom_map, numbers, split, size_px, seed):
                    writing.append(pool.submit(_write, out / split, sequence, views, doom_map, colors, size_px))
                    if len(writing) > 2 * workers:
                        writing.popleft().result()
                    yield
        for each in writing:
            each.result()


def _record_map(
    name: str, doom_map: DoomMap, numbers: range, split: str, size_px: int, seed: int
) -> Iterator[tuple[str, list[View]]]:
    """The walks of these numbers, by name, each a function of the seed, the split and its number alone."""
    ground = find_ground(doom_map)
    if ground is None:
        raise UserError(f"{name} has no room to walk", where="maps", advice="name another", code="no-room")
    with open_game(name, seed) as game:
        for number in numbers:
            rng = np.random.default_rng([seed, split == "val", number])
            returns = sum(divmod(number, numbers.step)) % 2 == 1  # every other one, in each map and over the maps
            views = _walk(game, ground, name, size_px, rng, returns=returns)
            yield f"{name.lower()}_{number:04d}{'_back' if returns else ''}", views


def _walk(
    game: object, ground: Ground, name: str, size_px: int, rng: np.random.Generator, *, returns: bool
) -> list[View]:
    """What is seen on the first random walk that is not in the dark, with nothing in the way."""
    for _ in range(_TRIES):
        walk = plan_walk(ground, FRAMES, rng, returns=returns)
        views = None if walk is None else follow(game, walk, size_px, int(rng.integers(2**31)))
        if views is not None and np.mean([view.image for view in views]) > _DARKEST:
            return views
    raise UserError(
        f"{name}: no walk of {FRAMES} frames was found", where="maps", advice="name another", code="no-room"
    )


def _write(root: Path, sequence: str, views: list[View], doom_map: DoomMap, colors: np.ndarray, size_px: int) -> None:
    lens = make_lens(size_px)
    poses = {f"{number:06d}": _make_matrix(view.pose) for number, view in enumerate(views)}
    cameras = Cameras(lens.fx, lens.fy, lens.cx, lens.cy, _DEPTH_UNIT, is_sky_cylinder=True, camera_to_world=poses)
    cameras.write(root / CAMERAS / f"{sequence}.json")
    for folder in INPUT_TYPES:
        (root / folder / sequence).mkdir(parents=True)
    for name, view in zip(poses, views):
        depth, classes, surface = describe(view, doom_map, lens)
        points = np.nan_to_num(cameras.unproject(depth, name).round() + _ORIGIN).astype(np.uint16)
        files = {"images": view.image[..., ::-1], "seg_maps": classes, DEPTH: depth, POINTS: points[..., ::-1]}
        files[NEARNESS] = measure_nearness(depth)
        files[COLORS] = np.where(surface[..., None] < 0, 0, colors[surface])[..., ::-1]
        for folder, array in files.items():
            (root / folder / sequence / f"{name}.png").write_bytes(encode_png(array))


def describe(view: View, doom_map: DoomMap, lens: Lens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, uint16 in the form of `exact.Cameras`, classes, uint8, and surfaces, int, each H x W of the lens.

    The rays know the map as it is at the start. Where the game's own depth is another one, because something has moved
    or hangs in the way, the depth is not known.
    """
    depth, classes, surface = cast_rays(doom_map, view.pose, lens)
    game_depth = view.depth.astype(float)
    kinds = np.zeros(256, np.uint8)
    for value, category in view.categories.items():
        kinds[value] = _KINDS.get(category, _DECORATION)
    difference = np.abs(_GAME_DEPTH_UNIT * game_depth - depth)
    is_other = (depth > 64) & (game_depth < _GAME_DEPTH_END) & (difference > 0.1 * depth + 16) & (classes != SKY)
    classes = np.where(is_other, _OTHER, classes)
    classes = np.where(view.things > 0, kinds[view.things], classes).astype(np.uint8)
    units = np.maximum(depth / _DEPTH_UNIT, 1).round()
    is_unknown = view.touches_thing | is_other | (np.isfinite(units) & (units >= FAR_DEPTH))
    stored = np.where(is_unknown, UNKNOWN_DEPTH, np.where(np.isinf(units), FAR_DEPTH, units))
    return stored.astype(np.uint16), classes, surface


def measure_nearness(depth: np.ndarray) -> np.ndarray:
    """Depth as stored -> uint8, which networks take better than 16 bits of which most are 0."""
    near = 255 * _HALF_NEAR / (_HALF_NEAR + depth * _DEPTH_UNIT)
    return np.where((depth == UNKNOWN_DEPTH) | (depth == FAR_DEPTH), 0, near.round()).astype(np.uint8)


def _make_matrix(pose: Pose) -> np.ndarray:
    """Camera to world, 3 x 4: x to the right, y down, z forward."""
    cos, sin = pose.forward
    return np.array([[sin, 0, cos, pose.x], [-cos, 0, sin, pose.y], [0, -1, 0, pose.z]])


def _check(minutes: float, size_px: int, maps: dict[str, list[str]]) -> None:
    """UserError for settings out of range."""
    if not 32 <= size_px <= SCREEN_PX:
        raise UserError(f"is {size_px}", where="size", advice=f"choose 32 to {SCREEN_PX}", code="out-of-range")
    if not 0 < minutes <= 600:
        raise UserError(f"is {minutes:g}", where="minutes", advice="choose up to 600", code="out-of-range")
    known = list_maps(find_wad())
    for name in [*maps["train"], *maps["val"]]:
        if name not in known:
            raise UserError(
                f"there is no map {name}", where="maps", advice=f"choose of {known[0]} to {known[-1]}", code="no-map"
            )
    both = set(maps["train"]) & set(maps["val"])
    if both or not maps["train"] or not maps["val"]:
        what = f"{', '.join(sorted(both))} in both splits" if both else "a split has no map"
        raise UserError(what, where="maps", advice="train and test on different maps", code="same-map")
