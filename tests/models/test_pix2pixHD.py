"""pix2pixHD: networks against the formulas written out, objects' looks against loops, losses and schedule."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.errors import UserError
from imagier.losses.feature_matching import feature_matching
from imagier.losses.gan import dis_fake_loss, dis_real_loss, gen_loss
from imagier.models.pix2pixHD import (
    Discriminator,
    EncoderParams,
    Generator,
    GlobalGeneratorParams,
    LocalEnhancerParams,
    LossWeights,
    Recipe,
)
from imagier.nn.average import ModelAverage
from imagier.nn.blocks import ConvNormAct
from imagier.nn.norm import NormParams
from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch, Losses, StepContext
from imagier.train.hooks.log import tag_losses

PLAIN = {"seg_maps": 4, "edge_maps": 1}
OBJECTS = {"seg_maps": 4, "instance_maps": 1}
LOOKS = EncoderParams(num_feat_channels=2, num_filters=2, num_downsamples=1, num_clusters=3)
IDS = (0, 1, 3, 1001, 2000, 2001, 3999, 65535)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def generator(enhancers: int = 0, blocks: int = 1, **options: Any) -> Generator:
    small = {
        "label_lengths": PLAIN,
        "image_channels": 3,
        "global_generator": GlobalGeneratorParams(num_filters=4, num_downsamples=2, num_res_blocks=2),
        "local_enhancer": LocalEnhancerParams(num_enhancers=enhancers, num_res_blocks=blocks),
    }
    return Generator(**{**small, **options})


def with_encoder(enhancers: int = 0, looks: EncoderParams = LOOKS, **options: Any) -> Generator:
    return generator(enhancers, **{"label_lengths": OBJECTS, "enc": looks, **options})


def make_discriminator(**options: Any) -> Discriminator:
    small = {"label_channels": 5, "image_channels": 3, "num_filters": 2, "max_num_filters": 4, "num_layers": 2}
    return Discriminator(**{**small, **options})


def recipe(gen: Generator | None = None, dis: Discriminator | None = None, **options: Any) -> Recipe:
    gen = gen or generator()
    lengths = PLAIN if gen.encoder is None else OBJECTS
    weights = LossWeights(gan=1.0, feature_matching=2.0, perceptual=0.0)
    basic = {"label_lengths": lengths, "one_hot": ["seg_maps"], "gan_mode": "hinge", "loss_weight": weights}
    return Recipe(gen=gen, dis=dis or make_discriminator(), **{**basic, **options})


def instances(count: int = 2, height: int = 16, width: int = 24) -> Tensor:
    """Some objects in blocks of 4 x 4 px, as stored with 16 bits."""
    ids = torch.tensor(IDS)[torch.randint(len(IDS), (count, 1, height // 4, width // 4))]
    return F.interpolate(ids.float(), size=(height, width), mode="nearest")


def batch(count: int = 2, height: int = 16, width: int = 24, last: Tensor | None = None) -> Batch:
    """Images, and labels as the loader gives them: classes, and edges or ids."""
    classes = F.one_hot(torch.randint(4, (count, height, width)), 4).movedim(-1, 1).float()
    last = torch.randint(2, (count, 1, height, width)).float() if last is None else last
    images = torch.rand(count, 3, height, width) * 2 - 1
    return Batch({"images": images, "label": torch.cat([classes, last], dim=1)})


def objects(count: int = 2, height: int = 16, width: int = 24) -> Batch:
    return batch(count, height, width, instances(count, height, width))


def rng(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def moment(epoch: int = 0) -> StepContext:
    return StepContext(step=0, epoch=epoch, rng=rng())


def inputs_of(module: nn.Module) -> list[Tensor]:
    """A list that will hold the first input of every forward of a module."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


# The generator -------------------------------------------------------------------------------------------------------


def test_networks_of_the_reference_size_have_its_numbers_of_parameters() -> None:
    with torch.device("meta"):
        gen = Generator(
            label_lengths={"seg_maps": 35, "instance_maps": 1},
            image_channels=3,
            global_generator=GlobalGeneratorParams(num_filters=32),
            local_enhancer=LocalEnhancerParams(num_enhancers=0),
        )
        dis = Discriminator(
            label_channels=36,
            image_channels=3,
            num_layers=3,
            activation_norm_type="instance",
            weight_norm_type="none",
        )
    assert sum(p.numel() for p in gen.parameters()) == 45_693_987
    assert len(list(gen.parameters())) == 110
    assert len(list(dis.parameters())) == 36


def test_defaults_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        gen = Generator(
            label_lengths=PLAIN,
            image_channels=3,
            global_generator=GlobalGeneratorParams(),
            local_enhancer=LocalEnhancerParams(),
        )
    assert gen.size_multiple == 32
    assert len(gen.enhancers) == 1
    names = reference_names(gen.state_dict(), gen.reference_rules()).values()
    shapes = dict(zip(names, (tuple(x.shape) for x in gen.state_dict().values())))
    assert shapes["global_model.0.layers.conv.weight"] == (64, 5, 7, 7)
    assert shapes["global_model.13.conv_block_1.layers.conv.weight"] == (1024, 1024, 3, 3)
    assert shapes["enhancer_0.model_downsample.0.layers.conv.weight"] == (32, 5, 7, 7)
    assert shapes["enhancer_0.model_upsample.2.conv_block_0.layers.norm.weight"] == (64,)
    assert shapes["enhancer_0.model_upsample.5.layers.conv.weight"] == (3, 32, 7, 7)


