"""The losses of a frame of a video, of both players: adversarial, of features, of flow (Wang et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagier.losses.clips import Pair, adversarial_dis, adversarial_gen, group_pairs, pair
from imagier.losses.flow import FlowEstimator, measure_confidence, motion_losses
from imagier.losses.gan import GanMode, center_logits
from imagier.losses.perceptual import PerceptualConfig, PerceptualLoss
from imagier.losses.pixel import l1
from imagier.nn.clip_discriminator import ClipDiscriminator
from imagier.nn.poses import Crops, find_foreground
from imagier.nn.size_probe import SizeProbe

LOG_NAMES = {
    "gan": "GAN",
    "feature_matching": "FeatureMatching",
    "perceptual": "Perceptual",
    "l1": "L1",
    "flow": "Flow",
    "flow/l1": "Flow_L1",
    "flow/warp": "Flow_Warp",
    "flow/mask": "Flow_Mask",
}
"""The reference's names of these losses."""


@dataclass(frozen=True)
class Frame:
    """A moment of real clips, as the losses see it."""

    label: Tensor
    """N x L x H x W."""
    image: Tensor
    """N x C x H x W, as all that follow."""
    before: Tensor | None
    """The frame before it."""
    crops: Mapping[str, Crops]
    past_real: Sequence[Tensor]
    """Real frames before it, the oldest first, and the generated ones of the same moments."""
    past_fake: Sequence[Tensor]
    is_alone: bool
    """No clip, but a still."""
    foreground: Tensor | None
    """Where people are, N x 1 x H x W; None: everything counts."""
    flow: Tensor | None
    """To the frame before it, N x 2 x H x W, and where it is right, N x 1 x H x W, if the data know."""
    confidence: Tensor | None
    ref_label: Tensor | None = None
    """Label and image of a reference, which discriminators see beside the frame; None: there is none."""
    ref_image: Tensor | None = None

    @property
    def context(self) -> Tensor:
        """What discriminators of images see beside them: label, and reference with its label; N x ... x H x W."""
        if self.ref_label is None or self.ref_image is None:
            return self.label
        return torch.cat([self.label, self.ref_label, self.ref_image], dim=1)


