"""Cases as the recorded ones of video methods, with other options: their numbers are our own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from old_checkpoints import config_of, trainer_of
from parity import NETWORKS, names_of
from parity_clips import flow_by_formula
from reference_videos import write_config
from safetensors.torch import save_file
from torch import Tensor

from imagier.nn.warp import warp
from imagier.recipe import Recipe

FRAMES = 3


def write_case(folder: Path, name: str, changes: Sequence[str], *, is_flipped: bool = False) -> Path:
    """The folder of a case without results. name: of a config of reference_videos. changes: "section.key=value"."""
    folder.mkdir()
    tree = yaml.safe_load(write_config(name, "/path/to/nowhere"))
    del tree["trainer"]["perceptual_loss"], tree["trainer"]["loss_weight"]["perceptual"]
    tree["data"].pop("test", None)
    for change in changes:
        path, _, value = change.partition("=")
        *around, key = path.split(".")
        section = tree
        for part in around:
            section = section[part]
        section[key] = yaml.safe_load(value)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    recipe = trainer_of(config_of(folder / "config.yaml")).recipe
    weights = {}
    for player, network in recipe.networks.items():
        names = names_of(network)
        weights |= {f"net_{NETWORKS[player]}.{names[ours]}": x for ours, x in network.state_dict().items()}
    save_file({key: tensor.clone() for key, tensor in weights.items()}, folder / "state.safetensors")
    batch = _draw_batch(recipe, name)
    calls = list(_list_calls(name))
    for number, call in enumerate(calls):
        for kind, tensor in _estimate(batch, call, name).items():
            batch[f"flow.{number}.{kind}"] = tensor
    save_file({key: tensor.contiguous() for key, tensor in batch.items()}, folder / "batch.safetensors")
    save_file({}, folder / "expected.safetensors")
    meta = {"processes": ["eval", "frames", "step"], "frames": FRAMES, "is_flipped": is_flipped, "flow_calls": calls}
    (folder / "meta.json").write_text(json.dumps({**meta, "params_without_grad": {}, "float64_difference": {}}))
    return folder


def _draw_batch(recipe: Recipe, name: str) -> dict[str, Tensor]:
    """What the trainer holds after the start of an iteration."""
    rng = torch.Generator().manual_seed(0)
    height, width = {"street": (48, 64), "world": (48, 64), "few_shot_face": (32, 32)}.get(name, (64, 32))
    channels = sum(recipe.label_lengths.values())  # type: ignore[attr-defined]

    def draw(frames: int) -> tuple[Tensor, Tensor]:
        label = (torch.rand(1, frames, channels, height, width, generator=rng) > 0.5).float()
        if name.endswith("pose"):
            label[:, :, 2] = torch.randint(25, (1, frames, height, width), generator=rng) / 24
            label = label * 2 - 1
        return torch.rand(1, frames, 3, height, width, generator=rng) * 2 - 1, label

    found: dict[str, Tensor] = {}
    found["images"], found["label"] = draw(FRAMES)
    if name.startswith("few_shot"):
        found["few_shot_images"], found["few_shot_label"] = draw(1)
    if name == "world":
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        tables = [torch.stack([row, column, row * 100 + column + t], dim=-1).flatten(0, 1) for t in range(FRAMES)]
        last = torch.full((1, 3), height * width)
        found["unprojections.w64xh48"] = torch.stack([torch.cat([each, last]) for each in tables])[None].int()
    return found


def _list_calls(name: str) -> Any:
    for t in range(FRAMES):
        if name.startswith("few_shot"):
            yield {"call": 2 * t - bool(t), "frame": t, "from": "reference"}
        if t:
            call = 2 * t if name.startswith("few_shot") else t - 1
            yield {"call": call, "frame": t, "from": "previous"}


def _estimate(batch: dict[str, Tensor], call: dict[str, Any], name: str) -> dict[str, Tensor]:
    frame, before = batch["images"][:, call["frame"]], batch["images"][:, call["frame"] - 1]
    if call["from"] == "reference":
        before = batch["few_shot_images"][:, 0]
        if name.endswith("pose"):
            frame, before = batch["label"][:, call["frame"], :3], batch["few_shot_label"][:, 0, :3]
    flow = flow_by_formula(frame, before)
    sure = (frame - warp(before, flow)).square().sum(dim=1, keepdim=True) < 0.02
    return {"flow": flow, "conf": sure.to(torch.uint8)}
