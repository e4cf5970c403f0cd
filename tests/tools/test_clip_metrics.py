"""`imagier metrics` on videos, on folders of frames, on folders of classes, and with features of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from videos import video

from imagier.cli import main
from imagier.data.codecs.flow import encode_flow
from imagier.data.codecs.unprojections import encode_points
from imagier.metrics.warp_error import Metric as WarpError
from imagier.run.image_sets import open_image_set

LAB = """
def colors(clips):
    return clips.mean(dim=(1, 3, 4))

def means(images):
    return images.mean(dim=(2, 3))
"""


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("clip_metrics_lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def frames(count: int, seed: int, flicker: int = 0) -> list[np.ndarray]:
    """A window that moves over a smooth texture, H x W x 3, uint8; every other frame brighter."""
    noise = np.random.default_rng(seed).random((32 + count, 32 + count, 3)).astype(np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 40, 200, cv2.NORM_MINMAX)
    return [(smooth[t : t + 32, t : t + 32] + flicker * (t % 2)).round().astype(np.uint8) for t in range(count)]


def save_frames(folder: str, images: list[np.ndarray]) -> None:
    Path(folder).mkdir(parents=True)
    for number, image in enumerate(images):  # no leading zeros: 10 comes after 9
        cv2.imwrite(f"{folder}/{number}.png", image[..., ::-1])


def save_clips(folder: str, flicker: int = 0, count: int = 3, length: int = 20) -> str:
    for seed in range(count):
        save_frames(f"{folder}/clip{seed}", frames(length, seed, flicker))
    return folder


def measure(*words: str) -> dict[str, object]:
    assert main(["metrics", *words, "--out", "card.json"]) == 0
    return json.loads(Path("card.json").read_text())


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["metrics", *words]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def warp_error(flicker: int, length: int = 20) -> float:
    """Of whole clips, all in one."""
    metric = WarpError().fresh(torch.device("cpu"))
    for seed in range(3):
        clip = torch.from_numpy(np.stack(frames(length, seed, flicker))).permute(0, 3, 1, 2) / 255
        metric.update(clip[None], {})
    return metric.compute()


def test_the_warp_error_of_folders_of_frames_is_that_of_whole_clips_and_its_floor_that_of_the_real_ones() -> None:
    card = measure(save_clips("real"), save_clips("fake", flicker=12), "--metrics", "warp_error")
    assert card["values"] == pytest.approx({"warp_error": warp_error(12)}, rel=1e-6)
    assert card["floor"] == pytest.approx({"warp_error": warp_error(0)}, rel=1e-6)
    assert card["values"]["warp_error"] > 5 * card["floor"]["warp_error"]
    assert (card["protocol"]["num_real"], card["higher_is_better"]) == (3, {"warp_error": False})


def test_videos_are_clips_too() -> None:
    for name, flicker in (("real", 0), ("fake", 12)):
        Path(name).mkdir()
        for seed in range(3):
            Path(name, f"{seed}.mkv").write_bytes(video(frames(20, seed, flicker)))
    card = measure("real", "fake", "--metrics", "warp_error")
    assert card["values"] == pytest.approx({"warp_error": warp_error(12)}, rel=1e-6)


def save_flow(folder: str, count: int = 3, length: int = 20) -> str:
    """What is at p was at p + (1, 1) in the frame before."""
    for seed in range(count):
        Path(folder, f"clip{seed}").mkdir(parents=True)
        for number in range(length):
            png = encode_flow(np.ones((32, 32, 2)), np.full((32, 32), number > 0))
            Path(folder, f"clip{seed}", f"{number}.png").write_bytes(png)
    return folder


def test_with_the_exact_flow_a_clip_that_only_moves_has_no_warp_error() -> None:
    real, fake, flow = save_clips("real"), save_clips("fake", flicker=12), save_flow("flow")
    card = measure(real, fake, "--metrics", "warp_error", "--flow", flow)
    assert card["floor"]["warp_error"] < 1e-12
    assert card["values"]["warp_error"] == pytest.approx(3 * (12 / 255) ** 2, rel=1e-3)
    assert "flow_sha256" in card["protocol"]


def test_the_consistency_of_folders_is_that_of_points_that_return_after_50_frames() -> None:
    """The same 60 random frames, twice; the copy is brighter in the second half by 10 of 255."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (60, 8, 8, 3), dtype=np.uint8)
    for folder, brighter in (("real", 0), ("fake", 10)):
        shown = [images[t % 50] + np.uint8(brighter * (t >= 50)) for t in range(60)]
        save_frames(f"{folder}/clip0", shown)
    Path("points/clip0").mkdir(parents=True)
    for t in range(60):  # in cells of 4, all pixels show points of their own, the same 50 frames later
        numbers = 4 * np.arange(1, 65).reshape(8, 8) + t % 4
        png = encode_points(numbers + (t % 50) * 1000)
        Path("points/clip0", f"{t}.png").write_bytes(png)
    words = ["--metrics", "consistency", "--unprojections", "points", "--cell", "4"]
    card = measure("real", "fake", *words)
    assert card["floor"]["consistency"] == pytest.approx(0, abs=1e-9)
    assert card["values"]["consistency"] == pytest.approx(10 / 255, rel=1e-5)
    assert card["protocol"]["cell"] == 4 and "unprojections_sha256" in card["protocol"]


