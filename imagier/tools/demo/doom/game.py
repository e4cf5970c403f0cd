"""Walks a camera through a map in VizDoom (Kempka et al. 2016), and gives what it sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from imagier.errors import UserError
from imagier.tools.demo.doom.ray_casting import Lens, Pose
from imagier.tools.demo.doom.walks import Walk

SCREEN_PX = 480
"""Of the square in the middle of the screen, which is 640 wide."""

_LEFT = 80
_FOCAL_X, _FOCAL_Y = 320.0, 384.0
"""Of the screen with its field of view of 90 degrees, in pixels; Doom stretches images by 1.2."""
_FRICTION, _MOST_THRUST, _THRUST_UNIT = 0.90625, 1.5625, 1 / 32
"""In map units per frame: what is left of a speed, what one frame can add to it, and what a button adds."""
_OFF_THE_WAY = 24.0
_SETTLING_FRAMES = 14
_FLOOR_OR_CEILING = 1
"""In the game's labels; walls and the sky are 0, things are more."""
BRIGHTER = (255 * (np.arange(256) / 255) ** (1 / 1.5)).round().astype(np.uint8)
"""The game is made for dark rooms."""
_CONSOLE = ("god", "notarget", "movebob 0")
"""Nobody attacks, nobody dies, and the camera does not bob."""


@dataclass(frozen=True)
class View:
    """What the camera sees at one moment, a square of the screen reduced to H x W."""

    pose: Pose
    image: np.ndarray
    """H x W x 3, uint8, red first: the mean of the pixels that one was made of, brightened."""
    depth: np.ndarray
    """H x W, uint8, at the center of each pixel: the game's own, in steps of 8 map units, rounded."""
    things: np.ndarray
    """H x W, uint8, at the center of each pixel: which thing is there; 0: none."""
    touches_thing: np.ndarray
    """H x W, bool: a thing is somewhere in the pixel."""
    categories: dict[int, str]
    """By the number in `things`: Monster, Health, Decoration, ..."""


def make_lens(size_px: int) -> Lens:
    """The lens of the image reduced to a square of `size_px`."""
    scale = size_px / SCREEN_PX
    center = (size_px - 1) / 2
    return Lens(_FOCAL_X * scale, _FOCAL_Y * scale, center, center, size_px, size_px)


def find_wad() -> Path:
    """The game data that come with the package: Freedoom, phase 2. UserError if it is not installed."""
    try:
        import vizdoom
    except ImportError as error:
        advice = "run: pip install 'imagier[vizdoom]'"
        raise UserError("is not installed", where="vizdoom", advice=advice, code="missing-package") from error
    return Path(vizdoom.__file__).parent / "freedoom2.wad"


@contextmanager
def open_game(map_name: str, seed: int) -> Iterator[Any]:
    """A game without window and sound that is paused at the start of a map."""
    import vizdoom

    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(find_wad()))
    game.set_doom_config_path(os.devnull)  # else it leaves a file in the current folder
    game.set_doom_map(map_name)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_seed(seed)
    game.set_episode_timeout(0)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_640X480)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    for part in ("hud", "weapon", "crosshair", "decals", "particles", "messages"):
        getattr(game, f"set_render_{part}")(False)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons(
        [button.TURN_LEFT_RIGHT_DELTA, button.MOVE_FORWARD_BACKWARD_DELTA, button.MOVE_LEFT_RIGHT_DELTA]
    )
    axes = (variable.CAMERA_POSITION_X, variable.CAMERA_POSITION_Y, variable.CAMERA_POSITION_Z)
    game.set_available_game_variables([*axes, variable.CAMERA_ANGLE])
    game.init()
    try:
        yield game
    finally:
        game.close()


def follow(game: Any, walk: Walk, size_px: int, seed: int) -> list[View] | None:
    """What is seen on a walk, a view of each frame, from a fresh start of the map; None if something was in the way."""
    game.set_seed(seed)
    game.new_episode()
    for command in _CONSOLE:
        game.send_game_command(command)
    x, y = walk.positions[0]
    game.send_game_command(f"warp {x:.4f} {y:.4f}")
    for _ in range(_SETTLING_FRAMES):
        game.make_action([_turn(_get_pose(game), walk.angles[0]), 0, 0], 1)
    speed, views = np.zeros(2), list[View]()
    for target, angle in zip(walk.positions, walk.angles):
        before = views[-1].pose if views else _get_pose(game)
        position = np.array([before.x, before.y])
        thrust = target - position - _FRICTION * speed
        thrust *= min(1, _MOST_THRUST / max(float(np.abs(thrust).max()), 1e-9))
        cos, sin = Pose(0, 0, 0, angle).forward
        buttons = np.array([thrust @ [cos, sin], thrust @ [sin, -cos]]) / _THRUST_UNIT
        game.make_action([_turn(before, angle), *buttons.tolist()], 1)
        view = _take(game, size_px)
        now = np.array([view.pose.x, view.pose.y])
        if np.abs(now - target).max() > _OFF_THE_WAY:
            return None
        speed = now - position
        views.append(view)
    return views


def _turn(pose: Pose, angle: float) -> float:
    """Degrees to the right."""
    return float((pose.angle - angle + 180) % 360 - 180)


def _get_pose(game: Any) -> Pose:
    """Without the buffers, which cost most of a state."""
    return Pose(*(game.get_game_variable(variable) for variable in game.get_available_game_variables()))


def _take(game: Any, size_px: int) -> View:
    state = game.get_state()
    square = np.s_[:, _LEFT : _LEFT + SCREEN_PX]
    centers = ((np.arange(size_px) + 0.5) * SCREEN_PX / size_px).astype(int)
    labels = state.labels_buffer[square]
    things = np.where(labels > _FLOOR_OR_CEILING, labels, 0)

    def reduce(array: np.ndarray) -> np.ndarray:
        return cv2.resize(array, (size_px, size_px), interpolation=cv2.INTER_AREA)

    return View(
        pose=Pose(*(float(number) for number in state.game_variables)),
        image=BRIGHTER[reduce(np.ascontiguousarray(state.screen_buffer[square]))],
        depth=state.depth_buffer[square][np.ix_(centers, centers)],
        things=things[np.ix_(centers, centers)],
        touches_thing=reduce((things > 0).astype(np.float32)) > 0,
        categories={label.value: label.object_category for label in state.labels},
    )
