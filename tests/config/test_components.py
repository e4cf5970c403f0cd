"""Optimizers, schedules and metrics: found by name, checked against their constructors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_config import TEXT, mistakes, read, swap, write
from torch import Tensor, nn

from imagier.config.constructor import constructor_model
from imagier.config.find import find, list_types
from imagier.config.schema import OPTIMIZER
from imagier.run.build_training import build_optimizer
from imagier.train import optim, schedule

REFUSED = ("lbfgs", "sparseadam")
USABLE = sorted(set(list_types(OPTIMIZER)) - set(REFUSED))
REQUIRED = {"madam": ", scale: 3"}


def test_ours_and_those_of_torch_are_there() -> None:
    assert {"adam", "fromage", "madam", "sgd", "rmsprop", "adamw", "radam", "nadam", "adagrad"} < set(USABLE)
    assert find(OPTIMIZER, "adam") is find(OPTIMIZER, "Adam") is optim.Adam
    assert find(OPTIMIZER, "NAdam") is find(OPTIMIZER, "nadam") is torch.optim.NAdam


@pytest.mark.parametrize("name", USABLE)
def test_every_optimizer_is_checked_built_and_moves_weights(tmp_path: Path, name: str) -> None:
    config, notes = read(write(tmp_path), f"gen_opt={{type: {name}{REQUIRED.get(name, '')}}}")
    assert notes == []
    network = nn.Linear(3, 3, bias=False)  # Muon takes matrices alone
    before = network.weight.detach().clone()
    built = build_optimizer(config.optimizers["gen"], network, "gen_opt")
    assert built.param_groups[0]["lr"] == 1e-4
    network(torch.ones(1, 3)).sum().backward()
    built.step()
    assert not torch.equal(network.weight, before)
    again, notes = read(write(tmp_path, config.dump()))
    assert (again, notes) == (config, [])


@pytest.mark.parametrize("name", REFUSED)
def test_an_optimizer_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    assert mistakes(write(tmp_path), f"gen_opt.type={name}") == [("gen_opt.type", "unusable-optimizer")]


@pytest.mark.parametrize(
    ("override", "key", "code"),
    [
        ("gen_opt={type: adamw, betas: [0.5]}", "gen_opt.betas.1", "missing-key"),
        ("gen_opt={type: adamw, betas: [0.5, x]}", "gen_opt.betas.1", "wrong-type"),
        ("gen_opt={type: adamw, amsgrd: true}", "gen_opt.amsgrd", "unknown-key"),
        ("gen_opt={type: adamw, params: []}", "gen_opt.params", "fact"),
        ("gen_opt={type: adamw, momentum: 0.5}", "gen_opt.momentum", "unknown-key"),
        ("gen_opt={type: sgd, weight_decay: x}", "gen_opt.weight_decay", "wrong-type"),
        ("gen_opt={type: madam, scale: 0}", "gen_opt.scale", "out-of-range"),
        ("gen_opt={type: sgdd}", "gen_opt.type", "unknown-type"),
        ("gen_opt={type: optimizer}", "gen_opt.type", "unknown-type"),
        ("gen_opt=3", "gen_opt", "wrong-type"),
        ("gen_opt.lr_policy=3", "gen_opt.lr_policy", "wrong-type"),
        ("gen_opt.lr_policy.warmup=-1", "gen_opt.lr_policy.warmup", "out-of-range"),
        ("gen_opt.lr_policy={type: cosine}", "gen_opt.lr_policy.decay_end", "missing-key"),
        (
            "gen_opt.lr_policy={type: cosine, decay_start: 3, decay_end: 2}",
            "gen_opt.lr_policy.decay_end",
            "wrong-order",
        ),
        ("gen_opt.lr_policy={type: step, step_size: 0}", "gen_opt.lr_policy.step_size", "out-of-range"),
        ("gen_opt.lr_policy={type: schedule}", "gen_opt.lr_policy.type", "unknown-type"),
        ("metrics=psnr", "metrics", "wrong-type"),
        ("metrics=[3]", "metrics.0", "wrong-type"),
        ("metrics=[l2]", "metrics.0.type", "unknown-type"),
        ("metrics=[metric]", "metrics.0.type", "unknown-type"),
        ("metrics=[l1, {tolerance: 1}]", "metrics.1", "missing-key"),
        ("metrics=[l1, {type: l1_changed, tolerance: -1}]", "metrics.1.tolerance", "out-of-range"),
        ("metrics=[l1, psnr, l1]", "metrics.2", "name-taken"),
        ("keep_best=PSMR", "keep_best", "unknown-metric"),
        ("trainer.model_average_config.players=[gen, gun]", "trainer.model_average_config.players.1", "unknown-player"),
    ],
)
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, override: str, key: str, code: str) -> None:
    assert mistakes(write(tmp_path), override) == [(key, code)]


def test_what_a_config_says_of_an_optimizer_arrives(tmp_path: Path) -> None:
    policy = "{type: cosine, decay_end: 9, decay_target: 0.5, warmup: 3, iteration_mode: true}"
    config, _ = read(write(tmp_path), f"dis_opt={{type: AdamW, lr: 1, weight_decay: 0.5, lr_policy: {policy}}}")
    component = config.optimizers["dis"]
    assert component.cls is torch.optim.AdamW
    assert (component.options["lr"], component.options["weight_decay"]) == (1.0, 0.5)
    decay = component.shared.lr_policy
    assert (decay.shared.warmup, decay.shared.iteration_mode) == (3, True)
    assert isinstance(decay.build(), schedule.Cosine)
    assert decay.build()(100) == 0.5


def test_the_metrics_of_a_config_are_those_of_its_list(tmp_path: Path) -> None:
    config, _ = read(write(tmp_path), "metrics=[psnr, {type: l1_changed, tolerance: 0.5}]", "keep_best=PSNR")
    assert [metric.build().name for metric in config.run.metrics] == ["PSNR", "L1 changed by 0.5"]
    always = {"optional": False}
    expected = [{"type": "psnr", **always}, {"type": "l1_changed", **always, "tolerance": 0.5}]
    assert config.to_dict()["metrics"] == expected
    default, _ = read(write(tmp_path))
    assert [metric.build().name for metric in default.run.metrics] == ["L1", "PSNR", "L1 changed"]


class Odd:
    def __init__(self, *, a: int | Tensor, b: tuple[float | Tensor, int], c: Tensor, d: list[nn.Module] | None) -> None:
        """Arguments of types that no YAML holds."""


def test_of_a_type_hint_that_part_is_checked_which_a_yaml_can_hold() -> None:
    found = {name: f.type for name, f in constructor_model(Odd, None).__dataclass_fields__.items()}  # type: ignore[attr-defined]
    assert found == {"a": int, "b": tuple[float, int], "c": Any, "d": list[Any] | None}


# What version 0.1.0 wrote into config.yaml: the keys of all types in each section.

OLD = """
  lr: 0.003
  adam_beta1: {beta1}
  adam_beta2: 0.999
  eps: 1.0e-08
  momentum: {momentum}
  weight_decay: 0.0
  scale: {scale}
  g_bound: null
  lr_policy:
    type: {policy}
    iteration_mode: true
    step_size: {step_size}
    gamma: 1.0
    decay_start: {start}
    decay_end: {end}
    decay_target: {target}
  clip_grad_norm: null
  skip_grad: false
