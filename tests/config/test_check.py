"""The check of a config: what is accepted, and what a user reads who got it wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from golden import golden
from small_config import TEXT, errors, mistakes, read, swap, write

from imagier.config import find, schema
from imagier.config.check import Config, check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import ConfigError, Document, load
from imagier.errors import UserError
from imagier.models import spade
from imagier.train import optim, schedule

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


def test_the_messages_of_the_design_are_told_at_once_with_file_and_line(tmp_path: Path) -> None:
    text = swap(TEXT, "  num_filters: 8\n", "  num_filter: 8\n")
    text = swap(text, "    num_filters: 4\n", "    num_filters: many\n")
    text = swap(text, "dis:\n  type: spade\n", "dis:\n  type: spode\n")
    assert errors(write(tmp_path, text)) == [
        "small.yaml:10: gen.num_filter: unknown key; did you mean 'num_filters'?",
        "small.yaml:12: gen.style_enc.num_filters: expected int, got 'many'",
        "small.yaml:14: dis.type: no model 'spode'; did you mean 'spade'?",
    ]


def test_mistakes_on_one_line_are_all_told_in_the_order_of_the_schema(tmp_path: Path) -> None:
    text = swap(TEXT, "  lr: 1e-4\n", "  {lrr: 1, typ: 2, epss: 3, lr: x}\n")
    assert errors(write(tmp_path, text)) == [
        "small.yaml:7: gen_opt.lr: expected number, got 'x'",
        "small.yaml:7: gen_opt.lrr: unknown key; did you mean 'lr'?",
        "small.yaml:7: gen_opt.typ: unknown key; did you mean 'type'?",
        "small.yaml:7: gen_opt.epss: unknown key; did you mean 'eps'?",
    ]


def test_mistakes_of_the_command_line_come_first(tmp_path: Path) -> None:
    text = swap(TEXT, "max_iter: 10\n", "max_itr: 10\n")
    assert errors(write(tmp_path, text), "gen.num_filter=3") == [
        "command line: gen.num_filter: unknown key; did you mean 'num_filters'?",
        "small.yaml:1: max_itr: unknown key; did you mean 'max_iter'?",
    ]


def test_lines_are_in_order_where_the_name_of_the_file_has_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "a:9:b.yaml"
    path.write_text(swap(swap(TEXT, "max_iter", "max_itr"), "gan_mode: hinge", "gan_mode: hing"))
    assert [line.split(": ")[1] for line in errors(path)] == ["max_itr", "trainer.gan_mode"]


OF_REFERENCE = [
    "coco_funit_a",
    "funit_a",
    "munit_a",
    "munit_patch_a",
    "pix2pixHD_a",
    "pix2pixHD_b",
    "spade_a",
    "spade_b",
    "unit_a",
]

WRONG_TYPES = [
    ("max_iter=many", "max_iter: expected int, got 'many'"),
    ("max_iter='3'", "max_iter: expected int, got '3'"),
    ("max_iter=2.5", "max_iter: expected int, got 2.5"),
    ("max_iter=true", "max_iter: expected int, got True"),
    ("max_iter=[3]", "max_iter: expected int, got [3]"),
    ("max_iter={a: 3}", "max_iter: expected int, got {'a': 3}"),
    ("max_iter=", "max_iter: expected int, got None"),
    ("max_iter=-1", "max_iter: must be greater than or equal to 0, got -1"),
    ("logging_iter=0", "logging_iter: must be greater than 0, got 0"),
    ("gen_opt.lr=fast", "gen_opt.lr: expected number, got 'fast'"),
    ("gen_opt.lr='1e-4'", "gen_opt.lr: expected number, got '1e-4'"),
    ("gen_opt.lr=false", "gen_opt.lr: expected number, got False"),
    ("gen_opt.lr=-1", "gen_opt.lr: must be greater than or equal to 0, got -1"),
    ("gen_opt.adam_beta2=1", "gen_opt.betas.1: must be less than 1, got 1"),
    (
        "trainer.model_average_config.beta=2",
        "trainer.model_average_config.beta: must be less than 1, got 2",
    ),
    ("cudnn.benchmark=1", "cudnn.benchmark: expected true or false, got 1"),
    ("cudnn.benchmark='yes'", "cudnn.benchmark: expected true or false, got 'yes'"),
    ("cudnn=fast", "cudnn: expected a section, got 'fast'"),
    ("cudnn=[]", "cudnn: expected a section, got []"),
    ("pretrained_weight=3", "pretrained_weight: expected text, got 3"),
    ("inference_args=[1]", "inference_args: expected a section, got [1]"),
    ("data.input_image=images", "data.input_image: expected a list, got 'images'"),
    ("data.input_image.0=3", "data.input_image.0: expected text, got 3"),
    (
        "data.input_types={images: {ext: png, normalize: true}}",
        "data.input_types: expected a list, got {'images': {'ext': 'png', 'normalize': True}}",
    ),
    ("data.input_types.0=images", "data.input_types.0: expected a section, got 'images'"),
    ("data.input_types.0.images=png", "data.input_types.0.images: expected a section, got 'png'"),
    ("data.input_types.0.images.ext=3", "data.input_types.0.images.ext: expected text, got 3"),
    ("data.one_hot_num_classes.seg_maps=four", "data.one_hot_num_classes.seg_maps: expected int, got 'four'"),
    ("data.train.augmentations.rotate=true", "data.train.augmentations.rotate: expected number, got True"),
    ("data.train.augmentations.random_crop_h_w=32", "data.train.augmentations.random_crop_h_w: expected text, got 32"),
    (
        "data.val.augmentations={resize_smallest_side: [3]}",
        "data.val.augmentations.resize_smallest_side: expected int or text, got [3]",
    ),
    (
        "data.train.augmentations.contrast={brightness_limit: x, contrast_limit: 1, p: 0.5}",
        "data.train.augmentations.contrast.brightness_limit: expected number or a list, got 'x'",
    ),
    (
        "data.train.augmentations.compression={quality_lower: 101, p: 0.5}",
        "data.train.augmentations.compression.quality_lower: must be less than or equal to 100, got 101",
    ),
    ("gen.num_filters=2.5", "gen.num_filters: expected int, got 2.5"),
    ("gen.use_posenc_in_input_layer=1", "gen.use_posenc_in_input_layer: expected true or false, got 1"),
    ("gen.style_enc=3", "gen.style_enc: expected a section, got 3"),
    ("gen.style_dims=many", "gen.style_dims: expected int, got 'many'"),
    ("gen.type=3", "gen.type: expected text, got 3"),
    ("gen=3", "gen: expected a section with a `type`, got 3"),
    ("trainer=[]", "trainer: expected a section with a `type`, got []"),
    ("trainer.loss_weight.gan=high", "trainer.loss_weight.gan: expected number, got 'high'"),
    ("trainer.gan_relativistic=no thanks", "trainer.gan_relativistic: expected true or false, got 'no thanks'"),
    (
        "trainer.perceptual_loss={mode: vgg19, layers: 3}",
        "trainer.perceptual_loss.layers: expected a list or text, got 3",
    ),
]


OUT_OF_RANGE = [
    "gen_opt.lr_policy={type: step, gamma: -0.5}",
    "gen_opt.lr_policy={type: step, step_size: 0}",
    "gen_opt.lr_policy={type: linear, decay_start: 1, decay_end: 2, decay_target: -1}",
    "gen_opt.lr_policy={type: linear, decay_start: 1, decay_end: 2, decay_target: 2}",
    "gen_opt.lr_policy={type: cosine, decay_end: 2, decay_target: -0.1}",
    "gen_opt.lr_policy={type: constant, warmup: -1}",
    "gen_opt.eps=0",
    "gen_opt.betas=[0, -0.5]",
    "gen_opt={type: sgd, momentum: 1}",
    "gen_opt={type: sgd, momentum: -1}",
    "gen_opt={type: sgd, weight_decay: -1}",
    "gen_opt={type: rmsprop, alpha: 1}",
    "gen_opt={type: adadelta, rho: 1}",
    "gen_opt={type: adamw, eps: 0}",
    "gen_opt={type: adamw, eps: -1}",
    "gen_opt={type: adamw, betas: [0, 1]}",
    "gen_opt={type: madam, scale: 0}",
    "gen_opt.clip_grad_norm=0",
    "trainer.loss_weight={gan: -1, feature_matching: 10, kl: 0.05}",
    "trainer.model_average_config.beta=1",
    "trainer.init.gain=0",
    "trainer.init.bias={gain: -1}",
    "trainer.gan_min_k=1.5",
    "gen.num_filters=0",
    "gen.style_dims=0",
    "gen.label_features=0",
    "gen.kernel_size=4",
    "gen.activation_norm_params={num_filters: -1}",
    "gen.activation_norm_params={activation_norm_params: {eps: 0}}",
    "dis.num_filters=0",
    "dis.num_discriminators=0",
    "dis.num_layers=-1",
]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_number_that_no_training_can_use_is_refused_at_its_place(tmp_path: Path, override: str) -> None:
    (line,) = errors(write(tmp_path), override)
    assert line.startswith("command line: ") and " must " in line.replace("Invalid", "must")


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ("nesterov: true", "gen_opt.nesterov"),
        ("nesterov: true, momentum: 0.5, dampening: 0.1", "gen_opt"),
        ("momentum: -1", "gen_opt.momentum"),
    ],
)
def test_what_an_optimizer_of_torch_refuses_is_at_the_key_that_the_config_sets(
    tmp_path: Path, options: str, place: str
) -> None:
    (line,) = errors(write(tmp_path), f"gen_opt={{type: sgd, {options}}}")
    assert line.startswith(f"command line: {place}: ")


@pytest.mark.parametrize(("override", "message"), WRONG_TYPES, ids=[row[0] for row in WRONG_TYPES])
def test_a_wrong_type_is_told_by_what_was_expected_and_what_is_there(
    tmp_path: Path, override: str, message: str
) -> None:
    assert errors(write(tmp_path), override) == [f"command line: {message}"]


CHOICES = [
    (
        "gen_opt.type=adm",
        "gen_opt.type: no optimizer 'adm'; did you mean 'adam'?",
    ),
    ("gen_opt.lr_policy.type=steps", "gen_opt.lr_policy.type: no schedule 'steps'; did you mean 'step'?"),
    ("trainer.gan_mode=hing", "got 'hing'; did you mean 'hinge'?"),
    ("trainer.init.type=kaimin", "got 'kaimin'; did you mean 'kaiming'?"),
    ("trainer.precision=fp61", "got 'fp61'; did you mean 'fp16'?"),
    ("dis.activation_norm_type=instanc", "got 'instanc'; did you mean 'instance'?"),
    ("dis.activation_norm_type=layer", "got 'layer'; did you mean 'layer_2d'?"),
    ("gen.activation_norm_params.interpolation=nearst", "got 'nearst'; did you mean 'nearest'?"),
    ("data.interpolator=INTER_LINEA", "got 'INTER_LINEA'; did you mean 'INTER_LINEAR'?"),
]


@pytest.mark.parametrize(("override", "message"), CHOICES)
def test_a_misspelled_choice_gets_the_choices_and_a_suggestion(tmp_path: Path, override: str, message: str) -> None:
    (line,) = errors(write(tmp_path), override)
    assert line.endswith(message)


@pytest.mark.parametrize("key", ["data.storage_options", "data.train.augmentations", "max_iter"])
def test_no_message_shows_a_password(tmp_path: Path, key: str) -> None:
    (line,) = errors(write(tmp_path), f"{key}=https://me:mine@host/a")
    assert "mine" not in line and "https://host/a" in line


def test_the_choices_are_listed_where_none_is_near(tmp_path: Path) -> None:
    (line,) = errors(write(tmp_path), "trainer.gan_mode=xyz")
    for mode in ("hinge", "least_square", "non_saturated", "softplus", "wasserstein"):
        assert mode in line


UNKNOWN = [
    ("max_itr", "max_iter"),
    ("trainr", "trainer"),
    ("trainer.loss_weights", "loss_weight"),
    ("trainer.loss_weight.feature_maching", "feature_matching"),
    ("trainer.presicion", "precision"),
    ("trainer.model_average_config.betta", "beta"),
    ("gen.activation_norm_params.activation_norm_params.afine", "affine"),
    ("gen_opt.lr_policy.gama", "gamma"),
    ("data.input_types.0.images.normalise", "normalize"),
    ("data.train.augmentations.horizontal_flipp", "horizontal_flip"),
    ("data.train.augmentations.gamma.gamma_limit_upper", "gamma_limit_ub"),
    ("data.val.batchsize", "batch_size"),
    ("test_data.input_labls", "input_labels"),
]


@pytest.mark.parametrize(("key", "near"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_an_unknown_key_gets_the_nearest_of_its_own_section(tmp_path: Path, key: str, near: str) -> None:
    line = f"command line: {key}: unknown key; did you mean {near!r}?"
    assert line in errors(write(tmp_path), f"{key}=1")


def test_the_keys_of_a_short_section_are_listed_where_none_is_near(tmp_path: Path) -> None:
    assert errors(write(tmp_path), "cudnn.xyz=1") == [
        "command line: cudnn.xyz: unknown key; there are: deterministic, benchmark"
    ]


def test_a_key_that_is_no_text_is_unknown_like_any_other(tmp_path: Path) -> None:
    assert errors(write(tmp_path, TEXT + "1: 2\n")) == ["small.yaml:36: 1: unknown key"]


@pytest.mark.parametrize("section", ["gen", "dis", "trainer", "data"])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    text = re.sub(rf"^{section}:\n( .*\n)*", "", TEXT, flags=re.MULTILINE)
    assert errors(write(tmp_path, text)) == [f"small.yaml:1: {section}: missing section"]


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ("gen: {type: spade}", {"trainer", "dis", "data"}),
        ("dis: {type: spade}", {"trainer", "gen", "data"}),
        ("net: {type: spade}", {"trainer", "data"}),  # of a recipe with other players
        ("data: {train: {roots: [x], augmentations: {resize_h_w: '32, 32'}}}", {"trainer", "gen", "dis"}),
    ],
)
def test_a_config_that_is_only_a_part_has_a_line_for_each_section_it_lacks(
    tmp_path: Path, part: str, missing: set[str]
) -> None:
    path = write(tmp_path, part)
    assert {place for place, code in mistakes(path) if code == "missing-section"} == missing


def test_an_empty_config_lists_all_missing_sections(tmp_path: Path) -> None:
    assert errors(write(tmp_path, "")) == [
        f"small.yaml:1: {section}: missing section" for section in ("trainer", "gen", "dis", "data")
    ]


MISSING = [
    ("  gan_mode: hinge\n", "small.yaml:2: trainer.gan_mode: missing; it has no default"),
    (", kl: 0.05", "small.yaml:5: trainer.loss_weight.kl: missing; it has no default"),
    ("    roots: [somewhere/train]\n", "small.yaml:26: data.train.roots: missing; it has no default"),
    ("ext: png, num_channels: 3", "small.yaml:18: data.input_types.0.images: needs ext, the extension of its files"),
    ("  loss_weight: {gan: 1, feature_matching: 10, kl: 0.05}\n", "small.yaml:2: trainer.loss_weight: missing section"),
    ('    augmentations: {resize_h_w: "32, 32"}\n', "small.yaml:33: data.val.augmentations: missing section"),
]


@pytest.mark.parametrize(("text", "line"), MISSING)
def test_a_missing_key_is_told_with_the_line_of_its_section(tmp_path: Path, text: str, line: str) -> None:
    without = "num_channels: 3" if "ext" in text else ""
    assert errors(write(tmp_path, swap(TEXT, text, without))) == [line]


def test_a_section_without_a_type_is_told(tmp_path: Path) -> None:
    assert errors(write(tmp_path), "dis={num_filters: 3}") == ["command line: dis: missing key 'type' (which model?)"]


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("data.train.roots", "data.train.roots: is empty; name at least one folder"),
        ("data.input_types", "data.input_types: is empty; name at least one input type"),
    ],
)
def test_an_empty_list_is_told_where_it_cannot_be(tmp_path: Path, key: str, line: str) -> None:
    assert f"command line: {line}" in errors(write(tmp_path), f"{key}=[]")


def test_an_empty_list_is_fine_where_it_means_none(tmp_path: Path) -> None:
    config, _ = read(write(tmp_path), "trainer.perceptual_loss={mode: vgg19, layers: []}")
    assert config.recipe.options["perceptual_loss"].layers == []


def test_a_section_without_keys_is_that_of_the_defaults(tmp_path: Path) -> None:
    """ "data:" and nothing below it: in YAML that is null."""
    plain, _ = read(write(tmp_path))
    for key in ("cudnn", "dis_opt", "inference_args", "trainer.init", "trainer.amp_config", "gen_opt.lr_policy"):
        assert read(write(tmp_path), f"{key}=")[0] == plain
    assert read(write(tmp_path), "gen.style_enc=")[0].players["gen"].options["style_enc"] == spade.StyleEncoderParams()
    assert "command line: trainer.loss_weight.gan: missing; it has no default" in errors(
        write(tmp_path), "trainer.loss_weight="
    )
    assert errors(write(tmp_path), "data.input_types.0.images=")[0] == (
        "command line: data.input_types.0.images: needs ext, the extension of its files"
    )


def test_a_whole_float_may_stand_for_an_int_and_an_int_for_a_float(tmp_path: Path) -> None:
    config, _ = read(write(tmp_path), "max_iter=1e3", "gen.num_filters=4.0", "gen_opt.lr=1", "data.val.batch_size=2.")
    assert config.run.max_iter == 1000
    assert type(config.run.max_iter) is type(config.players["gen"].options["num_filters"]) is int
    assert config.optimizers["gen"].options["lr"] == 1.0
    assert config.run.data.val is not None
    assert type(config.run.data.val.batch_size) is int


@pytest.mark.parametrize(
    "key", ["gen_opt.clip_grad_norm", "gen_opt.lr", "trainer.init.gain", "max_iter", "gen.style_dims"]
)
@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_are_finite(tmp_path: Path, key: str, number: str) -> None:
    assert mistakes(write(tmp_path), f"{key}={number}") == [(key, "not-finite")]


@pytest.mark.parametrize(
    "key", ["gen.label_channels", "gen.image_channels", "gen.crop_h_w", "dis.label_channels", "trainer.label_lengths"]
)
def test_what_the_data_section_says_cannot_be_set_in_another(tmp_path: Path, key: str) -> None:
    assert errors(write(tmp_path), f"{key}=3") == [f"command line: {key}: comes from the data section; remove it here"]


def test_the_networks_of_a_recipe_cannot_be_set_in_its_section(tmp_path: Path) -> None:
    assert errors(write(tmp_path), "trainer.gen=3") == [
        "command line: trainer.gen: is the network of the section of that name; remove it here"
    ]


LAB = """
from dataclasses import dataclass
from typing import Literal
from torch import nn
from imagier.recipe import Recipe as Base

