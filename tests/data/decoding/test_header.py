"""What a file says of itself before it is decoded, against Pillow, and what is not decoded at all."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from images import encoded, noise, png, smooth
from PIL import Image, ImageOps
from small_data import codec_for, load

from imagier.data.decoding.decode import choose_reduction
from imagier.data.decoding.header import MOST_PIXELS, Header, read_header
from imagier.errors import UserError

WHERE = "set/images/7.png"
ANY = codec_for(name="images", ext="png")


def lines(error: pytest.ExceptionInfo[UserError]) -> str:
    """The message, which must be one line that begins with the file."""
    text = str(error.value)
    assert text.startswith(f"{WHERE}: ")
    assert "\n" not in text
    return text.removeprefix(f"{WHERE}: ")


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


FILES = {
    "jpeg": encoded(smooth(31, 47), "JPEG"),
    "gray jpeg": encoded(smooth(31, 47, 1), "JPEG"),
    "progressive jpeg": encoded(smooth(31, 47), "JPEG", progressive=True),
    "jpeg with fill bytes": (data := encoded(smooth(31, 47), "JPEG"))[:2] + b"\xff\xff\xff" + data[2:],
    "png": encoded(noise(31, 47), "PNG"),
    "gray png": encoded(noise(31, 47, 1), "PNG"),
    "webp": encoded(noise(31, 47), "WEBP"),
    "gif": encoded(noise(31, 47, 1), "GIF"),
    "bmp": encoded(noise(31, 47), "BMP"),
    "ppm": encoded(noise(31, 47), "PPM"),
    "tiff": encoded(noise(31, 47), "TIFF"),
    "hdr": cv2.imencode(".hdr", noise(31, 47).astype(np.float32))[1].tobytes(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_size_is_known_before_the_pixels(name: str) -> None:
    header = read_header(FILES[name], WHERE)
    assert header is not None
    assert header.size == (31, 47)
    assert header.orientation == 1
    assert header.is_jpeg == ("jpeg" in name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_size_and_pixels_are_turned_as_exif_says_in_every_format(kind: str, orientation: int) -> None:
    corners = np.zeros((16, 24, 3), np.uint8)
    corners[:8, :8], corners[:8, -8:], corners[-8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(corners, kind, exif=exif(orientation), **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    header = read_header(data, WHERE)
    assert header is not None
    assert header.size == expected.shape[:2]
    ext = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    np.testing.assert_allclose(load(ANY, data, ext, WHERE), expected, atol=6)


@pytest.mark.parametrize("orientation", [0, 9, 200])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_that_is_none_turns_nothing(orientation: int, order: str) -> None:
    block = struct.pack(
        f"{order}2sHIHHHIHHI", b"II" if order == "<" else b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    body = b"Exif\0\0" + block
    data = FILES["jpeg"]
    data = data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    header = read_header(data, WHERE)
    assert header is not None
    assert header.orientation == 1


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_header_gives_no_other_error_than_one_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    name = list(FILES)[seed % len(FILES)]
    data = bytearray(encoded(smooth(31, 47), "JPEG", exif=exif(6)) if name == "jpeg" else FILES[name])
    for _ in range(int(rng.integers(1, 6))):
        data[int(rng.integers(min(len(data), 200)))] = int(rng.integers(256))
    del data[int(rng.integers(len(data) // 2, len(data) + 1)) :]
    try:
        load(ANY, bytes(data), name.split()[-1], WHERE)
    except UserError as error:
        assert str(error).startswith(f"{WHERE}: ")
        assert "\n" not in str(error)


# What is not decoded


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def png_that_says(height: int, width: int) -> bytes:
    """A whole PNG of no content that claims a size."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpeg_that_says(height: int, width: int) -> bytes:
    data = bytearray(FILES["jpeg"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


GIANTS = {
    "png": png_that_says(2**31 - 1, 2**31 - 1),
    "png of the limit": png_that_says(1, MOST_PIXELS + 1),
    "jpeg": jpeg_that_says(65_000, 65_000),
    "ppm": b"P6\n20000 20000\n255\n",
    "bmp": b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 90000 +X 90000\n",
}


@pytest.mark.parametrize("name", GIANTS)
def test_a_giant_is_refused_before_it_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(UserError) as caught:
        load(ANY, GIANTS[name], name.split()[0], WHERE)
    assert f"only images of up to {MOST_PIXELS} are read; scale it down" in lines(caught)


@pytest.mark.parametrize("data", [png_that_says(0, 5), png_that_says(5, 0), jpeg_that_says(8, 0)])
def test_an_image_without_pixels_is_named(data: bytes) -> None:
    with pytest.raises(UserError) as caught:
        load(ANY, data, "png", WHERE)
    assert lines(caught).startswith("has no pixels (")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_refused_and_its_still_is_not(kind: str) -> None:
    first, *others = [Image.fromarray(noise(8, 9, seed=seed)) for seed in range(3)]
    for more in ([], others):
        file = io.BytesIO()
        first.save(file, kind, save_all=True, append_images=more)
        if not more:
            assert load(ANY, file.getvalue(), kind.lower(), WHERE).shape[:2] == (8, 9)
            continue
        with pytest.raises(UserError) as caught:
            load(ANY, file.getvalue(), kind.lower(), WHERE)
        assert lines(caught) == "is an animation; save the image that is meant as a file of its own"


@pytest.mark.parametrize(
    "data", [b"\x80\x04\x95pickled", b"#!/bin/sh\n", bytes(1000), b"\x93NUMPY\x01\x00", b"PK\x03\x04"]
)
def test_what_is_no_image_is_no_image_whatever_it_is_called(data: bytes) -> None:
    for ext in ("png", "jpg", "pkl", "npy"):
        with pytest.raises(UserError) as caught:
            load(ANY, data, ext, WHERE)
        assert lines(caught).startswith("not an image, or damaged")


# Kinds of images


def test_cmyk_and_ycck_have_the_colors_that_pillow_shows() -> None:
    cmyk = io.BytesIO()
    Image.fromarray(smooth(32, 48)).convert("CMYK").save(cmyk, "JPEG", quality=95)
    data = cmyk.getvalue()
    transform = data.index(b"Adobe") + 11
    ycck = data[:transform] + b"\x02" + data[transform + 1 :]  # the same numbers, said to be YCCK
    for file in (data, ycck):
        with Image.open(io.BytesIO(file)) as image:
            assert image.mode == "CMYK"
            expected = np.asarray(image.convert("RGB")).astype(int)
        found = load(codec_for(name="images", ext="jpg", num_channels=3), file, "jpg", WHERE)
        assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_is_light_in_an_image_and_a_number_in_a_map_of_classes(bits: int) -> None:
    numbers = noise(5, 16, 1, below=2**bits)
    packed = np.packbits(np.unpackbits(numbers, axis=2)[..., -bits:].reshape(5, -1), axis=1)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    size = (16).to_bytes(4, "big") + (5).to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([bits, 0, 0, 0, 0]))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    light = load(ANY, data, "png", WHERE)
    np.testing.assert_array_equal(light, numbers * (255 // (2**bits - 1)))
    classes = codec_for(name="map", ext="png", is_mask=True, num_classes=16)
    np.testing.assert_array_equal(load(classes, data, "png", WHERE), numbers)


def test_an_interlaced_png_is_read() -> None:
    image = noise(13, 9, 1)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, right in passes:  # of Adam7, from the specification of PNG
        for row in image[top::down, left::right, 0]:
            rows += b"\0" + row.tobytes() if len(row) else b""
    size = (9).to_bytes(4, "big") + (13).to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8, 0, 0, 0, 1]))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(load(ANY, data, "png", WHERE), image)


