import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from slams_ray.data.image import (
    ImageLimits,
    check_mask,
    decode_image,
    decode_mask,
    decode_turned,
    encode_mask,
    image_suffix,
    read_file,
)
from slams_ray.data.schema import voc_palette
from slams_ray.errors import DataError

GENERATOR = np.random.default_rng(0)
PHOTOGRAPH = Image.fromarray(GENERATOR.integers(0, 256, (40, 50, 3)).astype(np.uint8))


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


GREY, PALETTE = 0, 3
"""Colour types of PNG."""


def png(size: tuple[int, int], depth: int, colour_type: int, lines: bytes) -> bytes:
    """A PNG written by hand from (width, height) and packed lines, each after a filter byte."""

    def png_chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0))
    if colour_type == PALETTE:
        body += png_chunk(b"PLTE", bytes(range(3 * 2**depth)))
    body += png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_header(side: int) -> bytes:
    """A PNG that announces side x side pixels and holds none."""
    return png((side, side), 8, GREY, b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_lossless_image_decodes_to_its_pixels(kind: str) -> None:
    decoded = decode_image(encoded(PHOTOGRAPH, kind), "a")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.asarray(PHOTOGRAPH))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
    ],
)
def test_every_colour_mode_decodes_to_rgb(mode: str, kind: str) -> None:
    picture = Image.new("RGB", (30, 20), (204, 51, 51)).convert(mode)
    decoded = decode_image(encoded(picture, kind), "a")
    assert decoded.shape == (20, 30, 3)
    assert decoded.dtype == np.uint8
    if mode in ("CMYK", "RGB", "P", "RGBA"):
        assert np.abs(decoded.astype(int) - (204, 51, 51)).max() < 30
    else:
        assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_the_orientation_of_cameras_is_applied_and_the_original_is_kept(
    orientation: int | None,
) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    PHOTOGRAPH.save(buffer, "PNG", exif=exif)
    as_stored, upright = decode_turned(buffer.getvalue(), "a")
    turned = ImageOps.exif_transpose(Image.open(buffer))
    np.testing.assert_array_equal(as_stored, np.asarray(PHOTOGRAPH))
    np.testing.assert_array_equal(upright, np.asarray(turned))
    assert (as_stored is upright) == (orientation in (None, 1))


ORIENTATION_6 = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
RESOLUTION_AS_TEXT = struct.pack(">HHI4s", 0x11A, 2, 4, b"72")


