"""The shortest way of an inference call: small JSON bodies to tensor models that run in this process.

From the last byte of the request to the queue, and from there to the socket, without a task, ASGI's messages or
the frame of a coroutine: what is left to do is so small that those would be half of it. Whatever is not as plain
as that goes the long way, through `InferenceEndpoint`; callers cannot tell the two apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, Final, Protocol

import structlog

from app.access_log import AccessLog
from app.answer_headers import Cors, FixedHeaders, lines_of, origin_of
from app.errors import INTERNAL_MESSAGE, error_body
from app.external.call import read_call
from app.external.door import (
    Headers,
    admit,
    counted_elsewhere,
    limit_headers,
    limit_lines,
    priority_of,
)
from app.external.inference import (
    JSON_TYPE,
    PREFIX,
    SMALL_BODY_BYTES,
    count_error,
    count_left,
    error_answer,
    render,
    taken_by,
)
from app.external.sequences import sequence_of
from app.middleware import (
    ANSWERED,
    CLIENT_LEFT,
    ON_DISCONNECT,
    STOPPING_MESSAGE,
    Answered,
    choose_request_id,
    log_request,
)
from app.state import Platform
from app.tallies import note_answer
from app.tracing import RequestTrace, Tracer
from core.access.places import Place
from core.access.records import TokenRecord
from core.access.usage import NOTHING
from core.access.windows import LimitState
from core.errors import PlatformError, ShuttingDown
from core.serving.catalogue import Served
from core.serving.deployment import Deployment
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.request_queue import QueuedRequest
from core.serving.runner import LocalRunner
from core.serving.trace import Noting

log = structlog.get_logger("pulvinar.requests")
_JSON_LINE: Final = lines_of([JSON_TYPE])

Scope = MutableMapping[str, Any]


class Answers(Protocol):
    """The connection's side of one request."""

    scope: Any

    def write_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write the whole answer."""

    def write_lines(self, status: int, lines: bytes, body: bytes) -> None:
        """The same, of headers as they are written."""


class Express:
    """Takes the calls that it can; one for each server process."""

    def __init__(
        self, access_log: AccessLog, fixed: FixedHeaders, cors: Cors, tracer: Tracer | None = None
    ) -> None:
        self._access_log = access_log
        self._fixed = fixed
        self._cors = cors
        self._tracer = tracer

    def wants(self, scope: Scope) -> bool:
        """Whether a request may go this way, as far as its head tells."""
        return (
            scope["path"].startswith(PREFIX)
            and scope["method"] == "POST"
            and not scope["query_string"]
            and JSON_TYPE in scope["headers"]
            and "platform" in scope["state"]
            and not (self._cors.on and origin_of(scope) is not None)
        )

    def take(self, cycle: Answers, body: bytes | bytearray, calls: set[Any]) -> bool:
        """Begin to answer; false where it must go the long way. `calls` holds what a stop may have to cancel."""
        platform: Platform = cycle.scope["state"]["platform"]
        name = cycle.scope["path"][len(PREFIX) :]
        served = platform.catalogue.only(name)
        if served is None or len(body) > SMALL_BODY_BYTES or platform.stopping:
            return False
        target = served.target
        if not isinstance(target, Deployment) or not isinstance(target.runner, LocalRunner):
            return False
        if target.modality != "tensor" or target.cache is not None or counted_elsewhere(platform, cycle.scope):
            return False
        trace = None if self._tracer is None else self._tracer.trace(cycle.scope["headers"])
        call = Call(self._access_log, self._fixed, platform, cycle, name, served, target, calls, trace)
        call.begin(bytes(body))
        return True


class Call:
    """One call under way. It ends once: answered, failed, left by its client, or cancelled by a stop."""

    __slots__ = (
        "_access_log",
        "_bytes_in",
        "_calls",
        "_cycle",
        "_fixed",
        "_leased",
        "_name",
        "_over",
        "_places",
        "_platform",
        "_queued",
        "_record",
        "_request",
        "_request_id",
        "_served",
        "_started",
        "_state",
        "_taken",
        "_target",
        "_trace",
    )

    def __init__(
        self,
        access_log: AccessLog,
        fixed: FixedHeaders,
        platform: Platform,
        cycle: Answers,
        name: str,
        served: Served,
        target: Deployment,
        calls: set[Any],
        trace: RequestTrace | None,
    ) -> None:
        self._started = time.perf_counter()
        self._trace = trace
        self._fixed = fixed
        self._access_log, self._platform, self._cycle, self._calls = access_log, platform, cycle, calls
        self._name, self._served, self._target = name, served, target
        self._request_id = choose_request_id(cycle.scope["headers"])
        self._state: LimitState | None = None
        self._request: InferenceRequest | None = None
        self._queued: QueuedRequest | None = None
        self._places: Sequence[Place] = ()
        self._leased = self._over = False
        self._record: TokenRecord | None = None
        self._taken, self._bytes_in = NOTHING, 0

    def begin(self, body: bytes) -> None:
        """Through the door and into the queue."""
        self._bytes_in = len(body)
        try:
            self._enter(body)
        except PlatformError as error:
            self._fail(error)
        except Exception:
            self._crash()

    def cancel(self, msg: object = None) -> None:
        """The server stops, and its patience is at an end. Like a task, it ends a little later."""
        asyncio.get_running_loop().call_soon(self._cancelled)

    def _cancelled(self) -> None:
        if not self._over:
            self._leave_queue()
            body = error_body(
                self._cycle.scope["path"], 503, ShuttingDown.code, STOPPING_MESSAGE, self._request_id
            )
            count_error(self._platform, self._name, self._target.version, 503, ShuttingDown.code)
            self._answer(503, [JSON_TYPE], body)

    def _enter(self, body: bytes) -> None:
        platform, scope = self._platform, self._cycle.scope
        record = admit(platform, scope, self._name)
        limiter = platform.limiter
        limits = limiter.of(record)
        self._state = limiter.hit_limits(limits)
        self._record = record
        if limits.places:
            self._places = limiter.take_places(limits)
        self._served.leases += 1
        self._leased = True
        request = self._request = read_call(self._target, JSON_TYPE[1], body, max_items=1)
        request.request_id, request.priority = self._request_id, priority_of(record)
        request.sequence = sequence_of(record, scope["headers"], request.parameters)
        queued = self._queued = self._target.begin(request)
        if self._trace is not None and self._trace.trace is not None:
            queued.trace_id = self._trace.id
        scope[ON_DISCONNECT] = self._left
        self._calls.add(self)
        queued.future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        if self._over:
            return
        try:
            error = future.exception()
            if error is None:
                self._succeed(future.result())
            elif isinstance(error, PlatformError):
                self._target.failed(self._wanted, error)
                self._note_cut_short(error)
                self._fail(error)
            else:
                raise error
        except Exception:
            self._crash()

    @property
    def _wanted(self) -> InferenceRequest:
        assert self._request is not None
        return self._request

    def _succeed(self, outputs: Any) -> None:
        assert self._queued is not None
        result = self._target.finish(self._wanted, self._queued, outputs)
        if self._trace is not None and self._trace.trace is not None:
            Noting(self._trace.trace, result.model, result.version).ran(self._queued)
        self._release()
        note_answer(self._platform, self._target, result)
        self._cycle.scope["state"][ANSWERED] = Answered(
            result.model, result.version, result.timing, at=time.monotonic()
        )
        self._taken = taken_by(result)
        if sum([array.nbytes for array in outputs.values()]) <= SMALL_BODY_BYTES:
            self._answer_well(render(self._request_id, result, 0))
        else:
            self._render_in_thread(result)

    def _render_in_thread(self, result: InferenceResult) -> None:
        loop = asyncio.get_running_loop()
        rendering = loop.run_in_executor(None, render, self._request_id, result, 0)
        rendering.add_done_callback(self._rendered)

    def _rendered(self, rendering: asyncio.Future[bytes]) -> None:
        if self._over:
            return
        try:
            self._answer_well(rendering.result())
        except Exception:
            self._crash()

    def _fail(self, error: PlatformError) -> None:
        if self._queued is not None:
            ms = (time.perf_counter() - self._started) * 1000
            self._platform.statistics.of(self._target).failed(ms)
        version = self._target.version if self._leased else 0
        path = self._cycle.scope["path"]
        status, headers, body = error_answer(self._platform, path, self._name, version, self._request_id, error)
        self._answer(status, [*limit_headers(self._state), *headers], body)

    def _crash(self) -> None:
        traced = {} if self._trace is None else {"trace_id": self._trace.id.trace_id}
        path = self._cycle.scope["path"]
        log.exception("request.crashed", request_id=self._request_id, path=path, **traced)
        if not self._over:
            self._answer(500, [JSON_TYPE], error_body(path, 500, "internal", INTERNAL_MESSAGE, self._request_id))

    def _left(self) -> None:
        """The client went away; nobody reads an answer."""
        if not self._over:
            self._leave_queue()
            count_left(self._platform, self._name, self._target.version)
            self._end(CLIENT_LEFT)

    def _note_cut_short(self, error: BaseException) -> None:
        """Tell the trace how far it came without an answer."""
        if self._queued is not None and self._trace is not None and self._trace.trace is not None:
            Noting(self._trace.trace, self._name, self._target.version).cut_short(self._queued, error)

    def _leave_queue(self) -> None:
        self._note_cut_short(asyncio.CancelledError())
        runner = self._target.runner
        if self._queued is not None and isinstance(runner, LocalRunner):
            runner.leave(self._queued)
            self._queued.future.cancel()

    def _answer_well(self, body: bytes) -> None:
        self._end(200, len(body))
        state, trace = self._state, self._trace
        lines = self._fixed.lines(self._request_id)
        limits = b"" if state is None else limit_lines(state)
        traced = b"" if trace is None else b"traceparent: %b\r\n" % trace.said
        self._cycle.write_lines(200, b"%b%b%b%b" % (_JSON_LINE, limits, lines, traced), body)

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._end(status, len(body))
        traced = () if self._trace is None else (self._trace.header,)
        self._cycle.write_answer(status, [*headers, *self._fixed.of(self._request_id), *traced], body)

    def _end(self, status: int, bytes_out: int = 0) -> None:
        self._over = True
        if self._record is not None:
            self._count_usage(self._platform, self._record, bytes_out, failed=status != 200)
        self._release()
        for place in self._places:
            place.give_back()
        self._calls.discard(self)
        log_request(self._access_log, self._cycle.scope, self._request_id, status, self._started, self._trace)

    def _count_usage(self, platform: Platform, record: TokenRecord, bytes_out: int, *, failed: bool) -> None:
        # The name was in service when the call began.
        platform.usage.add(record, self._name, self._taken, self._bytes_in, bytes_out, failed=failed)
        if record.budgets or record.owner.budgets:
            platform.limiter.use(record, *self._taken)

    def _release(self) -> None:
        if self._leased:
            self._leased = False
            self._served.release()
