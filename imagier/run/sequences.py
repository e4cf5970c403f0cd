"""Whole sequences from a trained generator of clips: a file a frame, and a video. A killed run goes on where it was."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import torch
from torch import Tensor

from imagier.data.loading.loader import Loader
from imagier.recipe import Batch, Recipe, State
from imagier.run import mp4
from imagier.run.image_files import ImageFolder
from imagier.run.paths import COMPARISON, ROOT_NAME
from imagier.run.sizes import SizeReport, get_stored_size, resize
from imagier.train.clips import name_sequence, roll_out
from imagier.train.disk import remove_temporaries
from imagier.train.hooks.images import read_image, tile_columns, to_uint8
from imagier.train.runtime import Runtime

logger = logging.getLogger(__name__)

STATE_EVERY = 25
"""Frames between two states on the disk, from which a killed run goes on."""


@dataclass
class _Sequence:
    """A sequence that is being written."""

    name: str
    key: str
    """A hash of all that its files depend on: a state or a video with another one is not ours."""
    left: Sequence[int]
    """Indices of the frames that are still to be read."""
    made: list[str]
    """The names of the frames that are written, "sequence/name", in order."""
    state: State | None


class SequenceWriter:
    """Writes <folder>/<sequence>/<frame>.<format> and <folder>/<sequence>.mp4 for this rank's share of a set."""

    def __init__(
        self,
        recipe: Recipe,
        runtime: Runtime,
        folder: ImageFolder,
        seed: Callable[[str], Sequence[int]],
        *,
        fit: Callable[[str, Batch], Recipe],
        key: str,
        fps: float,
        has_comparison: bool,
        size_types: Sequence[str],
        brings_back: bool,
    ) -> None:
        """seed: gives the numbers that all that is random in a frame follows from, by its name. fit: what makes a
        sequence, by its name and its first prepared frame: the recipe, or one that is fitted to it.

        key: a hash of all that the files depend on, beside the sequence. has_comparison: also write inputs, result and
        truth side by side, into COMPARISON. size_types: input types whose files have the size that frames should have;
        brings_back: they get it. UserError if PyAV is not installed.
        """
        mp4.check_can_encode()
        self.recipe = recipe
        self.runtime = runtime
        self.folder = folder
        self.comparison = folder.descend(COMPARISON) if has_comparison else None
        self.folders = [folder] if self.comparison is None else [folder, self.comparison]
        self.seed = seed
        self.fit = fit
        self.key = key
        self.fps = fps
        self.size_types = size_types
        self.brings_back = brings_back
        self.report = SizeReport()

    def write(self, loader: Loader) -> list[Path]:
        """Returns the videos, in order, also those that were finished before. UserError: files that are wrong.

        loader: of the frames of the set, of which each block is a sequence.
        """
        planned = (self._plan(loader, run) for run in loader.list_runs())
        sequences = [sequence for sequence in planned if sequence is not None]
        waiting = {sequence.name: sequence for sequence in sequences if not self._is_finished(sequence)}
        if len(waiting) < len(sequences):
            logger.info(f"{self.folder.folder}: {len(sequences) - len(waiting)} sequences are there already")
        left = [sequence.left for sequence in waiting.values() if sequence.left]
        batches = loader.read(left)
        frames = (frame for batch in batches for frame in batch.split(len(batch)))
        for sequence in waiting.values():
            self._remove_temporaries(sequence)
        for name, of_sequence in groupby(frames, key=name_sequence):
            self._roll_out(waiting[name], of_sequence)
            self._finish(waiting.pop(name))
        for sequence in waiting.values():  # killed between the last good frame and the video
            self._finish(sequence)
        return [self._video_path(self.folder, sequence) for sequence in sequences]

    def _plan(self, loader: Loader, run: range) -> _Sequence | None:
        """What is left to do for a sequence, by what is on the disk; None if none of its frames can be read."""
        first = loader.read_first(run)
        if first.sample is None:
            logger.warning(f"skipped: a sequence, of whose {len(run)} frames none can be read: {first.skipped[0]}")
            return None
        name = next(iter(first.sample.keys.values())).rpartition("/")[0]
        key = hashlib.sha256(f"{self.key} {name} {len(run)}".encode("utf-8", "surrogateescape")).hexdigest()
        sequence = _Sequence(name, key, run, [], None)
        path = self._state_path(sequence)
        if path.is_file():
            kept = _read_state(path, self.runtime.device)
            if kept.get("key") == key and self._has_frames(kept["made"]):
                sequence.made, sequence.state = kept["made"], kept["state"]
                sequence.left = run[len(sequence.made) :]
                logger.info(f"{name}: goes on after frame {len(sequence.made)} of {len(run)}")
        return sequence

    def _has_frames(self, names: Sequence[str]) -> bool:
        return all(folder.get_path(name).is_file() for folder in self.folders for name in names)

    def _remove_temporaries(self, sequence: _Sequence) -> None:
        """Of a process that was killed; no other rank writes these files."""
        for folder in self.folders:
            remove_temporaries(folder.folder / sequence.name)
            video = self._video_path(folder, sequence)
            remove_temporaries(video.parent, video.name)
        state = self._state_path(sequence)
        remove_temporaries(state.parent, state.name)

    def _is_finished(self, sequence: _Sequence) -> bool:
        """Whether its videos are there, and no frame of them has been removed since."""
        for folder in self.folders:
            key, count = mp4.read_header(self._video_path(folder, sequence))
            frames = (folder.folder / sequence.name).glob(f"*.{folder.format}")
            if key != sequence.key or sum(1 for _ in frames) < count:
                return False
        return True

    def _roll_out(self, sequence: _Sequence, frames: Iterable[Batch]) -> None:
        known = set(sequence.made)  # broken frames that were skipped make what is left begin too early
        fresh = (self.recipe.prepare(frame) for frame in frames if _name(frame) not in known)
        first = next(fresh, None)
        if first is None:
            return
        recipe = self.fit(sequence.name, first)
        frames = chain([first], fresh)
        made = roll_out(recipe, frames, lambda frame: self.seed(_name(frame)), self.runtime, sequence.state)
        for frame, outputs, state in made:
            self._write_frame(frame, self.recipe.visualize_frame(outputs)["fake"])
            sequence.made.append(_name(frame))
            sequence.state = state
            if len(sequence.made) % STATE_EVERY == 0:
                self._save_state(sequence)

    def _write_frame(self, frame: Batch, made: Tensor) -> None:
        name, image = _name(frame), made[0]
        stored, painted = get_stored_size(frame, self.size_types), (image.shape[-2], image.shape[-1])
        if self.brings_back and stored is not None:
            image, painted = resize(image, stored), stored
        self.folder.write(name, to_uint8(image))
        self.report.add(name, painted, stored)
        if self.comparison is not None:
            target = self.recipe.target(frame)
            inputs = self.recipe.visualize_inputs(frame).values()
            shown = [each for each in inputs if target is None or not torch.equal(each, target)]
            truth = [] if target is None else [target]
            self.comparison.write(name, tile_columns([*shown, made, *truth]))

    def _save_state(self, sequence: _Sequence) -> None:
        state = {name: tensor.cpu() for name, tensor in (sequence.state or {}).items()}
        buffer = io.BytesIO()
        torch.save({"key": sequence.key, "made": sequence.made, "state": state}, buffer)
        with self.folder.open(self._state_path(sequence)) as file:
            file.write(buffer.getbuffer())

    def _finish(self, sequence: _Sequence) -> None:
        """Writes the videos of all frames; what a killed run would go on from is not needed any more."""
        for folder in self.folders:
            frames = (read_image(folder.get_path(name)) for name in sequence.made)
            with folder.open(self._video_path(folder, sequence)) as file:
                mp4.encode_mp4(file, frames, self.fps, sequence.key)
        self._state_path(sequence).unlink(missing_ok=True)

    def _video_path(self, folder: ImageFolder, sequence: _Sequence) -> Path:
        name = ROOT_NAME if sequence.name in ("", ".") else sequence.name
        return folder.get_path(name, "mp4")

    def _state_path(self, sequence: _Sequence) -> Path:
        path = self._video_path(self.folder, sequence)
        return path.with_name(f".{path.stem}.state")


def _name(frame: Batch) -> str:
    return next(iter(frame.keys.values()))[0]


def _read_state(path: Path, device: torch.device) -> dict:
    """What `_save_state` wrote; empty for a file of another program."""
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        return {}
