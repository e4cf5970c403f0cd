"""A package of the user's, outside the repository: everything that a config names can come from there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml
from images import write

from imagier.cli import main
from imagier.config.read import read, read_mapping
from imagier.errors import UserError
from imagier.recipe import Position
from imagier.run import build_data
from imagier.train import checkpoint
from imagier.train.compare import find_first_difference
from imagier.train.runtime import Runtime

LAB = "lab_outside"

NETS = '''
"""Networks of one convolution, and recipes of one, two and three of them."""

import torch
from torch import nn

from imagier.recipe import Recipe


class TinyGenerator(nn.Module):
    def __init__(self, *, label_channels: int, image_channels: int, width: int = 3):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(label_channels, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 3, 1))

    def forward(self, label):
        return self.net(label).tanh()


class Discriminator(nn.Module):
    def __init__(self, *, image_channels: int):
        super().__init__()
        self.net = nn.Conv2d(image_channels, 1, 1)

    def forward(self, images):
        return self.net(images)


class Head(Discriminator):
    """Guesses how bright an image is."""


class Base(Recipe):
    required_inputs = ("images", "label")

    def sample(self, batch, rng):
        return self.networks[self.generator_name](batch["label"])

    def target(self, batch):
        return batch["images"]
'''

RECIPES = {
    "solo": '''
"""A recipe with one player, whose name is not gen."""

from lab_outside.nets import Base, TinyGenerator


class Painter(TinyGenerator):
    pass


class Recipe(Base):
    players = ("painter",)

    def __init__(self, *, painter: Painter, strength: float = 1.0):
        self.painter, self.loss_weight = painter, {"l1": strength}

    def step(self, batch, ctx):
        yield "painter", {"l1": (self.painter(batch["label"]) - batch["images"]).abs().mean()}
''',
    "eager": '''
"""A recipe with keys of its own, two of which have the names of keys of ours."""

from lab_outside.nets import Base, TinyGenerator
from lab_outside.solo import Painter


class Recipe(Base):
    """Its keys mean nothing to others."""

    players = ("painter",)

    def __init__(self, *, painter: Painter, dis_step: int = 3, num_epochs_temporal_step: str = "never"):
        self.painter, self.loss_weight = painter, {"l1": 1.0}

    def step(self, batch, ctx):
        yield "painter", {"l1": (self.painter(batch["label"]) - batch["images"]).abs().mean()}


class Thrice(Recipe):
    steps_keys = ("dis_step",)


class Wrong(Recipe):
    steps_keys = ("gen_step",)


class Forgetful(Recipe):
    def __init__(self, *, painter: Painter):
        self.loss_weight = {"l1": 1.0}


class NoField(Recipe):
    data_keys = ("dis_step",)
''',
    "trio": '''
"""A recipe with three players."""

from torch import nn

from lab_outside.nets import Base, Discriminator, Head, TinyGenerator


class Recipe(Base):
    players = ("gen", "dis", "head")

    def __init__(self, *, gen: nn.Module, dis: nn.Module, head: nn.Module):
        self.gen, self.dis, self.head = gen, dis, head
        self.loss_weight = {"gan": 1.0, "light": 1.0}

    def step(self, batch, ctx):
        fake = self.gen(batch["label"])
        yield "dis", {"gan": self.dis(fake.detach()).mean() - self.dis(batch["images"]).mean()}
        light = batch["images"].mean(dim=1, keepdim=True)
        yield "head", {"light": (self.head(batch["images"]) - light).square().mean()}
        yield "gen", {"gan": -self.dis(fake).mean(), "light": (self.head(fake) - light).square().mean()}
''',
}

SIGN_DESCENT = '''
"""Steps of the same size in every weight."""

import torch
from torch import Tensor
from torch.optim import Optimizer as Base


class Optimizer(Base):
    def __init__(self, params, *, lr: float | Tensor, decay: float = 0.5):
        if decay > 1:
            raise ValueError("decay must not be above 1")
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                    mean.lerp_(weight.grad, 1 - group["decay"])
                    weight.sub_(group["lr"] * mean.sign())


class Lazy(Optimizer):
    """Is named by the path of the class."""
'''

HALVING = '''
"""Half the rate from a certain time on."""

import imagier.train.schedule
from imagier.errors import UserError


class Schedule(imagier.train.schedule.Schedule):
    def __init__(self, *, at: int = 100):
        if at < 0:
            raise UserError("must not be negative", where="at", code="negative")
        self.at = at

    def __call__(self, t):
        return 1.0 if t < self.at else 0.5
'''

BRIGHTNESS = '''
"""How far the mean brightness is off, over all images together."""

import torch

from imagier.metrics.metric import Metric as Base


class Metric(Base):
    name = "brightness"

    def __init__(self, *, scale: float = 1.0):
        self.scale = scale

    def reset(self, device):
        self.state = {"off": torch.zeros((), device=device), "count": torch.zeros((), device=device)}

    def update(self, images, known):
        self.state["off"] += (images - known["targets"]).mean(dim=(1, 2, 3)).sum()
        self.state["count"] += len(images)

    def compute(self):
        return self.scale * abs(self.state["off"] / self.state["count"]).item()
'''


LARGE_PAIRS = '''
"""Pairs whose images are large enough."""

from imagier.data.dataset import DatasetSpec
from imagier.data.datasets import paired_images


class Dataset(paired_images.Dataset):
    def __init__(self, spec: DatasetSpec, *, min_side_px: int):
        super().__init__(spec)
        sizes = [super(Dataset, self).load(i)["images"].shape[:2] for i in range(super().__len__())]
        self.kept = [i for i, size in enumerate(sizes) if min(size) >= min_side_px]

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, key):
        return super().__getitem__((key[0], self.kept[key[1]]))

    def load(self, index):
        return super().load(self.kept[index])
'''

DEPTH = '''
"""Depth in millimeters, in PNGs of 16 bits; networks see meters."""

import cv2
import numpy as np

from imagier.data import codec
from imagier.data.codec import Remark, stretch
from imagier.errors import UserError


class Codec(codec.Codec):
    num_channels = 1

    def __init__(self, input_type, *, max_m: float = 80.0):
        super().__init__(input_type)
        self.max_m = max_m

    def decode(self, file):
        array = cv2.imdecode(np.frombuffer(file.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or array.dtype != np.uint16:
            raise UserError("is no depth map", where=file.where, code="damaged")
        return array[..., None]

    def augment(self, stored, drawn):
        return drawn.apply(stored.array, stored.extent, is_nearest=True)

    def expand(self, stored):
        return (stored.movedim(-1, -3).float() / 1000).clamp(max=self.max_m)

    def to_rgb(self, array, canvas=None):
        return np.repeat(stretch(array), 3, axis=2)

    def examine(self, array):
        is_empty = not array.any()
        return [Remark("no-depth", "without any depth", "measure again")] if is_empty else []
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the package."""
    for name in [name for name in sys.modules if name.partition(".")[0] == LAB]:
        monkeypatch.delitem(sys.modules, name)
    parts = {"nets": NETS, "sign_descent": SIGN_DESCENT, "halving": HALVING, "brightness": BRIGHTNESS, **RECIPES}
    parts |= {"large_pairs": LARGE_PAIRS, "depth": DEPTH}
    for name, text in {"__init__": "", **parts}.items():
        write(tmp_path / "elsewhere" / LAB / f"{name}.py", text.encode())
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    return tmp_path


