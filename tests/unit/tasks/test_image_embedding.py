from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks import image_embedding
from core.tasks.base import Payload
from core.tasks.image_embedding import ImageEmbedding, ImageVectors
from tests import segmenters
from tests.planted import must_notice


def signature(*shape: int, dtype: str = "FP32") -> Signature:
    return Signature((TensorSpec("images", "FP32", (-1, 3, 8, 8)),), (TensorSpec("y", dtype, shape),))


def make(of: Signature, **postprocess: Any) -> ImageEmbedding:
    return ImageEmbedding({"preprocess": {}, "postprocess": postprocess}, of, Path())


def embedding(task: ImageEmbedding, output: Any) -> list[float]:
    (answer,) = task.postprocess({"y": np.array(output, np.float32)}, [None], {})
    assert list(answer) == ["embedding"]
    vector: list[float] = answer["embedding"]
    return vector


def test_vectors_have_the_length_1_unless_they_are_wanted_as_they_are() -> None:
    assert embedding(make(signature(-1, 2)), [[3, 4]]) == pytest.approx([0.6, 0.8])
    assert embedding(make(signature(-1, 2), normalize=False), [[3, 4]]) == [3, 4]
    assert embedding(make(signature(-1, 2)), [[0, 0]]) == [0, 0]


TOKENS = [[[3, 4], [1, 0], [2, 2]]]
MAP = [[[[1, 3], [5, 7]], [[0, 0], [0, 8]]]]


def test_places_are_pooled() -> None:
    assert embedding(make(signature(-1, 3, 2), normalize=False), TOKENS) == [3, 4]
    assert embedding(make(signature(-1, 3, 2), pooling="mean", normalize=False), TOKENS) == [2, 2]
    assert embedding(make(signature(-1, 2, 2, 2), normalize=False), MAP) == [4, 2]
    last = np.array(MAP).transpose(0, 2, 3, 1)
    assert embedding(make(signature(-1, 2, 2, 2), layout="NHWC", normalize=False), last) == [4, 2]


@pytest.mark.parametrize(
    ("of", "config", "output"),
    [
        (signature(-1, 2), {}, [[3, 4]]),
        (signature(-1, 3, 2), {}, TOKENS),
        (signature(-1, 3, 2), {"pooling": "mean"}, TOKENS),
        (signature(-1, 2, 2, 2), {}, MAP),
        (signature(-1, 2, 2, 2), {"layout": "NHWC"}, MAP),
    ],
)
def test_what_is_said_of_the_pooling_is_what_is_done(of: Signature, config: dict[str, Any], output: Any) -> None:
    pooled = ImageEmbedding.pooled({"preprocess": {}, "postprocess": config}, of)
    (vector,) = pooled.of({"y": np.array(output, np.float32)}, {})
    assert vector.tolist() == embedding(make(of, **config, normalize=False), output)


@pytest.mark.parametrize(
    ("of", "config", "says"),
    [
        (signature(-1, 2), {"pooling": "cls"}, "pooling cls needs 3 axes"),
        (signature(-1, 3, 2), {"pooling": "none"}, "pooling none needs 2 axes"),
        (signature(-1), {}, "needs 2 axes"),
        (signature(-1, 2, dtype="INT64"), {}, "embeddings are floats"),
        (signature(-1, 2), {"output": "z"}, "no output 'z'; the model has y"),
        (signature(-1, 2), {"pooling": "max"}, r"postprocess\.pooling"),
    ],
)
def test_a_model_that_does_not_fit(of: Signature, config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidPackage, match=says):
        make(of, **config)


def test_what_is_no_number_is_the_model_s_fault() -> None:
    with pytest.raises(RunFailed, match="NaN or infinity"):
        embedding(make(signature(-1, 2)), [[1, float("nan")]])


def compare_vectors(path: Path) -> None:
    """Hold the vectors of five pictures against the reference: Pillow, ONNX Runtime and NumPy."""
    engine = OnnxEngine()
    of = engine.load(path, EngineOptions(threads=1))
    how = {"preprocess": {"resize": {"mode": "stretch", "interpolation": "bilinear"}}, "postprocess": {}}
    task = ImageEmbedding(how, of, path.parent)
    pictures = segmenters.pictures()
    prepared = task.preprocess([Payload(data) for data in pictures], {})
    answers = task.postprocess(engine.run(prepared.inputs), prepared.contexts, {})
    engine.close()
    session = onnxruntime.InferenceSession(path)
    for data, answer in zip(pictures, answers, strict=True):
        (planes,) = session.run(None, {"images": segmenters.seen(data)[0]})
        wanted = planes[0].reshape(segmenters.CLASSES, -1).mean(axis=1)
        wanted /= np.linalg.norm(wanted)
        vector = np.array(answer["embedding"])
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert float(wanted @ vector) > 0.9999


def test_a_model_s_vectors_are_the_reference_s(tmp_path: Path) -> None:
    compare_vectors(segmenters.semantic_model(tmp_path / "model.onnx"))


def first_place(vectors: ImageVectors, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values[:, :, 0, 0]


@pytest.mark.planted("image-embedding")
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        pytest.param(ImageVectors, "_pooled", first_place, id="the first place in place of the mean"),
        pytest.param(image_embedding, "normalized", lambda vectors: vectors, id="not normalised"),
    ],
)
def test_a_planted_error_is_noticed(tmp_path: Path, monkeypatch, owner: Any, name: str, wrong: Any) -> None:
    monkeypatch.setattr(owner, name, wrong)
    must_notice(compare_vectors, segmenters.semantic_model(tmp_path / "model.onnx"))
