"""`WS /api/v1/stream/{model}`, called with a client of the trade, and with what no client should send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.acceptance import onnx_models
from tests.acceptance.pictures import CAT_JPEG, CATS, COFFEE_JPEG
from tests.conftest import StartServer
from tests.servers import RunningServer, demo_package, wait_until

KIB = 1 << 10
NOWHERE: Mapping[str, str] = {}
SLOW = 300
"""Products of matrices that keep `counting` busy for a while."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    variables = {
        "PULVINAR_STREAMS__MAX_STREAMS": "6",
        "PULVINAR_STREAMS__MAX_FRAME_BYTES": str(256 * KIB),
        "PULVINAR_STREAMS__SLOW_READER_S": "0.5",
        "PULVINAR_SERVER__TRUSTED_PROXIES": '["127.0.0.1/32"]',
    }
    with RunningServer(tmp_path_factory.mktemp("streams"), variables) as server:
        models = {
            "scale": onnx_models.scale(),
            "counting": onnx_models.counting(),
            "wide": onnx_models.wide(1 << 18),
        }
        for name, model in models.items():
            server.upload(name, model)
            server.deploy(name)
        server.upload("classifier", demo_package())
        server.deploy("classifier")
        yield server


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    return server.token()


def stream(
    server: RunningServer,
    model: str,
    token: str | None,
    query: str = "",
    *,
    elsewhere: Mapping[str, str] = NOWHERE,
    **options: Any,
) -> connect:
    """A stream; `elsewhere` holds headers as a proxy adds them."""
    headers = {**({"X-Access-Token": token} if token else {}), **elsewhere}
    url = f"ws://127.0.0.1:{server.port}/api/v1/stream/{model}{query}"
    return connect(url, additional_headers=headers, compression=None, proxy=None, close_timeout=5, **options)


def tensor(*values: float, name: str = "x") -> str:
    return json.dumps({"inputs": {name: [list(values)]}})


def answer(connection: ClientConnection) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(connection.recv(timeout=20))
    return said


def rest(connection: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """All that is still said, and the close frame."""
    said = []
    try:
        while True:
            said.append(answer(connection))
    except ConnectionClosed as closed:
        close = closed.rcvd
    assert close is not None, "the connection was lost"
    return said, close.code, close.reason


def end(connection: ClientConnection) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """End the stream; answers what came before the statistics, and these."""
    connection.send('{"type": "end"}')
    said, code, _ = rest(connection)
    assert code == 1000
    assert said[-1]["type"] == "statistics"
    return said[:-1], said[-1]


def closed_streams(server: RunningServer, model: str) -> dict[str, int]:
    """How many streams of a model have ended, by close code."""
    lines = server.client.get("/metrics").text.splitlines()
    begin = f'pulvinar_streams_closed_total{{model="{model}",code="'
    return {line[len(begin) :].split('"')[0]: int(line.split()[-1]) for line in lines if line.startswith(begin)}


@contextmanager
def refused_with(status: int, code: str, *says: str) -> Iterator[None]:
    with pytest.raises(InvalidStatus) as refusal:
        yield
    response = refusal.value.response
    assert response.status_code == status
    error = json.loads(response.body)["error"]
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]
    for part in says:
        assert part in error["message"]


def test_answers_come_in_the_order_of_the_frames(server: RunningServer, token: str) -> None:
    """The first takes longest, so that in-flight neighbours finish before it."""
    times = [SLOW, 1, 50, 2, 3, 80, 1, 1, 4, 5]
    with stream(server, "counting", token, "?in_flight=8") as connection:
        for n in times:
            connection.send(json.dumps({"inputs": {"n": [[n]]}}))
        said, statistics = end(connection)
    assert [one["frame"] for one in said] == list(range(1, len(times) + 1))
    assert [one["outputs"][0]["data"] for one in said] == [[n] for n in times]
    assert statistics["frames"] == {"received": 10, "answered": 10, "failed": 0, "dropped": 0}
    assert statistics["latency_ms"]["p99"] >= statistics["latency_ms"]["p50"] > 0


def test_pictures_go_in_as_they_are_and_a_bad_one_is_said_so_in_its_place(
    server: RunningServer, token: str
) -> None:
    with stream(server, "classifier", token) as connection:
        connection.send('{"type": "configure", "parameters": {"top_k": 1}}')
        for frame in (CAT_JPEG, b"no picture", COFFEE_JPEG):
            connection.send(frame)
        (cat, bad, coffee), statistics = end(connection)
    assert cat["predictions"][0]["label"] in CATS
    assert len(cat["predictions"]) == 1
    assert bad["frame"] == 2
    assert bad["error"]["code"] == "unsupported_media"
    assert coffee["predictions"][0]["label"] == "espresso"
    assert statistics["frames"] == {"received": 3, "answered": 2, "failed": 1, "dropped": 0}
    assert statistics["received_bytes"] == len(CAT_JPEG) + len(COFFEE_JPEG) + len(b"no picture")


