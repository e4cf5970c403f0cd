"""Checkpoints of the reference begin and continue runs here, and what does not belong together is told by name."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import parity_clips
import pytest
import tiny
import torch
from golden import GOLDEN, golden
from logs import logged
from old_checkpoints import (
    CPU,
    config_of,
    folded,
    moved,
    old_checkpoint,
    parameters_of,
    perturbed,
    recorded_state,
    trainer_of,
    wrapped,
)
from parity import NETWORKS, SAMPLING, Case, Replay, names_of
from torch import Tensor, nn

from imagier.cli import main
from imagier.errors import UserError
from imagier.run.conversion import convert
from imagier.run.inference import load_recipe
from imagier.run.reference_checkpoint import _list_parameters, _list_second_names
from imagier.run.resume_plan import ResumePlan
from imagier.train import checkpoint
from imagier.train.checkpoint_files import find_latest
from imagier.train.fit_state import summarize_names
from imagier.train.optim import Madam
from imagier.train.trainer import Trainer

IMAGES = ("spade_a", "spade_b", "pix2pixHD_a", "pix2pixHD_b", "unit_a", "munit_a", "munit_patch_a", "funit_a")
STILLS = [name for name in (*IMAGES, "coco_funit_a") if (GOLDEN / name).is_dir()]
NAMES = ("vid2vid_street_a", "vid2vid_pose_a", "fs_vid2vid_face_a", "wc_vid2vid_a")
CLIPS = [name for name in NAMES if (GOLDEN / name).is_dir()]
CASES = [*STILLS, *CLIPS]
AS_TRAINED = {"fs_vid2vid_face_a": ["gen.hyper.eps_of_average=0.1"]}
"""What makes an averaged generator work as the trained one, which was recorded."""
AVERAGE = "trainer.model_average_config={enabled: true, beta: 0.5, start_iteration: 0, remove_sn: "


def case_trainer(case: str, *overrides: str) -> Trainer:
    return trainer_of(config_of(golden(case, "config.yaml"), *overrides))


def begun(trainer: Trainer, state: dict, folder: Path, *, resume: bool, strict: bool = True) -> list[str]:
    """Loads a state, by way of a file, into a trainer; returns what was logged."""
    path = folder / "old.pt"
    torch.save(state, path)
    plan = ResumePlan(folder, 0, path, is_resume=resume)
    with logged() as said:
        plan.restore(trainer, checkpoint.FoundCheckpoint(path, checkpoint.load(path)), strict=strict)
    return said


def assert_equal(network: nn.Module, theirs: dict[str, Tensor]) -> None:
    names = names_of(network)
    assert set(names.values()) == theirs.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, theirs[names[name]]), name


# Weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_recorded_weights_become_ours_and_ours_become_them_again_bit_for_bit(case: str, tmp_path: Path) -> None:
    trainer = case_trainer(case, "trainer.model_average_config.enabled=false")
    recorded = {player: recorded_state(case, player) for player in NETWORKS}
    state = {f"net_{NETWORKS[player]}": wrapped(weights) for player, weights in recorded.items()}
    assert begun(trainer, state, tmp_path, resume=False) == []
    for player, weights in recorded.items():
        network = trainer.players[player].network
        assert_equal(network, weights)
        names = names_of(network)
        ours = {names[name]: tensor for name, tensor in network.state_dict().items()}
        assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in weights.items()}


@pytest.mark.parametrize("remove_sn", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_weights_and_their_average_find_their_places(case: str, remove_sn: bool, tmp_path: Path) -> None:
    trainer = case_trainer(case, f"{AVERAGE}{str(remove_sn).lower()}}}")
    live = recorded_state(case, "gen")
    average = perturbed(folded(live) if remove_sn else live)
    state = {"net_G": wrapped(live, average), "net_D": wrapped(recorded_state(case, "dis"))}
    assert begun(trainer, state, tmp_path, resume=False) == []
    player = trainer.players["gen"]
    assert player.average is not None
    assert_equal(player.network, live)
    assert_equal(player.average.network, average)
    assert player.average.state_dict()["num_updates"] == 7


def test_weights_without_any_prefix_are_read_too(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a", f"{AVERAGE}true}}")
    live = recorded_state("unit_a", "gen")
    entries = {name.removeprefix("module."): x for name, x in wrapped(live, perturbed(folded(live))).items()}
    begun(trainer, {"net_G": entries}, tmp_path, resume=False)
    assert_equal(trainer.players["gen"].network, live)
    begun(case_trainer("spade_a"), {"net_G": recorded_state("spade_a", "gen")}, tmp_path, resume=False)


def test_an_average_that_the_config_does_not_want_is_told_and_left(tmp_path: Path) -> None:
    trainer = case_trainer("spade_a", "trainer.model_average_config.enabled=false")
    live = recorded_state("spade_a", "gen")
    said = begun(trainer, {"net_G": wrapped(live, perturbed(folded(live)))}, tmp_path, resume=False)
    assert said == ["old.pt: holds an average of gen, which this config does not use", "old.pt: has no player dis"]
    assert_equal(trainer.players["gen"].network, live)


def test_an_average_that_the_file_does_not_hold_begins_at_the_weights(tmp_path: Path) -> None:
    trainer = case_trainer("spade_a", f"{AVERAGE}true}}")
    live = recorded_state("spade_a", "gen")
    begun(trainer, {"net_G": wrapped(live)}, tmp_path, resume=False)
    average = trainer.players["gen"].average
    assert average is not None
    expected = folded(live)
    for name, theirs in names_of(average.network).items():
        torch.testing.assert_close(average.network.state_dict()[name], expected[theirs], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", STILLS)
def test_images_of_an_old_average_are_the_recorded_ones(case: str, tmp_path: Path) -> None:
    case_trainer(case)
    config = config_of(golden(case, "config.yaml"), f"{AVERAGE}true}}")
    live = recorded_state(case, "gen")
    path = tmp_path / "old.pt"
    torch.save({"net_G": wrapped(perturbed(live), folded(live))}, path)
    recipe = load_recipe(config, checkpoint.FoundCheckpoint(path, checkpoint.load(path)), CPU)
    recorded = Case(golden(case))
    with torch.no_grad(), Replay(recorded.draws("eval")):
        found = recipe.generate(recipe.prepare(recorded.raw_batch()), torch.Generator(), **SAMPLING["eval"])
    expected = {name: x for name, x in recorded.expected.items() if name.startswith("eval.")}
    assert expected
    for name, tensor in expected.items():
        limit = 2e-4 * max(1.0, tensor.abs().max().item())
        assert (found[name.removeprefix("eval.")] - tensor).abs().max() <= limit, name


@pytest.mark.parametrize("case", CLIPS)
def test_clips_of_an_old_average_are_the_recorded_ones(case: str, tmp_path: Path) -> None:
    live = recorded_state(case, "gen")
    path = tmp_path / "old.pt"
    torch.save({"net_G": wrapped(perturbed(live), folded(live))}, path)
    config = config_of(golden(case, "config.yaml"), f"{AVERAGE}true}}", *AS_TRAINED.get(case, ()))
    recipe = load_recipe(config, checkpoint.FoundCheckpoint(path, checkpoint.load(path)), CPU)
    recorded = Case(golden(case))
    found = parity_clips.rollout(recorded.raw_batch(), recorded.batch, recipe)
    expected = {name: x for name, x in recorded.expected.items() if name.startswith("eval.")}
    assert expected
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() <= 2e-4 * max(1.0, tensor.abs().max().item()), name


# Optimizers ----------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[type, dict[str, Any]]] = {
    "{type: adam, lr: 0.01, adam_beta1: 0.5, adam_beta2: 0.9}": (torch.optim.Adam, {"lr": 0.01, "betas": (0.5, 0.9)}),
    "{type: rmsprop, lr: 0.01, eps: 0.001}": (torch.optim.RMSprop, {"lr": 0.01, "eps": 0.001}),
    "{type: sgd, lr: 0.01, momentum: 0.9}": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "{type: madam, lr: 0.01, scale: 3.0}": (Madam, {"lr": 0.01, "scale": 3.0}),
}


def with_optimizers(trainer: Trainer, kind: type, options: dict[str, Any], case: str) -> tuple[dict, dict]:
    """An old checkpoint of a trainer's networks, and what their parameters are after one step more."""
    state: dict[str, Any] = {"current_epoch": 3, "current_iteration": 41}
    expected = {}
    for player, letter in NETWORKS.items():
        recorded = recorded_state(case, player)
        shuffled = dict(sorted(recorded.items(), key=lambda item: item[0][::-1]))
        names = parameters_of(trainer.players[player].network, shuffled)
        params, state[f"opt_{letter}"] = moved({name: shuffled[name] for name in names}, kind, **options)
        state[f"net_{letter}"] = wrapped({**shuffled, **params})
        expected[player] = moved({name: shuffled[name] for name in names}, kind, steps=3, **options)[0]
    return state, expected


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_learned_is_told_by_its_name(case: str) -> None:
    trainer = case_trainer(case)
    for player in NETWORKS:
        entries = recorded_state(case, player)
        network = trainer.players[player].network
        again = _list_second_names(network, names_of(network))
        assert list(_list_parameters(entries, again)) == parameters_of(network, entries)


