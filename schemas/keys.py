"""The keys that sign sign-in tokens; never their secrets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment


class KeyRotate(Body):
    """When the new key begins to sign."""

    activate_in_s: float = Field(
        0, ge=0, le=7 * 24 * 3600, description="Seconds; time to bring its file to other machines."
    )


class KeyAnswer(Answer):
    """`next` will sign, `signing` does, `verifying` is believed until `ends_at`, `over` is not any more."""

    kid: str
    state: Literal["next", "signing", "verifying", "over"]
    active_from: Moment
    ends_at: Moment | None
