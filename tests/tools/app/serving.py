"""The app of a generator, served for a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagier.tools.app.making import Maker


@contextmanager
def served(maker: Maker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the app."""
    from imagier.tools.app.page import build_page
    from imagier.tools.app.server import Server, prepare

    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # as it was, afterwards
    prepare(folder / "gradio")
    server = Server(*build_page(maker, "test", folder), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        server.stop()
        thread.join()
