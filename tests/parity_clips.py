"""What parity.py compares of video methods: clips, frame by frame; README_video.md beside the cases describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imagier.config.load import Document
from imagier.nn.poses import PARTS
from imagier.nn.warp import warp
from imagier.recipe import Batch, Recipe
from imagier.train.hooks.log import tag_losses
from imagier.train.phase import Phase
from imagier.train.player import Player
from imagier.train.trainer import Trainer

HEADS = {"image": "indv"}
"""The reference's names of discriminators that are called otherwise here."""

FRAME = re.compile(r"^(eval|frames|step)\.(\d+)\.")
"""The beginning of the name of a result of one frame."""


FEW_SHOT_KEYS = ("initial_few_shot_K", "input_few_shot_labels", "full_data_ops", "output_h_w", "for_face_dataset")
"""Keys of data that say where references and their labels come from."""

IN_LISTS = {"flow_maps": "fake_flow_maps", "occlusion_masks": "fake_occlusion_masks", "warped_images": "warped_images"}
"""What the reference gave for two images, that of reference and frame before, and how its lists were called."""


def name_outputs(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """What a generator gives out, by the reference's names."""
    named = dict(outputs)
    for ours, theirs in IN_LISTS.items() if "few_shot_images" in batch else ():
        both = {f"{theirs}.0": named.pop(f"ref_{ours}", None), f"{theirs}.1": named.pop(theirs, None)}
        named |= {name: tensor for name, tensor in both.items() if tensor is not None}
    return named


def take_label_as_given(document: Document) -> None:
    """The label of a case is drawn already: no key points are read, no op draws them, and nothing is cropped."""
    if document.has(("data", "initial_few_shot_K")):
        document.set(("data", "type"), "paired_videos")
        for key in FEW_SHOT_KEYS:
            if document.has(("data", key)):
                document.drop(("data", key))
    points = document.get(("data", "keypoint_data_types"))
    if not points:
        return
    if document.has(("data", "for_pose_dataset", "basic_points_only")):
        document.drop(("data", "for_pose_dataset", "basic_points_only"))
    for index, entry in enumerate(document.get(("data", "input_types"))):
        for name in set(entry) & set(points):
            for op in ("pre_aug_ops", "post_aug_ops"):
                if document.has(("data", "input_types", index, name, op)):
                    document.drop(("data", "input_types", index, name, op))
            document.set(("data", "input_types", index, name, "ext"), "png")
    document.set(("data", "keypoint_data_types"), [])


def draw_points(tensors: Mapping[str, Tensor], *, is_flipped: bool) -> dict[str, Tensor]:
    """Rows (row, column, point) of each frame -> which point each pixel shows, the first as number 1.

    is_flipped: the images of the case are mirrored, but these rows are not.
    """
    drawn = {name: tensor for name, tensor in tensors.items() if not name.startswith("unprojections.")}
    for tensor in (tensors[name] for name in tensors.keys() - drawn.keys()):
        samples, frames = tensor.shape[:2]
        points = torch.zeros(samples, frames, 1, *tensors["images"].shape[-2:], dtype=torch.int64)
        for n in range(samples):
            for t in range(frames):
                for row, column, point in tensor[n, t, : tensor[n, t, -1, 0]].tolist():
                    points[n, t, 0, row, column] = point + 1
        drawn["unprojections"] = points.flip(-1) if is_flipped else points
    return drawn


def flow_by_formula(frames: Tensor, before: Tensor) -> Tensor:
    """What stands in for the trained flow network in all cases."""
    height, width = frames.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    d = (frames - before).mean(dim=(1, 2, 3))[:, None, None]
    horizontal = 1.5 * torch.sin(0.15 * x + 0.11 * y + 3 * d) + 4 * d
    vertical = 1.5 * torch.cos(0.12 * x - 0.17 * y + 2 * d) - 4 * d
    return torch.stack([horizontal, vertical], dim=1)


def undo_start(batch: Batch, recipe: Recipe) -> Batch:
    """A batch as it was before the start of the iteration, which brings labels of poses to [-1, 1]."""
    if not getattr(recipe, "has_densepose", False):
        return batch
    before = {key: (batch[key] + 1) / 2 for key in ("label", "few_shot_label") if key in batch}
    for label in before.values():
        label[:, :, 2] *= PARTS / 255
    return batch.replace(**before)


def check_flow_of_case(batch: Mapping[str, Tensor], calls: list[Mapping[str, Any]], recipe: Recipe) -> None:
    """The formula gives the flow that was recorded, and the confidence follows from it.

    That from a reference is of the first channels of labels, where they show poses.
    """
    images, ref_images = batch["images"].float(), batch.get("few_shot_images")
    if getattr(recipe, "shows_poses", False):
        labels, ref_images = batch["label"][:, :, :3].float(), batch["few_shot_label"][:, :, :3]
    else:
        labels = images
    for call in calls:
        frame, before = images[:, call["frame"]], images[:, call["frame"] - 1]
        if call.get("from") == "reference":
            assert ref_images is not None
            frame, before = labels[:, call["frame"]], ref_images[:, 0].float()
        flow, recorded = flow_by_formula(frame, before), batch[f"flow.{call['call']}.flow"]
        assert torch.allclose(flow, recorded.to(flow.dtype), atol=1e-5)
        sure = (frame - warp(before, flow)).square().sum(dim=1, keepdim=True) < 0.02
        assert (sure != batch[f"flow.{call['call']}.conf"].bool()).float().mean() < 1e-3


def rollout(batch: Batch, given: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Any]:
    """The process eval: every frame, made from the generated ones before it."""
    prepared = recipe.prepare(batch)
    found: dict[str, Any] = {f"prepare.{key}": (prepared[key], given[key]) for key in prepared.tensors if key in given}
    recipe.networks["gen"].eval()
    with torch.no_grad():
        for t, (outputs, _) in enumerate(recipe.rollout(prepared.frames(), torch.Generator())):
            found |= {f"eval.{t}.{key}": tensor for key, tensor in name_outputs(outputs, batch).items()}
    return found


class Watch:
    """All that happens in the iteration of a clip, frame by frame."""

    def __init__(self, process: str, recipe: Recipe, players: Mapping[str, Player], *, should_update: bool) -> None:
        self.process = process
        self.outputs: dict[int, dict[str, Tensor]] = {}
        """Of each frame, those that its last phase was about."""
        self.verdicts: list[dict[str, Any]] = []
        self.gradients: list[dict[str, Tensor]] = []
        """Of each phase, by our names of parameters."""
        self.log_names = recipe.log_names
        recipe.networks["gen"].register_forward_hook(self._keep_outputs)
        losses: Any = getattr(recipe, "frame_losses", recipe)
        discriminate = losses.discriminate

        def watch_verdicts(*args: Any, **kwargs: Any) -> dict[str, Any]:
            self.verdicts.append(discriminate(*args, **kwargs))
            return self.verdicts[-1]

        losses.discriminate = watch_verdicts
        for player in players.values():
            player._step = self._watch_step(player, should_update)  # type: ignore[method-assign]

    def _keep_outputs(self, network: nn.Module, inputs: Any, outputs: dict[str, Tensor]) -> None:
        self.outputs[len(self.gradients) // 2] = outputs

    def _watch_step(self, player: Player, should_update: bool) -> Any:
        update = player._step

        def step(norm: Tensor) -> None:
            named = player.network.named_parameters()
            self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
            if should_update:
                update(norm)

        return step

    def results(
        self, trainer: Trainer, batch: Batch, names: Mapping[str, Mapping[str, str]], letters: Mapping[str, str]
    ) -> dict[str, Any]:
        """Runs the iteration. names: of each player, our names of weights -> the reference's. letters: its names."""
        found: dict[str, Any] = {}
        for number, phase in enumerate(trainer.train_step(batch)):
            here = f"{self.process}.{number // 2}"
            found |= {f"{here}.loss.{phase.player}.{name}": value for name, value in self._losses(phase)}
            for name, value in self._scores(number):
                found[f"{here}.disout.{phase.player}.{name}"] = value
            letter = letters[phase.player]
            for ours, gradient in self.gradients[number].items():
                found[f"{here}.grad.{letter}.{names[phase.player][ours]}"] = gradient
                found[f"{here}.gradnorm.{letter}.{names[phase.player][ours]}"] = gradient.norm()
        for t, outputs in self.outputs.items():
            found |= {f"{self.process}.{t}.out.{key}": tensor for key, tensor in name_outputs(outputs, batch).items()}
        return found

    def _losses(self, phase: Phase) -> Iterator[tuple[str, Tensor]]:
        for tag, value in tag_losses({phase.player: phase.losses}, self.log_names).items():
            yield tag.partition("/")[2], value

    def _scores(self, number: int) -> Iterator[tuple[str, Tensor]]:
        for ours, pair in self.verdicts[number].items():
            head = HEADS.get(ours, re.sub(r"^T(?=\d)", "temporal_", ours))
            for side, judgment in zip(("real", "fake"), pair or ()):
                yield from ((f"{head}.{side}.{scale}", scores) for scale, scores in enumerate(judgment[0]))


def check_without_gradient(found: Mapping[str, Any], expected: Mapping[str, list[str]], all_names: set[str]) -> None:
    """Just those weights got no gradient at all that got none in the reference: their optimizer leaves them alone.

    expected: of "G.0" (network, frame) and so on. all_names: "G.name" of every parameter.
    """
    for place, names in expected.items():
        letter, t = place.split(".")
        prefix = f"frames.{t}.grad."
        got = {name.removeprefix(prefix) for name in found if name.startswith(f"{prefix}{letter}.")}
        without = {name.partition(".")[2] for name in all_names - got if name.startswith(f"{letter}.")}
        assert without == set(names), f"{place}: {sorted(without ^ set(names))[:4]}"


class InDouble(TorchFunctionMode):
    """What is cast to float32 becomes float64, truth values aside (of which the fused optimizers take only float32)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_cast = func is Tensor.float and args[0].dtype is not torch.bool
        return args[0].double() if is_cast else func(*args, **(kwargs or {}))


def should_be_precise(process: str) -> bool:
    """Whether a process is to be computed in float64.

    In `step` rounding grows from frame to frame: two float32 runs of the reference, of one thread and of two, differ by
    more than the limits.
    """
    return process == "step"


def limit_of(name: str, scale: float, meta: Mapping[str, Any]) -> float | None:
    """The limit of a result of the process `step`, in which rounding grows from frame to frame; None: as in others.

    Averages may be as far from the recorded float32 numbers as the reference's own run in float64 is (meta.json).
    """
    if name.startswith("after.step."):
        return 2e-4 * max(1.0, scale)
    if name.startswith("step.avg."):
        return max(1e-5, 1.1 * meta["float64_difference"].get("step.avg", {}).get("max_abs", 0.0))
    if re.match(r"step\.\d+\.out\.", name):
        return 1e-2
    if re.match(r"step\.\d+\.loss\.", name) and not name.startswith("step.0.loss.dis."):
        return 1e-3 * scale + 1e-4
    return None
