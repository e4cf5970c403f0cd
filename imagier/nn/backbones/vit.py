"""Vision transformers (Dosovitskiy et al. 2021): DINOv2 (Oquab et al. 2024) and CLIP's (Radford et al. 2021).

Layers: `pool` is the class token after the last normalization, in CLIP also projected: N x 768 of dinov2_vitb14 and
clip_vitl14_336, N x 1024 of dinov2_vitl14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagier.nn.backbones.backbone import Backbone, Steps
from imagier.nn.backbones.weights import find_cached_file

_PATCH = 14


class _DinoEmbedding(nn.Module):
    """Patches and a class token, with their positions; N x 3 x H x W -> N x (1 + tokens) x dim."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + 37 * 37, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, _PATCH, stride=_PATCH)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["proj"](x)
        positions = _resize_grid(self.pos_embed[:, 1:], x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2) + positions
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        return torch.cat([first, x], dim=1)


def _resize_grid(positions: Tensor, height: int, width: int) -> Tensor:
    """Those of a square grid for another one. The 0.1 is part of the published model: weights expect its shift."""
    side = round(positions.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return positions
    grid = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((height + 0.1) / side, (width + 0.1) / side)
    return F.interpolate(grid, scale_factor=factors, mode="bicubic").flatten(2).transpose(1, 2)


class _ClipEmbedding(nn.Module):
    """As above, with as many positions as an image of 336 x 336 pixels has patches."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(dim))
        self.patch_embedding = nn.Conv2d(3, dim, _PATCH, stride=_PATCH, bias=False)
        self.position_embedding = nn.Embedding(1 + 24 * 24, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embedding(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        return x + self.position_embedding.weight


class _DinoAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return self.proj(_attend(query, key, value, self._heads))


class _ClipAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(_attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self._heads))


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of N x tokens x dim."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class _Scale(nn.Module):
    """LayerScale (Touvron et al. 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Mlp(nn.Module):
    def __init__(self, dim: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._activation = activation
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self._activation(self.fc1(x)))


class _DinoBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _DinoAttention(dim, heads)
        self.ls1 = _Scale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _Mlp(dim, F.gelu)
        self.ls2 = _Scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _ClipBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(dim)
        self.self_attn = _ClipAttention(dim, heads)
        self.layer_norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim, _quick_gelu)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


class _ClassToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


@dataclass(frozen=True)
class _Size:
    dim: int
    depth: int
    heads: int


_BASE, _LARGE = _Size(768, 12, 12), _Size(1024, 24, 16)


def _dino_steps(size: _Size) -> Steps:
    yield "embedding", _DinoEmbedding(size.dim)
    for index in range(size.depth):
        yield f"blocks.{index}", _DinoBlock(size.dim, size.heads)
    yield "norm", nn.LayerNorm(size.dim, eps=1e-6)
    yield "pool", _ClassToken()


def _clip_steps(size: _Size, out_dim: int) -> Steps:
    yield "vision_model.embeddings", _ClipEmbedding(size.dim)
    yield "vision_model.pre_layrnorm", nn.LayerNorm(size.dim)  # spelled so in the file
    for index in range(size.depth):
        yield f"vision_model.encoder.layers.{index}", _ClipBlock(size.dim, size.heads)
    yield "pool", _ClassToken()
    yield "vision_model.post_layernorm", nn.LayerNorm(size.dim)
    yield "visual_projection", nn.Linear(size.dim, out_dim, bias=False)


def _without_embedding(key: str) -> str:
    return key.removeprefix("embedding.")


def _make_dinov2(letter: str, size: _Size) -> Backbone:
    return Backbone(
        name=f"dinov2_vit{letter}14",
        steps=partial(_dino_steps, size),
        taps={"pool": "pool"},
        find_weights=partial(
            find_cached_file,
            (f"dinov2_vit{letter}14_pretrain.pth",),
            page="the model table in the README of facebookresearch/dinov2 on GitHub",
        ),
        file_key=_without_embedding,
    )


DINOV2_VITB14 = _make_dinov2("b", _BASE)
DINOV2_VITL14 = _make_dinov2("l", _LARGE)

CLIP_VITL14_336 = Backbone(
    name="clip_vitl14_336",
    steps=partial(_clip_steps, _LARGE, 768),
    taps={"pool": "visual_projection"},
    find_weights=partial(
        find_cached_file,
        ("clip-vit-large-patch14-336.safetensors",),
        page="the model openai/clip-vit-large-patch14-336 (its file model.safetensors, renamed)",
    ),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
