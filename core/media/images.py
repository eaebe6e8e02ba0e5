"""Image bytes to pixels: JPEG, PNG, WebP, GIF (first frame) and BMP, told apart by content alone.

Sizes are checked before anything is decoded. EXIF orientation is applied; transparency is laid over white;
16-bit samples keep their upper 8 bits; colour profiles are ignored.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import simplejpeg
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from core.errors import InvalidInput, TooLarge, UnsupportedMedia
from core.media import headers

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

# Damaged metadata makes Pillow warn, in words that callers choose: nobody reads them, and Python keeps each one.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# The classes are called directly: Image.open would try every format it knows, and its bomb check is a
# process-wide setting.
_PLUGINS: Final[dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_ORIENTATION = 0x0112
# A progressive JPEG is decoded once a scan; cameras and encoders write about 10.
_MAX_SCANS = 100
# Scaling by less than a half costs libjpeg as much as it saves (docs/tasks/image-classification.md).
_MIN_SHRINK = 2


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a header says: format, size in pixels as stored (before EXIF orientation), and Pillow's mode."""

    format: str
    width: int
    height: int
    mode: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright image, uint8 RGB [height, width, 3], at `scale` of an original of `width` x `height` pixels.

    The array may be a read-only or strided view.
    """

    pixels: Pixels
    width: int
    height: int
    scale: float


def probe(data: bytes) -> ImageInfo:
    """Read the header alone. Raises UnsupportedMedia where it is no image, InvalidInput where it is damaged."""
    format = _format(data)
    image = _open(data, format, max_pixels=None)
    return ImageInfo(format, image.width, image.height, image.mode)


def decode(data: bytes, *, max_pixels: int, at_least: tuple[int, int] | None = None) -> Pixels:
    """The pixels of `decode_scaled`."""
    return decode_scaled(data, max_pixels=max_pixels, at_least=at_least).pixels


def decode_scaled(data: bytes, *, max_pixels: int, at_least: tuple[int, int] | None = None) -> Decoded:
    """Decode an image, upright. With `at_least` (width, height, as seen upright) a JPEG may come smaller, down to
    an eighth, as long as neither side falls below it.

    Raises UnsupportedMedia (no image), TooLarge (more than `max_pixels`) or InvalidInput (damaged).
    """
    format = _format(data)
    image = _open(data, format, max_pixels)
    orientation = _orientation(image) if format in ("JPEG", "WebP") else 1
    if format == "JPEG":
        if at_least is not None and orientation >= 5:
            at_least = at_least[1], at_least[0]
        pixels = _decode_jpeg(data, image, at_least)
    else:
        pixels = _decode_with_pillow(image, format)
        if format == "PNG":  # its EXIF may follow the pixels
            orientation = _orientation(image)
    # libjpeg scales by eighths and rounds the sides up.
    scale = round(8 * pixels.shape[1] / image.width) / 8 if pixels.shape[1] != image.width else 1.0
    size = (image.height, image.width) if orientation >= 5 else image.size
    return Decoded(_upright(pixels, orientation), size[0], size[1], scale)


def _format(data: bytes) -> str:
    format = headers.image_format(data)
    if format is None:
        seen = headers.describe(data)
        raise UnsupportedMedia(f"This is {seen}, not an image that is taken: send JPEG, PNG, WebP, GIF or BMP.")
    return format


def _open(data: bytes, format: str, max_pixels: int | None) -> ImageFile.ImageFile:
    _check_size(headers.canvas(data, format), max_pixels)
    try:
        image = _PLUGINS[format](io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"The {format} image is larger than this server decodes.") from error
    except Exception as error:  # plugins raise whatever their parser stumbles over
        raise InvalidInput(f"The {format} image has a damaged header or is cut off.") from error
    _check_size(image.size, max_pixels)
    return image


def _check_size(size: tuple[int, int] | None, max_pixels: int | None) -> None:
    if size is None or max_pixels is None:
        return
    width, height = size
    if width * height == 0:
        raise InvalidInput(f"The image has {width} x {height} pixels: there is nothing to see.")
    if width * height > max_pixels:
        raise TooLarge(f"The image has {width} x {height} pixels; at most {max_pixels:,} are accepted.")


def _decode_jpeg(data: bytes, image: ImageFile.ImageFile, at_least: tuple[int, int] | None) -> Pixels:
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise InvalidInput(f"The JPEG image has more than {_MAX_SCANS} scans.")
    if image.mode in ("RGB", "L"):
        try:
            decoded: Pixels = simplejpeg.decode_jpeg(data, "RGB", **_shrink(image, at_least))
            return decoded
        except ValueError:
            pass  # damaged, or only unusual: Pillow tells these apart
    return _decode_with_pillow(image, "JPEG")


def _shrink(image: ImageFile.ImageFile, at_least: tuple[int, int] | None) -> dict[str, int]:
    if at_least is None or image.width < _MIN_SHRINK * at_least[0] or image.height < _MIN_SHRINK * at_least[1]:
        return {}
    return {"min_width": at_least[0], "min_height": at_least[1]}


def _decode_with_pillow(image: ImageFile.ImageFile, format: str) -> Pixels:
    try:
        image.load()
        return _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"The {format} image is larger than this server decodes.") from error
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidInput(f"The {format} image is cut off or damaged.") from error


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.broadcast_to(grey[:, :, None], (*grey.shape, 3))
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
        image = over
    return np.asarray(image.convert("RGB"))


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is common, and no reason to refuse the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the camera's orientation (EXIF 2.32, tag 0x0112), by views alone."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
