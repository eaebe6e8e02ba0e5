"""The keys that sign sign-in tokens: one signs, and those before it are believed until their last tokens end.

They are files, so that every process of a machine has them at once, and machines that share the files. The first
is `jwt.key`, the bare secret; each later one is `jwt-ID.json`, which says from when it signs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

from core.access.keys import create_file, load_or_create_key
from core.errors import Conflict, NotFound
from core.settings import InvalidSettings

log = structlog.get_logger(__name__)

FIRST: Final = "0"
"""The id of the key in `jwt.key`; a token that names none was signed with it."""
_FIRST_FILE: Final = "jwt.key"
_PATTERN: Final = "jwt-*.json"
_SECRET_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 4096
_CLOCKS_S: Final = 60
"""So far the clocks of machines that share the keys may be apart."""
_LOOK_EVERY_S: Final = 1.0
_LOOK_SOONEST_S: Final = 0.05

State = Literal["next", "signing", "verifying", "over"]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key; it signs from `active_from_s` on, in seconds since the epoch, until a later one does."""

    kid: str
    active_from_s: float
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What may be told of a key. `ends_s` is when no token of it can hold any more; None while it is in use."""

    kid: str
    state: State
    active_from_s: float
    ends_s: float | None


class Keys(Protocol):
    """Where keys come from."""

    async def current(self) -> SigningKey:
        """The one that signs now."""

    async def find(self, kid: str) -> SigningKey | None:
        """The one of that id, where its tokens are still believed."""


class KeyRing:
    """The keys of a directory, followed as they change. Belongs to one event loop; `load` before use."""

    def __init__(self, directory: Path, token_life_s: float, now_s: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._life_s = token_life_s
        self._now_s = now_s
        self._keys: list[SigningKey] = []
        self._looked_s = 0.0
        self._looking = asyncio.Lock()

    def load(self) -> None:
        """Read all keys, and make the first. Blocks. Raises InvalidSettings for a key that cannot be used."""
        self._keys = read_keys(self._directory)

    async def current(self) -> SigningKey:
        """See Keys."""
        await self._look(_LOOK_SOONEST_S)
        now_s = self._now_s()
        return [key for key in self._keys if key.active_from_s <= now_s][-1]

    async def find(self, kid: str) -> SigningKey | None:
        """See Keys. One that is not known is looked for: another process may just have made it."""
        kid = kid or FIRST
        await self._look(_LOOK_EVERY_S if any(key.kid == kid for key in self._keys) else _LOOK_SOONEST_S)
        for key, facts in zip(self._keys, facts_of(self._keys, self._life_s, self._now_s()), strict=True):
            if key.kid == kid and facts.state != "over":
                return key
        return None

    async def _look(self, every_s: float) -> None:
        async with self._looking:
            if time.monotonic() - self._looked_s < every_s:
                return
            try:
                self._keys = await asyncio.to_thread(read_keys, self._directory)
            except (InvalidSettings, OSError) as error:
                log.error("keys.unreadable", reason=str(error))  # what is known goes on
            self._looked_s = time.monotonic()


def read_keys(directory: Path) -> list[SigningKey]:
    """All keys, in the order in which they sign; the first is made where there is none. Blocks.

    Raises InvalidSettings for one that is damaged, or that others than its owner may read.
    """
    keys = [_read(path) for path in directory.glob(_PATTERN)] if directory.is_dir() else []
    first = directory / _FIRST_FILE
    if first.exists() or not any(key.active_from_s <= time.time() for key in keys):
        secret = load_or_create_key(directory, _FIRST_FILE, _SECRET_BYTES)
        _refuse_open(first)
        keys.append(SigningKey(FIRST, 0.0, secret))
    return sorted(keys, key=lambda key: (key.active_from_s, key.kid))


def facts_of(keys: list[SigningKey], token_life_s: float, now_s: float) -> list[KeyFacts]:
    """Which of them signs, and until when the others are believed."""
    found = []
    for key, after in zip(keys, [*keys[1:], None], strict=True):
        if key.active_from_s > now_s:
            found.append(KeyFacts(key.kid, "next", key.active_from_s, None))
        elif after is None or after.active_from_s > now_s:
            found.append(KeyFacts(key.kid, "signing", key.active_from_s, None))
        else:
            ends_s = after.active_from_s + token_life_s + _CLOCKS_S
            state: State = "verifying" if now_s < ends_s else "over"
            found.append(KeyFacts(key.kid, state, key.active_from_s, ends_s))
    return found


def rotate(directory: Path, token_life_s: float, *, activate_in_s: float = 0) -> KeyFacts:
    """Make a key that signs in so many seconds, and remove those that are over. Blocks. Raises InvalidSettings."""
    now_s = time.time()
    keys = read_keys(directory)
    for facts in facts_of(keys, token_life_s, now_s):
        if facts.state == "over":
            _path(directory, facts.kid).unlink(missing_ok=True)
    kid, active_from_s = secrets.token_hex(8), now_s + activate_in_s
    document = {
        "kid": kid,
        "active_from": active_from_s,
        "secret": base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode(),
    }
    create_file(_path(directory, kid), json.dumps(document).encode())
    return KeyFacts(kid, "next" if activate_in_s > 0 else "signing", active_from_s, None)


def remove(directory: Path, token_life_s: float, kid: str) -> KeyFacts:
    """Believe no token of this key any more. Blocks. Raises NotFound, or Conflict for the one that signs."""
    found = [facts for facts in facts_of(read_keys(directory), token_life_s, time.time()) if facts.kid == kid]
    if not found:
        raise NotFound("There is no such key.")
    if found[0].state == "signing":
        raise Conflict("This key signs now; rotate first.")
    _path(directory, kid).unlink(missing_ok=True)
    return found[0]


def _path(directory: Path, kid: str) -> Path:
    return directory / (_FIRST_FILE if kid == FIRST else f"jwt-{kid}.json")


def _read(path: Path) -> SigningKey:
    _refuse_open(path)
    with path.open("rb") as file:
        text = file.read(_MAX_FILE_BYTES)
    try:
        document = json.loads(text)
        key = SigningKey(
            str(document["kid"]),
            float(document["active_from"]),
            base64.b64decode(document["secret"], validate=True),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidSettings(f"The key file {path} is damaged; put it back, or remove it.") from error
    if len(key.secret) != _SECRET_BYTES or path.name != f"jwt-{key.kid}.json":
        raise InvalidSettings(f"The key file {path} is damaged; put it back, or remove it.")
    return key


def _refuse_open(path: Path) -> None:
    if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidSettings(f"Others may read or write the key file {path}; chmod 600 it, and rotate the keys.")
