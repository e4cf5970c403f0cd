"""TensorBoard and Weights & Biases: what they are sent, and that their failures end nothing."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from test_tolerant import full_at

from imagier.errors import UserError
from imagier.train.hooks.log import Record
from imagier.train.hooks.tensorboard import TensorBoard
from imagier.train.hooks.tolerant import TolerantSink
from imagier.train.hooks.wandb import ID_FILE, WandB

CONFIG = {"gen": {"num_filters": 8, "type": "spade"}, "roots": ["a", "b"], "amp": False, "keep_best": None}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.full((4, 6, 3), 200, np.uint8))
    return path


def read_events(logdir: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(logdir / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_tensorboard_gets_scalars_images_and_the_config(tmp_path: Path, image: Path) -> None:
    pytest.importorskip("tensorboard")
    text = "gen: {num_filters: 8}\n"
    sink = TensorBoard(tmp_path, from_step=0, images=True, config=CONFIG, config_text=text, metrics=["L1/average"])
    sink.scalars(Record(5, 0, {"gen_update/GAN": 0.5, "L1/average": 0.25}))
    sink.image(image, 5)
    sink.close()
    events = read_events(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("gen_update/GAN")] == [(5, 0.5)]
    (shown,) = events.Images("Visualizations")
    assert (shown.step, shown.height, shown.width) == (5, 4, 6)
    pixels = cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert (pixels == cv2.imread(str(image))).all()
    (written,) = events.Tensors("config/text_summary")
    assert text in written.tensor_proto.string_val[0].decode()


def test_runs_can_be_compared_by_their_hyperparameters_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import metadata

    TensorBoard(tmp_path, from_step=0, images=True, config=CONFIG, metrics=["L1/average"]).close()
    tags = read_events(tmp_path).PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG])
    values = {
        key: value.WhichOneof("kind") and getattr(value, value.WhichOneof("kind"))
        for key, value in start.hparams.items()
    }
    assert values == {
        "gen.num_filters": 8,
        "gen.type": "spade",
        "roots": "['a', 'b']",
        "amp": False,
        "keep_best": "None",
    }
    experiment = metadata.parse_experiment_plugin_data(tags[metadata.EXPERIMENT_TAG])
    assert [info.name.tag for info in experiment.metric_infos] == ["L1/average"]


def test_the_viewer_hides_what_an_attempt_that_got_further_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    for start, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        monkeypatch.setattr("imagier.train.hooks.tensorboard.getpid", lambda start=start: 100 + start)
        sink = TensorBoard(tmp_path, from_step=start, images=True)
        for step in steps:
            sink.scalars(Record(step, 0, {"a": start + step}))
        sink.close()
    assert [(e.step, e.value) for e in read_events(tmp_path).Scalars("a")] == [(2, 2), (4, 4), (6, 10), (8, 12)]


def test_tensorboard_catches_up_after_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, image: Path
) -> None:
    """The library's own writer would print a traceback in a thread, and write nothing more."""
    pytest.importorskip("tensorboard")
    caplog.set_level(logging.INFO)
    threads = threading.active_count()
    sink = TolerantSink(TensorBoard(tmp_path, from_step=0, images=False), "TensorBoard's log")
    sink.scalars(Record(1, 0, {"a": 1.0}))
    with full_at(10):
        for step in (2, 3):
            sink.scalars(Record(step, 0, {"a": 1.0}))
            sink.image(image, step)  # which it does not show: no sign that it works again
    assert caplog.messages == ["TensorBoard's log cannot be written: File too large; training continues"]
    sink.scalars(Record(4, 0, {"a": 1.0}))
    sink.close()
    assert caplog.messages[1:] == ["TensorBoard's log can be written again"]
    assert [e.step for e in read_events(tmp_path).Scalars("a")] == [1, 2, 3, 4]
    assert threading.active_count() == threads


def test_a_folder_that_tensorboard_cannot_have_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file")
    sink = TolerantSink(TensorBoard(tmp_path, from_step=0, images=True), "TensorBoard's log")
    for step in (1, 2):
        sink.scalars(Record(step, 0, {"a": 1.0}))
    sink.close()
    assert caplog.messages == ["TensorBoard's log cannot be written: File exists; training continues"]


def test_a_tensorboard_that_cannot_be_imported_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    sink = TolerantSink(TensorBoard(tmp_path, from_step=0, images=True), "TensorBoard's log")
    sink.scalars(Record(1, 0, {"a": 1.0}))
    sink.close()
    (line,) = caplog.messages
    assert line.startswith("TensorBoard's log cannot be written: the package cannot be imported: ")


class WandbError(Exception):
    """Stands for `wandb.Error`."""


