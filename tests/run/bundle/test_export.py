"""`export` writes a whole bundle that says how it is used, or nothing and why."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from contract.experiment import config_of, write_data
from PIL import Image

from imagier.cli import main
from imagier.errors import UserError
from imagier.run import RunOptions, export, load_generator, train
from imagier.run.bundle import export as module
from imagier.run.bundle import parity

CREDITS = "Drawn by A. B.\nLicense: CC BY-SA 4.0, from https://example.org/drawings.\n"
CLASSES = ["sky", "ground", "house", "tree"]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations, on data that name their license and their classes."""
    folder = tmp_path_factory.mktemp("run")
    data = tiny.write_data(folder / "data", train=4, val=3)
    (data / "CREDITS.txt").write_text(CREDITS)
    (data / "about.json").write_text(json.dumps({"classes": CLASSES}))
    train(tiny.config(data, max_iter=2), RunOptions(logdir=folder / "run", device="cpu"))
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(logdir: Path) -> Path:
    pytest.importorskip("onnxruntime")
    out = logdir.parent / "bundle"
    export(logdir, out, fp16=True, int8=True, license="cc-by-sa-4.0")
    return out


def read(bundle: Path) -> dict:
    return json.loads((bundle / "bundle.json").read_text())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.slow
def test_a_bundle_holds_all_files_that_it_names(bundle: Path) -> None:
    facts = read(bundle)
    assert set(facts["files"]) == {"onnx", "pt2", "safetensors", "onnx_fp16", "onnx_int8"}
    for of in facts["files"].values():
        assert (bundle / of["path"]).stat().st_size == of["bytes"]
    assert len(facts["samples"]) == 3
    assert all((bundle / sample[name]).is_file() for sample in facts["samples"] for name in ("input", "output"))
    assert (bundle / "CREDITS.txt").read_text() == CREDITS
    assert not [path for path in bundle.parent.iterdir() if path.name.endswith(".partial")]


@pytest.mark.slow
def test_what_bundle_json_says_makes_the_output_of_a_sample_of_its_input(bundle: Path) -> None:
    """Written here once more from its words alone, as a page or an app would do it."""
    import onnxruntime

    facts = read(bundle)
    ((entry,), (output,)) = facts["inputs"], facts["outputs"]
    ((part,),) = (entry["parts"],)
    assert [each["name"] for each in part["classes"]] == CLASSES and part["ignored"] == "none"
    session = onnxruntime.InferenceSession(str(bundle / facts["files"]["onnx"]["path"]))
    for sample in facts["samples"]:
        ids = pixels(bundle / sample["input"])
        assert list(ids.shape) == facts["image_size"]
        label = np.stack([(ids == each["id"]) for each in part["classes"]])[None].astype(np.float32)
        (images,) = session.run([output["name"]], {entry["name"]: label})
        painted = np.rint((images[0].transpose(1, 2, 0) + 1) / 2 * 255).clip(0, 255)
        assert np.abs(painted - pixels(bundle / sample["output"])).max() <= 1


