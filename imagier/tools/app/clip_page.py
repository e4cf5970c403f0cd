"""The page of a method that makes clips."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from imagier.tools.app.making import Maker
from imagier.tools.app.parts import make_gallery, make_settings, read_settings, show_mistakes
from imagier.tools.app.samples import Sample

_PROGRESS = gr.Progress()
"""As a default of the first argument of what makes a clip, it is what Gradio shows."""


class ClipPage:
    """Files of frames, or videos, at the left; the clip and the examples at the right."""

    css = ""

    def __init__(self, maker: Maker, samples: Sequence[Sample], folder: Path) -> None:
        """Adds all of it to the page that is open. folder: where clips are written."""
        self.maker = maker
        self.form = maker.form
        self.samples = samples
        self.folder = folder
        needs = self.form.find_needs({setting.name: setting.value for setting in self.form.settings})
        with gr.Row():
            with gr.Column(scale=3):
                gr.Markdown(
                    "The frames of a clip, a file for each, in the order of the numbers in their names; or a video."
                )
                self.files = {name: _make_files(name, f"input-{name}") for name in needs.content}
                self.references = {}
                if needs.references:
                    gr.Markdown("Frames for reference, which show who or what is to move; of each type the same ones.")
                    self.references = {name: _make_files(name, f"reference-{name}") for name in needs.references}
            with gr.Column(scale=2):
                make = gr.Button("Make the clip", variant="primary", elem_id="make")
                self.result = gr.Video(
                    label="Result",
                    interactive=False,
                    autoplay=True,
                    loop=True,
                    height=420,
                    buttons=["download"],
                    elem_id="result",
                )
                self.settings = make_settings(self.form)
                gallery = make_gallery(samples)
        inputs = [*self.files.values(), *self.references.values()]
        to_make: dict[str, Any] = {"fn": self.make, "inputs": [*self.settings, *inputs], "outputs": self.result}
        make.click(**to_make, api_name="make")
        if gallery is not None:
            gallery.select(self.load_sample, None, inputs, api_visibility="private").success(
                **to_make, api_visibility="private"
            )

    def make(self, progress: gr.Progress = _PROGRESS, *values: Any) -> str:
        """The video that follows from the values of settings and inputs."""
        waiting = iter(values)
        settings = read_settings(self.form, [next(waiting) for _ in self.settings])
        files, references = (
            {name: [Path(each) for each in next(waiting) or []] for name in of} for of in (self.files, self.references)
        )
        path = Path(tempfile.mkdtemp(dir=self.folder), "clip.mp4")
        with show_mistakes():
            self.maker.make_clip(files, references, settings, path, lambda *done: progress(done, unit="frames"))
        return str(path)

    def load_sample(self, event: gr.SelectData) -> list[Any]:
        """The files of the example that was clicked on."""
        sample = self.samples[event.index]
        return [_list(sample.files, name) for name in self.files] + [
            _list(sample.references, name) for name in self.references
        ]


def _list(files: Mapping[str, Sequence[Path]], name: str) -> list[str]:
    return [str(path) for path in files.get(name, [])]


def _make_files(name: str, id: str) -> gr.File:
    return gr.File(label=name, file_count="multiple", elem_id=id, height=160)
