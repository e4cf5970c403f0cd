"""Compares Imagier with numbers recorded on a reference: `python tests/parity.py CASE_DIR ...`.

A case is a folder with a config, initial weights, a batch (with the random draws) and the results of a few processes;
its format and the limits are described in the README beside the cases. Prints the largest error of every group.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import parity_clips
import torch
from formula_vgg import write_formula_vgg19
from golden import GOLDEN
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from imagier.config.check import check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import load
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Recipe
from imagier.run import build_training
from imagier.train.hooks.log import tag_losses
from imagier.train.player import Player
from imagier.train.runtime import Runtime
from imagier.train.trainer import Trainer

NETWORKS = {"gen": "G", "dis": "D"}
SAMPLING = {"eval": {}, "eval_random": {"random_style": True}, "eval_style": {"random_style": False}}
INFERENCE = {
    "inference": {"keep_original_size": True, "random_style": True},
    "inference_a2b": {"a2b": True, "random_style": True},
    "inference_b2a": {"a2b": False, "random_style": True},
    "inference_b2a_style": {"a2b": False, "random_style": False},
}


@dataclass
class Case:
    """The files of a case."""

    folder: Path
    batch: dict[str, Tensor] = field(init=False)
    state: dict[str, Tensor] = field(init=False)
    expected: dict[str, Tensor] = field(init=False)
    processes: list[str] = field(init=False)
    meta: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.batch = load_file(self.folder / "batch.safetensors")
        self.state = load_file(self.folder / "state.safetensors")
        self.expected = load_file(self.folder / "expected.safetensors")
        self.meta = json.loads((self.folder / "meta.json").read_text())
        self.processes = self.meta["processes"]

    @property
    def has_clips(self) -> bool:
        """Whether it is one of a video method."""
        return "frames" in self.meta

    def raw_batch(self) -> Batch:
        """The batch as it came from the loader."""
        own = {k: v for k, v in self.batch.items() if not k.startswith(("raw.", "noise.", "flow."))}
        raw = {k.removeprefix("raw."): v for k, v in self.batch.items() if k.startswith("raw.")}
        own = parity_clips.draw_points(own, is_flipped=bool(self.meta.get("is_flipped")))
        tensors = {k: v if v.dtype == torch.int64 else v.float() for k, v in {**own, **raw}.items()}
        names = [f"./{i}" for i in range(len(next(iter(tensors.values()))))]
        return Batch(tensors, dict.fromkeys(tensors, names))

    def draws(self, process: str) -> list[Tensor]:
        """The random draws of a process, in order."""
        found = {k: v for k, v in self.batch.items() if k.startswith(f"noise.{process}.")}
        return [found[f"noise.{process}.{i}"] for i in range(len(found))]


class Replay(TorchFunctionMode):
    """Hands out recorded tensors wherever torch is asked for random ones; those of each shape in their order.

    Draws of different kinds (styles, noise between layers) may come in another order here.
    """

    RANDOM = (torch.randn, torch.rand, torch.randn_like, torch.rand_like, torch.randint, torch.normal)

    def __init__(self, draws: list[Tensor]) -> None:
        self.draws = draws

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func(*args, **(kwargs or {}))
        if func not in self.RANDOM:
            return drawn
        places = [place for place, draw in enumerate(self.draws) if draw.shape == drawn.shape]
        assert places, f"a draw of shape {tuple(drawn.shape)}, of which no more were recorded"
        recorded = self.draws.pop(places[0])
        return drawn.copy_(recorded)  # aligned in memory as a draw is: matrix products round by that


class Rebuilt:
    """Recipe and players of a case with its initial weights, and what the networks give out."""

    def __init__(self, case: Case, vgg: Path, *, is_precise: bool = False, **steps: int) -> None:
        """is_precise: in float64."""
        order = [] if case.has_clips else ["trainer.reference_order=true"]
        document = load(case.folder / "config.yaml", [*order, *(f"trainer.{k}={v}" for k, v in steps.items())])
        parity_clips.take_label_as_given(document)
        translate_legacy(document)
        if document.get(("trainer", "perceptual_loss")):
            document.set(("trainer", "perceptual_loss", "weights_path"), str(vgg))
        config = check(document)
        runtime = Runtime(torch.device("cpu"))
        self.recipe: Recipe = build_training.build_recipe(config, runtime, seed=0)
        self.names = {name: names_of(network) for name, network in self.recipe.networks.items()}
        for name, network in self.recipe.networks.items():
            load_reference_weights(network, self.names[name], case.state, f"net_{NETWORKS[name]}.")
        if is_precise:
            for network in (*self.recipe.networks.values(), *self.recipe.load_losses()):
                network.double()
        self.recipe.train()
        self.players: dict[str, Player] = build_training.build_players(config, self.recipe, runtime)
        self.trainer = Trainer(self.recipe, self.players, runtime, seed=0, accumulate=config.trainer.accumulate)
        self.captured: dict[str, dict[str, Any]] = {"generate": {}, "discriminate": {}}
        if case.has_clips:
            self.recipe.estimate_flow = parity_clips.flow_by_formula  # type: ignore[attr-defined]
            return
        for method, captured in self.captured.items():
            setattr(self.recipe, method, capture_first(captured, getattr(self.recipe, method)))


def capture_first(captured: dict[str, Any], run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """`run`, the first result of which fills `captured`: the recorded one, if a loss asks once more about other images.

    (Consistency regularization shows the discriminators changed images after those that were recorded.)
    """

    def capturing(*args: Any, **kwargs: Any) -> dict[str, Any]:
        found = run(*args, **kwargs)
        if not captured:
            captured.update(found)
        return found

    return capturing


def names_of(network: nn.Module) -> dict[str, str]:
    """Our state-dict names of a network -> the reference's."""
    return reference_names(network.state_dict(), network.reference_rules())  # type: ignore[operator]


