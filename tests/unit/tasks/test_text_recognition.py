from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InvalidInput, InvalidPackage
from core.media.images import Decoded
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.text_recognition import TextRecognition

LABELS = ["a", "b", "c"]
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3, 48, -1)),), (TensorSpec("y", "FP32", (-1, -1, 5)),))
NOWHERE = Path("/nonexistent")


def task(**sections: Any) -> TextRecognition:
    return TextRecognition({"labels": LABELS, **sections}, SIGNATURE, NOWHERE)


def line(width: int, height: int) -> Payload:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 255
    return Payload(b"", image=Decoded(pixels, width, height, 1.0))


@pytest.mark.parametrize(
    ("size", "length", "filled"),
    [
        ((96, 48), 320, 96),
        ((1000, 50), 960, 960),
        ((48, 72), 320, 72),
        ((9000, 40), 3200, 3200),
        ((1, 1), 320, 48),
    ],
)
def test_a_line_keeps_its_proportions_and_a_standing_one_is_laid_down(
    size: tuple[int, int], length: int, filled: int
) -> None:
    prepared = task().preprocess([line(*size)], {})
    assert prepared.lengths == [length]
    array = prepared.inputs["x"]
    assert array.shape == (1, 3, 48, length)
    assert array[0, :, 0, filled - 1].tolist() == [-1, -1, 1]  # BGR
    assert not array[:, :, :, filled:].any()


def test_lines_of_several_widths_are_cut_to_their_own() -> None:
    prepared = task().preprocess([line(960, 48), line(480, 48)], {})
    assert [one["x"].shape[3] for one in prepared.each()] == [960, 480]


def steps(text: str, score: float = 0.9) -> np.ndarray[Any, Any]:
    """`-` is the blank, ` ` the last class."""
    classes = {"-": 0, "a": 1, "b": 2, "c": 3, " ": 4}
    array = np.full((1, len(text), 5), (1 - score) / 4, np.float32)
    for place, sign in enumerate(text):
        array[0, place, classes[sign]] = score
    return array


@pytest.mark.parametrize(
    ("seen", "text"),
    [("aa-ab", "aab"), ("--", ""), ("-a--b b-", "ab b"), ("abcc", "abc"), ("a-a-a", "aaa"), ("  a", " a")],
)
def test_steps_become_text_without_blanks_and_repetitions(seen: str, text: str) -> None:
    (answer,) = task().postprocess({"y": steps(seen)}, [None], {})
    assert answer["text"] == text
    assert answer["score"] == pytest.approx(0.9 if text else 0)


def test_a_picture_is_taken_too(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    one = TextRecognition({"labels": "labels.json"}, SIGNATURE, tmp_path)
    file = io.BytesIO()
    Image.new("RGB", (96, 48), (0, 0, 255)).save(file, "PNG")
    assert one.preprocess([Payload(file.getvalue())], {}).inputs["x"][0, :, 0, 0].tolist() == [1, -1, -1]
    with pytest.raises(InvalidInput):
        one.preprocess([], {})


def test_what_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(InvalidPackage, match="3 labels, which with the blank make 4 classes"):
        task(postprocess={"space": False})
    with pytest.raises(InvalidPackage, match="labels"):
        TextRecognition.check({})
    wrong = Signature((TensorSpec("x", "FP32", (-1, 3, -1, -1)),), SIGNATURE.outputs)
    with pytest.raises(InvalidPackage, match="one input"):
        TextRecognition({"labels": LABELS}, wrong, NOWHERE)
    with pytest.raises(InvalidPackage, match="is not"):
        task().check_outputs({"y": np.zeros((1, 4, 6), np.float32)})