@dataclass(frozen=True, kw_only=True)
class Depth:
    layers: int
    shape: Literal["round", "square"] = "round"

class Generator(nn.Module):
    def __init__(self, *, label_channels: int, depth: Depth, width: float = 1.5, sizes: list[int] = [1, 2],
                 anything=None, **others: int) -> None:
        super().__init__()
        self.got = label_channels, depth, width, sizes, anything

class Discriminator(nn.Module):
    pass

class Recipe(Base):
    step = sample = None
    def __init__(self, *, gen, dis, rounds: int = 1) -> None:
        self.got = gen, dis, rounds
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A text whose networks and recipe are of a user's own module."""
    folder = tmp_path / "path" / "my_lab"
    folder.mkdir(parents=True)
    (folder / "nets.py").write_text(LAB)
    (folder / "needy.py").write_text("import no_such_module_anywhere\n")
    (folder / "prefix.py").write_text("import my\n")
    monkeypatch.syspath_prepend(folder.parent)
    return """\
trainer: {type: my_lab.nets, rounds: 3, precision: bf16}
gen:
  type: my_lab.nets
  depth: {layers: 2}
dis: {type: my_lab.nets}
data:
  input_types: [images: {ext: png, num_channels: 3, normalize: true}]
  input_image: [images]
  train: {roots: [x], augmentations: {resize_h_w: "8, 8"}}
"""


