"""Images of a trained generator as files: for the test set of its config, or for files of the caller's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imagier.config.check import KEEP_SIZE
from imagier.data.augmentation.warp import Size
from imagier.data.sources.source import unique_names
from imagier.errors import UserError
from imagier.nn.backbones.weights import hash_file
from imagier.recipe import name_in_style
from imagier.run.alpha import read_alpha
from imagier.run.experiment import ConfigSource, Experiment
from imagier.run.folder_lock import lock_images
from imagier.run.image_files import ImageFolder, ImageFormat
from imagier.run.inference import (
    ImageRequest,
    collect_arguments,
    hash_name,
    no_random_styles,
    read_experiment_of_run,
    to_pixels,
    write_images,
)
from imagier.run.input_files import InputLister, InputSample
from imagier.run.made import MadeImages
from imagier.run.options import STYLE_SEED, RunOptions
from imagier.run.process import open_runtime
from imagier.run.progress import Advance, count_progress
from imagier.run.sizes import SizeReport
from imagier.run.tiles import Tiling
from imagier.run.trained_generator import TrainedGenerator
from imagier.run.weights import load_recipe, load_weights
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

Files = str | Path | Sequence[str | Path]
"""A file, a folder, or several of them."""


def generate(
    config_or_logdir: ConfigSource | None,
    output_dir: str | Path,
    options: RunOptions | None = None,
    *,
    inputs: Files | None = None,
    styles: Files = (),
    num_styles: int | None = None,
    format: str | None = None,
    quality: int | None = None,
    bits: int = 8,
    alpha: bool = False,
    full_size: bool = False,
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
    side_by_side: bool = False,
    fps: float | None = None,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Writes <output_dir>/<sequence>/<name>.<format> for every input; returns the paths, in order.

    The weights are those of `options.checkpoint`, or else the latest of the log folder. If a launcher has started
    several processes, each writes its share and returns its paths.

    config_or_logdir: a config as of `train`, or the folder of a run; None: the config beside the checkpoint.

    inputs: files, or folders of files; where a method takes several input types, a folder with one for each of them,
    or "<type>=<folder>" for each. Images have the size of their input. None: the test set, which is that of
    `test_data`, or if the config has no such section `data.test`, or else `data.val`; its augmentations that resize
    and crop decide on the size.

    styles: images of styles, or folders of them, with `inputs`; every input is painted in every style. num_styles: so
    many random styles of every input.

    format: png (the default with `inputs`), jpg (the default without), webp or tiff. quality: of jpg (99) or webp
    (None: every value is kept), 1 to 100. bits: of a channel of png or tiff, 8 or 16. alpha: with `inputs`, give images
    the alpha of their input.

    full_size: with `inputs`, paint at their size and not at the scale of the training. tile: paint so, but in tiles of
    that height and width, for images larger than memory. overlap: of tiles, in pixels; None: a quarter of their smaller
    side.

    A method for clips writes every sequence of its test set, or of `inputs`, folders with one for each input type, as
    such files, and as <output_dir>/<sequence>.mp4, whose paths are returned. side_by_side: also write input, result and
    truth, into <output_dir>/side_by_side. fps: of the videos; by default 15.

    A call that was killed goes on where it was: what is there already, and was made of the same, is not made again.

    UserError for a mistake in any argument.
    """
    if num_styles is not None and num_styles < 1:
        raise UserError(f"is {num_styles}, but must be 1 or more", where="num_styles", code="wrong-number")
    output_dir = Path(output_dir)
    styles = _as_list(styles)
    if side_by_side and inputs is not None:
        raise UserError("has no effect with `inputs`", where="side_by_side", advice="leave it out", code="no-videos")
    how = ImageFormat(name=format or ("jpg" if inputs is None else "png"), quality=quality, bits=bits, has_alpha=alpha)
    tiling = _choose_tiling(tile, overlap)
    of_files = {"styles": bool(styles), "full_size": full_size, "tile": tile is not None, "alpha": alpha}
    if inputs is None:
        _refuse(of_files, UserError("has no effect without `inputs`", advice="name them", code="missing-input"))
    experiment, options = read_experiment_of_run(config_or_logdir, options, overrides)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        inputs = _as_list(inputs)
        is_video = experiment.config.recipe.cls.is_video
        if is_video:
            no_effect = UserError("has no effect on videos", advice="leave it out", code="no-videos")
            _refuse({**of_files, "bits": bits != 8}, no_effect)
        if not inputs or is_video:
            paths = list(map(Path, inputs))
            request = ImageRequest(how=how, num_styles=num_styles, has_comparison=side_by_side, fps=fps, inputs=paths)
            return write_images(experiment, output_dir, options, runtime, request)
        folder = ImageFolder(output_dir, how, [_path(each) for each in [*inputs, *styles]])
        painter = _FilePainter(experiment, options, runtime, full_size=full_size, tiling=tiling)
        with lock_images(output_dir, runtime):
            return painter.write(folder, inputs, styles, num_styles)


