"""Every recorded case of a method that exists here comes out within its limits, and the comparison can fail."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import parity
import pytest
import torch
import yaml
from formula_vgg import write_formula_vgg19
from golden import GOLDEN, golden
from own_cases import write_case
from safetensors.torch import load_file, save_file

CASES = sorted(path.parent.name for path in GOLDEN.glob("*/config.yaml"))


def method(case: str) -> str:
    """The name of the module that a case's generator is in."""
    config = yaml.safe_load((GOLDEN / case / "config.yaml").read_text())
    return config["gen"]["type"].rpartition(".")[2]


@pytest.fixture(scope="session")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_formula_vgg19(tmp_path_factory.mktemp("weights") / "vgg19.pth")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_numbers_of_a_case_are_within_their_limits(
    name: str, vgg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(f"imagier.models.{method(name)}") is None:
        pytest.skip(f"no model {method(name)} yet")
    passed = parity.report(parity.Case(golden(name)), vgg)
    assert passed, capsys.readouterr().out


@pytest.fixture
def eval_of_spade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a case with one process only, and no perceptual network, which that process does not use."""
    folder = Path(shutil.copytree(golden("spade_a"), tmp_path / "case", copy_function=shutil.copyfile))
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "processes": ["eval"]}))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["trainer"]["perceptual_loss"], config["trainer"]["loss_weight"]["perceptual"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rewrite_expected(folder, {k: v for k, v in load_file(folder / "expected.safetensors").items() if k[:5] == "eval."})
    monkeypatch.setattr("formula_vgg.write_formula_vgg19", lambda path: path)
    return folder


OTHER_CASES: dict[str, tuple[str, list[str], set[str]]] = {
    "clips at two scales, raw frames, each with a forward of its own": (
        "street",
        [
            "data.num_frames_D=2",
            "dis.temporal.num_scales=2",
            "gen.flow.generate_raw_output=true",
            "trainer.reuse_gen_output=false",
            "trainer.gan_mode=least_square",
            "trainer.loss_weight.L1=1.0",
        ],
        {"frames.1.disout.dis.temporal_0.real.0", "frames.0.disout.gen.raw.fake.1", "frames.2.loss.gen.L1"},
    ),
    "a linear blend, one frame before, an average": (
        "street",
        [
            "data.num_frames_G=2",
            "gen.flow.multi_spade_combine=false",
            "gen.use_segmap_as_input=false",
            "trainer.model_average_config={enabled: true, beta: 0.9, start_iteration: 1}",
        ],
        {"frames.1.out.fake_flow_maps", "step.avg.conv_img.layers.conv.weight"},
    ),
    "DensePose, clipped gradients": (
        "pose",
        ["dis_opt.clip_grad_norm=1.0"],
        {"frames.0.loss.dis.GAN_face", "prepare.label"},
    ),
    "OpenPose without DensePose": ("pose", ["data.for_pose_dataset.pose_type=open"], {"prepare.label"}),
    "people, raw frames, shared networks": (
        "few_shot_pose",
        ["gen.flow.generate_raw_output=true", "gen.flow.multi_spade_combine.embed.sep_warp_embed=false"],
        {"frames.0.out.warped_images.0", "frames.2.out.fake_flow_maps.1", "prepare.few_shot_label"},
    ),
    "faces, references that are not moved": (
        "few_shot_face",
        ["gen.flow.warp_ref=false", "gen.flow.sep_prev_flow=true", "gen.hyper.method_to_use_ref_labels=concat"],
        {"frames.1.out.fake_flow_maps.1"},
    ),
    "mirrored frames, guidance for few layers": (
        "world",
        ["gen.guidance.only_with_flow=true", "gen.guidance.start_from=1"],
        {"frames.2.loss.gen.Guidance", "frames.2.out.guidance_images_and_masks"},
    ),
}
"""Other options than those of the recorded cases, and some results that must have names."""


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_CASES)
def test_cases_with_other_options_are_compared_too(
    name: str, tmp_path: Path, vgg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, changes, wanted = OTHER_CASES[name]
    folder = write_case(tmp_path / "case", config, changes, is_flipped=config == "world")
    found: dict[str, torch.Tensor] = {}
    case = parity.Case(folder)
    for process in case.processes:
        for key, value in parity.results(case, process, vgg).items():
            ours, theirs = value if isinstance(value, tuple) else (value, None)
            if key.startswith("prepare."):
                assert theirs is not None
                torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-6)
            found[key] = ours.detach().float().clone()
    assert wanted <= found.keys()
    rewrite_expected(folder, {key: value for key, value in found.items() if not key.startswith("prepare.")})
    assert parity.report(parity.Case(folder), vgg), capsys.readouterr().out


def rewrite_expected(folder: Path, tensors: dict) -> None:
    save_file(tensors, folder / "expected.safetensors")


def exit_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of `python tests/parity.py FOLDER`."""
    monkeypatch.setattr(sys, "argv", ["parity.py", str(folder)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(parity.__file__, run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_tool_ends_with_0_where_all_is_well(eval_of_spade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(eval_of_spade, monkeypatch) == 0


@pytest.mark.parametrize("name", ["eval.fake_images", "eval.mu"])
def test_the_tool_ends_with_1_where_one_number_is_off(
    name: str, eval_of_spade: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load_file(eval_of_spade / "expected.safetensors")
    expected[name].view(-1)[-1] += 3e-4
    rewrite_expected(eval_of_spade, expected)
    assert exit_code(eval_of_spade, monkeypatch) == 1
    assert f"FAIL at {name}" in capsys.readouterr().out


def test_the_tool_ends_with_1_where_a_result_is_missing(
    eval_of_spade: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load_file(eval_of_spade / "expected.safetensors")
    expected["eval.something_else"] = expected["eval.mu"].clone()
    rewrite_expected(eval_of_spade, expected)
    assert exit_code(eval_of_spade, monkeypatch) == 1
    assert "eval.something_else: FAIL" in capsys.readouterr().out


def test_the_tool_ends_with_1_where_prepared_inputs_differ(
    eval_of_spade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = load_file(eval_of_spade / "batch.safetensors")
    given["raw.images"] = given["images"].clone()
    given["raw.images"][0, 0, 0, 0] += 1e-3
    save_file(given, eval_of_spade / "batch.safetensors")
    assert exit_code(eval_of_spade, monkeypatch) == 1


def test_weights_that_the_case_lacks_or_has_too_many_of_are_noticed(eval_of_spade: Path) -> None:
    case = parity.Case(eval_of_spade)
    del case.state["net_G.spade_generator.head_0.layers.conv.bias"]
    with pytest.raises(AssertionError, match=r"head_0\.layers\.conv\.bias"):
        parity.Rebuilt(case, eval_of_spade)


def test_draws_come_in_their_order_among_those_of_one_shape() -> None:
    recorded = [torch.zeros(2), torch.zeros(3), torch.ones(2)]
    with parity.Replay(list(recorded)) as replay:
        assert torch.randn(3).tolist() == [0, 0, 0]
        assert [torch.randn(2).tolist(), torch.rand(2).tolist()] == [[0, 0], [1, 1]]
    assert replay.draws == []


def test_draws_of_another_shape_or_number_are_noticed(eval_of_spade: Path) -> None:
    case = parity.Case(eval_of_spade)
    case.batch["noise.eval.1"] = case.batch["noise.eval.0"]
    with pytest.raises(AssertionError, match="not used"):
        parity.results(case, "eval", eval_of_spade)
    case = parity.Case(eval_of_spade)
    case.batch["noise.eval.0"] = case.batch["noise.eval.0"][:1]
    with pytest.raises(AssertionError, match="shape"):
        parity.results(case, "eval", eval_of_spade)


def test_of_several_calls_of_a_process_the_first_is_compared() -> None:
    captured: dict[str, int] = {}
    discriminate = parity.capture_first(captured, lambda score: {"out": score})
    assert [discriminate(score)["out"] for score in (3, 5)] == [3, 5]
    assert captured == {"out": 3}