def test_the_constructor_is_the_schema(tmp_path: Path, lab: str) -> None:
    config, _ = read(write(tmp_path, lab), "gen.anything={a: [1]}")
    assert config.trainer.precision == "bf16"
    assert config.recipe.options == {"rounds": 3}
    depth = config.players["gen"].options["depth"]
    assert (depth.layers, depth.shape) == (2, "round")
    assert {k: v for k, v in config.players["gen"].options.items() if k != "depth"} == {
        "width": 1.5,
        "sizes": [1, 2],
        "anything": {"a": [1]},
    }
    assert config.players["dis"].options == {}
    gen = config.players["gen"].build(label_channels=7, image_channels=3, crop_h_w=(1, 1))
    assert gen.got == (7, depth, 1.5, [1, 2], {"a": [1]})
    assert config.recipe.build(gen=gen, dis="discriminator", label_channels=7).got == (gen, "discriminator", 3)


def test_mistakes_against_a_users_own_constructor_are_told_like_those_against_ours(tmp_path: Path, lab: str) -> None:
    wrong = lab.replace("depth: {layers: 2}", "depth: {shape: rund, layer: 2}\n  widht: 2\n  label_channels: 3")
    wrong = wrong.replace("rounds: 3", "rounds: often")
    assert errors(write(tmp_path, wrong)) == [
        "small.yaml:1: trainer.rounds: expected int, got 'often'",
        "small.yaml:4: gen.depth.layers: missing; it has no default",
        "small.yaml:4: gen.depth.shape: expected 'round' or 'square', got 'rund'; did you mean 'round'?",
        "small.yaml:4: gen.depth.layer: unknown key; did you mean 'layers'?",
        "small.yaml:5: gen.widht: unknown key; did you mean 'width'?",
        "small.yaml:6: gen.label_channels: comes from the data section; remove it here",
    ]