def test_a_radiance_image_keeps_its_light_beyond_1() -> None:
    light = np.random.default_rng(0).uniform(0, 50, (6, 7, 3)).astype(np.float32)
    data = cv2.imencode(".hdr", light[..., ::-1])[1].tobytes()
    found = load(codec_for(name="images", ext="hdr", num_channels=3), data, "hdr", WHERE)
    assert found.dtype == np.float32
    assert np.abs(found - light).max() <= light.max() / 128  # 8 bits for the largest of the three


def test_sixteen_bits_are_numbers_and_refused_where_light_is_meant() -> None:
    for channels in (1, 3):
        data = png(noise(5, 6, channels, below=65536))
        assert load(codec_for(name="images", ext="png"), data, "png", WHERE).dtype == np.uint16
        with pytest.raises(UserError) as caught:
            load(codec_for(name="images", ext="png", normalize=True), data, "png", WHERE)
        assert lines(caught).startswith("holds 16-bit values, whose range is not known, but input type 'images'")


# Reduced scale


@pytest.mark.parametrize(
    ("size", "needed", "reduction"),
    [
        ((480, 640), (256, 341), 1),
        ((512, 682), (256, 341), 2),
        ((511, 682), (256, 341), 1),
        ((1024, 1024), (256, 256), 4),
        ((1024, 1024), (307, 307), 2),
        ((4000, 4000), (16, 16), 8),
        ((4000, 100), (16, 16), 4),
    ],
)
def test_the_reduction_is_the_largest_that_leaves_enough(
    size: tuple[int, int], needed: tuple[int, int], reduction: int
) -> None:
    assert choose_reduction(Header(height=size[0], width=size[1]), needed) == reduction


@pytest.mark.parametrize(("size", "reduction"), [((320, 400), 8), ((324, 400), 4), ((322, 402), 2), ((321, 402), 1)])
def test_the_sides_of_a_turned_image_are_divided_without_rest(size: tuple[int, int], reduction: int) -> None:
    assert choose_reduction(Header(height=size[0], width=size[1]), (32, 32)) == 8
    assert choose_reduction(Header(height=size[0], width=size[1], orientation=6), (32, 32)) == reduction
