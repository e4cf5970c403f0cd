"""What must hold between the keys of a config: each rule broken, and the nearest config that keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_config import TEXT, errors, mistakes, read, swap, write

from imagier.config import schema
from imagier.config.find import find

LINEAR = "{type: linear, decay_start: 3, decay_end: 9, decay_target: 0.1}"
OWN = "{roots: [x], augmentations: {resize_h_w: '8, 8'}, type: unpaired_images, "
SEG, IMAGES = "seg_maps: {ext: png, is_mask: true}", "images: {ext: png, num_channels: 3, normalize: true}"
TESTED = (
    "test_data={input_types: [a: {ext: png, is_mask: true}], input_labels: [a], "
    "test: {roots: [x], augmentations: {resize_h_w: '8, 8'}}}"
)
FEW_SHOT = ["data.type=unpaired_few_shot_images", "data.input_image=[]"]
FEW_SHOT_TYPES = (
    "data.input_types=[images_style: {ext: png, normalize: true}, images_content: {ext: png, normalize: true}]"
)

# overrides, key and code of each mistake, overrides that are right
RULES: list[tuple[list[str], list[tuple[str, str]], list[str]]] = [
    (
        ["gen_opt.lr_policy={type: linear}"],
        [
            ("gen_opt.lr_policy.decay_start", "missing-key"),
            ("gen_opt.lr_policy.decay_end", "missing-key"),
            ("gen_opt.lr_policy.decay_target", "missing-key"),
        ],
        [f"gen_opt.lr_policy={LINEAR}"],
    ),
    (
        [f"dis_opt.lr_policy={LINEAR}", "dis_opt.lr_policy.decay_end=3"],
        [("dis_opt.lr_policy.decay_end", "wrong-order")],
        [f"dis_opt.lr_policy={LINEAR}", "dis_opt.lr_policy.decay_end=4"],
    ),
    (
        ["dis_opt.skip_grad=true"],
        [("dis_opt.skip_grad", "needs-key")],
        ["dis_opt.skip_grad=true", "dis_opt.clip_grad_norm=1"],
    ),
    (
        ["gen_opt.type=madam"],
        [("gen_opt.scale", "missing-key")],
        ["gen_opt.type=madam", "gen_opt.scale=3"],
    ),
    (
        ["data.type=paired_image"],
        [("data.type", "unknown-type")],
        ["data.type=imaginaire.datasets.paired_images"],
    ),
    (
        ["data.type=loader"],
        [("data.type", "unknown-type")],
        ["data.type=paired_images"],
    ),
    (["data.train="], [("data.train", "missing-section")], ["data.val="]),
    (
        ["data.background=[0, 0, 256]"],
        [("data.background.2", "out-of-range")],
        ["data.background=[0, 0, 255]"],
    ),
    (
        ["data.background=[0, 0]"],
        [("data.background", "out-of-range")],
        ["data.background=[0, 0, 0]"],
    ),
    (
        ["data.background=[0, 0, 0]", "data.input_types.0.images.num_channels=4"],
        [("data.background", "has-no-effect")],
        ["data.background=[0, 0, 0]", "data.input_types.0.images.num_channels=1"],
    ),
    (
        ["keep_every=100"],
        [("keep_every", "needs-key")],
        ["keep_every=100", "keep_last=2"],
    ),
    (
        ["keep_best=PSNR", "data.val="],
        [("keep_best", "needs-key")],
        ["keep_best=PSNR"],
    ),
    (
        ["data.input_types.0={}"],
        [("data.input_image.0", "unknown-input-type")],
        ["data.input_types.1={}", f"data.input_types.0={{{SEG}, {IMAGES}}}"],
    ),
    (
        [f"data.input_types.0={{{SEG}, {IMAGES}}}"],
        [("data.input_types.1.seg_maps", "name-taken")],
        [f"data.input_types.0={{other: {{ext: png}}, {IMAGES}}}"],
    ),
    (
        ["data.input_types.0.images={num_channels: 3}"],
        [("data.input_types.0.images", "needs-key")],
        ["data.input_types.0.images={num_channels: 3, ext: jpg, normalize: true}"],
    ),
    (
        ["data.input_types.0.images.computed_on_the_fly=true"],
        [("data.input_types.0.images.computed_on_the_fly", "not-supported")],
        ["data.input_types.0.images.computed_on_the_fly=false"],
    ),
    (
        ["data.input_labels=[seg_maps, seg_map]"],
        [("data.input_labels.1", "unknown-input-type")],
        ["data.input_types.0.seg_map={ext: png, num_channels: 1}", "data.input_labels=[seg_maps, seg_map]"],
    ),
    (
        ["data.input_image=[image]"],
        [("data.input_image.0", "unknown-input-type")],
        ["data.input_image=[images]"],
    ),
    (
        ["data.one_hot_num_classes.seg_map=3"],
        [("data.one_hot_num_classes.seg_map", "unknown-input-type")],
        ["data.one_hot_num_classes.seg_maps=3"],
    ),
    (
        ["data.input_types.0.images.num_channels="],
        [("data.input_types", "needs-key")],
        ["data.input_types.1.seg_maps.num_channels="],  # its number of classes is enough
    ),
    (
        ["data.input_types.1.seg_maps.is_mask=false", "data.input_types.1.seg_maps.num_channels=3"],
        [
            ("data.input_types.1.seg_maps.is_mask", "not-classes"),
            ("data.input_types.1.seg_maps.num_channels", "not-classes"),
        ],
        ["data.input_types.1.seg_maps.is_mask=false", "data.one_hot_num_classes={}"],
    ),
    (
        [f"data.val={OWN}input_types: [seg_maps: {{ext: png}}, {IMAGES}], input_image: [images]}}"],
        [("data.val.input_types.0.seg_maps.is_mask", "not-classes")],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}"],
    ),
    (
        ["data.full_data_ops=concat_labels"],
        [("data.full_data_ops", "missing-op")],
        ["data.full_data_ops=concat_labels", "data.one_hot_num_classes={}"],
    ),
    (
        ["data.full_data_ops='make_one_hot, concat_labels'", "data.one_hot_num_classes={}"],
        [("data.full_data_ops", "needs-key")],
        ["data.full_data_ops='make_one_hot, concat_labels'"],
    ),
    (
        ["data.type=paired_videos"],
        [("data.train", "needs-key")],
        ["data.type=paired_images"],
    ),
    (
        ["data.type=paired_videos", "data.train.initial_sequence_length=4", "data.train.max_sequence_length=3"],
        [("data.train.max_sequence_length", "wrong-order")],
        ["data.train.max_sequence_length=3"],
    ),
    (["data.train.roots=[]"], [("data.train.roots", "empty")], ["data.train.roots=[a]"]),
    (["data.val.roots=''"], [("data.val.roots", "empty")], ["data.val.roots='a'"]),
    (
        ["data.val.roots=['s3://bucket/set']"],
        [("data.val.dataset_type", "remote-root")],
        ["data.val.roots=['s3://bucket/set']", "data.val.dataset_type=shards"],
    ),
    (
        ["data.val.roots=[here, 'gs://bucket/set']", "data.val.dataset_type=folder"],
        [("data.val.dataset_type", "remote-root")],
        ["data.val.roots=['https://host/set']", "data.val.dataset_type=object_store"],
    ),
    (
        ["data.val.roots=[here, 'https://me:mine@host/set']", "data.val.dataset_type=shards"],
        [("data.val.roots.1", "secret-in-config")],
        ["data.val.roots=['abfs://box@account.dfs.core.windows.net/set']", "data.val.dataset_type=shards"],
    ),
    (
        ["data.storage_options={headers: {Authorization: x}, account_key: y, token: z}"],
        [
            ("data.storage_options.headers.Authorization", "secret-in-config"),
            ("data.storage_options.account_key", "secret-in-config"),
            ("data.storage_options.token", "secret-in-config"),
        ],
        ["data.storage_options={token: anon, account_name: me, endpoint_url: 'http://host:9000', anon: false}"],
    ),
    (
        ["data.storage_options={endpoint_url: 'http://me:mine@host'}"],
        [("data.storage_options.endpoint_url", "secret-in-config")],
        ["data.storage_options={token: /home/me/google.json}"],
    ),
    (
        ["data.storage_options={a: ['http://mine@host', 'http://me:mi/ne@host', {b: 'http://host/?x=1&token=y'}]}"],
        [
            ("data.storage_options.a.0", "secret-in-config"),
            ("data.storage_options.a.1", "secret-in-config"),
            ("data.storage_options.a.2.b", "secret-in-config"),
        ],
        ["data.storage_options={a: ['http://host:80/x@y', 'http://host/?x=1']}"],
    ),
    (
        ["data.storage_options={headers: {X-Api-Key: a}, client_kwargs: {auth: [me, b]}, pwd: c, token: {d: e}}"],
        [
            ("data.storage_options.headers.X-Api-Key", "secret-in-config"),
            ("data.storage_options.client_kwargs.auth", "secret-in-config"),
            ("data.storage_options.pwd", "secret-in-config"),
            ("data.storage_options.token", "secret-in-config"),
        ],
        ["data.storage_options={author: me, authority: a, sasl: b, headers: {X-Project: c}, signature_version: d}"],
    ),
    (
        ["data.val.roots=[here, 'https://host/set?sig=mine']", "data.val.dataset_type=shards"],
        [("data.val.roots.1", "secret-in-config")],
        ["data.val.roots=['https://host/set']", "data.val.dataset_type=shards"],
    ),
    (
        [f"data.val={OWN}input_types: [{SEG}]}}"],
        [("data.val.type", "needs-key")],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}"],
    ),
    (
        [f"data.train={OWN}input_types: [{SEG}], input_image: [seg_maps]}}"],
        [("data.train.type", "not-supported")],
        [f"data.val={OWN}input_types: [{{{SEG}, {IMAGES}}}], input_image: [images]}}"],
    ),
    (
        [f"data.val={OWN}input_types: [seg_maps: {{is_mask: true}}], input_image: [b]}}", "data.val.type=imags"],
        [
            ("data.val.type", "unknown-type"),
            ("data.val.input_types.0.seg_maps", "needs-key"),
            ("data.val.input_image.0", "unknown-input-type"),
        ],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}"],
    ),
    (
        [f"data.val={OWN}input_types: [a: {{ext: png}}], input_image: [a]}}"],
        [("data.val.input_types", "missing-input-type")],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}", "data.input_labels=[seg_maps]"],
    ),
    (
        FEW_SHOT,
        [("data.input_types", "wrong-input-types")],
        [*FEW_SHOT, FEW_SHOT_TYPES, "trainer={type: funit, gan_mode: hinge, loss_weight: {gan: 1}}"],
    ),
    (
        [f"data.val={OWN}input_types: [{SEG}], input_image: []}}", "data.val.type=images"],
        [("data.val.input_types", "wrong-input-types")],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}", "data.val.type=paired_images"],
    ),
    (
        ["data.train.augmentations={horizontal_flip: true}"],
        [("data.train.augmentations", "needs-key")],
        ["data.train.augmentations={random_resize_h_w_aspect: '8, 8, (0.5, 2)'}"],
    ),
    (
        ["data.train.augmentations.resize_smallest_side=64"],
        [("data.train.augmentations.resize_h_w", "excludes-key")],
        ["data.train.augmentations={resize_smallest_side: 64}"],
    ),
    (
        ["data.train.augmentations.random_crop_h_w='65, 32'"],
        [("data.train.augmentations.random_crop_h_w", "crop-too-large")],
        ["data.train.augmentations.random_crop_h_w='64, 64'"],
    ),
    (
        ["data.val.augmentations={resize_smallest_side: 32, center_crop_h_w: '33, 40'}"],
        [("data.val.augmentations.center_crop_h_w", "crop-too-large")],
        ["data.val.augmentations={resize_smallest_side: 32, center_crop_h_w: '32, 40'}"],  # fits wide images
    ),
    (
        ["data.val.augmentations={resize_smallest_side: '32, 48', center_crop_h_w: '33, 49'}"],
        [("data.val.augmentations.center_crop_h_w", "crop-too-large")],
        ["data.val.augmentations={resize_smallest_side: '32, 48', center_crop_h_w: '33, 48'}"],
    ),
    (
        ["data.train.augmentations.gamma={gamma_limit_lb: 120, gamma_limit_ub: 80, p: 0.5}"],
        [("data.train.augmentations.gamma.gamma_limit_ub", "wrong-order")],
        ["data.train.augmentations.gamma={gamma_limit_lb: 80, gamma_limit_ub: 120, p: 0.5}"],
    ),
    (
        ["data.train.augmentations={random_resize_h_w_aspect: '8, 8, (a, 2)'}"],
        [("data.train.augmentations.random_resize_h_w_aspect", "not-a-size")],
        ["data.train.augmentations={random_resize_h_w_aspect: '8,8,0.5,2'}"],
    ),
    (
        ["test_data={input_types: [], test: {roots: [], augmentations: {}}}"],
        [
            ("test_data.input_types", "empty"),
            ("test_data.test.roots", "empty"),
            ("test_data.test.augmentations", "needs-key"),
            ("test_data.input_labels", "different-labels"),
        ],
        [
            "test_data={input_types: [a: {ext: png, num_channels: 4}], input_labels: [a], "
            "test: {roots: [x], augmentations: {resize_h_w: '8, 8'}}}"
        ],
    ),
    (
        [TESTED, "test_data.one_hot_num_classes={a: 3}"],
        [("test_data.input_labels", "different-labels")],
        [TESTED, "test_data.one_hot_num_classes={a: 3}", "test_data.use_dont_care=true"],
    ),
    (
        ["data.keypoint_data_types=[mark, seg_maps]", "data.input_types.0.marks={ext: json}"],
        [
            ("data.keypoint_data_types.0", "unknown-input-type"),
            ("data.input_types.0.marks.ext", "not-an-image"),
            ("data.input_types.1.seg_maps.ext", "not-keypoints"),
            ("data.input_labels.0", "not-a-label"),
        ],
        ["data.keypoint_data_types=[marks]", "data.input_types.0.marks={ext: json}"],
    ),
    (
        ["data.keypoint_data_types=[marks]", "data.input_types.0.marks={ext: json, is_mask: true}"],
        [("data.input_types.0.marks", "not-keypoints")],
        ["data.keypoint_data_types=[marks]", "data.input_types.0.marks={ext: json}"],
    ),
    (
        ["data.train.root_weights=[1.0, 2.0]"],
        [("data.train.root_weights", "wrong-length")],
        ["data.train.root_weights=[1.0]"],
    ),
    (
        ["data.val.root_weights=[1.0]"],
        [("data.val.root_weights", "has-no-effect")],
        ["data.train.root_weights=[3.0]"],
    ),
    (
        ["data.val.shuffle=shards"],
        [("data.val.shuffle", "has-no-effect")],
        ["data.val.shuffle=samples", "data.train.shuffle=shards"],
    ),
    (
        ["data.train.shuffle=shards", "data.train.root_weights=[1.0]"],
        [("data.train.shuffle", "excludes-key")],
        ["data.train.shuffle=samples", "data.train.root_weights=[1.0]"],
    ),
]


@pytest.mark.parametrize(("wrong", "found", "right"), RULES, ids=[rule[1][0][0] for rule in RULES])
def test_a_broken_rule_is_reported_and_a_kept_one_is_not(
    tmp_path: Path, wrong: list[str], found: list[tuple[str, str]], right: list[str]
) -> None:
    assert mistakes(write(tmp_path), *wrong) == found
    read(write(tmp_path), *right)


@pytest.mark.parametrize("size", ["64", "64, 64, 64", "64; 64", "64, x", "-1, 64", "0, 64", "64, ²", ", ", "6.5, 3"])
@pytest.mark.parametrize("key", ["resize_h_w", "random_crop_h_w", "center_crop_h_w", "resize_smallest_side"])
def test_a_size_is_two_whole_numbers_of_pixels(tmp_path: Path, key: str, size: str) -> None:
    found = errors(write(tmp_path), f"data.val.augmentations={{{key}: '{size}'}}")
    assert found == [f"command line: data.val.augmentations.{key}: expected 'height, width' in pixels, got {size!r}"]


@pytest.mark.parametrize("size", ["0", "-5"])
def test_a_side_is_a_positive_number_of_pixels(tmp_path: Path, size: str) -> None:
    found = errors(write(tmp_path), f"data.val.augmentations={{resize_smallest_side: {size}}}")
    assert found == [
        f"command line: data.val.augmentations.resize_smallest_side: expected 'height, width' in pixels, got {size}"
    ]


def test_a_crop_after_a_resize_of_random_aspect_is_not_judged(tmp_path: Path) -> None:
    read(
        write(tmp_path),
        "data.val.augmentations={resize_h_w: '8, 8', random_resize_h_w_aspect: '64, 64, (1, 2)', "
        "center_crop_h_w: '32, 32'}",
    )


def test_an_option_that_a_users_own_data_set_does_not_take_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_of_rules").mkdir()
    (tmp_path / "lab_of_rules" / "__init__.py").touch()
    (tmp_path / "lab_of_rules" / "sets.py").write_text(
        "from imagier.data.datasets import paired_images\n\n\n"
        "class Dataset(paired_images.Dataset):\n    reads_reduced_jpeg = False\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own, reduced = "data.type=lab_of_rules.sets", "data.reduced_jpeg=true"
    assert errors(write(tmp_path), own, reduced) == [
        "command line: data.reduced_jpeg: lab_of_rules.sets does not decode at reduced scale; remove it here"
    ]
    read(write(tmp_path), own)
    read(write(tmp_path), reduced)


def test_broken_rules_of_all_sections_are_reported_at_once(tmp_path: Path) -> None:
    found = errors(write(tmp_path), "gen_opt.skip_grad=true", "data.train.roots=[]", "data.input_image.0=x")
    assert {line.split(": ")[1] for line in found} == {"gen_opt.skip_grad", "data.train.roots", "data.input_image.0"}


# What a method reads --------------------------------------------------------------------------------------------------

UNIT = [
    "trainer={type: unit, gan_mode: hinge, loss_weight: {gan: 1}}",
    "gen={type: unit}",
    "dis={type: unit}",
    "data.type=unpaired_images",
    "data.input_image=[]",
]
GRAY = [
    "data.input_types=[images_a: {ext: png, num_channels: 1, normalize: true}, images_b: {ext: png, normalize: true}]"
]

METHOD_RULES: list[tuple[list[str], list[tuple[str, str]], list[str]]] = [
    (
        ["data.input_labels=[]"],
        ["data.input_labels: is empty; name the types that make up the label, which spade reads"],
        ["data.input_labels=[seg_maps]"],
    ),
    (
        ["data.input_image=[]"],
        ["data.input_image: must be [images], which spade reads; got []"],
        ["data.input_image=[images]"],
    ),
    (
        ["data.type=paired_videos", "data.train.initial_sequence_length=4"],
        ["data.type: gives clips, but spade reads stills"],
        ["data.type=paired_images"],
    ),
    (
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}", "data.val.type=paired_videos"],
        ["data.val.type: gives clips, but spade reads stills"],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}", "data.val.type=paired_images"],
    ),
    (
        ["data.input_types.0={photos: {ext: png, num_channels: 3, normalize: true}}", "data.input_image=[photos]"],
        [
            "data.input_image: must be [images], which spade reads; got [photos]",
            "data.input_types: lacks images, which spade reads",
        ],
        [
            "data.input_types.0={photos: {ext: png, num_channels: 3, normalize: true}}",
            "data.input_image=[photos]",
            "data.rename_inputs={images: photos}",
            "data.full_data_ops='rename_inputs, make_one_hot, concat_labels'",
        ],
    ),
    (
        [f"data.val={OWN}input_types: [{SEG}], input_image: [seg_maps]}}"],
        [
            "data.val.input_types: lacks images, which spade reads",
            "data.val.input_image: must be [images], which spade reads; got [seg_maps]",
        ],
        [f"data.val={OWN}input_types: [{SEG}, {IMAGES}], input_image: [images]}}"],
    ),
    (
        [*UNIT, "data.input_types=[images_a: {ext: png, normalize: true}, images_c: {ext: png, normalize: true}]"],
        ["data.input_types: lacks images_b, which unit reads"],
        [*UNIT, "data.input_types=[images_a: {ext: png, normalize: true}, images_b: {ext: png, normalize: true}]"],
    ),
    (
        [*UNIT, *GRAY],
        [
            "data.input_types.0.images_a.num_channels: is 1, but gen.num_image_channels is 3; make them the same",
            "data.input_types.0.images_a.num_channels: is 1, but dis.num_image_channels is 3; make them the same",
        ],
        [*UNIT, *GRAY, "gen.num_image_channels=1", "dis.num_image_channels=1"],
    ),
]


@pytest.mark.parametrize(("wrong", "lines", "right"), METHOD_RULES, ids=[rule[1][0][:40] for rule in METHOD_RULES])
def test_data_that_do_not_suit_the_method_are_reported_with_their_place(
    tmp_path: Path, wrong: list[str], lines: list[str], right: list[str]
) -> None:
    found = errors(write(tmp_path), *wrong)
    assert [line.partition(": ")[2] for line in found] == lines
    read(write(tmp_path), *right)


# Images that are compared with the generator's


OF_METHODS = {
    "spade": ["images"],
    "pix2pixHD": ["images"],
    "unit": ["images_a", "images_b"],
    "munit": ["images_a", "images_b"],
    "funit": ["images_content", "images_style", "images"],
}


@pytest.mark.parametrize("method", OF_METHODS)
def test_every_method_says_which_images_must_be_in_the_range_of_its_own(method: str) -> None:
    recipe = find(schema.RECIPE, method)
    assert list(recipe.normalized_inputs) == OF_METHODS[method]
    assert set(recipe.required_inputs) - {"label"} <= set(recipe.normalized_inputs)


@pytest.mark.parametrize("ext", ["png", "JPG"])
def test_images_in_another_range_than_those_of_the_generator_are_refused(tmp_path: Path, ext: str) -> None:
    left_out = f"data.input_types.0={{images: {{ext: {ext}, num_channels: 3}}}}"
    assert mistakes(write(tmp_path), left_out) == [("data.input_types.0.images.normalize", "not-normalized")]
    renamed = [
        f"data.input_types.0={{photos: {{ext: {ext}, num_channels: 3}}}}",
        "data.input_image=[photos]",
        "data.rename_inputs={images: photos}",
        "data.full_data_ops='rename_inputs, make_one_hot, concat_labels'",
    ]
    assert mistakes(write(tmp_path), *renamed) == [("data.input_types.0.photos.normalize", "not-normalized")]


@pytest.mark.parametrize("ext", ["tif", "TIFF", "hdr"])
def test_floats_may_be_in_that_range_as_they_are(tmp_path: Path, ext: str) -> None:
    read(write(tmp_path), f"data.input_types.0={{images: {{ext: {ext}, num_channels: 3}}}}")


def test_a_label_may_be_in_either_range_and_classes_have_none(tmp_path: Path) -> None:
    for normalize in ("true", "false"):
        edges = f"data.input_types.1={{edges: {{ext: png, num_channels: 1, normalize: {normalize}}}}}"
        read(write(tmp_path), edges, "data.input_labels=[edges]", "data.one_hot_num_classes={}")
    assert mistakes(write(tmp_path), "data.input_types.1.seg_maps.normalize=true") == [
        ("data.input_types.1.seg_maps.normalize", "has-no-effect")
    ]


def test_a_place_of_the_method_s_rule_is_a_line_of_the_file(tmp_path: Path) -> None:
    text = swap(TEXT, "  input_labels: [seg_maps]\n", "  input_labels: []\n")
    line = 1 + TEXT.splitlines().index("  input_labels: [seg_maps]")
    (found,) = errors(write(tmp_path, text))
    assert found.startswith(f"small.yaml:{line}: data.input_labels: is empty")


def test_what_does_not_suit_the_method_is_reported_once_all_else_is_right(tmp_path: Path) -> None:
    found = errors(write(tmp_path), "data.input_labels=[]", "data.input_types=[]", "data.input_image=[]")
    assert not any("spade" in line for line in found)
