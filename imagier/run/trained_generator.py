"""A trained generator in Python: inputs in, an image out."""

from __future__ import annotations

import inspect
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from imagier.config.check import KEEP_SIZE, Config
from imagier.config.constructor import list_options
from imagier.config.find import did_you_mean
from imagier.errors import UserError
from imagier.recipe import FEW_SHOT, Batch, InferenceInputs, Recipe, State
from imagier.run.bundle.hub import find_local
from imagier.run.experiment import CONFIG, ConfigSource, read_experiment
from imagier.run.fine_tuning import fine_tune
from imagier.run.inference import (
    Painted,
    collect_arguments,
    infer_alone,
    should_bring_back,
    to_pixels,
)
from imagier.run.memory_source import Input
from imagier.run.options import STYLE_SEED, RunOptions, check_seed
from imagier.run.paths import no_such_path
from imagier.run.sample_reader import SampleReader
from imagier.run.sizes import (
    get_size,
    get_stored_size,
    pad_to_multiple,
    resize,
)
from imagier.run.tiled_painting import PaintedRows, TiledSample, TilePainter, check_can_tile
from imagier.run.tiles import Tiling
from imagier.run.weights import load_recipe, load_weights
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.clips import roll_out
from imagier.train.runtime import Runtime
from imagier.train.weight_file import find_weights


def load_generator(
    logdir_or_checkpoint: str | Path, *, device: str = "cpu", config: ConfigSource | None = None
) -> TrainedGenerator:
    """The generator of a run, of one of its checkpoints or of a bundle, with averaged weights if any, in eval mode.

        generator = imagier.load_generator("logs/openmoji64")
        image = generator({"edge_maps": "drawing.png"})
        image.save("emoji.png")

    logdir_or_checkpoint: also a bundle, or hub:USER/NAME, one on the Hub. device: cpu, cuda, mps, or auto. config: only
    for a checkpoint without a config.yaml beside it, as those of the reference. UserError if there is no checkpoint, or
    if it does not fit the config.
    """
    path = find_local(logdir_or_checkpoint)
    if not path.exists():
        raise no_such_path(path, "no such folder or checkpoint", code="missing-checkpoint")
    logdir, weights = (path, find_weights(path)) if path.is_dir() else (path.parent, path)
    options = RunOptions(logdir=logdir, checkpoint=weights)
    if config is None and not (logdir / CONFIG).is_file():
        raise UserError(
            f"has no {CONFIG}, which says what the generator is made of",
            where=logdir,
            advice="name the config (config=...)",
            code="missing-config",
        )
    experiment = read_experiment(config, options)
    runtime = runtimes.start(device, single=True, local_rank=None)
    try:
        with runtimes.restore_torch_state(runtime):
            found = load_weights(experiment, options)
            recipe = load_recipe(experiment.config, found, runtime)
    finally:
        runtimes.stop(runtime)
    return TrainedGenerator(experiment.config, recipe, runtime, found.path)


