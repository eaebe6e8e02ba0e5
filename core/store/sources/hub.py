"""A model hub's HTTP API, as the Hugging Face hub and its mirrors speak it.

`GET /api/models/{repository}/revision/{revision}?blobs=true` lists a commit's files with sizes and checksums;
`GET /{repository}/resolve/{commit}/{path}` answers with a file, mostly by a redirect to where it is kept, with
`X-Linked-ETag` and `X-Linked-Size` on the redirect. `X-Error-Code` says what a refusal means.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from core.errors import (
    Forbidden,
    InvalidPackage,
    PlatformError,
    SourceNotFound,
    SourceUnavailable,
    TooLarge,
    Unprocessable,
)
from core.settings import SourceSettings
from core.store.paths import check_member, shown
from core.store.sources.cache import ModelsCache
from core.store.sources.repository import Progress
from core.store.sources.source import HubSource
from core.store.sources.web import Web

if TYPE_CHECKING:
    import httpx

MAX_FILES: Final = 20_000
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_OFFLINE: Final = "The server is set to fetch nothing (sources.offline), and its cache does not hold {}."


@dataclass(frozen=True, slots=True)
class Listing:
    """What a revision holds: its commit, the hub's word for its use, and each file's size and key in the cache."""

    commit: str
    task: str | None
    sizes: Mapping[str, int]
    keys: Mapping[str, str]


class HubRepository:
    """One revision of a repository; without `web`, as it was last seen and as far as it is in the cache."""

    def __init__(self, source: HubSource, listing: Listing, cache: ModelsCache, web: Web | None) -> None:
        self._sizes = dict(listing.sizes)
        self.files: Mapping[str, int] = self._sizes
        self.task = listing.task
        self.commit = listing.commit
        self._source = source
        self._keys = dict(listing.keys)
        self._cache = cache
        self._web = web
        self._here: dict[str, int] = {}
        self._on_progress: Progress = _silent

    async def prepare(self, names: tuple[str, ...], on_progress: Progress) -> None:
        """See Repository."""
        for name in names:
            if name not in self._keys:
                self._keys[name] = await self._identify(name)
        self._on_progress = on_progress
        self._here = dict.fromkeys(names, 0)
        keys = frozenset(self._keys[name] for name in names)
        missing = [name for name in names if self._cache.find(self._keys[name]) is None]
        await asyncio.to_thread(self._cache.make_room, sum(self.files[name] for name in missing), keys)

    async def get(self, name: str) -> Path:
        """See Repository."""
        key = self._keys[name]
        found = await asyncio.to_thread(self._cache.find, key)
        if found is None:
            if self._web is None:
                raise SourceUnavailable(_OFFLINE.format(f"its file {shown(name)}"))
            found = await self._download(self._web, name, key)
        self._tell(name, self.files[name])
        return found

    async def _download(self, web: Web, name: str, key: str) -> Path:
        with self._cache.partial(key) as partial:
            size = self.files[name]
            await web.fetch(self._path(name), partial, size, lambda here: self._tell(name, here))
            if not await asyncio.to_thread(_matches, partial, size, key):
                self._cache.drop(key)
                raise Unprocessable(
                    f"The file {shown(name)} does not have the checksum that the hub tells for it; what came was "
                    "thrown away."
                )
            return await asyncio.to_thread(self._cache.keep, key)

    async def _identify(self, name: str) -> str:
        """The key of a file, and its size, by the headers that come with it: the listing may lack them."""
        if self._web is None:
            raise SourceUnavailable(_OFFLINE.format(f"its file {shown(name)}"))
        headers = await self._web.headers(self._path(name))
        tag = (headers.get("x-linked-etag") or headers.get("etag", "")).removeprefix("W/").strip('"')
        key = _key(tag, tag)
        if key is None:
            raise SourceUnavailable(f"The hub tells no checksum of {shown(name)}, so that it cannot be verified.")
        size = headers.get("x-linked-size") or headers.get("content-length", "")
        if not self.files[name] and size.isdecimal():
            self._sizes[name] = int(size)
        return key

    def _path(self, name: str) -> str:
        return f"{self._source.repository}/resolve/{self.commit}/{quote(name)}"

    def _tell(self, name: str, here: int) -> None:
        self._here[name] = here
        self._on_progress(sum(self._here.values()), sum(self.files[one] for one in self._here))


def check_allowed(source: HubSource, settings: SourceSettings) -> None:
    """Raise Forbidden for an organisation that is not on the list; hubs do not tell names by their case."""
    allowed = settings.hub_organisations
    if allowed is not None and source.organisation.lower() not in {name.lower() for name in allowed}:
        raise Forbidden(
            f"Models of {shown(source.organisation)} may not be fetched; the list of organisations is "
            "sources.hub_organisations."
        )


@asynccontextmanager
async def open_hub(
    source: HubSource, settings: SourceSettings, cache: ModelsCache, retry_s: float = 0.5
) -> AsyncIterator[HubRepository]:
    """A revision as it is now, or offline as it was seen last.

    Raises Forbidden, SourceNotFound, SourceUnavailable.
    """
    check_allowed(source, settings)
    remembered_as = f"{settings.hub_url} {source.repository} {source.revision}"
    if settings.offline:
        value = await asyncio.to_thread(cache.recall, remembered_as)
        if value is None:
            raise SourceUnavailable(_OFFLINE.format(f"{source.repository} at {source.revision}"))
        yield HubRepository(source, _listing(value), cache, None)
        return
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    refusal = _Refusal(source, bool(token))
    async with Web(settings.hub_url, token, refusal, stall_s=settings.stall_s, retry_s=retry_s) as web:
        revision = quote(source.revision, safe="")
        value = await web.json(f"api/models/{source.repository}/revision/{revision}?blobs=true")
        listing = _listing(value)
        await asyncio.to_thread(cache.remember, remembered_as, _to_remember(value, listing))
        yield HubRepository(source, listing, cache, web)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Turns the hub's refusals into sentences."""

    source: HubSource
    had_token: bool

    def __call__(self, response: httpx.Response) -> PlatformError:
        code = response.headers.get("x-error-code", "")
        repository, status = self.source.repository, response.status_code
        if code == "GatedRepo":
            todo = (
                "accept its terms with the account of sources.hub_token"
                if self.had_token
                else "accept its terms on the hub, and set sources.hub_token"
            )
            return Forbidden(f"The repository {repository} is gated: {todo}.")
        if code == "RevisionNotFound":
            return SourceNotFound(f"The repository {repository} has no revision {shown(self.source.revision)}.")
        if code == "EntryNotFound":
            return SourceNotFound(f"A file of {repository} is not there any more; nothing was added.")
        if code == "RepoNotFound" or status in (401, 404):
            hidden = "" if self.had_token else ", or none without sources.hub_token"
            return SourceNotFound(f"The hub has no such thing in a repository {repository}{hidden}.")
        if status == 403:
            return Forbidden(f"The hub does not allow access to {repository}.")
        return SourceUnavailable(f"The hub answered with status {status}; try again later.")


