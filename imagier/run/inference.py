"""Images from a trained generator: one per input, made with the averaged weights."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagier.config import schema
from imagier.config.check import KEEP_SIZE, Config
from imagier.data.augmentation.warp import Size
from imagier.data.loading.loader import Loader
from imagier.data.sources.object_store import is_remote
from imagier.errors import UserError
from imagier.nn.backbones.weights import hash_file
from imagier.nn.resize import to_rgb
from imagier.recipe import Batch, Recipe, name_in_style
from imagier.run import build_data
from imagier.run.experiment import CONFIG, ConfigSource, Experiment, read_experiment
from imagier.run.fine_tuning import fine_tune
from imagier.run.folder_lock import lock_images
from imagier.run.image_files import ImageFolder, ImageFormat
from imagier.run.made import MadeImages
from imagier.run.options import STYLE_SEED, RunOptions
from imagier.run.paths import check_logdir, no_such_path
from imagier.run.progress import Advance, count_progress
from imagier.run.sequences import SequenceWriter
from imagier.run.sizes import SizeReport, get_stored_size, keep_deterministic, replace_augmentations, resize
from imagier.run.weights import load_recipe, load_weights
from imagier.run.workers import warn_of_many
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.hooks.images import to_uint8
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

DEFAULT_FPS, LEAST_FPS, MOST_FPS = 15.0, 0.01, 1000

BRING_BACK = "; inference_args.keep_original_size=true brings them to it"
"""What people should know of images of another size than their inputs."""


def read_experiment_of_run(
    config_or_logdir: ConfigSource | None, options: RunOptions | None, overrides: Sequence[str]
) -> tuple[Experiment, RunOptions]:
    """The experiment of a config, or of the run in a log folder, and the options with that folder in them.

    Without either it is that of the run whose checkpoint the options name: its config.yaml lies beside it.
    """
    options = options or RunOptions()
    if isinstance(config_or_logdir, str | Path) and Path(config_or_logdir).is_dir():
        options = dataclasses.replace(options, logdir=config_or_logdir)
        config_or_logdir = None
    if options.logdir is not None:
        check_logdir(options.logdir)
    elif config_or_logdir is None and options.checkpoint is not None:
        checkpoint_file = Path(options.checkpoint)
        if not checkpoint_file.exists():
            raise no_such_path(checkpoint_file, "no such checkpoint", code="missing-checkpoint")
        if (checkpoint_file.parent / CONFIG).is_file():
            config_or_logdir = checkpoint_file.parent / CONFIG
    return read_experiment(config_or_logdir, options, overrides), options


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Which images to write, and how."""

    how: ImageFormat = ImageFormat()
    num_styles: int | None = None
    """Images of each input: in so many random styles or, of files of styles, in the first so many."""
    has_comparison: bool = False
    """Of a method for clips: also write input, result and truth side by side."""
    fps: float | None = None
    """Of its videos, frames in a second; None: DEFAULT_FPS."""
    inputs: Sequence[Path] = ()
    """Of a method for clips: folders to read in place of the roots of the test set."""

    def check(self, config: Config) -> None:
        """UserError: what only methods for clips write is wanted of another one, or the fps are out of range."""
        for name, is_given in (("side_by_side", self.has_comparison), ("fps", self.fps is not None)):
            if is_given and not config.recipe.cls.is_video:
                what = f"{config.trainer.type} makes no videos"
                raise UserError(what, where=name, advice="leave it out", code="no-videos")
        if self.fps is not None and not LEAST_FPS <= self.fps <= MOST_FPS:
            raise UserError(f"is {self.fps}, not {LEAST_FPS} to {MOST_FPS}", where="fps", code="wrong-number")


