"""A trained generator in Python: inputs in, an image out."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from imagier.config import schema
from imagier.config.check import KEEP_SIZE, Config
from imagier.config.constructor import list_options
from imagier.config.find import did_you_mean, find
from imagier.data.augmentation.augment import find_largest_size
from imagier.data.augmentation.warp import Size
from imagier.data.codec import Codec
from imagier.data.loading.loader import Loader
from imagier.data.sample import image_sizes, load_stored
from imagier.errors import UserError
from imagier.recipe import FEW_SHOT, Batch, InferenceInputs, Recipe, State
from imagier.run import build_data
from imagier.run.bundle.hub import find_local
from imagier.run.experiment import CONFIG, ConfigSource, read_experiment
from imagier.run.fine_tuning import fine_tune
from imagier.run.inference import (
    Painted,
    collect_arguments,
    find_test_set,
    find_types,
    infer_alone,
    load_recipe,
    load_weights,
    should_bring_back,
    to_pixels,
)
from imagier.run.memory_source import KEY, Input, MemorySource
from imagier.run.options import STYLE_SEED, RunOptions, check_seed
from imagier.run.paths import no_such_path
from imagier.run.sizes import (
    get_size,
    get_stored_size,
    keep_deterministic,
    keep_resize,
    pad_to_multiple,
    replace_augmentations,
    resize,
)
from imagier.train import checkpoint
from imagier.train import runtime as runtimes
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.clips import roll_out
from imagier.train.runtime import Runtime
from imagier.train.weight_file import find_weights

CLIPS = "paired_videos"
"""The data set that reads frames of a caller's."""


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
        self._data, self._split = find_test_set(config, or_training=True)

    @property
    def network(self) -> nn.Module:
        """The network itself, in eval mode, for those who want to call it on tensors of their own."""
        return self._recipe.networks[self._recipe.generator_name]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs of the config. A method may need only some of them to make an image."""
        return [codec.name for codec in build_data.build_codecs(self._data)]

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
        types = find_types(self._data, self._recipe.inference_inputs(**arguments).content)
        known = _join_references([self._load_frame(each, list(each)) for each in references])
        waiting, numbers = deque[Batch](), itertools.count()
        clip: Iterator[tuple[Batch, dict[str, Tensor], State]] | None = None
        for inputs in frames:
            with self._compute():
                stored = self._load_frame(inputs, types)
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

    @property
    def is_paired(self) -> bool:
        """Whether inputs of several types belong together by name."""
        return find(schema.DATASET, self._data.type).is_paired

    @property
    def extensions(self) -> set[str]:
        """Those of the files of the config."""
        return {codec.input_type.ext for codec in build_data.build_codecs(self._data)}

    def find_types(self, names: Sequence[str]) -> list[str]:
        """The input types behind names in a batch."""
        return find_types(self._data, names)

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
        arguments = dict(arguments)
        keeps = arguments.pop(KEEP_SIZE, self.config.run.inference_args.get(KEEP_SIZE, True))
        if KEEP_SIZE in inspect.signature(self._recipe.infer).parameters:
            arguments[KEEP_SIZE] = False  # it is done here, alike for all methods
        needs = self._recipe.inference_inputs(**arguments)
        styles = [] if needs.style is None else find_types(self._data, [needs.style])
        if needs.at_random is not None and not any(name in inputs for name in styles):
            arguments = {**arguments, **needs.at_random}
        with self._compute():
            batch = self._read(inputs, needs, full_size)
            painted = get_size(batch, needs.content)
            stored = get_stored_size(batch, find_types(self._data, needs.content))
            padded = pad_to_multiple(batch, needs.aligned, self._recipe.size_multiple)
            size = get_size(padded, needs.content)
            image = infer_alone(self._recipe, self._recipe.prepare(padded), seeds, self._runtime, arguments)
        if painted is not None and image.shape[-2:] == size:
            image = image[..., : painted[0], : painted[1]]
        made = (image.shape[-2], image.shape[-1])
        return (resize(image, stored) if keeps and stored is not None else image), made, stored

    def _read(self, inputs: Mapping[str, Input], needs: InferenceInputs, full_size: bool) -> Batch:
        """The inputs as a batch of one sample on the device, those of the content together, others by themselves."""
        self._check_names(inputs)
        together = [name for name in find_types(self._data, needs.aligned) if name in inputs]
        others = [self._load(inputs, [name], full_size=False) for name in inputs if name not in together]
        if not together:
            raise self._missing_error(find_types(self._data, needs.content) or self.input_names)
        batch = self._load(inputs, together, full_size)
        return dataclasses.replace(batch, tensors={k: v for each in [*others, batch] for k, v in each.tensors.items()})

    def _load_frame(self, inputs: Mapping[str, Input], types: Sequence[str]) -> Batch:
        """Those of these types as a batch of one frame."""
        self._check_names(inputs)
        names = [name for name in types if name in inputs]
        if not names:
            raise self._missing_error(types)
        data = dataclasses.replace(build_data.select_input_types(self._data, names), type=CLIPS)
        kept, _ = keep_deterministic(self._split.augmentations)
        source = MemorySource(build_data.build_codecs(data), inputs)
        return self._read_source(data, dataclasses.replace(replace_augmentations(self._split, kept), own={}), source)

    def _load(self, inputs: Mapping[str, Input], names: Sequence[str], full_size: bool) -> Batch:
        data = build_data.select_input_types(self._data, names)
        source = MemorySource(build_data.build_codecs(data), inputs)
        augmentations = keep_resize(self._split.augmentations)
        if full_size:
            height, width = _measure(source, build_data.build_codecs(data))
            augmentations = {"resize_h_w": f"{height}, {width}"}
        return self._read_source(data, replace_augmentations(self._split, augmentations), source)

    def _read_source(self, data: schema.Data, split: schema.Split, source: MemorySource) -> Batch:
        loader = Loader(
            build_data.build_dataset(data, split, seed=0, stores=[source]),
            batch_size=1,
            device=self._runtime.device,
            finish=build_data.build_expander(data, self.config.trainer.channels_last),
        )
        (stored,) = loader.once()
        return stored

    def _check_names(self, inputs: Mapping[str, Input]) -> None:
        for name in inputs:
            if name not in self.input_names:
                raise UserError("unknown input", where=name, advice=self._known_inputs, code="unknown-input")
        if not inputs:
            raise UserError("no inputs", advice=self._known_inputs, code="missing-input")
        missing = [name for name in self._label_names if name not in inputs]
        if missing and len(missing) < len(self._label_names):  # the label has a fixed number of channels
            raise self._missing_error(missing)

    def _check_arguments(self, arguments: Mapping[str, Any]) -> None:
        known = list_options(self._recipe.infer)
        for name in arguments:
            if known is not None and name not in known and name != KEEP_SIZE:
                what = f"{self.config.trainer.type} has no such argument"
                raise UserError(what, where=name, advice=did_you_mean(name, known), code="unknown-argument")

    @contextmanager
    def _compute(self) -> Iterator[None]:
        """In which everything is computed, as the config says; the process is afterwards as it was."""
        with self._name_missing(), torch.no_grad(), runtimes.restore_torch_state(self._runtime):
            runtimes.set_tf32(self.config.trainer.tf32, self._runtime.device)
            yield

    @contextmanager
    def _name_missing(self) -> Iterator[None]:
        """Turns the KeyError of a recipe that needs an input which is not given into a UserError."""
        try:
            yield
        except KeyError as error:
            name = error.args[0]
            if name == "label":
                raise self._missing_error(self._label_names) from error
            if name in self.input_names:
                raise self._missing_error([name]) from error
            raise

    @property
    def _label_names(self) -> list[str]:
        """The input types that make up the label."""
        codecs = build_data.build_codecs(self._data)
        return [codec.name for codec in codecs if codec.batch_name in self._data.input_labels]

    def _missing_error(self, names: Sequence[str]) -> UserError:
        where = ", ".join(names)
        return UserError("missing input", where=where, advice=self._known_inputs, code="missing-input")

    @property
    def _known_inputs(self) -> str:
        return f"the config has: {', '.join(self.input_names)}"


def _join_references(frames: Sequence[Batch]) -> dict[str, Tensor]:
    """Frames for reference as recipes expect them in a batch."""
    names = [name for name, tensor in frames[0].tensors.items() if tensor.dim() > 3] if frames else []
    return {FEW_SHOT + name: torch.cat([frame[name] for frame in frames], dim=1) for name in names}


def _measure(source: MemorySource, codecs: Sequence[Codec]) -> Size:
    """The largest height and width of the files of a sample."""
    stored = load_stored(source, codecs, KEY)
    return find_largest_size(image_sizes(stored, codecs).values())
