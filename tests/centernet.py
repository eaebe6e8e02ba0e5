"""A reference of the demo detector, written with Pillow, NumPy and ONNX Runtime alone, and pictures for it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

DEMO = Path(__file__).parents[1] / "demo"
ROOT = DEMO / "models" / "centernet-mobilenetv3"
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
LABELS = (ROOT / "labels.txt").read_text().splitlines()
OVERLAP = 0.5  # the manifest's
LEAST = 0.15  # below the manifest's: more to compare
TURNED = {  # EXIF 2.32, tag 0x0112: how the stored pixels come from the upright ones
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

Box = list[float]


def reference(session: onnxruntime.InferenceSession, data: bytes, least: float) -> list[tuple[str, float, Box]]:
    """Everything that scores `least`, best first, in pixels of the upright image; not suppressed."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    small = np.asarray(image.resize((512, 512), Image.Resampling.BILINEAR), np.float32)
    boxes, scores, classes = session.run(
        ["boxes", "scores", "classes"], {"tower_0/images": small.transpose(2, 0, 1)[None]}
    )
    found = []
    for box, score, index in zip(boxes[0].tolist(), scores[0].tolist(), classes[0].tolist(), strict=True):
        x1, y1, x2, y2 = (value / 512 for value in box)
        across, down = image.width, image.height
        box = [max(x1, 0) * across, max(y1, 0) * down, min(x2, 1) * across, min(y2, 1) * down]
        if score >= least:
            found.append((LABELS[index], score, box))
    return sorted(found, key=lambda one: -one[1])


def overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def suppressed(found: list[tuple[str, float, Box]], most: float) -> list[tuple[str, float, Box]]:
    kept: list[tuple[str, float, Box]] = []
    for one in found:
        if all(one[0] != other[0] or overlap(one[2], other[2]) <= most for other in kept):
            kept.append(one)
    return kept


def pictures(count: int) -> Iterator[tuple[str, bytes]]:
    """The photos, and crops of them from 90 to 2000 pixels a side, in all orientations that EXIF knows."""
    chance = np.random.default_rng(5)
    for number in range(count):
        name = PHOTOS[number % len(PHOTOS)]
        image = Image.open(DEMO / "images" / f"{name}.jpg").convert("RGB")
        if number >= len(PHOTOS):
            part = chance.uniform(0.5, 1, 2)
            width, height = int(image.width * part[0]), int(image.height * part[1])
            left, top = (
                int(chance.integers(0, room + 1)) for room in (image.width - width, image.height - height)
            )
            factor = chance.choice([90, 300, 512, 1080, 2000]) / max(width, height)
            image = image.crop((left, top, left + width, top + height))
            image = image.resize((max(1, round(width * factor)), max(1, round(height * factor))))
        orientation = 1 + number % 8 if number >= len(PHOTOS) else 1
        if TURNED[orientation] is not None:
            image = image.transpose(TURNED[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        format = ("JPEG", "PNG", "WEBP")[number % 3] if max(image.size) < 1080 else "JPEG"
        image.save(
            out, format, exif=exif, **({} if format == "PNG" else {"quality": int(chance.choice([75, 90, 95]))})
        )
        yield f"{number}: {name} {image.size} {format} EXIF {orientation}", out.getvalue()
