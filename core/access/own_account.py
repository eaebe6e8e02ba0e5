"""What signed-in users do with their own account: password, second factor, sign-out. API and pages share it.

A stolen session shall not be able to find out the password or a code: wrong ones count as at sign-in.
"""

from __future__ import annotations

from typing import Any

from core.access.lockout import Attempts
from core.access.second_factor import Enrolment, SecondFactor, SecondFactors
from core.access.sessions import Caller, Principal, SessionService
from core.database.repositories import Audit
from core.database.session import Database


class OwnAccount:
    """One's own account. Belongs to one event loop. Wrong passwords and codes raise Unauthenticated."""

    def __init__(
        self, database: Database, sessions: SessionService, second_factors: SecondFactors, attempts: Attempts
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._second_factors = second_factors
        self._attempts = attempts

    async def change_password(self, principal: Principal, old: str, new: str, caller: Caller) -> None:
        """Also the forced one. All other sessions of this user end. Raises Unprocessable for a weak one."""
        async with self._attempts.of(principal.name):
            await self._sessions.change_password(principal, old, new)
        await self._note(principal, "auth.password", caller, {"password": "changed"})

    async def sign_out(self, principal: Principal, caller: Caller) -> None:
        """End the session on the server."""
        await self._sessions.logout(principal)
        await self._note(principal, "auth.logout", caller)

    async def second_factor(self, principal: Principal) -> SecondFactor:
        """Whether there is one."""
        return await self._second_factors.of(principal)

    async def begin_second_factor(self, principal: Principal, password: str, caller: Caller) -> Enrolment:
        """What the authenticator app is given. Raises Conflict where there is one already."""
        async with self._attempts.of(principal.name):
            await self._sessions.confirm_password(principal, password)
        enrolment = await self._second_factors.begin(principal)
        await self._note(principal, "auth.totp_begin", caller)
        return enrolment

    async def confirm_second_factor(self, principal: Principal, code: str, caller: Caller) -> list[str]:
        """It is asked for from now on; answers the recovery codes, this one time. Other sessions end."""
        async with self._attempts.of(principal.name):
            codes = await self._second_factors.confirm(principal, code)
        await self._note(principal, "auth.totp_enable", caller, _told(before=False, after=True))
        return codes

    async def renew_recovery_codes(self, principal: Principal, code: str, caller: Caller) -> list[str]:
        """New recovery codes, shown this one time, in the place of those that are left."""
        async with self._attempts.of(principal.name):
            await self._second_factors.check(principal.user_id, code)
        codes = await self._second_factors.renew_recovery_codes(principal)
        await self._note(principal, "auth.recovery_codes", caller, {"recovery_codes": len(codes)})
        return codes

    async def drop_second_factor(self, principal: Principal, code: str, caller: Caller) -> None:
        """Ask for no code any more."""
        async with self._attempts.of(principal.name):
            await self._second_factors.check(principal.user_id, code)
        await self._second_factors.drop(principal)
        await self._note(principal, "auth.totp_disable", caller, _told(before=True, after=False))

    async def _note(
        self, principal: Principal, action: str, caller: Caller, detail: dict[str, Any] | None = None
    ) -> None:
        async with self._database.transaction() as session:
            await Audit(session).add(
                principal.name,
                action,
                principal.name,
                detail=detail,
                address=caller.address,
                request_id=caller.request_id,
            )


def _told(*, before: bool, after: bool) -> dict[str, Any]:
    return {"second_factor": after, "before": {"second_factor": before}}
