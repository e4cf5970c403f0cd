"""Parts that all pages have: settings, examples, mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from imagier.errors import UserError
from imagier.tools.app.fields import Form, Setting
from imagier.tools.app.samples import Sample


@contextmanager
def show_mistakes() -> Iterator[None]:
    """Shows a UserError as a line on the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error


def make_settings(form: Form) -> list[gr.Checkbox | gr.Number]:
    """A part for each setting."""
    return [_make_setting(each) for each in form.settings]


def read_settings(form: Form, values: Sequence[Any]) -> dict[str, Any]:
    """The values of the settings by name; those that a person has emptied are the defaults."""
    return {each.name: each.value if value is None else each.kind(value) for each, value in zip(form.settings, values)}


def make_gallery(samples: Sequence[Sample]) -> gr.Gallery | None:
    """The examples to choose from; None without any."""
    if not samples:
        return None
    return gr.Gallery(
        [(sample.image, sample.name) for sample in samples],
        label="Examples: click on one",
        columns=4,
        height="auto",
        buttons=[],
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        format="png",
        elem_id="examples",
    )


def _make_setting(setting: Setting) -> gr.Checkbox | gr.Number:
    if setting.kind is bool:
        return gr.Checkbox(setting.value, label=setting.name, info=setting.text, elem_id=f"setting-{setting.name}")
    precision = 0 if setting.kind is int else None
    return gr.Number(
        setting.value, label=setting.name, info=setting.text, precision=precision, elem_id=f"setting-{setting.name}"
    )
