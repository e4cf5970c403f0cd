"""README.md of a bundle: the model card, with the header that the Hub reads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from imagier.train.card import Card

_FORMATS = {
    "onnx": "any program, browser or phone",
    "onnx_fp16": "half the size",
    "onnx_int8": "a quarter of the size",
    "pt2": "torch without Imagier",
    "safetensors": "Imagier; the weights alone",
}
"""What each file is for."""


def write_card(facts: Mapping[str, Any], card: Card | None, *, has_credits: bool = False) -> str:
    """The text of README.md. facts: of bundle.json. has_credits: the bundle holds those of the data."""
    size = " x ".join(map(str, facts["image_size"]))
    head = [
        "---",
        yaml.safe_dump(_header(facts), sort_keys=False).strip(),
        "---",
        "",
        f"# {facts['name']}",
        "",
        f"A generator of the method **{facts['method']}**, trained with Imagier at {size} px"
        f" ({facts['iteration']:,} iterations, {_WEIGHTS[facts['weights']]}).",
        "",
    ]
    parts = [_show_samples(facts), _show_inputs(facts), _show_use(facts), _show_files(facts), _show_scores(card)]
    return (
        "\n".join([*head, *(line for part in parts for line in part), *_show_license(facts, has_credits=has_credits)])
        + "\n"
    )


_WEIGHTS = {"average": "averaged weights", "regular": "weights in training"}


def _header(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "license": facts["license"]["weights"] or "unknown",
        "library_name": "imagier",
        "pipeline_tag": "image-to-image",
        "tags": ["gan", facts["method"].lower(), *(["onnx"] if "onnx" in facts["files"] else [])],
    }


def _show_samples(facts: Mapping[str, Any]) -> list[str]:
    rows = [sample for sample in facts["samples"] if sample["input"]]
    if not rows:
        return []
    has_style = any(sample["style"] for sample in rows)
    names = ["input", *(["style"] if has_style else []), "output"]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for sample in rows:
        lines.append(f"| {' | '.join(f'![{name}]({sample[name]})' for name in names)} |")
    return ["## Samples", "", "Of the held-out set.", "", *lines, ""]


def _show_inputs(facts: Mapping[str, Any]) -> list[str]:
    lines = ["## Inputs and output", "", "All tensors are float32. `bundle.json` says the same for programs.", ""]
    for entry in facts["inputs"]:
        lines.append(f"* `{entry['name']}`, {_format_shape(entry['shape'])}: {_tell_input(entry)}")
    (output,) = facts["outputs"]
    lines.append(
        f"* The result, `{output['name']}`, {_format_shape(output['shape'])}: pixels are "
        "`(x + 1) / 2 * 255`, rounded and clipped."
    )
    size = _format_shape(facts["image_size"])
    sides = f"multiples of {facts['size_multiple']}" if facts["size_multiple"] > 1 else "any"
    return [*lines, f"* Heights and widths: {sides}. The samples have {size} px.", ""]


def _format_shape(shape: list[Any]) -> str:
    return " x ".join(map(str, shape))


def _tell_label(entry: Mapping[str, Any]) -> str:
    parts = []
    for part in entry["parts"]:
        channels = f"{part['channels']} channel{'s' if part['channels'] != 1 else ''}"
        if part["kind"] == "classes":
            names = ", ".join(each["name"] for each in part["classes"])
            last = "; the last one for all other ids" if part["ignored"] != "none" else ""
            parts.append(f"{part['type']}: {channels}, 1 where a pixel is of that class, else 0 ({names}{last})")
        elif part["kind"] == "instance_edges":
            parts.append(
                f"{part['type']}: {channels}, 1 where a pixel belongs to another object than a neighbor, else 0"
            )
        elif part["kind"] == "image":
            parts.append(f"{part['type']}: {channels}, {_tell_values(part)}")
        else:
            parts.append(f"{part['type']}: {channels}, as Imagier makes them")
    return "; then ".join(parts) + "."


def _tell_values(of: Mapping[str, Any]) -> str:
    return f"pixels{_scale(of) or ' as they are'}"


_INPUTS = {
    "label": _tell_label,
    "image": lambda entry: f"{entry['type']}, {_tell_values(entry)}.",
    "style_image": lambda entry: f"an image whose style is wanted ({entry['type']}), {_tell_values(entry)}.",
    "noise": lambda entry: "a style code: random numbers from a standard normal distribution.",
    "features": lambda entry: (
        "a vector for each object, the same at all of its pixels; `choices` in `bundle.json` has some for each class."
    ),
    "attributes": lambda entry: "numbers that describe the sample.",
}


def _tell_input(entry: Mapping[str, Any]) -> str:
    tell = _INPUTS.get(entry["role"])
    return "as Imagier makes it." if tell is None else tell(entry)


def _show_use(facts: Mapping[str, Any]) -> list[str]:
    lines = ["## Use", ""]
    if "onnx" in facts["files"]:
        code = ["import numpy as np", "import onnxruntime", "from PIL import Image", "", *load_inputs(facts)]
        feed = ", ".join(f'"{entry["name"]}": {entry["name"]}' for entry in facts["inputs"])
        code += [
            f'session = onnxruntime.InferenceSession("{facts["files"]["onnx"]["path"]}")',
            f"(images,) = session.run(None, {{{feed}}})",
            "pixels = ((images[0].transpose(1, 2, 0) + 1) / 2 * 255).round().clip(0, 255).astype(np.uint8)",
            'Image.fromarray(pixels.squeeze()).save("output.png")',
        ]
        lines += ["With ONNX Runtime (`pip install onnxruntime numpy Pillow`), in this folder:", "", "```python", *code]
        lines += ["```", ""]
    if "safetensors" in facts["files"] and (given := _name_files(facts)):
        inputs = ", ".join(f'"{name}": "{path}"' for name, path in given.items())
        code = ["import imagier", "", 'generator = imagier.load_generator(".")']
        code += [f'generator({{{inputs}}}).save("output.png")']
        lines += ["With Imagier, which also resizes:", "", "```python", *code, "```", ""]
    return lines


def _name_files(facts: Mapping[str, Any]) -> dict[str, str]:
    """The files of the first sample, by input type; empty if it lacks some."""
    sample = facts["samples"][0]
    wanted = [part["type"] for entry in facts["inputs"] for part in entry.get("parts", [])]
    style = next((entry["type"] for entry in facts["inputs"] if entry["role"] == "style_image"), None)
    files = {**sample["inputs"], **({style: sample["style"]} if style and sample["style"] else {})}
    return files if files and all(name in files for name in wanted) else {}


def load_inputs(facts: Mapping[str, Any]) -> list[str]:
    """Lines of Python that make the inputs of the first sample."""
    sample, lines = facts["samples"][0], []
    height, width = facts["image_size"]
    for entry in facts["inputs"]:
        name = entry["name"]
        if entry["role"] == "label":
            lines += _load_label(entry, sample, height, width)
        elif entry["role"] in ("image", "style_image"):
            path = sample["style"] if entry["role"] == "style_image" else sample["input"]
            mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(entry["shape"][1], "RGB")
            scale = _scale(entry)
            lines.append(f'{name} = np.float32(Image.open("{path}").convert("{mode}")){scale}')
            lines.append(f"{name} = {name}.reshape({name}.shape[0], {name}.shape[1], -1).transpose(2, 0, 1)[None]")
        elif entry["role"] == "noise":
            lines.append(f"{name} = np.random.default_rng(0).standard_normal((1, {entry['shape'][1]}), np.float32)")
        else:
            shape = ", ".join(
                map(str, [1, *({"height": height, "width": width}.get(x, x) for x in entry["shape"][1:])])
            )
            lines.append(f"{name} = np.zeros(({shape}), np.float32)  # see bundle.json")
    return lines


def _load_label(entry: Mapping[str, Any], sample: Mapping[str, Any], height: int, width: int) -> list[str]:
    lines, names = [], []
    for part in entry["parts"]:
        name, path, channels = re.sub(r"\W", "_", part["type"]), sample["inputs"].get(part["type"]), part["channels"]
        names.append(name)
        if path is None or part["kind"] == "other":
            lines.append(f"{name} = np.zeros(({channels}, {height}, {width}), np.float32)  # as Imagier makes it")
        elif part["kind"] == "instance_edges":
            lines.append(f'ids = np.array(Image.open("{path}")).astype(int)')
            lines.append('wide = np.pad(ids, 1, mode="edge")')
            around = ("[:-2, 1:-1]", "[2:, 1:-1]", "[1:-1, :-2]", "[1:-1, 2:]")
            differs = " | ".join(f"(wide{neighbor} != ids)" for neighbor in around)
            lines.append(f"{name} = np.float32({differs})[None]")
        elif part["kind"] == "classes":
            lines.append(f'ids = np.array(Image.open("{path}"))')
            largest = [part[key] for key in ("largest_id",) if key in part]
            largest += [channels - 1] if part["ignored"] != "none" else []
            ids = f"ids.clip(max={min(largest)})" if largest else "ids"
            lines.append(f"{name} = np.float32({ids} == np.arange({channels})[:, None, None])")
        else:
            lines.append(f'{name} = np.float32(Image.open("{path}")){_scale(part)}')
            lines.append(f"{name} = {name}.reshape(*{name}.shape[:2], -1).transpose(2, 0, 1)")
    return [*lines, f"label = np.concatenate([{', '.join(names)}])[None]"]


def _scale(of: Mapping[str, Any]) -> str:
    """How stored values become those of a tensor."""
    if "divisor" in of:  # it is 1
        return "" if of["range"] == [0, 1] else " * 2 - 1"
    return " / 255" if of["range"] == [0, 1] else " / 127.5 - 1"


def _show_files(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Files",
        "",
        "| file | for | size | seconds an image | largest difference from torch |",
        "|---|---|---|---|---|",
    ]
    for kind, of in facts["files"].items():
        seconds = f"{of['seconds']:.3g}" if "seconds" in of else ""
        difference = f"{of['max_difference']:.1e}" if "max_difference" in of else ""
        if "max_difference_255" in of:
            psnr = "no difference" if of["psnr_db"] is None else f"PSNR {of['psnr_db']:.1f} dB"
            difference = f"{of['max_difference_255']} of 255 (mean {of['mean_difference_255']}; {psnr})"
        mb = f"{of['bytes'] / 1e6:.2f} MB"
        lines.append(f"| `{of['path']}` | {_FORMATS[kind]} | {mb} | {seconds} | {difference} |")
    return [*lines, "", f"torch itself took {facts['torch_seconds']:.3g} s on the same machine.", ""]


def _show_scores(card: Card | None) -> list[str]:
    if card is None:
        return []
    lines = ["## Scores", "", "On the held-out set, by `imagier evaluate`.", "", "| score | value | 95 % | better |"]
    lines += ["|---|---|---|---|"]
    for name, value in card.values.items():
        low, high = card.intervals.get(name, (math.nan, math.nan))
        interval = "" if math.isnan(low + high) else f"{low:.4g} to {high:.4g}"
        better = {True: "higher", False: "lower"}.get(card.higher_is_better.get(name), "")  # type: ignore[arg-type]
        lines.append(f"| {name} | {value:.4g} | {interval} | {better} |")
    return [*lines, "", f"Protocol {card.protocol_hash}: numbers of another one cannot be compared with these.", ""]


def _show_license(facts: Mapping[str, Any], *, has_credits: bool) -> list[str]:
    known = facts["license"]
    source = f", from {known['data_source']}" if known["data_source"] else ""
    credits = " [CREDITS.txt](CREDITS.txt) says who made them." if has_credits else ""
    return [
        "## License",
        "",
        f"* Weights: {known['weights'] or 'unknown: ask who trained them'}.",
        f"* Data: {known['data'] or 'unknown'}{source}.{credits}",
    ]
