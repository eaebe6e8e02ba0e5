"""Signing in by an OpenID provider: from the first look at its page to a session here."""

from __future__ import annotations

import secrets
from typing import Any, Final

from core.access.lockout import Attempts
from core.access.oidc.identity import Identity, identity_of
from core.access.oidc.provider import Provider
from core.access.passwords import hash_password
from core.access.seals import Seals
from core.access.sessions import Caller, SignedIn
from core.access.sign_in import SignIn
from core.control.actor import Actor
from core.control.user_changes import add_user, change_user
from core.database.repositories import Users
from core.database.session import Database
from core.database.tables import User
from core.errors import Conflict, Forbidden, Unprocessable
from core.oidc_settings import OidcSettings

_MAX_CODE: Final = 4096


class OidcSignIn:
    """The way in by a provider. Belongs to one event loop.

    A sign-in is its `state`, 64 hex digits that the browser keeps. What the provider must bring back (nonce)
    or be shown (the verifier of PKCE) is made from it with a key of ours: nobody else can know it.
    """

    def __init__(
        self, oidc: OidcSettings, database: Database, sign_in: SignIn, attempts: Attempts, seals: Seals
    ) -> None:
        self.oidc = oidc
        self._provider = Provider(oidc)
        self._database = database
        self._sign_in = sign_in
        self._attempts = attempts
        self._seals = seals

    async def address(self, state: str, redirect_uri: str, caller: Caller) -> str:
        """Where to send the browser. Raises LimitExceeded, or Unavailable."""
        await self._attempts.throttle("sign-in", caller.address)
        return await self._provider.address(redirect_uri, state, self._nonce(state), self._verifier(state))

    async def finish(self, state: str, code: str, redirect_uri: str, caller: Caller) -> SignedIn:
        """A session of whoever the provider has sent back. Raises Forbidden, Unavailable or LimitExceeded."""
        await self._attempts.throttle("oidc", caller.address)
        name = "?"
        try:
            claims = await self._claims(state, code, redirect_uri)
            identity = identity_of(claims, self.oidc)
            name = identity.name
            user = await self._user(identity, caller)
        except Forbidden as error:
            await self.refused(name, error.message, caller)
            raise
        return await self._sign_in.as_proven(user, caller, by="the OpenID provider")

    async def refused(self, name: str, why: str, caller: Caller) -> None:
        """Write down that somebody was not let in. It counts for no lock-out: no password was guessed."""
        shown = "".join(character for character in name if character.isprintable())[:64] or "?"
        await self._sign_in.note(shown, "auth.login_failed", caller, by="the OpenID provider", why=why)

    async def _claims(self, state: str, code: str, redirect_uri: str) -> dict[str, Any]:
        if not 0 < len(code) <= _MAX_CODE:
            raise Forbidden("The provider sent you back without saying who you are.")
        return await self._provider.claims(code, redirect_uri, self._nonce(state), self._verifier(state))

    async def _user(self, identity: Identity, caller: Caller) -> User:
        async with self._database.session() as session:
            user = await Users(session).by_subject(identity.subject)
            namesake = None if user else await Users(session).by_name(identity.name)
        if user is None and namesake is not None:
            user = await self._linked(namesake, identity, caller)
        elif user is None:
            user = await self._added(identity, caller)
        if user.disabled:
            raise Forbidden("This user is disabled here; ask an administrator.")
        return user if user.role == identity.role else await self._with_role(user, identity, caller)

    async def _added(self, identity: Identity, caller: Caller) -> User:
        if not self.oidc.create_users:
            raise Forbidden("There is no user of your name here yet; ask an administrator to add one.")
        unknown = await hash_password(secrets.token_urlsafe(32))  # nobody has it, so no password signs in
        actor = _actor(identity.name, caller)
        try:
            async with self._database.transaction() as session:
                user = await add_user(session, identity.name, unknown, identity.role, actor)
                user.oidc_subject = identity.subject
        except (Conflict, Unprocessable) as error:
            raise Forbidden(f"You cannot be added as a user. {error.message}") from error
        return user

    async def _linked(self, namesake: User, identity: Identity, caller: Caller) -> User:
        """Bind a user of ours to the provider's, once: a name alone proves nothing where people choose it."""
        if not self.oidc.link_users or namesake.oidc_subject is not None or namesake.disabled:
            raise Forbidden(
                "Your name is that of a user here whom the provider does not sign in; ask an administrator."
            )
        changes = {"oidc_subject": identity.subject}
        async with self._database.transaction() as session:
            return await change_user(session, namesake.id, changes, _actor(identity.name, caller))

    async def _with_role(self, user: User, identity: Identity, caller: Caller) -> User:
        """The role of the groups, but for the last administrator, who keeps theirs."""
        try:
            async with self._database.transaction() as session:
                changes = {"role": str(identity.role)}
                return await change_user(session, user.id, changes, _actor(user.name, caller))
        except Conflict:
            return user

    def _nonce(self, state: str) -> str:
        return self._seals.make("oidc nonce", state)

    def _verifier(self, state: str) -> str:
        return self._seals.make("oidc verifier", state)


def _actor(name: str, caller: Caller) -> Actor:
    return Actor(name, caller.address, caller.request_id)
