from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InvalidInput, InvalidPackage, RunFailed, TooLarge, UnsupportedMedia
from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from core.tasks.base import MediaLimits, Payload
from core.tasks.image_classification import ImageClassification

CLASSES = ["ant", "bee", "cat", "dog"]


def signature(shape=(-1, 3, 8, 8), dtype="FP32", output=(-1, 4), output_dtype="FP32") -> Signature:
    return Signature((TensorSpec("image", dtype, shape),), (TensorSpec("logits", output_dtype, output),))


def make(config: dict[str, Any] | None = None, of: Signature | None = None, **how: Any) -> ImageClassification:
    return ImageClassification(
        {"labels": CLASSES, **(config or {})}, of or signature(), how.pop("root", Path()), **how
    )


def photo(color=(200, 100, 50), size=(16, 16), format="PNG") -> Payload:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, format)
    return Payload(out.getvalue())


def logits(*rows: list[float]) -> dict[str, np.ndarray]:
    return {"logits": np.array(rows, np.float32)}


def test_values_are_scaled_then_shifted_then_divided() -> None:
    task = make({"preprocess": {"scale": 0.5, "mean": [1, 2, 3], "std": [2, 4, 8]}})
    value = task.preprocess([photo()], {}).inputs["image"]
    assert value.shape == (1, 3, 8, 8)
    assert value.dtype == np.float32
    assert value[0, :, 4, 4].tolist() == [(100 - 1) / 2, (50 - 2) / 4, (25 - 3) / 8]


def test_by_default_the_pixels_themselves() -> None:
    assert make().preprocess([photo()], {}).inputs["image"][0, :, 0, 0].tolist() == [200, 100, 50]


def test_bgr_takes_mean_and_std_in_the_model_s_order() -> None:
    task = make({"preprocess": {"color": "BGR", "mean": [50, 0, 0], "std": [1, 1, 2]}})
    assert task.preprocess([photo()], {}).inputs["image"][0, :, 0, 0].tolist() == [0, 100, 100]


@pytest.mark.parametrize("config", [{"preprocess": {"layout": "NHWC"}}, {}])
def test_nhwc_asked_for_or_seen_in_the_signature(config: dict[str, Any]) -> None:
    value = make(config, signature((-1, 8, 8, 3))).preprocess([photo()], {}).inputs["image"]
    assert value.shape == (1, 8, 8, 3)
    assert value[0, 3, 3].tolist() == [200, 100, 50]
    assert value.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64", "UINT8", "INT8", "INT64"])
def test_the_model_s_dtype(dtype: str) -> None:
    value = make(of=signature(dtype=dtype)).preprocess([photo((200, 0, 7))], {}).inputs["image"]
    assert value.dtype == NUMPY_DTYPES[dtype]
    assert value[0, :, 0, 0].tolist() == [127 if dtype == "INT8" else 200, 0, 7]


def test_several_images_keep_their_order() -> None:
    prepared = make().preprocess([photo((n, n, n)) for n in (10, 20, 30)], {})
    assert prepared.inputs["image"][:, 0, 0, 0].tolist() == [10, 20, 30]
    assert len(prepared.contexts) == 3


@pytest.mark.parametrize("mode", ["center_crop", "stretch", "letterbox"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (300, 7), (8, 8)])
def test_any_size_becomes_the_model_s(mode: str, size: tuple[int, int]) -> None:
    value = make({"preprocess": {"resize": {"mode": mode}}}).preprocess([photo(size=size)], {}).inputs["image"]
    assert value.shape == (1, 3, 8, 8)
    middle = (3, 3) if mode == "letterbox" else (4, 4)  # where a strip one pixel wide lies
    assert value[(0, slice(None), *middle)] == pytest.approx([200, 100, 50], abs=1)


