"""Calls that are real attacks: shown to be what they claim, refused, nothing fetched, learnt or left behind."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.acceptance.answers import refused
from tests.acceptance.pictures import CAT_JPEG
from tests.acceptance.test_routes import ROUTES
from tests.conftest import Demo
from tests.servers import INTERNAL


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Something inside the network that no caller may make the server call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def _was_called(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


FETCHES: dict[str, Callable[[Demo, str], httpx.Response]] = {
    "an image": lambda demo, url: demo.server.infer("classifier", demo.token, json={"inputs": {"image": url}}),
    "a list of images": lambda demo, url: demo.server.infer(
        "classifier", demo.token, json={"inputs": {"image": [url]}}
    ),
    "an object with a url": lambda demo, url: demo.server.infer(
        "classifier", demo.token, json={"inputs": {"image": {"url": url}}}
    ),
    "a body that is a url": lambda demo, url: demo.server.infer("classifier", demo.token, content=url.encode()),
    "prediction": lambda demo, url: demo.server.client.post(
        "/predict", headers={"X-Access-Token": demo.token}, json={"image": url}
    ),
    "a model's source": lambda demo, url: demo.server.api(
        "POST", "/imports", json={"name": "fetched", "source": url}
    ),
    "a hub of the caller's": lambda demo, url: demo.server.api(
        "POST", "/imports", json={"name": "fetched", "source": f"hf:{url}"}
    ),
    "a package at a url": lambda demo, url: demo.server.api(
        "POST", "/imports", json={"name": "fetched", "source": f"pypi:x @ {url}/x.whl#sha256={'0' * 64}"}
    ),
}


@pytest.mark.parametrize("what", FETCHES)
def test_no_caller_makes_the_server_fetch_a_url(unharmed: Demo, listener: socket.socket, what: str) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/latest/meta-data"
    with socket.create_connection(listener.getsockname()):  # it would be noticed
        assert _was_called(listener)
    answer = FETCHES[what](unharmed, url)
    assert 400 <= answer.status_code < 500, answer.text
    assert not _was_called(listener)


INJECTION = "x' OR '1'='1"


def test_sql_in_names_headers_and_queries_is_a_plain_value(unharmed: Demo) -> None:
    with sqlite3.connect(":memory:") as naive:  # it is an injection where SQL is put together
        naive.executescript("CREATE TABLE tokens (hash TEXT); INSERT INTO tokens VALUES ('one'), ('two');")
        found = naive.execute(f"SELECT * FROM tokens WHERE hash = '{INJECTION}'").fetchall()
        assert len(found) == 2
    server = unharmed.server
    client = server.client
    for secret in (INJECTION, "pv_" + INJECTION, "'; DROP TABLE tokens; --"):
        refused(client.get("/api/v1/models", headers={"X-Access-Token": secret}), 401)
        refused(client.get(f"{INTERNAL}/models", headers={"X-Auth-Token": secret}), 401)
        login = client.post(f"{INTERNAL}/auth/login", json={"username": secret, "password": secret})
        assert login.status_code in (401, 422), login.text
        refused(server.api("GET", f"/models/{secret}"), 404)
        for query in ("limit", "cursor", "q", "search", "action", "actor", "status"):
            for path in ("/models", "/tokens", "/audit", "/users"):
                answer = server.api("GET", path, params={query: secret})
                assert answer.status_code in (200, 400, 422), answer.text
        sent = server.send_upload("injected", b"x", description=secret)
        assert sent.status_code in (415, 422), sent.text
    made = server.new_token(name=INJECTION)
    assert server.ok("GET", f"/tokens/{made['id']}")["name"] == INJECTION
    server.ok("DELETE", f"/tokens/{made['id']}")


def test_a_secret_in_a_url_is_no_credential_and_reaches_no_log(unharmed: Demo) -> None:
    server, secret = unharmed.server, unharmed.token
    session = server.login()
    for name in ("token", "access_token", "api_key", "X-Access-Token", "authorization"):
        refused(server.client.get("/api/v1/models", params={name: secret}), 401)
        refused(server.client.get(f"{INTERNAL}/models", params={name: session}), 401)
        refused(server.client.post("/api/v1/inference/classifier", params={name: secret}, content=b"x"), 401)
    assert secret not in server.log()
    assert session not in server.log()


def test_what_is_kept_of_a_secret_is_its_hash(demo: Demo) -> None:
    secret = demo.server.token()
    files = [path.read_bytes() for path in demo.server.data_dir.glob("pulvinar.db*")]
    assert any(hashlib.sha256(secret.encode()).digest() in data
               or hashlib.sha256(secret.encode()).hexdigest().encode() in data for data in files)  # fmt: skip
    assert not any(secret.encode() in data for data in files)
    assert secret not in demo.server.log()


def _png(width: int, height: int) -> bytes:
    """Zeros: each megapixel costs about a kilobyte."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def _frames(count: int) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("P", (600, 600), number % 2) for number in range(count)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("way", ["body", "json", "multipart"])
