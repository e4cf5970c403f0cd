"""The page of a method that makes images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from imagier.run.options import STYLE_SEED
from imagier.tools.app.editors import ClassEditor, Editor, make_editor
from imagier.tools.app.making import Maker
from imagier.tools.app.parts import make_gallery, make_settings, read_settings, show_mistakes
from imagier.tools.app.samples import Sample


class ImagePage:
    """Inputs at the left, the image and the examples at the right."""

    def __init__(self, maker: Maker, samples: Sequence[Sample]) -> None:
        """Adds all of it to the page that is open."""
        self.maker = maker
        self.form = maker.form
        self.samples = samples
        needs = self.form.find_needs({setting.name: setting.value for setting in self.form.settings})
        with gr.Row():
            with gr.Column(scale=3):
                self.editors, self.groups = [], []
                for field in self.form.fields:
                    with gr.Group(visible=field.name in needs.types) as group:
                        self.editors.append(make_editor(self.form, field, needs.describe(field.name), samples[:1]))
                    self.groups.append(group)
            with gr.Column(scale=2):
                make = gr.Button("Make the image", variant="primary", elem_id="make")
                self.result = gr.Image(
                    label="Result", format="png", interactive=False, height=420, buttons=["download"], elem_id="result"
                )
                self.settings = make_settings(self.form)
                with gr.Row(visible=needs.has_random_style):
                    self.seed = gr.Number(STYLE_SEED, label="Seed of the style", precision=0, minimum=0, elem_id="seed")
                    another = gr.Button("Another style", elem_id="another")
                gallery = make_gallery(samples)
        self.inputs = [each for editor in self.editors for each in editor.components]
        self._connect(make, another, gallery)

    @property
    def css(self) -> str:
        """What its parts need."""
        return "\n".join(editor.css for editor in self.editors)

    def _connect(self, make: gr.Button, another: gr.Button, gallery: gr.Gallery | None) -> None:
        """Says what happens when."""
        to_make: dict[str, Any] = {
            "fn": self.make,
            "inputs": [*self.settings, self.seed, *self.inputs],
            "outputs": self.result,
        }
        make.click(**to_make, api_name="make")
        another.click(_add_one, self.seed, self.seed, api_visibility="private").then(
            **to_make, api_visibility="private"
        )
        if gallery is not None:
            gallery.select(self.load_sample, None, self.inputs, api_visibility="private").success(
                **to_make, api_visibility="private"
            )
        for setting in self.settings:
            setting.change(self.change_setting, self.settings, [*self.inputs, *self.groups], api_visibility="private")
        for editor in self.editors:
            if isinstance(editor, ClassEditor):
                editor.classes.change(editor.choose, editor.classes, editor.canvas, api_visibility="private")
                editor.file.upload(_open_file(editor), editor.file, editor.components, api_visibility="private")

    def make(self, *values: Any) -> Any:
        """The image that follows from the values of settings, seed and inputs."""
        count = len(self.settings)
        settings, seed, waiting = read_settings(self.form, values[:count]), values[count], iter(values[count + 1 :])
        with show_mistakes():
            read = {each.field.name: each.read(*(next(waiting) for _ in each.components)) for each in self.editors}
            given = {name: value for name, value in read.items() if value is not None}
            return self.maker.make_image(given, settings, STYLE_SEED if seed is None else int(seed))

    def load_sample(self, event: gr.SelectData) -> list[Any]:
        """The values of all inputs that show the example which was clicked on."""
        files = self.samples[event.index].files
        with show_mistakes():
            return [value for editor in self.editors for value in _load_first(editor, files.get(editor.field.name, []))]

    def change_setting(self, *values: Any) -> list[Any]:
        """Which inputs are asked for with these settings, and what they are called."""
        needs = self.form.find_needs(read_settings(self.form, values))
        names = [editor.field.name for editor in self.editors]
        updates = [each for editor, name in zip(self.editors, names) for each in editor.rename(needs.describe(name))]
        return [*updates, *(gr.update(visible=name in needs.types) for name in names)]


def _add_one(seed: int | None) -> int:
    return int(seed or 0) + 1


def _load_first(editor: Editor, paths: Sequence[Path]) -> list[Any]:
    return editor.load(paths[0]) if paths else [gr.skip() for _ in editor.components]


def _open_file(editor: ClassEditor) -> Callable[[str], list[Any]]:
    def open_file(path: str) -> list[Any]:
        with show_mistakes():
            return editor.load(Path(path))

    return open_file
