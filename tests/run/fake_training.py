"""Stands for `imagier train` in the tests of sweeps: the same files, signals and exit statuses, without torch.

Its score is a function of gen_opt.lr and of the iteration. What it does wrong, the variable FAKE says.
"""

import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

MAX_ITER = 8


def main() -> int:
    words = sys.argv[1:]
    logdir = Path(words[words.index("--logdir") + 1])
    values = dict(word.split("=", 1) for word in words if "=" in word)
    lr, fault = float(values["gen_opt.lr"]), os.environ.get("FAKE", "")
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
    lock = (logdir / "run.lock").open("ab+")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("another run is writing there")
        return 2
    with (logdir / "starts.txt").open("a") as file:
        file.write("start\n")
    (logdir / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    (logdir / "latest_checkpoint.txt").touch()
    metrics = logdir / "metrics.jsonl"
    begun = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    for step in range(begun + 1, MAX_ITER + 1):
        if stops:
            (logdir / "stopped.txt").touch()
            return 75
        if fault == "fails" or (fault == "diverges" and lr > 1e-2):
            print("the loss is not finite")
            return 1
        if fault == "dies" and step == 4 and begun == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        score = (math.log10(lr) + 3) ** 2 + 1 / step
        tag = "other/tag" if fault == "silent" else "L1/average"
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "epoch": 0, tag: score, "PSNR/average": -score, "dis_update/gan": lr}))
            file.write("\n")
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
