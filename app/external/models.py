"""`GET /api/v1/models`: what a token may call."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response

from app.external.door import allow, charge, identify, limit_headers
from app.state import Platform, platform_of
from core.serving.target import Target
from schemas.base import ErrorBody
from schemas.inference import ServedModel, ServedModels
from schemas.models import TensorAnswer

router = APIRouter(tags=["inference"])


@router.get("/models", summary="Models this token may call", responses={401: {"model": ErrorBody}})
async def list_models(request: Request, response: Response) -> ServedModels:
    """Every model in service that the token's patterns allow, each live version by itself."""
    platform = platform_of(request)
    record = identify(platform, request.scope)
    allow(record, "list")
    for name, value in limit_headers(await charge(platform, record)):
        response.headers[name.decode()] = value.decode()
    models = [
        ServedModel(
            name=name,
            task=target.task,
            version=target.version,
            state=state,
            modality=target.modality,
            default=platform.defaults.targets.get(target.modality) == name,
            inputs=[TensorAnswer.model_validate(spec) for spec in target.signature.inputs],
            outputs=[TensorAnswer.model_validate(spec) for spec in target.signature.outputs],
        )
        for name, targets, state in _callable(platform)
        if record.allows_model(name)
        for target in targets
    ]
    return ServedModels(models=models)


def _callable(platform: Platform) -> list[tuple[str, Iterable[Target], str]]:
    """Every name that can be called, with its targets and its state, in the names' order."""
    pipelines = platform.pipelines
    loaded = [
        (name, targets, pipelines.state(name)[0] if pipelines.has(name) else "serving")
        for name, targets in platform.catalogue.targets().items()
    ]
    idle = [(name, targets, "idle") for name, targets in platform.catalogue.idle().items()]
    return sorted([*loaded, *idle], key=lambda one: one[0])