def test_a_module_that_only_imports_or_describes_a_class_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "room_of_models").mkdir()
    for name, text in {
        "__init__": "",
        "nets": "from torch import nn\nclass Generator(nn.Module): ...",
        "user": "from room_of_models.nets import Generator",
        "contract": "from typing import Protocol\nclass Generator(Protocol): ...",
        "outline": "from abc import ABC, abstractmethod\nclass Generator(ABC):\n  @abstractmethod\n  def f(self): ...",
    }.items():
        (tmp_path / "room_of_models" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(find.ROOMS, "models", ("room_of_models",))
    assert find.list_types(schema.player("gen")) == ["nets"]
    for name in ("user", "contract", "outline"):
        with pytest.raises(UserError, match=f"no model '{name}'; there are: nets"):
            find.find(schema.player("gen"), name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_lab.net", "no model 'my_lab.net'; no module or class of this name can be imported"),
        ("nobody.nets", "no model 'nobody.nets'; no module or class of this name can be imported"),
        ("my_lab.needy", "my_lab.needy needs the module 'no_such_module_anywhere', which is not installed"),
        ("my_lab.prefix", "my_lab.prefix needs the module 'my', which is not installed"),
        ("os.path", "os.path has no class Generator"),
        ("", "no model ''; there are: "),
        (".spade", "no model '.spade'; did you mean 'spade'?"),
        ("spade.", "no model 'spade.'; did you mean 'spade'?"),
        ("../spade", "no model '../spade'; did you mean 'spade'?"),
        ("spade net", "no model 'spade net'; did you mean 'spade'?"),
        ("imaginaire.generators.spad", "no model 'spad'; did you mean 'spade'?"),
    ],
)
def test_a_type_that_names_no_model_is_told(tmp_path: Path, lab: str, name: str, message: str) -> None:
    (line,) = errors(write(tmp_path, lab), f"gen={{type: '{name}'}}")
    assert line.startswith(f"command line: gen.type: {message}")


