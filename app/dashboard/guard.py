"""Who may see a page and who may send a form: asked in one place, before any page's own code runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.dashboard.cookies import session_cookie
from app.dashboard.csrf import SAFE, check_origin, check_token, is_streamed
from app.dashboard.signing_in import ask_to_sign_in
from app.state import platform_of
from core.access.roles import Role
from core.access.sessions import Principal, Stage
from core.errors import Forbidden, Unauthenticated

PASSWORD_PAGE: Final = "/dashboard/account/password"  # noqa: S105  # where it is changed
_STILL_ALLOWED: Final = (PASSWORD_PAGE, "/dashboard/sign-out", "/dashboard/theme")


class PageRoute(APIRoute):
    """A route of the dashboard: for signed-in users only, and forms only from our own pages."""

    asked_again: ClassVar[bool] = False
    """Whether a session that held a moment ago is good enough."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, behind the guard."""
        inner = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await guard(request)
            finally:
                await request.close()  # files of a form lie on disk

        async def guard(request: Request) -> Response:
            changes = request.method not in SAFE
            if changes:
                check_origin(request)
            try:
                access = platform_of(request).access
                known = access.held if self.asked_again and not changes else access.sessions
                principal = await known.resume(session_cookie(request))
            except Unauthenticated:
                return await ask_to_sign_in(request)
            if principal.stage is Stage.SECOND_FACTOR:
                return await ask_to_sign_in(request, principal)
            request.state.principal = principal
            if changes and not is_streamed(request):
                await check_token(request, principal.session_id)
            if principal.stage is Stage.PASSWORD and request.url.path not in _STILL_ALLOWED:
                return RedirectResponse(PASSWORD_PAGE, 303)
            return await inner(request)

        return guarded


class FiguresRoute(PageRoute):
    """A route that open pages ask again and again."""

    asked_again = True


def pages(route_class: type[PageRoute] = PageRoute) -> APIRouter:
    """A router for a module of pages."""
    return APIRouter(route_class=route_class, default_response_class=HTMLResponse)


def _at_least(role: Role) -> Callable[[Request], Awaitable[Principal]]:
    async def check(request: Request) -> Principal:
        principal: Principal = request.state.principal
        if not principal.role.allows(role):
            raise Forbidden(f"This needs the role {role.value}; you are {principal.role.value}.")
        return principal

    return check


Viewer = Annotated[Principal, Depends(_at_least(Role.VIEWER))]
Operator = Annotated[Principal, Depends(_at_least(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(_at_least(Role.ADMIN))]
"""The access rule of a page is its parameter's type, as in `app.dependencies`."""