def test_flow_that_cannot_be_used_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    sets = save_clips("real"), save_clips("fake")
    few = save_flow("few", length=10)
    assert "warp_error looks at it" in refuse(capsys, *sets, "--metrics", "warp_error", "--unprojections", few)
    assert "flow: cards are compared" in refuse(capsys, "--compare", "a.json", "b.json", "--flow", few)
    assert "--unprojections" in refuse(capsys, *sets, "--metrics", "consistency")
    assert "cell: there are no points" in refuse(capsys, *sets, "--metrics", "warp_error", "--cell", "2")
    assert "has no flow in few" in refuse(capsys, *sets, "--metrics", "warp_error", "--flow", few)
    assert "flow: none of fvd looks at it" in refuse(capsys, *sets, "--metrics", "fvd", "--flow", few)
    assert "is stored in 3 x uint16" in refuse(capsys, *sets, "--metrics", "warp_error", "--flow", "real")
    for file in Path("few").rglob("*.png"):
        file.write_bytes(encode_flow(np.ones((16, 16, 2)), np.ones((16, 16), bool)))
    assert "has 16 x 16 px, the frame has 32 x 32 px" in refuse(capsys, *sets, "--metrics", "warp_error", "--flow", few)


def test_flow_does_not_lead_past_a_frame_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    sets = save_clips("real"), save_clips("fake")
    Path("fake/clip1/10.png").unlink()
    err = refuse(capsys, *sets, "--metrics", "warp_error", "--flow", save_flow("flow"))
    assert err.startswith("fake/clip1/11.png: the frame before it, clip1/10, is missing")


def test_an_image_beside_a_folder_of_its_name_counts(tmp_path: Path) -> None:
    save_frames("set/a", frames(3, 0))
    save_frames("set/only/side_by_side/b", frames(2, 1))
    cv2.imwrite("set/a.png", frames(1, 2)[0])
    Path("set/a.mkv").write_bytes(video(frames(3, 0)))
    assert [image.name for image in open_image_set(Path("set"), "images")] == [
        "a", "a/0", "a/1", "a/2", "only/side_by_side/b/0", "only/side_by_side/b/1",
    ]  # fmt: skip
    save_frames("alone/side_by_side/b", frames(2, 1))
    assert len(open_image_set(Path("alone"), "images")) == 2


def test_the_video_of_frames_without_a_folder_is_not_counted() -> None:
    save_frames("set", frames(3, 0))
    Path("set/video.mp4").write_bytes(video(frames(3, 0)))
    assert len(open_image_set(Path("set"), "images")) == 3


def test_what_inference_writes_beside_the_frames_is_not_counted_again() -> None:
    real, fake = save_clips("real"), save_clips("fake", flicker=12)
    save_clips("fake/side_by_side", flicker=40)
    Path("fake/clip0.mkv").write_bytes(video(frames(20, 0, 60)))
    card = measure(real, fake, "--metrics", "warp_error")
    assert card["protocol"]["num_fake"] == 3
    assert card["values"] == pytest.approx({"warp_error": warp_error(12)}, rel=1e-6)
    alone = measure(real, "fake/side_by_side", "--metrics", "warp_error")
    assert alone["values"] == pytest.approx({"warp_error": warp_error(40)}, rel=1e-6)


