"""FUNIT and COCO-FUNIT written down once more, as formulas over weights that bear the reference's names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.reference_names import reference_names
from imagier.recipe import Batch


class Formulas:
    """Forward passes in eval mode, from the state of a network."""

    def __init__(self, network: nn.Module) -> None:
        state = network.state_dict()
        names = reference_names(state, network.reference_rules())
        self.state = {theirs: state[ours] for ours, theirs in names.items()}

    def weight(self, name: str) -> Tensor:
        """The weight of a layer after its norm, if it has one."""
        if f"{name}.weight" in self.state:
            return self.state[f"{name}.weight"]
        if f"{name}.weight_g" in self.state:
            direction = self.state[f"{name}.weight_v"]
            return direction * self.state[f"{name}.weight_g"] / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        original = self.state[f"{name}.weight_orig"]
        return original / (self.state[f"{name}.weight_u"] @ original.flatten(1) @ self.state[f"{name}.weight_v"])

    def conv(self, x: Tensor, name: str, *, stride: int = 1, padding: int = 0, mode: str = "reflect") -> Tensor:
        """The convolution of a block."""
        if padding:
            x = F.pad(x, (padding,) * 4, mode="constant" if mode == "zeros" else mode)
        name += ".layers.conv"
        return F.conv2d(x, self.weight(name), self.state[f"{name}.bias"], stride=stride)

    def count(self, prefix: str) -> int:
        """How many children a sequence has, by the largest number of a child with weights."""
        return 1 + max(int(name.removeprefix(f"{prefix}.").split(".")[0]) for name in self.state if prefix in name)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.layers.conv.weight"], self.state[f"{name}.layers.conv.bias"])

    def mlp(self, x: Tensor, name: str) -> Tensor:
        """Every layer ends in a ReLU."""
        for index in range(self.count(f"generator.{name}.model")):
            x = self.linear(x, f"generator.{name}.model.{index}").clamp(min=0)
        return x

    # Generators

    def style(self, images: Tensor) -> Tensor:
        """N x 3 x H x W -> N x Z."""
        prefix = "generator.style_encoder.model"
        last = self.count(prefix) - 1  # the mean over places stands before it
        x = self.conv(images, f"{prefix}.0", padding=3).relu()
        for index in range(1, last - 1):
            x = self.conv(x, f"{prefix}.{index}", stride=2, padding=1).relu()
        mean = x.flatten(2).mean(dim=2)
        return mean @ self.state[f"{prefix}.{last}.weight"][:, :, 0, 0].T + self.state[f"{prefix}.{last}.bias"]

    def content(self, images: Tensor, num_downsamples: int) -> Tensor:
        """N x 3 x H x W -> N x C x h x w."""
        prefix = "generator.content_encoder.model"

        def layer(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
            x = standardised(self.conv(x, name, stride=stride, padding=padding))
            scale, shift = (self.state[f"{name}.layers.norm.{kind}"].view(-1, 1, 1) for kind in ("weight", "bias"))
            return (x * scale + shift).relu()

        x = layer(images, f"{prefix}.0", 1, 3)
        for index in range(1, num_downsamples + 1):
            x = layer(x, f"{prefix}.{index}", 2, 1)
        for index in range(num_downsamples + 1, self.count(prefix)):
            block = f"{prefix}.{index}.conv_block"
            x = x + layer(layer(x, f"{block}_0", 1, 1), f"{block}_1", 1, 1)
        return x

    def decoded(self, content: Tensor, code: Tensor) -> Tensor:
        """N x C x h x w, N x P -> image."""
        prefix = "generator.decoder.decoder"
        last = self.count(prefix) - 1

        def layer(x: Tensor, name: str, padding: int) -> Tensor:
            x = standardised(self.conv(x, name, padding=padding))
            gamma, beta = self.linear(code, f"{name}.layers.norm.fc")[:, :, None, None].chunk(2, dim=1)
            return (x * (1 + gamma) + beta).relu()

        x = content
        for index in range(last):
            block = f"{prefix}.{index}.conv_block"
            if index < 2:
                x = x + layer(layer(x, f"{block}_0", 1), f"{block}_1", 1)
            else:
                shortcut = layer(doubled(x), f"{block}_s", 0)
                x = shortcut + layer(doubled(layer(x, f"{block}_0", 2)), f"{block}_1", 2)
        return self.conv(x, f"{prefix}.{last}", padding=3).tanh()

    # Discriminator

    def scores(self, images: Tensor, labels: Tensor, *, num_layers: int, mode: str) -> tuple[Tensor, Tensor]:
        """Scores N x 1 x h x w and pooled features."""
        x = self.conv(images, "model.model.0", padding=3, mode=mode)
        for index in range(num_layers):
            for name in (f"model.model.{1 + 4 * index}.conv_block", f"model.model.{2 + 4 * index}.conv_block"):
                dx = self.conv(leaky(x), f"{name}_0", padding=1, mode=mode)
                dx = self.conv(leaky(dx), f"{name}_1", padding=1, mode=mode)
                is_wider = any(key.startswith(f"{name}_s") for key in self.state)
                x = dx + (self.conv(x, f"{name}_s") if is_wider else x)
            if index < num_layers - 1:
                x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect").flatten(0, 1)[:, None], NINTH.to(x), stride=2)
                x = x.unflatten(0, (len(images), -1))[:, :, 0]
        features = x.flatten(2).mean(dim=2)
        of_class = torch.stack([self.state["model.embedder.weight"][k] @ f for k, f in zip(labels, features)])
        return self.conv(leaky(x), "model.classifier") + of_class.view(-1, 1, 1, 1), features


NINTH = torch.full((1, 1, 3, 3), 1 / 9)


def standardised(x: Tensor) -> Tensor:
    """Every channel of every sample with mean 0 and (biased) variance 1, but for the epsilon of the norms."""
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def randomize(network: nn.Module) -> nn.Module:
    """The network in double precision and eval mode, no weight of which is 0 or 1 any more."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double().eval()


def batch(count: int = 2, height: int = 16, width: int = 16, *, num_classes: int = 5) -> Batch:
    """Images of noise and classes, as the data set makes them."""
    images = {name: torch.rand(count, 3, height, width) * 2 - 1 for name in ("images_content", "images_style")}
    labels = {name: torch.randint(num_classes, (count,)) for name in ("labels_content", "labels_style")}
    keys = {name: [f"{name}/{i}" for i in range(count)] for name in images}
    return Batch({**images, **labels}, keys)