def test_directions_of_weight_norms_are_learned_and_singular_vectors_are_not() -> None:
    layer = ["a.bias", "a.weight_g", "a.weight_v", "b.bias", "b.weight_orig", "b.weight_u", "b.weight_v"]
    others = ["c.weight", "c.running_mean", "c.running_var", "c.num_batches_tracked", "d.kernel", "e.cluster_12"]
    assert list(_list_parameters([*layer, *others])) == [*layer[:5], "c.weight"]


def updated(case: str, words: list[str]) -> Trainer:
    """A trainer after an update of each player with random gradients."""
    trainer = case_trainer(case, *words)
    rng = torch.Generator().manual_seed(0)
    for player in trainer.players.values():
        for parameter in player.params:
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        player.update()
    return trainer


def continue_from_old(case: str, words: list[str], folder: Path) -> None:
    """A trainer that begins with the old checkpoint of another one, after an update, is the same as that one."""
    first, second = updated(case, words), case_trainer(case, *words)
    begun(second, old_checkpoint(first.recipe, first.players, epoch=1, iteration=1), folder, resume=True)
    for name, player in first.players.items():
        assert same(player.state_dict(), second.players[name].state_dict()), name


@pytest.mark.parametrize("norm", ["none", "spectral", "weight"])
def test_a_run_with_any_weight_norm_is_continued(norm: str, tmp_path: Path) -> None:
    words = (f"gen.weight_norm_type={norm}", f"dis.weight_norm_type={norm}", f"{AVERAGE}true}}")
    continue_from_old("unit_a", [*words], tmp_path)