def solo(folder: Path, **run: Any) -> dict[str, Any]:
    """A config of the recipe with one player."""
    config = tiny.config(tiny.write_data(folder / "data"), **run)
    for section in ("gen", "dis", "gen_opt", "dis_opt"):
        del config[section]
    average = {"enabled": True, "beta": 0.5, "start_iteration": 1}
    config["trainer"] = {"type": f"{LAB}.solo", "model_average_config": average}
    return config | {"painter": {"type": f"{LAB}.solo", "width": 2}, "painter_opt": {"lr": 1e-3}}


def trio(folder: Path, **run: Any) -> dict[str, Any]:
    """A config of the recipe with three players."""
    config = tiny.config(tiny.write_data(folder / "data"), **run)
    config["trainer"] = {"type": f"{LAB}.trio"}
    networks = {"gen": "TinyGenerator", "dis": "Discriminator", "head": "Head"}
    sections = {name: {"type": f"{LAB}.nets.{class_name}"} for name, class_name in networks.items()}
    sections["head"] = {"type": f"{LAB}.nets"}
    return config | sections


def train(config: dict[str, Any], logdir: Path, *words: str) -> int:
    """The exit status of a training on the CPU."""
    path = logdir.parent / "outside.yaml"
    path.write_text(yaml.safe_dump(config))
    where = ["--config", path, "--logdir", logdir, "--device", "cpu", "--seed", 3]
    return main(["train", *map(str, where), "snapshot_save_iter=2", *words])


