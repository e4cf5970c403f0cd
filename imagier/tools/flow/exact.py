"""Exact flow of what does not move by itself, from depth and the pose of the camera, as games know them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from imagier.errors import UserError
from imagier.tools.flow.estimator import Flow, Frame

DEPTH, CAMERAS = "depth", "cameras"
"""Folders of the depth (an input type) and of the cameras (cameras/<sequence>.json)."""
UNKNOWN_DEPTH, FAR_DEPTH = 0, 65535
"""Of what moves by itself, and of the sky."""

_SKIES = {"cylinder": True, "sphere": False}
"""How the files name `Cameras.is_sky_cylinder`."""
_DIFFERENCE = 0.03
"""Share by which the inverse depth of what is seen in two frames may differ. Something else is rarely as near."""


@dataclass(frozen=True)
class Cameras:
    """The cameras of a sequence. Axes: x to the right, y down, z forward; x px = fx x / z + cx."""

    fx: float
    fy: float
    cx: float
    cy: float
    depth_unit: float
    """Depth along z = depth_unit times the stored number."""
    is_sky_cylinder: bool
    """The sky is painted on a cylinder around the camera: it moves sideways only."""
    camera_to_world: dict[str, np.ndarray]
    """3 x 4 by the name of the frame."""

    @classmethod
    def read(cls, path: Path) -> Cameras:
        """UserError if the file is not there, or holds something else."""
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            numbers = {name: float(read[name]) for name in ("fx", "fy", "cx", "cy", "depth_unit")}
            poses = {name: np.array(pose, np.float64).reshape(3, 4) for name, pose in read["camera_to_world"].items()}
            if not np.isfinite([*numbers.values(), *np.ravel([*poses.values()])]).all():
                raise ValueError("not finite")
            return cls(**numbers, is_sky_cylinder=_SKIES[read["sky"]], camera_to_world=poses)
        except OSError as error:
            advice = "exact flow needs the pose of the camera in each frame"
            raise UserError(str(error.strerror), where=path, advice=advice, code="missing-file") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError("does not hold the cameras of a sequence", where=path, code="damaged") from error

    def write(self, path: Path) -> None:
        """As `read` reads it."""
        numbers = {name: getattr(self, name) for name in ("fx", "fy", "cx", "cy", "depth_unit")}
        poses = {name: pose.tolist() for name, pose in self.camera_to_world.items()}
        (sky,) = (sky for sky, is_cylinder in _SKIES.items() if is_cylinder == self.is_sky_cylinder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**numbers, "sky": sky, "camera_to_world": poses}) + "\n", encoding="utf-8")

    def unproject(self, stored: np.ndarray, name: str) -> np.ndarray:
        """Depth H x W as stored -> points of the world H x W x 3; NaN where the depth is not known, or that of the sky.

        name: of the frame.
        """
        pose = self.camera_to_world[name]
        depth = np.where((stored == UNKNOWN_DEPTH) | (stored == FAR_DEPTH), np.nan, stored * self.depth_unit)
        return (self._directions(stored.shape) * depth[..., None]) @ pose[:, :3].T + pose[:, 3]

    def find_flow(self, name: str, stored: np.ndarray, name_before: str, stored_before: np.ndarray) -> Flow:
        """The flow between two frames, from their depth, H x W each, as stored."""
        pose, before = self.camera_to_world[name], self.camera_to_world[name_before]
        turn = before[:, :3].T @ pose[:, :3]
        shift = before[:, :3].T @ (pose[:, 3] - before[:, 3])
        inverse, inverse_before = self._invert(stored), self._invert(stored_before)
        # Points divided by their depth, so that the sky is one of them.
        points = self._directions(stored.shape) @ turn.T + inverse[..., None] * shift
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.fx * points[..., 0] / points[..., 2] + self.cx
            y = self.fy * points[..., 1] / points[..., 2] + self.cy
            inverse_there = inverse / points[..., 2]
        rows, columns = np.indices(stored.shape)
        y = np.where((stored == FAR_DEPTH) & self.is_sky_cylinder, rows, y)
        is_inside = (x >= 0) & (x <= columns.max()) & (y >= 0) & (y <= rows.max()) & (points[..., 2] > 0)
        x, y = np.where(is_inside, x, 0).astype(np.float32), np.where(is_inside, y, 0).astype(np.float32)
        # On a plane the inverse of the depth is linear in the pixels: interpolation is exact, but for edges.
        seen = cv2.remap(inverse_before, x, y, cv2.INTER_LINEAR)
        is_same = np.abs(seen - inverse_there) <= _DIFFERENCE * np.maximum(seen, inverse_there)
        return Flow(np.stack([x - columns, y - rows], axis=-1).astype(np.float32), is_inside & is_same)

    def _directions(self, size: tuple[int, ...]) -> np.ndarray:
        """Points of depth 1 that the pixels show, H x W x 3."""
        rows, columns = np.indices(size)
        return np.stack([(columns - self.cx) / self.fx, (rows - self.cy) / self.fy, np.ones(size)], axis=-1)

    def _invert(self, stored: np.ndarray) -> np.ndarray:
        """1 / depth, 0 for the sky, NaN where it is not known."""
        inverse = 1 / (np.maximum(stored, 1) * self.depth_unit)
        return np.where(stored == FAR_DEPTH, 0, np.where(stored == UNKNOWN_DEPTH, np.nan, inverse))


class Exact:
    """From root/depth (16 bits, see `Cameras`) and root/cameras/<sequence>.json. What moves by itself is not known."""

    input_types: Sequence[str] = (DEPTH,)

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read = lru_cache(maxsize=64)(Cameras.read)

    def estimate(self, frame: Frame, before: Frame) -> Flow:
        """UserError if the cameras lack a frame, or depth is not of 16 bits and one size."""
        path = self.root / CAMERAS / f"{frame.sequence}.json"
        cameras = self._read(path)
        for each in (frame, before):
            depth = each.arrays[DEPTH]
            if each.name not in cameras.camera_to_world:
                raise UserError(f"has no pose of the frame {each.name!r}", where=path, code="missing-pose")
            if depth.dtype != np.uint16 or depth.shape != (*frame.arrays[DEPTH].shape[:2], 1):
                where = self.root / DEPTH / each.sequence / each.name
                raise UserError("depth is one channel of 16 bits, of one size", where=where, code="wrong-dtype")
        now, past = frame.arrays[DEPTH][..., 0], before.arrays[DEPTH][..., 0]
        return cameras.find_flow(frame.name, now, before.name, past)
