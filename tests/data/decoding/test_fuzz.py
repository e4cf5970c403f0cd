"""Files of all formats, cut off and with flipped bits: each is an image, or one line that names it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from images import noise
from PIL import Image
from small_data import codec_for, load
from tiffs import tiff

from imagier.errors import UserError

WHERE = "set/images/7"
PIXELS = noise(9, 13, 4)


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = 6
    return block


def saved(mode: str, kind: str, **options: object) -> bytes:
    image = {
        "RGB": Image.fromarray(PIXELS[..., :3].copy()),
        "RGBA": Image.fromarray(PIXELS),
        "L": Image.fromarray(PIXELS[..., 0].copy()),
        "LA": Image.fromarray(PIXELS[..., :2].copy()),
        "P": Image.fromarray(PIXELS[..., 0] % 7).convert("P"),
        "1": Image.fromarray(PIXELS[..., 0] > 128),
        "CMYK": Image.fromarray(PIXELS[..., :3].copy()).convert("CMYK"),
    }[mode]
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "png": [saved(mode, "PNG", exif=exif()) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")],
    "jpeg": [saved(mode, "JPEG", exif=exif()) for mode in ("RGB", "CMYK")] + [saved("L", "JPEG", progressive=True)],
    "tiff": [
        *(saved(mode, "TIFF") for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        *(saved("RGB", "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
        saved("1", "TIFF", compression="group4"),
        *(tiff(PIXELS[..., :1].astype(int) % 2**bits, bits=bits, photometric=0) for bits in (1, 2, 4)),
    ],
    "bmp": [saved(mode, "BMP") for mode in ("RGB", "P", "1", "L")],
    "webp": [saved("RGB", "WEBP", exif=exif()), saved("RGBA", "WEBP", lossless=True)],
    "gif": [saved(mode, "GIF") for mode in ("RGB", "P", "1")],
}
CODECS = [
    *(codec_for(name="images", ext="png", num_channels=channels) for channels in (None, 1, 3)),
    codec_for(name="maps", ext="png", num_channels=1, is_mask=True),
    codec_for(name="maps", ext="png", num_channels=1, is_mask=True, num_classes=256),
]


def spoil(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips some bits, half of them near the start, and cuts off the end, either or both."""
    spoiled = bytearray(data)
    what = int(rng.integers(3))
    if what != 1:
        for _ in range(int(rng.integers(1, 8))):
            end = len(data) if rng.random() < 0.5 else min(len(data), 64)
            spoiled[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    if what != 0:
        del spoiled[int(rng.integers(len(data) + 1)) :]
    return bytes(spoiled)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_spoiled_file_is_an_image_or_one_line_that_names_it(name: str) -> None:
    rng = np.random.default_rng(len(name))
    refused = 0
    for number in range(400):
        codec, ext = CODECS[int(rng.integers(len(CODECS)))], ("jpg", "png", "tif")[int(rng.integers(3))]
        try:
            array = load(codec, spoil(FILES[name][number % len(FILES[name])], rng), ext, WHERE)
            assert codec.to_rgb(array).shape == (*array.shape[:2], 3)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{WHERE}: ")
            assert "\n" not in str(error)
            assert error.code
    assert refused > 100
