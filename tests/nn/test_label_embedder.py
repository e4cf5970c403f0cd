"""Features of every level have their size and width, and see what the architecture says."""

from __future__ import annotations

import pytest
import torch

from imagier.nn.label_embedder import EmbedParams, LabelEmbedder


@pytest.mark.parametrize("arch", ["encoder", "encoderdecoder", "unet"])
def test_each_level_halves_the_size_and_doubles_the_width_up_to_the_largest(arch: str) -> None:
    params = EmbedParams(arch=arch, num_filters=2, max_num_filters=5, num_downsamples=3)  # type: ignore[arg-type]
    embedder = LabelEmbedder(4, params)
    shapes = [tuple(x.shape) for x in embedder(torch.rand(1, 4, 16, 24))]
    assert shapes == [(1, 2, 16, 24), (1, 4, 8, 12), (1, 5, 4, 6), (1, 5, 2, 3)]
    assert embedder.channels == [2, 4, 5, 5]


@pytest.mark.parametrize(("arch", "reaches"), [("encoder", False), ("encoderdecoder", True), ("unet", True)])
def test_a_decoder_carries_what_is_far_away_to_full_size(arch: str, reaches: bool) -> None:
    """At full size, a pixel is seen 5 px away only if features have been through a small size."""
    params = EmbedParams(arch=arch, num_filters=2, num_downsamples=3, weight_norm_type="none")  # type: ignore[arg-type]
    embedder = LabelEmbedder(1, params)
    label = torch.zeros(1, 1, 32, 32, requires_grad=True)
    embedder(label)[0][0, :, 15, 15].sum().backward()
    assert label.grad is not None
    assert bool(label.grad[0, 0, 20:, 20:].any()) is reaches


def test_a_unet_needs_wider_layers_for_its_skips_but_for_the_deepest() -> None:
    embedder = LabelEmbedder(1, EmbedParams(arch="unet", num_filters=2, num_downsamples=3))
    assert [layer.conv.in_channels for layer in embedder.up] == [8, 16, 16]
    names = [name for name, _ in embedder.named_parameters() if name.endswith("conv.weight")]
    assert len(names) == 1 + 3 + 3
