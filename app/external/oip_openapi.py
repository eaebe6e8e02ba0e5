"""The part of the Open Inference Protocol v2 in the OpenAPI document that FastAPI cannot see by itself."""

from __future__ import annotations

from typing import Any, Final

from schemas.oip import IndexRequest, InferAnswer, InferRequest, OipError

_REF: Final = "#/components/schemas/{model}"
_ERRORS: Final = {
    400: "Malformed, or wrong for this model; the sentence says which tensor.",
    401: "No token, or none that is valid.",
    403: "The token does not allow this operation or address.",
    404: "There is no such model or version that this token may call.",
    429: "The token's limit is used up; see Retry-After.",
    500: "The model failed.",
    503: "Not ready, its queue is full, or the deadline passed; see Retry-After.",
}
_LENGTH: Final = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "The length of the JSON, where binary tensors follow it.",
}


def describe_oip(document: dict[str, Any], security: list[dict[str, list[str]]]) -> None:
    """Add the `infer` calls to the document, and the token to every path under `/v2` but the health checks."""
    schemas = document["components"]["schemas"]
    for model in (InferRequest, InferAnswer, IndexRequest, OipError):
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    paths = document["paths"]
    paths["/v2/models/{model}/infer"] = {"post": _infer("oip_infer", ["model"])}
    paths["/v2/models/{model}/versions/{version}/infer"] = {
        "post": _infer("oip_infer_version", ["model", "version"])
    }
    for path, operations in paths.items():
        if path.startswith("/v2"):
            for operation in operations.values():
                _complete(operation, [] if path.startswith("/v2/health/") else security)


def _complete(operation: dict[str, Any], security: list[dict[str, list[str]]]) -> None:
    operation["responses"].pop("422", None)  # this wire says 400
    operation["responses"]["default"] = {"description": "Any other error, in the same form.", "content": _error()}
    if security:
        operation["security"] = security


def _infer(operation_id: str, names: list[str]) -> dict[str, Any]:
    where = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {
        "tags": ["Open Inference Protocol v2"],
        "summary": "Call a model with tensors",
        "description": (
            "JSON, with or without binary tensors after it. The body may be gzip or deflate (Content-Encoding), "
            "and so may the answer (Accept-Encoding)."
        ),
        "operationId": operation_id,
        "parameters": [*where, _LENGTH],
        "requestBody": {"required": True, "content": _content("InferRequest")},
        "responses": {
            "200": {"description": "The outputs.", "content": _content("InferAnswer")},
            **{str(status): {"description": text, "content": _error()} for status, text in _ERRORS.items()},
        },
    }


def _error() -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model="OipError")}}}


def _content(model: str) -> dict[str, Any]:
    return {
        "application/json": {"schema": {"$ref": _REF.format(model=model)}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
