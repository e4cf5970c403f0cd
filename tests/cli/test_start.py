"""What a training imports up to its first update: nothing that takes long and is not needed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from contract.experiment import EXPERIMENTS, write_data

from imagier.cli.imports import import_quickly

TESTS = Path(__file__).parents[1]
SLOW = "torch._dynamo sympy matplotlib scipy pandas tensorboard"

PRINT = f"print('loaded:', *[name for name in '{SLOW}'.split() if name in sys.modules])"

COMMAND = f"""
import sys
from imagier.cli import main
from imagier.train.trainer import Trainer
step = Trainer.train_step
def step_and_end(self, batch):
    step(self, batch)
    {PRINT}
    raise KeyboardInterrupt
Trainer.train_step = step_and_end
main(sys.argv[1:])
"""

METHODS = f"""
import sys
from pathlib import Path
from contract.experiment import config_of, train, trainer_of
for name in sys.argv[2:]:
    config = config_of(name, Path(sys.argv[1]))
    train(trainer_of(config), config, 1)
    {PRINT}
for optimizer in ("{{type: fromage, lr: 0.1}}", "{{type: madam, lr: 0.1, scale: 3}}"):
    config = config_of("one_player", Path(sys.argv[1]), f"net_opt={{optimizer}}")
    train(trainer_of(config), config, 1)
    {PRINT}
"""


def run(code: str, *words: str, cwd: Path) -> list[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, env=env, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.startswith("loaded:")] or [done.stderr]


@pytest.mark.slow
def test_a_training_loads_no_slow_package_before_its_first_update(tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "tiny.yaml", tiny.write_data(tmp_path / "data"))
    assert run(COMMAND, "train", "--config", str(config), "--logdir", "log", cwd=tmp_path) == ["loaded:"]


@pytest.mark.slow
def test_no_method_and_no_optimizer_of_ours_loads_a_slow_package(tmp_path: Path) -> None:
    loaded = run(METHODS, str(write_data(tmp_path / "data")), *EXPERIMENTS, cwd=tmp_path)
    assert loaded == ["loaded:"] * (len(EXPERIMENTS) + 2)


def test_no_garbage_is_looked_for_during_imports_alone() -> None:
    before = gc.isenabled()
    with pytest.raises(ImportError), import_quickly():
        assert not gc.isenabled()
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled() == before
