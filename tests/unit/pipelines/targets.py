"""Targets to order, and pipelines over them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.engines.base import EngineOptions
from core.engines.fake import FakeEngine
from core.pipelines.target import Pipeline, PipelineOptions
from core.pipelines.validation import validate
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.request import InferenceRequest, InferenceResult, Timing
from core.serving.runner import LocalRunner, RunnerOptions
from core.signature import Signature
from core.tasks.base import Payload
from core.tasks.image_classification import ImageClassification
from tests.unit.pipelines.facts import FACTS

Answer = Callable[[InferenceRequest], Awaitable[dict[str, Any]]]
SIDE = 8


class Scripted:
    """A Target that answers what `answer` says, and keeps what it was asked."""

    def __init__(self, model: str, task: str, modality: str, answer: Answer, version: int = 1) -> None:
        self.model, self.task, self.modality, self.version = model, task, modality, version
        self.signature = Signature((), ())
        self.asked: list[InferenceRequest] = []
        self.under_way = self.most = self.cancelled = 0
        self._answer = answer

    def check_room(self) -> None:
        """There always is."""

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """See Target."""
        self.asked.append(request)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            answer = await self._answer(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return InferenceResult(self.model, self.version, self.task, Timing(total=1.0), [answer])


def always(answer: Mapping[str, Any]) -> Answer:
    """The same answer to everybody."""

    async def say(request: InferenceRequest) -> dict[str, Any]:
        return dict(answer)

    return say


def boxes(count: int, score: float = 0.9) -> dict[str, Any]:
    """So many detections, each 4 pixels wide, one beside the other; the first is the best."""
    return {
        "detections": [
            {
                "label": f"thing {i}",
                "index": i,
                "score": score - i / 100_000,
                "box": [4.0 * i, 0.0, 4.0 * i + 4, 8.0],
            }
            for i in range(count)
        ]
    }


def detector(answer: Mapping[str, Any], version: int = 1) -> Scripted:
    """A detector that always sees the same."""
    return Scripted("detector", "object-detection", "image", always(answer), version)


def classifier(answer: Answer, version: int = 1) -> Scripted:
    """A classifier with this answer."""
    return Scripted("classifier", "image-classification", "image", answer, version)


def photo(width: int = 80, height: int = 16) -> Payload:
    """A PNG; its red is a tenth of the column's number of boxes of 4 pixels, times 100."""
    columns = np.repeat(np.arange(width, dtype=np.uint8)[None, :] // 4 * 10, height, axis=0)
    file = io.BytesIO()
    Image.fromarray(np.stack([columns] * 3, axis=2)).save(file, "PNG")
    return Payload(file.getvalue(), "image/png")


def ask(parameters: Mapping[str, Any] | None = None, **fields: Any) -> InferenceRequest:
    """One photo."""
    return InferenceRequest(payloads=[photo()], parameters=parameters or {}, **fields)


def put(catalogue: Catalogue, target: Any) -> Served:
    """Let it answer for its name."""
    served = Served(target)
    catalogue.swap(target.model, [Share(served)])
    return served


@asynccontextmanager
async def pipeline(text: str, *targets: Any, **options: Any) -> AsyncIterator[tuple[Pipeline, Catalogue]]:
    """A pipeline over these targets."""
    catalogue = Catalogue()
    catalogue.expected = {}
    for target in targets:
        put(catalogue, target)
    with ThreadPoolExecutor(2) as threads:
        made = Pipeline("line", 1, validate(text, FACTS), catalogue, threads, PipelineOptions(**options))
        yield made, catalogue


@asynccontextmanager
async def fake_classifier(
    folder: Path, threads: ThreadPoolExecutor, *, instances: int = 1, **fields: Any
) -> AsyncIterator[Deployment]:
    """A real deployment of a fake model, which answers the red of the image's first pixels as scores."""
    spec = {"dtype": "FP32", "shape": [-1, 3, SIDE, SIDE]}
    scores = {"dtype": "FP32", "shape": [-1, 3]}
    signature = {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y", **scores}]}
    path = folder / "classifier.json"
    path.write_text(json.dumps({"signature": signature, "scale": 1.0, "latency_ms": 0, **fields}))

    def make_engine() -> tuple[FakeEngine, Signature]:
        engine = FakeEngine()
        return engine, engine.load(path, EngineOptions())

    config = {"preprocess": {"resize": {"mode": "stretch", "interpolation": "nearest"}}}
    config |= {"postprocess": {"activation": "none"}}
    deployment = Deployment(
        DeploymentOptions("classifier", 2, 10_000),
        LocalRunner(RunnerOptions("classifier", instances=instances), make_engine),
        lambda signature: ImageClassification(config, signature, folder),
        threads,
    )
    await deployment.start()
    try:
        yield deployment
    finally:
        await deployment.close()