class FakeRun:
    """A W&B run that keeps its calls; as the real one, it drops what is logged for an earlier step than the last."""

    def __init__(self) -> None:
        self.axes: dict[str, str | None] = {}
        self.logged: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.id = ""
        self.agents_id: str | None = None
        """Within a sweep, the id that W&B's agent has chosen, whatever the program asks for."""

    def init(self, id: str, **options: object) -> FakeRun:
        self.id = self.agents_id or id
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        assert step is None, "W&B's own step never goes back"
        if self.error is not None:
            raise self.error
        self.logged.append(values)

    def finish(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run = FakeRun()
    module = SimpleNamespace(Error=WandbError, Image=lambda path: f"image of {path}", init=run.init)
    monkeypatch.setitem(__import__("sys").modules, "wandb", module)
    return run


def start_wandb(logdir: Path, **options: Any) -> WandB:
    return WandB(logdir, **{"project": "p", "run_id": None, "resuming": False, "config": {}, **options})


def test_wandb_has_one_panel_of_images_and_an_axis_that_goes_back_with_a_rollback(
    tmp_path: Path, fake: FakeRun, image: Path
) -> None:
    sink = start_wandb(tmp_path)
    for step in (100, 200, 150):
        sink.scalars(Record(step, 1, {"a": 0.5}))
        sink.image(image.with_name(f"iteration_{step}.jpg"), step)
    assert fake.axes == {"iteration": None, "*": "iteration"}
    assert [values["iteration"] for values in fake.logged] == [100, 100, 200, 200, 150, 150]
    shown = [values for values in fake.logged if "a" not in values]
    assert all(values.keys() == {"iteration", "Visualizations"} for values in shown)
    assert [values["Visualizations"].rpartition("_")[2] for values in shown] == ["100.jpg", "200.jpg", "150.jpg"]


def test_a_wandb_that_fails_ends_nothing_and_says_so_once(
    tmp_path: Path, fake: FakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sink = TolerantSink(start_wandb(tmp_path), "W&B's log")
    fake.error = ConnectionResetError("Connection lost")  # of the real one, once its service was killed
    for step in (1, 2):
        sink.scalars(Record(step, 0, {"a": 1.0}))
    fake.error = None
    sink.scalars(Record(3, 0, {"a": 1.0}))
    fake.error = WandbError("upload failed")
    sink.close()
    assert caplog.messages == [
        "W&B's log cannot be written: Connection lost; training continues",
        "W&B's log can be written again",
        "W&B's log cannot be written: upload failed; training continues",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"abc\x00def", b"one\ntwo\n", b"\x1b[31m"])
def test_a_wandb_id_that_is_none_is_one_line(tmp_path: Path, fake: FakeRun, content: bytes) -> None:
    (tmp_path / ID_FILE).write_bytes(content)
    with pytest.raises(UserError) as caught:
        start_wandb(tmp_path, resuming=True)
    assert (caught.value.where, caught.value.code) == (str(tmp_path / ID_FILE), "bad-wandb-id")
    assert "\n" not in str(caught.value)
    assert start_wandb(tmp_path, resuming=True, run_id="given").run_id == "given"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), WandbError("not logged in\nmore")])
def test_a_wandb_that_cannot_start_is_one_line(
    tmp_path: Path, fake: FakeRun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(**options: Any) -> None:
        raise error

    monkeypatch.setattr(__import__("wandb"), "init", fail)
    with pytest.raises(UserError) as caught:
        start_wandb(tmp_path)
    assert caught.value.code == "wandb-failed" and "\n" not in str(caught.value)


def test_a_run_of_a_sweep_keeps_the_id_that_the_agent_chose(tmp_path: Path, fake: FakeRun) -> None:
    fake.agents_id = "agents"
    assert start_wandb(tmp_path).run_id == "agents" == (tmp_path / ID_FILE).read_text().strip()


def test_an_empty_wandb_id_is_that_of_the_checkpoint(tmp_path: Path, fake: FakeRun) -> None:
    (tmp_path / ID_FILE).write_text("\n")
    assert start_wandb(tmp_path, resuming=True, kept_id="kept").run_id == "kept"


@pytest.mark.slow
def test_wandb_offline_keeps_its_id_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")

    def log_one(resuming: bool, step: int) -> str:
        sink = start_wandb(tmp_path, resuming=resuming, config={"a": 1})
        sink.scalars(Record(step, 0, {"gen_update/GAN": 0.5}))
        sink.image(image, step)
        sink.close()
        return (tmp_path / ID_FILE).read_text().strip()

    first = log_one(resuming=False, step=1)
    assert log_one(resuming=True, step=2) == first
    assert log_one(resuming=False, step=1) != first
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{first}"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    sink = start_wandb(elsewhere, resuming=True, kept_id="abcd1234")
    sink.close()
    assert (sink.run_id, (elsewhere / ID_FILE).read_text()) == ("abcd1234", "abcd1234\n"), "that of the checkpoint"
