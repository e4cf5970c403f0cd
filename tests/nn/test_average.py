"""The running average of weights, against recorded numbers and numbers by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
import torch
from golden import golden
from safetensors.torch import load_file
from torch import Tensor, nn

from imagier.nn.average import ModelAverage, fold_spectral_norm, reestimate_batch_norm
from imagier.nn.conv import SpectralConv2d, conv2d, linear
from imagier.nn.reference_names import reference_names

CASES = ("model_average_remove_sn", "model_average_keep_sn", "model_average_start0")


def seven_layers() -> nn.Sequential:
    """The network of the recorded numbers."""
    return nn.Sequential(
        conv2d(3, 6, 3, weight_norm="spectral"),
        nn.BatchNorm2d(6),
        conv2d(6, 5, 3),
        nn.InstanceNorm2d(5, affine=True),
        conv2d(5, 4, 1, bias=False, weight_norm="spectral"),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


class Recorded:
    """One recorded average and its source, by our names."""

    def __init__(self, case: str) -> None:
        self.tensors = load_file(golden("optim", f"{case}.safetensors"))
        self.options = json.loads(golden("optim", "meta.json").read_text())[case]
        self.updates = len({key.split(".")[1] for key in self.tensors if key.startswith("source.")})
        self.source = seven_layers()
        self.load(0)
        self.average = ModelAverage(
            self.source,
            beta=self.options["beta"],
            start_iteration=self.options["start_iteration"],
            remove_sn=self.options["remove_sn"],
        )

    def load(self, update: int) -> None:
        """Puts the source into the state after an update, in place."""
        names = reference_names(self.source.state_dict(), ())
        self.source.load_state_dict({k: self.tensors[f"source.{update}.{name}"] for k, name in names.items()})

    def assert_average_is_that_after(self, update: int) -> None:
        state = self.average.network.state_dict()
        names = reference_names(state, ())
        prefix = f"average.{update}."
        assert {prefix + name for name in names.values()} == {k for k in self.tensors if k.startswith(prefix)}
        for ours, theirs in names.items():
            expected = self.tensors[prefix + theirs]
            limit = 1e-6 * expected.abs().max().item()
            torch.testing.assert_close(state[ours], expected, rtol=0, atol=limit, msg=lambda m, n=theirs: f"{n}: {m}")

    def run(self) -> None:
        for update in range(1, self.updates):
            self.load(update)
            self.average.update()


@pytest.fixture(params=CASES)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def test_the_average_is_the_recorded_one_after_every_update(recorded: Recorded) -> None:
    assert recorded.updates > 3
    for update in range(1, recorded.updates):
        recorded.load(update)
        recorded.average.update()
        recorded.assert_average_is_that_after(update)


def test_the_averaged_network_gives_the_recorded_output(recorded: Recorded) -> None:
    recorded.run()
    expected = recorded.tensors["probe.output_of_average_in_eval_mode"]
    output = recorded.average.network(recorded.tensors["probe.input"])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_layers_come_in_the_recorded_order_and_have_the_recorded_keys(recorded: Recorded) -> None:
    """The order within a layer differs: the reference has a spectral layer's bias before its weight."""
    ours = reference_names(recorded.average.network.state_dict(), ()).values()
    theirs = recorded.options["keys_of_the_average"]
    assert by_layer(ours) == by_layer(theirs)
    assert list(by_layer(ours)) == list(by_layer(theirs))


def by_layer(keys: Iterable[str]) -> dict[str, set[str]]:
    layers: dict[str, set[str]] = {}
    for key in keys:
        layer, _, name = key.partition(".")
        layers.setdefault(layer, set()).add(name)
    return layers


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_reestimated_statistics_are_the_recorded_ones(count: int) -> None:
    recorded = Recorded("model_average_remove_sn")
    recorded.run()
    network = recorded.average.network
    batches = [recorded.tensors[f"recalibrate.batch.{i}"] for i in range(count)]
    reestimate_batch_norm(network, batches, network)
    for name in ("running_mean", "running_var"):
        expected = recorded.tensors[f"recalibrate.{name}.{count - 1}"]
        limit = 1e-6 * expected.abs().max().item()
        torch.testing.assert_close(getattr(network[1], name), expected, rtol=0, atol=limit)


def test_reestimated_statistics_are_the_mean_over_batches_each_weighing_the_same() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3)).eval()
    batches = [torch.randn(count, 3, 4, 4) * count for count in (1, 2, 5)]
    reestimate_batch_norm(network, batches, network)
    rows = [batch.movedim(1, 0).flatten(1) for batch in batches]
    torch.testing.assert_close(network[0].running_mean, torch.stack([r.mean(1) for r in rows]).mean(0))
    torch.testing.assert_close(network[0].running_var, torch.stack([r.var(1) for r in rows]).mean(0))
    assert network[0].momentum == 0.3
    assert not any(module.training for module in network.modules())


def test_reestimating_moves_nothing_but_the_statistics() -> None:
    """Not even the singular vectors of an average that keeps its spectral norms."""
    torch.manual_seed(0)
    network = seven_layers().eval()
    before = cloned(network.state_dict())
    reestimate_batch_norm(network, [torch.randn(2, 3, 8, 8)], network)
    moved = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


