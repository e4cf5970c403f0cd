"""A generator that another run has trained, as a part of a network that does not learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from imagier.nn.average import NotAveraged
from imagier.nn.reference_names import Rules


@dataclass(frozen=True, kw_only=True)
class PretrainedParams:
    """A generator that another run has trained."""

    config: str
    """Its config."""
    checkpoint: str | None = None
    """Its checkpoint, which training begins with; inference finds these weights in the checkpoint of the whole."""


@dataclass(frozen=True)
class Pretrained:
    """What there is to know of such a generator."""

    network: nn.Module
    """As its constructor makes it, for the same labels and images."""
    type: str
    """Of its method."""
    load: Callable[[nn.Module], None]
    """Fills a network like that with the weights of the checkpoint. UserError if it cannot be."""


OpenPretrained = Callable[[PretrainedParams], Pretrained]
"""What the run gives to networks that ask for it. UserError if there is no such config."""


class Frozen(NotAveraged):
    """Holds a network that does not learn, whatever happens around it; it is always in eval mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode."""
        return super().train(False)

    def reference_rules(self, name: str) -> Rules:
        """The rules of the network, for a part called `name` that holds it."""
        inner: Rules = self.network.reference_rules()  # type: ignore[operator]
        begin = rf"^{name}\."
        named = [(rf"{begin}{old[1:]}", f"{name}.{new}") if old.startswith("^") else (old, new) for old, new in inner]
        return ((rf"{begin}network\.", f"{name}."), *named)