def test_stretch_sees_all_and_center_crop_the_middle() -> None:
    image = Image.new("RGB", (30, 10), "black")
    image.paste("white", (10, 0, 20, 10))
    out = io.BytesIO()
    image.save(out, "PNG")
    middle = make({"preprocess": {"resize": {"crop_fraction": 1}}}).preprocess([Payload(out.getvalue())], {})
    whole = make({"preprocess": {"resize": {"mode": "stretch"}}}).preprocess([Payload(out.getvalue())], {})
    assert (middle.inputs["image"] == 255).all()
    assert whole.inputs["image"].mean() == pytest.approx(85, abs=2)


def test_a_dynamic_input_takes_the_size_of_the_manifest() -> None:
    task = make({"preprocess": {"resize": {"size": [6, 10]}}}, signature((-1, 3, -1, -1)))
    assert task.preprocess([photo()], {}).inputs["image"].shape == (1, 3, 6, 10)


def test_an_error_names_the_image_only_among_several() -> None:
    bad = Payload(b"%PDF-1.4")
    with pytest.raises(UnsupportedMedia, match=r"^Image 2 of 3: This is a PDF"):
        make().preprocess([photo(), bad, photo()], {})
    with pytest.raises(UnsupportedMedia, match=r"^This is a PDF"):
        make().preprocess([bad], {})
    with pytest.raises(InvalidInput, match="no image"):
        make().preprocess([], {})


def test_the_pixel_cap_is_given_from_outside() -> None:
    task = make(limits=MediaLimits(max_pixels=255))
    with pytest.raises(TooLarge, match="Image 2 of 2: The image has 16 x 16 pixels"):
        task.preprocess([photo(size=(15, 17)), photo()], {})


def test_predictions_are_sorted_and_named() -> None:
    first, second = make().postprocess(logits([0, 2, 1, -1], [3, 0, 0, 3]), [None, None], {"top_k": 2})
    assert [p["label"] for p in first["predictions"]] == ["bee", "cat"]
    assert [p["index"] for p in second["predictions"]] == [0, 3]
    expected = np.exp([2, 1]) / np.exp([0, 2, 1, -1]).sum()
    assert [p["score"] for p in first["predictions"]] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("activation", "scores"),
    [("softmax", [0.5, 0.5, 0, 0]), ("sigmoid", [1, 1, 0.5, 0]), ("none", [1e4, 1e4, 0, -1e4])],
)
def test_activations_do_not_overflow(activation: str, scores: list[float]) -> None:
    task = make({"postprocess": {"activation": activation}})
    (answer,) = task.postprocess(logits([1e4, 1e4, 0, -1e4]), [None], {})
    assert [p["score"] for p in answer["predictions"]] == pytest.approx(scores)


def test_half_precision_scores_are_summed_in_full() -> None:
    of = signature(output_dtype="FP16", output=(-1, 4))
    (answer,) = make(of=of).postprocess({"logits": np.array([[1, 1, 1, 1]], np.float16)}, [None], {})
    assert [p["score"] for p in answer["predictions"]] == [0.25] * 4


def test_scores_that_are_no_numbers_are_null_and_last() -> None:
    task = make({"postprocess": {"activation": "none"}})
    (answer,) = task.postprocess(logits([np.nan, 1, np.inf, 2]), [None], {})
    assert [(p["index"], p["score"]) for p in answer["predictions"]] == [(2, None), (3, 2), (1, 1), (0, None)]
    (answer,) = make().postprocess(logits([np.nan, 1, 2, 3]), [None], {})
    assert json.loads(json.dumps(answer, allow_nan=False))["predictions"][0]["score"] is None


def test_top_k_defaults_to_five_or_all() -> None:
    (answer,) = make().postprocess(logits([0, 1, 2, 3]), [None], {})
    assert len(answer["predictions"]) == 4
    (answer,) = make({"postprocess": {"top_k": 3}}).postprocess(logits([0, 1, 2, 3]), [None], {"top_k": "2"})
    assert len(answer["predictions"]) == 2


@pytest.mark.parametrize("top_k", [0, 5, -1, 1.5, True, "x", "1.0", [1], "²"])
def test_a_wrong_top_k_is_refused_before_the_work(top_k: object) -> None:
    with pytest.raises(InvalidInput, match="top_k must be a whole number, 1 to 4"):
        make().preprocess([photo()], {"top_k": top_k})


