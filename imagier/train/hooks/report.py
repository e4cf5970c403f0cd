"""report.html: a run on one page, which needs no other file."""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as package_files
from pathlib import Path

import cv2
import jinja2
import matplotlib
from matplotlib.figure import Figure

from imagier.train.disk import write_atomic
from imagier.train.hooks import files
from imagier.train.hooks.evaluation import Evaluation, format_table
from imagier.train.hooks.images import encode, read_image
from imagier.train.trainer import Progress, Trainer

NAME = "report.html"
IMAGES = 6
STRIP_HEIGHT_PX = 640

_VERSIONS = ("imagier", "torch", "numpy", "opencv-python-headless")


class Report:
    """Writes <logdir>/report.html when a run ends: scores, curves, images over time, and how they were made."""

    def __init__(
        self,
        logdir: Path,
        command: str,
        seed: int,
        evaluation: Evaluation | None,
        verdicts: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """verdicts: returns what is wrong with the run at its end, in words."""
        self.logdir = logdir
        self.command = command
        self.seed = seed
        self.evaluation = evaluation
        self.verdicts = verdicts

    def after_step(self, trainer: Trainer, progress: Progress) -> None:
        """The report is written at the end."""

    def after_fit(self, trainer: Trainer, progress: Progress | None) -> None:
        records = files.read(self.logdir)
        scores = self.evaluation.last if self.evaluation is not None else {}
        facts = {
            "iterations": f"{trainer.step:,}",
            "epochs": f"{trainer.position.epoch:,}",
            "device": trainer.runtime.describe(),
            "peak memory": f"{trainer.runtime.peak_memory_bytes() / 2**30:.2f} GiB",
            "seed": str(self.seed),
            "command": self.command,
            "versions": ", ".join(f"{name} {_find_version(name)}" for name in _VERSIONS),
            "python": platform.python_version(),
        }
        text = _load_template().render(
            title=self.logdir.name,
            facts=facts,
            scores=format_table(scores),
            meanings=[metric.meaning for metric in self.evaluation.metrics] if self.evaluation is not None else [],
            verdicts=self.verdicts(),
            curves=draw_curves(records),
            images=_embed_images(self.logdir / "images"),
        )
        with write_atomic(self.logdir / NAME) as file:
            file.write(text.encode())


def draw_curves(records: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Every logged scalar over the iterations, one SVG per group of tags ("gen_update", "dis_update", ...)."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for tag, value in record.items():
            room, slash, name = tag.partition("/")
            if slash and room not in ("memory", "time", "speed"):
                groups.setdefault(room, {}).setdefault(name, []).append((record["step"], value))
    return {room: _draw_chart(lines) for room, lines in groups.items()}


def _draw_chart(lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Named lines -> an SVG whose text has the color of the page's text."""
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for name, points in lines.items():
            steps, values = zip(*points)
            axes.plot(steps, values, label=name, linewidth=1.4, marker="o" if len(points) == 1 else None)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :].replace("#000000", "currentColor").replace("black", "currentColor")


def _find_version(name: str) -> str:
    """The version of a distribution; "?" if it is not installed (opencv-python may take the place of another)."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def _embed_images(folder: Path) -> list[tuple[str, str]]:
    """Some of the saved images, evenly spread over the run: (caption, data URI)."""
    paths = sorted(folder.glob("epoch_*_iteration_*.jpg"), key=_parse_iteration)
    count = min(IMAGES, len(paths))
    chosen = [paths[round(i * (len(paths) - 1) / max(count - 1, 1))] for i in range(count)]
    return [(f"iteration {_parse_iteration(path):,}", _encode_data_uri(path)) for path in chosen]


def _parse_iteration(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _encode_data_uri(path: Path) -> str:
    image = read_image(path)
    scale = min(1.0, STRIP_HEIGHT_PX / image.shape[0])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, '.jpg')).decode()}"


def _load_template() -> jinja2.Template:
    source = (package_files("imagier.train.hooks") / "report.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True).from_string(source)
