"""Headless Chromium, driven by the DevTools protocol over pipes: what a person does on a page, and what it shows."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = "needs Chromium (Debian's package chromium)"
needs_chromium = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason=NO_CHROMIUM)
"""Where CI is set, tests without it fail: nobody would see that they were skipped."""

_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--mute-audio"]
_BUTTONS = {"mousePressed": 1, "mouseMoved": 1, "mouseReleased": 0}


class Browser:
    """One page. `problems` are the errors that it logged or did not catch; files it saves are in `downloads`."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None, NO_CHROMIUM
        self.downloads = folder / "downloads"
        self.problems: list[str] = []
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (to_child, from_child)]  # Chromium wants 3 and 4
        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=lambda: [os.dup2(fd, number) for fd, number in zip(high, (3, 4))],
        )
        for each in (to_child, from_child, *high):
            os.close(each)
        self._received = b""
        self._count = 0
        self._saved = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        allowed = {"behavior": "allow", "downloadPath": str(self.downloads), "eventsEnabled": True}
        self._call("Browser.setDownloadBehavior", **allowed)

    def close(self) -> None:
        """Ends the browser."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def resize(self, width: int, height: int, *, is_dark: bool = False, is_touch: bool = False) -> None:
        """The size of the window in CSS pixels, and the scheme of colors that the person likes."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_touch
        )
        scheme = "dark" if is_dark else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        """Goes to an address, and waits until it has loaded."""
        self._call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or that of the promise that it gives."""
        result = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"still not: {expression}; {self.problems}"
            time.sleep(0.03)

    def click(self, selector: str) -> None:
        """Clicks on the middle of an element."""
        self.drag(selector, (0.5, 0.5))

    def drag(self, selector: str, *points: tuple[float, float]) -> None:
        """Draws with the mouse from point to point. 0, 0 is the upper left corner of the element, 1, 1 the opposite."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'});"
            " const {left, top, width, height} = e.getBoundingClientRect(); return [left, top, width, height]; })()"
        )
        spots = [(box[0] + x * box[2], box[1] + y * box[3]) for x, y in points]
        events = [
            ("mousePressed", spots[0]),
            *(("mouseMoved", spot) for spot in spots[1:]),
            ("mouseReleased", spots[-1]),
        ]
        for kind, (x, y) in events:
            self._call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=_BUTTONS[kind], clickCount=1
            )

    @contextmanager
    def running_first(self, script: str) -> Iterator[None]:
        """While this is open, a script runs in every page before the page's own."""
        added = self._call("Page.addScriptToEvaluateOnNewDocument", source=script)
        yield
        self._call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])

    def press(self, key: str, *, code: str = "", modifiers: int = 0) -> None:
        """Presses a key. modifiers: 2 for Ctrl, 8 for Shift."""
        text = {"text": key} if len(key) == 1 and not modifiers & 2 else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, modifiers=modifiers, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code, modifiers=modifiers)

    def choose_file(self, selector: str, path: Path) -> None:
        """Gives a file to an element that asks for one."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def download(self, selector: str, name: str) -> Path:
        """Clicks on an element that saves a file; returns the file."""
        path = self.downloads / name
        path.unlink(missing_ok=True)
        saved = self._saved
        self.click(selector)
        end = time.monotonic() + 20
        while self._saved == saved:
            assert time.monotonic() < end, f"{name} was not saved"
            time.sleep(0.02)
            self.evaluate("0")  # which reads what happened meanwhile
        return path

    def screenshot(self, path: Path, *, is_whole: bool = False) -> None:
        """Writes a PNG of what is seen, or of the whole page."""
        image = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(image["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note_event(answer)
        raise AssertionError(f"Chromium ended before it answered {method}")

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._received:
                message, self._received = self._received.split(b"\0", 1)
                yield json.loads(message)
            ready, _, _ = select.select([self._in], [], [], 120)
            assert ready, "Chromium does not answer"
            read = os.read(self._in, 1 << 20)
            if not read:
                return
            self._received += read

    def _note_event(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Browser.downloadProgress":
            self._saved += params["state"] == "completed"
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A browser, ended at the end."""
    browser = Browser(folder)
    try:
        yield browser
    finally:
        browser.close()