def load_reference_weights(
    network: nn.Module, names: Mapping[str, str], state: Mapping[str, Tensor], prefix: str
) -> None:
    """Strictly: every key of either side must have its partner."""
    wanted = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    assert set(names.values()) == wanted, f"names differ: {sorted(set(names.values()) ^ wanted)[:8]}"
    network.load_state_dict({ours: state[prefix + theirs] for ours, theirs in names.items()})


def results(case: Case, process: str, vgg: Path) -> dict[str, Any]:
    """All that Imagier has to show for a process, by the names of the case."""
    skipped = {"gen": {"dis_step": 0}, "dis": {"gen_step": 0}}.get(process, {})
    is_precise = parity_clips.should_be_precise(process) and case.has_clips
    rebuilt = Rebuilt(case, vgg, is_precise=is_precise, **skipped)
    if case.has_clips:  # nothing is drawn there that has an influence
        with parity_clips.InDouble() if is_precise else nullcontext():
            return _clips(case, process, rebuilt)
    with Replay(case.draws(process)) as replay:
        if process in SAMPLING:
            found = _sampling(case, process, rebuilt.recipe)
        elif process in INFERENCE:
            found = _inference(case, process, rebuilt.recipe)
        elif process in NETWORKS:
            found = _forward_backward(case, process, rebuilt)
        else:
            found = _step(case, rebuilt)
    assert not replay.draws, f"{len(replay.draws)} recorded draws of {process} were not used"
    return found


def _sampling(case: Case, process: str, recipe: Recipe) -> dict[str, Any]:
    batch = recipe.prepare(case.raw_batch())
    given = [key for key in case.batch if not key.startswith(("raw.", "noise."))]
    prepared = {f"prepare.{key}": (batch[key], case.batch[key]) for key in given}
    recipe.networks["gen"].eval()
    with torch.no_grad():
        outputs = recipe.generate(batch, torch.Generator(), **SAMPLING[process])
    return {**prepared, **{f"{process}.{key}": tensor for key, tensor in outputs.items()}}


def _inference(case: Case, process: str, recipe: Recipe) -> dict[str, Any]:
    recipe.networks["gen"].eval()
    accepted = inspect.signature(recipe.infer).parameters
    options = {k: v for k, v in INFERENCE[process].items() if k in accepted}
    if not case.draws(process) and options.get("random_style"):
        options.pop("random_style")
    with torch.no_grad():
        images = recipe.infer(recipe.prepare(case.raw_batch()), torch.Generator(), **options)
    return {f"{process}.images": torch.stack(images)}


