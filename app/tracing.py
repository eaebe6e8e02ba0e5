"""A span for each request, by the W3C's Trace Context; what it is sent by is in `app.span_export`.

A caller's `traceparent` is gone on with where it is valid, and ignored where it is not. Every answer says the span
in a `traceparent` of its own. Of a request that is not sampled nothing is noted, but its trace has an id, which
callers and log lines name.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple

from starlette.routing import Mount
from structlog.contextvars import bind_contextvars

from core.serving.request import Timing
from core.serving.trace import Ended, SpanId, Stage, Trace, current
from core.tracing_settings import TracingSettings

TRACEPARENT: Final = b"traceparent"
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may add to it after another dash.
_FORM: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1
_LOW_64: Final = (1 << 64) - 1
# What load balancers and scrapers ask for all day long, and what pages are made of.
_UNTRACED: Final = ("/health", "/v2/health/", "/metrics", "/static/")
_ROUTES: Final = (
    ("/api/v1/inference/", "/api/v1/inference/{model}"),
    ("/api/v1/stream/", "/api/v1/stream/{model}"),
)

Scope = MutableMapping[str, Any]
Header = tuple[bytes, bytes]
Export = Callable[[Trace, Ended], None]


class Caller(NamedTuple):
    """What a valid `traceparent` says."""

    span: SpanId
    sampled: bool


class RequestTrace:
    """The trace of one request; `trace` is None where it is not sampled, and then this is a number and no more."""

    __slots__ = ("_bits", "trace")

    def __init__(self, bits: int, trace: Trace | None) -> None:
        self._bits = bits
        self.trace = trace

    @property
    def id(self) -> SpanId:
        """The request's span."""
        return _span_id(self._bits)

    @property
    def said(self) -> bytes:
        """The value of the answer's `traceparent`."""
        return b"00-%032x-%016x-%02x" % (self._bits >> 64, self._bits & _LOW_64, self.trace is not None)

    @property
    def header(self) -> Header:
        """The answer's `traceparent`."""
        return TRACEPARENT, self.said


class Answer(NamedTuple):
    """How a request was answered, for its span; `model` is empty where none answered."""

    status: int
    request_id: str
    client: str
    model: str = ""
    version: int = 0
    timing: Timing | None = None
    at: float = 0.0
    """When the model's answer was there, in seconds of `time.monotonic()`."""


class Tracer:
    """Begins the traces of one server process. `export` is called at the end of each that is sampled."""

    def __init__(self, settings: TracingSettings, export: Export) -> None:
        self._bound = round(settings.sample_ratio * (1 << 64))
        self._export = export

    def begin(self, scope: Scope) -> RequestTrace | None:
        """The trace of a request; None for one that never has a trace."""
        return None if scope["path"].startswith(_UNTRACED) else self.trace(scope["headers"])

    def trace(self, headers: Iterable[Header]) -> RequestTrace:
        """The trace of a request with these headers. Most are not sampled: that is asked before one is made."""
        caller = read_traceparent(headers)
        if caller is not None:
            bits = int(caller.span.trace_id, 16) << 64 | _random(64)
            sampled, parent = caller.sampled and self._bound > 0, caller.span
            return RequestTrace(bits, Trace(_span_id(bits), parent, self._export) if sampled else None)
        bits = _random(192)
        # The rule of OpenTelemetry's TraceIdRatioBased, so that servers of one ratio agree.
        if bits >> 64 & _LOW_64 >= self._bound:
            return RequestTrace(bits, None)
        return RequestTrace(bits, Trace(_span_id(bits), None, self._export))

    def enter(self, scope: Scope) -> RequestTrace | None:
        """As `begin`, for a task that works for this request alone: what it does and logs belongs to the trace."""
        begun = self.begin(scope)
        if begun is not None:
            bind_contextvars(trace_id=begun.id.trace_id)
            if begun.trace is not None:
                current.set(begun.trace)
        return begun


def end_request(trace: Trace, scope: Scope, answer: Answer) -> None:
    """The answer is written, or given up."""
    if answer.timing is not None:
        _note_ends(trace, answer, answer.timing)
    elif trace.stages:
        _note_ends_of_failure(trace)
    route = route_of(scope)
    trace.end(
        f"{scope['method']} {route}" if route else scope["method"],
        attributes_of(scope, route, answer),
        failed=answer.status >= 500,
    )


def _note_ends(trace: Trace, answer: Answer, timing: Timing) -> None:
    """What came before the model and after it: reading the call, and writing the answer."""
    began = answer.at - timing.total / 1000
    trace.stage(Stage("read", trace.since, max(trace.since, began), answer.model, answer.version))
    trace.stage(Stage("write", answer.at, time.monotonic(), answer.model, answer.version))


def _note_ends_of_failure(trace: Trace) -> None:
    """The same, of a request that a model did not answer: it may have been several, so they are no model's."""
    began = min([stage.since for stage in trace.stages if stage.name != "load"], default=trace.stages[-1].until)
    ended = max([stage.until for stage in trace.stages])
    trace.stage(Stage("read", trace.since, began, "", 0))
    trace.stage(Stage("write", ended, time.monotonic(), "", 0))


def attributes_of(scope: Scope, route: str, answer: Answer) -> Mapping[str, Any]:
    """The attributes of a request's span: HTTP's by OpenTelemetry's conventions, and our own."""
    attributes: dict[str, Any] = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "http.response.status_code": answer.status,
        "client.address": answer.client,
        "pulvinar.request_id": answer.request_id,
    }
    if route:
        attributes["http.route"] = route
    if answer.model:
        attributes |= {"pulvinar.model": answer.model, "pulvinar.version": answer.version}
    if answer.status >= 500:
        attributes["error.type"] = str(answer.status)
    return attributes


def route_of(scope: Scope) -> str:
    """The route's path with its names in braces; empty where there is none: no caller makes names of spans."""
    for beginning, route in _ROUTES:
        if scope["path"].startswith(beginning):
            return route
    found = scope.get("route")
    if isinstance(found, Mount):  # nothing within it answered
        return ""
    path = getattr(found, "path_format", None) or getattr(found, "path", None)
    return "" if path is None else f"{scope.get('root_path', '')}{path}"


def _random(bits: int) -> int:
    # No secrets: they only have to be unlike each other, and no span is all zeros.
    return random.getrandbits(bits) | 1  # nosec B311


def _span_id(bits: int) -> SpanId:
    return SpanId(f"{bits >> 64:032x}", f"{bits & _LOW_64:016x}")


def read_traceparent(headers: Iterable[Header]) -> Caller | None:
    """What the caller's one `traceparent` says; None where there is none, or it is not valid."""
    said: bytes | None = None
    for name, value in headers:
        if name == TRACEPARENT:
            if said is not None:
                return None
            said = value
    found = None if said is None else _FORM.fullmatch(said.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Caller(SpanId(trace_id.decode(), span_id.decode()), bool(int(flags, 16) & _SAMPLED))