class FrameLosses:
    """What the losses of all frames have in common."""

    def __init__(
        self,
        dis: ClipDiscriminator,
        *,
        weights: Mapping[str, float],
        gan_mode: GanMode,
        label_lengths: Mapping[str, int],
        has_foreground: bool = False,
    ) -> None:
        """weights: of every loss, as `expand_weights` names them. label_lengths: channels of each type in the label.

        has_foreground: losses of flow and of raw output count near people (`find_foreground`).
        """
        self.weights = weights
        self.gan_mode: GanMode = gan_mode
        self.has_foreground = has_foreground
        self.perceptual: PerceptualLoss | None = None
        self.label_lengths = label_lengths
        self.probes = {
            name: _probe(network, f"dis.additional_discriminators.{name}") for name, network in dis.crops.items()
        }
        self.probes |= {
            name: _probe(network, "dis.temporal") for name, network in zip(dis.temporal_names, dis.temporal)
        }
        self.probes["image"] = _probe(dis.image, "dis.image")

    def load_perceptual(self, config: PerceptualConfig | None) -> list[nn.Module]:
        """Loads the network of the perceptual loss, if that has a weight. UserError if there is none."""
        self.perceptual = PerceptualLoss.create_if_weighted(config, self.weights["perceptual"])
        return [] if self.perceptual is None else [self.perceptual]

    def look_at(
        self, dis: ClipDiscriminator, tensors: Mapping[str, Tensor], t: int, past: Sequence[Tensor], begin: int = 0
    ) -> Frame:
        """A moment of a prepared batch of clips. past: generated frames. begin: the first that clips may hold."""
        images, label = tensors["images"], tensors["label"][:, t]
        since = max(begin, t - dis.memory)
        return Frame(
            label=label,
            image=images[:, t],
            before=images[:, t - 1] if t else None,
            crops=dis.find_crops(label, self.label_lengths),
            past_real=[images[:, earlier] for earlier in range(since, t)],
            past_fake=past[len(past) - (t - since) :],
            is_alone=images.shape[1] == 1,
            foreground=find_foreground(label) if self.has_foreground else None,
            flow=tensors["flow"][:, t] if "flow" in tensors else None,
            confidence=tensors["flow_confidence"][:, t] if "flow_confidence" in tensors else None,
        )

    def discriminate(
        self, dis: ClipDiscriminator, frame: Frame, fake: Mapping[str, Tensor], *, should_learn_from_real: bool
    ) -> dict[str, Pair | None]:
        """What each discriminator finds in the real and in the generated frame, by its name; also of the "raw" one.

        Of the real with a graph if should_learn_from_real.
        """
        context, images = frame.context, fake["fake_images"]
        with self._explain_sizes(dis, frame):
            with torch.set_grad_enabled(should_learn_from_real):
                of_real = dis(context, frame.image, frame.crops, frame.past_real, frame.ref_image)
            of_fake = dis(context, images, frame.crops, frame.past_fake, frame.ref_image)
        found = {name: pair(of_real[name], of_fake[name]) for name in of_real}
        if "fake_raw_images" in fake:
            real, raw = (mask_by(frame.foreground, x) for x in (frame.image, fake["fake_raw_images"]))
            with torch.set_grad_enabled(should_learn_from_real):
                of_image = dis.judge(context, real)
            found["raw"] = (of_image, dis.judge(context, raw))
        return found

    def of_dis(self, dis: ClipDiscriminator, frame: Frame, fake: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses of the discriminator. fake: the generator's outputs."""
        detached = {name: tensor.detach() for name, tensor in fake.items()}
        found = self.discriminate(dis, frame, detached, should_learn_from_real=True)
        groups = group_pairs(found, self._left_out(dis, frame))
        return adversarial_dis(groups, self.gan_mode, frame.image.new_zeros(()))

    def of_gen(
        self, dis: ClipDiscriminator, frame: Frame, fake: Mapping[str, Tensor], estimate_flow: FlowEstimator
    ) -> dict[str, Tensor]:
        """The losses of the generator. fake: its outputs. estimate_flow: asked where the frame knows no flow."""
        images, target = fake["fake_images"], frame.image
        found = self.discriminate(dis, frame, fake, should_learn_from_real=False)
        groups, has_features = group_pairs(found, self._left_out(dis, frame)), bool(self.weights["feature_matching"])
        losses = adversarial_gen(groups, self.gan_mode, target.new_zeros(()), has_features=has_features)
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(images, target)
            if "fake_raw_images" in fake:
                real, raw = (mask_by(frame.foreground, x) for x in (target, fake["fake_raw_images"]))
                losses["perceptual"] = losses["perceptual"] + self.perceptual(raw, real)
        if self.weights["l1"]:
            losses["l1"] = l1(images, target)
        return {**losses, **_of_flow(frame, fake, estimate_flow)} if self.weights["flow"] else losses

    def logits(
        self, dis: ClipDiscriminator, context: Tensor, images: Tensor, fake: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of the discriminators of images as a whole, for real and for generated ones, N x C x H x W, above 0 if real.

        context: what they see beside the images, N x ... x H x W.
        """
        of_real, of_fake = (dis.judge(context, x)[0] for x in (images, fake))
        return center_logits(of_real, self.gan_mode), center_logits(of_fake, self.gan_mode)

    def _explain_sizes(self, dis: ClipDiscriminator, frame: Frame) -> ExitStack:
        """A context for running the discriminators: UserError if one fails because what it sees is too small."""
        channels, height, width = frame.image.shape[1:]
        in_crops = channels if frame.ref_image is None else 2 * channels
        seen: dict[str, dict[str, Tensor]] = {"image": {"label": frame.context, "images": frame.image}}
        for name, crops in frame.crops.items():
            seen[name] = {"part": torch.empty(1, in_crops, crops.side, crops.side, device="meta")}
        for name in dis.temporal_names:
            seen[name] = {"clip": torch.empty(1, channels * dis.num_frames, height, width, device="meta")}
        stack = ExitStack()
        for name, tensors in seen.items():
            stack.enter_context(self.probes[name].explain(**tensors))
        return stack

    def _left_out(self, dis: ClipDiscriminator, frame: Frame) -> list[str]:
        """The discriminators of clips that have nothing to say of this frame."""
        return [name for name in dis.temporal_names if frame.is_alone or not self.weights[f"GAN_{name}"]]


def _of_flow(frame: Frame, fake: Mapping[str, Tensor], estimate_flow: FlowEstimator) -> dict[str, Tensor]:
    if frame.before is None or "fake_flow_maps" not in fake:
        return {f"flow/{name}": frame.image.new_zeros(()) for name in ("l1", "warp", "mask")}
    flow, trusted = frame.flow, frame.confidence
    with torch.no_grad():
        if flow is None:  # a confidence without it would be that of another flow
            flow, trusted = estimate_flow(frame.image, frame.before), None
        if trusted is None:
            trusted = measure_confidence(frame.image, frame.before, flow)
    moved = [fake[name] for name in ("fake_flow_maps", "fake_occlusion_masks", "warped_images")]
    return motion_losses(moved, frame.image, flow, mask_by(frame.foreground, trusted))


def mask_by(mask: Tensor | None, x: Tensor) -> Tensor:
    """x where a mask of a shape that broadcasts to its own is 1, else 0; all of x without a mask."""
    return x if mask is None else x * mask


def _probe(network: nn.Module, where: str) -> SizeProbe:
    """Of a discriminator that sees tensors beside each other."""

    def run(network: nn.Module, **tensors: Tensor) -> object:
        return network(torch.cat(list(tensors.values()), dim=1))

    return SizeProbe(network, run, where=where, depth_keys="num_layers or num_discriminators")
