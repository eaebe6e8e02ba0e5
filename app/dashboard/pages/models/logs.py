"""What the host processes of a model have printed: where a load failed, or a process died, it says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastapi import Request
from starlette.responses import Response

from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, load_head
from app.dashboard.rendering import fragment, render
from app.dependencies import House, Reading
from app.internal.host_logs import logs_answer
from core.access.roles import Role
from schemas.deployments import HostLogAnswer

router = pages()


@dataclass(frozen=True, slots=True)
class LogsPage(ModelPage):
    """The last lines of each version's host."""

    template: ClassVar[str] = "pages/models/logs.html"
    tab: ClassVar[str] = "/logs"
    head: Head
    logs: list[HostLogAnswer]
    may_read: bool

    @property
    def hosted(self) -> bool:
        """Whether what serves now is to run in processes of its own."""
        desired = self.head.desired
        return desired is not None and desired.running and desired.spec.get("isolation") == "process"


@router.get("/models/{name}/logs")
async def logs(request: Request, name: ModelName, user: Viewer, house: House, session: Reading) -> Response:
    """The page. What a process prints may hold what it was sent, so viewers do not read it."""
    may_read = user.role.allows(Role.OPERATOR)
    found = logs_answer(await house.host_logs(name)).versions if may_read else []
    return render(request, LogsPage(await load_head(session, name, user), found, may_read))


@router.get("/models/{name}/logs/lines")
async def lines(request: Request, name: ModelName, user: Operator, house: House, session: Reading) -> Response:
    """The lines alone, asked for again and again."""
    found = logs_answer(await house.host_logs(name)).versions
    return fragment(
        request, "pages/models/log_lines.html", LogsPage(await load_head(session, name, user), found, True)
    )
