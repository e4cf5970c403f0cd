"""A trained generator in Python: inputs in, an image out."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from imagier.config import schema
from imagier.config.check import Config
from imagier.config.find import did_you_mean
from imagier.data.loading.loader import Loader
from imagier.errors import UserError
from imagier.nn.resize import to_rgb
from imagier.recipe import Batch, Recipe
from imagier.run import build_data
from imagier.run.experiment import CONFIG, ConfigSource, read_experiment
from imagier.run.inference import collect_arguments, find_test_set, load_recipe, load_weights
from imagier.run.memory_source import Input, MemorySource
from imagier.run.options import STYLE_SEED, RunOptions, check_seed
from imagier.train import runtime as runtimes
from imagier.train.hooks.images import to_uint8
from imagier.train.runtime import Runtime


def load_generator(
    logdir_or_checkpoint: str | Path, *, device: str = "cpu", config: ConfigSource | None = None
) -> TrainedGenerator:
    """The generator of a run, or of one of its checkpoints, with averaged weights (if there are any), in eval mode.

        generator = imagier.load_generator("logs/openmoji64")
        image = generator({"edge_maps": "drawing.png"})
        image.save("emoji.png")

    device: cpu, cuda, mps, or auto. config: only for a checkpoint without a config.yaml beside it, as those of the
    reference. UserError if there is no checkpoint, or if it does not fit the config.
    """
    path = Path(logdir_or_checkpoint)
    if not path.exists():
        raise UserError("no such folder or checkpoint", where=path, code="missing-checkpoint")
    logdir, weights = (path, None) if path.is_dir() else (path.parent, path)
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
            recipe = load_recipe(experiment.config, load_weights(experiment, options), runtime)
    finally:
        runtimes.stop(runtime)
    return TrainedGenerator(experiment.config, recipe, runtime)


class TrainedGenerator:
    """A generator with the weights of a checkpoint. `load_generator` makes it."""

    def __init__(self, config: Config, recipe: Recipe, runtime: Runtime) -> None:
        """recipe: in eval mode, on the device of the runtime."""
        self.config = config
        self._recipe = recipe
        self._runtime = runtime
        self._data, self._split = find_test_set(config)

    @property
    def network(self) -> nn.Module:
        """The network itself, in eval mode, for those who want to call it on tensors of their own."""
        return self._recipe.networks[self._recipe.generator_name]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs of the config. A method may need only some of them to make an image."""
        return [codec.name for codec in build_data.build_codecs(self._data)]

    def __call__(self, inputs: Mapping[str, Input], *, seed: int = STYLE_SEED, **arguments: Any) -> Image.Image:
        """An RGB image made of one sample, prepared as `imagier infer` prepares the files of the test set.

        inputs: by the name of the input type: the path of a file, an array H x W or H x W x C, a tensor C x H x W, or a
        PIL image. Arrays and tensors hold whole numbers (8 or 16 bits; ids of classes in label maps), or, for images,
        floats from 0 to 1. seed: of a random style. arguments: of the method's `infer`, on top of `inference_args` of
        the config (`random_style=True`, `a2b=False`).

        UserError if an input is missing, or is not what the config says, or if the method has no such argument.
        """
        check_seed(seed)
        self._check_arguments(arguments)
        arguments = {**collect_arguments(self._recipe, self.config, seed), **arguments}
        with self._name_missing(), torch.no_grad(), runtimes.restore_torch_state(self._runtime):
            batch = self._prepare(inputs)
            self._runtime.seed(seed)  # for layers that draw noise of their own
            with self._runtime.autocast():
                (image,) = self._recipe.infer(batch, self._runtime.generator(seed), **arguments)
        return Image.fromarray(to_uint8(to_rgb(image[None])[0]))

    def _prepare(self, inputs: Mapping[str, Input]) -> Batch:
        """The inputs as a batch of one sample on the device."""
        self._check_names(inputs)
        data = _restrict(self._data, inputs)
        source = MemorySource(build_data.build_codecs(data), inputs)
        loader = Loader(
            build_data.build_dataset(data, self._split, seed=0, stores=[source]),
            batch_size=1,
            device=self._runtime.device,
            finish=build_data.build_expander(data, self.config.trainer.channels_last),
        )
        (stored,) = loader.once()
        return self._recipe.prepare(stored)

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
        parameters = inspect.signature(self._recipe.infer).parameters.values()
        known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return
        for name in arguments:
            if name not in known:
                what = f"{self.config.trainer.type} has no such argument"
                raise UserError(what, where=name, advice=did_you_mean(name, known), code="unknown-argument")

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


def _restrict(data: schema.Data, inputs: Mapping[str, Input]) -> schema.Data:
    """The data section without the input types that are not given."""
    given = [{name: options for name, options in entry.items() if name in inputs} for entry in data.input_types]
    return dataclasses.replace(data, input_types=[entry for entry in given if entry])