def read_records(logdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


def mistakes(config: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What a training that is refused says: "key: what" of each mistake."""
    capsys.readouterr()
    assert train(config, folder / "refused", *words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return [line.partition(": ")[2] for line in said.splitlines()]


def ends_as_if_never_stopped(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run of four iterations, which is that of two runs of two."""
    assert train(config, folder / "whole", "max_iter=4") == 0
    for last in (2, 4):
        assert train(config, folder / "halves", f"max_iter={last}") == 0
    name = "epoch_00000_iteration_000000004_checkpoint.pt"
    whole, halves = (checkpoint.load(folder / run / name) for run in ("whole", "halves"))
    assert find_first_difference(whole["players"], halves["players"]) is None
    return whole


def test_a_recipe_with_one_player_trains_resumes_and_makes_images(lab: Path) -> None:
    state = ends_as_if_never_stopped(solo(lab), lab)
    assert list(state["players"]) == ["painter"]
    assert state["players"]["painter"]["average"]["num_updates"] == 4
    assert "net.1.running_mean" in state["extras"]["batch_norm"], "measured for the average"
    where = ["--config", lab / "whole" / "config.yaml", "--logdir", lab / "whole", "--device", "cpu"]
    assert main(["infer", *map(str, where), "--output_dir", str(lab / "images")]) == 0
    assert list((lab / "images").rglob("*.jpg"))


def test_a_recipe_with_three_players_trains_and_resumes_with_an_optimizer_and_an_average_for_each(lab: Path) -> None:
    config = trio(lab, head_opt={"type": "sgd", "lr": 0.5, "momentum": 0.9})
    average = {"enabled": True, "beta": 0.5, "start_iteration": 1, "players": ["dis", "head"]}
    config["trainer"]["model_average_config"] = average
    state = ends_as_if_never_stopped(config, lab)
    assert list(state["players"]) == ["gen", "dis", "head"]
    groups = {name: player["optimizer"]["param_groups"][0] for name, player in state["players"].items()}
    assert groups["head"]["momentum"] == 0.9
    assert groups["gen"]["betas"] == (0.5, 0.999)
    assert [name for name, player in state["players"].items() if "average" in player] == ["dis", "head"]
    assert state["extras"]["batch_norm"] == {}
    tags = {tag for record in read_records(lab / "whole") for tag in record}
    assert "L1/regular" in tags and "L1/average" not in tags, "the generator has no average"


@pytest.mark.parametrize("type_", [f"{LAB}.sign_descent", f"{LAB}.sign_descent.Lazy"])
def test_an_optimizer_of_the_users_trains_and_resumes(lab: Path, type_: str) -> None:
    config = solo(lab, painter_opt={"type": type_, "lr": 0.01, "decay": 0.25})
    state = ends_as_if_never_stopped(config | {"painter_opt": {"type": type_, "lr": 0.01, "decay": 0.25}}, lab)
    (group,) = state["players"]["painter"]["optimizer"]["param_groups"]
    assert (group["lr"], group["decay"]) == (0.01, 0.25)
    assert len(state["players"]["painter"]["optimizer"]["state"]) == 6


@pytest.mark.parametrize(("recipe", "samples"), [("Recipe", 2), ("Thrice", 6)])
def test_only_the_keys_that_a_recipe_names_make_its_batches_larger(lab: Path, recipe: str, samples: int) -> None:
    config = solo(lab)
    config["trainer"] = {"type": f"{LAB}.eager.{recipe}"}
    loader = build_data.build_train_loader(read_mapping(config)[0], Runtime(torch.device("cpu")), seed=0)
    assert len(next(loader.stream(Position()))[0]) == samples
    assert train(config, lab / "run", "max_iter=1") == 0


def test_a_recipe_that_does_not_keep_its_network_is_one_mistake(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = solo(lab)
    config["trainer"] = {"type": f"{LAB}.eager.Forgetful"}
    assert train(config, lab / "refused") == 2
    assert capsys.readouterr().err.startswith(f"{LAB}.eager.Forgetful: ")


BROKEN = {
    "syntax": ("class Painter(:\n", 1, "SyntaxError: invalid syntax ("),
    "name": ("import torch\n\nx = torch.nn.Sequental()\n", 3, "AttributeError: module 'torch.nn' has no attribute"),
    "import": ("from lab_outside.nets import Tiny\n", 1, "ImportError: cannot import name 'Tiny'"),
    "value": ("import json\njson.loads('{')\n", 2, "JSONDecodeError: Expecting property name"),
    "exit": ("import sys\nsys.exit('no license')\n", 2, "SystemExit: no license"),
    "wordless exit": ("raise SystemExit\n", 1, "SystemExit ("),
    "package": ("import nobody_has_this\n", 1, "needs the module 'nobody_has_this'"),
}


@pytest.mark.parametrize("deep", [False, True], ids=["itself", "what it imports"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_is_one_mistake_with_the_line_at_fault(
    lab: Path, capsys: pytest.CaptureFixture[str], name: str, deep: bool
) -> None:
    text, number, reason = BROKEN[name]
    broken = lab / "elsewhere" / LAB / "broken.py"
    write(broken, text.encode())
    write(lab / "elsewhere" / LAB / "outer.py", f"import {LAB}.broken\n".encode())
    config = solo(lab)
    config["painter"]["type"] = f"{LAB}.outer" if deep else f"{LAB}.broken"
    (line,) = mistakes(config, lab, capsys)
    assert line.startswith("painter.type: ") and reason in line
    assert f"({broken}:{number})" in line and line.count(broken.name) == 1


def test_a_text_where_a_metric_or_a_data_set_should_have_a_tuple_is_one_mistake(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"from {LAB}.brightness import Metric\nclass Metric(Metric):\n    needs = 'targets'\n"
    write(lab / "elsewhere" / LAB / "wordy.py", text.encode())
    text = f"from {LAB}.large_pairs import Dataset\nclass Dataset(Dataset):\n    required_input_types = ('images')\n"
    write(lab / "elsewhere" / LAB / "wordy_pairs.py", text.encode())
    (line,) = mistakes(solo(lab, metrics=[f"{LAB}.wordy"]), lab, capsys)
    assert line.startswith("metrics.0.type: ") and ".needs is a text" in line
    config = solo(lab)
    config["data"]["type"] = f"{LAB}.wordy_pairs"
    (line,) = mistakes(config, lab, capsys)
    assert line.startswith("data.type: ") and ".required_input_types is a text" in line


def test_a_folder_that_is_not_there_gets_the_one_that_may_be_meant(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = solo(lab)
    config["data"]["train"]["roots"] = [str(lab / "data" / "trian")]
    assert train(config, lab / "refused") == 2
    assert capsys.readouterr().err == f"{lab / 'data/trian'}: no such folder; did you mean {lab / 'data/train'}?\n"


@pytest.mark.parametrize("attribute", ["players", "required_inputs", "steps_keys", "data_keys"])
def test_a_text_where_a_recipe_should_have_a_tuple_is_one_mistake(
    lab: Path, capsys: pytest.CaptureFixture[str], attribute: str
) -> None:
    text = f"from lab_outside.solo import Painter, Recipe\nRecipe.{attribute} = ('painter')\n"
    write(lab / "elsewhere" / LAB / "text.py", text.encode())
    config = solo(lab)
    config["trainer"] = {"type": f"{LAB}.text"}
    (line,) = mistakes(config, lab, capsys)
    assert line.startswith("trainer.type: ") and f".{attribute} " in line


def test_an_argument_that_no_infer_has_is_an_unknown_key(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = mistakes(solo(lab), lab, capsys, "inference_args.a2b=true")
    assert line.startswith("inference_args.a2b: ")


@pytest.mark.parametrize(("recipe", "attribute"), [("Wrong", "steps_keys"), ("NoField", "data_keys")])
def test_a_key_that_a_recipe_names_and_nobody_has_is_its_mistake(lab: Path, recipe: str, attribute: str) -> None:
    config = solo(lab)
    config["trainer"] = {"type": f"{LAB}.eager.{recipe}"}
    with pytest.raises(UserError) as caught:
        build_data.build_train_loader(read_mapping(config)[0], Runtime(torch.device("cpu")), seed=0)
    assert (caught.value.where, caught.value.code) == (f"{LAB}.eager.{recipe}.{attribute}", "unknown-key")


def test_a_schedule_of_the_users_sets_the_rate(lab: Path) -> None:
    policy = {"type": f"{LAB}.halving", "at": 3, "iteration_mode": True}
    config = solo(lab) | {"painter_opt": {"type": "adamw", "lr": 0.01, "lr_policy": policy}, "logging_iter": 1}
    ends_as_if_never_stopped(config, lab)
    records = read_records(lab / "whole")
    assert [record["optim/painter_lr"] for record in records if "optim/painter_lr" in record] == [0.01] * 3 + [0.005]


def test_a_metric_of_the_users_is_logged_shown_and_chooses_the_best_checkpoint(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ["psnr", {"type": f"{LAB}.brightness", "scale": 255.0}]
    config = solo(lab, metrics=metrics, keep_best="brightness", keep_last=1)
    ends_as_if_never_stopped(config, lab)
    said = capsys.readouterr().out
    assert "brightness" in said and "PSNR" in said and "L1" not in said
    records = read_records(lab / "whole")
    scores = {record["step"]: record["brightness/average"] for record in records if "brightness/average" in record}
    assert list(scores) == [2, 4]
    best = min(scores, key=lambda step: scores[step])
    assert f"iteration_{best:09d}" in (lab / "whole" / "best_checkpoint.txt").read_text()


def test_mistakes_against_the_users_classes_are_reported_like_those_against_ours(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = solo(lab, keep_best="brightnes", metrics=[{"type": f"{LAB}.brightness", "skale": 2}, f"{LAB}.dark"])
    config["painter"]["widht"] = 3
    policy = {"type": f"{LAB}.halving", "at": -1}
    config["painter_opt"] = {"type": f"{LAB}.sign_descent", "decay": "much", "lr_policy": policy, "weights": 3}
    found = mistakes(config, lab, capsys)
    assert {line.partition(": ")[0] for line in found} == {
        "metrics.0.skale",
        "metrics.1.type",
        "painter.widht",
        "painter_opt.decay",
        "painter_opt.lr_policy.at",
        "painter_opt.weights",
    }


def test_what_an_optimizers_constructor_refuses_is_one_line(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = solo(lab) | {"painter_opt": {"type": f"{LAB}.sign_descent", "decay": 1.5}}
    assert train(config, lab / "refused") == 2
    assert capsys.readouterr().err == "painter_opt: decay must not be above 1\n"


@pytest.mark.parametrize("section", ["dis", "dis_opt"])
def test_a_section_of_a_player_that_the_recipe_does_not_have_is_unknown(
    lab: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    (line,) = mistakes(solo(lab) | {section: {"type": "spade"}}, lab, capsys)
    assert line == f"{section}: unknown key; the recipe {LAB}.solo trains painter"


def test_a_player_without_a_section_is_named(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = trio(lab)
    del config["head"]
    assert mistakes(config, lab, capsys) == ["head: missing section"]


def test_a_class_of_the_wrong_kind_is_refused(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = solo(lab, metrics=[f"{LAB}.sign_descent.Optimizer"])
    config["painter_opt"] = {"type": f"{LAB}.brightness.Metric"}
    config["painter"]["type"] = f"{LAB}.brightness.Metric"
    found = mistakes(config, lab, capsys)
    assert sorted(line.partition(": ")[0] for line in found) == ["metrics.0.type", "painter.type", "painter_opt.type"]


def deep(folder: Path) -> dict[str, Any]:
    """A config of pairs that are large enough, whose label is classes and the depth of every pixel.

    Of the training images one is too small. The depth at (y, x) is 1 m and y mm, in one file it is 0.
    """
    config = solo(folder)
    meters = np.repeat(1000 + np.arange(tiny.SIZE, dtype=np.uint16)[:, None], tiny.SIZE, axis=1)
    for split in ("train", "val"):
        for image in (folder / "data" / split / "images").glob("*.png"):
            array = meters * (image.stem != "003")
            write(folder / "data" / split / "depth" / image.name, cv2.imencode(".png", array)[1].tobytes())
    for kind in ("images", "seg_maps", "depth"):
        path = folder / "data" / "train" / kind / "001.png"
        small = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::4, ::4]
        write(path, cv2.imencode(".png", small)[1].tobytes())
    data = config["data"]
    data["input_types"].append({"depth": {"ext": "png", "type": f"{LAB}.depth", "max_m": 1.016}})
    data["input_labels"].append("depth")
    return config | {"data": data | {"type": f"{LAB}.large_pairs", "min_side_px": tiny.SIZE}}


def test_a_data_set_with_a_key_of_its_own_and_a_new_kind_of_input_train_and_resume(lab: Path) -> None:
    config = deep(lab)
    ends_as_if_never_stopped(config, lab)
    checked, _ = read(lab / "outside.yaml")
    loader = build_data.build_train_loader(checked, Runtime(torch.device("cpu")), seed=0)
    assert len(loader.dataset) == 9, "without the one that is too small"
    batch, _ = next(loader.stream(Position()))
    assert batch["label"].shape[1] == 4 + 1
    depth = batch["label"][:, 4]
    assert sorted(set(depth.unique().tolist()) - {0.0}) == pytest.approx([1 + y / 1000 for y in range(17)])
    assert (lab / "whole" / "config.yaml").read_text().count(f"min_side_px: {tiny.SIZE}") == 1


def test_the_doctor_previews_and_checks_a_new_kind_of_input(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lab / "deep.yaml"
    path.write_text(yaml.safe_dump(deep(lab)))
    assert main(["data", "preview", str(path), str(lab / "preview.html"), "--samples", "9"]) == 0
    page = (lab / "preview.html").read_text()
    assert page.count("<code>depth</code>") == 9 + 3
    main(["data", "check", str(path)])
    said = capsys.readouterr().out
    assert "1 of 10 files without any depth" in said.replace("images", "files")
    assert "16 bits" not in said
    broken = lab / "data" / "train" / "depth" / "002.png"
    broken.write_bytes(b"")
    assert main(["data", "check", str(path)]) == 1
    assert "is empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("data.min_side_px=wide", "data.min_side_px"),
        ("data.train.min_side=3", "data.train.min_side"),
        ("data.input_types.2.depth.max=3", "data.input_types.2.depth.max"),
        ("data.input_types.2.depth.max_m=far", "data.input_types.2.depth.max_m"),
        ("data.input_types.2.depth.num_channels=3", "data.input_types.2.depth.num_channels"),
    ],
)
def test_mistakes_in_the_keys_of_a_data_set_and_of_a_kind_of_input_are_reported_at_their_places(
    lab: Path, capsys: pytest.CaptureFixture[str], override: str, place: str
) -> None:
    (line,) = mistakes(deep(lab), lab, capsys, override)
    assert line.startswith(f"{place}: ")
