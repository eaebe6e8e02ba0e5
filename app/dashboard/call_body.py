"""The body of a call from a page: as large and as slow as the inference API lets one be, and no more."""

from __future__ import annotations

import asyncio
from typing import Final

from app.middleware import ASGIApp, Message, Receive, Scope, Send, content_length
from app.state import Platform
from core.errors import BadRequest, TooLarge

CALLS: Final = "/dashboard/playground/"
PIPELINES: Final = "/dashboard/pipelines/"
RUN: Final = "/run"
_AROUND_BYTES: Final = 64 * 1024
"""What a form has around its file."""


class CallBody:
    """Holds bodies of calls to the caps of `inference.*`, while whoever reads them reads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not is_call(scope):
            await self._app(scope, receive, send)
            return
        platform: Platform = scope["state"]["platform"]
        limits = platform.settings.inference
        most = limits.max_body_bytes + _AROUND_BYTES
        too_large = TooLarge(
            f"The body is larger than the {limits.max_body_bytes / (1 << 20):g} MiB that one request may have."
        )
        deadline = asyncio.get_running_loop().time() + limits.body_timeout_s
        seen, whole = 0, False

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:  # what comes now is that the client leaves
                return await receive()
            if content_length(scope) > most:
                raise too_large
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise BadRequest(f"The body did not arrive within {limits.body_timeout_s:g} seconds.") from error
            seen += len(message.get("body", b""))
            whole = not message.get("more_body")
            if seen > most:
                raise too_large
            return message

        await self._app(scope, counted, send)


def is_call(scope: Scope) -> bool:
    """Whether this is a call from the Playground, or a run of a pipeline."""
    path = str(scope["path"])
    runs = path.startswith(PIPELINES) and path.endswith(RUN)
    return bool(scope["method"] == "POST") and (path.startswith(CALLS) or runs)
