"""imagier.run from plain Python: what it returns, what it prints (nothing), and what it leaves behind (nothing)."""

from __future__ import annotations

import gc
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist
from formula_vgg import write_formula_vgg19
from logs import logged
from torch import nn

import imagier
from imagier.config.read import read
from imagier.errors import UserError
from imagier.losses.perceptual import PerceptualLoss
from imagier.models import spade
from imagier.run import RunOptions, TrainResult, evaluate, generate, train
from imagier.train import runtime as runtimes
from imagier.train.checkpoint import load
from imagier.train.hooks.console import Console
from imagier.train.runtime import Runtime
from imagier.train.scoring import Scores
from imagier.train.trainer import Progress, Trainer

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "cv2", "pydantic", "yaml", "rich")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=4, val=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> TrainResult:
    """A run of four iterations."""
    logdir = tmp_path_factory.mktemp("runs") / "finished"
    return train(tiny.config(data, max_iter=4), RunOptions(logdir=logdir, device="cpu"))


def steps_saved(logdir: Path) -> list[int]:
    return sorted(int(path.name.split("_")[3]) for path in logdir.glob("*_checkpoint.pt"))


# Names ---------------------------------------------------------------------------------------------------------------


def documented(text: str) -> set[str]:
    """The names in the first column of a table."""
    return {match[1] for match in re.finditer(r"^\| `(?:imagier\.run\.|imagier\.)?(\w+)[(`]", text, re.M)}


def test_what_is_exported_is_what_is_documented() -> None:
    from imagier import run

    assert set(run.__all__) == documented(run.__doc__ or "")
    assert set(run.__all__) == documented((ROOT / "docs" / "python.md").read_text())
    for name in run.__all__:
        assert (getattr(run, name).__doc__ or "").strip()
        assert name in dir(run)
    assert set(imagier.__all__) == {"__version__", "load_generator", "run"}
    assert imagier.load_generator is run.load_generator
    assert imagier.run is run


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    for module in (imagier, imagier.run):
        with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'trian'"):
            module.trian  # noqa: B018


@pytest.mark.parametrize(
    "statement", ["import imagier", "import imagier; imagier.run", "import imagier.run as r; dir(r)"]
)
def test_importing_loads_no_heavy_package(statement: str) -> None:
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "\n"


# Training ------------------------------------------------------------------------------------------------------------


def test_a_training_says_what_came_of_it(finished: TrainResult) -> None:
    assert (finished.outcome, finished.steps, finished.epochs) == ("done", 4, 2)
    assert finished.checkpoint is not None
    assert load(finished.checkpoint)["current_iteration"] == 4
    baselines = {"mean color", "mean color of each class"}
    assert finished.scores.keys() == {"generator", "live weights"} | baselines
    assert finished.scores["generator"].keys() >= {"L1", "PSNR"}


@pytest.mark.parametrize("form", ["path", "text", "mapping", "config"])
def test_a_config_may_be_a_file_a_mapping_or_checked_already(
    form: str, finished: TrainResult, data: Path, tmp_path: Path
) -> None:
    path = tiny.write_config(tmp_path / "tiny.yaml", data, max_iter=100)
    source = {"path": path, "text": str(path), "mapping": tiny.config(data), "config": read(path)[0]}[form]
    result = train(source, RunOptions(logdir=str(tmp_path / "run"), device="cpu"), overrides=["max_iter=4"])
    assert result.scores == finished.scores
    with pytest.raises(UserError) as error:
        train(source, RunOptions(logdir=tmp_path / "run"), overrides=["gen.num_filter=3"])
    assert "did you mean 'num_filters'?" in str(error.value)


def test_a_run_that_was_interrupted_goes_on_when_it_is_called_again(data: Path, tmp_path: Path) -> None:
    config, logdir = tiny.config(data, max_iter=3), tmp_path / "run"
    first = train(config, RunOptions(logdir=logdir, device="cpu", max_time_s=0))
    assert (first.outcome, first.steps, first.checkpoint, first.scores) == ("interrupted", 0, None, {})
    assert train(config, RunOptions(logdir=logdir, device="cpu"), overrides=["max_iter=2"]).steps == 2
    last = train(None, RunOptions(logdir=logdir, device="cpu"), overrides=["max_iter=3"])
    assert (last.outcome, last.steps) == ("done", 3)
    assert steps_saved(logdir) == [2, 3]
    again = train(None, RunOptions(logdir=logdir, device="cpu"))
    assert (again.steps, again.checkpoint) == (3, last.checkpoint)


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    result = train(tiny.config(data), RunOptions(logdir=tmp_path / "run", device="cpu", dry_run=True))
    assert (result.outcome, result.steps, result.checkpoint) == ("dry run", 0, None)
    assert not (tmp_path / "run").exists()


