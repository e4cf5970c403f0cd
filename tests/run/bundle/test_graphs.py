"""The network of every method is exported as what `infer` paints, for any number and any size of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract.experiment import METHODS, SIZE, batch_of, config_of, trainer_of, write_data
from torch import nn

from imagier.errors import UserError
from imagier.nn.plain import make_plain
from imagier.recipe import Batch, Recipe
from imagier.run.bundle import parity
from imagier.run.bundle.graphs import Graph, name_shape

CASES = {
    "spade": ("spade", {"random_style": True}, {"label": (4, SIZE, SIZE), "noise": (4,)}),
    "spade, image": ("spade", {}, {"label": (4, SIZE, SIZE), "style_images": (3, SIZE, SIZE)}),
    "pix2pixHD": ("pix2pixHD", {}, {"label": (5, SIZE, SIZE), "features": (2, SIZE, SIZE)}),
    "unit": ("unit", {}, {"images": (3, SIZE, SIZE)}),
    "unit, back": ("unit", {"a2b": False}, {"images": (3, SIZE, SIZE)}),
    "munit": ("munit", {}, {"images": (3, SIZE, SIZE), "noise": (2,)}),
    "munit, image": (
        "munit",
        {"random_style": False, "a2b": False},
        {"images": (3, SIZE, SIZE), "style_images": (3, SIZE, SIZE)},
    ),
    "funit": ("funit", {}, {"images": (3, SIZE, SIZE), "style_images": (3, SIZE, SIZE)}),
    "coco_funit": ("coco_funit", {}, {"images": (3, SIZE, SIZE), "style_images": (3, SIZE, SIZE)}),
}
"""The experiment, the arguments of `infer`, and the shapes of the inputs without their batch."""

each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def prepare(case: str, data: Path) -> tuple[Recipe, Batch]:
    """The recipe of an experiment with a plain generator, and a batch for it."""
    config = config_of(CASES[case][0], data)
    recipe = trainer_of(config).recipe
    batch, name = recipe.prepare(batch_of(config)), recipe.generator_name
    with torch.no_grad():
        for _ in range(5):  # power iterations of spectral norms, without which images would be infinite
            recipe.generate(batch, torch.Generator().manual_seed(0))
    return recipe.with_networks(**{name: make_plain(recipe.networks[name])}), batch


def graph_of(case: str, data: Path) -> Graph:
    recipe, batch = prepare(case, data)
    with torch.no_grad():
        exported = recipe.export_network(batch, torch.Generator().manual_seed(1), **CASES[case][1])
    assert exported is not None
    return Graph(exported[0].eval(), exported[1], recipe.size_multiple)


@each_case
def test_what_is_exported_paints_what_infer_paints(case: str, data: Path) -> None:
    recipe, batch = prepare(case, data)
    _, arguments, shapes = CASES[case]
    if case == "spade, image":  # `infer` draws a style near that of the image, the export takes the nearest
        with torch.no_grad():
            recipe.gen.encoder.fc_var.weight.zero_()
            recipe.gen.encoder.fc_var.bias.fill_(-100)
    with torch.no_grad():
        exported = recipe.export_network(batch, torch.Generator().manual_seed(1), **arguments)
        assert exported is not None
        network, inputs = exported
        painted = torch.stack(recipe.infer(batch, torch.Generator().manual_seed(1), **arguments))
        torch.testing.assert_close(network(**inputs), painted, rtol=1e-4, atol=1e-5)
    assert {name: tuple(x.shape[1:]) for name, x in inputs.items()} == shapes


def test_every_method_for_images_is_among_them() -> None:
    videos = {"vid2vid", "wc_vid2vid", "fs_vid2vid"}
    assert {CASES[case][0] for case in CASES} - {"coco_funit"} == set(METHODS) - videos


@pytest.mark.slow
@each_case
def test_onnx_paints_any_number_of_any_size(case: str, data: Path, tmp_path: Path) -> None:
    import numpy as np

    onnxruntime = pytest.importorskip("onnxruntime")
    graph = graph_of(case, data)
    graph.write_onnx(tmp_path / "generator.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "generator.onnx"))
    assert {i.name: i.shape for i in session.get_inputs()} == {
        k: name_shape(k, x.shape) for k, x in graph.inputs.items()
    }
    assert session.get_outputs()[0].shape == ["batch", 3, "height", "width"]
    for count in (1, 3, 5):
        for enlarged in (False, True):
            inputs = graph.select(count, enlarged=enlarged)
            (made,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
            true = graph.run(inputs).numpy()
            assert made.shape == true.shape and len(made) == count
            assert np.abs(made - true).max() < 1e-4
    assert str(Path(__file__).parents[3]).encode() not in (tmp_path / "generator.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["spade, image", "pix2pixHD", "coco_funit"])
def test_the_file_of_torch_export_paints_any_number_of_any_size(case: str, data: Path, tmp_path: Path) -> None:
    graph = graph_of(case, data)
    graph.write_pt2(tmp_path / "generator.pt2")
    run = parity.open_pt2(tmp_path / "generator.pt2")
    assert parity.check_parity(run, graph, tmp_path) < 1e-5


class Scaled(nn.Module):
    """Multiplies images."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.factor


IMAGES = {"images": torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)}


def test_a_file_that_paints_something_else_is_refused() -> None:
    graph = Graph(Scaled(1.0), IMAGES, 2)
    for factor in (1.002, float("nan")):
        with pytest.raises(UserError) as caught:
            parity.check_parity(lambda inputs, f=factor: inputs["images"] * f, graph, Path("generator.onnx"))
        assert caught.value.code == "no-parity" and caught.value.where == "generator.onnx"
    assert parity.check_parity(lambda inputs: inputs["images"] + 1e-4, graph, Path("x")) == pytest.approx(1e-4, rel=0.1)


def test_parity_is_checked_for_several_samples_and_for_two_sizes() -> None:
    shapes = [tuple(inputs["images"].shape) for inputs in parity.list_cases(Graph(Scaled(1.0), IMAGES, 2))]
    assert shapes == [(1, 3, 4, 4), (1, 3, 6, 8), (3, 3, 4, 4), (3, 3, 6, 8)]


def test_loss_is_that_of_pixels() -> None:
    graph = Graph(Scaled(1.0), {"images": torch.full((4, 3, 4, 4), 1 / 255)}, 2)
    one_gray_level = parity.measure_loss(lambda inputs: inputs["images"] + 2 / 255, graph)
    assert one_gray_level == {"max_difference_255": 1, "mean_difference_255": 1.0, "psnr_db": 48.13}  # 20 log10(255)
    assert parity.measure_loss(lambda inputs: inputs["images"], graph)["psnr_db"] is None


def test_pixels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]).view(1, 1, 1, 6)
    assert parity.to_pixels(values).flatten().tolist() == [0, 0, 128, 191, 255, 255]


class Branching(nn.Module):
    """Depends on the number of samples."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * len(images)


def test_a_network_that_depends_on_the_number_of_samples_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        _ = Graph(Branching(), IMAGES, 2).program
    assert caught.value.code == "no-graph"
