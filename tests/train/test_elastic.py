"""A run that continues with another number of ranks, in the middle of an epoch, sees every sample that is left once."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny

from imagier.data.loading.order import plan, shuffle_in_blocks, shuffle_indices
from imagier.recipe import Position

SAMPLES = 24
EPOCHS = 3

RECORDING = """
import os, sys
from pathlib import Path
from imagier.cli import main
from imagier.train.trainer import Trainer

before = Trainer.train_step

def train_step(self, batch):
    rank, world = self.runtime.rank, self.runtime.world
    Path(f"seen_{self.step:03d}_{rank}_of_{world}.txt").write_text("\\n".join(batch.keys["images"]))
    return before(self, batch)

Trainer.train_step = train_step
sys.exit(main())
"""


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("worlds", list(itertools.product([1, 2, 3, 4], repeat=2)))
@pytest.mark.parametrize("has_blocks", [False, True])
def test_whatever_the_ranks_every_epoch_has_each_sample_once(
    worlds: tuple[int, int], batch_size: int, has_blocks: bool
) -> None:
    """The ranks change after every second step, in epochs whose length no step divides."""
    length = SAMPLES - 1

    def order(epoch: int) -> np.ndarray:
        return shuffle_in_blocks([5, 9, 9], 1, epoch) if has_blocks else shuffle_indices(length, 1, epoch)

    seen: list[tuple[int, int]] = []
    position = Position()
    for world in itertools.cycle(worlds):
        ranks = [plan(position, order, batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
        for _ in range(2):
            step = [next(rank) for rank in ranks]
            seen += [key for keys, _ in step for key in keys]
            (position,) = {after for _, after in step}
        if position.epoch >= EPOCHS:
            break
    counts = Counter(key for key in seen if key[0] < EPOCHS)
    assert counts == {(epoch, index): 1 for epoch in range(EPOCHS) for index in range(length)}


@pytest.mark.slow
def test_real_processes_from_three_to_one_to_four_to_two_see_each_sample_once(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", train=SAMPLES)
    config = tiny.write_config(tmp_path / "tiny.yaml", data)
    (tmp_path / "recording.py").write_text(RECORDING)
    small = ["data.val=null", "data.train.batch_size=1", "data.num_workers=0"]
    total = 0
    for world, end in ((3, 2), (1, 3), (4, 5), (2, 10)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        words = ["train", "--config", str(config), "--logdir", "run", "--device", "cpu", *small, f"max_iter={end}"]
        done = subprocess.run(
            [*command, "recording.py", *words], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        files = sorted(tmp_path.glob(f"seen_*_of_{world}.txt"))
        assert files, "no rank recorded what it saw"
        total += len(files)
    seen = [line for path in sorted(tmp_path.glob("seen_*.txt")) for line in path.read_text().splitlines()]
    assert total == len(seen) == 3 * 2 + 1 * 1 + 4 * 2 + 2 * 5
    first_epoch = Counter(seen[:SAMPLES])
    assert len(first_epoch) == SAMPLES and set(first_epoch.values()) == {1}
