"""Animations of a training: what they show, their size, and where they go."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_clips import LENGTHS, SIDE, Summing
from test_hooks import NO_CALIBRATION, Kept, progress
from test_trackers import FakeRun, read_events, start_wandb
from test_trainer import trainer
from torch import Tensor

from imagier.recipe import Batch, State
from imagier.train.hooks.animation import encode_gif
from imagier.train.hooks.images import Images, read_grid
from imagier.train.hooks.page import render_page
from imagier.train.hooks.tensorboard import TensorBoard
from imagier.train.trainer import Outcome


class Detailed(Summing):
    """Has a detail from the second frame on."""

    def visualize_frame(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        return {"fake": outputs["fake_images"], **({"raw": outputs["raw"]} if "raw" in outputs else {})}

    def rollout(
        self, frames: Iterable[Batch], rng: torch.Generator, state: State | None = None
    ) -> Iterator[tuple[dict[str, Tensor], State]]:
        for number, (outputs, after) in enumerate(super().rollout(frames, rng, state)):
            yield {**outputs, **({"raw": torch.ones_like(outputs["fake_images"])} if number else {})}, after


def gray(t: int) -> Batch:
    """Two clips whose frames grow lighter."""
    images = torch.full((2, 1, 3, SIDE, SIDE), t / 4 - 0.5)
    return Batch({"images": images}, {"images": [f"{name}/{t}" for name in list(LENGTHS)[:2]]})


def frames_of(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image.convert("RGB")))
    return found


@pytest.fixture
def shown(tmp_path: Path) -> tuple[Path, Kept]:
    sink = Kept()
    frames = [gray(t) for t in range(4)]
    hook = Images(tmp_path, frames, NO_CALIBRATION, [sink], every=[1], display_every=9, seed=0)
    hook.after_step(trainer(Detailed(0.0)), progress(1, {}, Outcome.DONE))
    return tmp_path / "images" / "epoch_00000_iteration_000000001.gif", sink


def test_an_animation_shows_every_frame_of_inputs_and_results_and_the_image_the_last_one(
    shown: tuple[Path, Kept],
) -> None:
    path, sink = shown
    clip = frames_of(path.read_bytes())
    assert len(clip) == 4 and clip[0].shape == (2 * SIDE, 2 * SIDE, 3)
    reals = [(t / 4 + 0.5) * 127.5 for t in range(4)]
    made = [reals[0], *[0.0] * 3]
    for t in range(1, 4):
        made[t] = (made[t - 1] + reals[t]) / 2
    for frame, real, fake in zip(clip, reals, made):
        assert abs(frame[:, :SIDE].mean() - real) < 2 and abs(frame[:, SIDE:].mean() - fake) < 2
    assert read_grid(path).columns == [("target (real)", SIDE), ("generated", SIDE)]
    grid = read_grid(path.with_suffix(".jpg"))
    assert [name for name, _ in grid.columns] == ["target (real)", "generated", "raw"]
    with Image.open(grid.path) as image:
        assert np.asarray(image)[:, 2 * SIDE :].mean() > 250
    assert [each.suffix for each, _ in sink.images] == [".jpg", ".gif"]


def test_what_the_first_frames_do_not_have_is_gray(tmp_path: Path) -> None:
    hook = Images(tmp_path, [gray(t) for t in range(2)], NO_CALIBRATION, [], every=[1], display_every=9, seed=0)
    first, second = hook.columns(trainer(Detailed(0.0)))
    assert [column.heading for column in first] == [column.heading for column in second]
    assert (first[2].images == 0).all() and (second[2].images == 1).all()


def test_an_animation_is_made_smaller_until_it_fits() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (90, 120, 3), np.uint8) for _ in range(6)]
    whole, small = encode_gif(frames, "a", 10**9), encode_gif(frames, "a", 20_000)
    assert len(small) <= 20_000 < len(whole)
    assert [len(frames_of(data)) for data in (whole, small)] == [6, 6]
    height, width, _ = frames_of(small)[0].shape
    assert 20 < height < 90 and width / height == pytest.approx(4 / 3, rel=0.05)
    with Image.open(io.BytesIO(whole)) as image:
        assert image.info["loop"] == 0


def test_the_page_shows_the_newest_animation_as_it_is(shown: tuple[Path, Kept]) -> None:
    import base64

    path, _ = shown
    text = render_page(path.parents[1])
    assert f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}" in text
    assert text.count("data:image/gif") == 1 and text.count("data:image/jpeg") == 1


def test_trackers_get_animations_under_a_name_of_their_own(
    shown: tuple[Path, Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    path, _ = shown
    board = TensorBoard(tmp_path, from_step=0, images=True)
    board.image(path, 1)
    board.close()
    (event,) = read_events(tmp_path).Images("Clips")
    assert (event.encoded_image_string, event.width) == (path.read_bytes(), 2 * SIDE)
    run = FakeRun()
    module = SimpleNamespace(Error=OSError, Video=lambda name, format: (name, format), init=lambda **options: run)
    monkeypatch.setitem(__import__("sys").modules, "wandb", module)
    start_wandb(tmp_path).image(path, 1)
    assert run.logged == [{"Clips": (str(path), "gif"), "iteration": 1}]


def test_a_grid_knows_its_step(shown: tuple[Path, Kept]) -> None:
    path, _ = shown
    assert read_grid(path).step == 1
    with Image.open(path) as image:
        assert json.loads(image.info["comment"])["step"] == 1
