"""The command line: what it offers, what it accepts, and what a user reads who got it wrong."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from imagier.cli import COMMANDS, main
from imagier.cli import train as train_command
from imagier.cli.arguments import parse_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=4, val=2)


@pytest.fixture
def config(tmp_path: Path, data: Path) -> Path:
    return tiny.write_config(tmp_path / "small.yaml", data)


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> list[str]:
    """The lines on the standard error of a command that ends with the status for a mistake of the user's."""
    try:
        status = main([str(word) for word in argv])
    except SystemExit as stopped:  # argparse's way
        assert isinstance(stopped.code, int)
        status = stopped.code
    assert status == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()


def train_on(config: Path, *more: object) -> Sequence[object]:
    return ["train", "--config", config, "--logdir", config.parent / "log", "--device", "cpu", "--dry-run", *more]


OVERRIDES = [
    ("a typo", ["gen.num_filter=3"], "command line: gen.num_filter: unknown key; did you mean 'num_filters'?"),
    ("a wrong type", ["max_iter=many"], "command line: max_iter: expected int, got 'many'"),
    ("a section that is none", ["data=3"], "command line: data: expected a section, got 3"),
    ("an unknown model", ["gen.type=spode"], "command line: gen.type: no model 'spode'; did you mean 'spade'?"),
    ("an empty list", ["data.train.roots=[]"], "command line: data.train.roots: is empty; name at least one folder"),
    ("an unknown key", ["nothing.at.all=1"], "command line: nothing: unknown key"),
    ("no override", ["nonsense"], "command line: 'nonsense': expected section.key=value"),
    (
        "an unknown argument of inference",
        ["inference_args.randomstyle=true"],
        "command line: inference_args.randomstyle: Recipe has no such argument; did you mean 'random_style'?",
    ),
    (
        "a crop larger than the image",
        ["data.train.augmentations.random_crop_h_w=64, 64"],
        "command line: data.train.augmentations.random_crop_h_w: "
        "a crop of 64, 64 is larger than the image (resize_h_w: 36, 36)",
    ),
    (
        "too few workers",
        ["--num_workers", "-1"],
        "command line: data.num_workers: must be greater than or equal to 0, got -1",
    ),
    ("no such data", ["data.train.roots=[/no/where]"], "/no/where: no such folder; check `roots` in the data section"),
    ("no such checkpoint", ["--checkpoint", "/no/where.pt"], "/no/where.pt: no such checkpoint"),
    (
        "a size that the model cannot paint",
        ["data.train.augmentations={resize_smallest_side: 36}"],
        "data.train.augmentations: needs a crop (random_crop_h_w) or resize_h_w, the size to train at",
    ),
]


