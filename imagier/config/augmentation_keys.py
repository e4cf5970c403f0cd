"""The keys of `augmentations`: random changes of a sample."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WrapValidator
from typing_extensions import TypedDict

from imagier.ranges import Count, NonNegative, Positive, Share

Range = Annotated[list[float], Field(min_length=2, max_length=2)]
KernelSizes = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class ContrastOptions(TypedDict):
    """Brightness and contrast, from +-limit or from a range."""

    brightness_limit: NonNegative | Range
    """Shift, drawn from -limit to limit or from a range. [fraction of the largest value]"""
    contrast_limit: NonNegative | Range
    """Factor less 1, drawn from -limit to limit or from a range."""
    p: Share
    """Probability of the change."""


class BlurOptions(TypedDict):
    """A blur with a kernel of an odd size: from 3 to the limit, or in a range."""

    blur_limit: Annotated[int, Field(ge=3)] | KernelSizes
    """Largest side of the kernel, drawn from the odd numbers from 3; or its smallest, an odd number, and its largest
    side. [pixels]"""
    p: Share
    """Probability of the change."""


class CompressionOptions(TypedDict):
    """The artifacts of JPEG, of a quality from the lower limit to 100."""

    quality_lower: Annotated[int, Field(ge=0, le=100)]
    """Lowest quality, drawn from here to 100 (OpenCV's scale)."""
    p: Share
    """Probability of the change."""


class GammaOptions(TypedDict):
    """A gamma curve; the limits are its exponent in per cent."""

    gamma_limit_lb: Count
    """Smallest exponent. [percent]"""
    gamma_limit_ub: Count
    """Largest exponent. [percent]"""
    p: Share
    """Probability of the change."""


class AugmentationKeys(TypedDict, total=False):
    """Changes of a sample, carried out in the order of the file, after one resize. Sizes are "height, width"."""

    resize_smallest_side: int | str
    """Resize, with the aspect kept, so that the image just covers this size: "height, width", or a number for both.
    [pixels]"""
    resize_h_w: str
    """Resize to "height, width", whatever the aspect. [pixels]"""
    random_resize_h_w_aspect: str
    """Crop the largest box of a random aspect, at a random place, and resize it: "height, width, (smallest, largest
    aspect)"; an aspect is width / height. [pixels]"""
    rotate: NonNegative
    """Largest angle of a random rotation, to either side. [degrees]"""
    random_rotate_90: bool
    """Rotate by a random multiple of 90 degrees in half of all cases."""
    random_scale_limit: NonNegative
    """Enlarge by a random factor from 1 to 1 + this number."""
    random_crop_h_w: str
    """Crop "height, width" at a random place. [pixels]"""
    center_crop_h_w: str
    """Crop "height, width" in the middle. [pixels]"""
    horizontal_flip: bool
    """Mirror left and right in half of all cases."""
    contrast: ContrastOptions
    """Change contrast and brightness of 8-bit images."""
    blur: BlurOptions
    """Blur 8-bit images by the mean over a square."""
    motion_blur: BlurOptions
    """Blur 8-bit images along a random line."""
    compression: CompressionOptions
    """Compress 8-bit images as JPEG and decompress them."""
    gamma: GammaOptions
    """Raise the values of 8-bit images, from 0 to 1, to a random power."""
    max_time_step: Positive
    """Clips: largest step from one frame to the next, drawn from 1 on. [frames]"""


def _keep_order(value: Any, handler: Any) -> Any:
    checked = handler(value)
    return {name: checked[name] for name in value}


Augmentations = Annotated[AugmentationKeys, WrapValidator(_keep_order)]
