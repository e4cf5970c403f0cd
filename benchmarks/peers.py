"""pix2pix and CycleGAN as their papers train them, beside the same networks in Imagier: `python benchmarks/peers.py`.

Written from Isola et al. 2017 (appendix 6) and Zhu et al. 2017 (sections 3, 4 and 7.2): U-Net and ResNet generators of
64 filters, 70 x 70 PatchGANs, batch 1 of 256 x 256. "By hand" is the step that one writes first in plain PyTorch.
Imagier computes the same losses with its own convolutions and norms, in channels_last if in bf16, and images that go
through a network together in one pass. The same weights and data, in turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from common import add_json, describe_ratio, interleaved, measure_peak, ratio, start, write_ratios
from torch import Tensor, nn

from imagier.nn.conv import Conv2d, choose_algorithms
from imagier.nn.instance_norm import InstanceNorm2d
from imagier.nn.joint import run_jointly
from imagier.recipe import Batch, Losses, Recipe, StepContext
from imagier.train.optim import Adam
from imagier.train.player import Player
from imagier.train.runtime import Precision, Runtime
from imagier.train.schedule import Constant
from imagier.train.trainer import Trainer

L1_WEIGHT, CYCLE_WEIGHT, IDENTITY_WEIGHT = 100.0, 10.0, 5.0
ADAM = {"lr": 2e-4, "betas": (0.5, 0.999)}

Conv = Callable[..., nn.Module]
Norm = Callable[[int], nn.Module]


class Layers(NamedTuple):
    """What the networks are made of."""

    conv: Conv
    instance_norm: Norm


TORCH, OURS = Layers(nn.Conv2d, nn.InstanceNorm2d), Layers(Conv2d, InstanceNorm2d)


class UNet(nn.Module):
    """Encoder C64-C128-C256-C512-C512-..., decoder with skips and dropout (Isola et al., 6.1.1)."""

    def __init__(self, conv: Conv, depth: int, filters: int) -> None:
        super().__init__()
        widths = [filters * min(2**level, 8) for level in range(depth)]
        self.down = nn.ModuleList([conv(3, widths[0], 4, 2, 1)])
        for level, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            norm = nn.BatchNorm2d(outputs) if level < depth - 1 else nn.Identity()  # one value a channel there
            self.down.append(nn.Sequential(nn.LeakyReLU(0.2), conv(inputs, outputs, 4, 2, 1), norm))
        self.up = nn.ModuleList()
        for level, (outputs, inputs) in reversed(list(enumerate(pairwise(widths)))):
            inputs *= 1 if level == depth - 2 else 2  # the skip
            dropout = nn.Dropout(0.5) if level >= depth - 4 else nn.Identity()
            up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
            self.up.append(nn.Sequential(nn.ReLU(), up, nn.BatchNorm2d(outputs), dropout))
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * widths[0], 3, 4, 2, 1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W -> the same, H and W divisible by 2 ** depth."""
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = skips.pop()
        for layer in self.up:
            x = torch.cat([layer(x), skips.pop()], dim=1)
        return self.last(x)


