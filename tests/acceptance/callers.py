"""Applications that call without a pause."""

from __future__ import annotations

import http.client
import json
import threading
from types import TracebackType
from typing import Any, Self

from tests.servers import RunningServer, wait_until

BODY = b'{"inputs": {"x": [[1, 2, 3, 4]]}}'


def call_once(
    server: RunningServer, token: str, *, model: str = "scale", body: bytes = BODY, timeout_s: float = 20
) -> tuple[int, Any]:
    """Status and body of one call over a connection of its own. Raises OSError where it is cut."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    try:
        return _call(connection, token, model, body)
    finally:
        connection.close()


def _call(connection: http.client.HTTPConnection, token: str, model: str, body: bytes) -> tuple[int, Any]:
    headers = {"X-Access-Token": token, "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/inference/{model}", body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


class Callers:
    """`with Callers(server, token) as callers:` calls from several threads until the block ends.

    With `fresh`, each call has a connection of its own; otherwise one is kept, and where it breaks, that is noted
    in `broken`, and the next one is opened.
    """

    def __init__(self, server: RunningServer, token: str, count: int = 4, *, fresh: bool = False) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.broken: list[Exception] = []
        self._server = server
        self._token = token
        self._fresh = fresh
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def wait_more(self, count: int) -> None:
        """Wait for so many answers more."""
        enough = len(self.answers) + count
        wait_until(f"{count} answers", lambda: len(self.answers) >= enough)

    def assert_all_answered(self, at_least: int) -> None:
        """Everybody got what they asked for."""
        assert not self.broken, self.broken[:3]
        wrong = [answer for answer in self.answers if answer[0] != 200]
        assert not wrong, f"{len(wrong)} of {len(self.answers)}: {wrong[:3]}"
        assert len(self.answers) >= at_least

    def _run(self) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            try:
                self.answers.append(_call(connection, self._token, "scale", BODY))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(error)
                connection.close()
                connection = self._connect()
            if self._fresh:
                connection.close()
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=20)
