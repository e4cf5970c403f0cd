"""Train, tune, generate and evaluate from Python. Nothing here needs a command line, and nothing prints.

| name | what it is |
|---|---|
| `train(config, options)` | trains the networks of a config; returns a `TrainResult` |
| `tune(config, options)` | finds out what makes a training fast on this machine; returns a `TuneResult` |
| `generate(config_or_logdir, output_dir, options)` | writes images for the test set, or for your own files |
| `evaluate(config_or_logdir, options)` | scores a checkpoint on the held-out set |
| `export(logdir_or_checkpoint, out)` | writes a generator for other programs, browsers and phones |
| `load_generator(logdir_or_checkpoint)` | a `TrainedGenerator`: call it with inputs, get images |
| `load_network(file)` | the network alone, of a bundle's weights |
| `RunOptions` | what a caller asks of a run, beside its config |
| `TrainResult` | what came of a training |
| `TuneResult` | what was tried, how fast it was, and which keys won |
| `TrainedGenerator` | a generator with its averaged weights, ready to use |

What goes on is logged by the loggers `imagier.*`; `logging.basicConfig(level=logging.INFO)` shows it. Importing this
package is fast: torch is imported when one of these names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagier.run.bundle.export import export
    from imagier.run.bundle.weights import load_network
    from imagier.run.evaluation import evaluate
    from imagier.run.generation import generate
    from imagier.run.options import RunOptions
    from imagier.run.trained_generator import TrainedGenerator, load_generator
    from imagier.run.training import TrainResult, train
    from imagier.run.tuning import TuneResult, tune

__all__ = [
    "RunOptions",
    "TrainResult",
    "TrainedGenerator",
    "TuneResult",
    "evaluate",
    "export",
    "generate",
    "load_generator",
    "load_network",
    "train",
    "tune",
]

_HOMES = {
    "RunOptions": "options",
    "TrainResult": "training",
    "TrainedGenerator": "trained_generator",
    "evaluate": "evaluation",
    "export": "bundle.export",
    "generate": "generation",
    "load_generator": "trained_generator",
    "load_network": "bundle.weights",
    "train": "training",
    "TuneResult": "tuning",
    "tune": "tuning",
}
"""The file of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
