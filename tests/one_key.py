"""A ring of one key that never changes, for tests of what is signed with it."""

from __future__ import annotations

from dataclasses import dataclass

from core.access.key_ring import FIRST, SigningKey


@dataclass(frozen=True)
class OneKey:
    secret: bytes

    async def current(self) -> SigningKey:
        return SigningKey(FIRST, 0.0, self.secret)

    async def find(self, kid: str) -> SigningKey | None:
        return await self.current() if kid in ("", FIRST) else None
