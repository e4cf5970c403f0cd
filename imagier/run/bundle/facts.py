"""What bundle.json says: how inputs are made of files, where the data come from, what is known about the weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagier.config import schema
from imagier.config.check import Config
from imagier.data.codec import Codec
from imagier.errors import UserError
from imagier.nn.colorize import palette
from imagier.nn.instances import Clusters
from imagier.recipe import Batch, InferenceInputs, Recipe
from imagier.run import build_data
from imagier.run.bundle.graphs import OUTPUT, STYLE_IMAGES, name_shape
from imagier.train.card import Card, read_card
from imagier.train.hooks.evaluations import FOLDER

IMAGES, LABEL, NOISE, FEATURES = "images", "label", "noise", "features"
"""Inputs of graphs, beside STYLE_IMAGES."""

_ROLES = {IMAGES: "image", STYLE_IMAGES: "style_image"}
"""What an input is, where that is not its name."""

CREDITS = "CREDITS.txt"
"""The file of a data set that names its license and source, in the folder of a root or around it."""

_LICENSES = (
    r"CC[ -]BY(?:[ -](?:NC[ -]SA|NC[ -]ND|SA|ND|NC))?[ -]\d\.\d",
    r"CC0(?:[ -]1\.0)?",
    r"Apache[ -](?:License,? )?(?:Version )?2\.0",
    r"MIT(?= [Ll]icense)",
    r"BSD[ -][23][ -]Clause",
)
_BSD_TEXT = "Redistribution and use in source and binary forms"


def describe_inputs(
    inputs: Mapping[str, Tensor],
    stored: Batch,
    data: schema.Data,
    recipe: Recipe,
    needs: InferenceInputs,
    network: nn.Module,
) -> list[dict[str, Any]]:
    """The inputs of a graph, in order. stored: samples before they are expanded. needs: what the method reads."""
    codecs = build_data.build_codecs(data)
    found = []
    for name, x in inputs.items():
        entry: dict[str, Any] = {"name": name, "role": _ROLES.get(name, name), "shape": name_shape(name, x.shape)}
        if name == LABEL:
            label = [codec for each in data.input_labels for codec in codecs if codec.batch_name == each]
            names = find_class_names(data)
            entry["parts"] = [describe_part(codec, stored, recipe.instance_inputs, names) for codec in label]
        elif name in (IMAGES, STYLE_IMAGES):
            batch_name = needs.style if name == STYLE_IMAGES else needs.content[0]
            for codec in (codec for codec in codecs if codec.batch_name == batch_name):
                entry |= {"type": codec.name, **_describe_values(codec, stored)}
        elif name == NOISE:
            entry["distribution"] = "normal"
        elif name == FEATURES:
            entry["choices"] = _list_choices(network)
        found.append(entry)
    return found


def describe_output(image: Tensor) -> dict[str, Any]:
    """The output of a graph."""
    return {"name": OUTPUT, "shape": name_shape(OUTPUT, image.shape), "range": [-1, 1]}


def describe_part(
    codec: Codec, stored: Batch, instances: Sequence[str], names: Mapping[int, Sequence[str]]
) -> dict[str, Any]:
    """A part of a label. instances: the input types that hold numbers of instances. names: those of so many classes."""
    part: dict[str, Any] = {"type": codec.name, "channels": codec.channels}
    if codec.name in instances:
        return {**part, "kind": "instance_edges"}
    if not codec.holds_classes or codec.num_classes is None:
        return {**part, "kind": "image" if codec.has_pixels else "other", **_describe_values(codec, stored)}
    count = codec.num_classes
    called = names.get(count, [f"class {i}" for i in range(count)])
    classes = [{"id": i, "name": called[i], "color": color} for i, color in enumerate(palette(count).tolist())]
    ignored = "last channel" if codec.input_type.use_dont_care else "none"
    limit = {} if codec.input_type.dont_care is None else {"largest_id": codec.input_type.dont_care}
    return {**part, "kind": "classes", "classes": classes, "ignored": ignored, **limit}


def _describe_values(codec: Codec, stored: Batch) -> dict[str, Any]:
    """What 0 and `divisor` of a file become: range. Without one, it is 255; files of more bits hold numbers."""
    divisor = {} if codec.name not in stored or stored[codec.name].dtype == torch.uint8 else {"divisor": 1}
    return {"range": [-1, 1] if codec.input_type.normalize else [0, 1], **divisor}


def _list_choices(network: nn.Module) -> list[list[list[float]]]:
    """The features that a checkpoint keeps of objects: for each class some vectors."""
    for module in network.modules():
        if isinstance(module, Clusters):
            return [[[round(value, 6) for value in row] for row in of.tolist() if any(row)] for of in module.buffers()]
    return []


def find_class_names(data: schema.Data) -> dict[int, list[str]]:
    """The names of classes that a JSON file of the data set lists under `classes`, by their number."""
    found: dict[int, list[str]] = {}
    for path in _list_files(data, "*.json"):
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["classes"]
        except (OSError, ValueError, LookupError, TypeError):  # another file, of somebody else
            continue
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found.setdefault(len(names), names)
    return found


def find_license(data: schema.Data) -> dict[str, Any]:
    """The license of the data and their source, as CREDITS says, and its text; None where it does not."""
    path = next(iter(_list_files(data, CREDITS)), None)
    if path is None:
        return {"data": None, "data_source": None, "credits": None}
    text = path.read_text(encoding="utf-8", errors="replace")
    match = next((found for each in _LICENSES if (found := re.search(each, text))), None)
    address = re.search(r"https?://[^\s)>\]]+", text)
    return {
        "data": match[0] if match else "BSD" if _BSD_TEXT in text else None,
        "data_source": address[0].rstrip(".,") if address else None,
        "credits": text,
    }


def _list_files(data: schema.Data, pattern: str) -> list[Path]:
    """Files beside and within the roots of a data section, those of the nearest folder first."""
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    roots = [Path(root) for split in splits for root in split.roots]
    folders = dict.fromkeys([*roots, *(root.parent for root in roots), *(root.parent.parent for root in roots)])
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob(pattern)) if path.is_file()]


def find_card(logdir: Path | None, iteration: int, weights: str) -> Card | None:
    """The newest card of these weights in the folder of a run."""
    cards = []
    for path in sorted((logdir / FOLDER).glob("*.json")) if logdir is not None else ():
        try:
            card = read_card(path)
        except UserError:  # of another version
            continue
        if card.subject.get("iteration") == iteration and card.subject.get("weights") == weights:
            cards.append(card)
    return max(cards, key=lambda card: card.made_by.get("date", ""), default=None)


def name_bundle(config: Config, folder: Path) -> str:
    """The name of the data set, or else that of the folder of the run."""
    default = schema.Data.__dataclass_fields__["name"].default
    name = config.run.data.name
    return name if name != default else folder.resolve().name
