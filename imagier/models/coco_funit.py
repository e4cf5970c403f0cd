"""COCO-FUNIT: FUNIT with a style code that also depends on the content, so that the content is not lost.

Saito et al., COCO-FUNIT: Few-Shot Unsupervised Image Translation with a Content Conditioned Style Encoder, 2020.
Discriminator and recipe are those of FUNIT (`type: funit`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagier.models.funit import GENERATOR_RULES, Decoder, FewShotTranslator, style_mlp
from imagier.nn.conv import WeightNorm
from imagier.nn.encoders import MLP, ContentEncoder, StyleEncoder
from imagier.nn.reference_names import Rules
from imagier.nn.whole_image import SpatialMean
from imagier.ranges import Count, Positive


class Generator(FewShotTranslator):
    """The content of one image in the style of another, conditioned on that content."""

    def __init__(
        self,
        *,
        num_filters: Positive = 64,
        num_filters_mlp: Positive = 256,
        style_dims: Positive = 64,
        usb_dims: Positive = 1024,
        num_res_blocks: Count = 2,
        num_mlp_blocks: Count = 3,
        num_downsamples_style: Count = 4,
        num_downsamples_content: Count = 2,
        num_image_channels: Positive = 3,
        weight_norm_type: WeightNorm = "none",
    ) -> None:
        """num_filters: Width of the first layer of both encoders, doubled with every halving of the size; of the style
            encoder at most twice. [channels]
        num_filters_mlp: Width of the layers between a style and the norms of the decoder. [channels]
        style_dims: Size of the style code.
        usb_dims: Size of the universal style bias, a learned code shared by all styles.
        num_res_blocks: Residual blocks in the content encoder; the decoder has 2.
        num_mlp_blocks: One more than the number of layers between a style and the norms of the decoder, which is at
            least 2.
        num_downsamples_style: How often the style encoder halves the size of an image, at least twice.
        num_downsamples_content: How often the content encoder halves the size of an image.
        num_image_channels: Channels of images. [channels]
        weight_norm_type: Norm of the weights of convolutions.
        """
        super().__init__()
        self.size_multiple = 2**num_downsamples_content
        self.style_encoder = StyleEncoder(
            image_channels=num_image_channels,
            num_filters=num_filters,
            num_downsamples=num_downsamples_style,
            style_dims=style_dims,
            weight_norm=weight_norm_type,
        )
        self.content_encoder = ContentEncoder(
            image_channels=num_image_channels,
            num_filters=num_filters,
            num_downsamples=num_downsamples_content,
            num_res_blocks=num_res_blocks,
            weight_norm=weight_norm_type,
        )
        content_dims = self.content_encoder.out_channels
        self.decoder = Decoder(
            content_dims,
            num_filters_mlp,
            num_upsamples=num_downsamples_content,
            image_channels=num_image_channels,
            weight_norm=weight_norm_type,
        )
        self.content_mean = SpatialMean()
        self.usb = nn.Parameter(torch.randn(1, usb_dims))
        self.mlp = style_mlp(style_dims, num_filters_mlp, num_mlp_blocks)
        self.mlp_content = MLP(content_dims, num_filters_mlp, style_dims)
        self.mlp_style = MLP(style_dims + usb_dims, num_filters_mlp, style_dims)

    def code(self, content: Tensor, style: Tensor) -> Tensor:
        """The product of one from style and universal bias and one from the content (section 3 of the paper)."""
        from_content = self.mlp_content(self.content_mean(content))
        usb = self.usb.expand(style.shape[0], -1)
        from_style = self.mlp_style(torch.cat([style.flatten(1), usb], dim=1))
        return self.mlp(from_style * from_content)

    def reference_rules(self) -> Rules:
        """Rules that map our state-dict names to the reference's (nn/reference_names.py)."""
        return GENERATOR_RULES