class Written:
    """The generator written out from the description of its layers, with weights by the reference's names."""

    def __init__(self, gen: Generator, padding_mode: str) -> None:
        state = gen.state_dict()
        self.weights = {theirs: state[ours] for ours, theirs in reference_names(state, gen.reference_rules()).items()}
        self.padding = {"zeros": "constant"}.get(padding_mode, padding_mode)
        self.used: set[str] = set()

    def __call__(self, label: Tensor, *, enhancers: int, downs: int, blocks: int, local_blocks: int) -> Tensor:
        pyramid = [label]
        for _ in range(enhancers):
            pyramid.append(F.avg_pool2d(pyramid[-1], 3, 2, 1, count_include_pad=False))
        prefix = "global_model" if enhancers else "global_model.model"
        x = self.conv(pyramid[-1], f"{prefix}.0", 3)
        for index in range(1, downs + 1):
            x = self.conv(x, f"{prefix}.{index}", 1, stride=2)
        for index in range(downs + 1, downs + blocks + 1):
            x = self.residual(x, f"{prefix}.{index}")
        for index in range(downs + blocks + 2, 3 * downs + blocks + 2, 2):
            x = self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), f"{prefix}.{index}", 1)
        if not enhancers:
            return self.image(x, f"{prefix}.{3 * downs + blocks + 1}")
        for n in range(enhancers):
            fine = self.conv(pyramid[enhancers - 1 - n], f"enhancer_{n}.model_downsample.0", 3)
            x = x + self.conv(fine, f"enhancer_{n}.model_downsample.1", 1, stride=2)
            for index in range(local_blocks):
                x = self.residual(x, f"enhancer_{n}.model_upsample.{index}")
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = self.conv(x, f"enhancer_{n}.model_upsample.{local_blocks + 1}", 1)
        return self.image(x, f"enhancer_{enhancers - 1}.model_upsample.{local_blocks + 2}")

    def residual(self, x: Tensor, name: str) -> Tensor:
        hidden = self.conv(x, f"{name}.conv_block_0", 1)
        return x + self.conv(hidden, f"{name}.conv_block_1", 1, relu=False)

    def image(self, x: Tensor, name: str) -> Tensor:
        return torch.tanh(F.conv2d(F.pad(x, (3, 3, 3, 3), self.padding), *self.of(f"{name}.layers.conv")))

    def conv(self, x: Tensor, name: str, padding: int, stride: int = 1, relu: bool = True) -> Tensor:
        sides = (padding, padding, padding, padding)
        x = F.conv2d(F.pad(x, sides, self.padding), *self.of(f"{name}.layers.conv"), stride=stride)
        if f"{name}.layers.norm.weight" in self.weights:
            scale, shift = self.of(f"{name}.layers.norm")
            var, mean = torch.var_mean(x, dim=(2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (var + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]
        return F.relu(x) if relu else x

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        self.used |= {f"{name}.weight", f"{name}.bias"}
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]


@pytest.mark.parametrize("enhancers", [0, 1, 2])
@pytest.mark.parametrize(("padding_mode", "norm"), [("reflect", "instance"), ("zeros", "none"), ("circular", "none")])
def test_the_generator_is_that_of_the_description(enhancers: int, padding_mode: str, norm: str) -> None:
    gen = generator(enhancers, padding_mode=padding_mode, activation_norm_type=norm).double()
    for parameter in gen.parameters():
        nn.init.normal_(parameter, std=0.5)
    label = torch.rand(2, 5, 32, 64, dtype=torch.float64)
    written = Written(gen, padding_mode)
    expected = written(label, enhancers=enhancers, downs=2, blocks=2, local_blocks=1)
    torch.testing.assert_close(gen(label)["fake_images"], expected)
    assert written.used == written.weights.keys()


def test_only_the_layers_of_the_image_are_without_norms() -> None:
    gen = with_encoder(enhancers=1, weight_norm_type="spectral", looks=EncoderParams(num_feat_channels=2))
    plain = [name for name, layer in gen.named_modules() if isinstance(layer, ConvNormAct) and is_plain(layer)]
    assert plain == ["encoder.layers.13", "enhancers.0.up.3"]
    assert all("spectral" not in name for name, _ in gen.encoder.named_modules())  # type: ignore[union-attr]
    assert sum(name.endswith("spectral.u") for name in gen.state_dict()) == 1 + 2 + 4 + 2 + 2 + 2 + 1


def is_plain(layer: ConvNormAct) -> bool:
    return isinstance(layer.norm, nn.Identity) and type(layer.conv).__name__ == "Conv2d"


@pytest.mark.parametrize(("params", "affine"), [(None, True), (NormParams(), True), (NormParams(affine=False), False)])
def test_instance_norms_are_affine_unless_told_otherwise_and_the_encoders_always(
    params: NormParams | None, affine: bool
) -> None:
    gen = with_encoder(activation_norm_params=params)
    norms = {name: x for name, x in gen.named_modules() if isinstance(x, nn.InstanceNorm2d)}
    assert {x.affine for name, x in norms.items() if name.startswith("coarse")} == {affine}
    assert {x.affine for name, x in norms.items() if name.startswith("encoder")} == {True}


# The encoder of objects ----------------------------------------------------------------------------------------------


def test_there_is_an_encoder_only_for_labels_that_end_with_instances_and_for_features_to_have() -> None:
    assert generator(enc=LOOKS).encoder is None
    assert generator(enc=LOOKS, label_lengths={"instance_maps": 1, "seg_maps": 4}).encoder is None
    assert generator(label_lengths=OBJECTS).encoder is None
    assert with_encoder(looks=EncoderParams(num_feat_channels=0)).encoder is None
    assert with_encoder().encoder is not None


def test_the_encoders_layers_are_those_of_the_description() -> None:
    gen = with_encoder(looks=EncoderParams(num_feat_channels=3, num_filters=4, num_downsamples=2))
    names = reference_names(gen.state_dict(), gen.reference_rules()).values()
    assert {name.split(".")[2] for name in names if name.startswith("encoder.model.")} == set("012467")
    assert [name for name in names if "cluster" in name] == [f"encoder.cluster_{i}" for i in range(5)]
    gen = with_encoder().double()
    encoder, images = gen.encoder, torch.rand(2, 3, 16, 24, dtype=torch.float64)
    assert encoder is not None
    first, down, _, up, last = encoder.layers
    x = down(first(images)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    x = up.act(up.norm(F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), up.conv.weight, up.conv.bias)))
    x = F.conv2d(F.pad(x, (3, 3, 3, 3), "reflect"), last.conv.weight, last.conv.bias).tanh()
    torch.testing.assert_close(encoder.layers(images), x)


