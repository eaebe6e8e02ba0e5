"""A multipart upload streamed to the store: the file goes to disk as it comes, hashed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from core.errors import BadRequest, MalformedBody, TooLarge
from core.store.artifacts import ArtifactStore
from core.store.uploads import Received, Upload

MAX_FIELD_BYTES = 1 << 20
MAX_PARTS = 16
MAX_HEADER_BYTES = 8 * 1024
CHUNK_TIMEOUT_S = 60.0

BeforeFile = Callable[[Mapping[str, str]], Awaitable[None]]
"""Is told the fields before the file, and raises where the file shall not be taken."""


@dataclass(slots=True)
class Form:
    """The fields beside the file, and the file itself once it has been received whole."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    received: Received | None = None

    @property
    def file(self) -> Received:
        """The file of a form that `receive_form` has answered."""
        assert self.received is not None
        return self.received


def form_doc(file: str, fields: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """What OpenAPI is told of such a form: `file` describes the file, `fields` are the others' schemas."""
    properties = {"file": {"type": "string", "format": "binary", "description": file}, **fields}
    schema = {"type": "object", "required": ["file", *required], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


class _Events:
    """Keeps the parser's events of one chunk, to be acted upon between chunks."""

    def __init__(self) -> None:
        self.queue: list[tuple[str, bytes]] = []

    def callbacks(self) -> dict[str, Callable[..., None]]:
        with_data = ("header_field", "header_value", "part_data")
        bare = ("part_begin", "header_end", "headers_finished", "part_end", "end")
        calls: dict[str, Callable[..., None]] = {f"on_{name}": self._with_data(name) for name in with_data}
        calls.update({f"on_{name}": self._bare(name) for name in bare})
        return calls

    def drain(self) -> list[tuple[str, bytes]]:
        events, self.queue = self.queue, []
        return events

    def _with_data(self, name: str) -> Callable[[bytes, int, int], None]:
        return lambda data, start, end: self.queue.append((name, data[start:end]))

    def _bare(self, name: str) -> Callable[[], None]:
        return lambda: self.queue.append((name, b""))


class _Reader:
    """Follows one form: small fields into memory, the field `file` into the upload."""

    def __init__(self, upload: Upload, known: frozenset[str], before_file: BeforeFile | None) -> None:
        self.form = Form()
        self.whole = False
        self._upload = upload
        self._known = known
        self._before_file = before_file
        self._parts = 0
        self._header = (b"", b"")
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._name = ""
        self._value = bytearray()
        self._has_file = False

    async def on(self, event: str, data: bytes) -> None:
        """Act upon one event of the parser."""
        if event == "part_data":
            await self._data(data)
        elif event == "header_field":
            self._header = (self._header[0] + data, self._header[1])
            self._count(data)
        elif event == "header_value":
            self._header = (self._header[0], self._header[1] + data)
            self._count(data)
        elif event == "header_end":
            self._headers[self._header[0].lower()] = self._header[1]
            self._header = (b"", b"")
        elif event == "part_begin":
            self._begin()
        elif event == "headers_finished":
            self._named()
            if self._name == "file" and self._before_file is not None:
                await self._before_file(self.form.fields)
        elif event == "part_end":
            self._end()
        elif event == "end":
            self.whole = True

    def _count(self, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise TooLarge("A part of the form has too many headers.")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooLarge(f"The form has more than {MAX_PARTS} parts.")
        self._headers, self._value, self._header_bytes = {}, bytearray(), 0

    def _named(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file":
            if self._has_file:
                raise BadRequest("Send one file; the form has two.")
            self._has_file = True
            self.form.filename = options.get(b"filename", b"").decode("utf-8", "replace")[:255]
        elif self._name not in self._known or self._name in self.form.fields:
            known = ", ".join(sorted(self._known))
            raise BadRequest(f"The field {self._name[:64]!r} is not expected here; the form takes file, {known}.")

    async def _data(self, data: bytes) -> None:
        if self._name == "file":
            await self._upload.write(data)
            return
        self._value += data
        if len(self._value) > MAX_FIELD_BYTES:
            raise TooLarge(f"The field {self._name!r} is larger than 1 MiB.")

    def _end(self) -> None:
        if self._name != "file":
            try:
                self.form.fields[self._name] = self._value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise MalformedBody(f"The field {self._name!r} is not UTF-8 text.") from error

    def finished(self) -> bool:
        """Whether a whole form with a file has been read. Raises what is missing."""
        if not self.whole:
            raise MalformedBody("The form is cut off: its closing boundary is missing.")
        if not self._has_file:
            raise BadRequest("The form holds no field `file`.")
        return True


async def receive_form(
    request: Request, store: ArtifactStore, known: frozenset[str], before_file: BeforeFile | None = None
) -> Form:
    """Read the form; on any error nothing of the file stays. The caller owns `received` afterwards.

    Whatever `before_file` raises ends it before a byte of the file is kept.

    Raises BadRequest, MalformedBody, TooLarge, StorageFull.
    """
    announced = request.headers.get("content-length", "")
    expected = int(announced) if announced.isdigit() else None
    async with store.receive(expected) as upload:
        reader = _Reader(upload, known, before_file)
        events = _Events()
        parser = MultipartParser(_boundary(request), events.callbacks())  # type: ignore[arg-type]
        try:
            async for chunk in _chunks(request):
                parser.write(chunk)
                for event, data in events.drain():
                    await reader.on(event, data)
        except FormParserError as error:
            raise MalformedBody("The form cannot be read; is its boundary right?") from error
        reader.finished()
        reader.form.received = await upload.finish()
    return reader.form


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary: bytes = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        raise BadRequest("Send the file as multipart/form-data in the field `file`.")
    return boundary


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(CHUNK_TIMEOUT_S):
                chunk = await stream.__anext__()
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise BadRequest(f"Nothing came for {CHUNK_TIMEOUT_S:g} seconds; the upload was given up.") from error
        except ClientDisconnect as error:
            raise MalformedBody("The client went away before the upload was whole.") from error
        yield chunk
