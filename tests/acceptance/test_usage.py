"""What was answered is what is counted, over every API, and after the worst of ends."""

from __future__ import annotations

import csv
import io
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.sync.client import connect

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.conftest import Demo
from tests.servers import RunningServer, wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}
CALLERS = 6


def used(server: RunningServer, token_id: int, **query: str) -> dict[str, dict[str, Any]]:
    """What a token used, by model."""
    said = server.ok("GET", "/usage", params={"by": "model", "token": str(token_id), "step": "minute", **query})
    return {group["key"]: group for group in said["items"]}


def test_each_api_counts(tensors: Demo) -> None:
    server = tensors.server
    made = server.new_token(rate="9/day", burst=9, models=["scale", "classifier"])
    secret, headers = made["secret"], {"X-Access-Token": made["secret"]}
    body = b'{"inputs":{"x":[[1,2,3,4],[5,6,7,8]]}}'
    answers = [
        server.infer("scale", secret, content=body, headers={"Content-Type": "application/json"}),
        server.infer("scale", secret, query="?version=1", **CALL),
        server.client.post(
            "/v2/models/scale/infer",
            headers=headers,
            json={"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 4], "data": [0] * 12}]},
        ),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert server.infer("scale", secret, json={"inputs": {"y": []}}).status_code == 422
    assert server.infer("classifier", secret, content=b"no image").status_code == 415
    assert server.client.post("/predict", headers=headers, content=b"\0").status_code >= 400
    with connect(f"ws://127.0.0.1:{server.port}/api/v1/stream/scale", additional_headers=headers) as stream:
        for _ in range(2):
            stream.send('{"inputs": {"x": [[1, 2, 3, 4]]}}')
            assert "outputs" in str(stream.recv())
    assert server.infer("scale", secret, **CALL).status_code == 200
    refused(server.infer("scale", secret, **CALL), 429)  # not let in, so not counted

    def look() -> dict[str, dict[str, Any]] | None:
        found = used(server, made["id"])
        return found if sum(one["requests"] for one in found.values()) >= 9 else None

    found = wait_until("That all is written", look)
    counts = {name: (one["requests"], one["errors"], one["items"]) for name, one in found.items()}
    assert counts == {"scale": (7, 1, 2 + 1 + 3 + 2 + 1), "classifier": (1, 1, 0), "": (1, 1, 0)}
    assert found["scale"]["engine_seconds"] > 0
    assert found["scale"]["bytes_in"] > len(body)
    assert found["scale"]["bytes_out"] > sum(len(answer.content) for answer in answers)
    exported = server.api("GET", "/usage/export", params={"token": str(made["id"]), "step": "day"})
    lines = list(csv.DictReader(io.StringIO(exported.text)))
    assert sorted((line["model"], int(line["requests"])) for line in lines) == [
        ("", 1),
        ("classifier", 1),
        ("scale", 7),
    ]
    points = server.ok("GET", "/usage", params={"token": str(made["id"]), "step": "minute", "points": "true"})
    assert sum(point["requests"] for point in points["points"]) == 9
    refused(server.api("GET", "/usage", params={"from": "2030-01-01T00:00:00Z"}), 422, "unprocessable")
    # Times that calendars end before, once they are told in UTC.
    ages = {"from": "0001-01-01T00:00:00+14:00", "to": "9999-12-31T23:59:59-14:00"}
    for path in ("/usage", "/usage/export"):
        assert server.api("GET", path, params={"token": str(made["id"]), "step": "day", **ages}).status_code == 200


class Callers:
    """Call as fast as they can until the server is gone or told to stop; count what was answered."""

    def __init__(self, server: RunningServer, secret: str) -> None:
        self.answered = [0] * CALLERS
        self._url = f"http://127.0.0.1:{server.port}/api/v1/inference/scale"
        self._headers = {"X-Access-Token": secret}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=[number]) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    @property
    def total(self) -> int:
        return sum(self.answered)

    def stop(self) -> int:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.total

    def _call(self, number: int) -> None:
        with httpx.Client(headers=self._headers, trust_env=False, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url, **CALL)
                except httpx.TransportError:
                    return
                self.answered[number] += answer.status_code == 200


def test_what_was_answered_is_counted_whatever_the_end(tmp_path: Path) -> None:
    settings = {"PULVINAR_SERVER__WORKERS": "2", "PULVINAR_USAGE__FLUSH_S": "0.2"}
    with RunningServer(tmp_path, settings) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        made = server.new_token()

        def counted() -> int:
            return int(used(server, made["id"]).get("scale", {}).get("requests", 0))

        callers = Callers(server, made["secret"])
        wait_until("Some load", lambda: callers.total > 300)
        answered = callers.stop()
        server.stop()  # an orderly end writes all there is
        server.start()
        total_before = counted()
        assert total_before == answered

        callers = Callers(server, made["secret"])
        wait_until("Some load", lambda: callers.total > 300)
        mark = callers.total
        wait_until("That what was answered is written", lambda: counted() - total_before >= mark)
        processes = [server.process, *psutil.Process(server.process.pid).children(recursive=True)]
        for process in processes:
            process.kill()
        answered = callers.stop()
        server.kill()
        server.start()
        assert mark <= counted() - total_before <= answered + CALLERS