def test_every_object_has_the_mean_of_the_features_of_its_pixels() -> None:
    made = recipe(with_encoder().double())
    ready = made.prepare(objects())
    ready = ready.replace(images=ready["images"].double(), label=ready["label"].double())
    looks = made.generate(ready, rng())["feature_maps"]
    assert made.gen.encoder is not None
    features = made.gen.encoder.layers(ready["images"])
    for n in range(2):
        for number in ready["instance_maps"][n].unique():
            where = ready["instance_maps"][n, 0] == number
            mean = features[n][:, where].mean(dim=1, keepdim=True)
            torch.testing.assert_close(looks[n][:, where], mean.expand(-1, int(where.sum())))


@pytest.mark.parametrize("enhancers", [0, 2])
def test_the_looks_of_objects_stand_behind_the_label_at_every_size(enhancers: int) -> None:
    gen = with_encoder(enhancers)
    firsts = [gen.coarse[0].conv, *(enhancer.down[0].conv for enhancer in gen.enhancers)]
    seen = [inputs_of(conv) for conv in firsts]
    made = recipe(gen)
    ready = made.prepare(objects(2, 32, 64))
    looks = made.generate(ready, rng())["feature_maps"]
    expected = torch.cat([ready["label"], looks], dim=1)
    for found in reversed(seen):
        torch.testing.assert_close(found[0], expected)
        expected = F.avg_pool2d(expected, 3, 2, 1, count_include_pad=False)


def test_losses_reach_the_encoder() -> None:
    made = recipe(with_encoder(), loss_weight=LossWeights(gan=1, feature_matching=0, perceptual=0, l1=1))
    ready = made.prepare(objects())
    made.gen_losses(ready, made.generate(ready, rng()), moment())["l1"].backward()
    assert made.gen.encoder is not None
    assert all(p.grad is not None for p in made.gen.encoder.parameters())
    assert made.gen.encoder.layers[0].conv.weight.grad.abs().sum() > 0


# Looks that are stored, and drawn at inference -----------------------------------------------------------------------


def together(tensors: Sequence[Tensor]) -> Tensor:
    """What one rank alone gathers."""
    return torch.cat(list(tensors))


def surveyed(gen: Generator, batches: list[Batch]) -> Recipe:
    made = recipe(gen)
    gen.eval()
    with torch.no_grad():
        made.before_checkpoint(batches, together)
    return made