def test_the_order_of_augmentations_is_that_of_the_file(tmp_path: Path) -> None:
    keys = [("horizontal_flip", True), ("rotate", 3), ("random_crop_h_w", "4, 4"), ("resize_h_w", "8, 8")]
    for order in (keys, keys[::-1]):
        config, _ = read(write(tmp_path), f"data.train.augmentations={json.dumps(dict(order))}")
        again, _ = read(write(tmp_path, config.dump()))
        for run in (config.run, again.run):
            assert run.data.train is not None
            assert list(run.data.train.augmentations.items()) == order


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_shipped_config_is_right_and_says_the_same_when_resolved(tmp_path: Path, path: Path) -> None:
    _says_the_same_when_resolved(tmp_path, path)


@pytest.mark.parametrize("case", OF_REFERENCE)
def test_a_config_of_the_reference_is_right_and_says_the_same_when_resolved(tmp_path: Path, case: str) -> None:
    _says_the_same_when_resolved(tmp_path, golden(case, "config.yaml"))


def _says_the_same_when_resolved(folder: Path, path: Path) -> None:
    config, notes = read(path)
    assert notes == []
    again, notes = read(write(folder, config.dump()))
    assert notes == []
    assert again == config
    assert again.dump() == config.dump()


def test_the_resolved_config_holds_every_default(tmp_path: Path) -> None:
    config, _ = read(write(tmp_path), "gen.style_dims=5", "data.name='1e-4'")
    whole = config.to_dict()
    for field in dataclasses.fields(schema.Run):
        assert field.name in whole
    for field in dataclasses.fields(schema.Trainer):
        assert field.name in whole["trainer"]
    assert whole["gen_opt"]["betas"] == [0.0, 0.999]
    assert whole["gen"]["style_enc"] == {"num_filters": 4, "kernel_size": 3, "weight_norm_type": None}
    assert whole["gen"]["style_dims"] == 5
    assert read(write(tmp_path, config.dump()))[0] == config


