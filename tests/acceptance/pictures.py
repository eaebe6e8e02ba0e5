"""The cat in every dress that a caller may send it in, and pictures that are none."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests.servers import DEMO_IMAGES

CATS = {"tabby", "tiger cat", "Egyptian cat"}
CAT_JPEG = (DEMO_IMAGES / "chelsea.jpg").read_bytes()
COFFEE_JPEG = (DEMO_IMAGES / "coffee.jpg").read_bytes()


def cat() -> Image.Image:
    return Image.open(io.BytesIO(CAT_JPEG)).convert("RGB")


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_alpha() -> bytes:
    image = cat()
    image.putalpha(255)
    return encoded(image, "PNG")


def see_through() -> bytes:
    image = cat()
    image.putalpha(0)
    return encoded(image, "PNG")


def cmyk() -> bytes:
    return encoded(cat().convert("CMYK"), "JPEG", quality=95)


def grey() -> bytes:
    return encoded(cat().convert("L"), "JPEG", quality=95)


def palette() -> bytes:
    return encoded(cat().quantize(256), "PNG")


def sixteen_bit() -> bytes:
    grey16 = np.asarray(cat().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey16), "PNG")


def turned_by_exif() -> bytes:
    """Stored on its side, with the orientation that turns it upright (EXIF 6: turn by 90 degrees clockwise)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(cat().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def on_its_side() -> bytes:
    return encoded(cat().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)


def animated_gif() -> bytes:
    frames = [cat(), Image.new("RGB", cat().size, "white")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def webp() -> bytes:
    return encoded(cat(), "WEBP", quality=90)


def one_pixel() -> bytes:
    return encoded(Image.new("RGB", (1, 1), "red"), "PNG")


def truncated_jpeg() -> bytes:
    return CAT_JPEG[: len(CAT_JPEG) // 2]


def truncated_png() -> bytes:
    data = encoded(cat(), "PNG")
    return data[: len(data) // 2]


def huge_png_header() -> bytes:
    """A PNG of a few bytes that says it has 20000 x 10000 pixels."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def huge_jpeg_header() -> bytes:
    """The cat's JPEG whose frame header says 20000 x 10000 pixels."""
    at = CAT_JPEG.index(b"\xff\xc0") + 5
    return CAT_JPEG[:at] + struct.pack(">HH", 10_000, 20_000) + CAT_JPEG[at + 4 :]
