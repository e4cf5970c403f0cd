"""Scores that a training logs: of sets, by every name, with weights that are missing, and over a stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from images import noise, png, write

from imagier.cli import main
from imagier.errors import UserError
from imagier.run import RunOptions, train
from imagier.run.evaluation_request import EvaluationRequest
from imagier.run.scorecards import measure_checkpoints
from imagier.train.hooks import files

CONTRACT = Path(__file__).parents[1] / "contract"
COLORS = "feature_code:colors"
DINO = {"type": "fd", "features": "dinov2"}


@pytest.fixture
def unpaired(tmp_path: Path) -> dict[str, Any]:
    """UNIT for two iterations, with 3 images of each domain held out; no two have one name, which would be pairs."""
    for split, seed in (("train", 0), ("val", 10)):
        for kind in ("images_a", "images_b"):
            for index in range(3):
                write(
                    tmp_path / "data" / split / kind / f"{kind[-1]}{index}.png", png(noise(16, 16, seed=seed + index))
                )
    config = yaml.safe_load((CONTRACT / "unit.yaml").read_text())
    split_keys = {"batch_size": 2, "augmentations": {"resize_h_w": "32, 32"}}
    config["data"] |= {each: {"roots": [str(tmp_path / "data" / each)], **split_keys} for each in ("train", "val")}
    optimizer = {"type": "adam", "lr": 1e-3}
    return {**config, "gen_opt": optimizer, "dis_opt": optimizer, "max_iter": 2}


def start(config: dict[str, Any], tmp_path: Path, *words: str) -> int:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return main(["train", "--config", str(path), "--logdir", str(tmp_path / "run"), "--device", "cpu", *words])


def values_of(logdir: Path, tag: str) -> dict[int, float]:
    return {int(record["step"]): record[tag] for record in files.read(logdir) if tag in record}


def test_the_best_checkpoint_is_kept_by_a_score_of_a_domain_also_over_a_stop(
    unpaired: dict[str, Any], tmp_path: Path
) -> None:
    metrics = [{"type": "kd", "features": COLORS}]
    unpaired |= {"metrics": metrics, "metrics_iter": 1, "snapshot_save_iter": 1, "keep_best": "KD-colors_a"}
    assert start(unpaired, tmp_path) == 0
    assert start({**unpaired, "max_iter": 4}, tmp_path) == 0
    logdir = tmp_path / "run"
    found = values_of(logdir, "KD-colors_a/average")
    assert list(found) == [1, 2, 3, 4]
    best = values_of(logdir, "best_KD-colors_a")
    assert best == {step: min(found[other] for other in found if other <= step) for step in found}
    assert f"iteration_{min(found, key=lambda step: found[step]):09d}" in (logdir / "best_checkpoint.txt").read_text()
    assert values_of(logdir, "KD-colors_b/regular").keys() == found.keys()


def test_missing_weights_are_one_line_before_the_first_step(
    unpaired: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start({**unpaired, "metrics": [DINO]}, tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dinov2" in line
    assert not list((tmp_path / "run").glob("*.pt"))
    assert (
        start({**unpaired, "metrics": [{**DINO, "optional": True}, {"type": "kd", "features": COLORS}]}, tmp_path) == 0
    )
    assert "no FD-DINOv2-B: " in capsys.readouterr().out
    assert values_of(tmp_path / "run", "KD-colors_b/average").keys() == {2}


def test_what_needs_targets_is_replaced_where_there_are_none(
    unpaired: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By KD, or by nothing if its network is not there."""

    def missing(*facts: object) -> Path:
        raise UserError("no file", where="weights of efficientnet_lite0", code="missing-weights")

    with monkeypatch.context() as patch:
        patch.setattr("imagier.metrics.features.build_feature_network", missing)
        assert start(unpaired, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "not scored by L1" in printed
    assert "no scores: weights of efficientnet_lite0: no file" in printed
    result = train(unpaired, RunOptions(logdir=tmp_path / "other", device="cpu"))
    assert result.scores["generator"].keys() == {"KD-EffLite0_b", "KD-EffLite0_a"}
    assert all(math.isfinite(value) for value in result.scores["generator"].values())


def test_a_metric_that_learns_is_shown_beside_what_real_images_reach(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", train=2, val=2)
    config = tiny.config(data, max_iter=1, metrics=["l1", {"type": "segmentation", "steps": 2}])
    result = train(config, RunOptions(logdir=tmp_path / "run", device="cpu"))
    ceiling = result.scores["real images"]
    assert ceiling.keys() == result.scores["generator"].keys() - {"L1"}
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    ((scorecard),) = measure_checkpoints(None, options, EvaluationRequest(), overrides=["metrics_iter=1"])
    card = json.loads(scorecard.path.read_text()) if scorecard.path else {}
    assert ceiling.keys() <= card["floor"].keys()
    assert [each.get("steps") for each in list(card["protocol"]["metrics"].values())[:2]] == [None, 2]