def test_a_run_whose_generator_uses_one_network_twice_is_continued(tmp_path: Path) -> None:
    """The old file holds the flow network under two names, and the state of its optimizer once."""
    gen = case_trainer("fs_vid2vid_face_a").recipe.networks["gen"]
    assert "flow_network_temp.conv_flow.weight" in gen.state_dict()
    assert "flow_network_temp.conv_flow.weight" not in dict(gen.named_parameters())
    continue_from_old("fs_vid2vid_face_a", [f"{AVERAGE}true}}"], tmp_path)


@pytest.mark.parametrize("case", CLIPS)
def test_a_converted_checkpoint_of_clips_holds_all_that_the_old_one_held(case: str, tmp_path: Path) -> None:
    """Weights, averages and the state of optimizers, bit for bit; the config is the old one, unchanged."""
    words = [f"{AVERAGE}true}}"]
    first, second, old, new = updated(case, words), case_trainer(case, *words), tmp_path / "old.pt", tmp_path / "new.pt"
    torch.save(old_checkpoint(first.recipe, first.players, epoch=3, iteration=41), old)
    done = convert(old, new, golden(case, "config.yaml"), overrides=words)
    assert (done.epoch, done.step) == (3, 41)
    checkpoint.restore(second, checkpoint.load(new), new)
    for name, player in first.players.items():
        assert same(player.state_dict(), second.players[name].state_dict()), name


