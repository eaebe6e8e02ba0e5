"""Labels that come with samples, by the names of the files: `labels.csv` or `labels.jsonl`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

import orjson

from core.errors import Unprocessable
from core.store.paths import shown

LABEL_FILES: Final = ("labels.csv", "labels.jsonl")
_MAX_LABELS: Final = 1_000_000
_MAX_LABEL: Final = 500


def read_labels(text: str) -> dict[str, str]:
    """File name -> label. Lines are `name,label`, with or without a head, or `{"file": …, "label": …}`.

    Raises Unprocessable with the line.
    """
    rows = _from_jsonl(text) if text.lstrip().startswith("{") else _from_csv(text)
    labels: dict[str, str] = {}
    for number, name, label in rows:
        if len(labels) >= _MAX_LABELS:
            raise Unprocessable(f"There are more than {_MAX_LABELS} labels.")
        if not name or not label or len(label) > _MAX_LABEL:
            raise Unprocessable(
                f"Line {number} of the labels needs a file's name and a label of 1 to 500 characters."
            )
        if labels.setdefault(name, label) != label:
            raise Unprocessable(f"The labels name {shown(name)} twice, with different labels.")
    return labels


def _from_jsonl(text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            yield number, str(row["file"]), str(row["label"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            message = f'Line {number} of the labels is not {{"file": …, "label": …}}.'
            raise Unprocessable(message) from error


def _from_csv(text: str) -> Iterator[tuple[int, str, str]]:
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text), strict=True), 1):
            if not row or (number == 1 and [cell.strip().lower() for cell in row] == ["file", "label"]):
                continue
            if len(row) != 2:
                raise Unprocessable(
                    f"Line {number} of the labels has {len(row)} columns; it needs file and label."
                )
            yield number, row[0].strip(), row[1].strip()
    except csv.Error as error:
        raise Unprocessable("The labels are not CSV with the columns file and label.") from error
