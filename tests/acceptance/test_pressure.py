"""More requests than a model can take, and requests that take too long."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.answers import refused
from tests.acceptance.conftest import Slow
from tests.servers import wait_until


def test_a_full_queue_refuses_at_once_and_serves_on(slow: Slow) -> None:
    slow.deploy(queue_size=1)
    first, waiting = slow.begin_two(1.0)
    answer = slow.call(0.01)
    assert not first.done(), "the queue was not full any more: the refusal came too late"
    refused(answer, 503, "queue_full", "queue is full")
    assert int(answer.headers["retry-after"]) >= 1
    assert (first.result().status_code, waiting.result().status_code) == (200, 200)
    assert slow.call(0.01).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/inference/slow", "/v2/models/slow/infer"])
def test_a_full_queue_refuses_before_the_body_has_come_and_the_connection_goes_on(slow: Slow, path: str) -> None:
    slow.deploy(queue_size=1)
    first, waiting = slow.begin_two(1.0)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Access-Token: {slow.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 200000\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", slow.server.port), timeout=10) as caller:
        caller.sendall(head.encode())
        assert caller.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert not first.done(), "the queue was not full any more: the refusal came too late"
        caller.sendall(b" " * 199_999)
        caller.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert (first.result().status_code, waiting.result().status_code) == (200, 200)


def test_many_at_once_are_answered_or_refused(slow: Slow) -> None:
    slow.deploy(queue_size=2)
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: slow.call(0.2), range(24)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}, statuses
    assert slow.server.observed("slow")["queue"] == {"depth": 0, "capacity": 2}


def test_a_token_s_places_at_once(slow: Slow) -> None:
    token = slow.server.token(max_concurrency=2)
    calls = slow.begin_two(1.0, token)
    answer = slow.call(0.01, token)
    refused(answer, 429, "limit_exceeded", "2 requests at once")
    assert int(answer.headers["retry-after"]) >= 1
    assert [call.result().status_code for call in calls] == [200, 200]
    assert slow.call(0.01, token).status_code == 200


@pytest.mark.parametrize("waits", [False, True])
def test_a_deadline_that_passes(slow: Slow, waits: bool) -> None:
    slow.deploy(timeout_ms=300)
    calls = [slow.begin(3.0)]
    if waits:
        slow.wait_running()
        calls.append(slow.begin(0.01))
    for call in calls:
        refused(call.result(), 504, "deadline_exceeded", "deadline")
    wait_until("A free slot", lambda: slow.call(0.01).status_code == 200)


def test_a_caller_who_leaves_frees_the_place(slow: Slow) -> None:
    slow.deploy(queue_size=2)
    calls = slow.begin_two(2.0)
    body = b'{"inputs": {"n": [[1]]}}'
    head = (
        f"POST /api/v1/inference/slow HTTP/1.1\r\nHost: localhost\r\nX-Access-Token: {slow.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    depth = lambda: slow.server.observed("slow")["queue"]["depth"]  # noqa: E731
    with socket.create_connection(("127.0.0.1", slow.server.port), timeout=10) as caller:
        caller.sendall(head.encode() + body)
        wait_until("A third request", lambda: depth() == 2, every_s=0.005)
    wait_until("A free place", lambda: depth() == 1, every_s=0.005)
    assert not calls[0].done(), "the first request ended before the caller's leaving could be seen"
    assert [call.result().status_code for call in calls] == [200, 200]


def test_undeploying_answers_what_is_under_way(slow: Slow) -> None:
    calls = slow.begin_two(1.0)  # both must end within the drain, on a busy machine too
    gone = slow.server.ok("DELETE", "/models/slow/deployment")
    wait_until("The drain", lambda: slow.server.observed("slow")["state"] == "draining", every_s=0.005)
    refused(slow.call(0.01), 404, "model_not_found")
    assert not calls[0].done(), "the request ended before the drain could be seen"
    assert [call.result().status_code for call in calls] == [200, 200]
    slow.server.wait_generation("slow", gone["generation"], "stopped")


def test_a_stop_answers_what_is_under_way(own_slow: Slow) -> None:
    calls = own_slow.begin_two(1.0)
    own_slow.server.terminate()
    assert [call.result().status_code for call in calls] == [200, 200]
    own_slow.server.wait_stopped()


@pytest.mark.parametrize("own_slow", [3.0], indirect=True)
def test_a_stop_does_not_wait_for_ever(own_slow: Slow) -> None:
    own_slow.server.expected_in_log.append("Cancel 1 running task(s), timeout graceful shutdown exceeded")
    call = own_slow.begin(12)  # far more than the drain, also where the machine was busy when it was measured
    wait_until("The request under way", lambda: own_slow.server.log_events("deployment.serving"))
    own_slow.server.terminate()
    own_slow.server.wait_stopped()
    refused(call.result(), 503, "shutting_down", "stopped")