def test_the_newest_frame_wins_where_that_is_wanted(server: RunningServer, token: str) -> None:
    with stream(server, "counting", token, "?mode=newest") as connection:
        for n in range(1, 31):
            connection.send(json.dumps({"inputs": {"n": [[SLOW + n]]}}))
        said, statistics = end(connection)
    frames = [one["frame"] for one in said]
    assert frames == sorted(frames)
    assert frames[0] == 1
    assert frames[-1] == 30
    assert len(frames) < 30
    assert all(one["outputs"][0]["data"] == [SLOW + one["frame"]] for one in said)
    assert statistics["frames"]["received"] == 30
    assert statistics["frames"]["dropped"] == 30 - len(frames)


def test_statistics_come_when_asked_for(server: RunningServer, token: str) -> None:
    with stream(server, "scale", token) as connection:
        connection.send(tensor(1, 2, 3, 4))
        assert answer(connection)["outputs"][0]["data"] == [2, 4, 6, 8]
        connection.send('{"type": "statistics"}')
        said = answer(connection)
        assert said["type"] == "statistics"
        assert said["frames"]["answered"] == 1
        assert end(connection)[0] == []


def test_the_token_comes_in_a_header_or_as_a_subprotocol_and_in_no_url(server: RunningServer, token: str) -> None:
    bearer = {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{server.port}/api/v1/stream/scale"
    with connect(url, additional_headers=bearer, proxy=None) as connection:
        assert end(connection)
        assert connection.response is not None
        assert connection.response.headers["x-request-id"]
    with stream(server, "scale", None, subprotocols=["pulvinar.v1", token]) as connection:  # type: ignore[list-item]
        assert connection.subprotocol == "pulvinar.v1"
        assert end(connection)
    with refused_with(401, "unauthenticated"), stream(server, "scale", None):
        pass
    for query in (f"?token={token}", f"?anything={token}", "?access_token=x"):
        with refused_with(400, "bad_request", "in a URL"), stream(server, "scale", token, query):
            pass
    assert token not in server.log()


def test_a_stream_begins_only_where_it_is_allowed(server: RunningServer, token: str) -> None:
    with refused_with(403, "forbidden", "'stream'"), stream(server, "scale", server.token(operations=["infer"])):
        pass
    with refused_with(404, "model_not_found"), stream(server, "scale", server.token(models=["counting"])):
        pass
    with refused_with(404, "model_not_found"), stream(server, "nobody", token):
        pass
    with refused_with(404, "model_not_found", "Version 7"), stream(server, "scale", token, "?version=7"):
        pass
    for query in ("?mode=fast", "?in_flight=0", "?in_flight=1000", "?in_flight=x", "?frames=3", "?version=-1"):
        with refused_with(400, "bad_request"), stream(server, "scale", token, query):
            pass
    headers = {"X-Access-Token": token}
    plain = server.client.get("/api/v1/stream/scale", headers=headers)
    assert plain.status_code == 426
    assert plain.headers["upgrade"] == "websocket"
    upgrade = {**headers, "Connection": "Upgrade", "Upgrade": "websocket"}
    assert server.client.get("/api/v1/models", headers=upgrade).is_success
    assert server.client.get("/api/v1/streams", headers=upgrade).status_code == 404


def test_rules_about_addresses_hold_for_streams_and_for_each_frame(server: RunningServer, token: str) -> None:
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}
    far = stream(server, "scale", server.token(ip_allow=["192.0.2.0/24"]), elsewhere=elsewhere)
    with far as connection:
        assert end(connection)
    with refused_with(403, "forbidden"), stream(server, "scale", server.token(ip_allow=["192.0.2.0/24"])):
        pass
    with stream(server, "scale", token, elsewhere=elsewhere) as connection:
        rule = server.ok(
            "POST", "/access-rules", json={"cidr": "192.0.2.0/24", "action": "deny", "scope": "external"}
        )
        connection.send(tensor(1, 2, 3, 4))
        said, code, _ = rest(connection)
        assert said[0]["error"]["code"] == "forbidden"
        assert code == 4403
        with refused_with(403, "forbidden"), stream(server, "scale", token, elsewhere=elsewhere):
            pass
    server.ok("DELETE", f"/access-rules/{rule['id']}")


