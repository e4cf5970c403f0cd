"""Flow between any two images: what is seen is found again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from imagier.errors import UserError
from imagier.nn.optical_flow import SMALLEST_PX, FindFlow, find_flow_by_dis, find_motion
from imagier.tools.flow.estimator import Flow, Frame


class FromImages:
    """Known is what the flow back leads home from (Ruder et al. 2016, eq. 5)."""

    def __init__(self, images: str, find_flow: FindFlow = find_flow_by_dis) -> None:
        """images: the input type of the frames, of 8 bits."""
        self.images = images
        self.input_types: Sequence[str] = (images,)
        self.find_flow = find_flow

    def estimate(self, frame: Frame, before: Frame) -> Flow:
        """UserError if frames are too small, no images of 8 bits, or of two sizes."""
        pair = [each.arrays[self.images] for each in (frame, before)]
        where = f"{self.images}/{frame.sequence}/{frame.name}"
        height, width = pair[0].shape[:2]
        if pair[0].shape != pair[1].shape:
            advice = "make all frames of a sequence alike"
            raise UserError("differs in size from the frame before", where=where, advice=advice, code="frames-differ")
        if min(height, width) < SMALLEST_PX or pair[0].dtype != np.uint8:
            what = f"{width} x {height} pixels of {pair[0].dtype}, but flow is found in 8 bits and {SMALLEST_PX} px"
            raise UserError(what, where=where, advice="convert the images", code="no-flow-in-it")
        colors = [each[..., :3] if each.shape[2] >= 3 else np.repeat(each[..., :1], 3, axis=2) for each in pair]
        now, past = torch.from_numpy(np.stack(colors)).permute(0, 3, 1, 2).float().div(255).split(1)
        vectors, visible = find_motion(now, past, self.find_flow)
        return Flow(vectors[0].permute(1, 2, 0).numpy(), visible[0].numpy())
