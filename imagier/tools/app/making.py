"""Images and clips made of what a person gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
from PIL import Image

from imagier.data.codec import Codec
from imagier.data.decoding.video_files import EXTENSIONS, Video
from imagier.data.sources.source import sort_frames
from imagier.errors import UserError
from imagier.run import build_data
from imagier.run.inference import DEFAULT_FPS
from imagier.run.memory_source import Input
from imagier.run.mp4 import encode_mp4
from imagier.run.options import STYLE_SEED
from imagier.tools.app.fields import Form, Needs

Advance = Callable[[int, int], object]
"""Is given how many frames are made, of how many."""


class Maker:
    """Makes one image or clip at a time, whoever asks."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self._codecs = {codec.name: codec for codec in build_data.build_codecs(form.generator.reader.data)}
        self._lock = Lock()
        self._is_stopped = Event()

    def stop(self) -> None:
        """Ends the clip that is being made, if any, after its next frame."""
        self._is_stopped.set()

    def make_image(
        self, inputs: Mapping[str, Input], settings: Mapping[str, Any], seed: int = STYLE_SEED
    ) -> Image.Image:
        """An image of inputs by their types, as `TrainedGenerator` makes it; in the style of an image, if one is given.

        UserError as there.
        """
        needs = self.form.find_needs(settings)
        given = {name: value for name, value in inputs.items() if name in needs.types}
        has_style = needs.style is not None and needs.style in given and needs.style not in needs.content
        self._check_given(needs, given)
        with self._lock:
            return self.form.generator(given, seed=seed, **settings, **(needs.from_images if has_style else {}))

    def make_clip(
        self,
        files: Mapping[str, Sequence[Path]],
        references: Mapping[str, Sequence[Path]],
        settings: Mapping[str, Any],
        path: Path,
        advance: Advance,
    ) -> None:
        """Writes the video of a clip, an mp4. files: of each input type its frames, or one video.

        references: those of the frames for reference, of a method that wants some. UserError as of
        `TrainedGenerator.rollout`, and if types have different numbers of frames; then nothing is written.
        """
        needs = self.form.find_needs(settings)
        files = {name: of_type for name, of_type in files.items() if name in needs.content and of_type}
        self._check_given(needs, files)
        with self._lock, ExitStack() as stack:
            frames = self._join(files, stack)
            shown = self._join({name: of for name, of in references.items() if of}, stack) if needs.references else []
            images = self.form.generator.rollout(iter(frames), references=list(shown), **settings)
            temporary = path.with_name(f".{path.name}")
            try:
                with temporary.open("wb") as file:
                    encode_mp4(file, self._count(images, len(frames), advance), DEFAULT_FPS, "")
                temporary.rename(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _count(self, images: Iterator[Image.Image], total: int, advance: Advance) -> Iterator[np.ndarray]:
        for number, image in enumerate(images, 1):
            if self._is_stopped.is_set():
                raise UserError("the app was ended", code="stopped")
            yield np.asarray(image)
            advance(number, total)

    def _check_given(self, needs: Needs, given: Mapping[str, object]) -> None:
        style = [] if needs.style is None or needs.has_random_style else [needs.style]
        missing = [name for name in (*needs.content, *style) if name not in given]
        if missing:
            raise UserError("missing input", where=", ".join(missing), advice="give it first", code="missing-input")

    def _join(self, files: Mapping[str, Sequence[Path]], stack: ExitStack) -> Frames:
        frames = Frames({name: _open_frames(self._codecs[name], of, stack) for name, of in files.items()})
        counts = {name: len(of_type) for name, of_type in frames.by_type.items()}
        if len(set(counts.values())) > 1:
            what = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise UserError(f"the numbers of frames differ: {what}", advice="make them agree", code="frames-differ")
        return frames


class Frames(Sequence[Mapping[str, Input]]):
    """The frames of a clip: inputs by their types, read when they are asked for."""

    def __init__(self, by_type: Mapping[str, Sequence[Input]]) -> None:
        self.by_type = by_type

    def __len__(self) -> int:
        return min(map(len, self.by_type.values()), default=0)

    def __getitem__(self, number: Any) -> Any:
        index = range(len(self))[number]  # IndexError behind the last, also without any type
        return {name: frames[index] for name, frames in self.by_type.items()}


class _VideoFrames(Sequence[np.ndarray]):
    """The frames of a video file, H x W x C."""

    def __init__(self, video: Video) -> None:
        self.video = video

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, number: Any) -> Any:
        return self.video.frame(number)


def _open_frames(codec: Codec, paths: Sequence[Path], stack: ExitStack) -> Sequence[Input]:
    """Files in the order of the numbers in their names, as of a data set, or the frames of one video."""
    videos = [path for path in paths if path.suffix.removeprefix(".").lower() in EXTENSIONS]
    if not videos:
        by_name = {path.name: path for path in paths}
        if len(by_name) < len(paths):
            what, advice = "several files have one name", "name frames by their numbers"
            raise UserError(what, where=codec.name, advice=advice, code="same-names")
        return [by_name[name] for name in sort_frames(sorted(by_name))]
    if len(paths) > 1:
        what, advice = f"{len(paths)} files, one of them a video", "give one video, or a file for each frame"
        raise UserError(what, where=codec.name, advice=advice, code="mixed-inputs")
    file = stack.enter_context(paths[0].open("rb"))
    video = Video(file, codec.name, channels=codec.input_type.num_channels, exact=codec.holds_ids)
    stack.callback(video.close)
    return _VideoFrames(video)
