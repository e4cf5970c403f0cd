"""The 68 points of a face that dlib finds (Kazemi & Sullivan 2014): JSON files, which become a sketch."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from imagier.data import codec
from imagier.data.augmentation.augment import Drawn
from imagier.data.codec import InputType, Stored
from imagier.data.codecs.image import as_rgb, scale_values
from imagier.data.codecs.keypoints import draw_dots, read_points, wrong_content
from imagier.data.decoding.decode import EncodedFile
from imagier.data.drawing.face import NUM_CHAINS, NUM_ENCODED, NUM_POINTS, draw_face
from imagier.errors import UserError

_ROWS_PER_STROKE_PX = 256


class Codec(codec.Codec):
    """A JSON list of 68 points [x, y], in the pixels of the image -> curves of 0 and 1.

    Contour, brows, nose, eyes and mouth, in one channel. With distances there are 14 channels more, one for each curve,
    and with positional encoding 20 more.
    """

    has_pixels = False
    is_drawn = True

    def __init__(
        self,
        input_type: InputType,
        *,
        add_upper_face: bool = False,
        add_distance_transform: bool = False,
        add_positional_encode: bool = False,
    ) -> None:
        """add_upper_face: Complete the contour above the eyes.
        add_distance_transform: Add a channel for each curve, with the distance from it.
        add_positional_encode: With add_distance_transform: add 20 channels, sine and cosine of the distance from the
            upper lip at 10 frequencies.

        UserError unless the number of channels is 1, 15 with distances, or 35 with positional encoding.
        """
        super().__init__(input_type)
        if add_positional_encode and not add_distance_transform:
            what, advice = "has no effect without add_distance_transform", "add that key, or leave this one out"
            raise UserError(what, where=f"{input_type.name}: add_positional_encode", advice=advice, code="no-effect")
        channels = 1 + NUM_CHAINS * add_distance_transform + NUM_ENCODED * add_positional_encode
        if input_type.num_channels != channels:
            what = f"the sketch has {channels} channels, not {input_type.num_channels}"
            raise UserError(what, where=input_type.name, advice="correct num_channels", code="wrong-channels")
        self.add_upper_face = add_upper_face
        self.add_distance_transform = add_distance_transform
        self.add_positional_encode = add_positional_encode

    def decode(self, file: EncodedFile) -> np.ndarray:
        """68 x D, float64. UserError for any other content."""
        points = read_points(file)
        if len(points) != NUM_POINTS:
            raise wrong_content(file, "a JSON list of 68 points [x, y]", f"it has {len(points)}")
        return points

    def augment(self, stored: Stored, drawn: Drawn) -> np.ndarray:
        """H x W x 1, 15 or 35, float32."""
        return draw_face(
            drawn.move_points(stored.array, stored.size),
            drawn.size,
            width=max(1, drawn.resized[0] // _ROWS_PER_STROKE_PX),
            add_upper_face=self.add_upper_face,
            has_distances=self.add_distance_transform,
            has_positional_encoding=self.add_positional_encode,
        )

    def expand(self, stored: Tensor) -> Tensor:
        """Curves of 0 and 1, distances in [0, 1], positional encoding in [-1, 1]; with `normalize`: 2 x - 1."""
        return scale_values(stored, self.input_type)

    def to_rgb(self, array: np.ndarray, canvas: np.ndarray | None = None) -> np.ndarray:
        """Curves on black; as stored, dots on the image."""
        if array.ndim == 2:
            assert canvas is not None
            return draw_dots(array, canvas)
        return as_rgb((array[..., :1] * 255).round().astype(np.uint8))