def _forward_backward(case: Case, process: str, rebuilt: Rebuilt) -> dict[str, Any]:
    player, names = rebuilt.players[process], rebuilt.names[process]
    player.update = lambda: None  # type: ignore[method-assign]
    phases = rebuilt.trainer.train_step(case.raw_batch())
    losses = tag_losses({phase.player: phase.losses for phase in phases}, rebuilt.recipe.log_names)
    found: dict[str, Any] = {f"{process}.loss.{tag.partition('/')[2]}": value for tag, value in losses.items()}
    found.update({f"{process}.out.{key}": tensor for key, tensor in rebuilt.captured["generate"].items()})
    for key, scores in rebuilt.captured["discriminate"].items():
        tensors = scores if isinstance(scores, list) else [scores]
        found.update({f"{process}.disout.{key}.{i}": x for i, x in enumerate(tensors) if isinstance(x, Tensor)})
    for name, parameter in player.network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found[f"{process}.grad.{names[name]}"] = gradient
        found[f"{process}.gradnorm.{names[name]}"] = gradient.norm()
    return {**found, **_after(process, rebuilt)}


def _clips(case: Case, process: str, rebuilt: Rebuilt) -> dict[str, Any]:
    batch = case.raw_batch()
    if "raw.label" not in case.batch:
        batch = parity_clips.undo_start(batch, rebuilt.recipe)
    if process == "eval":
        return parity_clips.rollout(batch, case.batch, rebuilt.recipe)
    is_step = process == "step"
    parity_clips.check_flow_of_case(case.batch, case.meta["flow_calls"], rebuilt.recipe)
    watch = parity_clips.Watch(process, rebuilt.recipe, rebuilt.players, should_update=is_step)
    found = watch.results(rebuilt.trainer, batch, rebuilt.names, NETWORKS)
    if is_step:
        return {**found, **_moved(case, rebuilt)}
    weights = {
        f"{letter}.{rebuilt.names[player][name]}"
        for player, letter in NETWORKS.items()
        for name, _ in rebuilt.recipe.networks[player].named_parameters()
    }
    parity_clips.check_without_gradient(found, case.meta["params_without_grad"], weights)
    return {**found, **_after(process, rebuilt)}


def _step(case: Case, rebuilt: Rebuilt) -> dict[str, Any]:
    phases = rebuilt.trainer.train_step(case.raw_batch())
    losses = tag_losses({phase.player: phase.losses for phase in phases}, rebuilt.recipe.log_names)
    found = {f"step.loss.{tag.replace('_update/', '.', 1)}": value for tag, value in losses.items()}
    return {**found, **_moved(case, rebuilt)}


def _moved(case: Case, rebuilt: Rebuilt) -> dict[str, Any]:
    """All weights, averages and buffers after the process `step`."""
    found: dict[str, Any] = {}
    for player, letter in NETWORKS.items():
        for name, parameter in rebuilt.players[player].network.named_parameters():
            theirs = rebuilt.names[player][name]
            found[f"step.{letter}.{theirs}"] = (parameter, case.state[f"net_{letter}.{theirs}"])
    average = rebuilt.players["gen"].average
    if average is not None:
        rules = rebuilt.recipe.networks["gen"].reference_rules()  # type: ignore[operator]
        averaged = average.network.state_dict()
        found.update(
            {f"step.avg.{theirs}": averaged[ours] for ours, theirs in reference_names(averaged, rules).items()}
        )
    return {**found, **_after("step", rebuilt)}


def _after(process: str, rebuilt: Rebuilt) -> dict[str, Any]:
    return {
        f"after.{process}.{letter}.{rebuilt.names[player][name]}": buffer
        for player, letter in NETWORKS.items()
        for name, buffer in rebuilt.players[player].network.named_buffers()
        if name in rebuilt.names[player]
    }


@dataclass
class Group:
    """The errors of one kind of result."""

    count: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    of_limit: float = 0.0
    worst: str = ""

    def add(self, name: str, absolute: float, relative: float, of_limit: float) -> None:
        """Notes one comparison: its errors, and the error as a share of what is allowed."""
        self.count += 1
        self.absolute = max(self.absolute, absolute)
        self.relative = max(self.relative, relative)
        if of_limit >= self.of_limit:
            self.of_limit, self.worst = of_limit, name


