"""The reference's configs of UNIT and MUNIT mean here what they meant there."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagier.config.check import Config, check
from imagier.config.legacy.translate import translate_legacy
from imagier.config.load import ConfigError, load

TEXT = """\
max_iter: 10
trainer:
  type: imaginaire.trainers.{name}
  gan_mode: hinge
  perceptual_mode: vgg19
  perceptual_layers: relu_4_1
  loss_weight: {{gan: 1, image_recon: 10, cycle_recon: 10, perceptual: 0}}
gen_opt: {{lr: 1e-4}}
dis_opt: {{lr: 1e-4}}
gen:
  type: imaginaire.generators.{name}
  output_nonlinearity: ''
  weight_norm_type: ''
dis:
  type: imaginaire.discriminators.{name}
  num_filters: 24
data:
  type: imaginaire.datasets.unpaired_images
  input_types:
  - images_a: {{ext: jpg, num_channels: 3, normalize: true}}
  - images_b: {{ext: jpg, num_channels: 3, normalize: true}}
  train:
    roots: [somewhere]
    augmentations: {{random_crop_h_w: "64, 64"}}
"""


def read(folder: Path, name: str, *overrides: str) -> tuple[Config, list[str]]:
    """The config, and what the lines about dropped keys say after the place."""
    path = folder / "old.yaml"
    path.write_text(TEXT.format(name=name))
    document = load(path, overrides)
    notes = translate_legacy(document)
    return check(document), [note.partition(": ")[2] for note in notes]


@pytest.mark.parametrize("name", ["unit", "munit"])
def test_a_plain_config_needs_no_remark(tmp_path: Path, name: str) -> None:
    config, notes = read(tmp_path, name)
    assert notes == []
    assert (config.players["gen"].type, config.players["dis"].type, config.recipe.type) == (name, name, name)
    assert (
        config.players["gen"].options["output_nonlinearity"]
        == config.players["gen"].options["weight_norm_type"]
        == "none"
    )
    perceptual = config.recipe.options["perceptual_loss"]
    assert (perceptual.mode, perceptual.layers) == ("vgg19", "relu_4_1")


@pytest.mark.parametrize(
    ("name", "override", "note"),
    [
        ("unit", "gen.all_res=true", None),
        ("unit", "trainer.aug_policy=color", "trainer.aug_policy: this method does not use DiffAugment; dropped"),
        (
            "unit",
            "trainer.loss_weight.gp=10",
            "trainer.loss_weight.gp: was read, but no such loss was computed; dropped",
        ),
        (
            "munit",
            "trainer.loss_weight.gp=10",
            "trainer.loss_weight.gp: was read, but no such loss was computed; dropped",
        ),
        ("munit", "trainer.loss_weight.gp=0", None),
        ("unit", "trainer.loss_weight.kl=1", "trainer.loss_weight.kl: had no effect on this method; dropped"),
        (
            "unit",
            "dis.patch_wise=false",
            "dis.patch_wise: had no effect on this method, which reads patch_dis; dropped",
        ),
        (
            "munit",
            "dis.patch_dis=false",
            "dis.patch_dis: had no effect on this method, which reads patch_wise; dropped",
        ),
        ("unit", "dis.aggregation=pool", "dis.aggregation: has no effect with patch_dis: true; dropped"),
        ("munit", "dis.anti_aliased=true", "dis.anti_aliased: has no effect with patch_wise: true; dropped"),
        ("munit", "dis.aggregation=null", None),
    ],
)
def test_a_key_that_had_no_effect_is_dropped_with_a_line_if_it_says_something(
    tmp_path: Path, name: str, override: str, note: str | None
) -> None:
    config, notes = read(tmp_path, name, override)
    assert notes == ([note] if note else [])
    assert config.players["dis"].options[{"unit": "patch_dis", "munit": "patch_wise"}[name]] is True


@pytest.mark.parametrize(("name", "switch"), [("unit", "patch_dis"), ("munit", "patch_wise")])
def test_keys_of_the_patch_discriminator_are_dropped_where_the_residual_one_is_chosen(
    tmp_path: Path, name: str, switch: str
) -> None:
    residual = ["dis.image_channels=1", "dis.aggregation=pool", "dis.order=CNACNA", "dis.first_kernel_size=3"]
    gray = [
        "gen.num_image_channels=1",
        *(f"data.input_types.{i}.images_{x}.num_channels=1" for i, x in enumerate("ab")),
    ]
    overrides = [f"dis.{switch}=false", "dis.kernel_size=4", "dis.num_discriminators=2", *residual, *gray]
    config, notes = read(tmp_path, name, *overrides)
    assert sorted(notes) == [
        f"dis.{key}: has no effect with {switch}: false; dropped" for key in ("kernel_size", "num_discriminators")
    ]
    kept = {
        key: config.players["dis"].options[key]
        for key in ("num_image_channels", "aggregation", "order", "first_kernel_size")
    }
    assert kept == {"num_image_channels": 1, "aggregation": "pool", "order": "CNACNA", "first_kernel_size": 3}
    config.players["dis"].build()


@pytest.mark.parametrize("name", ["unit", "munit"])
def test_every_weight_that_the_reference_could_add_can_be_given(tmp_path: Path, name: str) -> None:
    names = ["gan_a", "gan_b", "perceptual_a", "perceptual_b", "image_recon", "cycle_recon"]
    if name == "unit":
        names += ["cycle_recon_aba", "cycle_recon_bab"]
    else:
        names += ["kl", "consistency_reg"]
        for kind in ("style_recon", "content_recon"):
            names += [kind, f"{kind}_a", f"{kind}_b", f"{kind}_within", f"{kind}_aa", f"{kind}_bb"]
    config, notes = read(tmp_path, name, *(f"trainer.loss_weight.{key}=0.5" for key in names))
    assert notes == []
    assert all(getattr(config.recipe.options["loss_weight"], key) == 0.5 for key in names)


def test_a_resolved_config_loads_to_itself_without_a_remark(tmp_path: Path) -> None:
    config, _ = read(tmp_path, "munit", "dis.patch_wise=false", "gen.decoder_norm_params=None")
    path = tmp_path / "resolved.yaml"
    path.write_text(config.dump())
    document = load(path)
    assert translate_legacy(document) == []
    assert check(document).to_dict() == config.to_dict()


def test_a_misspelled_key_is_told() -> None:
    with pytest.raises(ConfigError, match="did you mean 'latent_dim'"):
        document = load(Path(__file__).parents[2] / "configs" / "munit" / "openmoji_tones64.yaml", ["gen.latentdim=3"])
        translate_legacy(document)
        check(document)
