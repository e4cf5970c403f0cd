"""The reference's spellings: each means what it meant, or a line says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden import golden
from small_config import TEXT, errors, read, swap, write

from imagier.config import find
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import ConfigError, Document, load


def modern(folder: Path, *overrides: str) -> tuple[Document, list[str]]:
    document = load(write(folder), overrides)
    return document, translate_legacy(document)


OP = "imaginaire.model_utils.label::"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("gen.type=imaginaire.generators.spade", "spade"),
        ("dis.type=imaginaire.discriminators.spade", "spade"),
        ("trainer.type=imaginaire.trainers.spade", "spade"),
        ("data.type=imaginaire.datasets.paired_images", "paired_images"),
        ("test_data.type=imaginaire.datasets.unpaired_few_shot_images", "unpaired_few_shot_images"),
        ("data.val.type=imaginaire.datasets.images", "images"),
        ("gen.type=my_lab.imaginaire.generators.spade", "my_lab.imaginaire.generators.spade"),
        ("gen.activation_norm_type=None", "none"),
        ("gen.weight_norm_type=''", "none"),
        ("gen.activation_norm_params.weight_norm_type=''", "none"),
        ("gen.activation_norm_params.activation_norm_type=None", "none"),
        ("dis.fpse_activation_norm_type=''", "none"),
        ("gen.nonlinearity=''", "none"),
        ("gen.nonlinearity=leakyrelu", "leakyrelu"),
        ("gen.style_dims=None", None),
        ("trainer.perceptual_loss=None", None),
        ("pretrained_weight=''", ""),
        ("data.train.roots=one/folder", ["one/folder"]),
        ("data.val.roots=''", []),
        ("test_data.test.roots=one/folder", ["one/folder"]),
        ("data.train.roots=[a, b]", ["a", "b"]),
        (f"data.full_data_ops='{OP}make_one_hot, {OP}concat_labels'", "make_one_hot, concat_labels"),
        (f"data.full_data_ops='{OP}concat_labels'", "concat_labels"),
        (f"test_data.full_data_ops='{OP}concat_labels,'", "concat_labels"),
        ("data.full_data_ops=make_one_hot, concat_labels", "make_one_hot, concat_labels"),
        ("data.full_data_ops=None", None),
    ],
)
def test_a_spelling_of_the_reference_becomes_ours(tmp_path: Path, override: str, value: object) -> None:
    document, notes = modern(tmp_path, override)
    key_path = tuple(override.partition("=")[0].split("."))
    assert document.get(key_path, "absent") == value
    assert notes == []
    assert document.refused == []


def test_a_config_in_our_spelling_is_left_as_it_is(tmp_path: Path) -> None:
    document, notes = modern(tmp_path)
    assert document.tree == load(write(tmp_path)).tree
    assert notes == []


def test_ops_over_several_lines_are_read(tmp_path: Path) -> None:
    text = swap(TEXT, "  train:\n", f"  full_data_ops: {OP}make_one_hot,\n    {OP}concat_labels\n  train:\n")
    config, _ = read(write(tmp_path, text))
    assert config.run.data.full_data_ops == "make_one_hot, concat_labels"


# key, a value that says something, values that say nothing, part of the line
RETIRED: list[tuple[str, str, list[str], str]] = [
    ("trainer.hparam_to_tensorboard", "true", ["false"], "had no effect"),
    ("trainer.distributed_data_parallel", "apex", ["pytorch"], "gradients are averaged with torch.distributed"),
    (
        "trainer.distributed_data_parallel_params",
        "{find_unused_parameters: true}",
        ["{find_unused_parameters: false}", "{}"],
        "parameters without a gradient are handled",
    ),
    ("trainer.delay_allreduce", "false", ["true"], "had no effect"),
    ("trainer.amp_gp", "true", ["false"], "had no effect"),
    ("trainer.val_sample_size", "100", ["50000"], "had no effect on this method"),
    ("trainer.eval_network", "[vgg]", ["[clean_inception]", "[]"], "had no effect on this method"),
    ("trainer.use_kid", "false", ["true"], "had no effect on this method"),
    ("trainer.use_fid", "true", ["false"], "had no effect on this method"),
    ("trainer.kid_num_subsets", "1", ["10"], "had no effect on this method"),
    ("trainer.kid_sample_size", "8", ["256"], "had no effect on this method"),
    ("trainer.kid_subset_size", "8", ["256"], "had no effect on this method"),
    ("trainer.fid_type", "clean", ["''", "null"], "had no effect"),
    ("trainer.reuse_gen_output", "false", ["true"], "had no effect on this method"),
    ("trainer.num_videos_to_test", "8", ["64"], "had no effect on this method"),
    ("trainer.num_frames_per_video", "8", ["10"], "had no effect on this method"),
    ("trainer.reset_opt_g_on_resume", "true", ["false"], "had no effect on this method"),
    ("trainer.reset_opt_d_on_resume", "true", ["false"], "had no effect on this method"),
    ("trainer.gaugan_loader", "{config: a.yaml}", ["null"], "had no effect on this method"),
    ("flow_network", "{type: imaginaire.third_party.flow_net.flow_net}", ["null"], "had no effect on this method"),
    ("single_frame_epoch", "8", ["0"], "had no effect on this method"),
    ("num_epochs_temporal_step", "4", ["null"], "had no effect on this method"),
    ("gen_opt.param_groups", "{style: {lr: 1}}", ["null"], "had no effect on this method"),
    ("dis_opt.ignore_parameters", "[bias]", ["[]"], "had no effect on this method"),
    ("data.data_types", "[images]", ["null"], "is counted from input_types"),
    ("data.extensions", "[png]", ["[]"], "is counted from input_types"),
    ("test_data.num_channels", "[3]", ["[]"], "is counted from input_types"),
    ("data.train.drop_last", "true", ["false"], "begins the next"),
    ("test_data.test.drop_last", "true", ["false"], "every sample of a test set"),
    ("trainer.perceptual_mode", "vgg19", ["''", "null"], "reads perceptual_loss.mode"),
    ("trainer.perceptual_layers", "relu_4_1", ["''"], "reads perceptual_loss.layers"),
    ("trainer.gan_recon", "true", ["false"], "had no effect on this method"),
    ("trainer.aug_policy", "color", ["''"], "does not use DiffAugment"),
    ("gen_opt.fused_opt", "true", ["false"], "the fused optimizer is always used"),
    ("dis_opt.fused_opt", "true", ["false"], "the fused optimizer is always used"),
    ("gen.version", "2", [], "had no effect"),
    ("gen.activation_norm_params.cond_dims", "5", ["null"], "is counted from the data section"),
    ("data.paired", "false", ["true"], "follows from the type"),
    ("data.for_face_dataset", "{add_upper_face: true}", ["{}", "null"], "no input type holds the points of a face"),
    ("test_data.paired", "false", ["true"], "follows from the type"),
    ("data.val.drop_last", "true", ["false"], "every held-out sample counts"),
    ("data.train.initial_sequence_length", "4", ["None"], "has no effect on paired_images"),
    ("data.train.max_sequence_length", "16", ["100"], "has no effect on paired_images"),
    ("data.train.augmentations.max_time_step", "2", ["1"], "has no effect on paired_images"),
    ("data.input_types.0.images.use_dont_care", "true", ["false"], "only that of the data section"),
    ("data.input_types.0.images.interpolator", "INTER_AREA", ["None"], "only that of the data section"),
    ("aws_credentials_file", "a.json", ["''"], "only needed for data in an object store"),
    ("data.aws_credentials_file", "a.json", ["''"], "only needed for data in an object store"),
    ("data.cache", "{root: x}", ["{}", "None"], "only needed for data in an object store"),
    ("common", "{a: 1}", ["{}", ""], "takes nothing from it"),
    ("local_rank", "3", ["0"], "is set at run time"),
    ("source_filename", "a.yaml", ["''"], "is set at run time"),
    ("date_uid", "2020_01", ["''"], "is set at run time"),
    ("logdir", "logs/x", ["''"], "is set with --logdir"),
]


@pytest.mark.parametrize(("key", "value", "empty", "why"), RETIRED, ids=[row[0] for row in RETIRED])
def test_a_retired_key_is_dropped_with_a_line_if_it_says_something(
    tmp_path: Path, key: str, value: str, empty: list[str], why: str
) -> None:
    key_path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    document, notes = modern(tmp_path, f"{key}={value}")
    assert document.get(key_path, "absent") == "absent"
    (note,) = notes
    assert note.startswith(f"command line: {key}: ")
    assert why in note
    assert note.endswith("; dropped")
    for nothing in empty:
        document, notes = modern(tmp_path, f"{key}={nothing}")
        assert document.get(key_path, "absent") == "absent"
        assert notes == []


REMOTE = ["dataset_type=object_store", "roots=['s3://bucket/set']"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("says_so", REMOTE)
def test_credentials_go_to_the_sections_that_read_from_an_object_store(
    tmp_path: Path, split: str, says_so: str
) -> None:
    test_data = "test_data={test: {roots: [here]}}"
    document, notes = modern(tmp_path, "aws_credentials_file=a.json", f"data.{split}.{says_so}", test_data)
    assert notes == []
    assert document.get(("data", "aws_credentials_file")) == "a.json"
    assert document.origin(("data", "aws_credentials_file")) == "command line"
    assert "aws_credentials_file" not in document.get(("test_data",))
    assert "aws_credentials_file" not in document.tree


def test_credentials_of_a_section_count_before_those_of_all(tmp_path: Path) -> None:
    own = ["data.aws_credentials_file=b.json", f"test_data={{test: {{{REMOTE[0].replace('=', ': ')}}}}}"]
    document, notes = modern(tmp_path, "aws_credentials_file=a.json", f"data.val.{REMOTE[0]}", *own)
    assert notes == []
    assert [document.get((section, "aws_credentials_file")) for section in ("data", "test_data")] == [
        "b.json",
        "a.json",
    ]


def test_the_line_about_a_retired_key_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, swap(TEXT, "  gan_mode: hinge\n", "  gan_mode: hinge\n  amp_gp: true\n"))
    config, notes = read(path)
    assert notes == [f"{path}:5: trainer.amp_gp: had no effect; dropped"]
    assert config == read(write(tmp_path))[0]


@pytest.mark.parametrize("name", ["gancraft", "dummy"])
@pytest.mark.parametrize("section", ["trainer", "gen"])
def test_a_method_that_this_version_lacks_is_the_only_thing_said(tmp_path: Path, name: str, section: str) -> None:
    prefix = {"trainer": "imaginaire.trainers", "gen": "imaginaire.generators"}[section]
    with pytest.raises(ConfigError) as caught:
        modern(tmp_path, f"{section}.type={prefix}.{name}", "data.num_frames_G=3", "trainer.no_such_key=1")
    (error,) = caught.value.errors
    assert (error.where, error.code) == (f"command line: {section}.type", "no-method")
    assert error.what == f"this version has no {name}"
    assert "did you mean" not in str(error)


def test_a_kind_of_data_that_this_version_lacks_is_not_taken_for_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        modern(tmp_path, "data.type=imaginaire.datasets.dummy")
    (error,) = caught.value.errors
    assert (error.where, error.what) == ("command line: data.type", "this version has no dummy")


def test_a_config_of_the_reference_for_such_a_method_is_refused_in_one_line() -> None:
    document = load(golden("gancraft_a", "config.yaml"))
    with pytest.raises(ConfigError) as caught:
        translate_legacy(document)
    assert [error.code for error in caught.value.errors] == ["no-method"]


# key, value, part of the message
REFUSED = [
    ("gen.num_labels", "5", "is counted from the data section; remove it here"),
    ("dis.num_labels", "5", "is counted from the data section; remove it here"),
    (
        "gen.activation_norm_params.partial",
        "true",
        "partial convolutions are of guidance alone (gen.guidance.partial_conv)",
    ),
    ("data.input_few_shot_labels", "[seg_maps]", "this version cannot read few-shot labels"),
    ("data.initial_few_shot_K", "1", "this version cannot read few-shot data"),
    ("data.num_frames_G", "2", "this version cannot read keys of video generators"),
    ("data.num_frames_D", "2", "this version cannot read keys of video generators"),
    ("data.first_last_only", "true", "this version cannot read few-shot video"),
    ("data.sample_far_frames_more", "true", "this version cannot read few-shot video"),
    ("data.has_foreground", "true", "this version cannot read the foreground of people"),
    ("data.output_h_w", "64, 64", "this version cannot read the crops of few-shot video"),
    ("data.for_pose_dataset", "{pose_type: both}", "this version cannot read poses"),
    ("data.train.individual_video_frame_augmentations", "{x: 1}", "this version cannot read few-shot video"),
    ("data.full_data_ops", "imaginaire.model_utils.fs_vid2vid::crop_face_from_data", "no op 'imaginaire.model_utils"),
    ("data.full_data_post_aug_ops", "my::op", "this version has no op 'my::op'"),
    ("data.input_types.0.images.pre_aug_ops", "decode_json", "this version has no op 'decode_json'"),
    ("data.input_types.0.images.post_aug_ops", "vis::a::b", "this version has no op 'vis::a::b'"),
]


@pytest.mark.parametrize(("key", "value", "why"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_key_that_needs_what_is_not_here_is_refused_with_its_place(
    tmp_path: Path, key: str, value: str, why: str
) -> None:
    lines = errors(write(tmp_path), f"{key}={value}")
    assert any(line.startswith(f"command line: {key}: ") and why in line for line in lines)
    assert not any("unknown key" in line for line in lines)


@pytest.mark.parametrize("key", [row[0] for row in REFUSED if row[0] != "data.full_data_ops"])
def test_a_refused_key_that_says_nothing_is_dropped(tmp_path: Path, key: str) -> None:
    for nothing in ("None", "false", "''", "[]", "{}"):
        document, notes = modern(tmp_path, f"{key}={nothing}")
        key_path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        assert document.get(key_path, "absent") == "absent"
        assert notes == document.refused == []


UNPAIRED = [
    "data.type=imaginaire.datasets.unpaired_images",
    "data.input_types=[images_a: {ext: png, normalize: true}, images_b: {ext: png, normalize: true}]",
    "data.input_image=[]",
    "trainer={type: unit, gan_mode: hinge, loss_weight: {gan: 1}}",
]


def test_keys_of_a_label_are_dropped_with_a_line_where_the_images_make_none(tmp_path: Path) -> None:
    without = ["data.input_labels=[]", "data.one_hot_num_classes={}"]
    ours = ["data.type=unpaired_images", *UNPAIRED[1:]]
    config, notes = read(write(tmp_path), *ours, *without)
    assert (notes, config.run.data.input_labels) == ([], [])
    same, notes = read(write(tmp_path), *UNPAIRED, f"data.full_data_ops='{OP}make_one_hot'")
    assert same == config
    assert [note.partition(": data.")[2] for note in notes] == [
        "input_labels: had no effect on unpaired_images; dropped",
        "full_data_ops: had no effect on unpaired_images; dropped",
        "one_hot_num_classes: had no effect on unpaired_images; dropped",
    ]


@pytest.mark.parametrize(("paired", "lines"), [("false", 0), ("true", 1)])
def test_that_an_unpaired_set_is_not_paired_says_nothing(tmp_path: Path, paired: str, lines: int) -> None:
    without = ["data.input_labels=[]", "data.one_hot_num_classes={}"]
    assert len(read(write(tmp_path), *UNPAIRED, *without, f"data.paired={paired}")[1]) == lines


def test_refused_and_other_errors_are_told_at_once(tmp_path: Path) -> None:
    text = swap(TEXT, "  num_filters: 8\n", "  num_labels: 7\n  num_filter: 8\n")
    text = swap(text, "  type: paired_images\n", "  type: paired_images\n  input_few_shot_labels: [x]\n  nam: x\n")
    assert errors(write(tmp_path, text)) == [
        "small.yaml:10: gen.num_labels: is counted from the data section; remove it here",
        "small.yaml:11: gen.num_filter: unknown key; did you mean 'num_filters'?",
        "small.yaml:18: data.input_few_shot_labels: this version cannot read few-shot labels",
        "small.yaml:19: data.nam: unknown key; did you mean 'name'?",
    ]


OWN = """
from torch import nn
from imagier.recipe import Recipe as Base
class Generator(nn.Module):
    def __init__(self, *, label_channels: int, version: int = 1, activation_norm_params: dict[str, int] = {}): ...