def looks_by_loop(made: Recipe, batches: list[Batch], is_cityscapes: bool) -> dict[int, list[list[float]]]:
    """Per class the features in the middle pixel of every object that fills more than a sixteenth of its image."""
    found: dict[int, list[list[float]]] = {}
    for ready in map(made.prepare, batches):
        features = made.generate(ready, rng())["feature_maps"]
        for n, ids in enumerate(ready["instance_maps"][:, 0]):
            for number in ids.unique().tolist():
                pixels = (ids == number).nonzero()
                y, x = pixels[len(pixels) // 2].tolist()
                of_class = number // 1000 if is_cityscapes and number >= 1000 else number
                if len(pixels) / ids.numel() > 0.0625:
                    found.setdefault(of_class, []).append(features[n, :, y, x].tolist())
    return found


@pytest.mark.parametrize("is_cityscapes", [True, False])
def test_what_is_stored_are_the_looks_of_the_large_objects_of_each_class(is_cityscapes: bool) -> None:
    """With so many clusters that each look is its own."""
    looks = EncoderParams(num_feat_channels=2, num_filters=2, num_downsamples=1, num_clusters=40)
    batches = [objects(3), objects(1), objects(2)]
    made = surveyed(with_encoder(looks=looks, is_cityscapes=is_cityscapes), batches)
    assert made.gen.encoder is not None
    with torch.no_grad():
        expected = looks_by_loop(made, batches, is_cityscapes)
    assert len(expected.keys() & set(range(5))) > 2
    for of_class, cluster in enumerate(made.gen.encoder.clusters.buffers()):
        stored = cluster[cluster.any(dim=1)].tolist()
        torch.testing.assert_close(torch.tensor(sorted(stored)), torch.tensor(sorted(expected.get(of_class, []))))


def test_an_object_of_just_a_sixteenth_is_not_large_and_one_of_more_is() -> None:
    ids = torch.full((1, 1, 16, 16), 3.0)
    for more, expected in ((0, False), (1, True)):
        ids[0, 0].view(-1)[: 16 + more] = 1.0
        made = surveyed(with_encoder(), [batch(1, 16, 16, ids)])
        assert made.gen.encoder is not None
        assert bool(made.gen.encoder.clusters.cluster_1.any()) is expected
        assert made.gen.encoder.clusters.cluster_3.any()


def test_shares_of_several_ranks_give_what_one_finds_alone() -> None:
    batches = [objects(2) for _ in range(6)]
    whole = surveyed(with_encoder(), batches)
    assert whole.gen.encoder is not None
    expected = copy.deepcopy(whole.gen.encoder.clusters.state_dict())
    kept: list[list[Tensor]] = []
    with torch.no_grad():
        whole.before_checkpoint(batches[1::2], lambda tensors: kept.append(list(tensors)) or together(tensors))
        others = iter(kept)
        whole.before_checkpoint(batches[::2], lambda tensors: together([*tensors, *next(others)]))
    for name, x in whole.gen.encoder.clusters.state_dict().items():
        torch.testing.assert_close(x, expected[name])


def test_a_generator_without_an_encoder_has_nothing_to_do_before_a_checkpoint() -> None:
    made = recipe()
    assert not made.has_before_checkpoint
    assert recipe(with_encoder()).has_before_checkpoint
    made.before_checkpoint(iter(lambda: pytest.fail("read the data"), None), together)


def test_the_looks_are_stored_in_the_average_where_there_is_one() -> None:
    made = recipe(with_encoder())
    average = ModelAverage(made.gen)
    with torch.no_grad():
        made.with_networks(gen=average.network).before_checkpoint([objects(4)], together)
    average.update()
    assert not average.network.encoder.clusters.is_empty()
    assert made.gen.encoder is not None and made.gen.encoder.clusters.is_empty()


def test_a_random_style_gives_each_object_a_look_that_is_stored_of_its_class() -> None:
    made = surveyed(with_encoder(is_cityscapes=True), [objects(4) for _ in range(4)])
    full = objects(4)
    bare = made.prepare(Batch({"label": full["label"]}))
    looks = made.generate(bare, rng(), random_style=True)["feature_maps"]
    assert looks.shape == (4, 2, 16, 24)
    assert made.gen.encoder is not None
    clusters = list(made.gen.encoder.clusters.buffers())
    different = set()
    for n in range(4):
        for number in bare["instance_maps"][n].unique().tolist():
            of_object = looks[n][:, bare["instance_maps"][n, 0] == number].unique(dim=1)
            assert of_object.shape == (2, 1)
            of_class = number // 1000 if number >= 1000 else number
            known = clusters[of_class].tolist() if of_class < 5 else [[0.0, 0.0]]
            assert of_object[:, 0].tolist() in known
            different.add(tuple(of_object[:, 0].tolist()))
    assert len(different) > 5


def test_random_styles_follow_from_the_random_source_and_are_those_of_infer() -> None:
    made = surveyed(with_encoder(), [objects(4)])
    ready = made.prepare(objects())
    one, other = (made.infer(ready, rng(number), random_style=True) for number in (1, 2))
    assert [tuple(x.shape) for x in one] == [(3, 16, 24)] * 2
    torch.testing.assert_close(torch.stack(one), torch.stack(made.infer(ready, rng(1), random_style=True)))
    assert not torch.equal(torch.stack(one), torch.stack(other))
    own = made.infer(ready, rng())
    assert torch.equal(torch.stack(own), made.sample(ready, rng()))
    assert not torch.equal(torch.stack(own), torch.stack(one))


def test_without_stored_looks_and_without_images_the_user_is_told_what_is_missing() -> None:
    made = recipe(with_encoder())
    ready = made.prepare(objects())
    with pytest.raises(UserError, match=r"data\.val that fill more than 6\.25%") as caught:
        made.infer(ready, rng(), random_style=True)
    assert caught.value.code == "no-stored-looks"
    with pytest.raises(UserError) as caught:
        made.infer(made.prepare(Batch({"label": objects()["label"]})), rng())
    assert caught.value.code == "no-style-image"


def test_where_there_are_no_objects_a_random_style_changes_nothing() -> None:
    made = recipe()
    ready = made.prepare(batch())
    plain = made.infer(ready, rng())
    assert torch.equal(torch.stack(made.infer(ready, rng(), random_style=True)), torch.stack(plain))


# From coarse to fine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["", "module.", "module.module.", "module.averaged_model."])
def test_a_generator_with_enhancers_begins_as_the_one_without(wrapper: str) -> None:
    coarse, fine = with_encoder(0), with_encoder(1)
    left = fine.load_coarser({wrapper + name: x for name, x in coarse.state_dict().items()})
    assert left == ["enhancers.0"]
    label, looks = torch.rand(1, 5, 32, 32), torch.rand(1, 2, 32, 32)
    seen = inputs_of(coarse.coarse[-1])
    features: list[Tensor] = []
    fine.coarse.register_forward_hook(lambda *args: features.append(args[-1]))
    fine(label, features=looks)
    both = torch.cat([label, looks], dim=1)
    coarse.coarse(F.avg_pool2d(both, 3, 2, 1, count_include_pad=False))
    assert torch.equal(features[0], seen[0])
    images = torch.rand(1, 3, 16, 16)
    assert coarse.encoder is not None and fine.encoder is not None
    assert torch.equal(fine.encoder.layers(images), coarse.encoder.layers(images))


def test_one_enhancer_more_leaves_the_others_as_they_were_but_for_the_image() -> None:
    coarse, fine = generator(1), generator(2)
    image = {"enhancers.0.up.3.conv.weight", "enhancers.0.up.3.conv.bias"}
    assert fine.load_coarser(coarse.state_dict()) == ["enhancers.1"]
    for name, x in coarse.state_dict().items():
        assert name in image or torch.equal(fine.state_dict()[name], x)


def test_of_weights_and_their_average_the_average_counts() -> None:
    gen, fine = generator(0, weight_norm_type="spectral"), generator(1, weight_norm_type="spectral")
    average = ModelAverage(gen)
    with torch.no_grad():
        gen.coarse[0].conv.bias += 1
    wrapped = {f"module.module.{name}": x for name, x in gen.state_dict().items()}
    wrapped |= {f"module.averaged_model.{name}": x for name, x in average.network.state_dict().items()}
    wrapped["module.num_updates_tracked"] = torch.tensor(3)
    assert fine.load_coarser(wrapped) == ["enhancers.0"]
    assert torch.equal(fine.coarse[0].conv.bias, average.network.coarse[0].conv.bias)
    assert torch.equal(fine.coarse[0].conv.weight, average.network.coarse[0].conv.weight)


def test_what_does_not_fit_keeps_its_values_and_is_named() -> None:
    other, fine = generator(0, label_lengths={"seg_maps": 7}), generator(1)
    before = fine.coarse[0].conv.weight.clone()
    assert fine.load_coarser(other.state_dict()) == ["coarse.0", "enhancers.0"]
    assert torch.equal(fine.coarse[0].conv.weight, before)
    assert fine.load_coarser({}) == [*(f"coarse.{index}" for index in (0, 1, 2, 3, 4, 6, 8)), "enhancers.0"]


def test_a_coarse_generator_by_the_references_names_is_found_too() -> None:
    coarse, fine = (with_encoder(count, weight_norm_type="spectral") for count in (0, 1))
    names = reference_names(coarse.state_dict(), coarse.reference_rules())
    assert "global_model.model.0.layers.conv.weight_orig" in names.values()
    state = {names[name]: x for name, x in coarse.state_dict().items()}
    assert fine.load_coarser(state) == ["enhancers.0"]
    for name, x in coarse.coarse[:-1].state_dict().items():
        assert torch.equal(fine.coarse.state_dict()[name], x)


def test_a_training_begins_coarse_with_a_whole_global_generator_and_with_nothing_less() -> None:
    coarse, fine = generator(0), generator(1)
    made = recipe(fine)
    before = copy.deepcopy(fine.state_dict())
    for state in (
        {},
        generator(0, label_lengths={"seg_maps": 7}).state_dict(),
        dict([*coarse.state_dict().items()][2:]),
    ):
        assert made.warm_start(state) is None
        assert all(torch.equal(x, before[name]) for name, x in fine.state_dict().items())
    assert made.warm_start(coarse.state_dict()) == ["enhancers.0"]
    assert torch.equal(fine.coarse[0].conv.weight, coarse.coarse[0].conv.weight)


# The discriminator ------------------------------------------------------------------------------------------


def test_the_discriminators_see_label_and_image_at_halved_sizes() -> None:
    dis = make_discriminator(num_discriminators=3)
    seen = [inputs_of(discriminator.layers[0].conv) for discriminator in dis.patch.discriminators]
    label, images = torch.rand(1, 5, 32, 64), torch.rand(1, 3, 32, 64)
    outputs, features = dis(label, images)
    expected = torch.cat([label, images], dim=1)
    for found in seen:
        torch.testing.assert_close(found[0], expected)
        size = (expected.shape[2] // 2, expected.shape[3] // 2)
        expected = F.interpolate(expected, size=size, mode="bilinear", align_corners=True)
    assert [tuple(x.shape) for x in outputs] == [(1, 1, 8, 16), (1, 1, 4, 8), (1, 1, 2, 4)]
    assert [[x.shape[1] for x in layers] for layers in features] == [[2, 4, 4]] * 3


def test_names_of_the_discriminators_weights_are_the_references() -> None:
    dis = make_discriminator(activation_norm_type="instance")
    names = set(reference_names(dis.state_dict(), dis.reference_rules()).values())
    layer = "model.discriminators.1.layer0.0.layers"
    assert {f"{layer}.conv.weight_orig", f"{layer}.conv.weight_u", f"{layer}.norm.weight"} <= names
    assert "model.discriminators.0.layer3.0.layers.conv.bias" in names
    assert not any(name.startswith("model.discriminators.0.layer3.0.layers.norm") for name in names)


def test_the_discriminator_judges_generated_images_before_real_ones() -> None:
    made = recipe()
    ready = made.prepare(batch())
    fake = torch.rand(2, 3, 16, 24)
    seen = inputs_of(made.dis.patch.discriminators[0].layers[0].conv)
    expected = [torch.cat([ready["label"], images], dim=1) for images in (fake, ready["images"])]
    made.discriminate(ready, fake, should_learn_from_real=False)
    assert all(map(torch.equal, seen, expected))
    made.discriminate(ready, fake, should_learn_from_real=True)  # in one pass
    assert torch.equal(seen[2], torch.cat(expected))


# What comes in and what goes out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_prepare_puts_edges_where_the_ids_were_and_keeps_the_ids_as_integers(bits: int) -> None:
    ids = instances().clamp(max=255) if bits == 8 else instances()
    raw = batch(last=ids / 255 if bits == 8 else ids)
    before = raw["label"].clone()
    ready = recipe(with_encoder()).prepare(raw)
    assert torch.equal(raw["label"], before)
    assert torch.equal(ready["instance_maps"], ids.long())
    assert torch.equal(ready["label"][:, :4], before[:, :4])
    differs = F.pad(ids, (1, 1, 1, 1), mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1) != ids[..., None, None]
    cross = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).bool()
    assert torch.equal(ready["label"][:, 4:], differs[..., cross].any(dim=-1).float())
    assert torch.equal(ready["images"], raw["images"])


def test_instances_without_an_encoder_become_edges_too_and_other_labels_stay() -> None:
    raw = objects()
    plain = generator(label_lengths=OBJECTS)
    ready = recipe(plain, label_lengths=OBJECTS).prepare(raw)
    assert set(ready["label"][:, 4].unique().tolist()) == {0, 1}
    assert recipe(plain, label_lengths=PLAIN).prepare(raw).tensors == raw.tensors


def test_ids_of_instances_that_do_not_come_last_are_the_users_mistake() -> None:
    with pytest.raises(UserError) as caught:
        recipe(label_lengths={"instance_maps": 1, "seg_maps": 4})
    assert (caught.value.where, caught.value.code) == ("data.input_labels", "instances-not-last")


def test_prepare_keeps_the_memory_format() -> None:
    raw = objects()
    label = raw["label"].contiguous(memory_format=torch.channels_last)
    ready = recipe(with_encoder()).prepare(raw.replace(label=label))
    assert ready["label"].is_contiguous(memory_format=torch.channels_last)


def test_prepare_brings_labels_by_nearest_and_images_by_bicubic_to_sides_that_can_be_halved() -> None:
    made = recipe(with_encoder(1))
    assert made.gen.size_multiple == 8
    raw = objects(1, 28, 44)
    ready = made.prepare(raw)
    resized = F.interpolate(raw["label"], size=(24, 40), mode="nearest")
    assert torch.equal(ready["instance_maps"], resized[:, 4:].long())
    assert torch.equal(ready["label"][:, :4], resized[:, :4])
    expected = F.interpolate(raw["images"], size=(24, 40), mode="bicubic", align_corners=False)
    torch.testing.assert_close(ready["images"], expected)
    assert made.generate(ready, rng())["fake_images"].shape == (1, 3, 24, 40)


def test_sides_are_multiples_of_what_the_encoder_halves_too() -> None:
    looks = EncoderParams(num_feat_channels=2, num_filters=2, num_downsamples=3)
    assert with_encoder(looks=looks).size_multiple == 8
    assert with_encoder(2, looks=looks).size_multiple == 16


def test_more_enhancers_than_the_filters_can_be_halved_are_the_users_mistake() -> None:
    generator(2)
    with pytest.raises(UserError) as caught:
        generator(3)
    assert (caught.value.where, caught.value.code) == ("global_generator.num_filters", "odd-width")


@pytest.mark.parametrize(
    ("enhancers", "downs", "padding_mode", "norm", "smallest"),
    [
        (0, 2, "reflect", "none", 8),
        (1, 2, "reflect", "none", 16),
        (1, 2, "zeros", "none", 8),
        (1, 2, "zeros", "instance", 16),
        (1, 1, "circular", "none", 8),
        (0, 1, "circular", "none", 4),
        (2, 1, "reflect", "instance", 16),
        (0, 1, "replicate", "none", 2),
    ],
)
def test_the_smallest_image_can_be_painted_and_a_smaller_one_is_the_users_mistake(
    enhancers: int, downs: int, padding_mode: str, norm: str, smallest: int
) -> None:
    """A smaller one, with sides that can be halved, makes torch fail; there may be none."""
    smaller = GlobalGeneratorParams(num_filters=4, num_downsamples=downs, num_res_blocks=1)
    gen = generator(enhancers, global_generator=smaller, padding_mode=padding_mode, activation_norm_type=norm)
    made = recipe(gen)
    ready = made.prepare(batch(1, smallest, smallest))
    assert made.sample(ready, rng()).shape == (1, 3, smallest, smallest)
    below = smallest - gen.size_multiple
    with pytest.raises(UserError) as caught:
        made.sample(made.prepare(batch(1, smallest - 1, smallest - 1)), rng())
    assert (caught.value.where, caught.value.code) == ("gen", "image-too-small")
    seen = f"{below} x {below}" if below else f"{smallest - 1} x {smallest - 1}"
    assert f"label of {seen} px" in caught.value.what and caught.value.what.endswith(f"at least {smallest} px")
    if below:
        with pytest.raises((RuntimeError, ValueError)):
            gen(torch.rand(1, 5, below, below))


def test_an_image_that_only_the_encoder_finds_too_small_is_the_users_mistake_in_true_words() -> None:
    looks = EncoderParams(num_feat_channels=2, num_filters=2, num_downsamples=4)
    made = recipe(with_encoder(looks=looks))
    with pytest.raises(UserError, match=r"label of 16 x 16 px, in multiples of 16 px, .* at least 32 px"):
        made.sample(made.prepare(objects()), rng())
    assert made.sample(made.prepare(objects(1, 32, 32)), rng()).shape == (1, 3, 32, 32)


def test_gray_images_are_shown_with_three_channels() -> None:
    made = recipe(generator(image_channels=1), make_discriminator(image_channels=1))
    given = batch().replace(images=torch.rand(2, 1, 16, 24) * 2 - 1)
    for player, losses in made.step(given, moment()):
        assert made.total(losses).isfinite(), player
    shown = {**made.visualize_inputs(given), **made.visualize_outputs(given, rng()), "target": made.target(given)}
    assert {name: tuple(x.shape) for name, x in shown.items()} == dict.fromkeys(shown, (2, 3, 16, 24))


def test_inputs_are_the_images_the_colors_of_classes_and_the_edges_of_objects() -> None:
    made = recipe(with_encoder())
    ready = made.prepare(objects())
    shown = made.visualize_inputs(ready)
    assert list(shown) == ["images", "seg_maps", "instance_maps"]
    assert all(x.shape == (2, 3, 16, 24) and x.min() >= -1 and x.max() <= 1 for x in shown.values())
    assert torch.equal(shown["images"], ready["images"])
    assert torch.equal(shown["instance_maps"], (ready["label"][:, 4:] * 2 - 1).expand(-1, 3, -1, -1))
    assert len(shown["seg_maps"].movedim(1, -1).reshape(-1, 3).unique(dim=0)) == 4


def test_outputs_are_images_in_range_and_float32_and_the_target_is_the_image() -> None:
    made = recipe(with_encoder())
    ready = made.prepare(objects())
    with torch.autocast("cpu", torch.bfloat16):
        shown = made.visualize_outputs(ready, rng())
    assert list(shown) == ["fake"]
    assert shown["fake"].shape == (2, 3, 16, 24) and shown["fake"].dtype == torch.float32
    assert shown["fake"].abs().max() <= 1
    assert torch.equal(made.target(ready), ready["images"])


def test_only_a_label_that_is_an_image_is_a_baseline() -> None:
    lines = recipe(generator(label_lengths={"edge_maps": 1}), label_lengths={"edge_maps": 1})
    label = torch.rand(2, 1, 16, 24)
    found = lines.baselines(Batch({"label": label}))
    assert found.keys() == {"edge_maps as they are"}
    assert torch.equal(found["edge_maps as they are"], (label * 2 - 1).expand(-1, 3, -1, -1))
    edges = {"edge_maps": 1}
    normalized = recipe(generator(label_lengths=edges), label_lengths=edges, normalized=["edge_maps"])
    again = normalized.baselines(Batch({"label": label * 2 - 1}))
    assert torch.equal(again["edge_maps as they are"], found["edge_maps as they are"])
    assert recipe().baselines(batch()) == {}
    one = {"instance_maps": 1}
    assert recipe(generator(label_lengths=one), label_lengths=one).baselines(Batch({"label": label})) == {}


# Losses --------------------------------------------------------------------------------------------------------------


def phases(made: Recipe, given: Batch, epoch: int = 0) -> dict[str, Losses]:
    return dict(made.step(given, moment(epoch)))


@pytest.mark.parametrize("mode", ["hinge", "least_square", "non_saturated", "wasserstein"])
@pytest.mark.parametrize("relativistic", [False, True])
def test_losses_are_their_formulas_of_the_discriminators_verdict(mode: Any, relativistic: bool) -> None:
    dis = make_discriminator(weight_norm_type="none")
    weights = LossWeights(gan=1, feature_matching=1, perceptual=0, l1=1)
    made = recipe(dis=dis, gan_mode=mode, gan_relativistic=relativistic, loss_weight=weights)
    given = batch()
    found = phases(made, given)
    fake = made.gen(given["label"])["fake_images"]
    fakes, fake_features = dis(given["label"], fake)
    reals, real_features = dis(given["label"], given["images"])
    if relativistic:
        fakes, reals = [x - y for x, y in zip(fakes, reals)], [y - x for x, y in zip(fakes, reals)]
    torch.testing.assert_close(found["dis"], {"gan": dis_fake_loss(fakes, mode) + dis_real_loss(reals, mode)})
    expected = {
        "gan": gen_loss(fakes, mode),
        "feature_matching": feature_matching(fake_features, real_features),
        "l1": (fake - given["images"]).abs().mean(),
    }
    torch.testing.assert_close(found["gen"], expected)


def test_logged_names_are_the_references() -> None:
    weights = LossWeights(gan=1, feature_matching=1, perceptual=1)
    made = recipe(loss_weight=weights)
    made.perceptual = lambda images, target: (images - target).square().mean()  # type: ignore[assignment]
    losses = {name: {**of, "total": made.total(of)} for name, of in phases(made, batch()).items()}
    assert set(tag_losses(losses, made.log_names)) == {
        "dis_update/GAN",
        "dis_update/total",
        "gen_update/GAN",
        "gen_update/FeatureMatching",
        "gen_update/Perceptual",
        "gen_update/total",
    }


def test_the_total_is_the_weighted_sum() -> None:
    made = recipe(loss_weight=LossWeights(gan=3, feature_matching=5, perceptual=7, l1=11))
    losses = {name: torch.tensor(value) for name, value in (("gan", 1.0), ("feature_matching", 10.0), ("l1", 0.5))}
    assert made.total(losses).item() == 3 + 50 + 5.5


def test_a_discriminator_without_a_loss_is_the_users_mistake() -> None:
    with pytest.raises(UserError) as caught:
        recipe(loss_weight=LossWeights(gan=0, feature_matching=1, perceptual=0))
    assert (caught.value.where, caught.value.code) == ("loss_weight.gan", "no-loss-weight")


def test_a_perceptual_weight_needs_its_section() -> None:
    assert recipe().load_losses() == ()
    with pytest.raises(UserError) as caught:
        recipe(loss_weight=LossWeights(gan=1, feature_matching=1, perceptual=1)).load_losses()
    assert (caught.value.where, caught.value.code) == ("loss_weight.perceptual", "missing-section")


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_generators_best_scores_count_less_of_them_with_every_epoch(per_sample: bool) -> None:
    dis = make_discriminator(weight_norm_type="none", num_discriminators=1)
    made = recipe(dis=dis, gan_decay_k=0.5, gan_min_k=0.3, gan_separate_topk=per_sample)
    given = batch()
    scores = dis(given["label"], made.gen(given["label"])["fake_images"])[0][0].detach()
    scores = scores.flatten(1) if per_sample else scores.view(1, -1)
    for epoch, keep in enumerate((1.0, 0.5, 0.3, 0.3)):
        best = scores.sort(dim=1, descending=True).values[:, : -int(-keep * scores.shape[1] // 1)]
        torch.testing.assert_close(phases(made, given, epoch)["gen"]["gan"], -best.mean())


# The schedule --------------------------------------------------------------------------------------------------------


def passes(module: nn.Module) -> list[bool]:
    """Of every forward of a module from now on: whether it had gradients."""
    seen: list[bool] = []
    module.register_forward_pre_hook(lambda *args: seen.append(torch.is_grad_enabled()))
    return seen


def test_one_forward_of_the_generator_serves_both_updates() -> None:
    made = recipe(with_encoder(weight_norm_type="spectral"))
    of_gen, of_dis = passes(made.gen), passes(made.dis)
    phases(made, objects())
    assert of_gen == [True]
    assert of_dis == [True, True, False]


def test_the_references_order_generates_anew_for_each_update() -> None:
    made = recipe(reference_order=True)
    of_gen, of_dis = passes(made.gen), passes(made.dis)
    phases(made, batch())
    assert of_gen == [False, True]
    assert of_dis == [True, True, True, False]


def test_both_orders_give_the_same_losses() -> None:
    """Of networks that a forward does not change."""
    gen, dis = with_encoder(), make_discriminator(weight_norm_type="none")
    given = objects()
    found = [phases(recipe(gen, dis, reference_order=order), given) for order in (False, True)]
    torch.testing.assert_close(*found)


def test_the_discriminators_losses_move_no_generator_and_the_generators_see_the_updated_discriminator() -> None:
    made = recipe(with_encoder(), make_discriminator(weight_norm_type="none"))
    given = objects()
    running = made.step(given, moment())
    player, losses = next(running)
    assert player == "dis"
    gradients = torch.autograd.grad(made.total(losses), list(made.gen.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)
    with torch.no_grad():
        for discriminator in made.dis.patch.discriminators:
            discriminator.layers[-1].conv.bias += 10
    expected = made.gen_losses(made.prepare(given), made.generate(made.prepare(given), rng()), moment())
    player, losses = next(running)
    assert player == "gen"
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize(("dis_step", "gen_step"), [(2, 1), (1, 3), (0, 1), (1, 0)])
def test_several_updates_take_their_parts_of_the_batch(dis_step: int, gen_step: int) -> None:
    made = recipe(with_encoder(), dis_step=dis_step, gen_step=gen_step)
    given = objects(2 * max(dis_step, gen_step))
    seen = inputs_of(made.gen)
    players = [player for player, _ in made.step(given, moment())]
    assert players == ["dis"] * dis_step + ["gen"] * gen_step
    ready = made.prepare(given)["label"]
    for found, index in zip(seen, (*range(dis_step), *range(gen_step)), strict=True):
        assert torch.equal(found, ready[2 * index : 2 * index + 2])


def test_all_losses_of_half_precision_are_float32_and_finite() -> None:
    made = recipe(with_encoder(1), loss_weight=LossWeights(gan=1, feature_matching=1, perceptual=0, l1=1))
    running: Iterator[tuple[str, Losses]] = made.step(objects(2, 16, 32), moment())
    with torch.autocast("cpu", torch.bfloat16):
        found = [losses for _, losses in running]
    assert [len(losses) for losses in found] == [1, 3]
    for losses in found:
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        made.total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.gen.parameters())
