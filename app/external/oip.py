"""The Open Inference Protocol v2 over REST: all of it but `infer`, which is plain ASGI (`oip_infer`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version as version_of
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response

from app.dependencies import House
from app.external.door import allow, allow_model, charge, identify, limit_headers
from app.external.oip_models import live_targets, model_config, read_facts
from app.state import Platform
from app.tallies import statistics_of
from core.access.records import TokenRecord
from core.errors import BadRequest, NotReady
from core.serving.deployment import Deployment
from core.serving.runner import RunnerStats
from core.serving.target import Target
from core.signature import TensorSpec
from schemas.oip import (
    IndexEntry,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    OipError,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)

EXTENSIONS: Final = ["binary_tensor_data", "model_configuration", "schedule_policy", "statistics"]

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": OipError, "description": text}
    for status, text in {
        401: "No token, or none that is valid.",
        403: "The token does not allow this operation or address.",
        404: "There is no such model or version that this token may call.",
        429: "The token's limit is used up; see Retry-After.",
        503: "Not ready.",
    }.items()
}
_INDEX_BODY: Final = {
    "requestBody": {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/IndexRequest"}}},
    }
}

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"], responses=_ERRORS)
public = APIRouter(prefix="/v2/health", tags=["Open Inference Protocol v2"])


def _caller(operation: str | None) -> Callable[..., Awaitable[TokenRecord]]:
    async def check(request: Request, response: Response, house: House) -> TokenRecord:
        record = identify(house, request.scope)
        if operation is not None:
            allow(record, operation)
        if "model" in request.path_params:
            allow_model(record, request.path_params["model"])
        for name, value in limit_headers(await charge(house, record)):
            response.headers[name.decode()] = value.decode()
        return record

    return check


Anyone = Annotated[TokenRecord, Depends(_caller(None))]
Lister = Annotated[TokenRecord, Depends(_caller("list"))]


@public.get("/live", summary="Does the process run?")
async def live() -> ServerLive:
    """200 while the process answers at all."""
    return ServerLive(live=True)


@public.get("/ready", summary="Does it serve all that it should?", responses={503: _ERRORS[503]})
async def ready(house: House) -> ServerReady:
    """200 when every deployment desired as running has a live version; otherwise 503."""
    if house.stopping or not house.reconciler.caught_up.is_set() or house.not_ready():
        raise NotReady("Not every model that should serve does yet.", retry_after_s=1)
    return ServerReady(ready=True)


@router.get("", summary="Server metadata")
async def server_metadata(_: Anyone) -> ServerMetadata:
    """Its name, version and extensions."""
    return ServerMetadata(name="pulvinar", version=version_of("pulvinar"), extensions=EXTENSIONS)


@router.get("/models/stats", summary="Statistics of every model this token may call")
async def all_statistics(caller: Lister, house: House) -> ModelStatistics:
    """One entry for each live version."""
    names = sorted(name for name in house.catalogue.targets() if caller.allows_model(name))
    targets = [served.target for name in names for served in house.catalogue.serving(name)]
    return await _statistics(house, targets)


@router.get("/models/{model}", summary="Model metadata")
@router.get("/models/{model}/versions/{version}", summary="Version metadata")
async def model_metadata(_: Lister, house: House, model: str, version: str | None = None) -> ModelMetadata:
    """Name, live versions, platform, and the tensors of the newest version or of the one asked for."""
    target = live_targets(house, model, version)[0]
    return ModelMetadata(
        name=model,
        versions=[str(number) for number in _versions(house, model)],
        platform=(await read_facts(house, target)).platform,
        inputs=[_tensor(spec) for spec in target.signature.inputs],
        outputs=[_tensor(spec) for spec in target.signature.outputs],
    )


@router.get("/models/{model}/ready", summary="Does the model answer?")
@router.get("/models/{model}/versions/{version}/ready", summary="Does the version answer?")
async def model_ready(_: Lister, house: House, model: str, version: str | None = None) -> ModelReady:
    """200 when it does, if only after a load; 503 while it is brought up, 404 for what is not in service."""
    live_targets(house, model, version)
    return ModelReady(name=model, ready=True)


@router.get("/models/{model}/config", summary="Model configuration")
@router.get("/models/{model}/versions/{version}/config", summary="Version configuration")
async def configuration(_: Lister, house: House, model: str, version: str | None = None) -> dict[str, Any]:
    """How it is served, in the words of Triton's `ModelConfig`: batching, tensors, instances, queue."""
    target = live_targets(house, model, version)[0]
    return model_config(target, _versions(house, model), await read_facts(house, target))


@router.get("/models/{model}/stats", summary="Model statistics")
@router.get("/models/{model}/versions/{version}/stats", summary="Version statistics")
async def model_statistics(_: Lister, house: House, model: str, version: str | None = None) -> ModelStatistics:
    """Requests and times of each live version, or of the one asked for, since it was loaded."""
    return await _statistics(house, live_targets(house, model, version), model)


@router.post("/repository/index", summary="Models this token may call", openapi_extra=_INDEX_BODY)
async def repository_index(caller: Lister, house: House, request: Request) -> list[IndexEntry]:
    """Every live version, and what should serve but does not; with `{"ready": true}`, the live ones only."""
    only_ready = _only_ready(await request.body())
    entries = [
        IndexEntry(name=name, version=str(target.version), state="READY")
        for name, targets in house.catalogue.targets().items()
        for target in sorted(targets, key=lambda target: target.version)
    ]
    entries += [
        IndexEntry(name=name, version=str(target.version), state="READY", reason="idle: loaded when it is called")
        for name, targets in house.catalogue.idle().items()
        for target in targets
    ]
    if not only_ready:
        entries += [_waiting(name, sentence) for name, sentence in house.not_ready().items()]
    return sorted((entry for entry in entries if caller.allows_model(entry.name)), key=lambda entry: entry.name)


def _only_ready(body: bytes) -> bool:
    # Clients send no Content-Type, and often no body.
    try:
        wanted = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not valid JSON.") from error
    if not isinstance(wanted, dict) or not isinstance(wanted.get("ready", False), bool):
        raise BadRequest('The body may be `{"ready": true}` or `{"ready": false}`.')
    return bool(wanted.get("ready", False))


def _waiting(name: str, sentence: str) -> IndexEntry:
    state, _, reason = sentence.partition(": ")
    loading = state in ("pending", "loading", "warming")
    return IndexEntry(name=name, state="LOADING" if loading else "UNAVAILABLE", reason=reason or state)


def _versions(house: Platform, model: str) -> list[int]:
    return sorted(target.version for target in house.catalogue.callable_targets(model))


def _tensor(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=spec.dtype, shape=list(spec.shape))


async def _statistics(house: Platform, targets: list[Target], model: str | None = None) -> ModelStatistics:
    totals = await house.reconciler.totals(model)
    stats = []
    for target in targets:
        runs = await target.stats() if isinstance(target, Deployment) else RunnerStats()
        stats.append(statistics_of(house, target, totals).to_json(target, runs))
    return ModelStatistics(model_stats=stats)
