"""What callers say of their traces, who is sampled, and what spans say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib import util
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.span_export import SpanExport
from app.tracing import Answer, Tracer, end_request, read_traceparent, route_of
from app.tracing_extra import check_tracing
from core.errors import DeadlineExceeded
from core.serving.batcher import note_run
from core.serving.engine_worker import Batch
from core.serving.request import Timing
from core.serving.request_queue import QueuedRequest
from core.serving.trace import MOST_STAGES, BatchRun, Noting, SpanId, Stage, Trace, current, new_id, noting
from core.settings import InvalidSettings
from core.tracing_settings import TracingSettings

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"


def _scope(*headers: tuple[bytes, bytes], path: str = "/predict", **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers), **more}


def _said(value: str) -> tuple[bytes, bytes]:
    return b"traceparent", value.encode()


def test_what_a_caller_says_is_read() -> None:
    caller = read_traceparent([(b"accept", b"*/*"), _said(GOOD)])
    assert caller == (SpanId(TRACE_ID, SPAN_ID), True)
    assert read_traceparent([_said(GOOD[:-2] + "00")]) == (SpanId(TRACE_ID, SPAN_ID), False)
    # A later version may say more, and other flags.
    assert read_traceparent([_said(f"cc-{TRACE_ID}-{SPAN_ID}-03-more")]) == (SpanId(TRACE_ID, SPAN_ID), True)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        GOOD.upper(),
        GOOD + "-more",
        GOOD[:-1],
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}g-{SPAN_ID}-01",
        "x" * 100_000,
    ],
)
def test_what_is_not_valid_is_ignored(value: str) -> None:
    assert read_traceparent([_said(value)]) is None


def test_two_parents_are_none() -> None:
    assert read_traceparent([_said(GOOD), _said(GOOD)]) is None


def _tracer(ratio: float) -> Tracer:
    return Tracer(TracingSettings(sample_ratio=ratio), lambda trace, ended: None)


def test_a_ratio_of_the_requests_is_sampled_and_callers_decide_for_theirs() -> None:
    begun = [_tracer(0.25).begin(_scope()) for _ in range(2000)]
    assert 350 < sum(one is not None and one.trace is not None for one in begun) < 650
    quiet, none = _tracer(0.000001), _tracer(0)
    given = quiet.begin(_scope(_said(GOOD)))
    assert given is not None
    assert given.trace is not None
    assert given.trace.parent == SpanId(TRACE_ID, SPAN_ID)
    assert given.header == (b"traceparent", f"00-{TRACE_ID}-{given.id.span_id}-01".encode())
    for unsampled in (_tracer(1).begin(_scope(_said(GOOD[:-2] + "00"))), none.begin(_scope(_said(GOOD)))):
        assert unsampled is not None
        assert unsampled.trace is None
        assert unsampled.header[1].endswith(b"-00")


def test_a_trace_of_our_own_is_sampled_by_its_id_and_says_so() -> None:
    for _ in range(200):
        begun = _tracer(0.5).begin(_scope())
        assert begun is not None
        sampled = int(begun.id.trace_id[16:], 16) < 1 << 63
        assert begun.header == (b"traceparent", f"00-{begun.id.trace_id}-{begun.id.span_id}-0{sampled:d}".encode())
        assert read_traceparent([begun.header]) == (begun.id, sampled)
        assert (begun.trace is not None) is sampled
        assert begun.trace is None or begun.trace.id == begun.id


@pytest.mark.parametrize("path", ["/health/live", "/v2/health/ready", "/metrics", "/static/app.css"])
def test_probes_and_files_are_not_traced(path: str) -> None:
    assert _tracer(1).begin(_scope(path=path)) is None


def test_no_caller_makes_names_of_spans() -> None:
    class Known:
        path = "/models/{name}"

    assert route_of(_scope(path="/whatever/they/like")) == ""
    assert route_of(_scope(path="/api/v1/inference/any name")) == "/api/v1/inference/{model}"
    assert route_of(_scope(route=Known(), root_path="/api/v1")) == "/api/v1/models/{name}"


def _exported(settings: TracingSettings | None = None) -> tuple[SpanExport, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return SpanExport(settings or TracingSettings(), exporter), exporter


def test_a_trace_becomes_spans_with_the_times_and_ids_that_were_noted() -> None:
    export, exporter = _exported()
    parent, run = new_id(), new_id()
    id = parent.child()
    trace = Trace(id, parent, export.export)
    notes = Noting(trace, "cats", 3)
    notes.add("preprocess", trace.since, trace.since + 0.25)
    notes.add("infer", trace.since + 0.5, trace.since + 1, run)
    trace.batches.append(BatchRun(run, trace.since + 0.5, trace.since + 1, 3, 2, (id, parent)))
    timing = Timing(total=0.0)
    end_request(trace, _scope(), Answer(503, "r", "::1", "cats", 3, timing, trace.since))
    export.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"POST", "preprocess", "infer", "batch", "read", "write"}
    server, batch = spans["POST"], spans["batch"]
    assert server.context is not None
    assert f"{server.context.trace_id:032x}" == id.trace_id
    assert f"{server.context.span_id:016x}" == id.span_id
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == parent.span_id
    assert not server.status.is_ok
    assert server.attributes is not None
    assert server.attributes["error.type"] == "503"
    first = spans["preprocess"]
    assert first.start_time is not None
    assert first.end_time is not None
    assert first.end_time - first.start_time == pytest.approx(0.25e9, abs=1e3)
    assert first.parent is not None
    assert first.parent.span_id == server.context.span_id
    assert [f"{link.context.span_id:016x}" for link in spans["infer"].links] == [run.span_id]
    assert [f"{link.context.span_id:016x}" for link in batch.links] == [id.span_id, parent.span_id]
    assert batch.parent is None


@pytest.mark.parametrize(("status", "cut_fails"), [(499, False), (422, False), (504, True)])
def test_the_stage_that_failed_has_an_error_and_one_that_was_cut_short_with_its_request(
    status: int, cut_fails: bool
) -> None:
    export, exporter = _exported()
    trace = Trace(new_id(), None, export.export)
    began = trace.since + 0.25
    notes = Noting(trace, "cats", 3)
    notes.add("preprocess", began, began + 0.25)
    notes.add("queue", began + 0.25, began + 0.5, error=DeadlineExceeded("late"))
    notes.add("infer", began + 0.25, began + 0.5, error=asyncio.CancelledError())
    notes.add("postprocess", began + 0.5, began + 0.75, error=ValueError("a secret"))
    end_request(trace, _scope(), Answer(status, "r", "::1"))
    export.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    told = {name: (span.status.is_ok, dict(span.attributes or {})) for name, span in spans.items()}
    cats = {"pulvinar.model": "cats", "pulvinar.version": 3}
    assert told["read"] == (True, {})
    assert told["write"] == (True, {})
    assert told["preprocess"] == (True, cats)
    assert told["queue"] == (False, {**cats, "error.type": "deadline_exceeded"})
    assert told["infer"] == (not cut_fails, {**cats, "error.type": "cancelled"})
    assert told["postprocess"] == (False, {**cats, "error.type": "internal"})
    assert spans["read"].end_time == spans["preprocess"].start_time
    assert spans["write"].start_time == spans["postprocess"].end_time


def test_a_trace_that_finds_no_room_is_dropped_whole_and_counted() -> None:
    class Stuck(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            raise RuntimeError("out of order")

    export = SpanExport(TracingSettings(queue_spans=64), Stuck())
    for _ in range(40):
        trace = Trace(new_id(), None, export.export)
        trace.stage(Stage("infer", trace.since, trace.since, "m", 1))
        trace.end("POST", {}, failed=False)
    before = export.counts()
    assert export.waiting <= 64
    assert before["dropped"] % 2 == 0
    export.close()
    after = export.counts()
    assert (after["exported"], after["failed"] + after["dropped"]) == (0, 80)


def test_a_request_of_thousands_of_stages_keeps_the_first() -> None:
    ends: list[Trace] = []
    trace = Trace(new_id(), None, lambda trace, ended: ends.append(trace))
    notes = Noting(trace, "m", 1)
    for _ in range(MOST_STAGES + 5):
        notes.add("infer", 0.0, 1.0)
    trace.end("POST", {}, failed=False)
    notes.add("after the end", 0.0, 1.0)
    trace.end("POST", {}, failed=False)
    assert (len(ends), len(trace.stages), trace.left_out, trace.child()) == (1, MOST_STAGES, 5, None)


def test_nothing_is_noted_of_a_request_without_a_trace() -> None:
    assert noting("m", 1) is None
    trace = Trace(new_id(), None, lambda trace, ended: None)
    token = current.set(trace)
    try:
        assert noting("m", 1) is not None
    finally:
        current.reset(token)


def test_of_a_batch_one_request_whose_caller_is_there_tells() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        ids = [new_id(), None, new_id()]
        requests = [QueuedRequest({}, 1, loop.create_future(), now=0.0, deadline=9.0, trace_id=id) for id in ids]
        requests[0].future.cancel()
        batch = Batch(requests, 1.0, 8)
        batch.ended_at = 2.0
        note_run(batch)
        left, untraced, teller = (request.batch for request in requests)
        assert untraced is None
        assert left is not None
        assert teller is not None
        assert (left.links, left.id) == ((), teller.id)
        assert (teller.links, teller.items, teller.requests) == ((ids[0], ids[2]), 3, 3)
        assert (teller.since, teller.until) == (1.0, 2.0)
        assert BatchRun.from_json(teller.to_json()) == teller

    asyncio.run(run())


def test_without_the_extra_the_start_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tracing_extra.find_spec", lambda name: None)
    check_tracing(TracingSettings())
    with pytest.raises(InvalidSettings, match=r"pip install 'pulvinar\[tracing\]'"):
        check_tracing(TracingSettings(enabled=True))


def test_off_imports_nothing_of_it() -> None:
    """FastAPI imports the API of OpenTelemetry by itself, where it is installed; neither SDK nor exporter."""
    code = (
        "import sys; from app.main import create_app; from core.settings import Settings; create_app(Settings());"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', "
        "'opentelemetry.proto', 'app.span_export'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert util.find_spec("opentelemetry.sdk") is not None


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://collector/", "http://user@collector/v1", "http://a/?x"]
)
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    with pytest.raises(ValueError, match="must be http"):
        TracingSettings(endpoint=endpoint)
