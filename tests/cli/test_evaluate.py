"""imagier evaluate: what it prints, writes, logs and refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.stats
import tiny
import torch

from imagier.cli import main, run_script
from imagier.recipe import Batch
from imagier.run import RunOptions, evaluate, folder_lock, scorecards
from imagier.train import checkpoint
from imagier.train.card import Card, read_card
from imagier.train.hooks import files
from imagier.train.runtime import Runtime

COLORS = ["--features", "feature_code:colors"]
SETS = ["--metrics", "l1,fd,kd", *COLORS]
CPU = Runtime(torch.device("cpu"))
NAMES = ["L1", "FD-colors", "KD-colors"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run of four iterations, with checkpoints of iterations 2 and 4."""
    folder = tmp_path_factory.mktemp("evaluated")
    data = tiny.write_data(folder / "data", train=4, val=24)
    path = tiny.write_config(folder / "tiny.yaml", data, snapshot_save_iter=2, max_iter=4)
    assert main(["train", "--config", str(path), "--logdir", str(folder / "run"), "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of that run."""
    capsys.readouterr()
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def measure(*words: object) -> int:
    return main(["evaluate", "--device", "cpu", *map(str, words)])


def refuse(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a mistake."""
    capsys.readouterr()
    assert measure(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def cards(logdir: Path) -> list[Card]:
    return [read_card(path) for path in sorted((logdir / "evaluations").glob("*.json"))]


def latest(logdir: Path) -> Path:
    return sorted(logdir.glob("*_checkpoint.pt"))[-1]


def rewrite(file: Path, factor: float) -> None:
    """Multiplies all weights of an average in a checkpoint."""
    state = checkpoint.load(file)
    network = state["players"]["gen"]["average"]["network"]
    state["players"]["gen"]["average"]["network"] = {name: (factor * x).to(x.dtype) for name, x in network.items()}
    torch.save(state, file.with_suffix(".new"))  # the old one is mapped into memory
    file.with_suffix(".new").replace(file)
    (file.parent / "checkpoints.json").unlink()  # it holds the hash of what was there


def log(logdir: Path) -> list[dict[str, float]]:
    return files.read(logdir)


# Which checkpoints ------------------------------------------------------------------------------------------


def test_the_latest_checkpoint_of_a_run_is_measured_and_has_the_scores_of_its_training(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = log(run)[-1]
    assert measure("--logdir", run, *SETS) == 0
    (card,) = cards(run)
    assert list(card.values) == NAMES
    assert card.values["L1"] == pytest.approx(before["L1/average"], rel=1e-6)
    assert (card.subject["iteration"], card.subject["weights"]) == (4, "average")
    assert card.subject["checkpoint"] == latest(run).name
    printed = capsys.readouterr().out
    assert printed.count("real images: 24 of them\n") == 1
    assert f"protocol {card.protocol_hash}; card: {run}/evaluations/iteration_000000004_average_" in printed
    assert "FD-colors" in (run / "report.html").read_text()
    assert next((run / "evaluations").glob("*_nearest.jpg")).stat().st_size > 0


@pytest.mark.parametrize("with_config", [False, True])
def test_a_checkpoint_is_measured_by_its_file(run: Path, trained: Path, tmp_path: Path, with_config: bool) -> None:
    file = sorted(run.glob("*_checkpoint.pt"))[0]
    config = ["--config", trained / "tiny.yaml"] if with_config else []
    assert measure("--checkpoint", file, *config, *SETS, "--out", tmp_path / "card.json") == 0
    (card,) = cards(run)
    assert card.subject["iteration"] == 2
    assert read_card(tmp_path / "card.json") == card


def test_checkpoints_without_the_folder_of_a_run_have_a_card_where_it_is_asked_for(
    run: Path, trained: Path, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(latest(run), tmp_path / "weights.pt"))
    words = ["--config", trained / "tiny.yaml", "--checkpoint", alone, *SETS]
    assert measure(*words, "--out", tmp_path / "card.json") == 0
    assert measure(*words, "--logdir", tmp_path / "new") == 0
    assert cards(tmp_path / "new")[0].values == read_card(tmp_path / "card.json").values
    assert not (run / "evaluations").exists()


def test_the_flags_of_the_reference_work(
    run: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--config", trained / "tiny.yaml", "--checkpoint_logdir", run, "--start_iter", 3, "--end_iter", 9]
    words += ["--logdir", tmp_path / "out", "--seed", 0, "--single_gpu", "--num_workers", 0, "--use_jit", "--debug"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words), "--device", "cpu", *SETS])
    assert run_script("evaluate") == 0
    assert [card.subject["iteration"] for card in cards(tmp_path / "out")] == [4]
    assert not (run / "evaluations").exists()


def test_all_checkpoints_and_both_weights_have_cards_of_one_protocol(run: Path) -> None:
    assert measure("--logdir", run, "--all", "--weights", "both", *SETS) == 0
    found = cards(run)
    subjects = [(card.subject["iteration"], card.subject["weights"]) for card in found]
    assert subjects == [(2, "average"), (2, "regular"), (4, "average"), (4, "regular")]
    assert len({card.protocol_hash for card in found}) == 1
    assert len({card.values["L1"] for card in found}) == 4
    assert found[3].values["L1"] == pytest.approx(find(run, 4, "L1/regular"))


def find(logdir: Path, step: int, tag: str) -> float:
    """The one value of a tag in a log."""
    (value,) = [record[tag] for record in log(logdir) if record["step"] == step and tag in record]
    return value


def test_a_checkpoint_without_an_average_is_measured_once(trained: Path, tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path / "tiny.yaml", trained / "data", max_iter=1)
    off = "trainer.model_average_config.enabled=false"
    assert main(["train", "--config", str(path), "--logdir", str(tmp_path / "run"), "--device", "cpu", off]) == 0
    assert measure("--logdir", tmp_path / "run", "--weights", "both", "--metrics", "l1") == 0
    assert [card.subject["weights"] for card in cards(tmp_path / "run")] == ["regular"]


# The card ------------------------------------------------------------------------------------------


def hash_with(run: Path, *words: object) -> str:
    """The hash of the protocol of another measurement."""
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    assert measure("--logdir", run, *words) == 0
    return cards(run)[0].protocol_hash


def test_the_protocol_is_that_of_data_and_metrics_and_of_nothing_else(run: Path, trained: Path, tmp_path: Path) -> None:
    few = keep(Path(shutil.copytree(trained / "data/val", tmp_path / "val")), 4)
    first = hash_with(run, "--metrics", "kd", *COLORS, few)
    same = keep(Path(shutil.copytree(tmp_path / "val", tmp_path / "copy")), 4)
    assert (
        hash_with(run, "metrics=[{type: kd, features: 'feature_code:colors'}]", same, "data.val.batch_size=3") == first
    )
    others = [
        ("--metrics", "kd", *COLORS, "--seed", 1),
        ("--metrics", "kd,l1", *COLORS),
        ("--metrics", "kd", "--features", "feature_code:brightness"),
        ("--metrics", "kd", *COLORS, "data.val.augmentations.resize_h_w=64, 64"),
    ]
    hashes = [first, *(hash_with(run, *words, few) for words in others)]
    cv2.imwrite(str(tmp_path / "val/images/003.png"), np.full((32, 32, 3), 77, np.uint8))
    hashes.append(hash_with(run, "--metrics", "kd", *COLORS, few))
    assert len(set(hashes)) == len(hashes)


def test_a_changed_image_is_seen_although_features_are_cached(run: Path, trained: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(trained / "data/val", tmp_path / "val"))
    for path in sorted((copied / "images").iterdir())[5:]:  # a network is slow
        path.unlink()
        (copied / "seg_maps" / path.name).unlink()
    words = ["--logdir", run, "--metrics", "fd", f"data.val.roots=[{copied}]"]
    assert measure(*words) == 0
    cv2.imwrite(str(copied / "images" / "003.png"), np.full((32, 32, 3), 77, np.uint8))
    assert measure(*words) == 0
    one, other = cards(run)
    assert one.protocol["held_out_sha256"] != other.protocol["held_out_sha256"]
    assert one.values["FD-EffLite0"] != pytest.approx(other.values["FD-EffLite0"], rel=1e-3)


def test_the_interval_of_a_mean_over_images_is_students(run: Path, trained: Path, tmp_path: Path) -> None:
    few = keep(Path(shutil.copytree(trained / "data/val", tmp_path / "val")), 3)
    assert measure("--logdir", run, "--metrics", "l1", few) == 0
    (card,) = cards(run)
    alone = []
    for name in ("000.png", "001.png", "002.png"):
        folder = tmp_path / name
        for kind in ("images", "seg_maps"):
            (folder / kind).mkdir(parents=True)
            shutil.copy(tmp_path / "val" / kind / name, folder / kind)
        scores = evaluate(run, RunOptions(device="cpu"), overrides=[f"data.val.roots=[{folder}]", "metrics=[l1]"])
        alone.append(scores["generator"]["L1"])
    mean, error = np.mean(alone), scipy.stats.sem(alone)
    assert card.values["L1"] == pytest.approx(mean, rel=1e-5)
    expected = scipy.stats.t.interval(0.95, 2, loc=mean, scale=error)
    assert card.intervals["L1"] == pytest.approx(expected, rel=1e-4)


def test_sets_have_a_floor_and_an_interval_and_warnings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure("--logdir", run, *SETS) == 0
    (card,) = cards(run)
    assert card.floor_sizes == (12, 12)
    assert set(card.floor) == set(card.at_floor_sizes) == {"FD-colors", "KD-colors"}
    assert card.floor["FD-colors"] < card.at_floor_sizes["FD-colors"]
    low, high = card.intervals["KD-colors"]
    assert low < card.values["KD-colors"] < high < low + 4 * abs(card.values["KD-colors"]) + 1
    assert [warning.partition(" of ")[0] for warning in card.warnings] == ["FD"]
    assert "warning: FD of 24 images" in capsys.readouterr().out


def test_images_that_are_all_the_same_and_networks_of_losses_are_warned_of(run: Path) -> None:
    rewrite(latest(run), 0)
    assert measure("--logdir", run, "--metrics", "kd", *COLORS) == 0
    assert cards(run)[0].warnings == ["all generated images have the same features"]
    tree = {"trainer": {"perceptual_loss": {"mode": "inception_v3"}}, "metrics": [{"features": "dinov2"}]}
    config = SimpleNamespace(to_dict=lambda: tree, players={"gen": None})
    assert scorecards.find_in_training(config, "inception_v3_signed") == "trainer.perceptual_loss.mode"
    assert scorecards.find_in_training(config, "dinov2") is None


# Results ------------------------------------------------------------------------------------------


def test_scores_are_logged_once_with_the_tags_of_the_training(run: Path) -> None:
    """The best is that of all checkpoints so far, also of those that another command measured."""
    trained_log = log(run)
    for name, words in [("first", ["--start_iter", 3]), ("all", []), ("again", [])]:
        assert measure("--checkpoint_logdir", run, *words, *SETS) == 0, name
    own = [record for record in log(run) if "evaluation/num_samples" in record]
    assert log(run)[: len(trained_log)] == trained_log
    assert [record["step"] for record in own] == [4, 2]
    assert all(not any(tag.startswith("L1") for tag in record) for record in own), "as the training logged it"
    of_step = {record["step"]: record for record in own}
    values = [of_step[step]["FD-colors/average"] for step in (2, 4)]
    assert of_step[2]["best_FD-colors"] == values[0]
    assert of_step[4]["best_FD-colors"] == values[1], "the only one, when it was logged"
    events = list((run / "tensorboard").iterdir())
    assert len(events) == 3, "one of the training, two of measurements with something new"
    assert b"FD-colors/average" in max(events, key=lambda path: path.stat().st_mtime).read_bytes()


def test_the_best_score_is_the_best_up_to_each_checkpoint(run: Path) -> None:
    assert measure("--logdir", run, "--all", "--weights", "both", "--metrics", "l1,ssim") == 0
    values = [find(run, step, "SSIM/average") for step in (2, 4)]
    assert [find(run, step, "best_SSIM") for step in (2, 4)] == [values[0], max(values)]


def test_the_page_and_a_later_training_have_the_scores_of_the_training(run: Path, trained: Path) -> None:
    """As if nothing had been measured in between."""
    undisturbed = Path(shutil.copytree(run, run.with_name("undisturbed")))
    assert measure("--checkpoint_logdir", run, "--metrics", "kd", *COLORS) == 0
    for logdir in (undisturbed, run):
        words = ["train", "--config", str(trained / "tiny.yaml"), "--logdir", str(logdir), "--device", "cpu"]
        assert main([*words, "max_iter=6"]) == 0

    def own(logdir: Path) -> list[dict[str, float]]:
        clock = ("time", "speed/", "memory/")
        records = [record for record in log(logdir) if "evaluation/num_samples" not in record]
        return [{tag: value for tag, value in record.items() if not tag.startswith(clock)} for record in records]

    assert own(run) == own(undisturbed)
    page = (run / "report.html").read_text()
    assert "mean color" in page and "KD-colors" in page


def test_scores_that_a_kill_kept_from_a_training_are_made_although_another_command_measured_them(
    run: Path, trained: Path
) -> None:
    whole = log(run)
    path = run / files.NAME
    kept = [line for line in path.read_text().splitlines() if not ('"step": 4' in line and "L1/regular" in line)]
    path.write_text("".join(f"{line}\n" for line in kept))
    assert measure("--logdir", run, "--metrics", "l1") == 0
    assert main(["train", "--logdir", str(run), "--config", str(trained / "tiny.yaml"), "--device", "cpu"]) == 0
    made_up = [record for record in log(run) if "L1/regular" in record and record["step"] == 4]
    assert [record["L1/regular"] for record in made_up] == [whole[-1]["L1/regular"]]


def test_wandb_gets_them_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the W&B run of the folder."""
    pytest.importorskip("wandb")
    logged: list[tuple[str, dict[str, Any]]] = []

    class Fake:
        def __init__(self, logdir: Path, *, project: str, run_id: str | None, **options: object) -> None:
            assert options["resuming"]
            self.project = project

        def scalars(self, record: Any) -> None:
            logged.append((self.project, dict(record.scalars)))

        def close(self) -> None:
            logged.append((self.project, {}))

    monkeypatch.setattr("imagier.run.score_log.WandB", Fake)
    assert measure("--logdir", run, "--wandb", "--wandb_name", "mine", "--metrics", "kd", *COLORS) == 0
    (project, scalars), end = logged
    assert (project, end) == ("mine", ("mine", {}))
    assert scalars["KD-colors/average"] == cards(run)[0].values["KD-colors"]


def test_a_run_that_is_still_training_keeps_its_log_to_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / files.NAME).read_bytes()
    with folder_lock.lock_folder(run, CPU):
        assert measure("--logdir", run, "--metrics", "kd", *COLORS) == 0
    assert (run / files.NAME).read_bytes() == before
    assert capsys.readouterr().out.count("a run is writing there, so its log gets no scores") == 1
    assert len(cards(run)) == 1
    assert measure("--logdir", run, "--metrics", "kd", *COLORS) == 0
    assert find(run, 4, "KD-colors/average") == cards(run)[0].values["KD-colors"], "once it has ended"


# Resuming ------------------------------------------------------------------------------------------


class Killed(Exception):
    """Ends a command."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checkpoints whose images were made."""
    made: list[str] = []
    make_card = scorecards._Measurer._make_card

    def note(self: Any, found: checkpoint.FoundCheckpoint, *facts: Any) -> Card:
        made.append(found.path.name.split("_")[3][-1])
        return make_card(self, found, *facts)

    monkeypatch.setattr(scorecards._Measurer, "_make_card", note)
    return made


def test_only_what_is_not_there_is_measured(
    run: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--logdir", run, "--all", "--metrics", "kd", *COLORS]

    def draw(self: object, *facts: object) -> str:
        if len(counted) == 2:
            raise Killed
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(scorecards.NearestImages, "draw", draw)
        with pytest.raises(Killed):
            measure(*words)
    assert [card.subject["iteration"] for card in cards(run)] == [2]
    assert measure(*words) == 0
    assert counted == ["2", "4", "4"]
    assert [find(run, step, "KD-colors/average") for step in (2, 4)] == [
        card.values["KD-colors"] for card in cards(run)
    ]
    assert measure(*words) == 0
    assert counted == ["2", "4", "4"]
    assert "holds its scores already" in capsys.readouterr().out

    first, second = sorted((run / "evaluations").glob("*.json"))
    whole = first.read_text()
    first.write_text(whole[:100])
    assert measure(*words) == 0
    assert read_card(first).values == json.loads(whole)["values"]
    rewrite(latest(run), 1.5)
    old = read_card(second)
    assert measure(*words) == 0
    assert counted[3:] == ["2", "4"]
    assert read_card(second).values != old.values


KILLED = """
import os, signal, sys
from imagier.cli import main
from imagier.run import scorecards
measure = scorecards._Measurer._measure
def killed(self, recipe, found, *rest):
    if "000000004" in found.path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(self, recipe, found, *rest)
scorecards._Measurer._measure = killed
sys.exit(main())
"""


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_when_it_is_called_again(
    run: Path, tmp_path: Path, counted: list[str]
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    words = ["evaluate", "--device", "cpu", "--logdir", str(run), "--all", "--metrics", "kd", *COLORS]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, str(tmp_path / "killed.py"), *words], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert [card.subject["iteration"] for card in cards(run)] == [2]
    assert main(words) == 0
    assert counted == ["4"]
    assert {record["step"] for record in log(run) if "KD-colors/average" in record} == {2, 4}


# Mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["--metrics", "kde"], "metrics: no metric 'kde'; did you mean 'kd'?"),
        (["--metrics", "kd", "--features", "efflite"], "features: no features 'efflite'"),
        (["--metrics", "kd", "--features", "feature_code:nothing"], "features: feature_code has no 'nothing'"),
        (["--all", "--out", "card.json"], "out: one file cannot hold several cards"),
        (["--weights", "both", "--out", "card.json"], "out: one file cannot hold several cards"),
        (["--all", "--checkpoint", "a.pt"], "checkpoint: names one checkpoint, but all are asked for"),
        (["data.val=null"], "data.val: missing section"),
        (
            ["--all", "--start_iter", "5"],
            "holds no checkpoint of the iterations 5 to 1,000,000,000; there are 2 of other",
        ),
        (["--metrics", "inception_score", *COLORS], "features: IS needs class logits"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], start: str
) -> None:
    line = refuse(capsys, "--logdir", run, *words)
    assert start in line
    assert not (run / "evaluations").exists()


def test_what_is_not_there_is_one_line(run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "no such" in refuse(capsys, "--logdir", tmp_path / "nowhere")
    assert "missing" in refuse(capsys, "--config", trained / "tiny.yaml")
    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint" in refuse(
        capsys, "--config", trained / "tiny.yaml", "--checkpoint_logdir", tmp_path / "empty"
    )


def test_a_folder_that_cannot_hold_cards_is_one_line_before_anything_is_measured(
    run: Path, counted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "evaluations").write_text("in the way")
    assert f"{run}/evaluations: cannot be written to" in refuse(capsys, "--logdir", run, "--metrics", "l1")
    assert counted == []
    assert (run / "evaluations").read_text() == "in the way"


def test_what_keeps_the_log_from_being_written_costs_no_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("in the way")
    assert measure("--logdir", run, "--metrics", "ssim") == 0
    assert "the log gets no scores" in capsys.readouterr().out
    assert len(cards(run)) == 1


def test_a_generator_that_diverged_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagier.models.spade.Recipe.sample", diverge)
    line = refuse(capsys, "--logdir", run, *SETS)
    assert f"{latest(run)}: makes images that are not finite (1 of 24)" in line
    assert cards(run) == []


def diverge(recipe: object, batch: Batch, rng: torch.Generator) -> torch.Tensor:
    """One image with a NaN."""
    images = torch.zeros_like(batch["images"])
    images[[name == "./003" for name in batch.keys["images"]], 0, 0, 0] = torch.nan
    return images


def test_of_several_checkpoints_a_broken_one_is_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latest(run).write_bytes(b"cut off")
    assert measure("--logdir", run, "--all", "--metrics", "l1") == 0
    assert [card.subject["iteration"] for card in cards(run)] == [2]
    assert capsys.readouterr().out.count(f"{latest(run)}: is damaged") == 1


def keep(folder: Path, count: int) -> str:
    """The first images of a copy of the held-out set alone."""
    for kind in ("images", "seg_maps"):
        for path in sorted((folder / kind).iterdir())[count:]:
            path.unlink()
    return f"data.val.roots=[{folder}]"


def test_too_few_images_for_what_is_asked_for_are_one_line(
    run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = keep(Path(shutil.copytree(trained / "data/val", tmp_path / "val")), 1)
    line = refuse(capsys, "--logdir", run, "--metrics", "l1,fd", *COLORS, few)
    assert "data.val: FD-colors needs 2 held-out images, but there are 1" in line
    assert measure("--logdir", run, f"metrics=[l1, {{type: fd, features: '{COLORS[1]}'}}]", few) == 0
    assert [list(card.values) for card in cards(run)] == [["L1"]]
    assert "left out: FD-colors needs 2" in capsys.readouterr().out


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_broken_held_out_image_is_one_line_or_left_out(
    run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], on_error: str
) -> None:
    folder = Path(shutil.copytree(trained / "data/val", tmp_path / "val"))
    broken = folder / "images" / "003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    words = ["--logdir", run, "--metrics", "kd", *COLORS, f"data.val.roots=[{folder}]", f"data.on_error={on_error}"]
    if on_error == "raise":
        assert str(broken) in refuse(capsys, *words)
        assert cards(run) == []
    else:
        assert measure(*words) == 0
        assert cards(run)[0].protocol["num_real"] == 23


def test_the_help_says_what_every_flag_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    printed = capsys.readouterr().out
    assert "--checkpoint_logdir DIR" in printed
    assert "--use_jit" not in printed
