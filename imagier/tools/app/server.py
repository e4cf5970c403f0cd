"""Serves the app: to this machine alone unless told otherwise, and with nothing that comes from elsewhere."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagier.errors import UserError
from imagier.tools.page.server import explain_address

if TYPE_CHECKING:
    import uvicorn
    from gradio import Blocks

_ELSEWHERE = re.compile(rb'<(?:script|link)\b[^>]*\b(?:src|href)="https?:[^>]*>(?:\s*</script>)?')
"""The parts of a page that load something from another host."""

_POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
"""What a browser may load: only what the app serves."""

_PATIENCE_S = 1
"""How long open pages are waited for when the app ends."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def prepare(folder: Path) -> None:
    """Settings that Gradio reads from the environment: its files go into a folder, and it calls nobody.

    UserError if it is not installed.
    """
    if find_spec("gradio") is None:
        what, advice = "the package gradio is not installed", "run: pip install 'imagier[gradio]'"
        raise UserError(what, advice=advice, code="not-installed")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


class Server:
    """Listens as soon as it is made; `run` answers, in this thread, until a signal or `stop`."""

    def __init__(self, blocks: Blocks, css: str, host: str, port: int) -> None:
        """css: that of the page. port: 0 for a free one. UserError as of `open_server`."""
        with explain_address(host, port):
            self._socket = socket.create_server((host, port))
        self.port: int = self._socket.getsockname()[1]
        self._server = _build_server(blocks, css)

    def run(self) -> None:
        """Answers. KeyboardInterrupt at the end if a signal ended it, after all has been put away."""
        with self._socket:
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Ends it, from another thread."""
        self._server.should_exit = True


def _build_server(blocks: Blocks, css: str) -> uvicorn.Server:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    app = gr.mount_gradio_app(FastAPI(), blocks, path="/", theme=theme, css=css, footer_links=[])
    config = uvicorn.Config(
        load_nothing_from_elsewhere(app),
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    return uvicorn.Server(config)


def load_nothing_from_elsewhere(app: Application) -> Application:
    """An ASGI application whose pages name no other host, and whose browser is not allowed to ask one."""

    async def call(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        await app({**scope, "headers": plain}, receive, _Cleaner(send))

    return call


class _Cleaner:
    """Sends an answer on; of a page as a whole, without what is elsewhere."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._page = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            if any(name == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"]):
                self._start = message
                return
        if self._start is None:
            await self._send(message)
            return
        self._page += message.get("body", b"")
        if not message.get("more_body"):
            page = _ELSEWHERE.sub(b"", self._page)
            kept = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
            length = (b"content-length", str(len(page)).encode())
            await self._send({**self._start, "headers": [*kept, length]})
            await self._send({"type": "http.response.body", "body": page})
