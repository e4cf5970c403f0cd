"""Records of bad iterations: the batch, the iterations before it, and where in the networks it went wrong."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagier.recipe import Batch, Losses
from imagier.train.checkpoint_files import write_state
from imagier.train.disk import describe_error
from imagier.train.finite import find_nonfinite, is_finite
from imagier.train.guard import Iteration, copy_tensors
from imagier.train.phase import label_phases
from imagier.train.trainer import Trainer

FOLDER = "nonfinite"
BATCH = "batch_rank{rank}.pt"
REPORT = "report_rank{rank}.json"


class FlightRecorder:
    """Writes <logdir>/nonfinite/iteration_<N>/: the batch of each rank, and a report.

    The iteration is computed again with all modules watched, without updates, from the weights as they are now: after
    the iteration's good updates, and one iteration later on an asynchronous device. Then everything is as before.
    """

    def __init__(self, trainer: Trainer, logdir: Path) -> None:
        self.trainer = trainer
        self.logdir = logdir

    def __call__(self, bad: Iteration, history: Mapping[int, Mapping[str, float]]) -> str:
        """Writes the record; returns the finding and the folder. Must be called by all ranks, at the same step."""
        runtime = self.trainer.runtime
        folder = self.logdir / FOLDER / f"iteration_{bad.step:09d}"
        found = replay(self.trainer, bad)
        try:
            batch = {name: tensor.cpu() for name, tensor in bad.batch.tensors.items()}
            write_state(folder / BATCH.format(rank=runtime.rank), {"tensors": batch, "keys": bad.batch.keys})
            report = {
                "iteration": bad.step,
                "epoch": bad.position.epoch,
                "samples": bad.position.samples,
                "seed": self.trainer.seed,
                "found": found,
                "files": bad.batch.keys,
                "largest_weight": {name: _largest(p.network) for name, p in self.trainer.players.items()},
                "history": {str(step): values for step, values in history.items()},
            }
            (folder / REPORT.format(rank=runtime.rank)).write_text(json.dumps(report, indent=1))
        except OSError as error:
            return f"{found}; nothing could be recorded ({folder}: {describe_error(error)})"
        return f"{found}; its batch and the {len(history)} iterations up to it: {folder}"


def replay(trainer: Trainer, bad: Iteration) -> str:
    """Computes an iteration again; returns in words where the first number that is not finite comes from.

    Weights and buffers are the same afterwards, and no gradients are left; randomness is a function of the step. All
    ranks compute together, since networks may communicate, and stop at the same place: where one finds something.
    """
    buffers = [buffer for network in trainer.recipe.networks.values() for buffer in network.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        with closing(_search(trainer, bad)) as places:
            for found in places:
                if finder := trainer.runtime.all_reduce_max(0 if found is None else trainer.runtime.rank + 1):
                    return found or f"it began on rank {finder - 1}, whose report says where"
        return "computed again, everything was finite"
    finally:
        copy_tensors(buffers, kept)
        for player in trainer.players.values():
            player.drop_gradients()


def _search(trainer: Trainer, bad: Iteration) -> Generator[str | None, None, None]:
    """What this rank finds, place by place: in batch and weights, in each phase, and after the last."""
    networks = trainer.recipe.networks
    yield _find_in_state(bad.batch, networks)
    with _watch(networks) as findings:
        labels = iter(label_phases(bad.players))
        for name, losses in trainer.gradients(bad.batch, bad.step - 1, bad.position.epoch):
            label = next(labels, name)
            found = findings[0] if findings else _find_in_phase(name, losses, networks[name])
            yield found and f"in {label}: {found}"
            trainer.players[name].drop_gradients()  # or the next phase of this player would add to them
        yield findings[0] if findings else None


def _find_in_state(batch: Batch, networks: Mapping[str, nn.Module]) -> str | None:
    if wrong := find_nonfinite(batch.tensors):
        return f"the batch itself is not finite ({wrong})"
    for name, network in networks.items():
        if wrong := find_nonfinite(network.state_dict()):
            return f"the weights are not finite ({name}.{wrong})"
    return None


def _find_in_phase(name: str, losses: Losses, network: nn.Module) -> str | None:
    if wrong := find_nonfinite(losses):
        return f"the outputs of all modules are finite, the loss {name}/{wrong} is not"
    gradients = {key: parameter.grad for key, parameter in network.named_parameters() if parameter.grad is not None}
    if wrong := find_nonfinite(gradients):
        return f"all outputs and losses are finite, the gradient of {name}.{wrong} is not"
    return None


@contextmanager
def _watch(networks: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """While this is open, the first module with finite inputs and an output that is not is noted, in words."""
    findings: list[str] = []

    def watch(name: str, module: nn.Module) -> Any:
        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            if not findings and not _all_finite(output) and _all_finite(inputs):
                findings.append(f"{name} ({type(module).__name__}) has finite inputs, but its output is not finite")

        return module.register_forward_hook(after)

    handles = [
        watch(f"{name}.{path}" if path else name, module)
        for name, network in networks.items()
        for path, module in network.named_modules()
    ]
    try:
        yield findings
    finally:
        for handle in handles:
            handle.remove()


def _all_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return is_finite([value])
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return all(_all_finite(part) for part in parts)


@torch.no_grad()
def _largest(network: nn.Module) -> float:
    return max((float(p.abs().max()) for p in network.parameters() if p.numel()), default=0.0)