def test_a_picture_that_unpacks_to_far_more_costs_no_memory(unharmed: Demo, way: str) -> None:
    data = _png(20_000, 20_000)
    assert struct.unpack(">II", data[16:24]) == (20_000, 20_000)  # 1.2 GB as the RGB that a model takes
    assert len(data) < 1 << 17
    sent: dict[str, dict[str, Any]] = {
        "body": {"content": data},
        "json": {"json": {"inputs": {"image": base64.b64encode(data).decode()}}},
        "multipart": {"files": [("image", ("a.png", data))] * 8},
    }
    before = unharmed.server.rss_bytes()
    refused(unharmed.server.infer("classifier", unharmed.token, **sent[way]), 413, "too_large", "20000 x 20000")
    assert unharmed.server.rss_bytes() - before < 64 << 20


def test_only_the_first_frame_of_an_animation_is_unpacked(unharmed: Demo) -> None:
    data = _frames(400)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.n_frames == 400  # type: ignore[attr-defined]  # 576 MB as RGB and alpha
    before = unharmed.server.rss_bytes()
    assert unharmed.server.infer("classifier", unharmed.token, content=data).status_code == 200
    assert unharmed.server.rss_bytes() - before < 64 << 20


PART = b'Content-Disposition: form-data; name="image"\r\n\r\n\r\n'
FORMS: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "a hundred thousand parts": (b"b", lambda: (b"--b\r\n" + PART) * 100_000 + b"--b--\r\n"),
    "a long boundary": (b"b" * 20_000, lambda: b"--" + b"b" * 20_000 + b"\r\n" + PART),
    "no boundary but many": (b"b", lambda: b"--b" * 200_000),
    "endless headers": (b"b", lambda: b"--b\r\n" + b"X: y\r\n" * 200_000 + b"\r\nx\r\n--b--\r\n"),
    "one endless header": (b"b", lambda: b"--b\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\nx\r\n--b--\r\n"),
    "almost the boundary": (b"b" * 60, lambda: b"--" + b"b" * 60 + b"\r\n" + PART + b"\r\n--" + b"b" * (1 << 20)),
}


@pytest.mark.parametrize("door", ["inference", "upload"])
@pytest.mark.parametrize("kind", FORMS)
def test_a_form_that_abuses_its_parser(unharmed: Demo, kind: str, door: str) -> None:
    boundary, make = FORMS[kind]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}
    if door == "inference":
        answer = unharmed.server.infer("classifier", unharmed.token, content=make(), headers=headers)
    else:
        answer = unharmed.server.api("POST", "/models", content=make(), headers=headers)
    assert answer.status_code in (400, 413, 431), answer.text
    refused(answer, answer.status_code)


def test_a_packed_body_is_unpacked_by_no_other_api(unharmed: Demo) -> None:
    packed = zlib.compress(bytes(256 << 20), 9)
    assert len(packed) < 1 << 19
    for encoding in ("gzip", "deflate", "br"):
        headers = {"Content-Encoding": encoding}
        answer = unharmed.server.infer("classifier", unharmed.token, content=packed, headers=headers)
        assert 400 <= answer.status_code < 500
        login = unharmed.server.client.post(f"{INTERNAL}/auth/login", content=packed, headers=headers)
        assert 400 <= login.status_code < 500


SMUGGLED = {
    "two lengths": b"Content-Length: 4\r\nContent-Length: 100\r\n\r\nabcd",
    "a length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": b"Content-Length: +4\r\n\r\nabcd",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk of a size that is none": b"Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n",
    "a header with a blank": b"Content-Length : 4\r\n\r\nabcd",
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_a_request_that_two_servers_would_cut_differently_is_the_connections_last(
    unharmed: Demo, kind: str
) -> None:
    head = f"POST /api/v1/inference/classifier HTTP/1.1\r\nHost: x\r\nX-Access-Token: {unharmed.token}\r\n"
    with socket.create_connection(("127.0.0.1", unharmed.server.port), timeout=10) as raw:
        raw.sendall(head.encode() + SMUGGLED[kind] + b"GET /health/live HTTP/1.1\r\nHost: smuggled\r\n\r\n")
        answer = b""
        while chunk := raw.recv(1 << 16):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1  # what was smuggled is not answered


def test_no_path_opens_a_websocket_without_a_token(demo: Demo) -> None:
    paths = {path.replace("{", "").replace("}", "") for _, path in ROUTES}
    paths |= {
        "/api/v1/stream/classifier",
        "/api/v1/stream",
        "/api/v1/inference/classifier",
        "/",
        "/ws",
        "/predict",
    }
    for path in sorted(paths):
        for headers in ({}, {"X-Access-Token": "pv_" + "A" * 43}, {"X-Auth-Token": demo.server.login()}):
            url = f"ws://127.0.0.1:{demo.server.port}{path}"
            with pytest.raises(InvalidStatus) as answered, connect(url, additional_headers=headers, proxy=None):
                pass
            if path == "/api/v1/stream/classifier":
                assert answered.value.response.status_code == 401
    assert demo.server.infer("classifier", demo.token, content=CAT_JPEG).status_code == 200
