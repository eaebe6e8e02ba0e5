"""What every answer of the native APIs has to keep to."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.acceptance.pictures import CATS

_LEAKS = re.compile(
    r"/tmp|/home|/usr|/root|/work|site-packages|Traceback|SELECT|INSERT|sqlite|0x[0-9a-f]{6}|\.py\b"
)


def refused(answer: httpx.Response, status: int, code: str | None = None, *says: str) -> dict[str, Any]:
    """Assert the status and the body of an error: code, one helpful sentence, the request's id, nothing leaked."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}, body
    error: dict[str, Any] = body["error"]
    if answer.request.url.path.startswith("/v2"):  # the Open Inference Protocol has a sentence and nothing else
        assert isinstance(body["error"], str), body
        error = {"code": code, "message": body["error"], "request_id": answer.headers["x-request-id"]}
    assert set(error) == {"code", "message", "request_id"}, body
    assert error["request_id"] == answer.headers["x-request-id"]
    assert len(answer.headers.get_list("x-request-id")) == 1
    if code is not None:
        assert error["code"] == code, body
    message = error["message"]
    assert message.endswith((".", "?")), message
    assert 15 < len(message) < 500, message
    assert not _LEAKS.search(message), message
    for part in says:
        assert part in message, message
    return error


def top1(answer: httpx.Response) -> str:
    """The best label of one picture's answer."""
    assert answer.status_code == 200, answer.text
    label: str = answer.json()["predictions"][0]["label"]
    return label


def is_cat(answer: httpx.Response) -> bool:
    """Whether the model saw a cat."""
    return top1(answer) in CATS
