"""A data set of videos from a game that is seen from above: walks in Crafter (Hafner 2021), with all that it knows.

The view moves by whole tiles, so the flow is exact to the pixel: what moved is found again without interpolation.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagier.data.codecs.flow import encode_flow
from imagier.errors import UserError
from imagier.run.output_folder import replace_folder
from imagier.run.progress import ProgressBar
from imagier.tools.demo.recorded import Summary, reuse
from imagier.tools.demo.set_folder import encode_png, is_taken, write_manifest
from imagier.tools.flow.estimator import Flow

TILES = 8
"""In a row and in a column of the view."""
FRAMES = 120
"""In a sequence."""
AREA = 64
"""Tiles in a row and in a column of a world."""
MANIFEST = "crafter.json"
INPUT_TYPES = ("images", "seg_maps", "flow")
MATERIALS = (
    "outside",
    "water",
    "grass",
    "stone",
    "path",
    "sand",
    "tree",
    "lava",
    "coal",
    "iron",
    "diamond",
    "table",
    "furnace",
)
OBJECTS = ("Player", "Cow", "Zombie", "Skeleton", "Arrow", "Plant", "Fence")
CLASSES = (*MATERIALS, *(name.lower() for name in OBJECTS))
"""Of seg_maps."""

_SHARES = (("train", 1.0), ("val", 1 / 5))
"""Frames of the splits, of those of the training set."""
_MOVES = {"move_left": (-1, 0), "move_right": (1, 0), "move_up": (0, -1), "move_down": (0, 1)}
_WALKABLE = ("grass", "sand", "path")
_PAUSE = 0.15
"""Share of the frames in which the player stands."""


@dataclass(frozen=True)
class View:
    """What is seen in a frame."""

    image: np.ndarray
    """H x W x 3, uint8."""
    classes: np.ndarray
    """H x W, uint8: of CLASSES."""
    parts: np.ndarray
    """H x W, int64: which thing a pixel shows, and which of its drawings; of the ground which tile, and its material; 0
    where a thing and the ground are mixed."""
    shift: np.ndarray
    """H x W x 2: where the thing is, in tiles of the view, x first."""


def record(out: Path, *, frames: int, size_px: int, seed: int, progress: ProgressBar) -> Summary:
    """Makes out/{train,val}/{images,seg_maps,flow}/<sequence>/<frame>.png, and the license of what is seen beside them.

    frames: of the training set; val has a fifth of them on top, in other worlds. size_px: a multiple of 8 from 32 to
    256. A folder made with the same settings is kept; the same call makes the same bytes. UserError if `out` holds
    anything else, or for settings out of range.
    """
    settings = {"length": frames, "size_px": size_px, "seed": seed}
    _check(size_px)
    if is_taken(out):
        return reuse(out, MANIFEST, settings, INPUT_TYPES)
    counts = {split: max(1, round(share * frames / FRAMES)) for split, share in _SHARES}
    with replace_folder(out) as made:
        numbers = [(split, number) for split, count in counts.items() for number in range(count)]
        with progress("walking through the worlds") as update:
            for done, (split, number) in enumerate(numbers, start=1):
                world = int(np.random.SeedSequence([seed, split == "val", number]).generate_state(1)[0] >> 1)
                _write(made / split, f"{split}_{number:04d}", list(walk(world, size_px)))
                update(done, len(numbers))
        of_split = {split: count * FRAMES for split, count in counts.items()}
        about = {**settings, "frames": of_split, "classes": CLASSES}
        write_manifest(made, MANIFEST, about, _read_credits())
    return Summary(of_split, is_reused=False)


def walk(seed: int, size_px: int) -> Iterator[View]:
    """The views of a player who goes from place to place in a world of its own."""
    import crafter
    from crafter.engine import LocalView

    env = crafter.Env(area=(AREA, AREA), seed=seed, reward=False, length=None)
    env._balance_chunk = lambda *args: None  # it draws from sets, whose order no seed decides
    env.reset()
    world, player = env._world, env._player
    camera = LocalView(world, env._textures, [TILES, TILES])
    rng, way = np.random.default_rng(seed), deque[str]()
    for _ in range(FRAMES):
        world.daylight = 1.0  # at night the game paints noise, of which no flow is known
        yield _look(camera, env, size_px // TILES)
        player.inventory.update(health=9, food=9, drink=9, energy=9)
        way = way or _find_way(world, player, rng)
        pauses = not way or rng.random() < _PAUSE
        action = "noop" if pauses else way.popleft()
        before = tuple(player.pos)
        env.step(crafter.constants.actions.index(action))
        if not pauses and tuple(player.pos) == before:
            way.clear()  # an animal is in the way


def find_flow(now: View, before: View) -> Flow:
    """What is at a pixel is the same drawing of the same thing, or tile, as where the flow leads to."""
    unit = now.image.shape[0] // TILES
    rows, columns = np.indices(now.parts.shape)
    places = {int(part): before.shift[before.parts == part][0] for part in np.unique(before.parts)}
    vectors = np.zeros((*now.parts.shape, 2), np.float32)
    known = np.zeros(now.parts.shape, bool)
    for part in np.unique(now.parts):
        is_part = now.parts == part
        if part and int(part) in places:
            vectors[is_part] = (places[int(part)] - now.shift[is_part]) * unit
            known |= is_part
    x, y = (columns + vectors[..., 0]).astype(int), (rows + vectors[..., 1]).astype(int)
    height, width = now.image.shape[:2]
    known &= (x >= 0) & (y >= 0) & (x < width) & (y < height)
    known &= before.parts[y.clip(0, height - 1), x.clip(0, width - 1)] == now.parts  # not hidden by something else
    return Flow(vectors * known[..., None], known)


def _look(camera: Any, env: Any, unit: int) -> View:
    """The view around the player, and what each pixel of it is."""
    world, player = env._world, env._player
    image = camera(player, np.array([unit, unit])).transpose(1, 0, 2).astype(np.uint8)
    left, top = int(player.pos[0]) - TILES // 2, int(player.pos[1]) - TILES // 2
    drawings = sorted(env._textures._originals)
    classes = np.zeros((TILES * unit, TILES * unit), np.uint8)
    parts, shift = np.zeros(classes.shape, np.int64), np.zeros((*classes.shape, 2), np.int64)
    for x in range(TILES):
        for y in range(TILES):
            tile = np.s_[y * unit : (y + 1) * unit, x * unit : (x + 1) * unit]
            material, thing = world[left + x, top + y]
            classes[tile] = 0 if material is None else MATERIALS.index(material)
            # A number for each tile of the endless plane around the world, and each material that it may become.
            parts[tile] = ((left + x + 1024) * 4096 + top + y + 1024) * 64 + int(classes[tile][0, 0])
            shift[tile] = x, y
            if thing is not None:
                texture = env._textures.get(thing.texture, (unit, unit))
                alpha = texture[..., 3].T if texture.shape[-1] == 4 else np.full((unit, unit), 255)
                classes[tile][alpha > 127] = len(MATERIALS) + OBJECTS.index(type(thing).__name__)
                parts[tile][alpha > 0] = 0
                parts[tile][alpha == 255] = -(
                    world._objects.index(thing) * len(drawings) + drawings.index(thing.texture) + 1
                )
    return View(image, classes, parts, shift)


def _find_way(world: Any, player: Any, rng: np.random.Generator) -> deque[str]:
    """The shortest way to a random place at some distance, by the names of actions; empty if there is none."""
    start = int(player.pos[0]), int(player.pos[1])
    came_from: dict[tuple[int, int], tuple[tuple[int, int], str]] = {}
    queue = deque([start])
    while queue and len(came_from) < 400:
        here = queue.popleft()
        for action, (right, down) in _MOVES.items():
            there = here[0] + right, here[1] + down
            material, thing = world[there]
            if there not in came_from and there != start and material in _WALKABLE and thing is None:
                came_from[there] = here, action
                queue.append(there)
    if not came_from:
        return deque()
    there = list(came_from)[int(rng.integers(len(came_from) // 2, len(came_from)))]
    way: deque[str] = deque()
    while there != start:
        there, action = came_from[there]
        way.appendleft(action)
    return way


def _write(root: Path, sequence: str, views: list[View]) -> None:
    for folder in INPUT_TYPES:
        (root / folder / sequence).mkdir(parents=True)
    for number, view in enumerate(views):
        flow = find_flow(view, views[number - 1]) if number else Flow.unknown(*view.classes.shape)
        name = f"{sequence}/{number:06d}.png"
        for folder, array in (("images", view.image[..., ::-1]), ("seg_maps", view.classes)):
            (root / folder / name).write_bytes(encode_png(array))
        (root / "flow" / name).write_bytes(encode_flow(flow.vectors, flow.known))


def _read_credits() -> str:
    """Who made what is seen, and what may be done with it."""
    package = importlib.metadata.distribution("crafter")
    license_ = next(file for file in package.files or () if file.name == "LICENSE")
    intro = f"These videos show Crafter {package.version} (https://github.com/danijar/crafter), drawn by its engine.\n"
    return f"{intro}\n{license_.read_text()}"


def _check(size_px: int) -> None:
    """UserError for a size out of range, or if the game is not installed."""
    if size_px % TILES or not 32 <= size_px <= 256:
        what = f"is {size_px}"
        raise UserError(what, where="size", advice=f"choose a multiple of {TILES}, 32 to 256", code="out-of-range")
    if importlib.util.find_spec("crafter") is None:
        advice = "run: pip install 'imagier[crafter]'"
        raise UserError("is not installed", where="crafter", advice=advice, code="missing-package")
