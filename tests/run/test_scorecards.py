"""Cards of methods of all kinds: two domains, classes, random styles, no targets; on ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from images import noise, png, write

from imagier.errors import UserError
from imagier.run import RunOptions, train
from imagier.run.build_scorer import name_metrics
from imagier.run.evaluation_request import EvaluationRequest
from imagier.run.scorecards import Scorecard, measure_checkpoints
from imagier.train.card import Card, read_card

CONTRACT = Path(__file__).parents[1] / "contract"
COLORS = "feature_code:colors"
OPTIMIZER = {"type": "adam", "lr": 1e-3, "adam_beta1": 0.5}


def draw(folder: Path, **counts: int) -> Path:
    """So many images folder/<kind>/<i>.png; kinds may be folders in folders (a__x: a/x)."""
    for place, (kind, count) in enumerate(counts.items()):
        for index in range(count):
            image = png(noise(16, 16, seed=100 * place + index) // (1 + place) + 40)
            write(folder / kind.replace("__", "/") / f"{index:03d}.png", image)
    return folder


def experiment(name: str, root: Path, **run: Any) -> dict[str, Any]:
    """The smallest experiment of a method, trained for one iteration."""
    config = yaml.safe_load((CONTRACT / f"{name}.yaml").read_text())
    split = {"batch_size": 2, "augmentations": {"resize_h_w": "32, 32"}}
    config["data"] |= {each: {"roots": [str(root / each)], **split} for each in ("train", "val")}
    config |= {f"{player}_opt": OPTIMIZER for player in config if player in ("gen", "dis", "net")}
    return {**config, "max_iter": 1, **run}


def measure(config: dict[str, Any], tmp_path: Path, *overrides: str, **request: Any) -> Card:
    """Trains and measures; the card as it is in its file."""
    train(config, RunOptions(logdir=tmp_path / "run", device="cpu"))
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    (scorecard,) = measure_checkpoints(None, options, EvaluationRequest(**request), overrides=overrides)
    assert scorecard.path is not None
    assert read_card(scorecard.path).values == scorecard.card.values
    return scorecard.card


def metrics(*types: str) -> list[dict[str, str]]:
    return [{"type": each, "features": COLORS} for each in types]


@pytest.fixture
def two_lists(tmp_path: Path) -> Path:
    """7 images of one domain held out, and 4 of the other."""
    root = tmp_path / "data"
    draw(root / "train", images_a=3, images_b=2)
    draw(root / "val", images_a=7, images_b=4)
    return root


@pytest.mark.parametrize("name", ["unit", "munit"])
def test_two_domains_have_numbers_each_and_every_file_counts_once(name: str, two_lists: Path, tmp_path: Path) -> None:
    card = measure(experiment(name, two_lists, metrics=metrics("fd", "kd")), tmp_path)
    assert set(card.values) == {"FD-colors_b", "FD-colors_a", "KD-colors_b", "KD-colors_a"}
    assert card.protocol["num_real"] == {"b": 4, "a": 7}
    assert card.subject["num_generated"] == {"b": 7, "a": 4}
    assert set(card.higher_is_better) == set(card.values)


def test_classes_have_numbers_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, count in (("train", 2), ("val", 3)):
        kinds = [f"{kind}__{name}" for kind in ("images_content", "images_style") for name in "xy"]
        draw(root / split, **dict.fromkeys(kinds, count))
    config = experiment("funit", root, metrics=[*metrics("fd"), {"type": "kd", "features": COLORS, "per_class": True}])
    card = measure(config, tmp_path)
    assert {"FD-colors", "KD-colors"} == set(card.values)
    by_class = {each["type"]: each["per_class"] for each in card.protocol["metrics"].values()}
    assert by_class == {"fd": False, "kd": True}


def test_a_method_without_targets_is_measured_by_sets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab").mkdir()
    code = (CONTRACT / "one_player.py").read_text()
    code += "\n    def real_images(self, batch: Batch) -> dict[str, Tensor]:\n        return {'': batch['images']}\n"
    (tmp_path / "my_lab" / "flow.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    root = tmp_path / "data"
    draw(root / "train", images=4)
    draw(root / "val", images=5)
    config = experiment("one_player", root, metrics=[*metrics("kd"), "psnr"])
    for section in ("trainer", "net"):
        config[section]["type"] = "my_lab.flow"
    card = measure(config, tmp_path)
    assert set(card.values) == {"KD-colors"}
    assert [each["type"] for each in card.protocol["metrics"].values()] == ["kd"], "PSNR is not part of it"
    with pytest.raises(UserError) as error:
        request = EvaluationRequest(metrics=name_metrics(["psnr"], COLORS))
        measure_checkpoints(None, RunOptions(logdir=tmp_path / "run", device="cpu"), request)
    assert error.value.code == "nothing-to-measure"


def test_metrics_that_are_optional_may_lack_their_weights(two_lists: Path, tmp_path: Path) -> None:
    optional = {"type": "fd", "features": "dinov2", "optional": True}
    card = measure(experiment("unit", two_lists, metrics=[*metrics("kd"), optional]), tmp_path)
    assert set(card.values) == {"KD-colors_b", "KD-colors_a"}
    with pytest.raises(UserError):
        measure(experiment("unit", two_lists), tmp_path, "metrics=[{type: fd, features: dinov2}]")


def test_the_metric_of_a_user_has_all_its_options_in_the_protocol(two_lists: Path, tmp_path: Path) -> None:
    every = [{"type": "prdc", "features": COLORS, "k": 2}]
    card = measure(experiment("unit", two_lists, metrics=every), tmp_path)
    assert next(iter(card.protocol["metrics"].values())).items() >= {"type": "prdc", "features": COLORS, "k": 2}.items()


def test_numbers_that_are_not_defined_are_named(tmp_path: Path) -> None:
    """Two generated images, made of two of the other domain, are too few for two neighbors."""
    root = tmp_path / "data"
    draw(root / "train", images_a=2, images_b=2)
    draw(root / "val", images_a=2, images_b=4)
    every = [{"type": "prdc", "features": COLORS, "k": 2}, *metrics("kd")]
    card = measure(experiment("unit", root, metrics=every), tmp_path)
    assert not any(name.startswith("Recall") for name in card.values), "2 images of domain a: it is left out"
    assert {"KD-colors_a", "KD-colors_b"} <= set(card.values)


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_ranks_have_the_numbers_of_one(world: int, two_lists: Path, tmp_path: Path) -> None:
    """Of a method with random styles; 8 ranks: one has no share. Only the first of them prints."""
    subsets = {"type": "kd", "features": COLORS, "num_subsets": 3, "subset_size": 3}
    config = experiment("munit", two_lists, metrics=[*metrics("fd"), subsets])
    alone = measure(config, tmp_path, "data.val.batch_size=7")
    (written,) = (tmp_path / "run" / "evaluations").glob("*.json")
    written.unlink()
    words = ["-m", "imagier", "evaluate", "--logdir", str(tmp_path / "run"), "--device", "cpu", "data.val.batch_size=1"]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    launch = [*LAUNCH, f"--nproc_per_node={world}", *words]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    card = read_card(written)
    assert card.protocol_hash == alone.protocol_hash
    assert card.values == pytest.approx(alone.values, rel=1e-6)
    assert card.floor == pytest.approx(alone.floor, rel=1e-6, nan_ok=True)
    assert done.stdout.count("real images: 7 of them") == 1
    assert done.stdout.count("held-out samples") == 1


def test_cards_are_returned_and_shown_one_by_one(two_lists: Path, tmp_path: Path) -> None:
    config = experiment("unit", two_lists, metrics=metrics("kd"), snapshot_save_iter=1, max_iter=2)
    train(config, RunOptions(logdir=tmp_path / "run", device="cpu"))
    shown: list[Scorecard] = []
    request = EvaluationRequest(folder=tmp_path / "run", weights=("average", "regular"))
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    cards = measure_checkpoints(None, options, request, show=shown.append)
    assert cards == shown
    assert [(each.card.subject["iteration"], each.card.subject["weights"], each.is_new) for each in cards] == [
        (step, weights, True) for step in (1, 2) for weights in ("average", "regular")
    ]
    again = measure_checkpoints(None, options, request)
    assert [each.is_new for each in again] == [False] * 4