def _listing(value: Any) -> Listing:
    """Read the hub's answer. Raises SourceUnavailable where it is none, TooLarge for too many files."""
    try:
        commit, siblings = value["sha"], value["siblings"]
        if not _COMMIT.fullmatch(commit):
            raise ValueError("a commit is 40 hex digits")
        if len(siblings) > MAX_FILES:
            raise TooLarge(f"The repository has more than {MAX_FILES} files.")
        entries = {entry["rfilename"]: entry for entry in siblings if _is_plain(entry["rfilename"])}
        sizes = {name: max(0, int(entry.get("size") or 0)) for name, entry in entries.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceUnavailable("The hub's list of files cannot be read; is sources.hub_url right?") from error
    keys = {
        name: _key((entry.get("lfs") or {}).get("sha256"), entry.get("blobId")) for name, entry in entries.items()
    }
    task = value.get("pipeline_tag")
    known = {name: key for name, key in keys.items() if key is not None}
    return Listing(commit, task if isinstance(task, str) else None, sizes, known)


def _to_remember(value: Any, listing: Listing) -> dict[str, Any]:
    siblings = [
        {"rfilename": name, "size": entry.get("size"), "blobId": entry.get("blobId"), "lfs": entry.get("lfs")}
        for entry in value["siblings"]
        if (name := entry["rfilename"]) in listing.sizes
    ]
    return {"sha": listing.commit, "pipeline_tag": listing.task, "siblings": siblings}


def _key(sha256: Any, git_sha1: Any) -> str | None:
    """A file's key in the cache: the SHA-256 that large files have, or git's own of small ones."""
    if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        return sha256
    if isinstance(git_sha1, str) and _COMMIT.fullmatch(git_sha1):
        return f"git-{git_sha1}"
    return None


def _is_plain(name: str) -> bool:
    try:
        check_member(name)
    except InvalidPackage:
        return False
    return True


def _matches(path: Path, size_bytes: int, key: str) -> bool:
    """Whether a file is what its key says. Git hashes `blob`, the size and a NUL before the bytes."""
    digest = hashlib.sha256()
    if key.startswith("git-"):
        digest = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == key.removeprefix("git-")


def _silent(here: int, total: int | None) -> None:
    pass
