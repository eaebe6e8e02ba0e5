"""Access tokens: making secrets, and finding whom one belongs to without asking the database."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime

from limits import RateLimitItem

from core.access.others import TellOthers, nobody
from core.access.records import TokenRecord, record_of
from core.access.tenants import Tenancy
from core.database.repositories import Revisions, TokenRow, Tokens
from core.database.repositories.tokens import REVISION
from core.database.session import Database
from core.errors import Unauthenticated

PREFIX = "pv_"
REVOKED_KEPT = 10_000
"""So many of the tokens revoked last are known as such; an older one is not valid, and that is all."""
_STEP = 1000
_LENGTH = len(PREFIX) + 43  # 256 bits in base64url


def new_secret() -> str:
    """A new token's secret: `pv_` and 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str | bytes) -> bytes:
    """What is kept of a secret: its SHA-256. It needs no salt and no slowness, for it cannot be guessed."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


class TokenIndex:
    """All tokens in memory, brought up to date by `refresh`. Belongs to one event loop."""

    def __init__(
        self,
        database: Database,
        default_rates: tuple[RateLimitItem, ...] = (),
        tenancy: Tenancy | None = None,
        tell_others: TellOthers = nobody,
    ) -> None:
        self._database = database
        self._tenancy = tenancy or Tenancy(database)
        self._default_rates = default_rates
        self._tell_others = tell_others
        self._records: dict[bytes, TokenRecord] = {}
        self._hashes: dict[int, bytes] = {}
        self._previous: dict[bytes, tuple[int, float]] = {}
        """Secrets that were replaced and still hold: whose, and until when in seconds since the epoch."""
        self._previous_of: dict[int, bytes] = {}
        self._revoked: dict[bytes, None] = {}
        """The hashes of those revoked last, oldest first."""
        self._revision: int | None = None
        self._used: dict[int, float] = {}
        self._ends: dict[int, float] = {}
        """When those end that do, in seconds since the epoch."""
        self._refreshing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._records)

    async def changed(self) -> None:
        """Take over what this process has changed, and let the other workers do so. Raises Unavailable."""
        try:
            await self.refresh()
        finally:
            await self._tell_others()

    async def refresh(self) -> int:
        """Take over what changed since the last refresh; returns how many tokens did. Raises Unavailable."""
        count = await self._refresh()
        await self._tenancy.find_unknown()
        return count

    async def _refresh(self) -> int:
        async with self._refreshing, self._database.session() as session:
            # Read before the rows: what changes between the two is then fetched once more, never missed.
            newest = (await Revisions(session).read_all()).get(REVISION, 0)
            known = self._revision
            if known == newest:
                return 0
            tokens = Tokens(session)
            if known is None:
                count = await self._take(tokens.all_live)
                for hashed in reversed(await tokens.revoked_last(REVOKED_KEPT)):
                    self._note_revoked(hashed)
            else:
                count = await self._take(lambda **step: tokens.changed_since(known, **step))
            self._revision = newest
            return count

    def lookup(self, secret: bytes) -> TokenRecord:
        """The token with this secret. Raises Unauthenticated. Takes a few microseconds."""
        if len(secret) != _LENGTH:
            raise Unauthenticated("The access token is not valid.")
        hashed = hashlib.sha256(secret).digest()
        record = self._records.get(hashed) or self._by_previous(hashed)
        if record is None and hashed not in self._revoked:
            raise Unauthenticated("The access token is not valid.")
        if record is None or record.revoked:
            raise Unauthenticated("The access token has been revoked.")
        if record.expires_at is not None and record.expires_at <= time.time():
            raise Unauthenticated("The access token has expired.")
        return record

    def _by_previous(self, hashed: bytes) -> TokenRecord | None:
        """The token that had this secret before, for as long as that holds. Raises Unauthenticated after that."""
        found = self._previous.get(hashed)
        if found is None:
            return None
        token_id, until = found
        if until <= time.time():
            raise Unauthenticated("The access token has a new secret; this one holds no more.")
        return self._records[self._hashes[token_id]]

    def expiring(self, within_s: float) -> int:
        """How many tokens end within so many seconds."""
        now = time.time()
        return sum(now < ends <= now + within_s for ends in self._ends.values())

    def records(self) -> Iterable[TokenRecord]:
        """All tokens that are not revoked."""
        return self._records.values()

    def note_used(self, token_id: int) -> None:
        """Remember that the token was used now."""
        self._used[token_id] = time.time()

    async def flush_last_used(self) -> int:
        """Write what `note_used` remembered; returns how many tokens. Nothing is forgotten where that fails."""
        used, self._used = self._used, {}
        if not used:
            return 0
        try:
            async with self._database.transaction() as session:
                await Tokens(session).touch_last_used({key: _time(at) for key, at in used.items()})
        except BaseException:
            self._used = {**used, **self._used}
            raise
        return len(used)

    async def _take(self, fetch: Callable[..., Awaitable[Sequence[TokenRow]]]) -> int:
        # In steps, between which requests are served: a hundred thousand tokens take a second or two.
        count = last = 0
        while True:
            rows = await fetch(after_id=last, limit=_STEP)
            for row in rows:
                self._put(row)
            count += len(rows)
            if len(rows) < _STEP:
                return count
            last = rows[-1].id

    def _put(self, row: TokenRow) -> None:
        before = self._hashes.get(row.id)
        if before is not None and before != row.hash:  # the secret was rotated
            del self._records[before]
        self._put_previous(row)
        self._ends.pop(row.id, None)
        if row.expires_at is not None and row.revoked_at is None:
            self._ends[row.id] = row.expires_at.timestamp()
        if row.revoked_at is not None:
            self._hashes.pop(row.id, None)
            self._records.pop(row.hash, None)
            self._note_revoked(row.hash)
            if row.previous_hash is not None:
                self._note_revoked(row.previous_hash)
            return
        self._hashes[row.id] = row.hash
        self._records[row.hash] = record_of(row, self._default_rates, self._tenancy.of(row.tenant))

    def _put_previous(self, row: TokenRow) -> None:
        before = self._previous_of.pop(row.id, None)
        if before is not None:
            self._previous.pop(before, None)
        if row.previous_hash is None or row.previous_until is None or row.revoked_at is not None:
            return
        self._previous_of[row.id] = row.previous_hash
        self._previous[row.previous_hash] = row.id, row.previous_until.timestamp()

    def _note_revoked(self, hashed: bytes) -> None:
        self._revoked[hashed] = None
        if len(self._revoked) > REVOKED_KEPT:
            del self._revoked[next(iter(self._revoked))]


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)
