"""The losses that discriminators of images, of parts of them and of clips give, by the names that they are logged with.

Wang et al., Video-to-Video Synthesis, 2018, eq. 3 and 4, with the feature matching of pix2pixHD.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from imagier.losses.feature_matching import feature_matching
from imagier.losses.gan import GanMode, dis_fake_loss, dis_real_loss, gen_loss
from imagier.nn.clip_discriminator import ClipDiscriminator, Judgment
from imagier.ranges import NonNegative

Pair = tuple[Judgment, Judgment]
"""Of the real and of the generated."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses. A loss of weight 0 is not computed, except for the adversarial ones of images."""

    gan: NonNegative
    """Adversarial loss of images, of generator and discriminator."""
    feature_matching: NonNegative
    """L1 between the discriminators' features of generated and of real images, parts and clips."""
    temporal_gan: NonNegative = 0.0
    """Adversarial loss of clips (dis.temporal)."""
    perceptual: NonNegative = 0.0
    """Perceptual distance between generated and real images, as perceptual_loss says."""
    flow: NonNegative = 10.0
    """Of the flow: its distance from the real one, that of the warped frame from the real one, and that of the mask
    from where the warped frame is right."""
    l1: NonNegative = 0.0
    """Mean absolute difference from the target, in [-1, 1] (not in the paper)."""


def expand_weights(weights: LossWeights, dis: ClipDiscriminator) -> dict[str, float]:
    """The weight of every loss by its name; those of single discriminators are named as they are logged."""
    found = asdict(weights)
    of_clips = found.pop("temporal_gan")
    for name, weight in dis.crop_weights.items():
        found |= {f"GAN_{name}": weight, f"FeatureMatching_{name}": weights.feature_matching}
    for name in dis.temporal_names:
        of_features = weights.feature_matching if of_clips else 0.0
        found |= {f"GAN_{name}": of_clips, f"FeatureMatching_{name}": of_features}
    return found


def pair(of_real: Judgment | None, of_fake: Judgment | None) -> Pair | None:
    """Both, or None if one is missing."""
    return None if of_real is None or of_fake is None else (of_real, of_fake)


def group_pairs(found: Mapping[str, Pair | None], left_out: Collection[str]) -> dict[str, list[Pair]]:
    """The pairs that count for each adversarial loss: "" for images as a whole, or the name of a discriminator."""
    groups: dict[str, list[Pair]] = {"": []}
    for name, of_both in found.items():
        if name not in left_out:
            groups.setdefault("" if name in ("image", "raw") else name, []).extend([] if of_both is None else [of_both])
    return groups


def adversarial_dis(groups: Mapping[str, Sequence[Pair]], mode: GanMode, zero: Tensor) -> dict[str, Tensor]:
    """The discriminators' losses of the groups of `group_pairs`. zero: a scalar on their device."""
    losses = {}
    for part, pairs in groups.items():
        name = f"GAN_{part}" if part else "gan"
        losses[f"{name}/fake"] = sum((dis_fake_loss(of_fake[0], mode) for _, of_fake in pairs), zero)
        losses[f"{name}/true"] = sum((dis_real_loss(of_real[0], mode) for of_real, _ in pairs), zero)
    return losses


def adversarial_gen(
    groups: Mapping[str, Sequence[Pair]], mode: GanMode, zero: Tensor, *, has_features: bool
) -> dict[str, Tensor]:
    """The generator's losses of the groups of `group_pairs`. has_features: match features, too."""
    losses = {}
    for part, pairs in groups.items():
        losses[f"GAN_{part}" if part else "gan"] = sum((gen_loss(of_fake[0], mode) for _, of_fake in pairs), zero)
        if has_features:
            distances = (feature_matching(of_fake[1], of_real[1]) for of_real, of_fake in pairs)
            losses[f"FeatureMatching_{part}" if part else "feature_matching"] = sum(distances, zero)
    return losses
