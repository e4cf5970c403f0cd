"""Sets of clips to be measured: videos, or folders of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from imagier.data.sources.source import sort_frames
from imagier.errors import UserError
from imagier.metrics.feature_metric import FeatureSet
from imagier.metrics.features import FeatureExtractor
from imagier.metrics.metric import Metric
from imagier.nn.backbones.i3d import FRAMES
from imagier.run.comparison import describe_metrics, describe_program, name_directions, name_values
from imagier.run.feature_sets import check_finite
from imagier.run.image_sets import StoredImage, read_images
from imagier.run.known_frames import KnownFrames
from imagier.run.workers import count_cores
from imagier.train.card import Card

Clip = Sequence[StoredImage]
"""The frames of a clip, in order."""
Update = Callable[[int, int], None]
"""Called with (done, total)."""


def group_clips(images: Sequence[StoredImage], where: str) -> list[Clip]:
    """The clips of a set, by name: all frames of a video, or of a folder by the numbers in their names.

    UserError: an image that is in neither; a clip of one frame.
    """
    clips: dict[str, list[StoredImage]] = {}
    for image in images:
        folder, _, _ = image.name.rpartition("/")
        clips.setdefault(folder, []).append(image)
    for name, frames in clips.items():
        if not name or len(frames) < 2:
            what = f"{frames[0].name!r} is a single image"
            advice = "expected videos, or a folder for the frames of each clip"
            raise UserError(what, where=where, advice=advice, code="no-clips")
    frames_of = {name: {image.name: image for image in frames} for name, frames in sorted(clips.items())}
    return [[frames[each] for each in sort_frames(list(frames))] for frames in frames_of.values()]


def score_clips(
    clips: Sequence[Clip],
    metrics: Mapping[str, Metric],
    device: torch.device,
    update: Update,
    known: KnownFrames | None = None,
) -> dict[str, float]:
    """The numbers of metrics that look at clips alone, and at what is known of their frames, by their names.

    A long clip comes in parts; the last frame of one is the first of the next. UserError: a damaged image; a frame of
    which it is not known, or in another size.
    """
    measured = {name: metric.fresh(device) for name, metric in metrics.items()}
    for metric in measured.values():
        metric.load(device)
    for done, clip in enumerate(clips):
        for frames, part in _read_parts(clip, FRAMES, device, overlap=1):
            beside = {} if known is None else known.read(frames, part)
            for metric in measured.values():
                metric.update(part[None], beside)
        update(done + 1, len(clips))
    scores: dict[str, float] = {}
    for name, metric in measured.items():
        scores |= name_values(name, metric, metric.compute_all())
    return scores


def extract_clip_features(
    clips: Sequence[Clip], extractor: FeatureExtractor, device: torch.device, where: str, update: Update
) -> FeatureSet:
    """The features of all consecutive parts of 16 frames, on the CPU; shorter clips have none.

    where: the set, in messages. UserError: no clip is as long as that.
    """
    features: list[Tensor] = []
    for done, clip in enumerate(clips):
        whole = clip[: len(clip) // FRAMES * FRAMES]
        features += [extractor(part[None])[0].cpu() for _, part in _read_parts(whole, FRAMES, device)]
        update(done + 1, len(clips))
    if not features:
        what = f"no clip has {FRAMES} frames"
        raise UserError(what, where=where, advice="make longer ones, or leave the metric out", code="short-clips")
    found = torch.cat(features)
    check_finite(found, where)
    return FeatureSet(found)


def make_clip_card(
    scores: Sequence[Mapping[str, float]],
    metrics: Mapping[str, Metric],
    counts: tuple[int, int],
    names: tuple[str, str],
    fingerprints: tuple[str, str],
    known: KnownFrames | None = None,
) -> Card:
    """The card of `score_clips` of the real and of the generated clips: the score of the real ones is the floor.

    counts, names, fingerprints: of the real and of the generated clips. known: of both.
    """
    return Card(
        values=scores[1],
        intervals={},
        floor=scores[0],
        floor_sizes=(0, 0),
        protocol={
            "metrics": describe_metrics(metrics),
            "num_real": counts[0],
            "num_fake": counts[1],
            "real_sha256": fingerprints[0],
            **({} if known is None else known.describe()),
        },
        subject={"real": names[0], "fake": names[1], "fake_sha256": fingerprints[1]},
        made_by=describe_program(),
        higher_is_better=name_directions(metrics),
    )


def _read_parts(clip: Clip, size: int, device: torch.device, overlap: int = 0) -> Iterator[tuple[Clip, Tensor]]:
    """Frames, and their pixels T x 3 x H x W in [0, 1], T at most size + overlap. UserError: other sizes among them."""
    part: list[np.ndarray] = []
    start = 0
    for frame, pixels in zip(clip, read_images(clip, count_cores())):
        if part and pixels.shape != part[0].shape:
            what = f"has {pixels.shape[1]} x {pixels.shape[0]} px, other frames have {part[0].shape[1]} x "
            what += f"{part[0].shape[0]} px"
            raise UserError(what, where=frame.where, advice="give all frames of a clip one size", code="other-size")
        part.append(pixels)
        if len(part) == size + overlap:
            yield clip[start : start + len(part)], _to_tensor(part, device)
            part, start = part[size:], start + size
    if len(part) > overlap:
        yield clip[start:], _to_tensor(part, device)


def _to_tensor(frames: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float() / 255
