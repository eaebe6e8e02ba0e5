"""Ask the demo's detector what is in a photo, and draw the boxes of its answer."""

from __future__ import annotations

import argparse
import io
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

COLOURS = ("#e8590c", "#1971c2", "#2f9e44", "#9c36b5", "#e03131", "#0c8599", "#f08c00", "#6741d9")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path, help="the picture to write, such as boxes.png")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--token", required=True)
    parser.add_argument("--model", default="detector")
    options = parser.parse_args()
    try:
        data = options.photo.read_bytes()
        answer = ask(f"{options.url}/api/v1/inference/{options.model}", options.token, data)
    except urllib.error.HTTPError as error:
        print(f"Error: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    draw(data, answer["detections"]).save(options.out)
    for one in answer["detections"]:
        print(f"{one['score']:.2f}  {one['label']:<16} {one['box']}")
    return 0


def ask(url: str, token: str, data: bytes) -> dict[str, Any]:
    headers = {"X-Access-Token": token, "Content-Type": "image/jpeg"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def draw(data: bytes, detections: list[dict[str, Any]]) -> Image.Image:
    """The photo, upright, with a box and a label for each detection; no label on another."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    canvas = ImageDraw.Draw(image)
    unit = max(image.size) / 300  # the width of a line
    font = ImageFont.load_default(round(8 * unit))
    height = 11 * unit
    taken: list[tuple[float, float, float, float]] = []
    for one in detections:
        colour = COLOURS[one["index"] % len(COLOURS)]
        canvas.rectangle(one["box"], outline=colour, width=max(1, round(unit)))
    for one in detections:
        text = f" {one['label']} {one['score']:.2f} "
        left, top = one["box"][0], max(0.0, one["box"][1] - height)
        right = left + canvas.textlength(text, font)
        while any(left < x2 and right > x1 and top < y2 and top + height > y1 for x1, y1, x2, y2 in taken):
            top += height
        taken.append((left, top, right, top + height))
        canvas.rectangle(taken[-1], fill=COLOURS[one["index"] % len(COLOURS)])
        canvas.text((left, top + unit), text, fill="white", font=font)
    return image


if __name__ == "__main__":
    sys.exit(main())
