"""Two discriminators, one for each domain of an unpaired translation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from imagier.errors import UserError
from imagier.nn.conv import PaddingMode, WeightNorm
from imagier.nn.joint import Run, run_in_turn
from imagier.nn.norm import Norm
from imagier.nn.patch import MultiScalePatchDiscriminator
from imagier.nn.reference_names import Rules
from imagier.nn.residual_discriminator import Aggregation, DiscriminatorOrder, ResidualDiscriminator

ORDER = ("ab", "ba", "a", "b", "aa", "bb")
"""The order of the forwards, which matters for power iterations of spectral norms and for batch statistics."""


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Options of the multi-scale patch discriminator alone; None for its default."""

    num_discriminators: int | None
    kernel_size: int | None


@dataclass(frozen=True, kw_only=True)
class ResidualOptions:
    """Options of the residual discriminator alone; None for its default."""

    first_kernel_size: int | None
    padding_mode: PaddingMode | None
    aggregation: Aggregation | None
    order: DiscriminatorOrder | None
    anti_aliased: bool | None


class DomainDiscriminators(nn.Module):
    """`discriminator_a` and `discriminator_b`: each tells real images of its domain from translations into it."""

    def __init__(
        self,
        patch: PatchOptions,
        residual: ResidualOptions,
        *,
        is_patch: bool,
        switch: str,
        is_shared: bool,
        num_image_channels: int,
        num_filters: int,
        max_num_filters: int,
        num_layers: int,
        activation_norm_type: Norm,
        weight_norm_type: WeightNorm,
    ) -> None:
        """is_patch: the multi-scale patch discriminator, else the residual one. switch: the config's key for that.

        is_shared: one patch discriminator serves all scales. UserError if an option of the other kind is given.
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
        for name in _without_none(other):
            raise UserError(
                f"has no effect with {switch}: {str(is_patch).lower()}",
                where=name,
                advice="remove it",
                code="option-without-effect",
            )

        def discriminator() -> nn.Module:
            if not is_patch:
                return ResidualDiscriminator(num_image_channels, **common, **_without_none(own))
            options: dict[str, Any] = {"num_discriminators": 3, "kernel_size": 3, **_without_none(own)}
            return MultiScalePatchDiscriminator(num_image_channels, is_shared=is_shared, **common, **options)

        self.is_shared = is_shared
        self.discriminator_a = discriminator()
        self.discriminator_b = discriminator()

    def forward(self, images: Mapping[str, Tensor], *, run: Run = run_in_turn) -> dict[str, Any]:
        """Images N x C x H x W in [-1, 1] by direction -> scores "out_<direction>" and features "fea_<direction>".

        The direction names the source and the target domain: "a" is a real image, "ba" a translation from b to a, "aa"
        a reconstruction. Its last letter is the domain of the discriminator. Scores are per scale, features per scale
        and layer. run: how a discriminator sees several images.
        """
        ways = [way for way in ORDER if way in images]
        verdict: dict[str, Any] = {}
        for way, found in zip(ways, run([(self.of_domain(way[-1]), (images[way],)) for way in ways])):
            verdict[f"out_{way}"], verdict[f"fea_{way}"] = found
        return verdict

    def of_domain(self, domain: str) -> nn.Module:
        """The discriminator of domain "a" or "b"."""
        return {"a": self.discriminator_a, "b": self.discriminator_b}[domain]

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        discriminators = r"discriminator." if self.is_shared else r"discriminators.\1."
        return ((r"\bdiscriminators\.(\d+)\.layers\.(\d+)\.", discriminators + r"layer\2.0."),)


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
