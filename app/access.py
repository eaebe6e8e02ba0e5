"""Builds what lets users in: sessions, their keys, second factors, the counting of attempts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from core.access.held import HeldSessions
from core.access.key_ring import KeyRing
from core.access.keys import load_or_create_key
from core.access.limits import RateLimiter
from core.access.lockout import Attempts
from core.access.own_account import OwnAccount
from core.access.sealing import KEY_FILE, Sealer
from core.access.seals import Seals
from core.access.second_factor import SecondFactors
from core.access.sessions import SessionService, token_life_s
from core.access.sign_in import SignIn
from core.control.oidc_sign_in import OidcSignIn
from core.database.session import Database
from core.settings import Settings


@dataclass(frozen=True, slots=True)
class Access:
    """How users come in; API and pages share it."""

    sessions: SessionService
    held: HeldSessions
    """Whether sessions held a moment ago."""
    attempts: Attempts
    sign_in: SignIn
    own_account: OwnAccount
    seals: Seals
    """Marks on what pages hand to browsers."""
    oidc: OidcSignIn | None = None
    """By an OpenID provider, where there is one."""

    def take_over(self, settings: Settings) -> None:
        """Go on with settings that were read again."""
        self.attempts.access = settings.access


async def open_access(settings: Settings, database: Database, limiter: RateLimiter) -> Access:
    """Read the keys, or make them, and build the rest. Raises InvalidSettings for a damaged key."""
    keys = KeyRing(settings.keys_dir, token_life_s(settings.access))
    await asyncio.to_thread(keys.load)
    seal_key = await asyncio.to_thread(load_or_create_key, settings.keys_dir, KEY_FILE)
    sessions = SessionService(database, keys, settings.access)
    second_factors = SecondFactors(database, Sealer(seal_key))
    attempts = Attempts(limiter, settings.access)
    sign_in, seals = SignIn(database, sessions, second_factors, attempts), Seals(seal_key)
    oidc = OidcSignIn(settings.oidc, database, sign_in, attempts, seals) if settings.oidc.issuer else None
    own_account = OwnAccount(database, sessions, second_factors, attempts)
    return Access(sessions, HeldSessions(sessions), attempts, sign_in, own_account, seals, oidc)