def compare(case: Case, vgg: Path) -> tuple[dict[str, Group], list[str]]:
    """Groups of results with their errors, and the names of expected results that Imagier did not give."""
    groups: dict[str, Group] = {}
    missing = set(case.expected)
    largest: dict[str, float] = {}
    for name, value in case.expected.items():
        place = _network_of(name)
        if place is not None and ".gradnorm." in name:
            largest[place] = max(largest.get(place, 0.0), value.item())
    for process in case.processes:
        for name, value in results(case, process, vgg).items():
            if name.startswith("prepare."):
                ours, expected = value
                expected = expected.float()
            elif name in case.expected:
                missing.discard(name)
                ours, expected = value, case.expected[name]
            else:
                continue
            _note(groups, name, ours, expected, largest, case.meta)
    return groups, sorted(missing)


def _network_of(name: str) -> str | None:
    """What has one largest gradient norm, where a result is a gradient: a process, or the network of one frame."""
    found = re.match(r"(.+?)\.grad(?:norm)?\.", name)
    frame = parity_clips.FRAME.match(name)
    return None if found is None else name.split("grad", 1)[0] + name.split(".")[3] if frame else found[1]


def _note(
    groups: dict[str, Group],
    name: str,
    ours: Any,
    expected: Tensor,
    largest: Mapping[str, float],
    meta: Mapping[str, Any],
) -> None:
    before = None
    if isinstance(ours, tuple):
        ours, before = ours
    ours, expected = ours.detach().double(), expected.double()
    process, _, rest = parity_clips.FRAME.sub(r"\1.", name).partition(".")
    norm = largest.get(_network_of(name) or "", 0.0)
    kind = rest.partition(".")[0]
    group = process if kind == "images" or process.startswith(("eval", "prepare")) else f"{process}.{kind}"
    if ours.shape != expected.shape:
        groups.setdefault(group, Group()).add(
            f"{name}: shape {tuple(ours.shape)}", float("inf"), float("inf"), float("inf")
        )
        return
    error = (ours - expected).abs().max().item() if expected.numel() else 0.0
    scale = expected.abs().max().item() if expected.numel() else 0.0
    limit = 2e-4 * max(1.0, scale)  # images and codes
    if kind == "loss":
        limit = 1e-5 * scale + 1e-5
    elif kind == "disout":
        limit = 1e-4 * max(1.0, scale)
    elif kind == "gradnorm":
        limit = 0.01 * scale + 1e-4 * norm
    elif kind == "grad":
        error = (ours - expected).norm().item()
        scale = expected.norm().item()
        limit = 0.01 * scale + 1e-4 * norm
    elif process == "after":
        limit = 2e-5 * max(1.0, scale)
    elif kind in ("G", "D"):
        assert before is not None
        limit = 0.05 * (expected - before.double()).abs().max().item() + 1e-6
    elif kind == "avg":
        limit = 1e-5
    if "frames" in meta:
        limit = parity_clips.limit_of(name, scale, meta) or limit
    groups.setdefault(group, Group()).add(name, error, error / scale if scale else 0.0, error / limit)


def report(case: Case, vgg: Path) -> bool:
    """Prints the table of a case; whether everything is within its limit."""
    groups, missing = compare(case, vgg)
    print(f"\n{case.folder.name}")
    print(f"  {'results':<16}{'number':>7}{'largest abs':>13}{'largest rel':>13}{'of limit':>10}  ")
    for name, group in groups.items():
        verdict = "pass" if group.of_limit <= 1 else f"FAIL at {group.worst}"
        errors = f"{group.absolute:>13.2e}{group.relative:>13.2e}{group.of_limit:>9.1%}"
        print(f"  {name:<16}{group.count:>7}{errors}  {verdict}")
    for name in missing:
        print(f"  {name}: FAIL, no such result here")
    return not missing and all(group.of_limit <= 1 for group in groups.values())


def find_case(name: str) -> Path:
    """A folder, or that of this name beside the repository."""
    return Path(name) if Path(name).is_dir() else GOLDEN / name


def main() -> int:
    """Compares all cases of the command line; 1 if any number is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=find_case, metavar="CASE_DIR")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        vgg = write_formula_vgg19(Path(folder) / "vgg19.pth")
        passed = [report(Case(case), vgg) for case in args.cases]
    print("\nall within the limits" if all(passed) else "\nsome results are beyond their limit")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
