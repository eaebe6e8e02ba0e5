"""What the host processes of a model have printed."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter

from app.dependencies import House, Operator, Reading
from app.internal.models import ModelName
from core.control.deploying import find_model
from core.control.host_log import HostLines
from schemas.base import ErrorBody
from schemas.deployments import HostLogAnswer, LogLineAnswer, LogsAnswer

router = APIRouter(prefix="/models/{name}/logs", tags=["deployments"])


@router.get("", summary="Logs of its host processes", responses={404: {"model": ErrorBody}})
async def get_logs(name: ModelName, _: Operator, house: House, session: Reading) -> LogsAnswer:
    """The last 200 lines of each version's host, over its restarts, oldest first; of this server only."""
    await find_model(session, name)
    return logs_answer(await house.host_logs(name))


def logs_answer(logs: HostLines) -> LogsAnswer:
    """The lines as the wire has them, the newest version first."""
    versions = [
        HostLogAnswer(
            version=int(version),
            lines=[
                LogLineAnswer(at=datetime.fromtimestamp(at, UTC), text=text, by="server" if ours else "host")
                for at, text, ours in lines
            ],
        )
        for version, lines in logs.items()
    ]
    return LogsAnswer(versions=sorted(versions, key=lambda one: -one.version))
