"""TLS by the server itself, its renewal, and which other origins' pages may read an answer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import onnx_models
from tests.certificates import Authority
from tests.servers import INTERNAL, RunningServer, run_cli, wait_until

APP, STRANGER = "https://app.example.com", "https://evil.example.com"
AUTHORITY = Authority()


@pytest.fixture(scope="module", params=["one process", "workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = AUTHORITY.write(folder)
    variables = {
        "PULVINAR_TLS__CERTIFICATE": str(certificate),
        "PULVINAR_TLS__KEY": str(key),
        "PULVINAR_SERVER__CORS_ORIGINS": f'["{APP}"]',
    }
    server = RunningServer(folder, variables, flags=("--workers", "2") if request.param == "workers" else ())
    server.trusts = AUTHORITY.context()
    server.expected_in_log += ["settings.refused"]
    with server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        yield server


def _certificate(server: RunningServer, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> bytes:
    context = AUTHORITY.context()
    context.minimum_version = minimum
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found


def test_everything_goes_over_tls_and_nothing_beside_it(server: RunningServer) -> None:
    token = server.token()
    answer = server.infer("scale", token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    assert answer.status_code == 200, answer.text
    for one in (answer, server.api("GET", "/models"), server.client.get("/health/live"), server.client.get("/x")):
        assert one.headers["strict-transport-security"] == "max-age=31536000"
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
        plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/1.1" not in plain.recv(1024)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_versions_of_tls_are_refused(server: RunningServer) -> None:
    context = AUTHORITY.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_renewed_certificate_is_taken_over_and_a_broken_one_is_not(server: RunningServer) -> None:
    before = _certificate(server)
    certificate, key = AUTHORITY.write(server.folder)
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until("The renewal", lambda: _certificate(server) != before)
    wait_until("The reload's end", lambda: server.log_events("server.reloaded"))
    now = _certificate(server)
    text = certificate.read_text()
    certificate.write_text("no certificate")
    os.kill(server.process.pid, signal.SIGHUP)
    refusal = wait_until("The refusal", lambda: server.log_events("settings.refused"))[0]
    assert "not a certificate and a key in PEM" in refusal["reason"]
    assert _certificate(server) == now
    assert server.client.get("/health/live").status_code == 200
    certificate.write_text(text)
    assert key.read_text() not in server.log()


def test_pages_of_chosen_origins_may_call_the_inference_api_alone(server: RunningServer) -> None:
    token = server.token()
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-access-token"}
    url = "/api/v1/inference/scale"
    allowed = server.client.options(url, headers={"Origin": APP, **ask})
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == APP
    assert "x-access-token" in allowed.headers["access-control-allow-headers"]
    for origin, path in (
        (STRANGER, url),
        ("null", url),
        (APP, f"{INTERNAL}/auth/login"),
        (APP, f"{INTERNAL}/models"),
    ):
        answer = server.client.options(path, headers={"Origin": origin, **ask})
        assert "access-control-allow-origin" not in answer.headers, (origin, path)
    body = {"inputs": {"x": [[1, 2, 3, 4]]}}
    for headers, status in (({"X-Access-Token": token}, 200), ({}, 401)):
        answer = server.client.post(url, json=body, headers={"Origin": APP, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
        answer = server.client.post(url, json=body, headers={"Origin": STRANGER, **headers})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (status, False)


def test_a_key_that_everybody_can_read_stops_the_start(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.write(tmp_path)
    key.chmod(0o644)
    variables = {"PULVINAR_TLS__CERTIFICATE": str(certificate), "PULVINAR_TLS__KEY": str(key)}
    ended = run_cli("--port", "0", cwd=tmp_path, variables=variables)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "Everybody on this machine can read" in ended.stderr
