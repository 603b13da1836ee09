"""Bytes to pixels and characters: every format, orientation and limit; no leak of a decoder's words."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from app.bundle.decode import decode_image, decode_text
from app.bundle.errors import (
    ImageTooLarge,
    InputError,
    InvalidImage,
    InvalidText,
    PartTooLarge,
    TextTooLong,
    UnsupportedMedia,
)
from app.bundle.manifest import Fit, ImageInput, TextInput
from app.bundle.prepare import prepare_image
from tests import tiny

IMAGE = tiny.inputs().image
TEXT = tiny.inputs().text
assert isinstance(IMAGE, ImageInput)
assert isinstance(TEXT, TextInput)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:  # noqa: A002
    body = io.BytesIO()
    image.save(body, format, **options)
    return body.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A valid header that announces a huge picture, and almost no data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


@pytest.mark.parametrize(("format", "tolerance"), [("PNG", 0), ("WEBP", 3), ("JPEG", 3)])
def test_each_format_decodes_to_rgb(format: str, tolerance: int) -> None:  # noqa: A002
    pixels = decode_image(tiny.png((200, 100, 50), size=(5, 3), format=format), IMAGE)
    assert pixels.shape == (3, 5, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = Image.new("RGB", (6, 4), "white")
    ImageDraw.Draw(upright).rectangle((0, 0, 2, 1), fill="red")
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encoded(stored, exif=exif), IMAGE)
    assert np.array_equal(pixels, np.asarray(upright))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("LA", (2, 2), (10, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("I;16", (2, 2), 0x4000), (64, 64, 64)),
        (Image.new("RGB", (2, 2), (9, 8, 7)).quantize(), (9, 8, 7)),
    ],
    ids=["grey", "one bit", "grey with alpha", "clear", "opaque", "16 bit", "palette"],
)
def test_every_png_mode_has_its_rule(image: Image.Image, expected: tuple[int, int, int]) -> None:
    """Transparent pixels show white paper; 16 bits keep their upper half."""
    assert np.array_equal(decode_image(encoded(image), IMAGE), np.full((2, 2, 3), expected))


def test_transparent_pixels_show_the_background_of_the_manifest() -> None:
    black = IMAGE.model_copy(update={"background": 0})
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert np.array_equal(decode_image(encoded(clear), black), np.zeros((2, 2, 3)))


def test_cmyk_jpeg_decodes() -> None:
    pixels = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), IMAGE)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4


def test_a_large_jpeg_is_decoded_small_but_never_below_twice_the_target() -> None:
    pixels = decode_image(tiny.png((1, 2, 3), size=(1600, 1200), format="JPEG"), IMAGE)
    assert IMAGE.resize is not None
    assert 2 * IMAGE.resize <= min(pixels.shape[:2]) < 1200


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(2000, 3), (3, 2000), (1, 1)])
def test_the_thinnest_jpeg_is_an_image_too(fit: Fit, size: tuple[int, int]) -> None:
    spec = IMAGE.model_copy(update={"fit": fit, "resize": IMAGE.resize if fit == "crop" else None})
    pixels = prepare_image(decode_image(tiny.png((90, 90, 90), size=size, format="JPEG"), spec), spec)
    assert pixels.shape == (IMAGE.height, IMAGE.width, 3)


def test_a_large_jpeg_that_is_stretched_keeps_twice_both_sides() -> None:
    strip = IMAGE.model_copy(update={"fit": "stretch", "resize": None, "height": 400})
    pixels = decode_image(tiny.png((1, 2, 3), size=(1600, 1200), format="JPEG"), strip)
    assert pixels.shape[:2] == (1200, 1600)  # halved, its height would be 600


def progressive(*, more_scans: int = 0, before: bytes = b"") -> bytes:
    """A picture of Pillow's, and copies of its last scan, which refine nothing any more, behind `before`."""
    body = encoded(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    last = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + before + last * more_scans + b"\xff\xd9"


@pytest.mark.parametrize(
    "before", [b"", b"\xff\x01\xff\xff", b"\xff\x02\xff\xff"], ids=["plain", "TEM", "reserved"]
)
def test_a_jpeg_of_endless_scans_is_refused_undecoded(before: bytes) -> None:
    """Each costs the decoder a walk over all pixels; codes without a length hide none of them."""
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode_image(progressive(more_scans=1000, before=before), IMAGE)


def test_a_jpeg_of_endless_segments_is_refused_undecoded() -> None:
    body = progressive(before=b"\xff\xfe\x00\x02" * 20_000 + b"\xff\xfe\x01\x00" + b"\xff\xda" * 127)
    with pytest.raises(InvalidImage, match="10000 segments"):
        decode_image(body, IMAGE)


def test_a_progressive_jpeg_is_an_image_whatever_its_notes_hold() -> None:
    note = b"\xff\xfe\x08\x02" + b"\xff\xda" * 1024
    body = progressive(more_scans=5)
    for picture in (body, body[:2] + note + body[2:], body + b"\xff\xda" * 1000):
        assert np.array_equal(decode_image(picture, IMAGE), decode_image(progressive(), IMAGE))


def test_only_the_first_frame_of_an_animation_counts() -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    body = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(decode_image(body, IMAGE), np.asarray(first))


@pytest.mark.parametrize("size", [(10_000, 10_000), (20_000, 20_000), (5_001, 5_000), (16_385, 1)])
def test_too_many_pixels_are_refused_from_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        decode_image(huge_png(*size), IMAGE)
    assert caught.value.part == "image"
    assert "25000000" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"just some text",
        b"GIF89a" + bytes(40),
        b"II*\0" + bytes(40),
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"8BPS" + bytes(40),
        b"RIFF\0\0\0\0WAVE",
    ],
    ids=["text", "gif", "tiff", "pdf", "svg", "psd", "wav"],
)
def test_other_kinds_are_unsupported_whatever_they_are_called(body: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        decode_image(body, IMAGE)


def test_an_empty_image_is_invalid() -> None:
    with pytest.raises(InvalidImage, match="empty"):
        decode_image(b"", IMAGE)


def test_too_many_bytes_are_refused_before_decoding() -> None:
    with pytest.raises(PartTooLarge, match="1048576"):
        decode_image(b"\xff\xd8\xff" + bytes(IMAGE.max_bytes), IMAGE)


@given(cut=st.integers(1, 400), format=st.sampled_from(["PNG", "JPEG", "WEBP"]), flip=st.integers(0, 255))
def test_broken_images_raise_our_errors_only(cut: int, format: str, flip: int) -> None:  # noqa: A002
    body = bytearray(tiny.png((9, 90, 200), size=(20, 20), format=format))
    body[cut % len(body)] ^= flip
    for broken in (bytes(body), bytes(body[:-cut])):
        try:
            pixels = decode_image(broken, IMAGE)
        except InputError as error:
            assert "0x" not in error.message
            assert "BytesIO" not in error.message
        else:
            assert pixels.dtype == np.uint8


@pytest.mark.parametrize("text", ["sept", "ｓｅｐｔ", "семь", "七", "👩‍👩‍👧", " x ", "a\nb"])
def test_text_passes_unchanged(text: str) -> None:
    assert decode_text(text.encode(), TEXT) == text


def test_a_byte_order_mark_is_dropped() -> None:
    assert decode_text(b"\xef\xbb\xbfsieben", TEXT) == "sieben"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b" \n\t", "blank"),
        (b"\xff\xfe", "UTF-8"),
        ("sept".encode("utf-16"), "UTF-8"),
        (b"\xed\xa0\x80", "UTF-8"),
        (b"\xc0\xaf", "UTF-8"),
        (b"a\0b", "NUL"),
    ],
)
def test_text_that_is_no_text_is_invalid(body: bytes, message: str) -> None:
    with pytest.raises(InvalidText, match=message):
        decode_text(body, TEXT)


def test_long_text_is_refused_by_characters_and_by_bytes() -> None:
    with pytest.raises(TextTooLong, match="1001"):
        decode_text(b"a" * 1001, TEXT)
    with pytest.raises(PartTooLarge):
        decode_text(b"a" * 5000, TEXT)
