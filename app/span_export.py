"""Sends finished traces to a collector, by OpenTelemetry's SDK; the only file that imports it.

Handing a trace over only puts its spans into a bounded queue, which a thread of the SDK's empties; spans that find
no room are dropped and counted. So no request waits for a collector, whatever that does.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from core.serving.trace import CANCELLED, BatchRun, Ended, SpanId, Stage, Trace
from core.tracing_settings import TracingSettings

log = structlog.get_logger(__name__)

SEND_EVERY_MS: Final = 1000
AT_ONCE: Final = 512
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_FAILED: Final = Status(StatusCode.ERROR)


class SpanExport:
    """Belongs to one event loop: `export` each trace there, and `close` at the end."""

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        self._settings = settings
        self._counting = _Counting(
            exporter or OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.flush_s)
        )
        self._processor = BatchSpanProcessor(
            self._counting,
            max_queue_size=settings.queue_spans,
            schedule_delay_millis=SEND_EVERY_MS,
            max_export_batch_size=min(AT_ONCE, settings.queue_spans),
        )
        self._resource = _resource(settings)
        self._scope = InstrumentationScope("pulvinar", version("pulvinar"))
        self._handed = 0
        self._dropped = 0

    def export(self, trace: Trace, ended: Ended) -> None:
        """Let the spans of a trace wait to be sent; all of them or none."""
        count = 1 + len(trace.stages) + len(trace.batches)
        if self.waiting + count > self._settings.queue_spans:
            self._dropped += count
            return
        self._handed += count
        ahead_ns = time.time_ns() - time.monotonic_ns()
        kind = SpanKind.INTERNAL if ended.inner else SpanKind.SERVER
        attributes = dict(ended.attributes)
        if trace.left_out:
            attributes["pulvinar.stages_left_out"] = trace.left_out
        context = _context(trace.id)
        parent = None if trace.parent is None else _context(trace.parent)
        status = _FAILED if ended.failed else _UNSET
        times = (trace.since, ended.until, ahead_ns)
        for stage in trace.stages:
            self._stage(_context(trace.id.child()), stage, context, ahead_ns, ended.failed)
        for batch in trace.batches:
            self._batch(batch, ahead_ns)
        # Last: whoever receives it has all that is within it, also where they are sent in two parts.
        self._span(context, ended.name, times, parent, attributes, kind=kind, status=status)

    @property
    def waiting(self) -> int:
        """Spans that are neither sent nor given up yet."""
        return self._handed - self._counting.exported - self._counting.failed

    def counts(self) -> Mapping[str, int]:
        """What became of the spans so far."""
        counting = self._counting
        return {"exported": counting.exported, "failed": counting.failed, "dropped": self._dropped}

    def close(self) -> None:
        """Send what waits, for at most `tracing.flush_s`. Blocks."""
        # The SDK's own shutdown waits for half a minute; the thread ends with the process.
        ending = threading.Thread(target=self._processor.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(self._settings.flush_s)
        if self.waiting:
            log.warning("tracing.not_flushed", spans=self.waiting)

    def _stage(
        self, context: SpanContext, stage: Stage, parent: SpanContext, ahead_ns: int, request_failed: bool
    ) -> None:
        attributes: dict[str, Any] = {}
        if stage.model:
            attributes["pulvinar.model"] = stage.model
        if stage.version:
            attributes["pulvinar.version"] = stage.version
        if stage.error:
            attributes["error.type"] = stage.error
        # A caller that leaves is no error; a deadline that cuts a stage short is the request's.
        failed = stage.error and (stage.error != CANCELLED or request_failed)
        links = () if stage.batch is None else (Link(_context(stage.batch)),)
        times = (stage.since, stage.until, ahead_ns)
        status = _FAILED if failed else _UNSET
        self._span(context, stage.name, times, parent, attributes, links=links, status=status)

    def _batch(self, batch: BatchRun, ahead_ns: int) -> None:
        """A trace of its own: it belongs to all of its requests alike."""
        attributes = {"pulvinar.batch.items": batch.items, "pulvinar.batch.requests": batch.requests}
        links = [Link(_context(link)) for link in batch.links]
        times = (batch.since, batch.until, ahead_ns)
        self._span(_context(batch.id), "batch", times, None, attributes, links=links)

    def _span(
        self,
        context: SpanContext,
        name: str,
        times: tuple[float, float, int],
        parent: SpanContext | None,
        attributes: Mapping[str, Any],
        *,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = _UNSET,
    ) -> None:
        """`times` are beginning and end in monotonic seconds, and how far the epoch's nanoseconds are ahead.

        The span is made as it is sent: begun and ended by the SDK's tracer, it would cost ten times as much.
        """
        since, until, ahead_ns = times
        span = ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            links=links,
            kind=kind,
            status=status,
            start_time=int(since * 1e9) + ahead_ns,
            end_time=int(until * 1e9) + ahead_ns,
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)


class _Counting(SpanExporter):
    """Counts what an exporter does. The counts are written by the SDK's thread alone."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._inner.shutdown()


def _resource(settings: TracingSettings) -> Resource:
    """Who speaks; `OTEL_RESOURCE_ATTRIBUTES` may add to it."""
    own: Iterable[tuple[str, str]] = (
        ("service.name", settings.service_name),
        ("service.version", version("pulvinar")),
        ("service.instance.id", f"{socket.gethostname()}:{os.getpid()}"),
    )
    return Resource.create(dict(own))


def _context(id: SpanId) -> SpanContext:
    return SpanContext(int(id.trace_id, 16), int(id.span_id, 16), is_remote=False, trace_flags=_SAMPLED)
