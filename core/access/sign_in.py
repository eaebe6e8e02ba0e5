"""Signing in, step by step: password, second factor, the next pair of tokens. API and pages share these steps.

Every attempt is counted and written down; `user.stage` of an answer says which step comes next. What a signed-in
user does with their own account, a forced change of password too, is in core.access.own_account.
"""

from __future__ import annotations

from typing import Final

from core.access.lockout import Attempts
from core.access.second_factor import SecondFactors
from core.access.sessions import Caller, Principal, SessionService, SignedIn, Stage
from core.database.repositories import Audit
from core.database.session import Database
from core.database.tables import User
from core.errors import Unauthenticated

REFRESH_RATE: Final = "60/minute"


class SignIn:
    """The way in. Belongs to one event loop."""

    def __init__(
        self, database: Database, sessions: SessionService, second_factors: SecondFactors, attempts: Attempts
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._second_factors = second_factors
        self._attempts = attempts

    async def with_password(self, name: str, password: str, caller: Caller) -> SignedIn:
        """The first step. Raises LimitExceeded, or the same Unauthenticated whatever was wrong."""
        await self._attempts.throttle("sign-in", caller.address)
        try:
            async with self._attempts.of(name):
                signed_in = await self._sessions.login(name, password, caller.address, caller.user_agent)
        except Unauthenticated:
            await self.note(name or "?", "auth.login_failed", caller)
            raise
        if signed_in.user.stage is not Stage.SECOND_FACTOR:
            await self.note(signed_in.user.name, "auth.login", caller, by="password")
        return signed_in

    async def with_second_factor(self, half: Principal, code: str, caller: Caller) -> SignedIn:
        """The second step: `half` has come through the first, `code` is of the app or one for recovery.

        Raises LimitExceeded, or Unauthenticated.
        """
        await self._attempts.throttle("sign-in", caller.address)
        try:
            async with self._attempts.of(half.name):
                by = await self._second_factors.check(half.user_id, code)
        except Unauthenticated:
            await self.note(half.name, "auth.second_factor_failed", caller)
            raise
        signed_in = await self._sessions.go_on(half, caller)
        await self.note(half.name, "auth.login", caller, by=f"password and {by}")
        return signed_in

    async def as_proven(self, user: User, caller: Caller, *, by: str) -> SignedIn:
        """A session of somebody who has shown elsewhere who they are; their second factor is still asked for."""
        signed_in = await self._sessions.open(user, caller, second_factor_due=user.totp_since is not None)
        half = signed_in.user.stage is Stage.SECOND_FACTOR
        await self.note(user.name, "auth.first_step" if half else "auth.login", caller, by=by)
        return signed_in

    async def refresh(self, refresh_token: str, caller: Caller) -> SignedIn:
        """The next pair of tokens. Raises LimitExceeded, or Unauthenticated."""
        await self._attempts.throttle("refresh", caller.address, REFRESH_RATE)
        return await self._sessions.refresh(refresh_token)

    async def note(self, name: str, action: str, caller: Caller, **detail: str) -> None:
        """Write an entry of the audit log."""
        async with self._database.transaction() as session:
            await Audit(session).add(
                name, action, name, detail=detail, address=caller.address, request_id=caller.request_id
            )
