"""The script most people start with: FastAPI handlers that call ONNX Runtime.

Handlers are `async def` and run inline: on one core that is the faster form, without the thread pool's hand-over.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from work import Classifier, Tiny

app = FastAPI()
tiny, classifier = Tiny(), Classifier()


class TinyRequest(BaseModel):
    """64 floats."""

    inputs: list[float]


@app.get("/health")
async def health() -> dict[str, bool]:
    """Ready once the application is up."""
    return {"ready": True}


@app.post("/tiny")
async def run_tiny(body: TinyRequest) -> dict[str, list[float]]:
    """JSON -> MatMul -> JSON."""
    return tiny.answer(body.inputs)


@app.post("/classify")
async def classify(request: Request) -> dict[str, Any]:
    """JPEG bytes -> top five."""
    return classifier.answer(await request.body())
