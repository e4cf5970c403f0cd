"""Weight files are found, fetched once, read without running code, and checked before they are used."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from formula_vgg import formula_vgg19, write_formula_vgg19
from torch import Tensor

from imagier.errors import UserError
from imagier.nn.backbones import build_feature_network, list_layers, weights


def image() -> Tensor:
    return torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def relu_1_1(x: Tensor) -> Tensor:
    """Written out, with the weights by formula."""
    mean, std = x.new_tensor((0.485, 0.456, 0.406)), x.new_tensor((0.229, 0.224, 0.225))
    x = ((x + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    return F.relu(F.conv2d(x, formula_vgg19(1)["features.0.weight"], padding=1))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch's cache, without files and without a network."""

    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_safetensors_file_is_read_as_the_pth_file(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(formula_vgg19(1), tmp_path / "vgg19.safetensors")
    features = build_feature_network("vgg19", ["relu_1_1"], str(tmp_path / "vgg19.safetensors"))(image())["relu_1_1"]
    torch.testing.assert_close(features, relu_1_1(image()))


def test_file_in_the_format_of_before_torch_1_6_is_read(tmp_path: Path) -> None:
    torch.save(formula_vgg19(1), tmp_path / "vgg19.pth", _use_new_zipfile_serialization=False)
    features = build_feature_network("vgg19", ["relu_1_1"], str(tmp_path / "vgg19.pth"))(image())["relu_1_1"]
    torch.testing.assert_close(features, relu_1_1(image()))


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    halves = {key: x.half() for key, x in formula_vgg19(1).items()}
    torch.save(halves, tmp_path / "vgg19.pth")
    network = build_feature_network("vgg19", ["relu_1_1"], str(tmp_path / "vgg19.pth"))
    assert torch.equal(network.state_dict()["features.0.weight"], halves["features.0.weight"].float())


def test_the_network_does_not_change_when_its_file_does(tmp_path: Path) -> None:
    path = write_formula_vgg19(tmp_path / "vgg19.pth", "relu_1_1")
    network = build_feature_network("vgg19", ["relu_1_1"], str(path))
    path.write_bytes(bytes(path.stat().st_size))  # in place, so that a mapped weight would become 0
    assert torch.equal(network.state_dict()["features.0.weight"], formula_vgg19(1)["features.0.weight"])


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("vgg19", "vgg19-dcbb9e9d.pth"),
        ("vgg16", "vgg16-397923af.pth"),
        ("alexnet", "alexnet-owt-7be5be79.pth"),
        ("inception_v3", "inception_v3_google-0cc3c7bd.pth"),
        ("inception_fid", "pt_inception-2015-12-05-6726825d.pth"),
        ("dinov2_vitb14", "dinov2_vitb14_pretrain.pth"),
        ("dinov2_vitl14", "dinov2_vitl14_pretrain.pth"),
        ("clip_vitl14_336", "clip-vit-large-patch14-336.safetensors"),
        ("resnet50", "resnet50-0676ba61.pth"),
        ("robust_resnet50", "ImageNet.pt"),
        ("vgg_face_dag", "vgg_face_dag.pth"),
    ],
)
def test_a_missing_file_is_one_line_that_names_file_and_folder(network: str, name: str, empty_cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        build_feature_network(network, list_layers(network)[:1])
    message = str(caught.value)
    assert "\n" not in message
    assert f"weight file {name} is not in {empty_cache}" in message
    assert "weights_path" in message


def test_a_weights_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights_path: no file .*nowhere\.pth"):
        build_feature_network("vgg19", ["relu_1_1"], str(tmp_path / "nowhere.pth"))


def test_a_file_in_the_cache_is_used_without_a_download(empty_cache: Path) -> None:
    write_formula_vgg19(empty_cache / "vgg19-dcbb9e9d.pth", "relu_1_1")
    features = build_feature_network("vgg19", ["relu_1_1"])(image())["relu_1_1"]
    torch.testing.assert_close(features, relu_1_1(image()))


def test_of_several_processes_only_one_downloads(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    second_has_begun = threading.Event()

    def download(url: str, target: str, hash_prefix: str, progress: bool) -> None:
        second_has_begun.wait(timeout=1)
        fetched.append((url, hash_prefix))
        write_formula_vgg19(Path(target + ".part"), "relu_1_1").rename(target)  # appears whole, as from torch.hub

    def second() -> None:
        second_has_begun.set()
        build_feature_network("vgg19", ["relu_1_1"])

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    threads = [
        threading.Thread(target=build_feature_network, args=("vgg19", ["relu_1_1"])),
        threading.Thread(target=second),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d")]


def test_a_file_that_does_not_fit_is_told_by_its_first_wrong_key(tmp_path: Path) -> None:
    state = formula_vgg19(2)
    torch.save({**state, "features.2.weight": torch.zeros(64, 32, 3, 3)}, tmp_path / "shape.pth")
    with pytest.raises(UserError, match=r"'features.2.weight' has shape \(64, 32, 3, 3\), expected \(64, 64, 3, 3\)"):
        build_feature_network("vgg19", ["relu_1_2"], str(tmp_path / "shape.pth"))
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"short\.pth: has no tensor 'features.5.weight'"):
        build_feature_network("vgg19", ["relu_3_1"], str(tmp_path / "short.pth"))
    with pytest.raises(UserError, match=r"has no tensor 'module\.model\.conv1\.weight'"):
        build_feature_network("robust_resnet50", ["layer_1"], str(tmp_path / "short.pth"))


class _Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_other_objects_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    state = {**formula_vgg19(1), "extra": _Trap(tmp_path / "sprung")}
    torch.save(state, tmp_path / "trap.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="not read for safety"):
        build_feature_network("vgg19", ["relu_1_1"], str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["vgg19.pth", "vgg19.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"<html>404: Not Found</html>"])
def test_a_damaged_file_is_a_users_mistake(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        build_feature_network("vgg19", ["relu_1_1"], str(tmp_path / name))


def test_a_file_is_downloaded_once_into_a_folder_that_is_made_with_its_checksum(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_cache.rmdir()
    asked: list[tuple[str, str]] = []

    def download(url: str, target: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url, hash_prefix))
        torch.save(formula_vgg19(1), target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        features = build_feature_network("vgg19", ["relu_1_1"])(image())["relu_1_1"]
        torch.testing.assert_close(features, relu_1_1(image()))
    assert asked == [("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d")]


def test_a_file_that_another_process_has_downloaded_meanwhile_is_taken(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lock:
        """Stands for a lock whose holder has just put the file there."""

        def __init__(self, path: str) -> None:
            self.target = Path(path).with_suffix("")

        def __enter__(self) -> None:
            torch.save(formula_vgg19(1), self.target)

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(weights, "FileLock", Lock)
    features = build_feature_network("vgg19", ["relu_1_1"])(image())["relu_1_1"]
    torch.testing.assert_close(features, relu_1_1(image()))
