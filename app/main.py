"""create_app(): the whole HTTP side, as data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from slowapi import Limiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from app.access_log import AccessLog
from app.docs import docs_page, documented
from app.errors import add_error_handlers, crashed, http_error
from app.external import health, models, oip
from app.external.express import Express
from app.external.inference import PREFIX, InferenceEndpoint
from app.external.metrics import metrics
from app.external.oip_infer import OipInferEndpoint
from app.external.openapi import describe_inference
from app.internal import audit, deployments, imports, optimisations, samples, system, tokens, users
from app.internal import models as internal_models
from app.internal.auth import auth_router
from app.lifespan import Place, lifespan
from app.middleware import ASGIApp, BodyCap, RequestContext
from app.state import LifespanState, Platform
from core.settings import Settings

STATIC = Path(__file__).resolve().parents[1] / "static"
MAX_JSON_BYTES = 1 << 20


def create_app(
    settings: Settings, place: Place | None = None, read_settings: Callable[[], Settings] | None = None
) -> ASGIApp:
    """The ASGI application of one server process."""
    internal = internal_api(settings)
    external = external_api()

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[LifespanState]:
        async with lifespan(settings, place, read_settings) as state:
            internal.state.platform = state["platform"]
            yield state

    inference = InferenceEndpoint()
    routes: list[BaseRoute] = [
        Mount("/api/v1/inference", inference),
        Route("/v2/models/{model}/infer", OipInferEndpoint()),
        Route("/v2/models/{model}/versions/{version}/infer", OipInferEndpoint()),
        Mount("/api/v1/internal", BodyCap(internal, max_bytes=MAX_JSON_BYTES, exempt=_is_upload)),
        Mount("/static", StaticFiles(directory=STATIC)),
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
    root.shortcuts = ((PREFIX, inference),)
    access_log = AccessLog(settings)
    app = RequestContext(root, access_log)
    app.express = Express(access_log)
    return app


class Root(Starlette):
    """Starlette's own; what begins as one of `shortcuts` says goes there, past all of its layers."""

    shortcuts: tuple[tuple[str, ASGIApp], ...] = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
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
    limiter = Limiter(key_func=_address)
    app.state.limiter = limiter
    app.state.platform = None

    def login_rate() -> str:
        platform: Platform | None = app.state.platform
        return (platform.settings if platform is not None else settings).access.login_rate

    for router in (
        auth_router(limiter, login_rate),
        users.router,
        internal_models.router,
        imports.router,
        deployments.router,
        samples.router,
        optimisations.router,
        tokens.router,
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
    app.include_router(models.router, prefix="/api/v1")
    app.include_router(health.router)
    app.include_router(oip.public)
    app.include_router(oip.router)
    add_error_handlers(app)
    describe_inference(app)
    return app


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _is_upload(scope: MutableMapping[str, Any]) -> bool:
    # These stream to disk and count for themselves.
    path: str = scope["path"].removeprefix("/api/v1/internal")
    return bool(scope["method"] == "POST") and (path == "/models" or path.endswith(("/versions", "/samples")))


def _json(app: FastAPI) -> Any:
    async def openapi(request: Request) -> Response:
        return JSONResponse(documented(app))

    return openapi
