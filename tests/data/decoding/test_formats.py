"""What containers store against what is read: few bits, palettes, white that is 0, alpha, pages."""

from __future__ import annotations

import io
import zlib

import numpy as np
import PIL
import pytest
from images import encoded, noise
from PIL import Image
from small_data import codec_for, load
from tiffs import tiff

from imagier.errors import UserError

WHERE = "set/maps/7"
needs_pillow_13 = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow 12 knows no such TIFF")
CLASSES = codec_for(name="maps", ext="png", is_mask=True, num_channels=1, num_classes=256)
MASK = codec_for(name="maps", ext="png", is_mask=True, num_channels=1)


def image_of(channels: int | None, data: bytes, ext: str = "tif") -> np.ndarray:
    return load(codec_for(name="images", ext=ext, num_channels=channels), data, ext, WHERE)


def code(channels: int | None, data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        image_of(channels, data)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert "\n" not in str(caught.value)
    return caught.value.code


def saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_class_map_in_a_tiff_gives_the_stored_numbers_and_an_image_its_light(bits: int, photometric: int) -> None:
    stored = noise(6, 19, 1, below=2**bits)
    data = tiff(stored, bits=bits, photometric=photometric)
    np.testing.assert_array_equal(load(CLASSES, data, "tif", WHERE), stored)
    shown = stored if photometric else 2**bits - 1 - stored
    np.testing.assert_array_equal(image_of(1, data), shown * (255 // (2**bits - 1)))


@pytest.mark.parametrize("photometric", [0, 1])
def test_a_class_map_of_16_bits_gives_the_stored_numbers(photometric: int) -> None:
    stored = noise(6, 19, 1, below=65536)
    classes = codec_for(name="maps", ext="tif", is_mask=True, num_channels=1, num_classes=65536)
    np.testing.assert_array_equal(load(classes, tiff(stored, bits=16, photometric=photometric), "tif", WHERE), stored)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_in_a_tiff_gives_indices_to_maps_and_colors_to_images(bits: int) -> None:
    stored = noise(6, 19, 1, below=2**bits)
    colors = noise(2**bits, 3, 1, seed=1)[..., 0]
    data = tiff(stored, bits=bits, photometric=3, palette=(colors.T.astype(int) * 257).ravel().tolist())
    for codec in (CLASSES, MASK):
        np.testing.assert_array_equal(load(codec, data, "tif", WHERE), stored)
    np.testing.assert_array_equal(image_of(3, data), colors[stored[..., 0]])


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "PPM"])
def test_a_class_map_of_one_bit_holds_0_and_1_in_any_format(kind: str) -> None:
    stored = noise(6, 19, 1, below=2)
    data = saved(Image.fromarray(stored[..., 0].astype(bool)), kind)
    np.testing.assert_array_equal(load(CLASSES, data, kind.lower(), WHERE), stored)
    np.testing.assert_array_equal(image_of(1, data), stored * 255)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "TIFF"])
def test_a_class_map_with_a_palette_holds_its_indices_in_any_format(kind: str) -> None:
    stored, colors = noise(6, 19, 1, below=7), noise(7, 3, 1, seed=2)[..., 0]
    image = Image.fromarray(stored[..., 0], "L")
    image.putpalette(colors.tobytes())
    data = saved(image, kind)
    for codec in (CLASSES, MASK):
        np.testing.assert_array_equal(load(codec, data, kind.lower(), WHERE), stored)
    np.testing.assert_array_equal(image_of(3, data), colors[stored[..., 0]])


def test_plain_alpha_of_a_tiff_changes_no_color() -> None:
    pixels = noise(5, 7, 4)
    np.testing.assert_array_equal(image_of(4, tiff(pixels, photometric=2, extra=2)), pixels)
    np.testing.assert_array_equal(image_of(2, tiff(pixels[..., :2], extra=2)), pixels[..., :2])


@pytest.mark.parametrize(("channels", "bits"), [pytest.param(2, 8, marks=needs_pillow_13), (4, 8), (4, 16)])
def test_colors_that_were_multiplied_by_their_alpha_are_divided_by_it(channels: int, bits: int) -> None:
    most = 2**bits - 1
    pixels = noise(5, 7, channels, below=most + 1).astype(np.int64)
    pixels[..., -1] = np.maximum(pixels[..., -1], most // 2)
    multiplied = pixels.copy()
    multiplied[..., :-1] = np.round(pixels[..., :-1] * pixels[..., -1:] / most)
    data = tiff(multiplied, bits=bits, photometric=2 if channels == 4 else 1, extra=1)
    found = image_of(channels, data).astype(int)
    np.testing.assert_array_equal(found[..., -1], pixels[..., -1])
    assert np.abs(found - pixels).max() <= 2


def test_a_tiff_of_inks_has_three_channels() -> None:
    inks = Image.fromarray(noise(5, 7)).convert("CMYK")
    found = image_of(3, saved(inks, "TIFF"))
    assert np.abs(found.astype(int) - np.asarray(inks.convert("RGB"))).max() <= 2


@pytest.mark.parametrize("pages", [2, 3])
def test_a_tiff_of_several_pages_is_refused(pages: int) -> None:
    assert code(None, tiff(noise(5, 7, 1), subfiles=[0] * pages)) == "several-pages"


@pytest.mark.parametrize("subfile", [1, 4])
def test_smaller_copies_and_masks_of_a_page_are_no_pages(subfile: int) -> None:
    pixels = noise(5, 7, 1)
    np.testing.assert_array_equal(image_of(1, tiff(pixels, subfiles=[0, subfile])), pixels)


def test_more_channels_than_can_be_read_are_named() -> None:
    assert code(None, tiff(noise(5, 7, 5))) == "wrong-channels"


@pytest.mark.parametrize("wanted", [2, None])
def test_gray_and_alpha_are_two_channels(wanted: int | None) -> None:
    pixels = noise(5, 7, 2)
    np.testing.assert_array_equal(image_of(wanted, encoded(pixels, "PNG")), pixels)


def test_gray_and_alpha_are_four_channels_where_four_are_wanted() -> None:
    pixels = noise(5, 7, 2)
    np.testing.assert_array_equal(image_of(4, encoded(pixels, "PNG")), pixels[..., [0, 0, 0, 1]])


# Hostile files


def palette_png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 4 x 4 indices with chunks before its pixels."""
    image = Image.fromarray(noise(4, 4, 1, below=3)[..., 0], "L")
    image.putpalette(bytes(range(9)))
    data = saved(image, "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunk(name, body) for name, body in chunks) + data[at:]


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def bomb() -> bytes:
    return b"icc\0\0" + zlib.compress(bytes(2**26), 9)


HOSTILE = {
    "an end and nothing else": b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xae\x42\x60\x82",
    "a profile that swells": palette_png((b"iCCP", bomb())),
    "a text that swells": palette_png((b"zTXt", bomb())),
    "a frame control cut off": palette_png((b"fcTL", b"\0\0")),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("is_mask", [True, False])
def test_a_hostile_png_is_one_line_or_an_image(name: str, is_mask: bool) -> None:
    codec = CLASSES if is_mask else codec_for(name="images", ext="png", num_channels=3)
    try:
        assert load(codec, HOSTILE[name], "png", WHERE).shape[:2] == (4, 4)
    except UserError as error:
        assert error.code == "damaged"
        assert str(error).startswith(f"{WHERE}: ")
        assert "\n" not in str(error)