def test_labels_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffant\nbee \r\ncat\nChihuahua ü\n\n", encoding="utf-8")
    (answer,) = make({"labels": "names.txt"}, root=tmp_path).postprocess(logits([0, 1, 2, 3]), [None], {})
    assert [p["label"] for p in answer["predictions"]] == ["Chihuahua ü", "cat", "bee", "ant"]
    (tmp_path / "names.json").write_text(json.dumps(CLASSES))
    (answer,) = make({"labels": "names.json"}, root=tmp_path).postprocess(logits([0, 1, 2, 3]), [None], {})
    assert answer["predictions"][0]["label"] == "dog"


def test_without_labels_the_index_is_the_label() -> None:
    (answer,) = make({"labels": None}).postprocess(logits([0, 1, 2, 3]), [None], {"top_k": 1})
    assert answer["predictions"][0]["label"] == "3"


@pytest.mark.parametrize(
    "labels",
    ["missing.txt", "../outside.txt", "/etc/hostname", "link.txt", "a\0b", "", ".", "binary.txt", "bad.json"],
)
def test_labels_that_cannot_be_read(labels: str, tmp_path: Path) -> None:
    root = tmp_path / "package"
    root.mkdir()
    (tmp_path / "outside.txt").write_text("a\nb\nc\nd\n")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    (root / "binary.txt").write_bytes(b"\xff\xfe\xff")
    (root / "bad.json").write_text('{"a": 1}')
    with pytest.raises(InvalidPackage) as caught:
        make({"labels": labels}, root=root)
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("of", "config", "says"),
    [
        (signature((-1, 1, 8, 8)), {}, "1 channels"),
        (signature((-1, 3, 8)), {}, "cannot hold a batch of images"),
        (signature(dtype="BYTES"), {}, "cannot hold a batch of images"),
        (signature((-1, 3, -1, -1)), {}, "preprocess.resize.size is needed"),
        (signature(), {"preprocess": {"resize": {"size": 9}}}, r"size is \[9, 9\], but image takes \[8, 8\]"),
        (signature(), {"preprocess": {"layout": "NHWC"}}, "8 channels in layout NHWC"),
        (signature(output=(-1, 5)), {}, "4 labels, but the output logits has 5 classes"),
        (signature(output=(-1,)), {}, "cannot hold class scores"),
        (Signature(signature().inputs * 2, signature().outputs), {}, "this one has 2"),
    ],
)
def test_a_model_that_does_not_fit(of: Signature, config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidPackage, match=says):
        make(config, of)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"colour": "RGB"}, "colour does not exist"),
        ({"preprocess": {"color": "GBR"}}, r"preprocess\.color"),
        ({"preprocess": {"mean": "a lot"}}, r"field preprocess\.mean cannot"),
        ({"preprocess": {"mean": [1, 2]}}, r"field preprocess\.mean cannot"),
        ({"preprocess": {"std": [1, 0, 1]}}, r"preprocess\.std cannot be used: it divides"),
        ({"preprocess": {"scale": float("inf")}}, r"preprocess\.scale cannot be used: numbers must be finite"),
        ({"preprocess": {"resize": {"size": 0}}}, r"resize\.size cannot be used: a side is"),
        ({"preprocess": {"resize": {"size": [1, 2, 3]}}}, r"field preprocess\.resize\.size"),
        ({"preprocess": {"resize": {"crop_fraction": 1.5}}}, r"resize\.crop_fraction"),
        ({"preprocess": {"resize": {"interpolation": "magic"}}}, r"resize\.interpolation"),
        ({"postprocess": {"top_k": 0}}, r"postprocess\.top_k"),
        ({"labels": 7}, "field labels cannot"),
    ],
)
def test_the_manifest_s_section_is_checked_alone(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPackage, match=field):
        ImageClassification.check(config)


def test_as_many_scores_as_labels_must_come() -> None:
    with pytest.raises(RunFailed, match="3 scores for 4 labels"):
        make(of=signature(output=(-1, -1))).postprocess(logits([1, 2, 3]), [None], {})