def _as_list(files: Files | None) -> list[str | Path]:
    return [] if files is None else [files] if isinstance(files, str | Path) else list(files)


def _choose_tiling(tile: tuple[int, int] | None, overlap: int | None) -> Tiling | None:
    if tile is not None:
        return Tiling(height=tile[0], width=tile[1], overlap=overlap)
    if overlap is not None:
        raise UserError("has no effect without `tile`", where="overlap", advice="leave it out", code="no-effect")
    return None


def _refuse(given: Mapping[str, bool], error: UserError) -> None:
    """Raises an error about the first argument that is given."""
    for name, is_given in given.items():
        if is_given:
            raise UserError(error.what, where=name, advice=error.advice, code=error.code)


def _path(text: str | Path) -> Path:
    """The path of an input, also of "<type>=<path>"."""
    path = Path(text)
    return path if path.exists() else Path(str(text).rpartition("=")[2])


@dataclass(frozen=True)
class _Image:
    """An image to be made: its name, its files by input type, arguments of the method, and the number of its style."""

    name: str
    source: str
    files: Mapping[str, Path]
    arguments: Mapping[str, Any]
    style: int = 0


class _FilePainter:
    """Paints files of the caller's."""

    def __init__(
        self,
        experiment: Experiment,
        options: RunOptions,
        runtime: Runtime,
        *,
        full_size: bool,
        tiling: Tiling | None,
    ) -> None:
        """UserError if the weights are not there or do not fit."""
        config = experiment.config
        self.config = config
        self.options = options
        self.seed = STYLE_SEED if options.seed is None else options.seed
        self.runtime = runtime
        self.full_size = full_size
        self.tiling = tiling
        weights = load_weights(experiment, options)
        self.weights_path = weights.path
        self.recipe = load_recipe(config, weights, runtime)
        self.generator = TrainedGenerator(config, self.recipe, runtime)
        self.arguments = collect_arguments(self.recipe, config, self.seed)
        self.needs = self.recipe.inference_inputs(**self.arguments)
        self.style_types = self.generator.reader.find_types([self.needs.style] if self.needs.style else [])
        self.hashes: dict[Path, str] = {}
        """Of the files of inputs and styles."""

    def write(
        self, folder: ImageFolder, inputs: Sequence[str | Path], styles: Sequence[str | Path], num_styles: int | None
    ) -> list[Path]:
        """Writes this rank's share of all images, but for those that are there already; returns the paths of all."""
        self._check_styles(styles, num_styles)
        images = self._plan(inputs, styles, num_styles)
        for image in images:
            folder.get_path(image.name)  # refuses what would replace an input, before anything is written
        own = images[self.runtime.rank :: self.runtime.world]
        paths = [folder.get_path(image.name) for image in own]
        options = [repr(each) for each in (folder.how, self.seed, self.full_size, self.tiling)]
        made = MadeImages(folder.folder, self.runtime, self.weights_path, [self.config.dump(), *options])
        report = SizeReport()
        with count_progress("painting", len(own), self.options, self.runtime) as advance:
            for path, image in zip(paths, own):
                made_of = self._describe(image)
                if made.find(path, made_of):
                    advance(1)
                else:
                    report.add(image.source, *self._write(folder, image, advance))
                    made.add(path, made_of)
        made.log(self.runtime)
        keeps = self.config.run.inference_args.get(KEEP_SIZE, True)
        how = "painted at the scale of the training and brought back to" if keeps else "not of"
        report.log(folder.folder, self.runtime, how)
        return paths

    def _describe(self, image: _Image) -> list[str]:
        """What one image is made of."""
        for path in image.files.values():
            if path not in self.hashes:
                self.hashes[path] = hash_file(path)
        files = [f"{name} {self.hashes[path]}" for name, path in sorted(image.files.items())]
        return [*files, image.source, repr(sorted(image.arguments.items())), str(image.style)]

    def _write(self, folder: ImageFolder, image: _Image, advance: Advance) -> tuple[Size, Size | None]:
        """Writes one image; returns the size in which it is painted, and that of its input."""
        seeds, how = (self.seed, hash_name(image.source), image.style), folder.how
        if self.tiling is None:
            painted = self.generator.paint(image.files, seeds, image.arguments, full_size=self.full_size)
            pixels = to_pixels(painted[0], how.dtype)
            alpha = self._read_alpha(image, how, (pixels.shape[0], pixels.shape[1]))
            folder.write(image.name, pixels if alpha is None else np.concatenate([pixels, alpha], axis=2))
            advance(1)
            return painted[1:]
        rows, top = self.generator.paint_in_tiles(image.files, seeds, image.arguments, self.tiling), 0
        alpha = self._read_alpha(image, how, rows.size)
        with folder.open_rows(image.name, rows.size, 3 if alpha is None else 4) as write:
            for piece in rows.paint(advance):
                pixels = to_pixels(piece, how.dtype)
                beside = [] if alpha is None else [alpha[top : top + len(pixels)]]
                write(np.concatenate([pixels, *beside], axis=2))
                top += len(pixels)
        return rows.size, rows.size

    def _read_alpha(self, image: _Image, how: ImageFormat, size: Size) -> np.ndarray | None:
        """The alpha of an image, of its content, if it is wanted."""
        types = self.generator.reader.find_types(self.needs.content)
        return read_alpha([image.files[name] for name in types], size, how.dtype) if how.has_alpha else None

    def _check_styles(self, styles: Sequence[str | Path], num_styles: int | None) -> None:
        method = self.config.trainer.type
        if styles and (not self.style_types or self.needs.is_style_aligned):
            advice = "leave it out"
            if self.needs.is_style_aligned:
                (name,) = self.style_types
                advice = f"put the photographs of the inputs into a folder {name} beside them, or leave it out"
            what = f"{method}, as it is set up here, takes no style from another image"
            raise UserError(what, where="styles", advice=advice, code="no-styles")
        if num_styles is not None and not styles and self.needs.at_random is None:
            raise no_random_styles(self.config)

    def _plan(self, inputs: Sequence[str | Path], styles: Sequence[str | Path], num_styles: int | None) -> list[_Image]:
        """All images, in order. UserError if files are missing."""
        types = self.generator.reader.find_types(self.needs.content)
        own = self.style_types if self.generator.reader.is_paired and not styles and num_styles is None else []
        lister = InputLister(types, own, self.generator.reader.extensions)
        needs_style = self.needs.style is not None and self.needs.at_random is None
        if needs_style and not styles:
            styles = [folder for each in inputs for name in self.style_types if (folder := Path(each, name)).is_dir()]
            if not styles:
                what = f"{self.config.trainer.type} makes images in the style of others"
                raise UserError(what, where="styles", advice="name some, or a folder of them", code="missing-style")
        style_files = lister.list_files(styles)[:num_styles] if styles else []
        samples = lister.list_samples(inputs)
        if style_files:
            counts = f"{len(samples)} inputs x {len(style_files)} styles"
            logger.info(f"{counts}: {len(samples) * len(style_files)} images")
        elif self.needs.at_random is not None and num_styles is None and not any(self._own(each) for each in samples):
            logger.info(f"a random style for each image, from the seed {self.seed} and the name of its input")
        images = [image for sample in samples for image in self._list_images(sample, style_files, num_styles)]
        names = unique_names(image.name for image in images)  # a_style_b in the style c, and a in b_style_c
        return [replace(image, name=name) for name, image in zip(names, images)]

    def _own(self, sample: InputSample) -> bool:
        """Whether a sample has a style of its own."""
        return any(name in sample.files for name in self.style_types)

    def _list_images(
        self, sample: InputSample, styles: Sequence[tuple[str, Path]], num_styles: int | None
    ) -> Iterator[_Image]:
        """Those of one sample: in every style, in so many random ones, in its own, or in a random one."""
        from_images = {**self.arguments, **self.needs.from_images}
        for name, path in styles:
            named = sample.name if len(styles) == 1 else name_in_style(sample.name, name)
            yield _Image(named, sample.name, {**sample.files, self.style_types[0]: path}, from_images)
        if styles:
            return
        for style in range(num_styles or 1):
            named = sample.name if (num_styles or 1) == 1 else name_in_style(sample.name, str(style))
            arguments = from_images if self._own(sample) else self.arguments
            yield _Image(named, sample.name, sample.files, arguments, style)
