"""The page of a trained generator: that of its images, or of its clips."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from imagier.tools.app.clip_page import ClipPage
from imagier.tools.app.image_page import ImagePage
from imagier.tools.app.making import Maker
from imagier.tools.app.samples import copy_samples

_CSS = """
footer {display: none !important}
#result img, #result video {image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain}
#result .image-frame {width: 100%; height: 100%}
.classes label::before {content: ""; width: 1em; height: 1em; border: 1px solid #8888; border-radius: 3px}
#examples .grid-wrap {height: auto; min-height: 0; max-height: 30em; padding-top: 2em}
#examples img {image-rendering: pixelated}
.classes .wrap {max-height: 14em; overflow: auto}
"""

_KEPT_S = 3600
"""How long files of people are kept."""


def build_page(maker: Maker, title: str, folder: Path) -> tuple[gr.Blocks, str]:
    """The page, and its CSS. folder: for examples, and for clips that are made."""
    samples = copy_samples(maker.form, folder / "examples")
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as blocks:
        gr.Markdown(f"# {title}")
        page = ClipPage(maker, samples, folder) if maker.form.is_video else ImagePage(maker, samples)
    return blocks, _CSS + page.css
