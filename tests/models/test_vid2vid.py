"""vid2vid beyond the recorded numbers: clips of time, raw frames, blending, flow of the data, mistakes of the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.losses.clips import LossWeights
from imagier.losses.flow import masked_l1
from imagier.models.vid2vid import Discriminator, Generator, Recipe
from imagier.nn.clip_discriminator import CropParams, PatchParams, TemporalParams, pick_clip
from imagier.nn.flow_network import CombineParams, FlowParams
from imagier.nn.frame_generator import MultiSpadeParams
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Losses, StepContext

SIZE = (64, 32)
SMALL = EmbedParams(num_filters=2, max_num_filters=4, num_downsamples=2)
PATCH = {"num_filters": 2, "max_num_filters": 4, "num_discriminators": 1, "num_layers": 1}


SYNCHRONIZED = CropParams(crop_func="hand", activation_norm_type="sync_batch", **PATCH)


def small_generator(*, combine: bool = True, raw: bool = False, **changes: Any) -> Generator:
    torch.manual_seed(0)
    flow = FlowParams(
        num_filters=2,
        max_num_filters=4,
        num_downsamples=2,
        num_res_blocks=1,
        flow_output_multiplier=2.0,
        activation_norm_type="instance",
        multi_spade_combine=CombineParams(num_layers=2, embed=SMALL) if combine else None,
        generate_raw_output=raw,
    )
    options: dict[str, Any] = {"num_frames": 3, "num_layers": 3, "num_downsamples_img": 1, "num_filters": 2}
    options |= {"max_num_filters": 4, "use_segmap_as_input": True, "embed": SMALL, "flow": flow}
    options |= {"activation_norm_params": MultiSpadeParams(activation_norm_type="instance")}
    return Generator(label_channels=7, image_channels=3, crop_h_w=SIZE, **(options | changes))


def small_discriminator(**changes: Any) -> Discriminator:
    torch.manual_seed(1)
    options: dict[str, Any] = {"num_frames": 2, "image": PatchParams(**PATCH)}
    return Discriminator(label_channels=7, image_channels=3, **(options | changes))


def named_discriminator(name: str) -> Discriminator:
    """With one of parts of that name."""
    others = {name: CropParams(crop_func="face", **PATCH)}
    return small_discriminator(additional_discriminators=others, temporal=TemporalParams(**PATCH))


def small_recipe(gen: Generator | None = None, dis: Discriminator | None = None, **changes: Any) -> Recipe:
    weights = {"gan": 1.0, "feature_matching": 10.0, "flow": 10.0} | changes.pop("weights", {})
    return Recipe(
        gen=gen or small_generator(),
        dis=dis or small_discriminator(),
        label_lengths=changes.pop("label_lengths", {"poses-openpose": 7}),
        loss_weight=LossWeights(**weights),
        **changes,
    )


def clip_of(frames: int, samples: int = 2, **others: Tensor) -> Batch:
    rng = torch.Generator().manual_seed(0)
    label = (torch.rand(samples, frames, 7, *SIZE, generator=rng) > 0.5).float()
    images = torch.rand(samples, frames, 3, *SIZE, generator=rng) * 2 - 1
    return Batch({"images": images, "label": label, **others})


def rolled_out(recipe: Recipe, batch: Batch) -> list[dict[str, Tensor]]:
    return [outputs for outputs, _ in recipe.rollout(batch.frames(), torch.Generator())]


def phases(recipe: Recipe, batch: Batch) -> Iterator[tuple[str, Losses]]:
    recipe.train()
    return recipe.step(batch, StepContext(0, 0, torch.Generator().manual_seed(0)))


def of_player(recipe: Recipe, batch: Batch, player: str) -> list[Losses]:
    return [losses for name, losses in phases(recipe, batch) if name == player]


def test_clips_of_each_scale_end_now_and_look_back_further() -> None:
    """As in the reference: with 3 frames, scale 0 begins with frame 2, scale 1 with frame 6 (frames 0, 3 and 6)."""
    frames = [torch.full((1, 1, 1, 1), float(t)) for t in range(8)]

    def seen(now: int, scale: int) -> list[float] | None:
        clip = pick_clip(frames[: now + 1], 3, scale)
        return None if clip is None else clip.flatten().tolist()

    assert [seen(now, 0) for now in (1, 2, 7)] == [None, [0, 1, 2], [5, 6, 7]]
    assert [seen(now, 1) for now in (5, 6, 7)] == [None, [0, 3, 6], [1, 4, 7]]
    assert small_discriminator(num_frames=3, temporal=TemporalParams(num_scales=2, **PATCH)).memory == 6


def test_losses_of_clips_are_0_until_they_are_long_enough() -> None:
    dis = small_discriminator(temporal=TemporalParams(num_scales=2, **PATCH))
    recipe = small_recipe(dis=dis, weights={"temporal_gan": 2.0})
    found = of_player(recipe, clip_of(4), "dis")
    assert [losses["GAN_T0/fake"].item() > 0 for losses in found] == [False, True, True, True]
    assert [losses["GAN_T1/fake"].item() > 0 for losses in found] == [False, False, True, True]
    assert recipe.loss_weight["GAN_T0"] == 2 and recipe.loss_weight["FeatureMatching_T1"] == 10
    assert "GAN_T0/fake" not in of_player(recipe, clip_of(1), "dis")[0]
    silent = small_recipe(dis=dis, weights={"temporal_gan": 0.0})
    assert not any("T0" in name for losses in of_player(silent, clip_of(2), "gen") for name in losses)


def test_the_discriminator_of_clips_sees_generated_frames_in_the_order_in_which_they_were_made() -> None:
    dis = small_discriminator(temporal=TemporalParams(**PATCH))
    recipe = small_recipe(dis=dis, weights={"temporal_gan": 1.0})
    seen: list[Tensor] = []
    dis.temporal[0].register_forward_hook(lambda network, inputs, outputs: seen.append(inputs[0].detach()))
    made: list[Tensor] = []
    recipe.gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs["fake_images"].detach()))
    batch = clip_of(3)
    list(phases(recipe, batch))
    real, fake = seen[0::2], seen[1::2]  # of frames 1 and 2, each for both players
    assert torch.equal(real[2], batch["images"][:, 1:3].flatten(1, 2))
    assert torch.equal(fake[2], torch.cat(made[1:3], dim=1))


def test_gradients_reach_the_generator_through_the_current_frame_alone() -> None:
    recipe = small_recipe()
    images: list[Tensor] = []
    recipe.gen.register_forward_hook(lambda network, inputs, outputs: images.append(outputs["fake_images"]))
    for number, (player, losses) in enumerate(phases(recipe, clip_of(2))):
        if player == "gen" and number == 3:
            (through,) = torch.autograd.grad(recipe.total(losses), images[0], allow_unused=True)
            assert through is None


def test_flow_begins_when_enough_frames_were_made_and_the_encoder_before_it() -> None:
    gen = small_generator().eval()
    recipe = small_recipe(gen)
    with torch.no_grad():
        keys = [set(outputs) for outputs in rolled_out(recipe, clip_of(4))]
    moved = {"fake_images", "fake_flow_maps", "fake_occlusion_masks", "warped_images"}
    assert keys == [{"fake_images"}, {"fake_images"}, moved, moved]


def test_a_raw_frame_is_the_frame_itself_where_nothing_is_warped_and_another_where_it_is() -> None:
    gen = small_generator(raw=True).eval()
    with torch.no_grad():
        made = rolled_out(small_recipe(gen), clip_of(3))
    assert all(torch.equal(outputs["fake_raw_images"], outputs["fake_images"]) for outputs in made[:2])
    assert not torch.allclose(made[2]["fake_raw_images"], made[2]["fake_images"])


def test_a_raw_frame_is_what_the_frame_would_be_without_the_warped_one() -> None:
    gen = small_generator(raw=True).eval()
    seen = clip_of(3)["label"], clip_of(3)["images"]
    inputs = seen[0][:, 2], seen[0][:, :2], seen[1][:, :2]
    with torch.no_grad():
        combined = gen(*inputs)
        for name, parameter in gen.named_parameters():
            if ".of_map.1." in name:  # scale and shift by the warped frame
                parameter.zero_()
        without = gen(*inputs)
    assert torch.equal(combined["fake_raw_images"], without["fake_raw_images"])
    assert torch.equal(without["fake_raw_images"], without["fake_images"])
    assert not torch.allclose(combined["fake_raw_images"], combined["fake_images"])


def test_raw_frames_are_judged_and_count_in_the_losses_of_images() -> None:
    """Where raw and generated frames are the same, they count twice."""
    plain, raw = (small_recipe(small_generator(raw=has_raw)) for has_raw in (False, True))
    for recipe in (plain, raw):
        for network in recipe.networks.values():  # no power iteration may come between
            network.eval()
    raw.gen.load_state_dict(plain.gen.state_dict())
    batch = clip_of(1)
    once, twice = (
        {k: v for _, of in r.step(batch, StepContext(0, 0, torch.Generator())) for k, v in of.items()}
        for r in (plain, raw)
    )
    for name in ("gan/fake", "gan/true", "gan", "feature_matching"):
        assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-5), name


def test_without_combination_the_mask_blends_painted_and_warped() -> None:
    gen = small_generator(combine=False).eval()
    with torch.no_grad():
        made = rolled_out(small_recipe(gen), clip_of(3))[-1]
    mask = made["fake_occlusion_masks"]
    assert torch.allclose(
        made["fake_images"], torch.lerp(made["warped_images"], made["fake_raw_images"], mask), atol=1e-6
    )


def test_without_combination_old_checkpoints_hold_weights_for_a_warped_frame_all_the_same() -> None:
    gen = small_generator(combine=False)
    names = reference_names(gen.state_dict(), gen.reference_rules()).values()
    assert "up_0.conv_block_0.layers.norm.mlps.1.0.layers.conv.weight" in names
    learning = [name for name, parameter in gen.named_parameters() if parameter.requires_grad]
    assert not any("of_map.1" in name for name in learning)


def test_flow_of_the_data_is_taken_and_nobody_is_asked_for_it() -> None:
    recipe = small_recipe()

    def ask(frames: Tensor, before: Tensor) -> Tensor:
        raise AssertionError("the data have it")

    recipe.estimate_flow = ask
    flow = torch.full((2, 3, 2, *SIZE), 5.0)
    sure = torch.zeros(2, 3, 1, *SIZE)
    sure[..., :8] = 1
    made: list[dict[str, Tensor]] = []
    recipe.gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs))
    losses = of_player(recipe, clip_of(3, flow=flow, flow_confidence=sure), "gen")[-1]
    expected = masked_l1(made[-1]["fake_flow_maps"], flow[:, -1], sure[:, -1])
    assert losses["flow/l1"].item() == pytest.approx(expected.item(), rel=1e-6) and expected > 0


def test_a_confidence_without_a_flow_says_nothing_of_the_flow_that_is_asked_for() -> None:
    recipe = small_recipe()
    recipe.estimate_flow = lambda frames, before: torch.zeros_like(frames[:, :2])
    for network in recipe.networks.values():
        network.eval()
    sure = torch.ones(2, 3, 1, *SIZE)
    plain, given = (
        list(recipe.step(batch, StepContext(0, 0, torch.Generator())))[-1][1]["flow/l1"]
        for batch in (clip_of(3), clip_of(3, flow_confidence=sure))
    )
    assert torch.equal(plain, given)


def test_flow_counts_near_people_alone_if_the_label_shows_them() -> None:
    flow, sure = torch.full((2, 3, 2, *SIZE), 5.0), torch.ones(2, 3, 1, *SIZE)
    batch = clip_of(3, flow=flow, flow_confidence=sure)
    nobody = batch["label"].clone()
    nobody[:, :, 2] = -1
    recipe = small_recipe(has_foreground=True)
    assert of_player(recipe, batch.replace(label=nobody), "gen")[-1]["flow/l1"] == 0
    assert of_player(recipe, batch, "gen")[-1]["flow/l1"] > 0


@pytest.mark.parametrize("has_hands", [True, False])
def test_a_discriminator_of_hands_counts_where_there_are_hands(has_hands: bool) -> None:
    dis = small_discriminator(
        additional_discriminators={"hand": CropParams(crop_func="hand", loss_weight=3.0, **PATCH)}
    )
    recipe = small_recipe(dis=dis)
    batch = clip_of(1)
    label = batch["label"].clone()
    label[:, :, -3:-1] = 0
    label[1, :, -3, 30:34, 10:14] = float(has_hands)
    (losses,) = of_player(recipe, batch.replace(label=label), "dis")
    assert bool(losses["GAN_hand/fake"] > 0) is has_hands
    assert recipe.loss_weight["GAN_hand"] == 3
    assert recipe.total(losses).item() == pytest.approx(
        sum((3 if "hand" in name else 1) * value.item() for name, value in losses.items())
    )


def test_densepose_is_normalized_once_and_parts_are_dropped_in_training_alone() -> None:
    gen = small_generator(pose_type="both")
    recipe = small_recipe(gen, label_lengths={"pose_maps-densepose": 3, "poses-openpose": 4}, random_drop_prob=1.0)
    batch = clip_of(1)
    label = batch["label"].clone()
    label[:, :, 2] = 12 / 255
    batch = batch.replace(label=label)
    assert recipe.prepare(batch)["label"][:, :, 2].unique().tolist() == pytest.approx([0.0], abs=1e-5)
    seen: list[Tensor] = []
    gen.register_forward_hook(lambda network, inputs, outputs: seen.append(inputs[0]))
    list(phases(recipe, batch))
    assert seen[0][:, 2].unique().tolist() == [-1.0]
    assert batch["label"][0, 0, 2, 0, 0] == pytest.approx(12 / 255)


def test_a_code_of_zeros_starts_all_first_frames_alike() -> None:
    gen = small_generator(use_segmap_as_input=False, style_dims=5).eval()
    started = gen.start(torch.rand(2, 7, *SIZE))
    assert started.shape == (2, 4, 8, 4) and torch.equal(started[0], started[1])
    assert torch.equal(started[0].flatten(), gen.start.fc.bias)  # type: ignore[union-attr]


def test_a_generator_without_densepose_is_built_for_the_other_channels() -> None:
    gen = small_generator(pose_type="open").eval()
    label = torch.rand(1, 7, *SIZE)
    other = label.clone()
    other[:, :3] = 0
    with torch.no_grad():
        assert torch.equal(gen(label)["fake_images"], gen(other)["fake_images"])


def test_one_forward_of_the_generator_per_frame_serves_both_or_each_has_its_own() -> None:
    for reuse, expected in ((True, 3), (False, 6)):
        recipe = small_recipe(reuse_gen_output=reuse)
        calls: list[bool] = []
        recipe.gen.register_forward_hook(lambda network, inputs, outputs, to=calls: to.append(torch.is_grad_enabled()))
        list(phases(recipe, clip_of(3)))
        assert len(calls) == expected and calls.count(True) == 3


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: small_generator(num_downsamples_img=4), "wrong-depth"),
        (lambda: small_generator(num_layers=6, num_downsamples_img=2), "image-too-small"),
        (lambda: named_discriminator("image"), "name-taken"),
        (lambda: named_discriminator("T0"), "name-taken"),
        (lambda: named_discriminator("left.hand"), "name-taken"),
        (lambda: named_discriminator("keys"), "name-taken"),
        (lambda: small_discriminator(additional_discriminators={"hand": SYNCHRONIZED}), "not-supported"),
        (lambda: small_recipe(weights={"gan": 0.0}), "no-loss-weight"),
    ],
    ids=["depth", "size", "name of another", "name of clips", "name with a dot", "name of a method", "norm", "weight"],
)
def test_networks_that_cannot_be_are_the_users_mistake(make: Any, code: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert caught.value.code == code


@pytest.mark.parametrize("size", [(60, 32), (64, 64)])
def test_frames_that_are_not_of_the_generators_size_are_the_users_mistake(size: tuple[int, int]) -> None:
    label, images = torch.zeros(1, 1, 7, *size), torch.zeros(1, 1, 3, *size)
    with pytest.raises(UserError) as caught:
        list(phases(small_recipe(), Batch({"images": images, "label": label})))
    assert caught.value.code == "image-size"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"image": PatchParams(**PATCH | {"num_layers": 6})}, "dis.image"),
        ({"temporal": TemporalParams(**PATCH | {"num_layers": 6})}, "dis.temporal"),
        (
            {"additional_discriminators": {"left": CropParams(crop_func="face", **PATCH | {"num_layers": 4})}},
            "dis.additional_discriminators.left",
        ),
    ],
    ids=["images", "clips", "parts"],
)
def test_discriminators_too_deep_for_what_they_see_are_the_users_mistake(changes: dict[str, Any], where: str) -> None:
    recipe = small_recipe(dis=small_discriminator(**changes), weights={"temporal_gan": 1.0})
    with pytest.raises(UserError) as caught:
        list(phases(recipe, clip_of(2)))
    assert (caught.value.code, caught.value.where) == ("image-too-small", where)


@pytest.mark.parametrize("split", [1, 2, 3, 5])
def test_a_rollout_goes_on_from_its_state_as_if_it_had_never_stopped(split: int) -> None:
    recipe, batch = small_recipe(small_generator(raw=True).eval()), clip_of(6)
    frames, rng = batch.frames(), torch.Generator()
    with torch.no_grad():
        whole = rolled_out(recipe, batch)
        state = list(recipe.rollout(frames[:split], rng))[-1][1]
        rest = [outputs for outputs, _ in recipe.rollout(frames[split:], rng, state)]
    for outputs, again in zip(whole[split:], rest, strict=True):
        assert outputs.keys() == again.keys()
        assert all(torch.equal(outputs[name], again[name]) for name in outputs)


def test_a_rollout_sees_the_frames_that_the_step_saw() -> None:
    """In eval mode, where no power iteration comes between, and without updates."""
    gen = small_generator().eval()
    recipe, batch = small_recipe(gen), clip_of(4)
    made: list[Tensor] = []
    hook = gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs["fake_images"].detach()))
    list(recipe.step(batch, StepContext(0, 0, torch.Generator())))
    hook.remove()
    with torch.no_grad():
        outputs = rolled_out(recipe, batch)
    assert all(torch.equal(step, each["fake_images"]) for step, each in zip(made, outputs, strict=True))
