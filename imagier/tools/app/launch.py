"""Opens a trained generator as an app, and serves it until Ctrl-C."""

from __future__ import annotations

import tempfile
from pathlib import Path

from imagier.errors import UserError
from imagier.run.bundle.facts import name_bundle
from imagier.run.mp4 import check_can_encode
from imagier.run.trained_generator import TrainedGenerator, load_generator
from imagier.tools.app.fields import Form
from imagier.tools.app.making import Maker
from imagier.tools.app.server import Server, prepare
from imagier.tools.page.bundle import FACTS, find_bundle
from imagier.train.weight_file import NAME, find_weights


def serve_app(source: Path, host: str, port: int, device: str) -> None:
    """Serves the app of a run, one of its checkpoints or a bundle until a signal ends it.

    UserError if Gradio is not installed, or as of `load_generator` and `open_server`.
    """
    with tempfile.TemporaryDirectory(prefix="imagier_demo_") as folder:
        prepare(Path(folder, "gradio"))
        generator = _open(source, device)
        form = Form(generator)
        if form.is_video:
            check_can_encode()
        from imagier.tools.app.page import build_page  # which imports Gradio

        maker = Maker(form)
        name = name_bundle(generator.config, source if source.is_dir() else source.parent)
        blocks, css = build_page(maker, f"{name}, by {generator.config.trainer.type}", Path(folder))
        server = Server(blocks, css, host, port)
        print(f"serving http://{host}:{server.port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.run()
        except KeyboardInterrupt:
            print()
        finally:
            maker.stop()


def _open(source: Path, device: str) -> TrainedGenerator:
    folder = find_bundle(source)
    if (folder / FACTS).is_file() and find_weights(folder) is None:
        what, advice = f"has no {NAME}, which Python needs", "export it again, with safetensors among the formats"
        raise UserError(what, where=source, advice=advice, code="no-weights")
    return load_generator(folder, device=device)
