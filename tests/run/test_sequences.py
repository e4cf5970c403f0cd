"""Whole sequences as frames and videos: in order, resumed bit for bit after a kill, shared among ranks."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from contract.experiment import SIZE, config_of
from images import png, write

from imagier.config.check import Config
from imagier.errors import UserError
from imagier.recipe import Recipe
from imagier.run import RunOptions, build_training, generate, inference, sequences
from imagier.run.image_files import ImageFolder
from imagier.run.mp4 import encode_mp4, read_header
from imagier.run.sequences import SequenceWriter
from imagier.train.checkpoint import FoundCheckpoint
from imagier.train.runtime import Runtime

CPU = RunOptions(device="cpu")
LENGTHS = {"a": 7, "b/c": 3, "d": 1}


class Killed(BaseException):
    """Ends a process in the middle of its work."""


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Recipe]:
    """Networks of random weights, the same each time; the recipes that were built."""
    built = []

    def build(config: Config, weights: object, runtime: Runtime) -> Recipe:
        torch.manual_seed(0)
        recipe = build_training.build_untrained_recipe(config, runtime)
        network = recipe.networks[recipe.generator_name].eval()
        for parameter in network.parameters():  # else images would be gray
            torch.nn.init.normal_(parameter, std=0.2)
        built.append(recipe)
        return recipe

    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"one")
    monkeypatch.setattr(inference, "load_recipe", build)
    monkeypatch.setattr(inference, "load_weights", lambda *args: FoundCheckpoint(weights, {}))
    monkeypatch.setattr(sequences, "STATE_EVERY", 2)
    return built


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, length in LENGTHS.items():
        for t in range(length):
            small = rng.integers(0, 4, (4, 4, 1), np.uint8)
            write(folder / "seg_maps" / name / f"{t + 8}.png", png(small.repeat(8, 0).repeat(8, 1)))
            write(folder / "images" / name / f"{t + 8}.png", png(rng.integers(0, 256, (32, 32, 3), np.uint8)))
    return folder


def config_for(data: Path, *overrides: str) -> Config:
    augmentations = f"{{resize_h_w: '{SIZE}, {SIZE}'}}"
    return config_of("vid2vid", data, f"data.val={{roots: ['{data}'], augmentations: {augmentations}}}", *overrides)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def count_frames(recipe: Recipe) -> list[int]:
    """Grows by one with every frame that is made."""
    made: list[int] = []
    recipe.networks["gen"].register_forward_hook(lambda *args: made.append(1))
    return made


def test_every_sequence_becomes_its_frames_in_order_and_a_video(data: Path, tmp_path: Path) -> None:
    videos = generate(config_for(data), tmp_path / "out", CPU, format="png", fps=12.5)
    assert [video.relative_to(tmp_path / "out").as_posix() for video in videos] == ["a.mp4", "b/c.mp4", "d.mp4"]
    names = [f"{name}/{t + 8}.png" for name, length in LENGTHS.items() for t in range(length)]
    assert sorted(files_of(tmp_path / "out")) == sorted([*names, "a.mp4", "b/c.mp4", "d.mp4"])
    for name, length in LENGTHS.items():
        shown = frames_of(tmp_path / "out" / f"{name}.mp4")
        written = [cv2.imread(str(tmp_path / "out" / name / f"{t + 8}.png"))[..., ::-1] for t in range(length)]
        assert len(shown) == length
        distances = np.array([[np.abs(s.astype(int) - w).mean() for w in written] for s in shown])
        assert (distances.argmin(axis=1) == np.arange(length)).all()
    with av.open(str(videos[0])) as container:
        assert container.streams.video[0].average_rate == 12.5


def test_frames_are_those_of_one_rollout(data: Path, tmp_path: Path, untrained: list[Recipe]) -> None:
    config = config_for(data)
    generate(config, tmp_path / "out", CPU, format="png")
    (recipe,) = untrained
    assert config.run.data.val is not None
    runtime = Runtime(torch.device("cpu"))
    loader = inference.build_data.build_held_out_loader(config, runtime, config.run.data, config.run.data.val, seed=0)
    frames = [recipe.prepare(batch) for batch in loader.read([range(7)])]
    with torch.no_grad():
        made = [outputs["fake_images"][0] for outputs, _ in recipe.rollout(frames, torch.Generator())]
    for t, image in enumerate(made):
        expected = ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        assert np.array_equal(cv2.imread(str(tmp_path / f"out/a/{t + 8}.png"))[..., ::-1], expected)


def write_until_killed(monkeypatch: pytest.MonkeyPatch, at: int, config: Config, out: Path, **options: Any) -> None:
    """Writes that many frames into `out`, and is killed."""
    write_image, count = ImageFolder.write, 0

    def write_some(folder: ImageFolder, name: str, image: np.ndarray) -> Path:
        nonlocal count
        count += folder.folder == out
        if count > at:
            raise Killed
        return write_image(folder, name, image)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "write", write_some)
        with pytest.raises(Killed):
            generate(config, out, CPU, **options)


@pytest.mark.parametrize("at", [1, 3, 7, 8])
@pytest.mark.parametrize("format", ["png", "jpg"])
def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_files(
    at: int, format: str, data: Path, tmp_path: Path, untrained: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"format": format, "side_by_side": True}
    generate(config_for(data), tmp_path / "whole", CPU, **options)
    write_until_killed(monkeypatch, at, config_for(data), tmp_path / "out", **options)
    for name in ("a/.8.png.123.tmp", ".a.mp4.123.tmp", "..a.state.123.tmp", "side_by_side/a/.8.png.123.tmp"):
        if at < 7:
            write(tmp_path / "out" / name, b"half")  # of a write that was killed
    made: list[int] = []
    build = inference.load_recipe

    def build_counted(*args: Any) -> Recipe:
        recipe = build(*args)
        recipe.networks["gen"].register_forward_hook(lambda *_: made.append(1))
        return recipe

    monkeypatch.setattr(inference, "load_recipe", build_counted)
    generate(config_for(data), tmp_path / "out", CPU, **options)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert len(made) == 11 - (7 if at >= 7 else at - at % 2)
    made.clear()
    generate(config_for(data), tmp_path / "out", CPU, **options)
    assert made == []


def test_a_killed_run_begins_again_where_its_frames_are_gone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(config_for(data), tmp_path / "whole", CPU, format="png")
    write_until_killed(monkeypatch, 5, config_for(data), tmp_path / "out", format="png")
    (tmp_path / "out/a/9.png").unlink()
    generate(config_for(data), tmp_path / "out", CPU, format="png")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("removed", ["b/c/9.png", "side_by_side/a/9.png", "d.mp4"])
def test_files_that_were_removed_are_made_again(removed: str, data: Path, tmp_path: Path) -> None:
    generate(config_for(data), tmp_path / "out", CPU, format="png", side_by_side=True)
    before = files_of(tmp_path / "out")
    (tmp_path / "out" / removed).unlink()
    generate(config_for(data), tmp_path / "out", CPU, format="png", side_by_side=True)
    assert files_of(tmp_path / "out") == before


def test_broken_frames_are_skipped_and_make_no_video(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(data, tmp_path / "copy")
    for name in ("a/12.png", "a/13.png", "a/14.png", "d/8.png"):
        (copy / "images" / name).write_bytes(b"broken")
    config = config_for(copy, "data.on_error=skip")
    write_until_killed(monkeypatch, 4, config, tmp_path / "out", format="png")  # what is left of `a` is broken
    videos = generate(config, tmp_path / "out", CPU, format="png")
    assert [video.name for video in videos] == ["a.mp4", "c.mp4"]
    assert len(frames_of(videos[0])) == 4 and not list((tmp_path / "out").rglob("*.state"))


@pytest.mark.parametrize("change", ["weights", "seed", "format", "config"])
def test_what_other_weights_or_options_made_is_made_again(change: str, data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"format": "png"}
    config, run = config_for(data), CPU
    generate(config, tmp_path / "out", run, **options)
    before = (tmp_path / "out/a.mp4").stat().st_mtime_ns
    if change == "weights":
        (tmp_path / "weights.pt").write_bytes(b"two")
    elif change == "seed":
        run = dataclasses.replace(CPU, seed=1)
    elif change == "format":
        options["format"] = "jpg"
    else:
        config = config_for(data, "data.interpolator=INTER_CUBIC")
    generate(config, tmp_path / "out", run, **options)
    assert (tmp_path / "out/a.mp4").stat().st_mtime_ns > before


@pytest.mark.parametrize("has_test_set", [True, False])
def test_sequences_of_ones_own_need_no_more_than_labels(has_test_set: bool, data: Path, tmp_path: Path) -> None:
    generate(config_for(data), tmp_path / "whole", CPU, format="png")
    config = config_for(data) if has_test_set else config_of("vid2vid", data)
    for name in ("a", "d"):
        shutil.copytree(data / "seg_maps" / name, tmp_path / "mine" / "seg_maps" / name)
    videos = generate(config, tmp_path / "out", CPU, inputs=tmp_path / "mine")
    assert [video.name for video in videos] == ["a.mp4", "d.mp4"]
    own, all_ = files_of(tmp_path / "out"), files_of(tmp_path / "whole")
    frames = [name for name in own if name.endswith(".png")]
    assert len(frames) == LENGTHS["a"] + LENGTHS["d"]
    assert all(own[name] == all_[name] for name in frames)


@pytest.fixture
def broken(data: Path, tmp_path: Path) -> Path:
    """Two sequences more: one without a frame that can be read, one whose first and last frames are broken."""
    folder = Path(shutil.copytree(data, tmp_path / "broken"))
    for name, numbers in {"b/c": (8, 9, 10), "a": (8, 14)}.items():
        for number in numbers:
            write(folder / "seg_maps" / name / f"{number}.png", b"no image")
    return folder


def test_frames_that_cannot_be_read_are_skipped_and_sequences_without_any_other_one(
    broken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = generate(config_for(broken, "data.on_error=skip"), tmp_path / "out", CPU, format="png")
    assert [video.name for video in videos] == ["a.mp4", "d.mp4"]
    assert len(frames_of(tmp_path / "out/a.mp4")) == 5
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == sorted(
        ["8.png", *(f"{number}.png" for number in range(9, 14))]
    )
    skipped = [message for message in caplog.messages if message.startswith("skipped: ")]
    assert len(skipped) == 3 and all(
        any(name in line for line in skipped) for name in ("b/c/8.png", "a/8.png", "a/14.png")
    )
    with pytest.raises(UserError, match=r"a/8\.png"):
        generate(config_for(broken), tmp_path / "other", CPU, format="png")


def test_a_video_is_written_when_what_a_killed_run_left_cannot_be_read(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(broken, "data.on_error=skip", "data.num_workers=0")
    (broken / "seg_maps" / "a" / "8.png").write_bytes((broken / "seg_maps" / "a" / "9.png").read_bytes())

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("imagier.run.mp4.encode_mp4", die)
        with pytest.raises(Killed):
            generate(config, tmp_path / "out", CPU, format="png")
    generate(config, tmp_path / "out", CPU, format="png")
    assert len(frames_of(tmp_path / "out/a.mp4")) == 6


def test_a_comparison_shows_input_result_and_truth(data: Path, tmp_path: Path) -> None:
    generate(config_for(data), tmp_path / "out", CPU, format="png", side_by_side=True)
    sheet, made, truth = (
        cv2.imread(str(path))
        for path in (tmp_path / "out/side_by_side/a/9.png", tmp_path / "out/a/9.png", data / "images/a/9.png")
    )
    assert sheet.shape == (SIZE, 3 * SIZE, 3)
    assert np.array_equal(sheet[:, SIZE : 2 * SIZE], made) and np.array_equal(sheet[:, 2 * SIZE :], truth)
    assert len(frames_of(tmp_path / "out/side_by_side/a.mp4")) == 7


def test_frames_get_the_size_of_their_files_on_request(data: Path, tmp_path: Path) -> None:
    for kind, channels in (("images", 3), ("seg_maps", 1)):
        write(tmp_path / "other" / kind / "a" / "0.png", png(np.zeros((20, 35, channels), np.uint8)))
    for keeps, shape in ((True, (20, 35, 3)), (False, (SIZE, SIZE, 3))):
        config = config_for(tmp_path / "other", f"inference_args={{keep_original_size: {str(keeps).lower()}}}")
        generate(config, tmp_path / "out", CPU, format="png")
        assert cv2.imread(str(tmp_path / "out/a/0.png")).shape == shape


@pytest.mark.parametrize("world", [2, 5])
def test_ranks_write_whole_sequences_and_all_together_write_the_same(
    world: int, data: Path, tmp_path: Path, untrained: list[Recipe]
) -> None:
    config = config_for(data)
    generate(config, tmp_path / "whole", CPU, format="png")
    assert config.run.data.val is not None
    videos = []
    for rank in range(world):
        runtime = Runtime(torch.device("cpu"), rank=rank, world=world)
        loader = inference.build_data.build_held_out_loader(
            config, runtime, config.run.data, config.run.data.val, seed=0
        )
        writer = SequenceWriter(
            untrained[0],
            runtime,
            ImageFolder(tmp_path / "out", "png"),
            lambda name: (0, inference.hash_name(name)),
            fit=lambda name, frame: untrained[0],
            key="",
            fps=15,
            has_comparison=False,
            size_types=(),
            brings_back=False,
        )
        videos += writer.write(loader)
    assert len(videos) == len(set(videos)) == 3
    own, all_ = files_of(tmp_path / "out"), files_of(tmp_path / "whole")
    assert {name: data for name, data in own.items() if name.endswith("png")} == {
        name: data for name, data in all_.items() if name.endswith("png")
    }


def test_videos_have_a_comment_and_sides_of_an_even_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [np.full((21, 33, 3), 60 * t, np.uint8) for t in range(4)]
    with (tmp_path / "v.mp4").open("wb") as file:
        encode_mp4(file, iter(frames), 7.5, "that of a test")
    assert read_header(tmp_path / "v.mp4") == ("that of a test", 4)
    shown = frames_of(tmp_path / "v.mp4")
    assert [frame.shape for frame in shown] == [(22, 34, 3)] * 4
    assert [round(frame.mean() / 60) for frame in shown] == [0, 1, 2, 3]
    (tmp_path / "no.mp4").write_bytes(rng.bytes(100))
    assert read_header(tmp_path / "no.mp4") == read_header(tmp_path / "none.mp4") == ("", 0)


def mistakes() -> Iterator[tuple[str, dict[str, Any], str]]:
    yield "vid2vid", {"inputs": ["here"]}, "missing-input"
    yield "vid2vid", {"inputs": ["."]}, "missing-input-type"
    yield "vid2vid", {"inputs": ["."], "styles": ["."]}, "no-videos"
    yield "vid2vid", {"inputs": ["."], "full_size": True}, "no-videos"
    yield "vid2vid", {"num_styles": 2}, "no-random-styles"
    yield "vid2vid", {"fps": 0.0}, "wrong-number"
    yield "vid2vid", {"fps": float("nan")}, "wrong-number"
    yield "vid2vid", {"fps": 1e-4}, "wrong-number"
    yield "vid2vid", {"format": "gif"}, "wrong-format"
    yield "spade", {"side_by_side": True}, "no-videos"
    yield "spade", {"fps": 15.0}, "no-videos"


@pytest.mark.parametrize(("name", "options", "code"), list(mistakes()), ids=str)
def test_a_mistake_is_one_line(name: str, options: dict[str, Any], code: str, data: Path, tmp_path: Path) -> None:
    config = config_of(name, data, f"data.val={{roots: ['{data}'], augmentations: {{resize_h_w: '32, 32'}}}}")
    with pytest.raises(UserError) as error:
        generate(config, tmp_path / "out", CPU, **options)
    assert error.value.code == code


def test_the_package_that_writes_videos_is_named_where_it_is_missing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagier.run.mp4.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        generate(config_for(data), tmp_path / "out", CPU)
    assert error.value.code == "missing-package"
