"""Images of a trained generator as files: for the test set of its config, or for files of the caller's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagier.config.check import KEEP_SIZE
from imagier.errors import UserError
from imagier.recipe import name_in_style
from imagier.run.experiment import ConfigSource, Experiment
from imagier.run.image_files import ImageFolder
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
from imagier.run.options import STYLE_SEED, RunOptions
from imagier.run.process import open_runtime
from imagier.run.sizes import SizeReport
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
    full_size: bool = False,
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
    many random styles of every input. format: png (the default with `inputs`), jpg (the default without), webp or tiff.
    full_size: with `inputs`, paint at their size and not at the scale of the training.

    A method for clips writes every sequence of its test set, or of `inputs`, folders with one for each input type, as
    such files, and as <output_dir>/<sequence>.mp4, whose paths are returned. A call that was killed goes on where it
    was, and leaves out what is finished. side_by_side: also write input, result and truth, into
    <output_dir>/side_by_side. fps: of the videos; by default 15.

    UserError for a mistake in any argument.
    """
    if num_styles is not None and num_styles < 1:
        raise UserError(f"is {num_styles}, but must be 1 or more", where="num_styles", code="wrong-number")
    output_dir = Path(output_dir)
    styles = [styles] if isinstance(styles, str | Path) else list(styles)
    if side_by_side and inputs is not None:
        raise UserError("has no effect with `inputs`", where="side_by_side", advice="leave it out", code="no-videos")
    if inputs is None and (styles or full_size):
        where = "styles" if styles else "full_size"
        raise UserError("has no effect without `inputs`", where=where, advice="name them", code="missing-input")
    experiment, options = read_experiment_of_run(config_or_logdir, options, overrides)
    with open_runtime(options) as runtime:
        experiment.log_notes()
        inputs = [] if inputs is None else [inputs] if isinstance(inputs, str | Path) else list(inputs)
        is_video = experiment.config.recipe.cls.is_video
        if is_video and (styles or full_size):
            where = "styles" if styles else "full_size"
            raise UserError("has no effect on videos", where=where, advice="leave it out", code="no-videos")
        if not inputs or is_video:
            request = ImageRequest(
                format=format or ("png" if inputs else "jpg"),
                num_styles=num_styles,
                has_comparison=side_by_side,
                fps=fps,
                inputs=list(map(Path, inputs)),
            )
            return write_images(experiment, output_dir, options, runtime, request)
        folder = ImageFolder(output_dir, format or "png", [_path(each) for each in [*inputs, *styles]])
        painter = _FilePainter(experiment, options, runtime, full_size=full_size)
        return painter.write(folder, inputs, styles, num_styles)


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

    def __init__(self, experiment: Experiment, options: RunOptions, runtime: Runtime, *, full_size: bool) -> None:
        """UserError if the weights are not there or do not fit."""
        config = experiment.config
        self.config = config
        self.seed = STYLE_SEED if options.seed is None else options.seed
        self.runtime = runtime
        self.full_size = full_size
        self.recipe = load_recipe(config, load_weights(experiment, options), runtime)
        self.generator = TrainedGenerator(config, self.recipe, runtime)
        self.arguments = collect_arguments(self.recipe, config, self.seed)
        self.needs = self.recipe.inference_inputs(**self.arguments)
        self.style_types = self.generator.find_types([self.needs.style] if self.needs.style else [])

    def write(
        self, folder: ImageFolder, inputs: Sequence[str | Path], styles: Sequence[str | Path], num_styles: int | None
    ) -> list[Path]:
        """Writes this rank's share of all images; returns their paths."""
        self._check_styles(styles, num_styles)
        images = self._plan(inputs, styles, num_styles)
        for image in images:
            folder.get_path(image.name)  # refuses what would replace an input, before anything is written
        written, report = [], SizeReport()
        for image in images[self.runtime.rank :: self.runtime.world]:
            seeds = (self.seed, hash_name(image.source), image.style)
            pixels, painted, stored = self.generator.paint(
                image.files, seeds, image.arguments, full_size=self.full_size
            )
            written.append(folder.write(image.name, to_pixels(pixels)))
            report.add(image.source, painted, stored)
        keeps = self.config.run.inference_args.get(KEEP_SIZE, True)
        how = "painted at the scale of the training and brought back to" if keeps else "not of"
        report.log(folder.folder, self.runtime, how)
        return written

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
        types = self.generator.find_types(self.needs.content)
        own = self.style_types if self.generator.is_paired and not styles and num_styles is None else []
        lister = InputLister(types, own, self.generator.extensions)
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
        return [image for sample in samples for image in self._list_images(sample, style_files, num_styles)]

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
