"""benchmarks/gpu.py in small, on the CPU: numbers of the cases that run, errors of those that do not."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
import gpu  # noqa: E402

ARGUMENTS = argparse.Namespace(device="cpu", seconds=0.1, smoke=True)


@pytest.mark.slow
def test_every_case_has_its_numbers_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--smoke", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    report = json.loads(out.read_text())
    assert [each["case"] for each in report["cases"]] == [f"{size}: {mode}" for mode in gpu.MODES for size in gpu.SIZES]
    for each in report["cases"]:
        assert "error" not in each, each["error"]
        assert each["images_per_s"] > 0 and each["is_finite"] and each["steps"] > 0
    assert report["torch"]


def test_a_case_has_its_numbers() -> None:
    found = gpu.run_case("pix2pixHD 512 x 1024: bf16, channels_last", 300, ARGUMENTS)
    assert "error" not in found, found["error"]
    assert found["images_per_s"] > 0 and found["is_finite"] and found["channels_last"] and found["precision"] == "bf16"


def test_the_error_of_a_case_takes_the_place_of_its_numbers() -> None:
    assert "KeyError" in gpu.run_case("spade 256 x 256: in fp4", 300, ARGUMENTS)["error"]
    assert gpu.run_case("spade 256 x 256: fp32", 0.01, ARGUMENTS) == {"error": "not done in 0 s"}


def test_a_case_that_hangs_leaves_time_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])

    def run_case(case: str, limit_s: float, args: argparse.Namespace) -> dict[str, str]:
        is_hanging = len(ran) < 2
        ran.append(case)
        now[0] += limit_s if is_hanging else 15
        return {"error": "not done" if is_hanging else "done"}

    ran: list[str] = []
    monkeypatch.setattr(gpu, "run_case", run_case)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json"), "--device", "cpu"])
    gpu.main()
    errors = [each["error"] for each in json.loads((tmp_path / "gpu.json").read_text())["cases"]]
    assert errors == ["not done"] * 2 + ["done"] * (len(gpu.MODES) * len(gpu.SIZES) - 2)
    assert now[0] <= 6 * 60


def test_the_random_perceptual_network_has_the_layers_of_vgg19() -> None:
    found = list(common.list_convs())
    assert [index for index, _, _ in found] == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert found[0] == (0, 3, 64) and found[-1] == (34, 512, 512)