@pytest.mark.slow
def test_the_code_on_the_card_paints_the_first_sample(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (bundle / "README.md").read_text()
    monkeypatch.chdir(bundle)
    codes = re.findall(r"```python\n(.*?)```", card, re.S)
    assert len(codes) == 2
    for code in codes:
        exec(code, {})
        painted = pixels(bundle / "output.png")
        assert np.abs(painted - pixels(bundle / read(bundle)["samples"][0]["output"])).max() <= 1
        (bundle / "output.png").unlink()
    header = card.split("---")[1]
    assert "license: cc-by-sa-4.0" in header and "pipeline_tag: image-to-image" in header
    assert "Data: CC BY-SA 4.0, from https://example.org/drawings. [CREDITS.txt]" in card


@pytest.mark.slow
def test_smaller_files_say_what_they_lose(bundle: Path, logdir: Path) -> None:
    files = read(bundle)["files"]
    assert files["onnx"]["max_difference"] <= parity.TOLERANCE and files["pt2"]["max_difference"] <= 1e-5
    half, quarter = files["onnx_fp16"], files["onnx_int8"]
    assert half["psnr_db"] is None or half["psnr_db"] > 40
    assert half["bytes"] < files["onnx"]["bytes"]
    assert half["mean_difference_255"] < quarter["mean_difference_255"] < 30
    import onnx

    kinds = {node.op_type for node in onnx.load(bundle / quarter["path"]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


@pytest.mark.slow
def test_a_file_that_fails_leaves_nothing(logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    with pytest.raises(UserError) as caught:
        export(logdir, tmp_path / "bundle", formats=["pt2"])
    assert caught.value.code == "no-parity"
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_the_function_does(
    logdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("safetensors")
    out = tmp_path / "bundle"
    assert main(["export", str(logdir), "--out", str(out), "--format", "safetensors"]) == 0
    assert "generator.safetensors" in capsys.readouterr().out
    label = out / read(out)["samples"][0]["input"]
    painted = np.asarray(load_generator(logdir)({"seg_maps": label})).astype(int)
    assert np.abs(painted - pixels(out / read(out)["samples"][0]["output"])).max() <= 1
    (out / "notes.txt").write_text("mine")
    (out / "samples" / "old.png").write_text("of the bundle before")
    assert main(["export", str(logdir), "--out", str(out), "--format", "safetensors"]) == 0  # is replaced
    assert (out / "notes.txt").read_text() == "mine" and not (out / "samples" / "old.png").exists()
    (checkpoint,) = logdir.glob("*_checkpoint.pt")
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "2"), "--format", "safetensors"]) == 0
    assert (tmp_path / "2" / "generator.safetensors").read_bytes() == (out / "generator.safetensors").read_bytes()


@pytest.mark.slow
def test_a_bundle_is_exported_again_from_its_weights(logdir: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    first, again = (
        export(source, tmp_path / name, formats=["safetensors"])
        for source, name in ((logdir, "first"), (tmp_path / "first", "again"))
    )
    assert [of["files"]["safetensors"]["max_difference"] for of in (first, again)] == [0, 0]
    assert {key: again[key] for key in ("weights", "iteration")} == {"weights": "average", "iteration": 2}
    weights = [(tmp_path / name / "generator.safetensors").read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    (tmp_path / "again" / "generator.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        export(tmp_path / "again", tmp_path / "third", formats=["safetensors"])
    assert caught.value.code == "no-weights" and not (tmp_path / "third").exists()


def test_weights_that_build_another_network_are_refused(
    logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    load = module.load_network

    def load_wrongly(path: Path) -> torch.nn.Module:
        network = load(path)
        torch.nn.init.ones_(next(network.parameters()))
        return network

    monkeypatch.setattr(module, "load_network", load_wrongly)
    with pytest.raises(UserError) as caught:
        export(logdir, tmp_path / "bundle", formats=["safetensors"])
    assert caught.value.code == "no-parity" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "where"),
    [
        ({"formats": ["tflite"]}, "wrong-format", "format"),
        ({"formats": []}, "wrong-format", "format"),
        ({"formats": ["pt2"], "fp16": True}, "no-onnx", "fp16"),
        ({"formats": ["pt2"], "style": "code"}, "no-styles", "style"),
        ({"formats": ["pt2"], "style": "image"}, "no-styles", "style"),
        ({"formats": ["pt2"], "overrides": ["data.val.roots=[/nowhere]"]}, "", "/nowhere"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(
    options: dict, code: str, where: str, logdir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        export(logdir, tmp_path / "bundle", **options)
    assert (caught.value.code == code or not code) and where in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_overrides_may_follow_the_formats(logdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(logdir), "--out", str(tmp_path / "bundle"), "--format", "pt2", "data.val.roots=[/nowhere]"]
    assert main(command) == 2 and "/nowhere" in capsys.readouterr().err
    assert main([*command[:-1], "tflite"]) == 2 and "choose some of onnx" in capsys.readouterr().err


def test_a_folder_of_something_else_stays(logdir: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError) as caught:
        export(logdir, tmp_path, formats=["pt2"])
    assert caught.value.code == "folder-in-the-way"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_missing_package_is_named(logdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        export(logdir, tmp_path / "bundle")
    assert caught.value.code == "not-installed" and "imagier[export]" in caught.value.advice


def test_a_method_for_clips_is_refused(tmp_path: Path) -> None:
    config = config_of("vid2vid", write_data(tmp_path / "data"))
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        export(tmp_path / "x.pt", tmp_path / "bundle", config=config, formats=["pt2"])
    assert caught.value.code == "no-export" and caught.value.where == "vid2vid"