def resnet(conv: Conv, norm: Norm, filters: int, blocks: int = 9) -> nn.Sequential:
    """c7s1-64, d128, d256, R256 x 9, u128, u64, c7s1-3 (Zhu et al., 7.2); N x 3 x H x W -> the same."""
    reflect = partial(conv, padding_mode="reflect")
    f = filters
    layers = [reflect(3, f, 7, 1, 3), norm(f), nn.ReLU()]
    for width in (f, 2 * f):
        layers += [conv(width, 2 * width, 3, 2, 1), norm(2 * width), nn.ReLU()]
    layers += [Residual(reflect, norm, 4 * f) for _ in range(blocks)]
    for width in (4 * f, 2 * f):
        up = nn.ConvTranspose2d(width, width // 2, 3, 2, padding=1, output_padding=1)
        layers += [up, norm(width // 2), nn.ReLU()]
    return nn.Sequential(*layers, reflect(f, 3, 7, 1, 3), nn.Tanh())


class Residual(nn.Module):
    """x + f(x), two convolutions in f."""

    def __init__(self, conv: Conv, norm: Norm, width: int) -> None:
        super().__init__()
        first, second = (conv(width, width, 3, 1, 1) for _ in range(2))
        self.layers = nn.Sequential(first, norm(width), nn.ReLU(), second, norm(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def patchgan(conv: Conv, norm: Norm, inputs: int, filters: int) -> nn.Sequential:
    """C64-C128-C256-C512 and a score for each 70 x 70 pixels (Isola et al., 6.1.2)."""
    f = filters
    layers = [conv(inputs, f, 4, 2, 1), nn.LeakyReLU(0.2)]
    for width, stride in ((f, 2), (2 * f, 2), (4 * f, 1)):
        layers += [conv(width, 2 * width, 4, stride, 1), norm(2 * width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, conv(8 * f, 1, 4, 1, 1))


def bce(scores: Tensor, is_real: bool) -> Tensor:
    """The loss of the original GAN (Goodfellow et al. 2014). Logits of any shape -> scalar."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(is_real)))


def least_squares(scores: Tensor, is_real: bool) -> Tensor:
    """Mao et al. 2017. Scores of any shape -> scalar."""
    return F.mse_loss(scores, torch.full_like(scores, float(is_real)))


class Pix2pix(Recipe):
    """Isola et al. 2017, eq. 4."""

    loss_weight = {"gan": 1.0, "l1": L1_WEIGHT}  # noqa: RUF012

    def __init__(self, gen: nn.Module, dis: nn.Module) -> None:
        self.gen, self.dis = gen, dis

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        a, b = batch["a"], batch["b"]
        fake = self.gen(a)
        calls = [(self.dis, (torch.cat([a, images], dim=1),)) for images in (fake.detach(), b)]
        of_fake, of_real = run_jointly(calls)
        yield "dis", {"gan": (bce(of_fake, False) + bce(of_real, True)) / 2}
        yield "gen", {"gan": bce(self.dis(torch.cat([a, fake], dim=1)), True), "l1": F.l1_loss(fake, b)}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.gen(batch["a"])


def pix2pix_by_hand(gen: nn.Module, dis: nn.Module, batch: Batch, autocast: Autocast) -> Callable[[], None]:
    """A step of Pix2pix in plain PyTorch."""
    of_gen, of_dis = (torch.optim.Adam(network.parameters(), **ADAM) for network in (gen, dis))
    a, b = batch["a"], batch["b"]

    def step() -> None:
        with autocast():
            fake = gen(a)
        dis.requires_grad_(True)
        of_dis.zero_grad()
        with autocast():
            of_fake, of_real = dis(torch.cat([a, fake.detach()], dim=1)), dis(torch.cat([a, b], dim=1))
            loss = (bce(of_fake, False) + bce(of_real, True)) / 2
        loss.backward()
        of_dis.step()
        dis.requires_grad_(False)
        of_gen.zero_grad()
        with autocast():
            loss = bce(dis(torch.cat([a, fake], dim=1)), True) + L1_WEIGHT * F.l1_loss(fake, b)
        loss.backward()
        of_gen.step()

    return step


class CycleGAN(Recipe):
    """Zhu et al. 2017, eq. 3, with the identity loss of section 5.2."""

    loss_weight = {"gan": 1.0, "cycle": CYCLE_WEIGHT, "identity": IDENTITY_WEIGHT}  # noqa: RUF012

    def __init__(self, gen: nn.ModuleDict, dis: nn.ModuleDict) -> None:
        """gen: networks `a` and `b`, which make images of that domain. dis: networks that judge them."""
        self.gen, self.dis = gen, dis

    def step(self, batch: Batch, ctx: StepContext) -> Iterator[tuple[str, Losses]]:
        a, b = batch["a"], batch["b"]
        to_a, to_b = self.gen["a"], self.gen["b"]
        fake_a, same_a, fake_b, same_b = run_jointly([(to_a, (b,)), (to_a, (a,)), (to_b, (a,)), (to_b, (b,))])
        gan = least_squares(self.dis["a"](fake_a), True) + least_squares(self.dis["b"](fake_b), True)
        cycle = F.l1_loss(to_a(fake_b), a) + F.l1_loss(to_b(fake_a), b)
        yield "gen", {"gan": gan, "cycle": cycle, "identity": F.l1_loss(same_a, a) + F.l1_loss(same_b, b)}
        losses = []
        for domain, fake, real in (("a", fake_a, a), ("b", fake_b, b)):
            of_fake, of_real = run_jointly([(self.dis[domain], (x,)) for x in (fake.detach(), real)])
            losses.append((least_squares(of_fake, False) + least_squares(of_real, True)) / 2)
        yield "dis", {"gan": losses[0] + losses[1]}

    def sample(self, batch: Batch, rng: torch.Generator) -> Tensor:
        return self.gen["b"](batch["a"])


def cycle_gan_by_hand(gen: nn.ModuleDict, dis: nn.ModuleDict, batch: Batch, autocast: Autocast) -> Callable[[], None]:
    """A step of CycleGAN in plain PyTorch."""
    of_gen, of_dis = (torch.optim.Adam(networks.parameters(), **ADAM) for networks in (gen, dis))
    a, b = batch["a"], batch["b"]

    def gen_loss() -> tuple[Tensor, Tensor, Tensor]:
        fake_b, fake_a = gen["b"](a), gen["a"](b)
        cycle = F.l1_loss(gen["a"](fake_b), a) + F.l1_loss(gen["b"](fake_a), b)
        identity = F.l1_loss(gen["a"](a), a) + F.l1_loss(gen["b"](b), b)
        gan = least_squares(dis["a"](fake_a), True) + least_squares(dis["b"](fake_b), True)
        return gan + CYCLE_WEIGHT * cycle + IDENTITY_WEIGHT * identity, fake_a, fake_b

    def step() -> None:
        dis.requires_grad_(False)
        of_gen.zero_grad()
        with autocast():
            loss, *fakes = gen_loss()
        loss.backward()
        of_gen.step()
        dis.requires_grad_(True)
        of_dis.zero_grad()
        for network, fake, real in zip((dis["a"], dis["b"]), fakes, (a, b)):
            with autocast():
                loss = (least_squares(network(fake.detach()), False) + least_squares(network(real), True)) / 2
            loss.backward()
        of_dis.step()

    return step


Autocast = Callable[[], AbstractContextManager[None]]
Networks = Callable[[Layers, int], tuple[nn.Module, nn.Module]]
"""Of layers, and of the height and width of the images [pixels]: generators and discriminators."""


def build_pix2pix_unet(layers: Layers, side: int, filters: int = 64) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator."""
    return UNet(layers.conv, side.bit_length() - 1, filters), patchgan(layers.conv, nn.BatchNorm2d, 6, filters)


def build_pix2pix_resnet(layers: Layers, side: int, filters: int = 64) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator."""
    conv, norm = layers.conv, nn.BatchNorm2d
    return resnet(conv, norm, filters), patchgan(conv, norm, 6, filters)


def build_cycle_gan(layers: Layers, side: int, filters: int = 64) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """Generators and discriminators of both domains."""
    gens = {domain: resnet(*layers, filters) for domain in "ab"}
    return nn.ModuleDict(gens), nn.ModuleDict({domain: patchgan(*layers, 3, filters) for domain in "ab"})


PEERS: dict[str, tuple[Networks, type[Recipe], Callable[..., Callable[[], None]]]] = {
    "pix2pix, U-Net": (build_pix2pix_unet, Pix2pix, pix2pix_by_hand),
    "pix2pix, ResNet": (build_pix2pix_resnet, Pix2pix, pix2pix_by_hand),
    "CycleGAN": (build_cycle_gan, CycleGAN, cycle_gan_by_hand),
}


def build(peer: str, side: int, precision: Precision) -> tuple[Trainer, Batch, Callable[[], None]]:
    """Imagier's trainer, a batch of noise, and the step by hand, with the same weights."""
    networks, recipe_type, by_hand = PEERS[peer]
    torch.manual_seed(0)
    batch = Batch({name: torch.rand(1, 3, side, side) * 2 - 1 for name in "ab"})
    own, plain = networks(OURS, side), networks(TORCH, side)
    memory_format = torch.channels_last if precision == "bf16" else torch.contiguous_format
    for one, other in zip(own, plain):
        other.load_state_dict(one.state_dict())
        one.to(memory_format=memory_format)
        choose_algorithms(one, has_winograd=True, has_subpixel=True)
    runtime = Runtime(torch.device("cpu"), precision=precision)
    recipe = recipe_type(*own)
    players = {
        name: Player(network, Adam(network.parameters(), **ADAM), runtime, schedule=Constant(), by_iteration=False)
        for name, network in recipe.networks.items()
    }
    laid = Batch({name: x.contiguous(memory_format=memory_format) for name, x in batch.tensors.items()})
    return Trainer(recipe, players, runtime, seed=0), laid, by_hand(*plain, batch, runtime.autocast)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=256, help="of the images, a power of 2 [pixels]")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    add_json(parser)
    args = parser.parse_args(arguments)
    start(args.threads)
    print(f"measured peak: {measure_peak():.0f} GFLOPS in fp32")
    ratios: dict[str, float] = {}
    for name in PEERS:
        for precision in args.precisions:
            trainer, batch, by_hand = build(name, args.side, precision)
            seconds = interleaved({"imagier": lambda: trainer.train_step(batch), "by hand": by_hand}, args.rounds)  # noqa: B023
            ours, theirs = (statistics.median(each) for each in seconds.values())
            ratios[f"{name}, {precision}"] = ratio(seconds["by hand"], seconds["imagier"])
            faster = describe_ratio(seconds["by hand"], seconds["imagier"])
            print(f"{name}, {precision}: {ours:.2f} s, by hand {theirs:.2f} s; by hand / Imagier {faster}", flush=True)
    write_ratios(args.json, ratios)


if __name__ == "__main__":
    main()
