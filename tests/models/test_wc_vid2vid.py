"""World-consistent vid2vid beyond the recorded numbers: colors of points, where they guide, rollouts, mistakes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.models import spade
from imagier.models.vid2vid import Discriminator
from imagier.models.wc_vid2vid import Generator, LossWeights, Recipe
from imagier.nn.average import ModelAverage, reestimate_batch_norm
from imagier.nn.clip_discriminator import PatchParams, TemporalParams
from imagier.nn.flow_network import CombineParams, FlowParams
from imagier.nn.frame_generator import GuidanceParams, MultiSpadeParams
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.pretrained import Pretrained, PretrainedParams
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, StepContext

SIZE = (64, 32)
SMALL = EmbedParams(num_filters=2, max_num_filters=4, num_downsamples=2)
PATCH = {"num_filters": 2, "max_num_filters": 4, "num_discriminators": 1, "num_layers": 1}
GUIDANCE = "guidance_images_and_masks"


def open_small(params: PretrainedParams) -> Pretrained:
    """A generator of SPADE; loading changes its output."""
    network = spade.Generator(
        label_channels=7,
        image_channels=3,
        crop_h_w=SIZE,
        num_filters=1,
        style_dims=4,
        weight_norm_type="none",
        activation_norm_params=spade.SpadeNormParams(num_filters=2),
        style_enc=spade.StyleEncoderParams(num_filters=1),
    )

    def load(network: torch.nn.Module) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1)

    return Pretrained(network, params.config, load)


def small_generator(
    *,
    combine: bool = True,
    raw: bool = False,
    widths: Any = 0,
    alone: str = "",
    image_channels: int = 3,
    **guidance: Any,
) -> Generator:
    torch.manual_seed(0)
    flow = FlowParams(
        num_filters=2,
        max_num_filters=4,
        num_downsamples=2,
        num_res_blocks=1,
        flow_output_multiplier=2.0,
        activation_norm_type="instance",
        multi_spade_combine=CombineParams(num_layers=1, embed=SMALL) if combine else None,
        generate_raw_output=raw,
    )
    return Generator(
        label_channels=7,
        image_channels=image_channels,
        crop_h_w=SIZE,
        guidance=GuidanceParams(**guidance),
        num_layers=3,
        num_downsamples_img=1,
        num_filters=2,
        max_num_filters=4,
        use_segmap_as_input=True,
        embed=SMALL,
        flow=flow,
        activation_norm_params=MultiSpadeParams(activation_norm_type="instance", num_filters=widths),
        single_image_model=PretrainedParams(config=alone) if alone else None,
        open_pretrained=open_small,
    )


def small_recipe(gen: Generator | None = None, **changes: Any) -> Recipe:
    torch.manual_seed(1)
    dis = Discriminator(
        label_channels=7,
        image_channels=3,
        num_frames=2,
        image=PatchParams(**PATCH),
        temporal=TemporalParams(**PATCH),
    )
    weights = {"gan": 1.0, "feature_matching": 10.0, "flow": 10.0, "guidance": 10.0, "temporal_gan": 1.0}
    weights |= changes.pop("weights", {})
    return Recipe(
        gen=gen or small_generator(),
        dis=dis,
        label_lengths={"seg_maps": 7},
        loss_weight=LossWeights(**weights),
        **changes,
    )


def clip_of(frames: int, samples: int = 2) -> Batch:
    """Of points of which each is seen in many frames, and some pixels without."""
    rng = torch.Generator().manual_seed(0)
    label = (torch.rand(samples, frames, 7, *SIZE, generator=rng) > 0.5).float()
    images = torch.rand(samples, frames, 3, *SIZE, generator=rng) * 2 - 1
    points = torch.randint(0, 3000, (samples, frames, 1, *SIZE), generator=rng)
    return Batch({"images": images, "label": label, "unprojections": points})


def rolled_out(recipe: Recipe, batch: Batch) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        return [outputs for outputs, _ in recipe.rollout(batch.frames(), torch.Generator())]


def stepped(recipe: Recipe, batch: Batch) -> list[dict[str, Tensor]]:
    """What the generator gives out in a step, in eval mode and without updates."""
    made: list[dict[str, Tensor]] = []
    hook = recipe.gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs))
    list(recipe.step(batch, StepContext(0, 0, torch.Generator())))
    hook.remove()
    return made


@pytest.mark.parametrize("split", [1, 2, 3, 5])
def test_a_rollout_goes_on_from_its_state_as_if_it_had_never_stopped(split: int) -> None:
    recipe, batch = small_recipe(small_generator().eval()), clip_of(6)
    frames, rng = batch.frames(), torch.Generator()
    whole = rolled_out(recipe, batch)
    with torch.no_grad():
        state = list(recipe.rollout(frames[:split], rng))[-1][1]
        rest = [outputs for outputs, _ in recipe.rollout(frames[split:], rng, state)]
    for outputs, again in zip(whole[split:], rest, strict=True):
        assert outputs.keys() == again.keys()
        assert all(torch.equal(outputs[name], again[name]) for name in outputs)


@pytest.mark.parametrize("reuse", [True, False])
def test_a_rollout_sees_the_frames_that_the_step_saw(reuse: bool) -> None:
    """Also where each player has a forward of its own: neither sees colors of the frame itself."""
    gen = small_generator().eval()
    recipe, batch = small_recipe(gen, reuse_gen_output=reuse), clip_of(4)
    made = stepped(recipe, batch)
    expected = rolled_out(recipe, batch)
    for index, outputs in enumerate(made):
        assert torch.equal(outputs["fake_images"], expected[index if reuse else index // 2]["fake_images"])


def test_samples_of_a_batch_do_not_share_their_points() -> None:
    recipe, batch = small_recipe(small_generator().eval()), clip_of(4)
    together = rolled_out(recipe, batch)
    for sample, alone in enumerate(batch.split(2)):
        for outputs, expected in zip(together, rolled_out(recipe, alone)):
            assert torch.equal(outputs[GUIDANCE][sample], expected[GUIDANCE][0])


def test_a_place_seen_before_is_shown_in_its_first_color_and_a_mirrored_clip_mirrored() -> None:
    recipe, batch = small_recipe(small_generator().eval()), clip_of(3, samples=1)
    first = batch["unprojections"][:, :1].expand(-1, 3, -1, -1, -1)
    batch = batch.replace(unprojections=first)
    made = rolled_out(recipe, batch)
    seen = first[0, 0, 0] > 0
    assert not made[0][GUIDANCE][:, 3].any() and torch.equal(made[1][GUIDANCE], made[2][GUIDANCE])
    assert torch.equal(made[2][GUIDANCE][0, 3] > 0, seen)
    difference = (made[2][GUIDANCE][0, :3] - made[0]["fake_images"][0]).abs().amax(dim=0)
    once = torch.tensor([(first[0, 0, 0] == point).sum() == 1 for point in first[0, 0, 0].flatten()]).view(SIZE)
    assert difference[seen & once].max() <= 2 / 255 + 1e-6 and (seen & once).sum() > 500


def test_frames_are_guided_once_there_is_flow_and_not_before_the_first_that_is_wanted() -> None:
    batch = clip_of(4)
    plain, late, without = (
        rolled_out(small_recipe(small_generator(start_from=start).eval()), clip)
        for start, clip in ((0, batch), (2, batch), (0, Batch({k: batch[k] for k in ("images", "label")})))
    )
    assert [GUIDANCE in outputs for outputs in late] == [False, False, True, True]
    assert not late[2][GUIDANCE][:, 3].any(), "the first frame that colors points has none yet"
    changed = [not torch.equal(a["fake_images"], b["fake_images"]) for a, b in zip(plain, without)]
    assert changed == [False, False, True, True]
    assert not any(GUIDANCE in outputs for outputs in without)


def test_with_partial_convolutions_unknown_pixels_guide_nothing() -> None:
    """The norms leave them as they are, so a frame without any color is as one without guidance."""
    batch = clip_of(3)
    unknown = batch.replace(unprojections=torch.zeros_like(batch["unprojections"]))
    nothing = Batch({name: batch[name] for name in ("images", "label")})
    for is_partial in (True, False):
        recipe = small_recipe(small_generator(partial_conv=is_partial).eval())
        a, b = (rolled_out(recipe, clip)[-1]["fake_images"] for clip in (unknown, nothing))
        assert torch.equal(a, b) is is_partial


@pytest.mark.parametrize(
    ("options", "deep", "channels"),
    [
        ({}, True, 4),
        ({"partial_conv": True}, True, 3),
        ({"only_with_flow": True}, False, 4),
        ({"widths": [0, 0, 5]}, True, 4),
    ],
    ids=str,
)
def test_weights_are_where_old_checkpoints_have_them(options: dict[str, Any], deep: bool, channels: int) -> None:
    """Section 2 of the description: label, warped frame and guidance in level 0; else label and, at most, guidance."""
    gen = small_generator(**options)
    state, names = gen.state_dict(), reference_names(gen.state_dict(), gen.reference_rules())
    found = {names[name]: tuple(tensor.shape[1:]) for name, tensor in state.items()}
    norm = "conv_block_0.layers.norm.mlps"
    assert found[f"up_0.{norm}.2.0.layers.conv.weight"][0] == channels
    assert (f"up_0.{norm}.2.1.layers.conv.weight" in found) == ("widths" in options)
    for block in ("up_1", "up_3", "down_1", "res_0"):
        guide = found.get(f"{block}.{norm}.1.0.layers.conv.weight")
        assert (guide is not None and guide[0] == channels) is deep
        assert f"{block}.{norm}.2.0.layers.conv.weight" not in found


def test_only_weights_that_are_used_learn() -> None:
    recipe = small_recipe()
    recipe.train()
    used = set()
    for player, losses in recipe.step(clip_of(3, samples=1), StepContext(0, 0, torch.Generator())):
        if player == "gen":
            recipe.gen.zero_grad(set_to_none=True)
            recipe.total(losses).backward()
            used |= {name for name, parameter in recipe.gen.named_parameters() if parameter.grad is not None}
    learning = {name for name, parameter in recipe.gen.named_parameters() if parameter.requires_grad}
    assert used == learning and any(".of_map.2." in name for name in learning)
    assert any(name.startswith("up.1.") and ".of_map.1." in name for name in learning)
    assert not any(name.startswith(("up.2.", "down.", "res.")) and ".of_map.1." in name for name in learning)


def test_the_loss_is_the_mean_difference_of_pixels_with_a_color() -> None:
    recipe, batch = small_recipe(small_generator().eval()), clip_of(2)
    made = stepped(recipe, batch)
    losses = [of for player, of in recipe.step(batch, StepContext(0, 0, torch.Generator())) if player == "gen"]
    assert losses[0]["guidance"] == 0
    guidance, images = made[1][GUIDANCE], made[1]["fake_images"]
    known = guidance[:, 3] > 0
    expected = (images - guidance[:, :3]).abs().movedim(1, -1)[known].mean()
    assert losses[1]["guidance"].item() == pytest.approx(expected.item(), rel=1e-4) and known.any()
    silent = small_recipe(weights={"guidance": 0.0})
    assert "guidance" not in next(of for player, of in silent.step(batch, StepContext(0, 0, torch.Generator())))


def test_a_single_image_model_makes_the_frames_before_there_is_flow_and_does_not_learn() -> None:
    recipe = small_recipe(small_generator(alone="spade"))
    recipe.train()
    assert recipe.gen.single_image_model is not None
    model = recipe.gen.single_image_model.network
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    painted: list[Tensor] = []
    model.register_forward_hook(lambda network, inputs, outputs: painted.append(outputs["fake_images"]))
    batch = clip_of(4)
    batch = batch.replace(label=batch["label"][:, :1].expand(-1, 4, -1, -1, -1))
    made: list[dict[str, Tensor]] = []
    recipe.gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs))
    phases = list(recipe.step(batch, StepContext(0, 0, torch.Generator().manual_seed(0))))
    assert [player for player, _ in phases] == ["dis", "gen"] * 2 and len(painted) == len(made) == 2
    assert torch.equal(painted[0], painted[1]), "one code for the whole clip"
    assert made[0][GUIDANCE][:, 3].any(), "its frames color points"
    clips = [losses["GAN_T0/fake"].item() for player, losses in phases if player == "dis"]
    assert clips[0] == 0 < clips[1], "its frames are no part of clips"
    assert not painted[0].requires_grad and not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_rollout_with_a_single_image_model_goes_on_from_its_state() -> None:
    recipe, batch = small_recipe(small_generator(alone="spade").eval()), clip_of(4)
    with torch.no_grad():
        whole = list(recipe.rollout(batch.frames(), torch.Generator().manual_seed(3)))
        rest = list(recipe.rollout(batch.frames()[1:], torch.Generator().manual_seed(4), whole[0][1]))
    for (outputs, _), (again, _) in zip(whole[1:], rest, strict=True):
        assert all(torch.equal(outputs[name], again[name]) for name in outputs)
    other = next(recipe.rollout(batch.frames(), torch.Generator().manual_seed(4)))[0]
    assert not torch.equal(other["fake_images"], whole[0][0]["fake_images"])


def test_averages_and_measured_batch_norms_leave_the_single_image_model_as_it_was_loaded() -> None:
    recipe = small_recipe(small_generator(alone="spade"))
    recipe.load_losses()
    average = ModelAverage(recipe.gen, beta=0.5, start_iteration=0, remove_sn=False)
    batch = clip_of(3)
    averaged = recipe.with_networks(gen=average.network)
    reestimate_batch_norm(average.network, [batch], lambda b: averaged.generate(b, torch.Generator()))
    average.update()
    ours, theirs = recipe.gen.state_dict(), average.network.state_dict()
    names = [name for name in ours if name.startswith("single_image_model.")]
    assert any("running_mean" in name for name in names)
    assert all(torch.equal(ours[name], theirs[name]) for name in names)


def test_weights_of_the_single_image_model_have_the_names_of_old_checkpoints() -> None:
    gen = small_generator(alone="spade")
    names = reference_names(gen.state_dict(), gen.reference_rules())
    assert gen.single_image_model is not None
    alone = gen.single_image_model.network
    expected = reference_names(alone.state_dict(), alone.reference_rules()).values()  # type: ignore[operator]
    found = [theirs for theirs in names.values() if theirs.startswith("single_image_model.")]
    assert found == [f"single_image_model.{name}" for name in expected]
    assert list(names.values())[-len(found) :] == found, "added last: an old optimizer does not know them"


def test_a_copy_of_a_generator_loads_a_single_image_model_of_its_own() -> None:
    gen = small_generator(alone="spade")
    copied = copy.deepcopy(gen)
    before = {name: tensor.clone() for name, tensor in gen.state_dict().items()}
    copied.load_single_image_model()
    assert all(torch.equal(tensor, before[name]) for name, tensor in gen.state_dict().items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in copied.state_dict().items())


def mistaken(batch: Batch, gen: Generator | None = None) -> Iterator[Any]:
    return small_recipe(gen).step(batch, StepContext(0, 0, torch.Generator()))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: small_generator(combine=False), "not-supported"),
        (lambda: small_generator(raw=True), "not-supported"),
        (lambda: small_generator(widths=[0]), "too-few-widths"),
        (lambda: small_generator(alone="unit"), "other-method"),
        (lambda: small_generator(image_channels=1), "not-rgb"),
        (lambda: list(mistaken(clip_of(2), small_generator(alone="spade"))), "short-clips"),
        (lambda: list(mistaken(clip_of(1).replace(unprojections=torch.zeros(2, 1, 3, *SIZE)))), "not-points"),
        (
            lambda: list(
                mistaken(Batch({"images": torch.zeros(1, 1, 3, 60, 32), "label": torch.zeros(1, 1, 7, 60, 32)}))
            ),
            "image-size",
        ),
    ],
    ids=["blend", "raw", "widths", "unit", "gray", "short", "no points", "size"],
)
def test_what_cannot_be_is_the_users_mistake(make: Any, code: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert caught.value.code == code