def test_each_frame_counts_for_the_rate(server: RunningServer) -> None:
    with stream(server, "scale", server.token(rate="3/hour")) as connection:
        for _ in range(5):
            connection.send(tensor(1, 2, 3, 4))
        said, statistics = end(connection)
    assert ["error" in one for one in said] == [False] * 3 + [True] * 2
    assert said[3]["error"]["code"] == "limit_exceeded"
    assert said[3]["error"]["retry_after_s"] > 60
    assert statistics["frames"]["failed"] == 2


def test_streams_are_counted_and_bounded(server: RunningServer, token: str) -> None:
    one = server.token(max_concurrency=1)
    with stream(server, "scale", one), refused_with(429, "limit_exceeded"), stream(server, "scale", one):
        pass
    wait_until("The token's place", lambda: _may_open(server, one))
    wait_until("The end of all streams", lambda: _open_streams(server) == 0)
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(stream(server, "scale", token))
        with refused_with(503, "too_many_connections"), stream(server, "scale", token):
            pass
    wait_until("Room for a stream", lambda: _may_open(server, token))


def _may_open(server: RunningServer, token: str) -> bool:
    try:
        with stream(server, "scale", token):
            return True
    except InvalidStatus:
        return False


def _open_streams(server: RunningServer) -> int:
    """A client knows of the end of a stream before the server has counted it."""

    def total(name: str) -> int:
        return sum(int(line.split()[-1]) for line in lines if line.startswith(f"pulvinar_streams_{name}_total{{"))

    lines = server.client.get("/metrics").text.splitlines()
    return total("opened") - total("closed")


def test_a_silent_peer_is_let_go(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_STREAMS__IDLE_S": "1"})
    server.upload("scale", onnx_models.scale())
    server.deploy("scale")
    with stream(server, "scale", server.token()) as connection:
        connection.send(tensor(1, 2, 3, 4))
        said, code, reason = rest(connection)
    assert [one.get("frame") for one in said] == [1, None]
    assert code == 4408
    assert "1 second" in reason


def test_a_message_that_is_too_large_or_none_ends_the_stream(server: RunningServer, token: str) -> None:
    with stream(server, "classifier", token) as connection:
        connection.send(bytes(257 * KIB))
        assert rest(connection)[1] == 1009
    before = closed_streams(server, "classifier").get("1006", 0)
    with stream(server, "classifier", token) as connection, suppress(ConnectionClosed):
        connection.send([b"x"] * 5000)  # so many pieces of one message; its rest may cost the close frame
        connection.recv(timeout=20)
    wait_until("The end", lambda: closed_streams(server, "classifier").get("1006", 0) > before)
    for message in ("no JSON", "[1]", '{"type": "dance"}', '{"type": "configure", "mode": "fast"}', '{"a": 1}'):
        with stream(server, "scale", token) as connection:
            connection.send(message)
            said, code, reason = rest(connection)
        assert [one["type"] for one in said] == ["statistics"]
        assert code == 4400
        assert reason
    with stream(server, "scale", token) as connection:
        connection.send(tensor(1, 2, 3, 4))
        connection.send('{"type": "configure", "mode": "newest"}')
        assert rest(connection)[1] == 4400


def test_a_control_message_that_is_too_long_is_no_frame(server: RunningServer, token: str) -> None:
    with stream(server, "scale", token) as connection:
        connection.send(json.dumps({"type": "configure", "parameters": {"filler": "x" * 5000}}))
        said, code, reason = rest(connection)
    assert [one["type"] for one in said] == ["statistics"]
    assert said[0]["frames"]["received"] == 0
    assert code == 4400
    assert "at most 4096 characters" in reason
    with stream(server, "scale", token) as connection:
        connection.send(tensor(1, 2, 3, 4) + " " * 5000)
        (frame,), _ = end(connection)
    assert frame["outputs"][0]["data"]


def test_frames_after_the_end_and_after_the_close_are_nobodys(server: RunningServer, token: str) -> None:
    with stream(server, "scale", token) as connection:
        connection.send(tensor(1, 2, 3, 4))
        connection.send('{"type": "end"}')
        connection.send(tensor(1, 2, 3, 4))
        connection.send(CAT_JPEG)
        said, code, _ = rest(connection)
    assert [one.get("frame") for one in said] == [1, None]
    assert said[-1]["frames"]["received"] == 1
    assert code == 1000
    with stream(server, "scale", token) as connection:
        close_and_one_more = bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8, 0x82, 0x81, 0, 0, 0, 0, 1])
        connection.socket.sendall(close_and_one_more * 2)
        assert rest(connection)[1] == 1000
    assert server.infer("scale", token, content=tensor(1, 2, 3, 4), headers=JSON).is_success


