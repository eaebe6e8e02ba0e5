"""How the nodes of pipelines call models: each call counts as the model's own, beside those that callers make."""

from __future__ import annotations

from app.external.inference import count_error
from app.state import Platform
from app.tallies import note_answer
from core.errors import PlatformError
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.target import Target


async def call_counted(platform: Platform, target: Target, request: InferenceRequest) -> InferenceResult:
    """`target.infer`, counted in metrics and statistics."""
    try:
        result = await platform.statistics.infer(target, request)
    except PlatformError as error:
        count_error(platform, target.model, target.version, error.status, error.code)
        raise
    note_answer(platform, target, result)
    return result
