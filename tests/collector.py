"""A stand-in for an OpenTelemetry collector: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.servers import wait_until

SERVER, INTERNAL = 2, 1
"""Kinds of spans, as the protocol numbers them."""


@dataclass(frozen=True)
class Span:
    """A span as it was received; ids in hexadecimal, times in nanoseconds of the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    resource: dict[str, Any]


class Collector:
    """What has been received so far. While it is `ill`, it answers 400 and keeps nothing."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}/v1/traces"
        self.ill = False
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """One export."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        spans = [
            _span(one, _attributes(of.resource.attributes))
            for of in request.resource_spans
            for scope in of.scope_spans
            for one in scope.spans
        ]
        with self._lock:
            self._spans += spans

    def spans(self, wanted: Callable[[Span], bool] = lambda span: True) -> list[Span]:
        """Those that were received."""
        with self._lock:
            return [span for span in self._spans if wanted(span)]

    def request(self, request_id: str) -> Span:
        """The span of that request, once it is there."""
        return self.wait(lambda span: span.attributes.get("pulvinar.request_id") == request_id)[0]

    def wait(self, wanted: Callable[[Span], bool], count: int = 1) -> list[Span]:
        """So many spans of a kind, once they are there."""
        return wait_until(
            f"{count} spans", lambda: found if len(found := self.spans(wanted)) >= count else None, every_s=0.1
        )

    def inside(self, span: Span) -> dict[str, Span]:
        """The stages of a request, by name."""
        found = self.spans(lambda one: one.trace_id == span.trace_id and one.parent == span.span_id)
        return {one.name: one for one in found}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.ill:
                self.send_error(400)
                return
            collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _span(one: Any, resource: dict[str, Any]) -> Span:
    return Span(
        one.name,
        one.trace_id.hex(),
        one.span_id.hex(),
        one.parent_span_id.hex(),
        one.kind,
        one.start_time_unix_nano,
        one.end_time_unix_nano,
        one.status.code == 2,
        _attributes(one.attributes),
        [(link.trace_id.hex(), link.span_id.hex()) for link in one.links],
        resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
