"""A trained generator as a bundle: files that run without Imagier, checked against the network, with a model card."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.plain import make_plain
from imagier.recipe import InferenceInputs, Recipe
from imagier.run.about import find_version
from imagier.run.bundle import facts, graphs, hub, parity, small
from imagier.run.bundle.graphs import Graph
from imagier.run.bundle.model_card import write_card
from imagier.run.bundle.samples import SampleReader, Samples, write_sample_images
from imagier.run.bundle.weights import load_network, write_network
from imagier.run.experiment import CONFIG, ConfigSource, Experiment
from imagier.run.inference import collect_arguments, find_types, read_experiment_of_run
from imagier.run.options import STYLE_SEED, RunOptions
from imagier.run.output_folder import replace_folder
from imagier.run.process import open_runtime
from imagier.run.weights import Weights, load_weighted_recipe, load_weights
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.weight_file import NAME, find_weights

logger = logging.getLogger(__name__)

FORMATS = ("onnx", "pt2", "safetensors")
BUNDLE = "bundle.json"

_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ("safetensors",)}
"""The packages that each format needs."""

Style = Literal["code", "image"]


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What a bundle should hold."""

    formats: Sequence[str] = FORMATS
    fp16: bool = False
    """Also an ONNX file that computes in float16."""
    int8: bool = False
    """Also an ONNX file that computes in int8."""
    style: Style | None = None
    """Where the style comes from, in a method that can take it from both; None: a code."""
    license: str | None = None
    """Of the weights, as the Hub calls it ("cc-by-sa-4.0"); None: unknown."""

    def check(self) -> None:
        """UserError: a format is not known, or a package is missing, or a smaller ONNX file is wanted without one."""
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            what = f"is {unknown[0]!r}" if unknown else "is empty"
            raise UserError(what, where="format", advice=f"choose some of {', '.join(FORMATS)}", code="wrong-format")
        for name, is_wanted in (("fp16", self.fp16), ("int8", self.int8)):
            if is_wanted and "onnx" not in self.formats:
                raise UserError("is made of the ONNX file", where=name, advice="add the format onnx", code="no-onnx")
        for package in (package for name in self.formats for package in _NEEDED[name]):
            if importlib.util.find_spec(package) is None:
                advice = "run: pip install 'imagier[export]'"
                raise UserError("is not installed", where=f"package {package}", advice=advice, code="not-installed")