@pytest.mark.parametrize("section", OPTIMIZERS)
@pytest.mark.parametrize("case", ["pix2pixHD_b", "unit_a"])
def test_the_next_step_is_that_of_the_old_optimizer(case: str, section: str, tmp_path: Path) -> None:
    words = (f"gen_opt={section}", f"dis_opt={section}", "trainer.model_average_config.enabled=false")
    trainer = case_trainer(case, *words)
    state, expected = with_optimizers(trainer, *OPTIMIZERS[section], case)
    assert begun(trainer, state, tmp_path, resume=True) == []
    assert (trainer.step, trainer.position.epoch, trainer.position.samples) == (41, 3, 0)
    for player, wanted in expected.items():
        rng = torch.Generator().manual_seed(3)
        for _ in range(3):  # the gradients of the third step
            gradients = {name: torch.randn(tensor.shape, generator=rng) for name, tensor in wanted.items()}
        tested = trainer.players[player]
        names = names_of(tested.network)
        for name, parameter in tested.network.named_parameters():
            parameter.grad = gradients[names[name]]
        tested.optimizer.step()
        for name, parameter in tested.network.named_parameters():
            torch.testing.assert_close(parameter.detach(), wanted[names[name]], rtol=1e-5, atol=1e-6)


def test_steps_as_numbers_and_steps_counted_for_all_weights_together_are_understood(tmp_path: Path) -> None:
    """Old versions of torch kept numbers; apex kept one number in the group."""
    section = next(iter(OPTIMIZERS))
    for kept in ("number", "group"):
        trainer = case_trainer("unit_a", f"gen_opt={section}", f"dis_opt={section}")
        state, _ = with_optimizers(trainer, *OPTIMIZERS[section], "unit_a")
        for letter in "GD":
            saved = state[f"opt_{letter}"]
            saved["state"] = {n: {**moments, "step": 2} for n, moments in saved["state"].items()}
            if kept == "group":
                saved["param_groups"][0]["step"] = 2
                for moments in saved["state"].values():
                    del moments["step"]
        begun(trainer, state, tmp_path, resume=True)
        optimizer = trainer.players["gen"].optimizer
        assert {float(moments["step"]) for moments in optimizer.state.values()} == {2.0}
        optimizer.param_groups[0]["params"][0].grad = torch.ones_like(optimizer.param_groups[0]["params"][0])
        optimizer.step()


def test_a_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a")
    state, _ = with_optimizers(trainer, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, "unit_a")
    with pytest.raises(UserError, match=r"opt_G: has no exp_avg of \S+; was it written by another optimizer than Adam"):
        begun(trainer, state, tmp_path, resume=True)
    begun(trainer, state, tmp_path, resume=False)


