"""From the bytes of a file to an image, or to one line that names the file."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from images import encoded, noise, png, smooth
from PIL import Image
from small_data import codec_for, load

from imagier.data.codec import Codec
from imagier.errors import UserError

WHERE = "set/images/7.png"


def kind(channels: int | None = None, **options: object) -> Codec:
    return codec_for(name="images", ext="png", num_channels=channels, **options)


def read(data: bytes, ext: str = "png", channels: int | None = None) -> np.ndarray:
    return load(kind(channels), data, ext, WHERE)


def palette_png(indices: np.ndarray, colors: np.ndarray, **options: object) -> bytes:
    """A PNG H x W that stores indices into colors K x 3."""
    image = Image.fromarray(indices, "L")
    image.putpalette(colors.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def png_by_hand(image: np.ndarray) -> bytes:
    """A PNG of an 8 or 16-bit image with 1 to 4 channels, from the format's specification."""
    height, width, channels = image.shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = size + bytes([8 * image.itemsize, color, 0, 0, 0])
    rows = image.astype(image.dtype.newbyteorder(">")).reshape(height, -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("below", [256, 65536])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_gives_its_stored_numbers_in_the_order_red_green_blue_alpha(channels: int, below: int) -> None:
    image = noise(5, 7, channels, below=below)
    read_back = read(png_by_hand(image), channels=channels)
    assert read_back.dtype == image.dtype
    np.testing.assert_array_equal(read_back, image)


@pytest.mark.parametrize("ext", ["jpg", "jpeg"])
def test_a_jpeg_gives_the_pixels_that_pillow_gives(ext: str) -> None:
    data = encoded(smooth(33, 47), "JPEG", quality=80)
    np.testing.assert_array_equal(read(data, ext), np.asarray(Image.open(io.BytesIO(data))))


def test_a_gray_jpeg_gives_three_equal_channels() -> None:
    image = read(encoded(smooth(16, 16, 1), "JPEG"), "jpg", channels=3)
    assert image.shape == (16, 16, 3)
    assert np.ptp(image, axis=2).max() == 0
    assert np.ptp(image) > 50


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners = np.zeros((16, 24, 3), np.uint8)
    corners[:8, :8], corners[:8, -8:], corners[-8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    turned = {  # by the definition of the tag: where the stored image's row 0 and column 0 are to be shown
        1: corners,
        2: corners[:, ::-1],
        3: corners[::-1, ::-1],
        4: corners[::-1],
        5: corners.transpose(1, 0, 2),
        6: np.rot90(corners, -1),
        7: corners[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(corners),
    }
    image = read(encoded(corners, "JPEG", exif=exif, quality=100, subsampling=0), "jpg")
    np.testing.assert_allclose(image, turned[orientation], atol=6)


@pytest.mark.parametrize("colors", [2, 4, 16, 200])
def test_a_palette_gives_indices_where_one_channel_is_wanted_and_colors_else(colors: int) -> None:
    indices, palette = noise(9, 11, 1, below=colors)[..., 0], noise(colors, 3, 1, seed=1)[..., 0]
    data = palette_png(indices, palette)
    np.testing.assert_array_equal(load(kind(1, is_mask=True), data, "png", WHERE)[..., 0], indices)
    np.testing.assert_array_equal(read(data, channels=3), palette[indices])


def test_transparency_of_a_palette_does_not_change_its_indices() -> None:
    indices = noise(4, 4, 1, below=8)[..., 0]
    data = palette_png(indices, noise(8, 3, 1)[..., 0], transparency=2)
    np.testing.assert_array_equal(load(kind(1, is_mask=True), data, "png", WHERE)[..., 0], indices)


@pytest.mark.parametrize("kind_of_file", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_of_grays_is_light_where_no_ids_are_meant(kind_of_file: str) -> None:
    indices = noise(9, 11, 1, below=8)[..., 0]
    grays = np.array([200, 10, 255, 0, 77, 31, 128, 99], np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(np.repeat(grays[:, None], 3, axis=1).tobytes())
    file = io.BytesIO()
    image.save(file, kind_of_file)
    np.testing.assert_array_equal(read(file.getvalue(), channels=1)[..., 0], grays[indices])
    np.testing.assert_array_equal(read(file.getvalue(), channels=3), grays[indices][..., None].repeat(3, axis=2))
    np.testing.assert_array_equal(load(kind(1, is_mask=True), file.getvalue(), "png", WHERE)[..., 0], indices)


def test_a_palette_of_colors_is_no_gray_image() -> None:
    data = palette_png(noise(9, 11, 1, below=8)[..., 0], noise(8, 3, 1, seed=1)[..., 0])
    with pytest.raises(UserError) as caught:
        read(data, channels=1)
    assert caught.value.code == "wrong-channels"


@pytest.mark.parametrize("ext", ["jpg", "png"])
def test_the_config_says_whether_a_gray_jpeg_is_one_channel_or_three(ext: str) -> None:
    gray = smooth(16, 24, 1)
    for file in (encoded(gray, "JPEG"), encoded(gray.repeat(3, axis=2), "JPEG")):
        one, three = read(file, ext, channels=1), read(file, ext, channels=3)
        assert one.shape == (16, 24, 1)
        assert np.abs(one.astype(int) - gray).max() < 8
        np.testing.assert_array_equal(three, one.repeat(3, axis=2))
        np.testing.assert_array_equal(load(kind(1, is_mask=True), file, ext, WHERE), one)


def test_a_webp_of_grays_is_one_channel_where_one_is_wanted() -> None:
    gray = noise(8, 9, 1)
    file = encoded(gray.repeat(3, axis=2), "WEBP", lossless=True)
    np.testing.assert_array_equal(read(file, "webp", channels=1), gray)


@pytest.mark.parametrize("ext", ["bmp", "ppm", "tif", "tiff", "webp"])
def test_other_formats_give_their_pixels(ext: str) -> None:
    image = noise(6, 5)
    options = {"lossless": True} if ext == "webp" else {}
    format_name = {"tif": "TIFF", "tiff": "TIFF"}.get(ext, ext.upper())
    np.testing.assert_array_equal(read(encoded(image, format_name, **options), ext, channels=3), image)


def test_a_tiff_of_floats_stays_as_it_is() -> None:
    depth = np.random.default_rng(0).normal(size=(4, 5, 1)).astype(np.float32)
    data = cv2.imencode(".tif", depth)[1].tobytes()
    np.testing.assert_array_equal(read(data, "tif", channels=1), depth)


def test_numbers_that_no_tensor_of_a_batch_can_hold_are_refused() -> None:
    data = cv2.imencode(".tif", noise(4, 5, 1).astype(np.int16))[1].tobytes()
    with pytest.raises(UserError, match=f"^{WHERE}: holds int16 values; convert it"):
        read(data, "tif")


def test_a_file_is_what_its_first_bytes_say() -> None:
    image = smooth(16, 16)
    np.testing.assert_array_equal(read(png(image), "jpg"), image)
    assert read(encoded(image, "JPEG"), "png", channels=3).shape == (16, 16, 3)


def with_thumbnail(image: np.ndarray) -> bytes:
    """A JPEG whose EXIF holds a whole JPEG."""
    inner = encoded(image[::4, ::4], "JPEG")
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + inner
    data = encoded(image, "JPEG")
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


IMAGE = noise(48, 64, seed=3)
WHOLE = {
    "jpg": encoded(IMAGE, "JPEG"),
    "progressive jpg": encoded(IMAGE, "JPEG", progressive=True),
    "jpg with thumbnail": with_thumbnail(IMAGE),
    "png": png(IMAGE),
    "palette png": palette_png(IMAGE[..., 0], noise(256, 3, 1)[..., 0]),
    "webp": encoded(IMAGE, "WEBP"),
    "bmp": encoded(IMAGE, "BMP"),
}


def ext_of(name: str) -> str:
    return name.replace(" with thumbnail", "").split()[-1]


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_is_whole_with_its_last_byte_and_with_more_behind_it(name: str) -> None:
    channels = 3
    image = read(WHOLE[name], ext_of(name), channels)
    np.testing.assert_array_equal(read(WHOLE[name] + bytes(10_000), ext_of(name), channels), image)


@pytest.mark.parametrize("left", [0.03, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_was_cut_off_is_named_in_one_line(name: str, left: float) -> None:
    data = WHOLE[name][: int(left * len(WHOLE[name]))]
    with pytest.raises(UserError) as caught:
        load(kind(1, is_mask=True) if "palette" in name else kind(3), data, ext_of(name), WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["jpg", "progressive jpg", "jpg with thumbnail", "png", "palette png"])
def test_that_a_file_was_cut_off_is_told_without_the_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # some versions of OpenCV fill what is missing with gray
    monkeypatch.setattr(cv2, "imdecode", lambda data, mode: np.zeros((4, 4, 3), np.uint8))
    for left in (0.3, 0.7, 0.99):
        with pytest.raises(UserError, match="the file is cut off; restore it or remove it"):
            read(WHOLE[name][: int(left * len(WHOLE[name]))], ext_of(name), 1)


def damaged(data: bytes) -> bytes:
    """A PNG with a changed byte among its pixels."""
    at = data.index(b"IDAT") + 40
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "ext", "channels", "says"),
    [
        (b"", "png", 3, "the file is empty"),
        (b"", "jpg", 3, "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "png", 3, "not an image, or damaged"),
        (b"hello", "jpg", 3, "not an image, or damaged"),
        (damaged(WHOLE["png"]), "png", 3, "not an image, or damaged"),
        (damaged(WHOLE["palette png"]), "png", 1, "not an image, or damaged"),
        (WHOLE["png"], "png", 1, "has 3 channels, but input type 'images' says num_channels: 1"),
        (encoded(IMAGE[..., :1], "PNG"), "png", 3, "has 1 channels, but input type 'images' says num_channels: 3"),
        (encoded(noise(4, 4, 4), "PNG"), "png", 3, "has 4 channels, but input type 'images' says num_channels: 3"),
        (WHOLE["jpg"], "jpg", 1, "has 3 channels, but input type 'images' says num_channels: 1"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(data: bytes, ext: str, channels: int, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(data, ext, channels)
    assert str(caught.value).startswith(f"{WHERE}: {says}")
    assert "\n" not in str(caught.value)


def test_any_number_of_channels_passes_where_the_config_says_none() -> None:
    assert [read(encoded(noise(4, 4, n), "PNG")).shape[2] for n in (1, 3, 4)] == [1, 3, 4]


# Alpha


@pytest.mark.parametrize(("channels", "wanted"), [(4, 3), (2, 1)])
def test_a_background_shows_where_alpha_is_0_and_nowhere_where_it_is_255(channels: int, wanted: int) -> None:
    image = noise(6, 7, channels)
    image[:2, :, -1], image[2:4, :, -1] = 0, 255
    found = load(kind(wanted, background=(10, 200, 30)), encoded(image, "PNG"), "png", WHERE)
    color = np.array([10, 200, 30]) if wanted == 3 else np.array([0.299 * 10 + 0.587 * 200 + 0.114 * 30])
    assert found.shape == (6, 7, wanted)
    np.testing.assert_array_equal(found[:2], np.broadcast_to(color.round(), (2, 7, wanted)))
    np.testing.assert_array_equal(found[2:4], image[2:4, :, :-1])
    alpha = image[4:, :, -1:] / 255
    expected = image[4:, :, :-1] * alpha + color * (1 - alpha)
    assert np.abs(found[4:] - expected).max() <= 0.5 + 1e-9


def test_a_background_of_16_bits_has_the_same_light() -> None:
    image = noise(3, 3, 4, below=65536)
    image[..., 3] = 0
    found = load(kind(3, background=(255, 128, 0)), png_by_hand(image), "png", WHERE)
    np.testing.assert_array_equal(found, np.broadcast_to([65535, 128 * 257, 0], (3, 3, 3)))


@pytest.mark.parametrize("wanted", [2, 4, None])
def test_a_background_is_for_images_whose_alpha_is_not_wanted(wanted: int | None) -> None:
    image = noise(6, 7, wanted or 4)
    found = load(kind(wanted, background=(10, 200, 30)), encoded(image, "PNG"), "png", WHERE)
    np.testing.assert_array_equal(found, image)


def test_alpha_that_no_background_is_for_is_refused_with_the_key_that_helps() -> None:
    with pytest.raises(UserError) as caught:
        read(encoded(noise(4, 4, 4), "PNG"), channels=3)
    assert caught.value.code == "wrong-channels"
    assert "data.background" in caught.value.advice


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_an_image_of_any_number_of_channels_can_be_shown(channels: int) -> None:
    image = noise(6, 7, channels)
    shown = kind(channels).to_rgb(image)
    assert shown.dtype == np.uint8
    if channels in (2, 4):
        alpha = image[..., -1:] / 255
        expected = np.round(image[..., :-1] * alpha + 255 * (1 - alpha))
    else:
        expected = image[..., :3]
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, (6, 7, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("is_mask", [True, False])
def test_a_value_that_is_no_number_is_refused(value: float, is_mask: bool) -> None:
    heights = np.ones((4, 5, 1), np.float32)
    heights[1, 2] = value
    with pytest.raises(UserError) as caught:
        load(kind(1, is_mask=is_mask), cv2.imencode(".tif", heights)[1].tobytes(), "tif", WHERE)
    assert caught.value.code == "not-finite"
    assert caught.value.where == WHERE
