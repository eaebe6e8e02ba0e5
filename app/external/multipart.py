"""A multipart body taken apart in memory (RFC 7578), by python-multipart's parser, within caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.errors import MalformedBody, TooLarge

MAX_HEADERS_BYTES = 8 * 1024
MAX_BOUNDARY = 200


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its field name, its content type where one was said, and its bytes."""

    name: str
    media_type: str
    data: bytes


class _Collector:
    """Gathers the parser's events into parts."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.whole = False
        self._max_parts = max_parts
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._header_bytes = 0
        self._data: list[bytes] = []

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise TooLarge(f"The body has more than {self._max_parts} parts.")
        self._headers, self._data, self._header_bytes = {}, [], 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._count(end - start)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def on_part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise MalformedBody("A part of the multipart body has no field name.")
        self.parts.append(
            Part(
                options[b"name"].decode("utf-8", "replace"),
                self._headers.get(b"content-type", b"").decode("latin-1"),
                b"".join(self._data),
            )
        )

    def on_end(self) -> None:
        self.whole = True

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADERS_BYTES:
            raise TooLarge("A part of the multipart body has too many headers.")


def parse_multipart(content_type: bytes, body: bytes, *, max_parts: int) -> list[Part]:
    """Take the body apart. Raises MalformedBody or TooLarge."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > MAX_BOUNDARY:
        raise MalformedBody("The multipart body's Content-Type names no usable boundary.")
    collector = _Collector(max_parts)
    events = ("part_begin", "header_field", "header_value", "header_end", "part_data", "part_end", "end")
    callbacks: Any = {f"on_{event}": getattr(collector, f"on_{event}") for event in events}
    parser = MultipartParser(boundary, callbacks)
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody("The multipart body cannot be read; is its boundary right?") from error
    if not collector.whole:
        raise MalformedBody("The multipart body is cut off: its closing boundary is missing.")
    return collector.parts
