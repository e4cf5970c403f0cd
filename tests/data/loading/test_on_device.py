"""From stored numbers to what networks see, against torch's own one-hot and plain arithmetic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_data import codec_for
from torch import Tensor

from imagier.data.codec import Codec, InputType
from imagier.data.codecs import flow
from imagier.data.loading.on_device import Expander
from imagier.nn.instances import instance_edges, instance_ids
from imagier.recipe import Batch

CLASSES = 5


def types(use_dont_care: bool = False) -> list[Codec]:
    """One input type of every kind."""
    return [
        codec_for(name="images", ext="png", num_channels=3, normalize=True),
        codec_for(name="plain", ext="png", num_channels=3),
        codec_for(
            name="seg", ext="png", num_channels=1, is_mask=True, num_classes=CLASSES, use_dont_care=use_dont_care
        ),
        codec_for(name="more_seg", ext="png", num_channels=1, is_mask=True, num_classes=3, use_dont_care=use_dont_care),
        codec_for(name="edges", ext="png", num_channels=1),
        codec_for(name="signed_edges", ext="png", num_channels=2, normalize=True),
        codec_for(name="instances", ext="png", num_channels=1, is_mask=True),
        codec_for(name="depth", ext="tif", num_channels=1),
    ]


TYPES = types()


def numbers(channels: int, below: int = 256, dtype: torch.dtype = torch.uint8) -> Tensor:
    rng = torch.Generator().manual_seed(below + channels)
    return torch.randint(below, (2, 4, 6, channels), generator=rng).to(dtype)


STORED = Batch(
    {
        "images": numbers(3),
        "plain": numbers(3),
        "seg": numbers(1, CLASSES),
        "more_seg": numbers(1, 3, torch.int32),
        "edges": numbers(1),
        "signed_edges": numbers(2),
        "instances": numbers(1, 65536, torch.int32),
        "depth": numbers(1, 100).float() / 7,
        "original_h_w": torch.tensor([[4, 6], [8, 9]]),
        "is_flipped": torch.tensor([True, False]),
    },
    {"images": ["./a", "./b"]},
)


def one_hot(classes: Tensor, count: int) -> Tensor:
    return F.one_hot(classes[..., 0].long(), count).permute(0, 3, 1, 2).float()


def test_classes_become_one_channel_each() -> None:
    label = Expander(TYPES, ["seg"])(STORED)["label"]
    assert label.dtype == torch.float32
    torch.testing.assert_close(label, one_hot(STORED["seg"], CLASSES), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("classes", [3, 260])
@pytest.mark.parametrize("rest", ["use_dont_care", "move_dont_care", "none"])
def test_channels_that_are_present_are_those_of_the_label_that_are_not_zero(
    rest: str, classes: int, dtype: torch.dtype
) -> None:
    """Of classes. Other types are always present: edges, and what is normalized."""
    options = {"use_dont_care": True} if rest == "use_dont_care" else {"dont_care": 2} if rest != "none" else {}
    seg = codec_for(name="seg", ext="png", num_channels=1, is_mask=True, num_classes=classes, **options)
    codecs = [seg, *(codec for codec in TYPES if codec.name in ("more_seg", "edges", "signed_edges"))]
    expander = Expander(codecs, ["edges", "seg", "signed_edges", "more_seg"])
    stored = {
        "seg": torch.tensor([[0, 2, 2, 200], [1, 1, 255, 255]], dtype=dtype).view(2, 2, 2, 1),
        "more_seg": torch.tensor([[0, 0, 0, 0], [2, 2, 2, 255]], dtype=dtype).view(2, 2, 2, 1),
        "edges": torch.zeros(2, 2, 2, 1, dtype=torch.uint8),
        "signed_edges": torch.zeros(2, 2, 2, 2, dtype=torch.uint8),
    }
    expected = (expander(Batch(stored))["label"] != 0).flatten(2).any(dim=2)
    expected[:, 0] = True
    found = expander.find_present(stored)
    assert found is not None and torch.equal(found, expected)
    clips = {name: x[:, None].expand(-1, 3, -1, -1, -1) for name, x in stored.items()}
    assert torch.equal(expander.find_present(clips), expected), "in any frame of a clip"


def test_without_classes_or_without_a_label_nothing_is_said_of_channels() -> None:
    assert Expander(TYPES, ["edges"]).find_present(STORED.tensors) is None
    assert Expander(TYPES, []).find_present(STORED.tensors) is None
    assert Expander(TYPES, ["seg", "edges"]).find_present({"edges": STORED["edges"]}) is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("use_dont_care", [False, True])
def test_other_classes_get_a_channel_of_their_own_or_none(use_dont_care: bool, dtype: torch.dtype) -> None:
    classes = torch.tensor([0, 4, 5, 6, 200, 255], dtype=dtype).reshape(1, 2, 3, 1)
    label = Expander(types(use_dont_care), ["seg"])(Batch({"seg": classes}))["label"]
    expected = one_hot(classes.clamp(max=CLASSES), CLASSES + 1)
    torch.testing.assert_close(label, expected if use_dont_care else expected[:, :CLASSES], rtol=0, atol=0)


def test_classes_of_16_bits_are_classes() -> None:
    classes = torch.tensor([0, 3, 26003, 255], dtype=torch.int32).reshape(1, 2, 2, 1)
    label = Expander(TYPES, ["seg"])(Batch({"seg": classes}))["label"]
    assert label.sum(dim=1).flatten().tolist() == [1, 1, 0, 0]
    assert label[0, 3, 0, 1] == 1


def test_types_that_are_no_classes_enter_the_label_as_they_are() -> None:
    label = Expander(TYPES, ["edges", "signed_edges", "instances", "depth"])(STORED)["label"]
    edges, signed, instances, depth = label.split([1, 2, 1, 1], dim=1)
    torch.testing.assert_close(edges[:, 0], STORED["edges"][..., 0] / 255)
    torch.testing.assert_close(signed.permute(0, 2, 3, 1), STORED["signed_edges"] / 127.5 - 1, atol=1e-6, rtol=0)
    assert torch.equal(instances[:, 0], STORED["instances"][..., 0].float())  # numbers are not scaled
    assert torch.equal(depth[:, 0], STORED["depth"][..., 0])
    assert (edges.min() >= 0, edges.max() <= 1, signed.min() >= -1, signed.max() <= 1) == (True,) * 4


@pytest.mark.parametrize("use_dont_care", [False, True])
@pytest.mark.parametrize("order", [["seg", "edges", "more_seg"], ["more_seg", "seg"], ["edges", "seg"]])
def test_the_label_holds_its_types_in_the_order_of_input_labels(order: list[str], use_dont_care: bool) -> None:
    expander = Expander(types(use_dont_care), order)
    channels = {"seg": CLASSES + use_dont_care, "more_seg": 3 + use_dont_care, "edges": 1}
    assert list(expander.label_lengths.items()) == [(name, channels[name]) for name in order]
    parts = {
        "seg": one_hot(STORED["seg"], channels["seg"]),
        "more_seg": one_hot(STORED["more_seg"], channels["more_seg"]),
        "edges": (STORED["edges"] / 255).permute(0, 3, 1, 2),
    }
    label = expander(STORED)["label"]
    torch.testing.assert_close(label, torch.cat([parts[name] for name in order], dim=1), rtol=0, atol=0)


def test_images_are_in_0_to_1_or_normalized() -> None:
    ready = Expander(TYPES, ["seg"])(STORED)
    torch.testing.assert_close(ready["images"].permute(0, 2, 3, 1), STORED["images"] / 127.5 - 1, atol=1e-6, rtol=0)
    torch.testing.assert_close(ready["plain"].permute(0, 2, 3, 1), STORED["plain"] / 255)
    ends = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(1, 1, 2, 3)
    assert Expander(TYPES, [])(Batch({"images": ends}))["images"][0, 0, 0].tolist() == [-1, 1]


def test_a_label_replaces_its_types_and_all_others_stay() -> None:
    ready = Expander(TYPES, ["seg", "edges"])(STORED)
    assert set(ready.tensors) == (set(STORED.tensors) | {"label"}) - {"seg", "edges"}
    assert ready.keys == STORED.keys
    for name in ("original_h_w", "is_flipped"):
        assert torch.equal(ready[name], STORED[name])


def test_flow_that_is_a_label_stays_for_the_losses_that_look_at_it() -> None:
    stored = torch.arange(24, dtype=torch.float32).reshape(1, 2, 4, 3)
    ready = Expander([flow.Codec(InputType(name="flow", ext="png"))], ["flow"])(Batch({"flow": stored}))
    assert set(ready.tensors) == {"label", "flow", "flow_confidence"}
    torch.testing.assert_close(ready["label"], torch.cat([ready["flow"], ready["flow_confidence"]], dim=1))


def test_without_label_types_there_is_no_label() -> None:
    ready = Expander(TYPES, [])(STORED)
    assert set(ready.tensors) == set(STORED.tensors)
    assert Expander(TYPES, []).label_lengths == {}


def test_channels_last_changes_the_order_in_memory_and_no_value() -> None:
    names = ["seg", "signed_edges", "more_seg"]
    usual = Expander(types(True), names)(STORED)
    turned = Expander(types(True), names, channels_last=True)(STORED)
    for name in usual.tensors:
        assert torch.equal(usual[name], turned[name]), name
    for name in ("images", "plain", "label"):
        assert usual[name].is_contiguous()
        assert turned[name].is_contiguous(memory_format=torch.channels_last)
        assert not turned[name].is_contiguous()


def test_what_was_stored_is_left_as_it_was() -> None:
    before = {name: tensor.clone() for name, tensor in STORED.tensors.items()}
    Expander(types(True), ["seg", "edges"])(STORED)
    assert all(torch.equal(STORED[name], tensor) for name, tensor in before.items())


def test_a_map_of_three_channels_gives_the_classes_of_all_three() -> None:
    classes = numbers(3, CLASSES)
    label = Expander(TYPES, ["seg"])(Batch({"seg": classes}))["label"]
    union = torch.stack([one_hot(channel, CLASSES) for channel in classes.split(1, dim=3)]).amax(dim=0)
    assert torch.equal(label, union)


# Clips


def test_a_clip_is_its_frames() -> None:
    """Whatever is done to a clip is what is done to the stills that it is made of."""
    frames = 3
    clip = Batch({name: torch.stack([tensor] * frames, dim=1) for name, tensor in STORED.tensors.items()})
    clip = clip.replace(seg=torch.stack([(STORED["seg"] + t) % CLASSES for t in range(frames)], dim=1))
    expander = Expander(types(True), ["seg", "edges", "more_seg", "instances"])
    ready = expander(clip)
    assert ready["label"].shape == (2, frames, CLASSES + 1 + 1 + 4 + 1, 4, 6)
    for t in range(frames):
        still = expander(Batch({name: tensor[:, t] for name, tensor in clip.tensors.items()}))
        for name, tensor in still.tensors.items():
            assert torch.equal(ready[name][:, t], tensor), name


def test_classes_of_a_clip_are_torch_s_one_hot() -> None:
    classes = torch.randint(CLASSES, (2, 3, 4, 6, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    label = Expander(TYPES, ["seg"])(Batch({"seg": classes}))["label"]
    assert torch.equal(label, F.one_hot(classes[..., 0].long(), CLASSES).movedim(-1, -3).float())


def test_every_frame_of_a_clip_is_channels_last_in_memory_if_stills_are() -> None:
    clip = Batch({"images": numbers(3).unsqueeze(1).repeat(1, 2, 1, 1, 1), "seg": numbers(1, 5)[:, None]})
    usual, turned = (Expander(TYPES, ["seg"], channels_last=last)(clip) for last in (False, True))
    for name in ("images", "label"):
        assert torch.equal(usual[name], turned[name])
        assert usual[name].is_contiguous()
        assert turned[name].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


# Ops


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("dont_care", [3, 4, 700])
def test_values_from_dont_care_on_become_it(dont_care: int, dtype: torch.dtype) -> None:
    stored = torch.tensor([0, 2, 3, 4, 5, 255], dtype=dtype).reshape(1, 2, 3, 1)
    moved = torch.tensor([min(value, dont_care) for value in stored.flatten().tolist()]).reshape(1, 1, 2, 3)
    kind = codec_for(name="seg", ext="png", num_channels=1, is_mask=True, dont_care=dont_care)
    plain = Expander([kind], [])(Batch({"seg": stored}))["seg"]
    torch.testing.assert_close(plain, moved / (255 if dtype == torch.uint8 else 1))
    classes = codec_for(
        name="seg", ext="png", num_channels=1, is_mask=True, num_classes=5, use_dont_care=True, dont_care=dont_care
    )
    label = Expander([classes], ["seg"])(Batch({"seg": stored}))["label"]
    assert torch.equal(label, one_hot(moved.clamp(max=5).movedim(1, -1), 6))


def test_a_type_has_its_new_name_in_a_batch_and_in_the_label() -> None:
    kinds = [
        codec_for(name="photos", ext="png", num_channels=3, renamed="images"),
        codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=5, renamed="seg"),
        codec_for(name="joints", ext="json", is_points=True, renamed="poses"),
    ]
    joints = torch.rand(2, 7, 2)
    expander = Expander(kinds, ["seg"])
    ready = expander(Batch({"photos": numbers(3), "maps": numbers(1, 5), "joints": joints}))
    assert expander.label_lengths == {"seg": 5}
    assert set(ready.tensors) == {"images", "label", "poses"}
    assert torch.equal(ready["label"], one_hot(numbers(1, 5), 5))
    assert torch.equal(ready["poses"], joints)


@pytest.mark.parametrize("around", [(2,), (2, 3)])
def test_maps_of_instances_of_8_and_of_16_bits_give_the_same_edges_and_ids(around: tuple[int, ...]) -> None:
    """Of 8 bits they come as id / 255, of 16 bits as they are."""
    ids = torch.randint(1, 200, (*around, 5, 7, 1), generator=torch.Generator().manual_seed(0))
    both = [
        Expander(TYPES, ["instances"])(Batch({"instances": ids.to(dtype)}))["label"]
        for dtype in (torch.uint8, torch.int32)
    ]
    torch.testing.assert_close(both[0] * 255, both[1])
    for label in both:
        assert torch.equal(instance_ids(label), ids.movedim(-1, -3))
        assert torch.equal(instance_edges(label), instance_edges(both[1]))


def test_light_beyond_1_stays_as_it_is() -> None:
    hdr = torch.tensor([0.0, 0.25, 1.0, 40.0]).reshape(1, 2, 2, 1)
    kind = codec_for(name="sky", ext="hdr", num_channels=1)
    assert torch.equal(Expander([kind], [])(Batch({"sky": hdr}))["sky"], hdr.movedim(-1, -3))