def test_what_a_config_of_the_reference_says_is_what_the_golden_one_has(tmp_path: Path) -> None:
    config, _ = read(golden("spade_a", "config.yaml"))
    assert config.players["gen"].cls is spade.Generator
    assert config.recipe.options["loss_weight"] == spade.LossWeights(gan=1, perceptual=10, feature_matching=10, kl=0.05)
    optimizer = config.optimizers["gen"]
    assert optimizer.cls is optim.Adam
    assert optimizer.options == {"lr": 0.0005, "betas": (0.0, 0.999), "eps": 1e-8, "moments": "fp32"}
    assert optimizer.shared.lr_policy.cls is schedule.Step
    assert optimizer.shared.lr_policy.options == {"step_size": 100, "gamma": 0.5}
    assert config.trainer.init == schema.Init(type="xavier", gain=0.02)
    assert config.run.data.one_hot_num_classes == {"seg_maps": 6}


WEIRD: list[Any] = [None, True, -1, 2.5, "x", "", [], [None], {}, {"x": {"y": 1}}, float("nan")]


@pytest.mark.parametrize("value", WEIRD, ids=map(str, WEIRD))
def test_whatever_stands_at_a_place_there_is_a_config_or_a_list_of_errors(tmp_path: Path, value: Any) -> None:
    """Every single value of a config, and every section, replaced by nonsense."""
    start = load(write(tmp_path, TEXT + "test_data: {input_types: [], test: {roots: '', augmentations: {}}}\n"))
    key_paths = {key_path[:n] for key_path, _ in start.walk() for n in range(1, len(key_path) + 1)}
    outcomes = set()
    for key_path in sorted(key_paths, key=str):
        document = Document(start.name, copy.deepcopy(start.tree), dict(start.origins))
        document.set(key_path, value)
        try:
            translate_legacy(document)
            outcomes.add(type(check(document)))
        except ConfigError as error:
            assert error.errors
            assert all(one.where.startswith(f"{document.name}:") and one.code for one in error.errors)
            outcomes.add(ConfigError)
    assert outcomes <= {Config, ConfigError}
    assert ConfigError in outcomes


def test_the_background_is_named_only_where_it_was_set(tmp_path: Path) -> None:
    plain, laid = read(write(tmp_path))[0], read(write(tmp_path), "data.background=[1, 2, 3]")[0]
    assert "background" not in plain.to_dict()["data"]
    assert laid.to_dict()["data"]["background"] == [1, 2, 3]
    assert laid.to_dict()["data"].keys() - plain.to_dict()["data"].keys() == {"background"}