def filled(network: nn.Module, value: float) -> nn.Module:
    """The network with that number in all weights and statistics."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value if tensor.is_floating_point() else 0)
    return network


@pytest.mark.parametrize("start", [0, 2])
def test_the_average_is_its_source_up_to_the_start_and_then_comes_a_tenth_nearer_with_every_update(start: int) -> None:
    source = filled(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), 0.0)
    average = ModelAverage(source, beta=0.9, start_iteration=start)

    def average_after(value: float) -> set[float]:
        filled(source, value)
        average.update()
        state = [tensor for tensor in average.network.state_dict().values() if tensor.is_floating_point()]
        return {round(number, 4) for tensor in state for number in tensor.flatten().tolist()}

    for value in (0.5, 0.0)[:start]:
        assert average_after(value) == {value}
    assert [average_after(1.0) for _ in range(4)] == [{0.1}, {0.19}, {0.271}, {0.3439}]


class Twice(nn.Module):
    """A layer under two names, and one under one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.same = linear(1, 1, weight_norm="spectral")
        self.alone = linear(1, 1, weight_norm="spectral")


@pytest.mark.parametrize("folds", [True, False])
def test_a_layer_with_two_names_comes_nearer_twice_with_every_update_as_in_the_reference(folds: bool) -> None:
    source = Twice()
    filled(source, 1.0)
    average = ModelAverage(source, beta=0.9, start_iteration=0, remove_sn=folds)
    filled(average.network, 0.0)
    average.update()
    assert average.network.one.weight.item() == pytest.approx(0.19)
    assert average.network.alone.weight.item() == pytest.approx(0.1)
    assert average.network.same is average.network.one


def test_by_default_it_is_its_source_for_1000_updates_and_then_comes_a_ten_thousandth_nearer_with_every_one() -> None:
    source = filled(nn.Linear(1, 1), 0.0)
    average = ModelAverage(source)
    for _ in range(1000):
        average.update()
    filled(source, 1.0)
    average.update()
    assert average.network.weight.item() == pytest.approx(1e-4)


def test_a_restart_begins_again_at_the_weights_of_the_source() -> None:
    source = filled(nn.Linear(1, 1), 0.0)
    average = ModelAverage(source, beta=0.9, start_iteration=1)
    for value in (0.0, 1.0):
        filled(source, value)
        average.update()
    assert average.network.weight.item() == pytest.approx(0.1)
    average.restart()
    assert average.network.weight.item() == 1
    for value, expected in ((2.0, 2.0), (3.0, 2.1)):
        filled(source, value)
        average.update()
        assert average.network.weight.item() == pytest.approx(expected)


def changed(network: nn.Module) -> None:
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.add_(1)
            else:
                tensor.add_(torch.rand_like(tensor))


def test_a_state_that_the_source_loads_afterwards_is_averaged_too() -> None:
    torch.manual_seed(0)
    source, other = seven_layers(), seven_layers()
    average = ModelAverage(source, start_iteration=1)
    source.load_state_dict(other.state_dict())
    average.update()
    torch.testing.assert_close(average.network.state_dict(), fold_spectral_norm(other).state_dict())


def test_a_loaded_average_goes_on_as_if_it_had_never_been_saved() -> None:
    torch.manual_seed(0)
    source = seven_layers()
    average = ModelAverage(source, beta=0.8, start_iteration=1)
    changed(source)
    average.update()
    resumed = ModelAverage(source, beta=0.8, start_iteration=1)
    resumed.load_state_dict({k: v if k == "num_updates" else cloned(v) for k, v in average.state_dict().items()})
    changed(source)
    for each in (average, resumed):
        each.update()
    assert resumed.num_updates == 2
    assert equal(average.network.state_dict(), resumed.network.state_dict())


def cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_averaging_leaves_the_source_as_it_is() -> None:
    torch.manual_seed(0)
    source = seven_layers()
    before = cloned(source.state_dict())
    average = ModelAverage(source, start_iteration=0)
    average.update()
    assert equal(source.state_dict(), before)
    assert source.training and all(parameter.requires_grad for parameter in source.parameters())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert not average.network.training


def test_folding_replaces_every_spectral_layer_at_any_depth_and_keeps_the_output() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(conv2d(3, 4, 3, weight_norm="spectral"), nn.Sequential(nn.Flatten()))
    network = nn.Sequential(inner, linear(16, 2, weight_norm="spectral")).eval()
    folded = fold_spectral_norm(network)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(x), network(x))
    assert not any(name.endswith((".u", ".v")) for name in folded.state_dict())
    assert isinstance(inner[0], SpectralConv2d)


def test_a_network_with_weight_norm_can_be_averaged() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(conv2d(3, 4, 3, weight_norm="weight"))
    average = ModelAverage(source, start_iteration=1)
    changed(source)
    average.update()
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(average.network(x), source(x))


def test_a_network_that_is_itself_a_spectral_layer_can_be_averaged() -> None:
    torch.manual_seed(0)
    source = conv2d(3, 4, 3, weight_norm="spectral")
    average = ModelAverage(source, start_iteration=1)
    changed(source)
    average.update()
    x = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(average.network(x), source.eval()(x))
