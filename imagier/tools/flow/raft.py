"""RAFT with the weights of a file, for frames of any size."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.backbones.weights import find_own_weights, fit_weights, hash_file, read_weights
from imagier.nn.raft import SMALLEST_PX, STRIDE, Raft, get_file_key

NAME = "raft-things.pth"
PAGE = "https://github.com/princeton-vl/RAFT (download_models.sh, BSD license)"

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})$")
"""As torch names files: name-<beginning of the SHA-256>.pth."""


class RaftFlow:
    """A `FindFlow` of nn/optical_flow.py."""

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        """weights: a file with the names of raft-things.pth; None: that one, in torch's cache.

        UserError if there is none, if it holds something else, or if its name holds another SHA-256.
        """
        path = find_own_weights(None if weights is None else str(weights), NAME, PAGE, "weights")
        if not path.is_file():
            raise UserError("no such file", where=path, advice=f"get {NAME} from {PAGE}", code="no-weight-file")
        self.sha256 = hash_file(path)
        expected = _HASH_IN_NAME.search(path.stem)
        if expected and not self.sha256.startswith(expected[1]):
            what = f"its SHA-256 is {self.sha256}, not {expected[1]}..., as its name says"
            raise UserError(what, where=path, advice="get it again", code="damaged-weights")
        with torch.device("meta"):
            self.network = Raft().eval()
        fit_weights(self.network, read_weights(path), file_key=get_file_key, source=str(path))
        self.network.to(device)
        self.device = device
        self._lock = Lock()

    @torch.no_grad()
    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """N x 3 x H x W in [0, 1] -> N x 2 x H x W. Borders are repeated up to a size that RAFT takes."""
        height, width = images.shape[2:]
        below, right = (max(SMALLEST_PX, -(-side // STRIDE) * STRIDE) - side for side in (height, width))
        padded = [F.pad(each.to(self.device), (0, right, 0, below), mode="replicate") for each in (images, others)]
        with self._lock:  # its memory grows with the square of the pixels, and each call takes all of the device
            return self.network(*padded)[..., :height, :width].cpu()
