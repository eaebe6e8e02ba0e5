"""GET from a hub: its token goes to it alone, redirects keep to a rule, a file is taken up where it broke off."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from core.errors import PlatformError, SourceUnavailable
from core.store.disk import in_thread, storage_errors
from core.store.sources.addresses import check_redirect

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS: Final = 5
MAX_IDLE_TRIES: Final = 5
"""Tries in a row that brought nothing before a file is given up."""
MAX_TRIES: Final = 100
_CONNECT_S: Final = 15.0
_LONGEST_WAIT_S: Final = 10.0
_MAX_JSON_BYTES: Final = 32 << 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Refusal = Callable[["httpx.Response"], PlatformError]
"""What an answer other than a success means."""


class _Broken(Exception):
    """A transfer that may be taken up again; the message says what happened."""


class Web:
    """An HTTP client of one hub at `base_url`. `async with` opens and closes it.

    `retry_s` is the wait before the second try of a transfer, doubled each time that nothing came.
    """

    def __init__(
        self, base_url: str, token: str | None, refusal: Refusal, *, stall_s: float, retry_s: float = 0.5
    ) -> None:
        import httpx  # here, so that a server which fetches nothing does not load it

        self._base = httpx.URL(base_url)
        self._token = token
        self._refusal = refusal
        self._retry_s = retry_s
        self._errors: tuple[type[Exception], ...] = (httpx.TransportError, httpx.InvalidURL, TimeoutError)
        self._stalls = httpx.TimeoutException
        timeout = httpx.Timeout(stall_s, connect=min(stall_s, _CONNECT_S))
        self._client = httpx.AsyncClient(timeout=timeout, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def json(self, path: str) -> Any:
        """The JSON at `path`, of at most 32 MiB. Raises SourceUnavailable, and what the refusal is."""
        try:
            async with self._open(path, {}) as response:
                if response.status_code != 200:
                    raise self._refusal(response)
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_JSON_BYTES:
                        raise SourceUnavailable("The source's list of files is too long.")
        except self._errors as error:
            raise SourceUnavailable("The source of models cannot be reached; try again later.") from error
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SourceUnavailable("The source answered with something that is not JSON.") from error

    async def headers(self, path: str) -> httpx.Headers:
        """The headers of the hub's own first answer for `path`, redirect or not. Raises as `json`."""
        try:
            async with self._send(self._url(path), {}) as response:
                if response.status_code not in _REDIRECTS and response.status_code != 200:
                    raise self._refusal(response)
                return response.headers
        except self._errors as error:
            raise SourceUnavailable("The source of models cannot be reached; try again later.") from error

    async def fetch(self, path: str, target: Path, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
        """Bring the file `target` to its size, from what it holds on, told to `on_bytes` as it grows.

        Raises SourceUnavailable once that leads nowhere, StorageFull, and what the refusal is. What has come
        stays.
        """
        idle = 0
        for _ in range(MAX_TRIES):
            have = await asyncio.to_thread(_prepare, target, size_bytes)
            on_bytes(have)
            if have == size_bytes:
                return
            trouble = "The transfer broke off"
            try:
                await self._take(path, target, have, size_bytes, on_bytes)
                continue
            except _Broken as error:
                trouble = str(error)
            except self._errors as error:
                stalled = isinstance(error, self._stalls)
                trouble = "No byte came for a while" if stalled else "The connection broke"
            idle = 0 if await asyncio.to_thread(_size, target) > have else idle + 1
            if idle >= MAX_IDLE_TRIES:
                break
            await asyncio.sleep(min(self._retry_s * 2**idle, _LONGEST_WAIT_S))
        raise SourceUnavailable(
            f"{trouble}, again and again; what has come is kept, and another try goes on from there."
        )

    async def _take(
        self, path: str, target: Path, have: int, size_bytes: int, on_bytes: Callable[[int], None]
    ) -> None:
        wanted = {"Range": f"bytes={have}-"} if have else {}
        async with self._open(path, wanted) as response:
            start = self._start(response, have, size_bytes)
            descriptor = await asyncio.to_thread(_open_at, target, start)
            try:
                async for block in response.aiter_raw():
                    start += len(block)
                    if start > size_bytes:
                        raise SourceUnavailable("The source sent more bytes than it had told of.")
                    await in_thread(partial(_append, descriptor, block))
                    on_bytes(start)
            finally:
                os.close(descriptor)
        if start < size_bytes:
            raise _Broken("The transfer ended early")

    def _start(self, response: httpx.Response, have: int, size_bytes: int) -> int:
        """From which byte on an answer continues."""
        if response.status_code == 200:
            return 0
        if response.status_code == 206:
            found = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if found and int(found[1]) == have and found[2] in ("*", str(size_bytes)):
                return have
            raise SourceUnavailable("The source continued with another part than was asked for.")
        foreign = not _same_origin(response.url, self._base)  # there, a signed address may have run out
        if response.status_code in (408, 416, 425, 429) or response.status_code >= 500 or foreign:
            raise _Broken(f"The source answered with status {response.status_code}")
        raise self._refusal(response)

    @asynccontextmanager
    async def _open(self, path: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """The answer at the end of the redirects."""
        url = self._url(path)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._send(url, headers) as response:
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                url = response.url.join(response.headers.get("location", ""))
            if not _same_origin(url, self._base):
                if url.scheme != "https":
                    raise SourceUnavailable("The source redirects to another place without https.")
                await check_redirect(url.host, url.port or 443, self._base.host)
        raise SourceUnavailable("The source redirects in a circle.")

    @asynccontextmanager
    async def _send(self, url: httpx.URL, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        # Compressed on the way, neither ranges nor sizes would be those of the file.
        sent = {**headers, "Accept-Encoding": "identity"}
        if self._token and _same_origin(url, self._base):
            sent["Authorization"] = f"Bearer {self._token}"
        async with self._client.stream("GET", url, headers=sent) as response:
            yield response

    def _url(self, path: str) -> httpx.URL:
        return self._base.join(f"{self._base.path.rstrip('/')}/{path}")


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    ports = {"http": 80, "https": 443}
    return (one.scheme, one.host, one.port or ports.get(one.scheme)) == (
        other.scheme,
        other.host,
        other.port or ports.get(other.scheme),
    )


def _prepare(target: Path, size_bytes: int) -> int:
    """Bytes there are already; of a file that is too long, none are believed."""
    have = _size(target)
    if have > size_bytes:
        os.truncate(target, 0)
        return 0
    return have


def _size(target: Path) -> int:
    return target.stat().st_size if target.exists() else 0


def _open_at(target: Path, start: int) -> int:
    with storage_errors():
        descriptor = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, start)
        os.lseek(descriptor, start, os.SEEK_SET)
    return descriptor


def _append(descriptor: int, block: bytes, stop: threading.Event) -> None:
    with storage_errors():
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
