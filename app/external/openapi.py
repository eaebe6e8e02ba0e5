"""The inference call's part of the OpenAPI document: it is plain ASGI, so FastAPI cannot see it by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.external.oip_openapi import describe_oip
from schemas.base import ErrorBody
from schemas.inference import InferenceAnswer, JsonInference, PredictAnswer

_REF = "#/components/schemas/{model}"
_ERRORS = {
    400: "Malformed body, or a wrong field name.",
    401: "No token, or none that is valid.",
    403: "The token does not allow this operation or address.",
    404: "There is no such model that this token may call.",
    413: "The body, the image or the number of files is over a cap.",
    415: "The bytes are not of a kind that this model takes.",
    422: "Well-formed, but wrong for this model.",
    429: "The token's limit is used up; see Retry-After.",
    503: "Not ready, or its queue is full; see Retry-After.",
    504: "The deadline passed.",
}
_FILE = {"type": "string", "format": "binary"}
_EXAMPLE = {
    "request_id": "0a1b2c3d4e5f60718293a4b5",
    "model": "classifier",
    "version": 1,
    "task": "image-classification",
    "predictions": [{"label": "Egyptian cat", "index": 285, "score": 0.61}],
    "timing_ms": {"queue": 0.05, "preprocess": 1.7, "infer": 5.6, "postprocess": 0.1, "total": 7.5},
}


def describe_inference(app: FastAPI) -> None:
    """Add `POST /api/v1/inference/{model}`, and the two token headers, to the app's OpenAPI document."""
    plain: Callable[[], dict[str, Any]] = lambda: get_openapi(  # noqa: E731  # replaces a method of that shape
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    cached: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not cached:
            cached.update(_with_inference(plain()))
        return cached

    app.openapi = openapi  # type: ignore[method-assign]


def _with_inference(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (InferenceAnswer, PredictAnswer, JsonInference, ErrorBody):
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    document["components"]["securitySchemes"] = {
        "AccessToken": {"type": "apiKey", "in": "header", "name": "X-Access-Token"},
        "Bearer": {"type": "http", "scheme": "bearer"},
    }
    security: list[dict[str, list[str]]] = [{"AccessToken": []}, {"Bearer": []}]
    document["paths"]["/api/v1/inference/{model}"] = {"post": {**_operation(), "security": security}}
    document["paths"]["/predict"] = {"post": {**_predict(), "security": security}}
    for path in ("/api/v1/models", "/models"):
        document["paths"][path]["get"]["security"] = security
    describe_oip(document, security)
    return document


def _operation() -> dict[str, Any]:
    return {
        "tags": ["inference"],
        "summary": "Call a model",
        "description": (
            "Send one or several files as multipart (`image`, `audio` or `file`), the raw bytes of one file with "
            "their media type, or JSON. Several files are one batch, answered in order in `results`."
        ),
        "operationId": "infer",
        "parameters": [
            {
                "name": "model",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "example": "classifier",
            },
            {
                "name": "version",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1},
                "description": "One live version; otherwise the traffic weights decide.",
            },
            {
                "name": "X-Sticky-Key",
                "in": "header",
                "schema": {"type": "string"},
                "description": "The same key gets the same version while the traffic weights stay.",
            },
        ],
        "requestBody": _body({"image/jpeg": {"schema": _FILE}}),
        "responses": _responses("InferenceAnswer", _EXAMPLE),
    }


def _predict() -> dict[str, Any]:
    raw = {kind: {"schema": _FILE} for kind in ("image/jpeg", "audio/wav", "text/plain")}
    return {
        "tags": ["inference"],
        "summary": "Call the default model of what is sent",
        "description": (
            "As the call of a model, without its name: the content says whether it is an image, a recording, text "
            "or tensors, and the default of that answers. What is neither, or several at once, is refused."
        ),
        "operationId": "predict",
        "requestBody": _body(raw),
        "responses": _responses("PredictAnswer", {**_EXAMPLE, "modality": "image", "latency_ms": 7.6}),
    }


def _body(raw: dict[str, Any]) -> dict[str, Any]:
    form = {
        "type": "object",
        "properties": {"image": _FILE, "audio": _FILE, "file": _FILE, "parameters": {"type": "string"}},
    }
    content = {
        "multipart/form-data": {"schema": form},
        **raw,
        "application/json": {"schema": {"$ref": "#/components/schemas/JsonInference"}},
    }
    return {"required": True, "content": content}


def _responses(answer: str, example: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}, "example": example}}
    return {
        "200": {"description": "The answer.", "content": content},
        **{str(status): {"description": text, "content": error} for status, text in _ERRORS.items()},
    }
