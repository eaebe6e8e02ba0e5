"""create_app(): the whole HTTP side, as data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from app.access_log import AccessLog
from app.answer_headers import Cors, FixedHeaders
from app.dashboard.assets import ASSETS
from app.dashboard.call_body import CallBody, is_call
from app.dashboard.dashboard import dashboard
from app.dashboard.oidc import ROUTES as OIDC_ROUTES
from app.dashboard.signing_in import HOME, sign_in_app
from app.docs import docs_page, documented
from app.errors import add_error_handlers, crashed, http_error
from app.external import health, models, oip
from app.external.express import Express
from app.external.inference import PREFIX, InferenceEndpoint
from app.external.metrics import metrics
from app.external.oip_infer import OipInferEndpoint
from app.external.openapi import describe_inference
from app.external.predict import PredictEndpoint
from app.external.streaming import STREAM_PREFIX, StreamEndpoint
from app.internal import (
    access_rules,
    audit,
    auth,
    deployments,
    derived,
    host_logs,
    imports,
    keys,
    optimisations,
    pipelines,
    samples,
    sessions,
    system,
    tenants,
    tokens,
    totp,
    usage,
    users,
)
from app.internal import models as internal_models
from app.lifespan import Place, lifespan
from app.middleware import ASGIApp, BodyCap, RequestContext
from app.state import LifespanState
from app.tracing import Tracer
from app.tracing_extra import check_tracing
from core.settings import Settings

if TYPE_CHECKING:
    from app.span_export import SpanExport

MAX_JSON_BYTES = 1 << 20


def create_app(
    settings: Settings, place: Place | None = None, read_settings: Callable[[], Settings] | None = None
) -> ASGIApp:
    """The ASGI application of one server process."""
    internal = internal_api(settings)
    external = external_api()

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[LifespanState]:
        async with lifespan(settings, place, read_settings, spans) as state:
            yield state

    spans = open_spans(settings)
    tracer = None if spans is None else Tracer(settings.tracing, spans.export)
    signing_in = BodyCap(sign_in_app(OIDC_ROUTES), max_bytes=MAX_JSON_BYTES)
    inference, streams = InferenceEndpoint(), StreamEndpoint()
    routes: list[BaseRoute] = [
        Mount("/api/v1/inference", inference),
        Mount("/api/v1/stream", streams),
        Route("/predict", PredictEndpoint()),
        Route("/v2/models/{model}/infer", OipInferEndpoint()),
        Route("/v2/models/{model}/versions/{version}/infer", OipInferEndpoint()),
        Mount("/api/v1/internal", BodyCap(internal, max_bytes=MAX_JSON_BYTES, exempt=_is_upload)),
        Mount("/static", ASSETS),
        Mount("/dashboard", BodyCap(CallBody(dashboard()), max_bytes=MAX_JSON_BYTES, exempt=_is_page_upload)),
        Route("/login", signing_in),
        Route("/login/code", signing_in),
        Route("/login/oidc", signing_in),
        Route("/login/oidc/callback", signing_in),
        Route("/dashboard", _home),
        Route("/", _home),
        Route("/metrics", metrics),
    ]
    if settings.server.docs:
        routes += [
            Route("/docs/internal/openapi.json", _json(internal)),
            Route("/docs/external/openapi.json", _json(external)),
            Route("/docs/internal", docs_page("Internal API", "/docs/internal/openapi.json")),
            Route("/docs/external", docs_page("Inference API", "/docs/external/openapi.json")),
            Route("/docs", docs_page("Inference API", "/docs/external/openapi.json")),
        ]
    routes.append(Mount("/", BodyCap(external, max_bytes=MAX_JSON_BYTES)))
    root = Root(routes=routes, lifespan=run, exception_handlers={HTTPException: http_error, Exception: crashed})
    root.shortcuts = ((PREFIX, inference), (STREAM_PREFIX, streams))
    access_log = AccessLog(settings)
    fixed, cors = FixedHeaders(settings), Cors(settings.server.cors_origins)
    app = RequestContext(root, access_log, fixed, cors, tracer)
    app.express = Express(access_log, fixed, cors, tracer)
    return app


def open_spans(settings: Settings) -> SpanExport | None:
    """What sends spans; None, with nothing imported, where requests are not traced. Raises InvalidSettings."""
    if not settings.tracing.enabled:
        return None
    check_tracing(settings.tracing)
    from app.span_export import SpanExport

    return SpanExport(settings.tracing)


class Root(Starlette):
    """Starlette's own; what begins as one of `shortcuts` says goes there, past all of its layers."""

    shortcuts: tuple[tuple[str, ASGIApp], ...] = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one ASGI connection."""
        if scope["type"] in ("http", "websocket"):
            for prefix, app in self.shortcuts:
                if scope["path"].startswith(prefix):
                    await app(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def internal_api(settings: Settings) -> FastAPI:
    """The admin API, mounted at `/api/v1/internal`."""
    app = FastAPI(
        title="Pulvinar internal API",
        version=version("pulvinar"),
        description="Models, deployments, tokens and users. Sign in with `auth/login`, then send `X-Auth-Token`.",
        servers=[{"url": "/api/v1/internal"}],
        root_path_in_servers=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for router in (
        auth.router,
        sessions.router,
        totp.router,
        users.router,
        internal_models.router,
        imports.router,
        deployments.router,
        host_logs.router,
        samples.router,
        optimisations.router,
        derived.router,
        pipelines.router,
        tenants.router,
        tokens.router,
        usage.router,
        access_rules.router,
        keys.router,
        system.router,
        audit.router,
    ):
        app.include_router(router)
    add_error_handlers(app)
    return app


def external_api() -> FastAPI:
    """The inference API and the health checks; the inference call itself is plain ASGI (`external/inference`)."""
    app = FastAPI(
        title="Pulvinar inference API",
        version=version("pulvinar"),
        description="Call the models that your access token allows. Send it as `X-Access-Token`, or as a bearer.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for prefix in ("/api/v1", ""):
        app.include_router(models.router, prefix=prefix)
    app.include_router(health.router)
    app.include_router(oip.public)
    app.include_router(oip.router)
    add_error_handlers(app)
    describe_inference(app)
    return app


def _is_upload(scope: MutableMapping[str, Any]) -> bool:
    # These stream to disk and count for themselves.
    path: str = scope["path"].removeprefix("/api/v1/internal")
    return bool(scope["method"] == "POST") and (path == "/models" or path.endswith(("/versions", "/samples")))


def _is_page_upload(scope: MutableMapping[str, Any]) -> bool:
    path: str = scope["path"]
    return bool(scope["method"] == "POST") and (path.endswith("/upload") or is_call(scope))


async def _home(request: Request) -> Response:
    return RedirectResponse(HOME, 303)


def _json(app: FastAPI) -> Any:
    async def openapi(request: Request) -> Response:
        return JSONResponse(documented(app))

    return openapi
