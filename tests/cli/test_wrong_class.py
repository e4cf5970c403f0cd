"""A class that the config does not know ends a run with the file's name, also where nobody looked before it began."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny

from imagier.cli import main
from imagier.data.loading.order import shuffle_indices
from imagier.run import build_data
from imagier.run.quick_check import quick_check
from imagier.tools.doctor.splits import read_config

UNSEEN = 2
"""Of 300 samples the quick check reads 200, and not this one."""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_comes_to_a_wrong_class_ends_with_the_files_name(
    workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tiny.write_data(tmp_path / "data", train=300, val=2)
    wrong = data / "train" / "seg_maps" / f"{UNSEEN:03d}.png"
    cv2.imwrite(str(wrong), np.full((tiny.SIZE, tiny.SIZE), 200, np.uint8))
    config = tiny.write_config(tmp_path / "small.yaml", data)
    checked = read_config(config, [])
    assert checked.run.data.train is not None
    assert quick_check(build_data.build_dataset(checked.run.data, checked.run.data.train, 0), seconds=60) == []
    # In the fourth step of two samples.
    seed = next(seed for seed in range(1000) if UNSEEN in shuffle_indices(300, seed, 0)[6:8])
    where = ["--config", config, "--logdir", tmp_path / "log", "--device", "cpu", "--num_workers", workers]
    assert main(["train", *map(str, where), "--seed", str(seed)]) == 2
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    records = (tmp_path / "log" / "metrics.jsonl").read_text()
    assert '"step": 2' in records  # it had begun
    assert f"{wrong}: holds class 200, but one_hot_num_classes.seg_maps is 4" in said.err