class TrainedGenerator:
    """A generator with the weights of a checkpoint. `load_generator` makes it."""

    def __init__(self, config: Config, recipe: Recipe, runtime: Runtime, weights: Path | None = None) -> None:
        """recipe: in eval mode, on the device of the runtime. weights: the checkpoint, for a method that is tuned."""
        self.config = config
        self._recipe = recipe
        self._runtime = runtime
        self._weights = weights
        self.reader = SampleReader(config, runtime.device)

    @property
    def network(self) -> nn.Module:
        """The network itself, in eval mode, for those who want to call it on tensors of their own."""
        return self._recipe.networks[self._recipe.generator_name]

    @property
    def recipe(self) -> Recipe:
        """The method, with its networks in eval mode."""
        return self._recipe

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs of the config. A method may need only some of them to make an image."""
        return self.reader.input_names

    def __call__(
        self, inputs: Mapping[str, Input], *, seed: int = STYLE_SEED, full_size: bool = False, **arguments: Any
    ) -> Image.Image:
        """An RGB image made of one sample, of the size of its input.

        It is painted at the scale of the test set (the first resize of its augmentations; nothing is cropped or
        mirrored) and brought to the size of the input, unless `keep_original_size=False`. full_size: paint at the size
        of the input, whatever the network was trained on.

        inputs: by the name of the input type: the path of a file, an array H x W or H x W x C, a tensor C x H x W, or a
        PIL image. Arrays and tensors hold whole numbers (8 or 16 bits; ids of classes in label maps), or, for images,
        floats from 0 to 1. seed: of a random style, which is taken where none is given. arguments: of the method's
        `infer`, on top of `inference_args` of the config (`random_style=True`, `a2b=False`).

        UserError if an input is missing, or is not what the config says, or if the method has no such argument.
        """
        check_seed(seed)
        self._check_arguments(arguments)
        arguments = {**collect_arguments(self._recipe, self.config, seed), **arguments}
        image, _, _ = self.paint(inputs, (seed,), arguments, full_size=full_size)
        return Image.fromarray(to_pixels(image))

    def rollout(
        self,
        frames: Iterable[Mapping[str, Input]],
        *,
        references: Sequence[Mapping[str, Input]] = (),
        seed: int = STYLE_SEED,
        **arguments: Any,
    ) -> Iterator[Image.Image]:
        """RGB images of the frames of a clip, in order, each made when it is asked for. For methods that make clips.

        They are resized and cropped as those of the test set, but nothing else is cut out of them.

        frames: the inputs of each, as of a call. references: those of the frames for reference, of a method that wants
        some. seed: of all that is random. arguments: of the method's `infer`, on top of `inference_args` of the config.

        UserError as of a call; also if the method makes no clips, or wants references.
        """
        check_seed(seed)
        self._check_arguments(arguments)
        if not self._recipe.is_video:
            what, advice = "makes no clips", "call the generator on one image after the other"
            raise UserError(what, where=self.config.trainer.type, advice=advice, code="no-videos")
        return self._roll_out(frames, references, seed, collect_arguments(self._recipe, self.config, seed) | arguments)

    def _roll_out(
        self,
        frames: Iterable[Mapping[str, Input]],
        references: Sequence[Mapping[str, Input]],
        seed: int,
        arguments: Mapping[str, Any],
    ) -> Iterator[Image.Image]:
        types = self.reader.find_types(self._recipe.inference_inputs(**arguments).content)
        known = _join_references([self.reader.read_frame(each, list(each)) for each in references])
        waiting, numbers = deque[Batch](), itertools.count()
        clip: Iterator[tuple[Batch, dict[str, Tensor], State]] | None = None
        for inputs in frames:
            with self._compute():
                stored = self.reader.read_frame(inputs, types)
                waiting.append(self._prepare_frame(stored.replace(**known)))
                if clip is None:
                    recipe = self._fine_tune(waiting[0], seed, arguments)
                    ready = iter(waiting.popleft, None)
                    clip = roll_out(recipe, ready, lambda frame: (seed, next(numbers)), self._runtime)
                _, outputs, _ = next(clip)
            image, size = self._recipe.visualize_frame(outputs)["fake"][0], get_stored_size(stored, types)
            if should_bring_back(self._recipe, self.config) and size is not None:
                image = resize(image, size)
            yield Image.fromarray(to_pixels(image))

    def _prepare_frame(self, frame: Batch) -> Batch:
        try:
            return self._recipe.prepare(frame)
        except UserError as error:
            if error.code != "no-references":
                raise
            what = f"missing: {self.config.trainer.type} makes clips of what some frames show"
            raise UserError(what, where="references", advice="give one or more", code=error.code) from error

    def _fine_tune(self, frame: Batch, seed: int, arguments: Mapping[str, Any]) -> Recipe:
        """The recipe, fitted to the references of a prepared frame if the arguments say so."""

        def load() -> FoundCheckpoint:
            assert self._weights is not None
            return FoundCheckpoint(self._weights, checkpoint.load(self._weights))

        return fine_tune(self._recipe, self.config, load, frame, (seed,), self._runtime, arguments)

    def paint(
        self,
        inputs: Mapping[str, Input],
        seeds: Sequence[int],
        arguments: Mapping[str, Any],
        *,
        full_size: bool = False,
    ) -> Painted:
        """The image of one sample, the size that it was painted in, and that of its input.

        seeds: all that is random follows from them. arguments: all of the method's `infer`, and KEEP_SIZE.
        """
        keeps = arguments.get(KEEP_SIZE, self.config.run.inference_args.get(KEEP_SIZE, True))
        arguments, needs = self._complete(inputs, arguments)
        with self._compute():
            batch = self.reader.read(inputs, needs, full_size=full_size)
            painted = get_size(batch, needs.content)
            stored = get_stored_size(batch, self.reader.find_types(needs.content))
            padded = pad_to_multiple(batch, needs.aligned, self._recipe.size_multiple)
            size = get_size(padded, needs.content)
            image = infer_alone(self._recipe, self._recipe.prepare(padded), seeds, self._runtime, arguments)
        if painted is not None and image.shape[-2:] == size:
            image = image[..., : painted[0], : painted[1]]
        made = (image.shape[-2], image.shape[-1])
        return (resize(image, stored) if keeps and stored is not None else image), made, stored

    def paint_in_tiles(
        self, inputs: Mapping[str, Input], seeds: Sequence[int], arguments: Mapping[str, Any], tiling: Tiling
    ) -> PaintedRows:
        """The image of one sample at the size of its input, made in tiles: its rows come from top to bottom.

        What fits into one tile is painted whole. seeds, arguments: as of `paint`. UserError if the method cannot be
        tiled, or not in these tiles.
        """
        tiling.check_multiple(self._recipe.size_multiple)
        complete, needs = self._complete(inputs, arguments)
        together = self.reader.find_together(inputs, needs)
        size = self.reader.measure(inputs, together)
        if size[0] <= tiling.height and size[1] <= tiling.width:
            image, _, _ = self.paint(inputs, seeds, {**arguments, KEEP_SIZE: True}, full_size=True)
            return PaintedRows.of_image(image)
        check_can_tile(needs, self.config.trainer.type)
        sample = TiledSample(self.reader, inputs, together, size)
        return self._tile_painter.paint(sample, tiling, seeds, complete)

    @cached_property
    def _tile_painter(self) -> TilePainter:
        return TilePainter(self._recipe, self._runtime, self._compute)

    def _complete(
        self, inputs: Mapping[str, Input], arguments: Mapping[str, Any]
    ) -> tuple[dict[str, Any], InferenceInputs]:
        """The arguments of the method's `infer`, with those of a random style if no other is there; what it needs."""
        complete = {name: value for name, value in arguments.items() if name != KEEP_SIZE}
        if KEEP_SIZE in inspect.signature(self._recipe.infer).parameters:
            complete[KEEP_SIZE] = False  # it is done here, alike for all methods
        needs = self._recipe.inference_inputs(**complete)
        styles = [] if needs.style is None else self.reader.find_types([needs.style])
        if needs.at_random is not None and not any(name in inputs for name in styles):
            complete |= needs.at_random
        return complete, needs

    def _check_arguments(self, arguments: Mapping[str, Any]) -> None:
        known = list_options(self._recipe.infer)
        for name in arguments:
            if known is not None and name not in known and name != KEEP_SIZE:
                what = f"{self.config.trainer.type} has no such argument"
                raise UserError(what, where=name, advice=did_you_mean(name, known), code="unknown-argument")

    @contextmanager
    def _compute(self) -> Iterator[None]:
        """In which everything is computed, as the config says; the process is afterwards as it was."""
        with self.reader.name_missing(), torch.no_grad(), runtimes.restore_torch_state(self._runtime):
            runtimes.set_tf32(self.config.trainer.tf32, self._runtime.device)
            yield


def _join_references(frames: Sequence[Batch]) -> dict[str, Tensor]:
    """Frames for reference as recipes expect them in a batch."""
    names = [name for name, tensor in frames[0].tensors.items() if tensor.dim() > 3] if frames else []
    return {FEW_SHOT + name: torch.cat([frame[name] for frame in frames], dim=1) for name in names}
