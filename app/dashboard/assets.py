"""The files that browsers fetch: kept in memory, compressed once, named by what is in them.

A page asks for `/static/css/frame.css?v=1f0c…`; that address never means anything else, so a browser keeps the
file for a year. Without `v`, or with one that is out of date, the browser is told to ask again each time.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import Response

STATIC: Final = Path(__file__).resolve().parents[2] / "static"
KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
"""Nothing else is served."""
_COMPRESSED: Final = (".css", ".js", ".svg")
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"
_LETTERS = 16

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes as they are, and by encoding as they are sent to whoever takes that."""

    kind: str
    version: str
    changed_ns: int
    bodies: dict[str, bytes]


class Assets:
    """Serves a folder at `prefix`. Only files that were there when it was made are served."""

    def __init__(self, folder: Path = STATIC, prefix: str = "/static") -> None:
        self._folder = folder
        self._prefix = prefix
        self._names = {
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.suffix in KINDS and file.is_file()
        }
        self._assets: dict[str, Asset] = {}
        self._versions: dict[str, tuple[int, str]] = {}

    def url(self, name: str) -> str:
        """The address of a file, as `css/frame.css`. Raises KeyError where there is none."""
        if name not in self._names:
            raise KeyError(f"There is no file static/{name}.")
        changed_ns = (self._folder / name).stat().st_mtime_ns
        known = self._versions.get(name)
        if known is None or known[0] != changed_ns:
            known = self._versions[name] = changed_ns, _version((self._folder / name).read_bytes())
        return f"{self._prefix}/{name}?v={known[1]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        response = await self._answer(scope)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405)
        name = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        if name not in self._names:
            raise HTTPException(404)
        asset = await self._get(name)
        headers = {"ETag": f'"{asset.version}"', "Vary": "Accept-Encoding"}
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v")
        headers["Cache-Control"] = _FOREVER if asked == [asset.version] else _ASK_AGAIN
        sent = {key: value.decode("latin-1") for key, value in scope["headers"]}
        if headers["ETag"] in sent.get(b"if-none-match", ""):
            return Response(status_code=304, headers=headers)
        encoding = _encoding(sent.get(b"accept-encoding", ""), asset)
        if encoding:
            headers["Content-Encoding"] = encoding
        return Response(asset.bodies[encoding], headers=headers, media_type=asset.kind)

    async def _get(self, name: str) -> Asset:
        asset = self._assets.get(name)
        if asset is None or asset.changed_ns != (self._folder / name).stat().st_mtime_ns:
            asset = self._assets[name] = await asyncio.to_thread(_read, self._folder / name)
        return asset


def _read(file: Path) -> Asset:
    changed_ns, plain = file.stat().st_mtime_ns, file.read_bytes()
    bodies = {"": plain}
    if file.suffix in _COMPRESSED:
        bodies["gzip"] = gzip.compress(plain, 9, mtime=0)
        beside = file.with_name(file.name + ".br")  # vendored files have one; it takes a second to make
        if beside.is_file():
            bodies["br"] = beside.read_bytes()
    return Asset(KINDS[file.suffix], _version(plain), changed_ns, bodies)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_LETTERS]


def _encoding(accepted: str, asset: Asset) -> str:
    """The smallest form that the browser takes; "" is the file as it is."""
    takes = {
        part.split(";")[0].strip() for part in accepted.split(",") if not part.replace(" ", "").endswith(";q=0")
    }
    return next((encoding for encoding in ("br", "gzip") if encoding in takes and encoding in asset.bodies), "")


ASSETS: Final = Assets()
