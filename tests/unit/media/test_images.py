from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from core.errors import InvalidInput, TooLarge, UnsupportedMedia
from core.media import images

CAP = 50_000_000
FORMATS = ["JPEG", "PNG", "WebP", "GIF", "BMP"]


def encode(image: Image.Image, format: str = "PNG", **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **how)
    return out.getvalue()


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """Four plain quarters, red, green, blue and white, so that every turn and mirroring can be told apart."""
    image = Image.new("RGB", (width, height), "white")
    image.paste((220, 30, 30), (0, 0, width // 2, height // 2))
    image.paste((30, 200, 30), (width // 2, 0, width, height // 2))
    image.paste((30, 30, 220), (0, height // 2, width // 2, height))
    return image


def decode(data: bytes, **how: object) -> np.ndarray:
    pixels = images.decode(data, max_pixels=CAP, **how)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return pixels


def close_to(pixels: np.ndarray, image: Image.Image, tolerance: float = 3) -> bool:
    expected = np.asarray(image.convert("RGB")).astype(int)
    return pixels.shape == expected.shape and bool(np.abs(pixels - expected).mean() <= tolerance)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_by_its_content(format: str) -> None:
    data = encode(scene(), format)
    info = images.probe(data)
    assert (info.format, info.width, info.height) == (format, 64, 48)
    assert close_to(decode(data), scene())


@pytest.mark.parametrize("format", FORMATS)
def test_one_pixel(format: str) -> None:
    data = encode(Image.new("RGB", (1, 1), (250, 250, 250)), format)
    assert decode(data).shape == (1, 1, 3)
    assert decode(data)[0, 0] == pytest.approx([250] * 3, abs=3)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_cut_off(format: str, keep: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    data = encode(Image.fromarray(noise), format)
    assert decode(data).shape == (90, 120, 3)
    with pytest.raises(InvalidInput, match="cut off"):
        decode(data[: int(len(data) * keep)])


@pytest.mark.parametrize("format", FORMATS)
def test_a_bare_header_is_damaged(format: str) -> None:
    with pytest.raises(InvalidInput):
        decode(encode(scene(), format)[:20])


@pytest.mark.parametrize("format", FORMATS)
def test_garbage_behind_every_magic(format: str) -> None:
    data = encode(scene(), format)
    random = np.random.default_rng(2)
    for length in (30, 200, 2000):
        with pytest.raises((InvalidInput, TooLarge)):
            decode(data[:16] + random.bytes(length))


def test_a_progressive_jpeg_cut_off() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", progressive=True)
    assert decode(data).shape == (90, 120, 3)
    with pytest.raises(InvalidInput, match="cut off"):
        decode(data[: len(data) // 2])


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = encode(scene(), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    bomb = data[:-2] + data[scan:-2] * 200 + data[-2:]
    with pytest.raises(InvalidInput, match="scans"):
        decode(bomb)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def enlarged(format: str, width: int, height: int) -> bytes:
    """A small image whose header claims another size."""
    if format == "PNG":
        return png_header(width, height)
    data = bytearray(encode(scene(), format, **({"lossless": True} if format == "WebP" else {})))
    if format == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif format == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif format == "WebP":
        bits = int.from_bytes(data[21:25], "little") & ~0xFFFFFFF
        data[21:25] = (bits | (width - 1) | (height - 1) << 14).to_bytes(4, "little")
    else:
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("format", FORMATS)
def test_200_megapixels_are_refused_by_the_header(format: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(TooLarge, match="14142 x 14142 pixels; at most 50,000,000"):
            decode(enlarged(format, 14142, 14142))
    assert not warned


def test_the_cap_is_the_caller_s_own() -> None:
    data = encode(scene(64, 48))
    assert images.decode(data, max_pixels=64 * 48).shape == (48, 64, 3)
    with pytest.raises(TooLarge, match="64 x 48"):
        images.decode(data, max_pixels=64 * 48 - 1)


def test_animated_webp_header_is_checked_before_its_decoder_allocates() -> None:
    data = bytearray(encode(scene(), "WebP", save_all=True, append_images=[scene().rotate(180)]))
    assert data[12:16] == b"VP8X"
    data[24:30] = (16000).to_bytes(3, "little") * 2
    with pytest.raises(TooLarge, match="16001 x 16001"):
        decode(bytes(data))


@pytest.mark.parametrize("format", ["GIF", "WebP", "PNG"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    how = {"lossless": True} if format == "WebP" else {}
    data = encode(scene(), format, save_all=True, append_images=[scene().rotate(180)], duration=50, **how)
    assert close_to(decode(data), scene())


@pytest.mark.parametrize("format", ["PNG", "WebP"])
def test_transparency_lies_over_white(format: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 4, 8))
    image.paste((0, 0, 0, 128), (4, 0, 8, 4))
    pixels = decode(encode(image, format, **({"lossless": True} if format == "WebP" else {})))
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[0, 7] == pytest.approx([127] * 3, abs=1)
    assert pixels[7, 7].tolist() == [255, 255, 255]


def test_a_transparent_palette_lies_over_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 1), 1)
    pixels = decode(encode(image, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [200, 100, 50]


def test_palette() -> None:
    assert close_to(decode(encode(scene().quantize(8), "PNG")), scene())


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WebP", "BMP"])
def test_grey(mode: str, format: str) -> None:
    if mode == "LA" and format in ("JPEG", "BMP"):
        pytest.skip("the format has no such mode")
    image = scene().convert("L").convert(mode)
    pixels = decode(encode(image, format))
    assert close_to(pixels, image)
    assert (np.ptp(pixels, axis=2) <= 1).all()


def test_16_bit_grey_keeps_its_upper_bits() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    pixels = decode(encode(Image.fromarray(ramp), "PNG"))
    assert images.probe(encode(Image.fromarray(ramp), "PNG")).mode.startswith("I")
    assert np.array_equal(pixels[:, :, 0], ramp >> 8)


def test_16_bit_colour() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0xFF00, 0x8000, 0, 0, 0x1234, 0xFFFF)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    assert decode(data).tolist() == [[[255, 128, 0], [0, 0x12, 255]]]


def test_cmyk() -> None:
    data = encode(scene().convert("CMYK"), "JPEG", quality=95)
    assert images.probe(data).mode == "CMYK"
    assert close_to(decode(data), scene(), 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP"])
def test_exif_orientation(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(scene(), format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert close_to(decode(data), upright, 4)


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_a_senseless_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert close_to(decode(encode(scene(), "JPEG", exif=exif)), scene())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as images.py sets it; pytest resets it
def test_damaged_exif_does_not_matter() -> None:
    data = encode(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xffgarbage")
    assert close_to(decode(data), scene())


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"", "an empty body"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04rest of it", "a zip archive"),
        (b"<!DOCTYPE html><html>", "HTML text"),
        (b"\xef\xbb\xbf <html>", "HTML text"),
        (b"<?xml version='1.0'?>", "XML text"),
        (b"<svg xmlns='x'>", "an SVG drawing"),
        (b'{"a": 1}', "JSON text"),
        (b"hello there", "text"),
        ("grüße\n".encode() * 100, "text"),
        (b"II*\x00" + bytes(20), "a TIFF image"),
        (b"\0\0\0\x20ftypheic", "a HEIC image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "a WAV recording"),
        (b"data:image/png;base64,AAAA", "a data URL"),
        (bytes(range(128, 192)), "data of an unknown kind"),
        (b"\0", "data of an unknown kind"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, seen: str) -> None:
    with pytest.raises(UnsupportedMedia, match=f"This is {seen}.* send JPEG, PNG, WebP, GIF or BMP"):
        decode(data)
    with pytest.raises(UnsupportedMedia):
        images.probe(data)


def test_tiff_is_not_decoded_whatever_pillow_can_do() -> None:
    with pytest.raises(UnsupportedMedia, match="TIFF"):
        decode(encode(scene(), "TIFF"))


@pytest.mark.parametrize(
    ("stored", "at_least", "decoded"),
    [
        ((1920, 1080), (256, 256), (270, 480)),
        ((1920, 1080), (512, 512), (540, 960)),
        ((1920, 1080), (541, 541), (1080, 1920)),
        ((4000, 3000), (256, 256), (375, 500)),
        ((640, 480), (256, 256), (480, 640)),
        ((480, 640), (256, 256), (640, 480)),
        ((640, 480), (240, 240), (240, 320)),
        ((641, 481), (241, 241), (481, 641)),
        ((4000, 500), (256, 256), (500, 4000)),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_but_never_too_small(stored, at_least, decoded) -> None:
    data = encode(scene(*stored), "JPEG")
    image = images.decode_scaled(data, max_pixels=CAP, at_least=at_least)
    assert image.pixels.shape[:2] == decoded
    assert (image.width, image.height) == stored
    assert image.scale == pytest.approx(decoded[1] / stored[0])
    assert close_to(image.pixels, scene(decoded[1], decoded[0]), 5)


def test_the_least_size_is_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(1600, 600), "JPEG", exif=exif)
    image = images.decode_scaled(data, max_pixels=CAP, at_least=(300, 800))
    assert image.pixels.shape == (800, 300, 3)
    assert (image.width, image.height, image.scale) == (600, 1600, 0.5)
    assert images.decode(data, max_pixels=CAP, at_least=(800, 300)).shape == (1600, 600, 3)


def test_odd_sides_scale_by_eighths() -> None:
    data = encode(scene(1619, 1083), "JPEG")
    assert images.decode_scaled(data, max_pixels=CAP, at_least=(256, 256)).scale == 0.25


def test_pillow_s_global_settings_are_left_alone() -> None:
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS
    decode(encode(scene(), "JPEG"))
    assert before == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