"""
NOTHING = {"beta1": "0.0", "momentum": "0.0", "scale": "null", "policy": "step", "step_size": "1000000000"}
NOTHING |= {"start": "null", "end": "null", "target": "null"}
LINEAR = {"policy": "linear", "start": "600", "end": "1200", "target": "0.0"}


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("adam", {"beta1": "0.5", **LINEAR}, {"betas": (0.5, 0.999), "eps": 1e-8}),
        ("sgd", {"momentum": "0.9"}, {"momentum": 0.9, "weight_decay": 0.0}),
        ("rmsprop", {"policy": "constant"}, {"eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0}),
        ("fromage", LINEAR, {}),
        ("madam", {"scale": "3.0"}, {"scale": 3.0, "g_bound": None}),
    ],
)
def test_a_config_that_an_older_version_wrote_loads_without_a_remark(
    tmp_path: Path, name: str, said: dict[str, str], expected: dict[str, Any]
) -> None:
    section = f"gen_opt:\n  type: {name}" + OLD.format(**{**NOTHING, **said})
    config, notes = read(write(tmp_path, swap(TEXT, "gen_opt:\n  lr: 1e-4\n", section)))
    assert notes == []
    options = config.optimizers["gen"].options
    assert {"lr": 0.003, **expected}.items() <= options.items()
    policy = config.optimizers["gen"].shared.lr_policy
    assert policy.type == said.get("policy", "step")
    assert policy.options == (
        {"decay_start": 600, "decay_end": 1200, "decay_target": 0.0}
        if policy.type == "linear"
        else {"step_size": 1_000_000_000, "gamma": 1.0}
        if policy.type == "step"
        else {}
    )


@pytest.mark.parametrize(
    ("section", "betas", "notes"),
    [
        ("{adam_beta1: 0.5}", (0.5, 0.999), 0),
        ("{adam_beta2: 0.5}", (0.0, 0.5), 0),
        ("{type: nadam, adam_beta1: 0.5}", (0.5, 0.999), 0),
        ("{betas: [0.25, 0.5], adam_beta1: 0.75}", (0.25, 0.5), 1),
        ("{type: sgd, adam_beta1: 0.5}", None, 1),
    ],
)
def test_the_references_betas_become_ours(
    tmp_path: Path, section: str, betas: tuple[float, float] | None, notes: int
) -> None:
    config, said = read(write(tmp_path), f"gen_opt={section}")
    assert (config.optimizers["gen"].options.get("betas"), len(said)) == (betas, notes)


ABSTRACT = {
    "trainer.type": ("Recipe", "from imagier.recipe import Recipe as Base"),
    "data.type": ("Dataset", "from imagier.data.dataset import Dataset as Base"),
    "data.input_types.0.images.type": ("Codec", "from imagier.data.codec import Codec as Base"),
    "metrics.0.type": ("Metric", "from imagier.metrics.metric import Metric as Base"),
    "gen_opt.lr_policy.type": ("Schedule", "from imagier.train.schedule import Schedule as Base"),
}


@pytest.mark.parametrize("key", ABSTRACT)
def test_a_users_class_that_lacks_methods_is_refused(tmp_path: Path, monkeypatch: Any, key: str) -> None:
    name, line = ABSTRACT[key]
    module = f"lab_lacks_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(f"{line}\n\n\nclass {name}(Base):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = f"{module}.{name}"
    override = f"metrics=[{path}]" if key.startswith("metrics") else f"{key}={path}"
    assert (key, "abstract-class") in mistakes(write(tmp_path), override)


def test_a_type_that_only_a_type_checker_knows_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "lab_hints.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom imagier.metrics import psnr\n\n"
        "if TYPE_CHECKING:\n    from decimal import Decimal\n\n\n"
        "class Metric(psnr.Metric):\n    def __init__(self, *, most: Decimal = 1):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert mistakes(write(tmp_path), "metrics=[lab_hints.Metric]") == [("metrics.0.type", "wrong-constructor")]


def test_a_whole_float_stays_one_where_any_number_may_stand(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "lab_free.py").write_text(
        "from imagier.metrics import psnr\n\n\nclass Metric(psnr.Metric):\n"
        "    def __init__(self, *, free=None, count: int = 1, either: int | float = 1):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = "{type: lab_free.Metric, free: 2.0, count: 2.0, either: 2.0}"
    config, _ = read(write(tmp_path), f"metrics=[{given}]")
    options = config.run.metrics[0].options
    assert [repr(options[key]) for key in ("free", "count", "either")] == ["2.0", "2", "2.0"]
