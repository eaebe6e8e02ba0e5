"""The API pages: Swagger UI from our own files, nothing from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Pulvinar</title>
<link rel="stylesheet" href="/static/vendor/swagger-ui/swagger-ui.css">
<link rel="icon" href="/static/favicon.svg" type="image/svg+xml">
</head>
<body>
<noscript><p>This page needs JavaScript. The API is described in <a href="{url}">{url}</a>.</p></noscript>
<div id="swagger" data-url="{url}"></div>
<script src="/static/vendor/swagger-ui/swagger-ui-bundle.js"></script>
<script src="/static/docs.js"></script>
</body>
</html>
"""


def docs_page(title: str, url: str) -> Callable[[Request], Awaitable[Response]]:
    """A page that shows the OpenAPI document at `url`."""
    html = _PAGE.format(title=escape(title), url=escape(url))

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": CSP, "Referrer-Policy": "no-referrer"})

    return page


def documented(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the house's own 422 in the place of FastAPI's, which never leaves."""
    document = app.openapi()
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            _own_errors(operation)
    if "ErrorBody" not in schemas:
        document.setdefault("components", {}).setdefault("schemas", {})["ErrorBody"] = {"type": "object"}
    return document


def _own_errors(operation: dict[str, Any]) -> None:
    responses = operation.get("responses", {})
    own = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    if "HTTPValidationError" in str(responses.get("422", "")):
        responses["422"] = {"description": "A field is missing or wrong.", "content": own}
    if operation.get("security"):
        responses.setdefault("401", {"description": "No token, or none that is valid.", "content": own})
        responses.setdefault("403", {"description": "The role does not allow it.", "content": own})
    responses.setdefault("default", {"description": "Any other error, in the same form.", "content": own})
