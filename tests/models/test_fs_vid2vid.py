"""Few-shot vid2vid beyond the recorded numbers: who sees references, what is warped, rollouts, poses, mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from imagier.errors import UserError
from imagier.losses.clips import LossWeights
from imagier.models.fs_vid2vid import Discriminator, FewShotSpadeParams, Generator, Recipe
from imagier.nn.average import ModelAverage
from imagier.nn.clip_discriminator import CropParams, PatchParams
from imagier.nn.few_shot_flow import FewShotCombineParams, FewShotFlowParams, WarpEmbedParams
from imagier.nn.label_embedder import EmbedParams
from imagier.nn.reference_names import reference_names
from imagier.nn.weight_generator import AttentionParams, HyperParams
from imagier.recipe import Batch, Losses, StepContext

SIZE = (64, 32)
PATCH = {"num_filters": 2, "max_num_filters": 4, "num_discriminators": 1, "num_layers": 1}
SEVERAL = AttentionParams(num_filters=2, num_downsamples=1)


def small_generator(
    *, hyper: dict[str, Any] | None = None, flow: dict[str, Any] | None = None, sep_embed: bool = True, **changes: Any
) -> Generator:
    torch.manual_seed(0)
    small = {"num_filters": 2, "max_num_filters": 4, "num_downsamples": 2}
    combine = FewShotCombineParams(num_layers=2, embed=WarpEmbedParams(**small, arch="unet", sep_warp_embed=sep_embed))
    of_flow = {**small, "num_blocks": 1, "flow_output_multiplier": 2.0, "activation_norm_type": "instance"}
    of_hyper = {"num_hyper_layers": 1, "activation_norm_type": "instance"}
    options: dict[str, Any] = {**small, "embed": EmbedParams(**small), "hyper": HyperParams(**of_hyper | (hyper or {}))}
    options |= {"flow": FewShotFlowParams(**of_flow, multi_spade_combine=combine, **(flow or {}))}
    options |= {"activation_norm_params": FewShotSpadeParams(activation_norm_type="instance")}
    return Generator(label_channels=7, image_channels=3, **(options | changes))


def small_recipe(gen: Generator | None = None, dis: Discriminator | None = None, **changes: Any) -> Recipe:
    torch.manual_seed(1)
    weights = {"gan": 1.0, "feature_matching": 10.0, "flow": 10.0} | changes.pop("weights", {})
    return Recipe(
        gen=gen or small_generator(),
        dis=dis or Discriminator(label_channels=7, image_channels=3, image=PatchParams(**PATCH)),
        label_lengths=changes.pop("label_lengths", {"poses-openpose": 7}),
        loss_weight=LossWeights(**weights),
        **changes,
    )


def clip_of(frames: int, references: int = 1, samples: int = 2, **others: Tensor) -> Batch:
    rng = torch.Generator().manual_seed(0)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        label = (torch.rand(samples, count, 7, *SIZE, generator=rng) > 0.5).float()
        return label, torch.rand(samples, count, 3, *SIZE, generator=rng) * 2 - 1

    (label, images), (few_labels, few_images) = drawn(frames), drawn(references)
    tensors = {"images": images, "label": label, "few_shot_images": few_images, "few_shot_label": few_labels}
    return Batch({**tensors, **others})


def phases(recipe: Recipe, batch: Batch) -> Iterator[tuple[str, Losses]]:
    recipe.train()
    return recipe.step(batch, StepContext(0, 0, torch.Generator().manual_seed(0)))


def outputs_of(recipe: Recipe, batch: Batch) -> list[dict[str, Tensor]]:
    """In eval mode, of every frame."""
    recipe.gen.eval()
    with torch.no_grad():
        return [made for made, _ in recipe.rollout(recipe.prepare(batch).frames(), torch.Generator())]


OF_REFERENCE = {"ref_flow_maps", "ref_occlusion_masks", "ref_warped_images"}
OF_PAST = {"fake_flow_maps", "fake_occlusion_masks", "warped_images"}


@pytest.mark.parametrize(
    ("changes", "first", "last"),
    [
        ({}, OF_REFERENCE, OF_REFERENCE | OF_PAST),
        ({"flow": {"warp_ref": False}}, set(), OF_PAST),
        ({"init_temporal": False}, OF_REFERENCE, OF_REFERENCE),
        ({"num_frames": 3}, OF_REFERENCE, OF_REFERENCE | OF_PAST),
    ],
    ids=["both", "past alone", "reference alone", "longer past"],
)
def test_the_reference_is_warped_always_and_the_frame_before_when_there_are_enough(
    changes: dict[str, Any], first: set[str], last: set[str]
) -> None:
    found = [set(made) - {"fake_images"} for made in outputs_of(small_recipe(small_generator(**changes)), clip_of(3))]
    before = changes.get("num_frames", 2) - 1
    assert found == [first] * before + [last] * (3 - before)


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({}, {"flow_network_temp"}),
        ({"sep_embed": False}, {"flow_network_temp", "prev_image_embedding"}),
        ({"flow": {"sep_prev_flow": True}}, set()),
        ({"num_frames": 3, "sep_embed": False}, {"prev_image_embedding"}),
        ({"flow": {"warp_ref": False}, "sep_embed": False}, set()),
    ],
    ids=["flow", "all", "own flow", "longer past", "no reference"],
)
def test_networks_are_shared_where_they_may_be_and_stored_under_both_names(
    changes: dict[str, Any], shared: set[str]
) -> None:
    gen = small_generator(**changes)
    twice = set(gen.state_dict()) - {name for name, _ in (*gen.named_parameters(), *gen.named_buffers())}
    assert {name.split(".")[0] for name in twice} == shared
    names = reference_names(gen.state_dict(), gen.reference_rules()).values()
    assert "flow_network_temp.conv_flow.0.layers.conv.weight" in names


@pytest.mark.parametrize("method", ["mul", "concat", "none"])
@pytest.mark.parametrize("order", ["NAC", "CNA"])
@pytest.mark.parametrize(
    "kinds", [(True, True, False), (True, False, True), (False, False, True), (False, False, False)]
)
def test_no_frame_depends_on_the_samples_beside_it_whatever_is_generated(
    method: str, order: str, kinds: tuple[bool, bool, bool]
) -> None:
    spade, embed, conv = kinds
    hyper = {"method_to_use_ref_labels": method, "hyper_block_order": order}
    hyper |= {"is_hyper_spade": spade, "is_hyper_embed": embed, "is_hyper_conv": conv}  # type: ignore[dict-item]
    recipe = small_recipe(small_generator(hyper=hyper).double())
    batch = clip_of(1)
    batch = batch.replace(**{name: x.double() for name, x in batch.tensors.items()})
    (both,), (alone,) = outputs_of(recipe, batch), outputs_of(recipe, batch.split(2)[1])
    torch.testing.assert_close(both["fake_images"][1:], alone["fake_images"], rtol=1e-5, atol=1e-7)
    assert both["fake_images"].shape == (2, 3, *SIZE) and both["fake_images"].isfinite().all()


def test_the_reference_that_counts_most_is_warped_and_shown_to_the_discriminator() -> None:
    recipe = small_recipe(small_generator(num_references=3, hyper={"attention": SEVERAL}))
    batch = clip_of(1, references=3, samples=4)
    seen: list[Tensor] = []
    recipe.dis.image.register_forward_hook(lambda network, inputs, outputs: seen.append(inputs[0].detach()))
    made: list[dict[str, Tensor]] = []
    recipe.gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs))
    list(phases(recipe, batch))
    chosen = made[0]["ref_idx"].tolist()
    assert torch.equal(made[0]["attention"].sum(dim=(2, 3)).argmax(dim=1), made[0]["ref_idx"])
    label, ref_label, ref_image, image = seen[0].split([7, 7, 3, 3], dim=1)
    assert torch.equal(label, batch["label"][:, 0]) and torch.equal(image, batch["images"][:, 0])
    for sample, number in enumerate(chosen):
        assert torch.equal(ref_label[sample], batch["few_shot_label"][sample, number])
        assert torch.equal(ref_image[sample], batch["few_shot_images"][sample, number])
    still = torch.zeros_like(made[0]["ref_flow_maps"])
    recipe.gen.flow_network_ref.conv_flow.weight.data.zero_()  # type: ignore[union-attr]
    recipe.gen.flow_network_ref.conv_flow.bias.data.zero_()  # type: ignore[union-attr]
    (moved,) = outputs_of(recipe, batch)
    assert torch.equal(moved["ref_flow_maps"], still)
    for sample, number in enumerate(moved["ref_idx"].tolist()):
        expected = batch["few_shot_images"][sample, number]
        torch.testing.assert_close(moved["ref_warped_images"][sample], expected, rtol=0, atol=1e-4)


def test_discriminators_of_parts_see_the_same_part_of_the_reference() -> None:
    dis = Discriminator(
        label_channels=7,
        image_channels=3,
        image=PatchParams(**PATCH),
        additional_discriminators={"face": CropParams(crop_func="face", **PATCH)},
    )
    recipe, batch = small_recipe(dis=dis), clip_of(1)
    seen: list[Tensor] = []
    dis.crops["face"].register_forward_hook(lambda network, inputs, outputs: seen.append(inputs[0].detach()))
    list(phases(recipe, batch.replace(images=batch["few_shot_images"])))
    assert seen[0].shape[1] == 6 and torch.equal(seen[0][:, :3], seen[0][:, 3:])


def test_a_raw_frame_is_what_the_frame_would_be_without_warped_images() -> None:
    recipe = small_recipe(small_generator(flow={"generate_raw_output": True}))
    warped = outputs_of(recipe, clip_of(2))[1]
    recipe.gen.flow_network_ref = recipe.gen.flow_network_temp = None
    without = outputs_of(recipe, clip_of(2).replace(images=clip_of(2)["images"]))[1]
    assert not torch.allclose(warped["fake_raw_images"], warped["fake_images"])
    assert torch.equal(warped["fake_raw_images"], without["fake_images"])


def test_a_rollout_is_the_clip_and_goes_on_from_its_state() -> None:
    recipe, batch = small_recipe(small_generator(num_frames=3)), clip_of(5)
    whole = [made["fake_images"] for made in outputs_of(recipe, batch)]
    frames = batch.frames()
    rng = torch.Generator()
    with torch.no_grad():
        first = list(recipe.rollout(frames[:3], rng))
        second = list(recipe.rollout(frames[3:], rng, first[-1][1]))
    assert all(torch.equal(made["fake_images"], expected) for (made, _), expected in zip([*first, *second], whole))
    assert {name: tuple(x.shape[:2]) for name, x in second[-1][1].items()} == {"labels": (2, 2), "images": (2, 2)}


def test_an_average_differs_from_the_trained_generator_by_its_epsilon_alone() -> None:
    batch = clip_of(1)
    for eps, are_same in ((0.1, True), (1e-5, False)):
        recipe = small_recipe(small_generator(hyper={"eps_of_average": eps}))
        average = ModelAverage(recipe.gen, start_iteration=1)
        (own,), (averaged,) = outputs_of(recipe, batch), outputs_of(recipe.with_networks(gen=average.network), batch)  # type: ignore[arg-type]
        assert torch.allclose(own["fake_images"], averaged["fake_images"], atol=1e-4) is are_same


def still(recipe: Recipe) -> Recipe:
    """One whose flow is 0, also that of real images."""
    for name, x in recipe.gen.named_parameters():
        if ".conv_flow." in name:
            x.data.zero_()
    recipe.estimate_flow = lambda frames, before: torch.zeros_like(frames[:, :2])
    return recipe


def flow_losses(recipe: Recipe, batch: Batch) -> Losses:
    (losses,) = (losses for player, losses in phases(recipe, batch) if player == "gen")
    return {name.removeprefix("flow/"): x for name, x in losses.items() if name.startswith("flow/")}


def people(*parts: int) -> Tensor:
    """A label 2 x 1 x 7 x H x W, DensePose in [0, 1], whose columns show parts of people."""
    label = torch.zeros(2, 1, 7, *SIZE)
    width = SIZE[1] // len(parts)
    for number, part in enumerate(parts):
        label[:, :, 2, :, number * width : (number + 1) * width] = part / 255
    return label


POSES = {"pose_maps-densepose": 3, "poses-openpose": 4}


def test_parts_of_people_must_be_moved_to_where_they_are() -> None:
    """The left half is torso in both, the right one a hand here and a head there: half of two of nine parts."""
    batch, recipe = clip_of(1), still(small_recipe(small_generator(pose_type="both"), label_lengths=POSES))
    here, there = people(1, 3), people(1, 23)
    with_pose = flow_losses(recipe, batch.replace(label=here, few_shot_label=there))["warp"]
    without = flow_losses(recipe, batch.replace(label=here, few_shot_label=here))["warp"]
    assert (with_pose - without).item() == pytest.approx(0.5 * 2 / 9, rel=1e-3)


def test_faces_come_from_the_reference_and_what_it_lacks_is_painted() -> None:
    batch, gen = clip_of(1), small_generator(pose_type="both")
    recipe = still(small_recipe(gen, label_lengths=POSES))
    made: list[dict[str, Tensor]] = []
    gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs))
    gen.eval()
    found = {}
    for name, there in (("same", people(23)), ("other", people(3))):
        losses = flow_losses(recipe, batch.replace(label=people(23), few_shot_label=there))
        fake, mask, warped = (made[-1][key] for key in ("fake_images", "ref_occlusion_masks", "ref_warped_images"))
        image = batch["images"][:, 0]
        good = (1 - (warped - image).abs().sum(dim=1, keepdim=True)).clamp(0, 1)
        plain = (mask * good).mean() + ((1 - mask) * (1 - good)).mean()
        inside = torch.nn.functional.avg_pool2d(torch.ones_like(mask), 15, 1, 7)
        face = (mask * inside).mean() + ((fake - warped) * inside).abs().mean()
        found[name] = losses["mask"] - plain - face
        assert mask.mean() > 0
        elsewhere = 2 * (1 - mask).mean() if name == "other" else 0.0
        assert found[name].item() == pytest.approx(torch.as_tensor(elsewhere).item(), abs=1e-5)


def test_people_must_be_moved_to_where_they_are_and_what_they_hid_is_painted() -> None:
    """With a margin of 7 px around people."""
    batch, gen = clip_of(1), small_generator()
    recipe = still(small_recipe(gen, has_foreground=True))
    made: list[dict[str, Tensor]] = []
    gen.register_forward_hook(lambda network, inputs, outputs: made.append(outputs))
    somewhere, nowhere = torch.full((2, 1, 7, *SIZE), -1.0), torch.full((2, 1, 7, *SIZE), -1.0)
    somewhere[:, :, 2, 20:30, 16:20] = 0.5
    area = 24 * 18 / (SIZE[0] * SIZE[1])
    found = flow_losses(recipe, batch.replace(label=nowhere, few_shot_label=somewhere))
    image, warped, mask = batch["images"][:, 0], made[-1]["ref_warped_images"], made[-1]["ref_occlusion_masks"]
    assert (found["warp"] - (warped - image).abs().mean()).item() == pytest.approx(area, rel=1e-4)
    good = (1 - (warped - image).abs().sum(dim=1, keepdim=True)).clamp(0, 1)
    plain = (mask * good).mean() + ((1 - mask) * (1 - good)).mean()
    hidden = (1 - mask)[..., 13:37, 9:27].mean() * area
    assert (found["mask"] - plain).item() == pytest.approx(hidden.item(), rel=1e-3, abs=1e-5)


def test_flow_from_the_reference_is_asked_for_at_every_frame_and_of_poses_between_labels() -> None:
    asked: list[tuple[int, bool]] = []

    def ask(frames: Tensor, before: Tensor) -> Tensor:
        asked.append((len(asked), torch.equal(frames, people_labels)))
        return torch.zeros_like(frames[:, :2])

    batch = clip_of(2).replace(label=people(1, 3).repeat(1, 2, 1, 1, 1), few_shot_label=people(1))
    recipe = small_recipe(small_generator(pose_type="both"), label_lengths=POSES)
    people_labels = recipe.prepare(batch)["label"][:, 0, :3]
    recipe.estimate_flow = ask
    list(phases(recipe, batch))
    assert [is_label for _, is_label in asked] == [True, False, True]  # frame 0, and both of frame 1


def test_parts_of_the_body_are_dropped_from_labels_and_references() -> None:
    recipe = small_recipe(small_generator(pose_type="both"), label_lengths=POSES, random_drop_prob=1.0)
    seen: list[tuple[Tensor, ...]] = []
    recipe.gen.register_forward_hook(lambda network, inputs, outputs: seen.append(inputs))
    batch = clip_of(1).replace(label=people(5), few_shot_label=people(7))
    list(phases(recipe, batch))
    assert seen[0][0][:, 2].unique().tolist() == seen[0][1][:, :, 2].unique().tolist() == [-1.0]
    kept = recipe.prepare(batch)["few_shot_label"][:, :, 2]
    assert kept.unique().tolist() == pytest.approx([7 / 24 * 2 - 1], abs=1e-5)


def test_references_are_moved_and_mirrored_with_their_labels_when_networks_are_tuned_to_them() -> None:
    batch = clip_of(1, references=3)
    images = batch["few_shot_label"][:, :, :3] * 2 - 1  # so that each pixel tells whether its label has come along
    batch = batch.replace(few_shot_images=images)
    gen = small_generator(num_references=3, hyper={"attention": SEVERAL})
    recipe = small_recipe(gen)
    seen: list[Tensor] = []
    recipe.dis.image.register_forward_hook(lambda network, inputs, outputs: seen.append(inputs[0].detach()))
    tuning = recipe.tune(batch, torch.Generator().manual_seed(0), finetune=True, finetune_iter=12)
    assert tuning is not None
    players = [player for player, _ in tuning]
    assert players == ["dis", "gen"] * 12
    targets = set()
    for given in seen[0::4]:  # of real images, for the discriminator's update
        label, image = given[:, :7], given[:, -3:]
        assert torch.equal(label[:, :3] * 2 - 1, image)
        counts = image[0].sum()
        targets |= {k for k in range(3) if torch.isclose(images[0, k].sum(), counts)}
        assert any(torch.equal(image[0].sum(dim=(1, 2)), images[0, k].sum(dim=(1, 2))) for k in range(3))
    assert targets == {0, 1, 2}
    assert len({given[0, -3:].flatten()[:40].sum().item() for given in seen[0::4]}) > 3
    assert recipe.tune(batch, torch.Generator()) is None


@pytest.mark.parametrize(
    ("make", "where", "code"),
    [
        (lambda: small_generator(embed=EmbedParams(num_filters=4, num_downsamples=2)), "embed.num_filters", "misfit"),
        (
            lambda: small_generator(embed=EmbedParams(num_filters=2, num_downsamples=1)),
            "embed.num_downsamples",
            "misfit",
        ),
        (lambda: small_generator(max_num_filters=3), "embed.max_num_filters", "misfit"),
        (lambda: small_generator(hyper={"num_hyper_layers": 2}), "hyper.num_hyper_layers", "misfit"),
        (lambda: small_recipe(weights={"gan": 0.0}), "loss_weight.gan", "no-loss-weight"),
    ],
    ids=["width of the encoder", "its depth", "its largest width", "widths that stay", "weight"],
)
def test_networks_that_cannot_be_are_the_users_mistake(make: Any, where: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert (caught.value.where, caught.value.code) == (where, code)


def test_more_references_than_one_need_attention() -> None:
    with pytest.raises(UserError) as caught:
        small_recipe().prepare(clip_of(1, references=3))
    assert caught.value.code == "references"
    several = small_generator(num_references=2, hyper={"attention": SEVERAL})
    small_recipe(several).prepare(clip_of(1, references=3))


def test_a_list_of_hidden_widths_begins_with_that_of_the_label() -> None:
    """Which counts for nothing where the weights for the label are generated."""
    norms = FewShotSpadeParams(activation_norm_type="instance", num_filters=[3, 5, 7])
    names = small_generator(activation_norm_params=norms).state_dict()
    hidden = [len(names[f"up.0.block_0.norm.others.of_map.{index}.mlp.0.weight"]) for index in (0, 1)]
    own = [len(names[f"up.1.block_0.norm.of_map.{index}.mlp.0.weight"]) for index in (0, 1, 2)]
    assert (hidden, own) == ([5, 7], [3, 5, 7])


@pytest.mark.parametrize(("change", "code"), [("few_shot_images", "no-references"), ("label", "image-size")])
def test_clips_that_cannot_be_trained_on_are_the_users_mistake(change: str, code: str) -> None:
    tensors = dict(clip_of(1).tensors)
    tensors[change] = tensors[change][..., :30, :]
    if change == "few_shot_images":
        del tensors[change]
    with pytest.raises(UserError) as caught:
        list(phases(small_recipe(), Batch(tensors)))
    assert caught.value.code == code


def test_faces_are_removed_from_labels_of_frames_and_not_from_those_of_references() -> None:
    gen = small_generator(pose_type="both", remove_face_labels=True)
    seen: list[tuple[Tensor, ...]] = []
    gen.weight_generator.register_forward_hook(lambda network, inputs, outputs: seen.append(inputs))
    recipe = small_recipe(gen, label_lengths=POSES)
    outputs_of(recipe, clip_of(1).replace(label=people(23), few_shot_label=people(23)))
    _, ref_labels, label = seen[0]
    assert label[:, 2].unique().tolist() == [-1.0]
    assert ref_labels[:, :, 2].unique().tolist() == pytest.approx([23 / 24 * 2 - 1], abs=1e-5)


def test_the_mask_has_a_decoder_of_its_own_if_wanted() -> None:
    gen = small_generator(flow={"sep_up_mask": True})
    assert gen.flow_network_ref is not None and gen.flow_network_ref.up_mask is not None
    names = reference_names(gen.state_dict(), gen.reference_rules()).values()
    assert "flow_network_ref.up_mask.1.layers.conv.weight_orig" in names
    batch = clip_of(1)
    (before,) = outputs_of(small_recipe(gen), batch)
    for parameter in gen.flow_network_ref.up_mask.parameters():
        parameter.data.mul_(2)
    (after,) = outputs_of(small_recipe(gen), batch)
    assert torch.equal(before["ref_flow_maps"], after["ref_flow_maps"])
    assert not torch.equal(before["ref_occlusion_masks"], after["ref_occlusion_masks"])