@torch.no_grad()
def write_images(
    experiment: Experiment,
    output_dir: Path,
    options: RunOptions,
    runtime: Runtime,
    request: ImageRequest = ImageRequest(),
) -> list[Path]:
    """Writes this rank's share of all images of the test set, each name once; returns their paths.

    Of a method for clips it writes whole sequences, and returns the paths of their videos: see `SequenceWriter`.
    """
    request.check(experiment.config)
    config, seed = experiment.config, STYLE_SEED if options.seed is None else options.seed
    data, split = find_test_set(config, or_training=bool(request.inputs))
    weights = load_weights(experiment, options)
    recipe = load_recipe(config, weights, runtime)
    if request.inputs:
        data, split = _read_inputs(data, split, recipe, request.inputs)
    if options.num_workers is not None:  # `test_data` has a number of its own
        data = dataclasses.replace(data, num_workers=options.num_workers)
    warn_of_many(data.num_workers, runtime)
    kept, left_out = keep_deterministic(split.augmentations)
    split = replace_augmentations(split, kept)
    if left_out:
        logger.info(f"augmentations left out, as images are made whole and the same every time: {', '.join(left_out)}")
    roots = [Path(root) for root in split.roots if not is_remote(root, split.dataset_type)]
    folder = ImageFolder(output_dir, request.how, roots)
    painter = _Painter(recipe, config, data, request, seed, runtime)
    samples = build_data.build_dataset(data, split, seed=0).for_inference(request.num_styles)
    loader = build_data.build_held_out_loader(config, runtime, data, split, seed=0, samples=samples)
    with lock_images(output_dir, runtime):
        if recipe.is_video:
            return _write_sequences(experiment, painter, folder, loader, weights, request)
        made = MadeImages(output_dir, runtime, weights.path, [config.dump(), repr(request), str(seed)])
        count = sum(map(len, loader.list_runs())) * painter.count
        with count_progress("painting", count, options, runtime) as advance:
            return _write_each(painter, folder, loader, made, advance)


def _write_each(
    painter: _Painter, folder: ImageFolder, loader: Loader, made: MadeImages, advance: Advance
) -> list[Path]:
    written: dict[str, Path] = {}
    report = SizeReport()
    for batch in loader.once():
        for sample in batch.split(len(batch)):
            made_of = [hash_sample(sample)]
            for name, paint in painter.list_images(sample):
                advance(1)
                if name in written:  # the shorter list of an unpaired set begins again
                    continue
                written[name] = folder.get_path(name)
                if made.find(written[name], [name, *made_of]):
                    continue
                image, painted, stored = paint()
                folder.write(name, to_pixels(image, folder.how.dtype))
                made.add(written[name], [name, *made_of])
                report.add(name, painted, stored)
    made.log(painter.runtime)
    report.log(folder.folder, painter.runtime, "not of", BRING_BACK)
    return list(written.values())


def _write_sequences(
    experiment: Experiment,
    painter: _Painter,
    folder: ImageFolder,
    loader: Loader,
    weights: FoundCheckpoint,
    request: ImageRequest,
) -> list[Path]:
    def fit(sequence: str, frame: Batch) -> Recipe:
        seeds = (painter.seed, hash_name(sequence))
        return fine_tune(
            painter.recipe, experiment.config, lambda: weights, frame, seeds, painter.runtime, painter.arguments
        )

    asked = repr(dataclasses.replace(request, fps=(fps := request.fps or DEFAULT_FPS)))
    depends_on = [experiment.config.dump(), hash_file(weights.path), str(painter.seed), asked]
    writer = SequenceWriter(
        painter.recipe,
        painter.runtime,
        folder,
        lambda name: (painter.seed, hash_name(name)),
        fit=fit,
        key="\n".join(depends_on),
        fps=fps,
        has_comparison=request.has_comparison,
        size_types=painter.input_types,
        brings_back=painter.brings_back,
    )
    videos = writer.write(loader)
    writer.report.log(folder.folder, painter.runtime, "not of", BRING_BACK)
    return videos


def _read_inputs(
    data: schema.Data, split: schema.Split, recipe: Recipe, inputs: Sequence[Path]
) -> tuple[schema.Data, schema.Split]:
    """The sections with folders as roots, and the input types that these have, and those that the method needs."""
    for folder in inputs:
        if not folder.is_dir():
            raise no_such_path(folder, "no such folder", code="missing-input")
    needed = find_types(data, recipe.inference_inputs().content)
    names = [codec.name for codec in build_data.build_codecs(data)]
    types = [name for name in names if name in needed or all((folder / name).is_dir() for folder in inputs)]
    split = dataclasses.replace(split, roots=list(map(str, inputs)), dataset_type=None, is_lmdb=False)
    return build_data.select_input_types(data, types), split


def find_test_set(config: Config, *, or_training: bool = False) -> tuple[schema.Data, schema.Split]:
    """The data section and the split of it that inference reads. UserError if the config has none.

    or_training: take the training set where there is no other, of which only the keys matter.
    """
    section = "data" if config.run.test_data is None else "test_data"
    data = config.run.test_data or config.run.data
    split = data.test or data.val or (config.run.data.train if or_training else None)
    if split is None:
        what = f"the config has neither {section}.test nor {section}.val"
        advice = "name the images to be read (`inputs`)"
        raise UserError(f"nothing to infer from: {what}", advice=advice, code="no-test-set")
    if split is data.val:
        data = build_data.select_validation_data(data)
    return dataclasses.replace(data, val_data_loader_not_distributed=False), split  # each rank writes its share