@pytest.mark.parametrize(("words", "line"), [row[1:] for row in OVERRIDES], ids=[row[0] for row in OVERRIDES])
def test_a_mistake_is_one_line_and_status_2(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert told(capsys, *train_on(config, *words)) == [line]
    assert not (config.parent / "log").exists()


def test_several_mistakes_are_a_line_each(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = yaml.safe_load(config.read_text())
    tree["trainer"]["gan_mode"] = "hing"
    tree["gen"]["num_filter"] = 1
    del tree["dis"]
    tree["data"]["has_foreground"] = True
    config.write_text(yaml.safe_dump(tree))
    lines = told(capsys, *train_on(config, "max_itr=3"))
    assert [line.split(": ")[1] for line in lines] == [
        "max_itr",
        "dis",
        "data.has_foreground",
        "gen.num_filter",
        "trainer.gan_mode",
    ]
    for line in lines[1:]:
        file, number, *_ = line.split(":")
        assert file == str(config)
        key = line.split(": ")[1].split(".")[-1]
        assert key == "dis" or config.read_text().splitlines()[int(number) - 1].strip().startswith(key)


def test_a_config_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.yaml"
    assert told(capsys, "train", "--config", path) == [f"{path}: cannot read the config: No such file or directory"]


def test_broken_yaml_is_one_line_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("max_iter: 3\ngen: {type: spade\ndis: 3\n")
    (line,) = told(capsys, "train", "--config", path)
    assert line.startswith(f"{path}:3: broken YAML: ")


@pytest.mark.parametrize("command", ["train", "infer"])
def test_without_a_config_it_says_what_to_name(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = told(capsys, command, *(["--output_dir", tmp_path] if command == "infer" else []))
    assert line.startswith("--config: missing; name the YAML")


def test_files_that_do_not_fit_the_config_are_named_one_a_line(
    config: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(capsys, *train_on(config, "data.one_hot_num_classes.seg_maps=2"))
    assert len(lines) == 6
    assert all(line.startswith(f"{data}/") and "seg_maps" in line for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("command", ["train", "infer"])
def test_a_device_that_is_not_there_is_named(
    command: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output_dir", tmp_path] if command == "infer" else []
    (line,) = told(capsys, command, "--config", config, *out, "--device", "cuda")
    assert line.startswith("--device cuda: torch finds no such device here; it has: ")


def test_inference_without_weights_says_what_to_name(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    infer = ["infer", "--config", config, "--output_dir", tmp_path / "out", "--device", "cpu"]
    assert told(capsys, *infer)[0].startswith("--checkpoint: missing; name the weights")
    assert told(capsys, *infer, "--checkpoint", tmp_path / "no.pt") == [f"{tmp_path}/no.pt: no such checkpoint"]
    (line,) = told(capsys, *infer, "pretrained_weight=abc")
    assert "download it to" in line


def test_a_file_where_a_folder_is_wanted_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, path in (("--logdir", config), ("--logdir", config / "run"), ("--output_dir", config)):
        command = "infer" if flag == "--output_dir" else "train"
        line = told(capsys, command, "--config", config, flag, path)[-1]
        named = {"--output_dir": "--output_dir/--output"}.get(flag, flag)
        assert line == f"imagier {command}: error: argument {named}: {config} is a file; name a folder"
    assert parse_folder(str(tmp_path / "new" / "one")) == tmp_path / "new" / "one"
    assert parse_folder("new") == Path("new")


@pytest.mark.parametrize("words", [["train", "--logdir"], ["infer", "--output_dir"], ["data", "openmoji", "--out"]])
def test_a_folder_that_cannot_be_made_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/proc").is_dir():
        line = told(capsys, *words, "/proc/x/y")[-1]
        assert f"argument {words[-1]}" in line
        assert ": cannot write to /proc: " in line
    line = told(capsys, *words, "x" * 300)[-1]
    assert f": {'x' * 300}: File name too long; name another folder" in line


def test_a_set_smaller_than_a_step_is_refused_by_a_dry_run_too(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data.train.batch_size=2", "trainer.dis_step=3"]
    (line,) = told(capsys, *train_on(config, *words))
    assert line.startswith("the training set has 4 samples, fewer than one step takes (6); lower data.train.batch_size")
    assert main([str(word) for word in train_on(config, words[0], "trainer.dis_step=2")]) == 0


def test_a_schema_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "no" / "schema.json"
    assert told(capsys, "schema", "--out", out) == [f"--out {out}: cannot be written: No such file or directory"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--confg", "x"], "unrecognized arguments: --confg"),
        (["train", "--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        (["train", "--resume", "2"], "argument --resume: invalid choice: 2"),
        (["train", "--seed", "x"], "argument --seed: 'x': expected a whole number from 0 to 2**63 - 1"),
        (["train", "--seed", "-1"], "argument --seed: '-1': expected a whole number"),
        (["infer", "--seed", str(2**63)], f"argument --seed: '{2**63}': expected a whole number"),
        (["schema", "gen.x=1"], "unrecognized arguments: gen.x=1"),
        (["infer"], "the following arguments are required: --output_dir"),
        (["data"], "the following arguments are required: COMMAND"),
    ],
)
def test_a_mistaken_flag_is_told_with_the_usage(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage, *_, line = told(capsys, *words)
    assert usage.startswith("usage: imagier")
    assert message in line


def test_overrides_may_stand_anywhere(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "a=1", "--config", config, "b=2", "c=3", "--seed", 3, "d=4", "--dry-run", "e=5"]
    assert [line.split(": ")[1] for line in told(capsys, *words)] == ["a", "b", "c", "d", "e"]


def test_a_dry_run_prints_the_whole_config_and_writes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main([str(word) for word in train_on(config)]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    tree = yaml.safe_load(said[said.index("\nlogging_iter: ") :])
    assert (tree["logging_iter"], tree["max_epoch"], tree["gen_opt"]["betas"][1]) == (2, 1_000_000_000, 0.999)
    assert "parameters" in said


def test_what_was_dropped_from_a_config_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(word) for word in train_on(config, "trainer.amp_gp=true")]) == 0
    assert "command line: trainer.amp_gp: had no effect; dropped\n" in capsys.readouterr().out


def test_the_schema_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", "--out", str(tmp_path / "s.json")]) == 0
    assert json.loads(printed) == json.loads((tmp_path / "s.json").read_text())
    assert json.loads(printed)["title"] == "Imagier config"


# ---- flags ----


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    return parser.parse_args(words)


FLAGS = [  # of the reference's train.py
    ("--config", ["--config", "a.yaml"], "config", Path("a.yaml")),
    ("--logdir", ["--logdir", "run"], "logdir", Path("run")),
    ("--checkpoint", ["--checkpoint", "a.pt"], "checkpoint", Path("a.pt")),
    ("--seed", ["--seed", "7"], "seed", 7),
    ("--randomized_seed", ["--randomized_seed"], "randomized_seed", True),
    ("--local_rank", ["--local_rank", "3"], "local_rank", 3),
    ("--local_rank", ["--local_rank=3"], "local_rank", 3),
    ("--local-rank", ["--local-rank=3"], "local_rank", 3),
    ("--local-rank", ["--local-rank", "3"], "local_rank", 3),
    ("--single_gpu", ["--single_gpu"], "single_gpu", True),
    ("--num_workers", ["--num_workers", "4"], "num_workers", 4),
    ("--debug", ["--debug"], "debug", True),
    ("--use_jit", ["--use_jit"], "compile", True),
    ("--profile", ["--profile"], "profile", True),
    ("--wandb", ["--wandb"], "wandb", True),
    ("--wandb_name", ["--wandb_name", "p"], "wandb_name", "p"),
    ("--wandb_id", ["--wandb_id", "i"], "wandb_id", "i"),
    ("--resume", ["--resume", "1"], "resume", 1),
    ("--resume", ["--resume", "0"], "resume", 0),
]


@pytest.fixture(scope="module")
def train_help() -> str:
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    return parser.format_help()


@pytest.mark.parametrize(("flag", "words", "name", "value"), FLAGS, ids=[" ".join(row[1]) for row in FLAGS])
def test_a_flag_of_the_reference_is_accepted_and_described(
    flag: str, words: list[str], name: str, value: object, train_help: str
) -> None:
    assert getattr(parsed(*words), name) == value
    assert getattr(parsed(), name) != value
    entries = [re.split(r"\s{2,}", entry, maxsplit=1) for entry in re.split(r"\n  (?=-)", train_help)[1:]]
    (description,) = [text for head, text in entries if flag in re.findall(r"--[\w-]+", head)]
    assert len(description.split()) > 2


def test_the_defaults_are_those_of_the_reference() -> None:
    args = parsed()
    assert (args.seed, args.wandb_name, args.resume, args.local_rank) == (None, "default", None, None)
    assert not (args.debug or args.single_gpu or args.randomized_seed or args.wandb or args.profile or args.compile)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5", 1.5), ("45m", 2700), ("3.5h", 12600), ("2 h", 7200), ("0", 0)],
)
def test_a_time_is_in_seconds_minutes_or_hours(text: str, seconds: float) -> None:
    assert parsed("--max_time", text).max_time == seconds


@pytest.mark.parametrize("text", ["", "h", "1d", "-5", "1:30", "1h30m", "nan", "1e3"])
def test_another_time_is_an_error_that_shows_how(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "train", f"--max_time={text}")[-1] == (
        f"imagier train: error: argument --max_time: {text!r}: expected seconds, or minutes as 45m, or hours as 3.5h"
    )


# ---- processes ----


def ran(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )


HEAVY = "torch numpy cv2 pydantic yaml rich jinja2"


@pytest.mark.parametrize(
    "statement",
    ["import imagier", "main(['--help'])", "main(['train', '--help'])", "main(['infer', '--help'])", "main(['trian'])"],
)
def test_what_only_tells_or_imports_loads_no_heavy_package(statement: str) -> None:
    code = f"""
import sys
from imagier.cli import main
try:
    {statement}
except SystemExit:
    pass
print("loaded:", *[name for name in {HEAVY.split()} if name in sys.modules], file=sys.stderr)
"""
    assert ran("-c", code).stderr.splitlines()[-1] == "loaded:"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for name, text in COMMANDS.items():
        assert f"\n    {name}" in said
        assert text in said


@pytest.mark.parametrize("script", ["train.py", "inference.py"])
def test_the_scripts_beside_the_package_work(script: str) -> None:
    done = ran(script, "--help")
    assert done.returncode == 0
    assert "--config" in done.stdout
    assert done.stderr == ""


def test_the_module_is_the_program() -> None:
    assert ran("-m", "imagier", "--help").stdout.startswith("usage: imagier [-h] [--version] COMMAND")


LAB = """
from torch import nn
class Generator(nn.Module):
    def __init__(self, *, label_channels: int, width: int = 3):
        super().__init__()
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [["-m", "imagier", "train"], [str(ROOT / "train.py")]])
def test_a_model_in_the_current_folder_is_found(config: Path, tmp_path: Path, program: list[str]) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "nets.py").write_text(LAB)
    done = ran(*program, "--config", str(config), "gen={type: my_lab.nets, widht: 4}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "command line: gen.widht: unknown key; did you mean 'width'?\n")


@pytest.mark.slow
def test_a_mistake_ends_the_process_with_status_2_and_one_line(config: Path) -> None:
    done = ran("train.py", "--config", str(config), "gen.num_filter=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "command line: gen.num_filter: unknown key; did you mean 'num_filters'?\n"