def tiff(*entries: bytes) -> bytes:
    """EXIF of packed entries."""
    head = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries))
    return head + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("exif", "is_turned"),
    [
        (tiff(ORIENTATION_6, RESOLUTION_AS_TEXT), True),
        (b"garbage exif", False),
        (tiff(struct.pack(">HHI4s", 0x112, 2, 2, b"6")), False),
        (tiff(struct.pack(">HHIHH", 0x112, 3, 1, 9, 0)), False),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_entries_of_the_exif_leave_the_pixels_and_a_good_orientation(
    kind: str, exif: bytes, is_turned: bool
) -> None:
    buffer = io.BytesIO()
    PHOTOGRAPH.save(buffer, kind, exif=exif)
    as_stored, upright = decode_turned(buffer.getvalue(), "a")
    np.testing.assert_array_equal(upright, np.rot90(as_stored, -1) if is_turned else as_stored)
    assert upright.shape == ((50, 40, 3) if is_turned else (40, 50, 3))


def test_a_16_bit_grayscale_png_keeps_its_brightness() -> None:
    pixels = np.linspace(0, 65535, 12).round().astype(np.uint16).reshape(3, 4)
    decoded = decode_image(encoded(Image.fromarray(pixels), "PNG"), "a")
    np.testing.assert_allclose(decoded[..., 0], pixels / 257, atol=1)


@pytest.mark.parametrize("cut", [0, 1, 3, 20, 200, 0.2, 0.5, 0.8, 0.99, -10, -2, -1])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_refused_wherever_it_was_cut(cut: float, kind: str) -> None:
    data = encoded(PHOTOGRAPH, kind)
    num_bytes = round(cut * len(data)) if isinstance(cut, float) else cut
    if kind == "PNG" and num_bytes < 0:
        num_bytes -= 20  # checksums and the end marker, behind the last pixel
    with pytest.raises(DataError, match=r"photos/a\.jpg \(\d+ bytes\) is truncated.*Replace it"):
        decode_image(data[:num_bytes], "photos/a.jpg")


@pytest.mark.parametrize("data", [b"", b"an html error page, saved as a photograph", bytes(1000)])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.jpg \(\d+ bytes\) is truncated or not an image"):
        decode_image(data, "a.jpg")


def test_formats_beyond_the_four_are_refused() -> None:
    with pytest.raises(DataError, match="not an image"):
        decode_image(encoded(PHOTOGRAPH, "TIFF"), "a.tif")


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("JPEG", "jpg"), ("MPO", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp")],
)
def test_every_format_has_its_suffix_and_a_photograph_of_several_pictures_that_of_jpeg(
    kind: str, suffix: str
) -> None:
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": [PHOTOGRAPH]} if kind == "MPO" else {}
    PHOTOGRAPH.save(buffer, format=kind, **options)
    assert Image.open(buffer).format == kind
    assert image_suffix(buffer.getvalue()) == suffix
    assert decode_image(buffer.getvalue(), "a").shape == (40, 50, 3)


@pytest.mark.parametrize("side", [8100, 10_000, 20_000])
def test_an_image_that_announces_too_many_pixels_is_not_decoded(side: int) -> None:
    with pytest.raises(DataError, match=r"bomb\.png"):
        decode_image(png_header(side), "bomb.png")


def test_the_pixel_bound_names_the_size_and_the_bound() -> None:
    with pytest.raises(DataError, match="is 8100 x 8100, but the limit is 64000000 pixels"):
        decode_image(png_header(8100), "bomb.png")


def test_read_file_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg is missing: add the file, or remove it"):
        read_file(str(tmp_path / "a.jpg"))


def test_read_file_reads_no_more_than_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    assert read_file(str(tmp_path / "a.jpg")) == b"12345"
    with pytest.raises(DataError, match=r"a\.jpg has 5 bytes, but the limit is 4"):
        read_file(str(tmp_path / "a.jpg"), ImageLimits(max_bytes=4))


def test_a_mask_of_all_256_values_comes_back_as_written() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    decoded = decode_mask(encode_mask(mask, voc_palette(21)), "a")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


def test_a_mask_can_be_encoded_from_a_strided_view() -> None:
    mask = np.arange(200, dtype=np.uint8).reshape(10, 20)[::2, ::-3]
    np.testing.assert_array_equal(decode_mask(encode_mask(mask, voc_palette(21)), "a"), mask)


def test_a_mask_is_a_palette_png_that_viewers_show_in_colour() -> None:
    mask = np.array([[0, 1, 2], [15, 20, 255]], np.uint8)
    picture = Image.open(io.BytesIO(encode_mask(mask, voc_palette(21))))
    assert (picture.format, picture.mode) == ("PNG", "P")
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
    assert colours == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_a_grayscale_png_is_a_mask_too() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(mask), "PNG"), "a"), mask)


@pytest.mark.parametrize("colour_type", [GREY, PALETTE])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_mask_of_fewer_bits_gives_the_stored_indices(depth: int, colour_type: int) -> None:
    indices = np.arange(2**depth, dtype=np.uint8)
    mask = np.stack([indices, indices[::-1]])
    bits = np.unpackbits(mask[..., None], axis=-1)[..., -depth:].reshape(2, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    decoded = decode_mask(png((2**depth, 2), depth, colour_type, lines), "a")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_a_mask_of_colours_or_of_16_bits_is_refused(mode: str) -> None:
    data = encoded(Image.new(mode, (4, 4)), "PNG")
    with pytest.raises(DataError, match=rf"mask m\.png has mode {mode}, expected an 8-bit palette"):
        decode_mask(data, "m.png")


def test_check_mask_accepts_known_indices_and_ignore() -> None:
    check_mask(np.array([[0, 20, 255]], np.uint8), (1, 3), 21, "m.png")


def test_check_mask_gives_both_sizes() -> None:
    with pytest.raises(DataError, match=r"m\.png is \(2, 3\), but its image is \(3, 2\)"):
        check_mask(np.zeros((2, 3), np.uint8), (3, 2), 21, "m.png")


@pytest.mark.parametrize("index", [21, 254])
def test_check_mask_names_the_index_that_no_class_has(index: int) -> None:
    with pytest.raises(DataError, match=rf"m\.png contains index {index}, expected 0\.\.20 or 255"):
        check_mask(np.array([[0, index]], np.uint8), (1, 2), 21, "m.png")
