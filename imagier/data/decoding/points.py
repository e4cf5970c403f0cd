"""Key points: the JSON that holds them, as numbers."""

from __future__ import annotations

import json

import numpy as np

from imagier.errors import UserError


def decode_points(data: bytes, where: str) -> np.ndarray:
    """A JSON list of [x, y, ...], all of one length -> P x D, float64. UserError, with the file's name, for any other.

    x and y are in pixels of the image that the points belong to; the center of its first pixel is (0, 0).
    """
    try:
        points = np.array(json.loads(data), np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{_WANTED} ({_first_line(error)})", where=where, advice="correct it") from error
    if points.ndim != 2 or points.shape[1] < 2:
        raise UserError(
            f"{_WANTED} (its numbers have the shape {list(points.shape)})", where=where, advice="correct it"
        )
    if not np.isfinite(points).all():
        raise UserError(
            "holds numbers that are infinite or none", where=where, advice="give such points a confidence of 0 instead"
        )
    return points


_WANTED = "not a JSON list of key points [x, y, ...], all of one length"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
