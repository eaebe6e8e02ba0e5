"""all-MiniLM-L6-v2 as served against sentence-transformers' own, for sentences of 5 to 100 words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.request import InferenceRequest
from core.serving.runner import LocalRunner, RunnerOptions
from core.tasks import text_embedding
from core.tasks.base import Payload
from core.tasks.text_embedding import TextEmbedding
from tests import minilm
from tests.planted import must_notice
from tests.sentences import sentences

SENTENCES = sentences(48)
CONFIG = {"preprocess": {"max_tokens": 256}}  # as its maker says; the tokenizer itself is set to 128
Vectors = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def expected() -> Vectors:
    return minilm.reference(SENTENCES)


async def embed(model: Path, texts: Sequence[str]) -> Vectors:
    """Through the queue, the batcher and the engine: all in one request, so that they share batches."""

    def load() -> Any:
        engine = OnnxEngine()
        return engine, engine.load(model, EngineOptions(threads=1))

    runner = LocalRunner(RunnerOptions("minilm", max_batch=16, queue_size=len(texts)), load)
    with ThreadPoolExecutor(2) as threads:
        deployment = Deployment(
            DeploymentOptions("minilm", 1),
            runner,
            lambda signature: TextEmbedding(CONFIG, signature, minilm.weights()),
            threads,
        )
        await deployment.start()
        try:
            payloads = [Payload(text.encode(), "text/plain") for text in texts]
            result = await deployment.infer(InferenceRequest(payloads=payloads, deadline=time.monotonic() + 60))
            sizes = (await runner.stats()).batch_sizes
        finally:
            await deployment.close()
    assert sum(size * count for size, count in sizes.items()) == len(texts)
    assert max(sizes) > 1, "they shared batches"
    return np.array([answer["embedding"] for answer in result.answers or ()])


def cosines(one: Vectors, other: Vectors) -> Vectors:
    product: Vectors = (one * other).sum(axis=1)
    return product / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def compare_vectors(expected: Vectors) -> None:
    """Hold the embeddings of the first sentences against sentence-transformers'."""
    found = asyncio.run(embed(minilm.exported(), SENTENCES[: len(expected)]))
    assert found.shape == expected.shape
    assert cosines(found, expected).min() >= 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_embeddings_are_those_of_sentence_transformers(expected: Vectors) -> None:
    assert expected.shape == (len(SENTENCES), 384)
    compare_vectors(expected)


def first_token(task: TextEmbedding, states: Vectors, contexts: Any) -> Vectors:
    return states[:, 0]


def with_padding(task: TextEmbedding, states: Vectors, contexts: Any) -> Vectors:
    return np.asarray(states.mean(axis=1))


@pytest.mark.planted("text-embedding")
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        pytest.param(TextEmbedding, "_pooled", first_token, id="the first token in place of the mean"),
        pytest.param(TextEmbedding, "_pooled", with_padding, id="padding counts"),
        pytest.param(text_embedding, "normalized", lambda vectors: vectors, id="not normalised"),
    ],
)
def test_a_planted_error_is_noticed(expected: Vectors, monkeypatch, owner: Any, name: str, wrong: Any) -> None:
    monkeypatch.setattr(owner, name, wrong)
    must_notice(compare_vectors, expected[:8])


def test_at_8_bits_they_are_close(expected: Vectors) -> None:
    found = asyncio.run(embed(minilm.quantised(), SENTENCES))
    assert cosines(found, expected).mean() >= 0.97
