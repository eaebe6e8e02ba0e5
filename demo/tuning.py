"""The demo's search for the fastest engine: what it is given to judge by, and what it brought."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
SHOWN = ("chelsea", "coffee", "rocket")
"""Photos of what the classifier has a class for."""


def crops(count: int) -> Iterator[bytes]:
    """Parts of the photos, each 0.6 to 1 of the shorter side, some mirrored; the same every time.

    Not of the astronaut: ImageNet has no class for her, so whichever comes first tells nothing.
    """
    chance = random.Random(0)
    photos = [Image.open(IMAGES / f"{name}.jpg").convert("RGB") for name in SHOWN]
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(min(photo.size) * chance.uniform(0.6, 1))
        left, top = chance.randint(0, photo.width - side), chance.randint(0, photo.height - side)
        crop = photo.crop((left, top, left + side, top + side)).resize((320, 320))
        if chance.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


def gained(model: str, lines: Sequence[str]) -> str:
    """What a search brought, in a sentence, out of what `model optimise` printed."""
    said = "".join(lines)
    found = re.search(r"^Recommended: trial (\d+), ([\d.]+) times", said, re.MULTILINE)
    row = found and re.search(rf"^ *{found[1]}  (.+?): ([\d.]+) ms", said, re.MULTILINE)
    if not found or not row:
        return f"The {model} runs as it was uploaded: the search brought nothing."
    if float(found[2]) <= 1:
        return f"The {model} runs as it was uploaded, in {row[2]} ms: nothing that answers alike is faster here."
    return f"The {model} now runs {found[2]} times as fast as it was uploaded, in {row[2]} ms: by {row[1]}."