def test_fvd_compares_parts_of_16_frames() -> None:
    real, fake = save_clips("real", count=4, length=33), save_clips("fake", flicker=12, count=3, length=33)
    words = ["--metrics", "fvd,warp_error", "--features", "clip_metrics_lab:colors"]
    card = measure(real, fake, *words)
    assert card["values"].keys() == card["floor"].keys() == {"fvd", "warp_error"}
    assert (card["protocol"]["num_real"], card["protocol"]["num_fake"]) == (8, 6)
    assert next(iter(card["protocol"]["features"].values()))["clips"] == "consecutive parts of 16 frames"
    parts = [
        np.stack(frames(33, seed, flicker))[start : start + 16].mean(axis=(0, 1, 2)) / 255
        for flicker, count in ((0, 4), (12, 3))
        for seed in range(count)
        for start in (0, 16)
    ]
    expected = np.square(np.mean(parts[:8], axis=0) - np.mean(parts[8:], axis=0)).sum()
    covariances = [torch.from_numpy(np.cov(np.array(rows).T)) for rows in (parts[:8], parts[8:])]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    expected += (covariances[0] + covariances[1]).trace() - 2 * root
    assert card["values"]["fvd"] == pytest.approx(expected.item(), rel=1e-3, abs=1e-9)


def test_a_missing_i3d_says_where_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    assert "rgb_imagenet.pt" in refuse(capsys, save_clips("a", count=1), save_clips("b", count=1), "--metrics", "fvd")


def test_what_are_no_clips_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    clips = save_clips("clips", count=1)
    save_frames("flat", frames(3, 0))
    save_frames("single/clip", frames(1, 0))
    save_clips("short", count=1, length=5)
    save_frames("mixed/clip", [*frames(2, 0), frames(1, 0)[0][:20]])
    fvd = ["--metrics", "fvd", "--features", "clip_metrics_lab:colors"]
    assert refuse(capsys, clips, "flat", "--metrics", "warp_error").startswith("flat: ")
    assert refuse(capsys, clips, "single", "--metrics", "warp_error").startswith("single: ")
    assert refuse(capsys, clips, "mixed", "--metrics", "warp_error").startswith("mixed/clip/2.png: ")
    assert refuse(capsys, clips, "short", *fvd).startswith("short: ")
    assert refuse(capsys, clips, clips, "--metrics", "warp_error,psnr").startswith("--metrics: psnr is of images")
    assert refuse(capsys, clips, clips, "--metrics", "fvd", "--features", "clip").startswith(
        "--features: expected 'i3d'"
    )


def save_classes(folder: str, seed: int, shift: int = 0) -> str:
    """Red, green and blue images in folders of these names; shift: of the colors against the names."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(("red", "green", "blue")):
        images = []
        for _ in range(12):
            image = rng.integers(0, 60, (8, 8, 3), np.uint8)
            image[..., (index + shift) % 3] += 190
            images.append(image)
        save_frames(f"{folder}/{name}", images)
    return folder


def test_folders_are_classes_for_metrics_that_need_some(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--metrics", "class_accuracy", "--features", "clip_metrics_lab:means"]
    real = save_classes("real", 0)
    right = measure(real, save_classes("right", 1), *words)
    assert (right["values"], right["floor"]) == ({"class_accuracy": 1.0}, {"class_accuracy": 1.0})
    assert len(next(iter(right["protocol"]["features"].values()))["source_sha256"]) == 64
    assert measure(real, save_classes("wrong", 1, shift=1), *words)["values"] == {"class_accuracy": 0.0}
    save_frames("flat", frames(3, 0))
    assert refuse(capsys, real, "flat", *words).startswith("flat: ")
    save_classes("wrapped/images", 1)
    assert refuse(capsys, real, "wrapped", *words).startswith(
        "wrapped: no class of real (blue, ...) is one of wrapped ("
    )
    np.save("a.npy", np.random.default_rng(0).random((20, 3)))
    assert refuse(capsys, "a.npy", "a.npy", "--metrics", "class_accuracy").startswith("a.npy: has no classes")


def test_modes_are_counted_alike_with_and_without_another_metric_on_classes() -> None:
    real, fake = save_classes("real", 0), save_classes("fake", 1)
    Path("fake/green/0.png").unlink()
    alone, both = (
        measure(real, fake, "--metrics", names, "--features", "clip_metrics_lab:means")
        for names in ("mode_coverage", "mode_coverage,class_accuracy")
    )
    assert alone["values"].items() < both["values"].items()
    assert alone["values"]["mode_kl"] > 0


def test_features_of_the_users_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their code may read files of which nothing is known."""
    monkeypatch.setattr("imagier.train.feature_cache.FeatureCache", None)  # making one would fail
    words = ["--metrics", "kd", "--features", "clip_metrics_lab:means"]
    measure(save_classes("real", 0), save_classes("fake", 1), *words)
    with pytest.raises(TypeError):
        main(["metrics", "real", "fake", "--metrics", "kd"])