def test_a_run_works_in_another_thread(finished: TrainResult, data: Path, tmp_path: Path) -> None:
    results: list[TrainResult] = []
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    thread = threading.Thread(target=lambda: results.append(train(tiny.config(data, max_iter=4), options)))
    thread.start()
    thread.join()
    assert results[0].scores == finished.scores


# Side effects --------------------------------------------------------------------------------------------------------


def test_nothing_is_printed_and_all_is_logged(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    with logged() as lines:
        train(tiny.config(data, max_iter=2), options)
        generate(tmp_path / "run", tmp_path / "out", options)
        evaluate(tmp_path / "run", options)
    assert any(line.startswith("iter 2/2 · ") for line in lines)
    assert lines[-1].startswith("epoch") or f"{tmp_path / 'out'}: 3 images" in lines
    train(tiny.config(data, max_iter=3), options)
    assert capfd.readouterr() == ("", "")


def signal_handlers() -> object:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]


def loggers() -> object:
    return [
        (of.level, of.disabled, of.propagate, list(of.handlers), list(of.filters)) for of in (logging.root, PACKAGE)
    ]


PACKAGE = logging.getLogger("imagier")
STATES: dict[str, Callable[[], object]] = {
    "signal handlers": signal_handlers,
    "logging": loggers,
    "cudnn": lambda: (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
    "TF32": lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32),
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "process group": dist.is_initialized,
    "random state of torch": lambda: torch.get_rng_state().tolist(),
    "random state of Python": random.getstate,
    "random state of numpy": lambda: [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
    "gradients": lambda: (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
    "types": lambda: (torch.get_default_dtype(), torch.get_default_device()),
    "threads of torch": torch.get_num_threads,
    "threads of OpenCV": cv2.getNumThreads,
    "sys.path": lambda: list(sys.path),
    "sys.argv": lambda: list(sys.argv),
    "streams": lambda: (sys.stdout, sys.stderr),
    "environment": lambda: dict(os.environ),
    "folder": Path.cwd,
}
assert not torch.backends.cuda.matmul.allow_tf32, "a run has another value"
CUDNN = {"deterministic": True, "benchmark": True}  # what no process has from the start


@pytest.mark.parametrize("ending", ["done", "mistake", "failure"])
def test_a_process_is_afterwards_as_it_was_before(
    ending: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(logdir=tmp_path / "run", device="cpu")
    config = tiny.config(data, max_iter=2, cudnn=CUDNN)
    if ending == "failure":
        monkeypatch.setattr("imagier.models.spade.Recipe.step", lambda *args: 1 / 0)
    torch.manual_seed(3)
    before = {name: state() for name, state in STATES.items()}
    if ending == "done":
        train(config, options)
        generate(tmp_path / "run", tmp_path / "out", RunOptions(device="cpu"))
        evaluate(tmp_path / "run", RunOptions(device="cpu"))
        imagier.load_generator(tmp_path / "run")({"seg_maps": data / "val" / "seg_maps" / "000.png"})
    elif ending == "mistake":
        with pytest.raises(UserError):
            train(config, RunOptions(logdir=tmp_path, device="cpu", checkpoint=tmp_path / "none.pt"))
    else:
        with pytest.raises(ZeroDivisionError):
            train(config, options)
    after = {name: state() for name, state in STATES.items()}
    assert [name for name in STATES if after[name] != before[name]] == []


def test_signals_are_handled_while_a_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop button of a notebook sends SIGINT: the run is saved."""

    def press(console: Console, trainer: Trainer, progress: Progress) -> None:
        if progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Console, "after_step", press)
    result = train(tiny.config(data, max_iter=5), RunOptions(logdir=tmp_path / "run", device="cpu"))
    assert (result.outcome, result.steps, steps_saved(tmp_path / "run")) == ("interrupted", 2, [2])


def test_a_process_group_of_the_caller_is_used_and_left_as_it_is(data: Path, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for single in (False, True):
            options = RunOptions(logdir=tmp_path / str(single), device="cpu", single_process=single)
            assert train(tiny.config(data, max_iter=1), options).outcome == "done"
            assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


TWO_RANKS = """
import sys
import torch.distributed as dist
from imagier.run import RunOptions, train

dist.init_process_group("gloo")
group = dist.group.WORLD
result = train(sys.argv[1], RunOptions(logdir=sys.argv[2], device="cpu"))
assert dist.is_initialized() and dist.group.WORLD is group
assert result.checkpoint.is_file() or dist.get_rank() > 0
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {result.scores['generator']}", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_that_have_joined_already_train_together(data: Path, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "tiny.yaml", data, max_iter=2)
    (tmp_path / "job.py").write_text(TWO_RANKS)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*words, str(tmp_path / "job.py"), str(config), str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert first.removeprefix("rank 0 of 2: ") == second.removeprefix("rank 1 of 2: ")
    (saved,) = (tmp_path / "run").glob("*_iteration_000000002_checkpoint.pt")
    assert load(saved)["current_epoch"] == 2, "a step of two ranks takes all four samples"


# Images and scores ---------------------------------------------------------------------------------------------------


def test_generate_returns_what_it_wrote(finished: TrainResult, data: Path, tmp_path: Path) -> None:
    paths = generate(finished.logdir, tmp_path / "out", RunOptions(device="cpu"))
    assert paths == [tmp_path / "out" / f"{name}.jpg" for name in ("000", "001", "002")]
    assert sorted(tmp_path.rglob("*.jpg")) == paths
    again = generate(tiny.config(data), tmp_path / "again", RunOptions(device="cpu", checkpoint=finished.checkpoint))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_a_checkpoint_scores_what_its_training_logged(finished: TrainResult, tmp_path: Path, data: Path) -> None:
    def without_live(scores: dict[str, Scores]) -> dict[str, Scores]:
        return {name: of_name for name, of_name in scores.items() if name != "live weights"}

    assert evaluate(finished.logdir, RunOptions(device="cpu")) == without_live(finished.scores)
    other = train(tiny.config(data, max_iter=1), RunOptions(logdir=tmp_path / "other", device="cpu"))
    found = evaluate(finished.logdir, RunOptions(device="cpu", checkpoint=other.checkpoint, seed=2))
    assert found == without_live(other.scores)
    assert other.scores != finished.scores


def test_a_checkpoint_is_scored_where_only_the_held_out_set_is(finished: TrainResult, tmp_path: Path) -> None:
    overrides = [f"data.train.roots=[{tmp_path / 'elsewhere'}]"]
    with logged() as lines:
        scores = evaluate(finished.logdir, RunOptions(device="cpu"), overrides=overrides)
    assert scores == {"generator": finished.scores["generator"]}
    assert [str(tmp_path / "elsewhere") in line for line in lines if "mean color" in line] == [True]


def test_a_checkpoint_is_read_once_and_not_kept(
    finished: TrainResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finished.checkpoint is not None
    logdir = tmp_path / "run"
    train(tiny.config(data, max_iter=1), RunOptions(logdir=logdir, device="cpu"))
    read: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def note(path: Path) -> dict:
        state = load(path)
        read.append(weakref.ref(next(iter(state["players"]["gen"]["network"].values()))))
        return state

    def look(console: Console, trainer: Trainer, progress: Progress) -> None:
        gc.collect()
        alive.append(read[-1]() is not None)

    monkeypatch.setattr("imagier.train.checkpoint.load", note)
    monkeypatch.setattr(Console, "after_step", look)
    train(tiny.config(data, max_iter=2), RunOptions(logdir=logdir, device="cpu"))
    train(
        tiny.config(data, max_iter=1), RunOptions(logdir=tmp_path / "b", device="cpu", checkpoint=finished.checkpoint)
    )
    assert (len(read), alive) == (2, [False, False])
    evaluate(logdir, RunOptions(device="cpu"))
    assert len(read) == 3


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "3"])
def test_a_seed_that_is_none_is_named(seed: object) -> None:
    with pytest.raises(UserError) as error:
        RunOptions(seed=seed)  # type: ignore[arg-type]
    assert (error.value.where, error.value.code) == ("seed", "wrong-seed")


def test_a_seed_may_be_any_whole_number() -> None:
    assert [RunOptions(seed=seed).seed for seed in (0, 2**63 - 1, np.int64(3))] == [0, 2**63 - 1, 3]


@pytest.mark.parametrize("call", [train, evaluate, lambda config: generate(config, "out")])
@pytest.mark.parametrize("config", [[1], 3])
def test_what_is_no_config_is_named(call: Callable[[object], object], config: object) -> None:
    with pytest.raises(UserError) as error:
        call(config)
    assert (error.value.where, error.value.code) == ("config", "wrong-config")


def test_what_cannot_be_scored_is_named(finished: TrainResult, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        evaluate(finished.logdir, RunOptions(device="cpu"), overrides=["data.val=null"])
    assert (error.value.where, error.value.code) == ("data.val", "no-held-out-set")
    with pytest.raises(UserError) as error:
        evaluate(tiny.config(data), RunOptions(device="cpu"))
    assert error.value.code == "missing-checkpoint"


def test_generator_discriminator_and_the_network_of_the_perceptual_loss_are_compiled(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda network: compiled.append(network))
    config = tiny.config(data, max_iter=1)
    weights = write_formula_vgg19(tmp_path / "vgg19.pth", "relu_1_1")
    loss = {"mode": "vgg19", "layers": "relu_1_1", "weights": 1.0, "weights_path": str(weights)}
    config["trainer"] |= {"perceptual_loss": loss}
    config["trainer"]["loss_weight"] |= {"perceptual": 1.0}
    train(config, RunOptions(logdir=tmp_path / "run", device="cpu", compile=True))
    assert list(map(type, compiled)) == [spade.Generator, spade.Discriminator, PerceptualLoss]


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Gives both flags a value until the end of the test; the config's key works on this device as on a GPU."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    set_tf32 = runtimes.set_tf32
    monkeypatch.setattr(runtimes, "set_tf32", lambda allowed, device: set_tf32(allowed, torch.device("cuda")))
    yield lambda allowed: set_tf32(allowed, torch.device("cuda"))
    cudnn.allow_tf32, matmul.allow_tf32 = before


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_allowed_as_the_config_says(
    allowed: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf32: Callable[[bool], None]
) -> None:
    """In a training, and wherever its generator makes images."""
    seen: list[object] = []

    def watch(name: str) -> None:
        original = getattr(spade.Recipe, name)
        monkeypatch.setattr(
            spade.Recipe, name, lambda *args, **options: seen.append(STATES["TF32"]()) or original(*args, **options)
        )

    watch("step")
    watch("infer")
    config = tiny.config(data, max_iter=1)
    config["trainer"]["tf32"] = allowed
    run, options = tmp_path / "run", RunOptions(device="cpu")
    tf32(not allowed)
    train(config, RunOptions(logdir=run, device="cpu"))
    generator = imagier.load_generator(run)
    for use in (
        lambda: None,
        lambda: generate(run, tmp_path / "out", options),
        lambda: evaluate(run, options),
        lambda: generator({"seg_maps": data / "val" / "seg_maps" / "000.png"}),
    ):
        use()
        assert set(seen) <= {(allowed, allowed)}, use
        seen.clear()
        tf32(not allowed)


@pytest.fixture
def newer_api() -> Iterator[None]:
    """Precision set by torch's newer API: reading the older flags raises."""
    torch.backends.cudnn.allow_tf32 = True
    conv = torch.backends.cudnn.conv
    before, conv.fp32_precision = conv.fp32_precision, "ieee"
    with pytest.raises(RuntimeError):
        print(torch.backends.cudnn.allow_tf32)
    yield
    assert conv.fp32_precision == "ieee"
    conv.fp32_precision = before
    assert torch.backends.cudnn.allow_tf32


def test_on_a_cpu_precision_may_be_set_by_torchs_newer_api(data: Path, tmp_path: Path, newer_api: None) -> None:
    run, options = tmp_path / "run", RunOptions(device="cpu")
    train(tiny.config(data, max_iter=1), RunOptions(logdir=run, device="cpu"))
    generate(run, tmp_path / "out", options)
    evaluate(run, options)
    imagier.load_generator(run)({"seg_maps": data / "val" / "seg_maps" / "000.png"})


def test_on_a_gpu_torchs_newer_api_is_refused(newer_api: None) -> None:
    with pytest.raises(UserError) as caught, runtimes.restore_torch_state(Runtime(torch.device("cuda"))):
        pass
    assert (caught.value.where, caught.value.code) == ("torch.backends", "two-settings")