def test_a_state_about_another_number_of_weights_is_refused(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a")
    state, _ = with_optimizers(trainer, torch.optim.Adam, {"lr": 0.1}, "unit_a")
    state["opt_D"]["param_groups"][0]["params"].pop()
    with pytest.raises(UserError, match=r"opt_D: holds the state of \d+ weights, but its network has \d+"):
        begun(trainer, state, tmp_path, resume=True)


def test_without_state_of_optimizers_weights_begin_a_new_run(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a")
    state = {f"net_{NETWORKS[p]}": wrapped(recorded_state("unit_a", p)) for p in NETWORKS}
    said = begun(trainer, {**state, "current_iteration": 5}, tmp_path, resume=True)
    assert any("holds no optimizer state" in line for line in said)
    assert trainer.step == 0


# What does not fit ---------------------------------------------------------------------------------------------------


def misfit(case: str) -> dict:
    entries = recorded_state(case, "gen")
    key = next(name for name in entries if name.endswith(".bias"))
    return wrapped({("extra.thing" if name == key else name): tensor for name, tensor in entries.items()})


def test_unexpected_and_missing_keys_are_named(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a", "trainer.model_average_config.enabled=false")
    lost = next(name for name in recorded_state("unit_a", "gen") if name.endswith(".bias"))
    ours = {theirs: name for name, theirs in names_of(trainer.players["gen"].network).items()}[lost]
    lines = ["gen: unexpected keys extra.thing", f"gen: missing keys {ours}"]
    with pytest.raises(UserError) as error:
        begun(trainer, {"net_G": misfit("unit_a")}, tmp_path, resume=False)
    assert (error.value.where, error.value.code) == (str(tmp_path / "old.pt"), "checkpoint-mismatch")
    assert error.value.what.endswith("; ".join(lines))
    before = trainer.players["gen"].network.state_dict()[ours].clone()
    said = begun(trainer, {"net_G": misfit("unit_a")}, tmp_path, resume=False, strict=False)
    assert said == [f"old.pt: {line}" for line in ("has no player dis", *lines)]
    assert torch.equal(trainer.players["gen"].network.state_dict()[ours], before)


def test_many_names_are_told_by_what_they_have_in_common() -> None:
    names = [f"a.b{i % 3}.c.weight{i}" for i in range(30)] + ["usb"]
    assert summarize_names(names) == "a.b0.c.* (10), a.b1.c.* (10), a.b2.c.* (10), usb"
    assert summarize_names(names[:3]) == ", ".join(names[:3])
    assert summarize_names(["v", "w", "x", "y", "z"]) == "v, w, x, y, and 1 more"


def test_another_shape_is_an_error_unless_what_fits_is_asked_for(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a", "trainer.model_average_config.enabled=false")
    entries = recorded_state("unit_a", "gen")
    key = next(name for name in entries if name.endswith(".bias"))
    with pytest.raises(UserError, match=r"gen: size mismatch for \S+: \[99\] in the file, \[\d+\] here"):
        begun(trainer, {"net_G": wrapped({**entries, key: torch.zeros(99)})}, tmp_path, resume=False)
    begun(trainer, {"net_G": wrapped({**entries, key: torch.full((99,), 7.0)})}, tmp_path, resume=False, strict=False)
    ours = {theirs: name for name, theirs in names_of(trainer.players["gen"].network).items()}[key]
    assert (trainer.players["gen"].network.state_dict()[ours] == 7).all()


def test_a_network_that_the_reference_did_not_know_is_told(tmp_path: Path) -> None:
    trainer = case_trainer("unit_a", "trainer.model_average_config.enabled=false")
    trainer.recipe.gen = trainer.players["gen"].network = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"gen: was written by the reference, which had no torch\.nn\.\S+Linear"):
        begun(trainer, {"net_G": wrapped(recorded_state("unit_a", "gen"))}, tmp_path, resume=False)


def test_an_old_file_never_runs_code_and_says_what_it_would_need(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"net_G": OrderedDict(a=torch.ones(1)), "best_fid": np.float64(3)}, path)
    with pytest.raises(UserError, match=r"holds a numpy\S+, but only tensors, numbers and text are read") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_files_of_torch_before_its_zip_format_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"net_G": OrderedDict(a=torch.ones(2))}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(checkpoint.load(path)["net_G"]["a"], torch.ones(2))
    path.write_bytes(pickle.dumps({"net_G": {}}, protocol=2))
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(path)


# From coarse to fine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_a_coarser_generators_checkpoint_begins_a_finer_one(average: bool, ours: bool, tmp_path: Path) -> None:
    averaging = f"{AVERAGE}true}}"
    coarse = case_trainer("pix2pixHD_a", "gen.local_enhancer.num_enhancers=0", averaging if average else "max_iter=1")
    fine = case_trainer("pix2pixHD_a", averaging)
    state = old_checkpoint(coarse.recipe, coarse.players, epoch=4, iteration=40)
    if ours:
        checkpoint.write(tmp_path / "ours.pt", coarse, {})
        state = checkpoint.load(tmp_path / "ours.pt")
    (line,) = begun(fine, state, tmp_path, resume=False)
    assert "newly initialized" in line
    assert "enhancers.0" in line
    known, found = coarse.recipe.networks["gen"].state_dict(), fine.recipe.networks["gen"].state_dict()
    shared = [name for name in known if name in found and known[name].shape == found[name].shape]
    assert len(shared) > 10
    assert all(torch.equal(known[name], found[name]) for name in shared)
    kept = fine.players["gen"].average
    assert kept is not None
    bias = next(name for name in shared if name.endswith("bias"))
    assert torch.equal(kept.network.state_dict()[bias], found[bias])
    with pytest.raises(UserError) as error:
        begun(fine, state, tmp_path, resume=True)
    assert error.value.code == "checkpoint-mismatch"


def test_weights_of_which_nothing_fits_are_an_error_also_where_networks_grow(tmp_path: Path) -> None:
    fine = case_trainer("pix2pixHD_a", "trainer.model_average_config.enabled=false")
    with pytest.raises(UserError, match="gen: unexpected keys x"):
        begun(fine, {"net_G": wrapped({"x": torch.ones(1)})}, tmp_path, resume=False)


# The command line ----------------------------------------------------------------------------------------------------

EPOCH = 5
"""Iterations of an epoch of the tiny experiment."""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny.write_config(folder / "tiny.yaml", tiny.write_data(folder / "data"))
    run("train", config, "--logdir", folder / "first", f"max_iter={EPOCH}")
    trainer = trainer_of(config_of(config))
    path = find_latest(folder / "first")
    assert path is not None
    checkpoint.restore(trainer, checkpoint.load(path), path)
    (folder / "old").mkdir()
    old = folder / "old" / path.name
    torch.save(old_checkpoint(trainer.recipe, trainer.players, epoch=1, iteration=EPOCH), old)
    (folder / "old" / "latest_checkpoint.txt").write_text(f"latest_checkpoint: {old.name}\n")
    return config


def run(command: str, config: Path, *words: object) -> None:
    assert (
        main([command, *map(str, words), "--config", str(config), *(["--device", "cpu"] * (command != "convert"))]) == 0
    )


def last(logdir: Path) -> dict:
    path = find_latest(logdir)
    assert path is not None
    return checkpoint.load(path)


def same(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(torch.as_tensor(one), torch.as_tensor(other)) if one is not None else other is None


@pytest.fixture(scope="module")
def longer(experiment: Path) -> Path:
    """The folder of a run that was never in the reference's format."""
    logdir = experiment.parent / "longer"
    run("train", experiment, "--logdir", logdir, f"max_iter={EPOCH + 2}")
    return logdir


def test_a_log_folder_of_the_reference_is_continued_bit_for_bit(experiment: Path, longer: Path) -> None:
    run("train", experiment, "--logdir", experiment.parent / "old", f"max_iter={EPOCH + 2}")
    one, other = last(longer), last(experiment.parent / "old")
    assert same(one["players"], other["players"])
    assert other["current_iteration"] == EPOCH + 2


def test_a_converted_checkpoint_is_continued_bit_for_bit(
    experiment: Path, longer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = next((experiment.parent / "old").glob(f"*_{EPOCH:09d}_checkpoint.pt"))
    run("convert", experiment, old, tmp_path / "new.pt")
    assert f"epoch 1, iteration {EPOCH}" in capsys.readouterr().out
    words = ("--checkpoint", tmp_path / "new.pt", "--resume", 1, f"max_iter={EPOCH + 2}")
    run("train", experiment, "--logdir", tmp_path / "run", *words)
    assert same(last(longer)["players"], last(tmp_path / "run")["players"])


def test_converting_what_is_ours_is_refused(
    experiment: Path, longer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = find_latest(longer)
    assert main(["convert", str(path), str(tmp_path / "new.pt"), "--config", str(experiment)]) == 2
    assert "is a checkpoint of ours already" in capsys.readouterr().err
    assert not (tmp_path / "new.pt").exists()


def test_old_weights_paint_what_ours_paint(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by --checkpoint, and found as the download of `pretrained_weight`; the average's statistics as stored."""
    old = next((experiment.parent / "old").glob(f"*_{EPOCH:09d}_checkpoint.pt"))
    ours = next((experiment.parent / "first").glob("*.pt"))
    state = checkpoint.load(ours)
    state["extras"]["batch_norm"] = {}
    torch.save(state, tmp_path / "ours.pt")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(experiment.parent)
    downloaded = tmp_path / "checkpoints" / "tiny-abc.pt"
    downloaded.parent.mkdir()
    downloaded.write_bytes(old.read_bytes())
    run("infer", experiment, "--checkpoint", tmp_path / "ours.pt", "--output_dir", tmp_path / "a")
    run("infer", experiment, "--checkpoint", old, "--output_dir", tmp_path / "b")
    run("infer", Path("tiny.yaml"), "--output_dir", tmp_path / "c", "pretrained_weight=abc")
    images = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert images
    for name in images:
        assert len({(tmp_path / folder / name).read_bytes() for folder in "abc"}) == 1
