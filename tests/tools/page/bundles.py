"""Small bundles for the page: a network of one convolution, as ONNX and, independently, in torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from images import noise, png, smooth, write
from torch import Tensor

HEIGHT, WIDTH, CODE = 48, 64, 6
CLASSES = [
    {"id": 0, "name": "sky", "color": [70, 130, 180]},
    {"id": 1, "name": "tree", "color": [107, 142, 35]},
    {"id": 2, "name": None, "color": [128, 64, 128]},
    {"id": 7, "name": "a very long name of a class", "color": [220, 20, 60]},
]

LINES = {"type": "edge_maps", "kind": "image", "channels": 1, "range": [0, 1]}
IMAGE_PART = {"type": "colors", "kind": "image", "channels": 3, "range": [-1, 1]}
MAP = {"type": "seg_maps", "kind": "classes", "channels": 5, "classes": CLASSES, "ignored": "last channel"}
IMAGE = {"name": "images", "role": "image", "shape": ["batch", 3, "height", "width"], "range": [-1, 1]}
STYLE = {
    "name": "style_images",
    "role": "style_image",
    "shape": ["batch", 3, "style_height", "style_width"],
    "range": [-1, 1],
}
NOISE = {"name": "noise", "role": "noise", "shape": ["batch", CODE], "distribution": "normal"}


def label_input(*parts: dict[str, Any]) -> dict[str, Any]:
    """An input of role "label"."""
    channels = sum(part["channels"] for part in parts)
    shape = ["batch", channels, "height", "width"]
    return {"name": "label", "role": "label", "shape": shape, "parts": list(parts)}


@dataclass
class Network:
    """tanh of a convolution of the first input, plus a product with a code, plus the mean color of a style image."""

    inputs: list[dict[str, Any]]
    weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        channels = self.inputs[0]["shape"][1]
        shapes = {"kernel": (3, channels, 3, 3), "code": (CODE, 3), "bias": (3,)}
        self.weights = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}

    def __call__(self, feeds: dict[str, Tensor]) -> Tensor:
        """Images N x 3 x H x W in [-1, 1], computed by torch."""
        first = feeds[self.inputs[0]["name"]]
        result = F.conv2d(first, self.weights["kernel"], self.weights["bias"], padding=1)
        if "noise" in feeds:
            result = result + (feeds["noise"] @ self.weights["code"])[..., None, None]
        if "style_images" in feeds:
            result = result + feeds["style_images"].mean((2, 3), keepdim=True)
        return torch.tanh(result)

    def write_onnx(self, path: Path) -> None:
        """The same as a graph."""
        from onnx import TensorProto, checker, helper, numpy_helper, save

        names = [each["name"] for each in self.inputs]
        nodes = [helper.make_node("Conv", [names[0], "kernel", "bias"], ["a"], pads=[1, 1, 1, 1])]
        last = "a"
        constants = {name: weight.numpy() for name, weight in self.weights.items()}
        if "noise" in names:
            constants["axes"] = np.array([2, 3])
            nodes += [
                helper.make_node("MatMul", ["noise", "code"], ["b"]),
                helper.make_node("Unsqueeze", ["b", "axes"], ["c"]),
                helper.make_node("Add", [last, "c"], ["d"]),
            ]
            last = "d"
        if "style_images" in names:
            nodes += [
                helper.make_node("GlobalAveragePool", ["style_images"], ["e"]),
                helper.make_node("Add", [last, "e"], ["f"]),
            ]
            last = "f"
        nodes.append(helper.make_node("Tanh", [last], ["fake_images"]))
        values = [helper.make_tensor_value_info(each["name"], TensorProto.FLOAT, each["shape"]) for each in self.inputs]
        out = helper.make_tensor_value_info("fake_images", TensorProto.FLOAT, ["batch", 3, "height", "width"])
        used = {name for node in nodes for name in node.input}
        stored = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
        graph = helper.make_graph(nodes, "tiny", values, [out], stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        checker.check_model(model)
        save(model, str(path))


def make_bundle(folder: Path, *inputs: dict[str, Any], has_network: bool = True, samples: int = 2) -> Network:
    """Writes a bundle with these inputs; returns its network."""
    network = Network(list(inputs))
    path = write(folder / "generator.onnx", b"no network")
    if has_network:
        network.write_onnx(path)
    facts = {
        "imagier_bundle": 1,
        "imagier_version": "0.1",
        "name": "tiny",
        "method": "spade",
        "iteration": 1150,
        "image_size": [HEIGHT, WIDTH],
        "size_multiple": 8,
        "has_dynamic_size": True,
        "has_dynamic_batch": True,
        "inputs": list(inputs),
        "outputs": [
            {"name": "fake_images", "shape": ["batch", 3, "height", "width"], "range": [-1, 1]},
        ],
        "files": {"onnx": {"path": "generator.onnx", "bytes": path.stat().st_size}},
        "license": {"weights": None, "data": "CC0", "data_source": "drawn by a test"},
        "samples": [_write_sample(folder, index, inputs) for index in range(samples)],
    }
    (folder / "bundle.json").write_text(json.dumps(facts))
    return network


def _write_sample(folder: Path, index: int, inputs: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    first = inputs[0]
    parts = first.get("parts", [{"channels": first["shape"][1], **first}])
    files = {}
    for part in parts:
        name = f"samples/{index}.{part.get('type', 'images')}.input.png"
        write(folder / name, png(_draw_input(part, index)))
        files[part.get("type", "images")] = name
    style = f"samples/{index}.style.png" if any(each["role"] == "style_image" for each in inputs) else None
    if style:
        write(folder / style, png(smooth(HEIGHT, WIDTH, seed=90 + index)))
    output = f"samples/{index}.output.png"
    write(folder / output, png(smooth(HEIGHT, WIDTH, seed=index)))
    code = {"noise": [0.5 - index, *[0.3] * (CODE - 1)]} if NOISE in inputs else {}
    return {"input": next(iter(files.values())), "inputs": files, "style": style, "output": output, **code}


def _draw_input(part: dict[str, Any], index: int) -> np.ndarray:
    """H x W x C as stored: class ids with one that is none, lines on white, or an image."""
    if part.get("kind") == "classes":
        image = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
        image[30:], image[10:20, 10:30], image[:4, :4] = 1, 7, 255
        return np.roll(image, index * 20, axis=1)
    if part.get("channels") == 1:
        image = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
        image[10 + index : 40, 20:22] = noise(30 - index, 2, 1, seed=index)
        return image
    return noise(HEIGHT, WIDTH, 3, seed=index)