class _Painter:
    """Makes the images of samples, one at a time: so none depends on those beside it, or on ranks and workers."""

    def __init__(
        self, recipe: Recipe, config: Config, data: schema.Data, request: ImageRequest, seed: int, runtime: Runtime
    ) -> None:
        """UserError if random styles are wanted of a method that has none."""
        self.recipe, self.seed, self.runtime = recipe, seed, runtime
        self.arguments = collect_arguments(recipe, config, seed)
        needs = recipe.inference_inputs(**self.arguments)
        self.input_types = find_types(data, needs.content)
        self.brings_back = should_bring_back(recipe, config)
        self.count = 1
        if request.num_styles is not None and needs.at_random is not None:
            self.arguments |= needs.at_random
            self.count = request.num_styles
        elif request.num_styles is not None and needs.style is None:
            raise no_random_styles(config)

    def list_images(self, sample: Batch) -> Iterator[tuple[str, Callable[[], Painted]]]:
        """The name of every image of a sample, "sequence/name", and a function that makes it."""
        (name,) = self.recipe.infer_names(sample, **self.arguments)
        for style in range(self.count):
            yield (
                name if self.count == 1 else name_in_style(name, str(style)),
                partial(self._paint, sample, name, style),
            )

    def _paint(self, sample: Batch, name: str, style: int) -> Painted:
        seeds = (self.seed, hash_name(name), style)
        image = infer_alone(self.recipe, self.recipe.prepare(sample), seeds, self.runtime, self.arguments)
        stored, painted = get_stored_size(sample, self.input_types), (image.shape[-2], image.shape[-1])
        if self.brings_back and stored is not None:
            image = resize(image, stored)
            painted = stored
        return image, painted, stored


Painted = tuple[Tensor, Size, Size | None]
"""An image, 1 or 3 x H x W, in [-1, 1] or beyond; its height and width; those of its files, if they are known."""


def infer_alone(
    recipe: Recipe, batch: Batch, seeds: Sequence[int], runtime: Runtime, arguments: Mapping[str, Any]
) -> Tensor:
    """The image of a prepared batch of one sample. All that is random follows from `seeds`, whatever the rank."""
    same = dataclasses.replace(runtime, rank=0)
    same.seed(*seeds)  # for layers that draw noise of their own
    with runtime.autocast():
        (image,) = recipe.infer(batch, same.generator(*seeds), **arguments)
    return image


def to_pixels(image: Tensor, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> np.ndarray:
    """C x H x W, in [-1, 1] or beyond -> H x W x 3, uint8 or uint16, rounded."""
    rgb = to_rgb(image[None])[0]
    if dtype == np.uint8:
        return to_uint8(rgb)
    return ((rgb + 1) * 32767.5).round().clamp(0, 65535).permute(1, 2, 0).cpu().numpy().astype(np.uint16)


def hash_name(name: str) -> int:
    """A number of 64 bits for the name of an image, the same everywhere."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")


def hash_sample(sample: Batch) -> str:
    """A hash of all that a sample holds."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(sample.tensors.items()):
        sha256.update(f"{name} {tuple(tensor.shape)}".encode())
        sha256.update(tensor.contiguous().cpu().numpy().data)
    return sha256.hexdigest()


def find_types(data: schema.Data, names: Sequence[str]) -> list[str]:
    """The input types behind names in a batch; behind `label` all that it is made of."""
    found = []
    for codec in build_data.build_codecs(data):
        is_label = "label" in names and codec.batch_name in data.input_labels
        if is_label or codec.batch_name in names:
            found.append(codec.name)
    return found


def collect_arguments(recipe: Recipe, config: Config, seed: int) -> dict[str, Any]:
    """The keyword arguments of the recipe's `infer`: those of the config, and `seed` if the method takes one.

    KEEP_SIZE is for us where the method does not take it.
    """
    known = inspect.signature(recipe.infer).parameters
    arguments = {"seed": seed} if "seed" in known else {}
    arguments |= config.run.inference_args
    return {name: value for name, value in arguments.items() if name != KEEP_SIZE or name in known}


def should_bring_back(recipe: Recipe, config: Config) -> bool:
    """Whether images are to get the size of their files, and the method does not see to it."""
    return (
        bool(config.run.inference_args.get(KEEP_SIZE)) and KEEP_SIZE not in inspect.signature(recipe.infer).parameters
    )


def no_random_styles(config: Config) -> UserError:
    """The error for a method without random styles of which some are wanted."""
    what = f"the images of {config.trainer.type}, as it is set up here, have no random style"
    return UserError(what, where="num_styles", advice="leave it out", code="no-random-styles")
