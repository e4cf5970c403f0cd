"""The reference's names of weights, so that its checkpoints can be loaded.

A network states its own rules as (pattern, replacement) pairs, from our names to the reference's; this file knows what
is the same in all networks: the layout of the blocks and of the weight norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Rules = Sequence[tuple[str, str]]

BLOCKS: Rules = (
    (r"\.block_(\d)\.", r".conv_block_\1."),
    (r"\.shortcut\.", r".conv_block_s."),
    (r"(?<!layers)\.(conv|norm|noise)\.", r".layers.\1."),  # the outermost norm: one inside it keeps its name
    (r"\.mlp\.0\.", ".mlps.0.0.layers.conv."),
    (r"\.mlp\.2\.", ".mlps.0.1.layers.conv."),
    (r"\.(gamma|beta)\.", r".\1s.0.layers.conv."),
    (r"\b(mlp\w*\.model\.\d+)\.", r"\1.layers.conv."),
    (r"\.(fc|fc_gamma|fc_beta)\.", r".\1.layers.conv."),
)

_WEIGHT_NORMS: Rules = (
    (r"\.spectral\.u$", ".weight_u"),
    (r"\.spectral\.v$", ".weight_v"),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)


def reference_names(names: Iterable[str], rules: Rules) -> dict[str, str]:
    """Our state-dict names -> the reference's; a network's `rules` go first, all that match apply in order."""
    names = list(names)
    spectral = {name.removesuffix(".spectral.u") for name in names if name.endswith(".spectral.u")}
    renamed = {}
    for name in names:
        new = f"{name}_orig" if name.removesuffix(".weight") in spectral else name
        for pattern, replacement in (*rules, *BLOCKS, *_WEIGHT_NORMS):
            new = re.sub(pattern, replacement, new)
        renamed[name] = new
    assert len(set(renamed.values())) == len(renamed), "two weights got the same reference name"
    return renamed
