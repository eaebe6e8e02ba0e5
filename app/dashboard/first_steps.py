"""The way from an empty house to the first prediction: what is done of it, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.state import Platform
from app.tallies import traffic_of
from core.access.roles import Role
from core.database.repositories.history import History
from core.database.repositories.tokens import Tokens
from core.database.repositories.versions import Versions
from core.database.tables import Version

_MODELS: Final = "/dashboard/models"


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One of them: what to do and why, where, and whether it is done."""

    title: str
    sentence: str
    action: str
    path: str
    done: bool


@dataclass(frozen=True, slots=True)
class Known:
    """How far a house is: the version that is furthest, what is in service, whether anything was ever answered."""

    model: str = ""
    version: int = 0
    valid: bool = False
    served: str = ""
    answered: bool = False
    token: bool = False


def first_steps(known: Known, role: Role) -> tuple[FirstStep, ...]:
    """The steps for somebody with that role; empty once all are done, and for those who may change nothing."""
    if not role.allows(Role.OPERATOR):
        return ()
    model = f"{_MODELS}/{known.model}"
    steps = [
        FirstStep(
            "Upload a model",
            "An ONNX file is enough. A zip with a model.yaml says more: the task, the labels.",
            "Upload a model",
            f"{_MODELS}/-/new",
            bool(known.model),
        ),
        FirstStep(
            "Read its report",
            "It is tried in a sandbox, a check at a time. What fails says how to mend it.",
            "See the checks",
            f"{model}/versions/{known.version}" if known.version else _MODELS,
            known.valid,
        ),
        FirstStep(
            "Deploy it",
            "Then it is in service, and stays so over restarts. The defaults are sensible.",
            "Deploy it",
            f"{model}/deployment" if known.model else _MODELS,
            bool(known.served),
        ),
        FirstStep(
            "Get the first prediction",
            "Send a photo, a text or a recording in the playground, and see the answer drawn.",
            "Open the playground",
            f"/dashboard/playground?target={known.served}",
            known.answered,
        ),
    ]
    if role.allows(Role.ADMIN):
        steps.append(
            FirstStep(
                "Give an application a token",
                "It carries the token with each call; you say which models, and how often.",
                "Make a token",
                "/dashboard/access/tokens/new",
                known.token,
            )
        )
    return () if all(step.done for step in steps) else tuple(steps)


async def look_around(session: AsyncSession, house: Platform, served: str) -> Known:
    """How far this house is; `served` is a model that is to run, where there is one."""
    asked = any(one.requests for one in traffic_of(house, None).values())
    answered = asked or await History(session).has_answers()
    token = bool((await Tokens(session).page(1))[0])
    if answered and served and token:  # as it is in every house from its second day on
        return Known(served, 0, valid=True, served=served, answered=True, token=True)
    furthest: Version | None = await Versions(session).furthest()
    if furthest is None:
        return Known(answered=answered, token=token)
    return Known(
        furthest.model.name, furthest.version, furthest.status == "valid", served, answered=answered, token=token
    )