def export(
    logdir_or_checkpoint: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = FORMATS,
    fp16: bool = False,
    int8: bool = False,
    style: Style | None = None,
    license: str | None = None,
    config: ConfigSource | None = None,
    push: str | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the generator of a run, a checkpoint or a bundle into the folder `out`; returns its bundle.json.

    The weights are the averaged ones, if there are any. Every file is read again and compared with the network on
    samples of the held-out set: one and three of them, of two sizes.

    formats: onnx (any runtime), pt2 (torch.export), safetensors (weights, which Imagier reads). fp16, int8: also ONNX
    files that are smaller, with what that costs. style: of a method that takes it from either, code (random numbers,
    the default) or image. license: of the weights, as the Hub calls it. config: only for a checkpoint without a
    config.yaml beside it. push: USER/NAME on the Hub, where the bundle is uploaded to when it is written. overrides:
    "section.key=value" each (`inference_args.a2b=false`).

    A bundle that is there already is replaced; other files beside it stay. UserError if the method has no such form,
    if data or packages are missing, if a file does not make the same images, or if `out` holds anything but a bundle;
    then nothing is written.
    """
    request = ExportRequest(formats=formats, fp16=fp16, int8=int8, style=style, license=license)
    request.check()
    if push is not None:
        hub.check_can_push(push)
    path, out = hub.find_local(logdir_or_checkpoint), Path(out)
    path = find_weights(path) or path
    is_folder = path.is_dir()
    if (path / BUNDLE).is_file():
        what, advice = f"is a bundle without {NAME}", "export the run again, with the format safetensors"
        raise UserError(what, where=path, advice=advice, code="no-weights")
    options = RunOptions(
        logdir=path if is_folder else None, checkpoint=None if is_folder else path, device="cpu", single_process=True
    )
    _check_target(out)
    with replace_folder(out, [pattern.removesuffix("/*") for pattern in hub.PUSHED]) as folder:
        experiment, options = read_experiment_of_run(config, options, overrides)
        _refuse_clips(experiment)
        with open_runtime(options) as runtime:
            experiment.log_notes()
            found = load_weights(experiment, options)
            recipe, weights = load_weighted_recipe(experiment.config, found, runtime)
            runtime.seed(STYLE_SEED)
            content = _Exporter(experiment, found, recipe, weights, request, folder).write()
    if push is not None:
        logger.info(hub.push(out, push))
    return content


def _check_target(out: Path) -> None:
    if out.exists() and not (out / BUNDLE).is_file() and (not out.is_dir() or any(out.iterdir())):
        what = "exists, and is no bundle"
        raise UserError(what, where=f"out {out}", advice="name another folder", code="folder-in-the-way")


def _refuse_clips(experiment: Experiment) -> None:
    if experiment.config.recipe.cls.is_video:
        what = "makes clips, each frame from those before it, so it has no network that makes one image of one input"
        advice = "use it from Python: load_generator(...).rollout(...)"
        raise UserError(what, where=experiment.config.trainer.type, advice=advice, code="no-export")


class _Exporter:
    """Writes the files of a bundle into an empty folder."""

    def __init__(
        self,
        experiment: Experiment,
        found: FoundCheckpoint,
        recipe: Recipe,
        weights: Weights,
        request: ExportRequest,
        folder: Path,
    ) -> None:
        self.experiment, self.config, self.found = experiment, experiment.config, found
        self.weights, self.request, self.folder = weights, request, folder
        self.trained = recipe.networks[recipe.generator_name]
        self.recipe = recipe.with_networks(**{recipe.generator_name: make_plain(self.trained)})
        self.arguments, self.needs = _choose_style(self.recipe, experiment, request.style)
        self.reader = SampleReader(self.config, self.recipe)
        self.samples = self.reader.read_some()
        self.files: dict[str, dict[str, Any]] = {}

    @torch.no_grad()
    def write(self) -> dict[str, Any]:
        """Everything; returns what bundle.json says."""
        samples = self.samples
        graph = self._make_graph(self.recipe, samples)
        images = graph.run(graph.inputs)
        if not images.isfinite().all():
            what, advice = "makes images that are not finite", "take an earlier checkpoint"
            raise UserError(what, where=self.found.path, advice=advice, code="not-finite")
        for name in self.request.formats:
            self._write_format(name, graph)
        if self.request.fp16:
            self._write_small("onnx_fp16", "generator.fp16.onnx", graph)
        if self.request.int8:
            self._write_small("onnx_int8", "generator.int8.onnx", graph, self._list_calibration(samples))
        types = find_types(self.reader.data, self.needs.content)
        has_style = graphs.STYLE_IMAGES in graph.inputs and self.needs.style is not None
        style = find_types(self.reader.data, [self.needs.style or ""])[0] if has_style else None
        shown = parity.to_pixels(images)
        noise = graph.inputs.get(facts.NOISE)
        listed = write_sample_images(self.folder / "samples", samples, types, style, shown, noise)
        return self._write_texts(graph, images, listed)

    def _make_graph(self, recipe: Recipe, samples: Samples) -> Graph:
        rng = torch.Generator().manual_seed(STYLE_SEED)
        exported = recipe.export_network(samples.ready, rng, **self.arguments)
        if exported is None:
            what = "has no export_network, which says how to call its generator with tensors alone"
            advice = "write that method (see docs/export.md)"
            raise UserError(what, where=self.config.trainer.type, advice=advice, code="no-export")
        network, inputs = exported
        return Graph(network.eval(), _as_float32(inputs), self.recipe.size_multiple)

    def _write_format(self, name: str, graph: Graph) -> None:
        path = self.folder / f"generator.{name}"
        logger.info(f"{path.name}: being made")
        write, read = {
            "onnx": (graph.write_onnx, parity.open_onnx),
            "pt2": (graph.write_pt2, parity.open_pt2),
            "safetensors": (self._write_weights, self._open_weights),
        }[name]
        write(path)
        run = read(path)
        difference = parity.check_parity(run, graph, path)
        seconds = {} if name == "safetensors" else {"seconds": parity.measure_seconds(run, graph)}  # those of torch
        self._note(name, path, max_difference=difference, **seconds)

    def _open_weights(self, path: Path) -> parity.Run:
        """As who reads the file has them: in a network of its constructor."""
        recipe = self.recipe.with_networks(**{self.recipe.generator_name: make_plain(load_network(path))})
        return self._make_graph(recipe, self.samples).run

    def _write_weights(self, path: Path) -> None:
        state = self.found.state
        iteration, epoch = int(state.get("current_iteration", 0)), int(state.get("current_epoch", 0))
        write_network(path, self.trained, self.config, self.weights, iteration=iteration, epoch=epoch)

    def _write_small(
        self, name: str, file: str, graph: Graph, calibration: Sequence[Mapping[str, Tensor]] = ()
    ) -> None:
        source, path = self.folder / "generator.onnx", self.folder / file
        logger.info(f"{path.name}: being made")
        if calibration:
            small.write_int8(source, path, calibration)
        else:
            small.write_fp16(source, path)
        run = parity.open_onnx(path)
        for inputs in parity.list_cases(graph):
            run(inputs)  # any number and any size
        self._note(name, path, **parity.measure_loss(run, graph), seconds=parity.measure_seconds(run, graph))

    def _list_calibration(self, samples: Samples) -> list[dict[str, Tensor]]:
        rng = torch.Generator().manual_seed(STYLE_SEED)
        found = []
        for each in self.reader.read_others(samples):
            exported = self.recipe.export_network(each.ready, rng, **self.arguments)
            assert exported is not None  # it was not before
            found.append(_as_float32(exported[1]))
        return found

    def _note(self, name: str, path: Path, **measured: Any) -> None:
        self.files[name] = {"path": path.name, "bytes": path.stat().st_size, **measured}

    def _write_texts(self, graph: Graph, images: Tensor, samples: list[dict[str, object]]) -> dict[str, Any]:
        iteration = int(self.found.state.get("current_iteration", 0))
        logdir = self.found.path.parent
        card = facts.find_card(logdir, iteration, self.weights)
        known = facts.find_license(self.config.run.data)
        credits = known.pop("credits")
        content = {
            "imagier_bundle": 1,
            "imagier_version": find_version("imagier"),
            "name": facts.name_bundle(self.config, logdir),
            "method": self.config.trainer.type,
            "iteration": iteration,
            "weights": self.weights,
            "image_size": list(images.shape[-2:]),
            "size_multiple": graph.multiple,
            "has_dynamic_size": True,
            "has_dynamic_batch": True,
            "inputs": facts.describe_inputs(
                graph.inputs, self.samples.stored, self.reader.data, self.recipe, self.needs, graph.network
            ),
            "outputs": [facts.describe_output(images)],
            "files": self.files,
            "torch_seconds": parity.measure_seconds(graph.run, graph),
            "metrics": {} if card is None else dict(card.values),
            "license": {"weights": self.request.license, **known},
            "samples": samples,
        }
        (self.folder / BUNDLE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (self.folder / CONFIG).write_text(self.config.dump(), encoding="utf-8")
        if credits is not None:
            (self.folder / facts.CREDITS).write_text(credits, encoding="utf-8")
        text = write_card(content, card, has_credits=credits is not None)
        (self.folder / "README.md").write_text(text, encoding="utf-8")
        return content


def _choose_style(
    recipe: Recipe, experiment: Experiment, style: Style | None
) -> tuple[dict[str, Any], InferenceInputs]:
    """The arguments of `infer` for the style that is wanted, and what is needed with them."""
    arguments = collect_arguments(recipe, experiment.config, STYLE_SEED)
    needs = recipe.inference_inputs(**arguments)
    if style == "code" and needs.at_random is None:
        what = f"{experiment.config.trainer.type}, as it is set up here, has no code for a style"
        raise UserError(what, where="style", advice="leave it out", code="no-styles")
    if style == "image" and needs.style is None:
        what = f"{experiment.config.trainer.type}, as it is set up here, takes no style from an image"
        raise UserError(what, where="style", advice="leave it out", code="no-styles")
    chosen = needs.from_images if style == "image" or needs.at_random is None else needs.at_random
    return {**arguments, **chosen}, needs


def _as_float32(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().float().contiguous() for name, x in inputs.items()}
