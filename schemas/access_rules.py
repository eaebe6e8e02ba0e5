"""Which addresses may use which API."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment

Action = Literal["allow", "deny"]
Scope = Literal["internal", "external"]


class RuleCreate(Body):
    """A new rule."""

    cidr: str = Field(min_length=1, max_length=64, examples=["10.0.0.0/8"])
    action: Action
    scope: Scope
    note: str = Field("", max_length=200)
    force: bool = Field(False, description="Even where it locks out the address that asks.")


class RuleAnswer(Answer):
    """A rule."""

    id: int
    cidr: str
    action: Action
    scope: Scope
    note: str
    created_by: str
    created_at: Moment


class CheckAnswer(Answer):
    """Whether an address passes, and the rule that says so; null where no rule names it."""

    address: str
    scope: Scope
    allowed: bool
    rule_id: int | None
