"""Two critics, one for each domain of a translation between pictures of two kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.conv import PaddingMode, WeightNorm
from imagier.nn.norm import Norm
from imagier.nn.patch import MultiScalePatchCritic
from imagier.nn.reference_names import Rules
from imagier.nn.residual_critic import Aggregation, CriticOrder, ResidualCritic

ORDER = ("ab", "ba", "a", "b", "aa", "bb")
"""Pictures are judged in this order, which tells where power iterations of spectral norms and batch statistics go."""


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """What only the multi-scale patch critic has; None takes its default."""

    num_discriminators: int | None
    kernel_size: int | None


@dataclass(frozen=True, kw_only=True)
class ResidualOptions:
    """What only the residual critic has; None takes its default."""

    first_kernel_size: int | None
    padding_mode: PaddingMode | None
    aggregation: Aggregation | None
    order: CriticOrder | None
    anti_aliased: bool | None


class DomainCritics(nn.Module):
    """`discriminator_a` and `discriminator_b`: each tells pictures of its domain from translated ones."""

    def __init__(
        self,
        patch: PatchOptions,
        residual: ResidualOptions,
        *,
        is_patch: bool,
        switch: str,
        shared: bool,
        num_image_channels: int,
        num_filters: int,
        max_num_filters: int,
        num_layers: int,
        activation_norm_type: Norm,
        weight_norm_type: WeightNorm,
    ) -> None:
        """is_patch: the multi-scale patch critic, else the residual one. switch: the config's key for that.

        shared: one patch critic serves all scales. UserError where an option of the other kind is given.
        """
        super().__init__()
        common: dict[str, Any] = {
            "num_filters": num_filters,
            "max_num_filters": max_num_filters,
            "num_layers": num_layers,
            "activation_norm_type": activation_norm_type,
            "weight_norm_type": weight_norm_type,
        }
        own, other = (asdict(patch), asdict(residual)) if is_patch else (asdict(residual), asdict(patch))
        for name in _given(other):
            raise UserError(f"{name} has no effect with {switch}: {str(is_patch).lower()}; remove it")

        def critic() -> nn.Module:
            if not is_patch:
                return ResidualCritic(num_image_channels, **common, **_given(own))
            options: dict[str, Any] = {"num_discriminators": 3, "kernel_size": 3, **_given(own)}
            return MultiScalePatchCritic(num_image_channels, shared=shared, **common, **options)

        self.shared = shared
        self.discriminator_a = critic()
        self.discriminator_b = critic()

    def forward(self, pictures: Mapping[str, Tensor]) -> dict[str, Any]:
        """Pictures N x C x H x W in [-1, 1] by their way -> "out_<way>", scores per scale; "fea_<way>", features.

        The way is where a picture comes from and goes to: "a" is a real one, "ba" was translated from b to a, "aa" is
        a reconstruction. Its last letter is the domain whose critic judges it. Features come per scale and layer.
        """
        verdict: dict[str, Any] = {}
        for way in ORDER:
            if way in pictures:
                verdict[f"out_{way}"], verdict[f"fea_{way}"] = self.of_domain(way[-1])(pictures[way])
        return verdict

    def of_domain(self, domain: str) -> nn.Module:
        """The critic of domain "a" or "b"."""
        return {"a": self.discriminator_a, "b": self.discriminator_b}[domain]

    def reference_rules(self) -> Rules:
        """From our state-dict names to the reference's (nn/reference_names.py)."""
        critics = r"discriminator." if self.shared else r"discriminators.\1."
        return ((r"\bcritics\.(\d+)\.layers\.(\d+)\.", critics + r"layer\2.0."),)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
