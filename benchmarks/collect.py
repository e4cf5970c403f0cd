"""Runs the benchmarks and keeps their ratios: `python benchmarks/collect.py [SCRIPT ...]`, or `make bench`.

Writes results/DATE.json beside this file, and compares it with the last one that was made on such a processor. Only
ratios count, each of two things that took turns in one run: seconds depend on the machine and on what else it does. A
ratio that fell by more than a tenth is named, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from common import HERE, describe_machine, start

SCRIPTS = {
    "steps": ["--rounds", "3"],
    "peers": ["--rounds", "5"],
    "loop_overhead": ["--rounds", "20"],
    "watch_cost": ["--rounds", "15"],
    "save_stall": ["--rounds", "5"],
    "loader": ["--rounds", "5"],
}
RESULTS = HERE / "results"
TOLERANCE = 0.1
"""Share that a ratio may lose from one run to the next: it varies by half of that on a quiet machine."""


def main() -> int:
    """Runs the scripts, writes the results, and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    args = parser.parse_args()
    start(threads=2)
    found: dict[str, Any] = {"date": date.today().isoformat(), **describe_machine(), "ratios": {}}
    before = find_last(args.out, found["processor"], found["date"])
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{found['date']}.json"
    for script in args.scripts:
        ratios = run(script)
        found["ratios"] |= {f"{script}: {name}": round(ratio, 4) for name, ratio in ratios.items()}
        path.write_text(json.dumps(found, indent=1) + "\n")  # after each: the next may fail
    print(f"written: {path}")
    if before is None:
        print("nothing to compare with: no earlier results of this processor")
        return 0
    worse = compare(json.loads(before.read_text())["ratios"], found["ratios"])
    print("\n".join(worse) or f"no ratio is worse than in {before.name}")
    return 1 if worse else 0


def run(script: str) -> dict[str, float]:
    """The ratios of a script, which prints its own tables."""
    print(f"\n== {script}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratios.json"
        command = [sys.executable, str(HERE / f"{script}.py"), *SCRIPTS[script], "--json", str(path)]
        subprocess.run(command, check=True)
        return json.loads(path.read_text())


def find_last(folder: Path, processor: str, today: str) -> Path | None:
    """The file of the last earlier day on such a processor; None if there is none."""
    earlier = [path for path in sorted(folder.glob("*.json")) if path.stem < today]
    return next((path for path in reversed(earlier) if json.loads(path.read_text())["processor"] == processor), None)


def compare(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """A line for each ratio that fell too far."""
    return [
        f"worse: {name} is {now[name]:.2f}, was {ratio:.2f}"
        for name, ratio in before.items()
        if name in now and now[name] < (1 - TOLERANCE) * ratio
    ]


if __name__ == "__main__":
    sys.exit(main())
