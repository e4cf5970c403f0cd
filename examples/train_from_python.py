"""Train SPADE from Python and look at the result. Half a minute on a CPU.

python -m examples.train_from_python [FOLDER]
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from examples.shapes import data_section, draw_data
from imagier.run import RunOptions, generate, train


def small_spade(data: Path) -> dict:
    """What a YAML file would hold: a SPADE of a few thousand weights."""
    optimizer = {"type": "adam", "lr": 0.003, "adam_beta1": 0.5}
    return {
        "max_iter": 30,
        "logging_iter": 10,
        "trainer": {
            "type": "spade",
            "gan_mode": "hinge",
            "loss_weight": {"gan": 1, "feature_matching": 2, "l1": 10, "kl": 0},
            "model_average_config": {"enabled": True, "beta": 0.9},
        },
        "gen": {"type": "spade", "num_filters": 2, "activation_norm_params": {"num_filters": 4}},
        "gen_opt": optimizer,
        "dis": {"type": "spade", "num_filters": 8, "max_num_filters": 16, "num_discriminators": 1, "num_layers": 2},
        "dis_opt": optimizer,
        "data": data_section(data),
    }


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows what the run logs; without it, all is quiet
    data = draw_data(folder / "shapes")
    options = RunOptions(logdir=folder / "spade", device="auto")

    result = train(small_spade(data), options)
    print(f"{result.outcome} after {result.steps} iterations: {result.checkpoint}")
    for name, scores in result.scores.items():
        print(f"{name}: L1 {scores['L1']:.3f}")

    paths = generate(result.logdir, folder / "out", options)
    print(f"{len(paths)} images, the first: {paths[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "logs/examples"))
