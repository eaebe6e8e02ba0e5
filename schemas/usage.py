"""What was used."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Moment

Step = Literal["minute", "hour", "day"]
By = Literal["tenant", "token", "model"]


class SpentAnswer(Answer):
    """Sums over the requests that were let in."""

    requests: int
    errors: int = Field(description="Those of them that were not answered as asked.")
    items: int
    tokens: int = Field(description="Of texts, where the model's task tells.")
    engine_seconds: float
    bytes_in: int
    bytes_out: int


class PointAnswer(SpentAnswer):
    """The sums of one step that has any."""

    at: Moment = Field(description="When the step began.")


class GroupAnswer(SpentAnswer):
    """The sums of one tenant, token or model."""

    key: str = Field(description="Its name; of a token, its id.")
    name: str
    points: list[PointAnswer]


class UsageAnswer(Answer):
    """What was used in a range of time."""

    since: Moment = Field(serialization_alias="from")
    until: Moment = Field(serialization_alias="to")
    step: Step
    by: By | None
    total: SpentAnswer
    groups: int = Field(description="How many used anything; `items` has those with the most requests.")
    items: list[GroupAnswer]
    points: list[PointAnswer] = Field(description="Of all together, where no `by` was asked for.")