class Discriminator(nn.Module):
    def __init__(self, *, num_labels: int = 3): ...
class Recipe(Base):
    step = sample = None
    def __init__(self, *, gen, dis, aug_policy: str = ""): ...
"""
OWN_OF_CLIPS = """
from imagier.recipe import Recipe as Base
class Recipe(Base):
    is_video = True
    step = sample = None
    def __init__(self, *, gen, dis, single_frame_epoch: int, num_epochs_temporal_step: int): ...
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's that takes keys which are retired or refused elsewhere."""
    (tmp_path / "lab_of_legacy").mkdir()
    (tmp_path / "lab_of_legacy" / "__init__.py").touch()
    (tmp_path / "lab_of_legacy" / "nets.py").write_text(OWN)
    (tmp_path / "lab_of_legacy" / "clips.py").write_text(OWN_OF_CLIPS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("name", ["lab_of_legacy.nets", "nets"])
def test_a_key_that_the_named_class_takes_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "nets":  # as if it were one of our own models
        monkeypatch.setitem(find.ROOMS, "models", ("lab_of_legacy",))
    overrides = [f"gen={{type: {name}, version: 2}}", f"dis={{type: {name}, num_labels: 9}}"]
    config, notes = read(write(tmp_path), *overrides, f"trainer={{type: {name}, aug_policy: color}}")
    assert notes == []
    assert config.players["gen"].options == {"version": 2, "activation_norm_params": {}}
    assert config.players["dis"].options == {"num_labels": 9}
    assert config.recipe.options == {"aug_policy": "color"}


@pytest.mark.usefixtures("lab")
def test_keys_of_the_growth_of_clips_move_to_the_method_that_reads_clips(tmp_path: Path) -> None:
    overrides = ["trainer={type: lab_of_legacy.clips}", "single_frame_epoch=5", "num_epochs_temporal_step=40"]
    clips = ["data.type=imaginaire.datasets.paired_videos", "data.train.initial_sequence_length=4"]
    config, notes = read(write(tmp_path), *overrides, *clips, "data.train.augmentations.max_time_step=3")
    assert notes == []
    assert config.recipe.options == {"single_frame_epoch": 5, "num_epochs_temporal_step": 40}
    (line,) = errors(write(tmp_path), *overrides)
    assert line == "small.yaml:16: data.type: gives stills, but lab_of_legacy.clips reads clips"


@pytest.mark.usefixtures("lab")
def test_the_stride_of_clips_says_something_of_the_training_set_alone(tmp_path: Path) -> None:
    own = ["trainer={type: lab_of_legacy.clips, single_frame_epoch: 0, num_epochs_temporal_step: 1}"]
    clips = [*own, "data.type=paired_videos", "data.train.initial_sequence_length=4"]
    assert read(write(tmp_path), *clips, "data.train.augmentations.max_time_step=2")[1] == []
    (note,) = read(write(tmp_path), *clips, "data.val.augmentations.max_time_step=2")[1]
    assert note.endswith("only that of the training set has an effect; dropped")


@pytest.mark.usefixtures("lab")
def test_clips_with_flow_skip_no_frames(tmp_path: Path) -> None:
    own = ["trainer={type: lab_of_legacy.clips, single_frame_epoch: 0, num_epochs_temporal_step: 1}"]
    types = "images: {ext: png, num_channels: 3, normalize: true}}, {seg_maps: {ext: png, is_mask: true}"
    clips = [*own, "data.type=paired_videos", "data.train.initial_sequence_length=4"]
    clips += [f"data.input_types=[{{{types}}}, {{flow: {{ext: png, type: flow}}}}]"]
    assert read(write(tmp_path), *clips, "data.train.augmentations.max_time_step=1")[1] == []
    (line,) = errors(write(tmp_path), *clips, "data.train.augmentations.max_time_step=2")
    assert "data.train.augmentations.max_time_step" in line and "flow leads to the frame before" in line


@pytest.mark.usefixtures("lab")
def test_frames_of_a_held_out_video_come_one_a_batch_whatever_a_config_says(tmp_path: Path) -> None:
    own = ["trainer={type: lab_of_legacy.clips, single_frame_epoch: 0, num_epochs_temporal_step: 1}"]
    clips = [*own, "data.type=imaginaire.datasets.paired_videos", "data.train.initial_sequence_length=4"]
    alone, notes = read(write(tmp_path), *clips, "data.train.batch_size=2", "data.val.batch_size=1")
    assert notes == []
    config, notes = read(write(tmp_path), *clips, "data.train.batch_size=2", "data.val.batch_size=2")
    assert config == alone
    assert notes == [
        "command line: data.val.batch_size: frames of a video come one after the other, one a batch; dropped"
    ]
    stills, notes = read(write(tmp_path), "data.val.batch_size=2")
    assert stills.run.data.val is not None
    assert (stills.run.data.val.batch_size, notes) == (2, [])


@pytest.mark.usefixtures("lab")
def test_what_stands_deeper_in_the_section_of_a_users_own_class_is_left_to_it(tmp_path: Path) -> None:
    own = "gen={type: lab_of_legacy.nets, activation_norm_params: {cond_dims: 3, partial: 1}}"
    config, notes = read(write(tmp_path), own)
    assert notes == []
    assert config.players["gen"].options["activation_norm_params"] == {"cond_dims": 3, "partial": 1}


@pytest.mark.parametrize("section", ["data", "gen", "trainer", "gen_opt", "test_data", "common", "data.val"])
@pytest.mark.parametrize("value", ["3", "text", "[]", "[1, {a: b}]", "{x: 1}", "true"])
def test_nonsense_in_place_of_a_section_passes_to_the_check(tmp_path: Path, section: str, value: str) -> None:
    modern(tmp_path, f"{section}={value}")