JSON = {"Content-Type": "application/json"}


def test_a_new_version_takes_over_within_a_stream(server: RunningServer, token: str) -> None:
    server.upload("growing", onnx_models.scale(2))
    server.upload("growing", onnx_models.scale(3), version=True)
    server.deploy("growing", 1)
    with stream(server, "growing", token) as connection:
        connection.send(tensor(1, 1, 1, 1))
        assert answer(connection)["version"] == 1
        server.deploy("growing", 2)
        connection.send(tensor(1, 1, 1, 1))
        said = answer(connection)
        assert (said["version"], said["outputs"][0]["data"]) == (2, [3, 3, 3, 3])
        accepted = server.ok("DELETE", "/models/growing/deployment")
        server.wait_generation("growing", accepted["generation"], "stopped")
        connection.send(tensor(1, 1, 1, 1))
        (gone, statistics), code, _ = rest(connection)
    assert (gone["frame"], gone["error"]["code"]) == (3, "model_not_found")
    assert statistics["frames"] == {"received": 3, "answered": 2, "failed": 1, "dropped": 0}
    assert code == 4404


def test_a_token_that_is_revoked_ends_its_streams(server: RunningServer) -> None:
    made = server.new_token()
    with stream(server, "scale", made["secret"]) as connection:
        connection.send(tensor(1, 2, 3, 4))
        assert "outputs" in answer(connection)
        server.ok("DELETE", f"/tokens/{made['id']}")
        connection.send(tensor(1, 2, 3, 4))
        said, code, _ = rest(connection)
    assert said[0]["error"]["code"] == "unauthenticated"
    assert code == 4401


def test_a_peer_that_does_not_read_is_cut_off_and_costs_no_memory(server: RunningServer, token: str) -> None:
    def cut_off() -> int:
        return closed_streams(server, "wide").get("1008", 0)

    server.infer("wide", token, json={"inputs": {"x": [[1]]}})
    before, rss = cut_off(), server.rss_bytes()
    with stream(server, "wide", token, "?in_flight=2", max_queue=1, max_size=None) as connection:
        for _ in range(30):  # of which each would be answered with more than a megabyte
            connection.send(json.dumps({"inputs": {"x": [[1]]}}))
        wait_until("The end of the stream", lambda: cut_off() > before)
        assert server.rss_bytes() - rss < 64 << 20


def test_a_peer_that_vanishes_leaves_nothing_behind(server: RunningServer, token: str) -> None:
    before = closed_streams(server, "counting").get("1006", 0)
    with stream(server, "counting", token) as connection:
        for _ in range(6):
            connection.send(json.dumps({"inputs": {"n": [[SLOW]]}}))
        connection.socket.shutdown(socket.SHUT_RDWR)
    wait_until("The end", lambda: closed_streams(server, "counting").get("1006", 0) == before + 1)
    idle = lambda: server.observed("counting")["slots"]["busy"] == 0  # noqa: E731
    wait_until("That nothing runs any more", idle)


def test_streams_are_in_the_metrics_and_frames_are_requests(server: RunningServer, token: str) -> None:
    with stream(server, "scale", token) as connection:
        connection.send(tensor(1, 2, 3, 4))
        connection.send(tensor(1, 2))
        end(connection)
    metrics = server.client.get("/metrics").text
    assert 'pulvinar_streams_opened_total{model="scale"}' in metrics
    for outcome in ("answered", "failed"):
        assert f'pulvinar_stream_frames_total{{model="scale",outcome="{outcome}"}}' in metrics
    assert 'pulvinar_requests_total{model="scale",version="1",status="200",reason="ok"}' in metrics
    assert closed_streams(server, "scale")["1000"] >= 1


def test_a_stop_answers_what_was_taken_and_says_that_the_server_goes(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_SERVER__DRAIN_S": "20"})
    server.upload("counting", onnx_models.counting())
    server.deploy("counting")
    with stream(server, "counting", server.token()) as connection:
        connection.send(json.dumps({"inputs": {"n": [[SLOW]]}}))
        connection.send('{"type": "statistics"}')
        assert answer(connection)["frames"]["received"] == 1  # it has been taken
        server.terminate()
        (taken, statistics), code, reason = rest(connection)
        assert taken["outputs"][0]["data"] == [SLOW]
        assert statistics["frames"]["answered"] == 1
        assert (code, reason) == (1001, "The server is stopping.")
    server.wait_stopped()
