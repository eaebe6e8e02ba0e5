"""Access tokens at the door: which, for what, from where, how often."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.answers import refused
from tests.conftest import Demo
from tests.servers import wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}


def test_no_token(tensors: Demo) -> None:
    answer = tensors.server.client.post("/api/v1/inference/scale", json=CALL["json"])
    refused(answer, 401, "unauthenticated", "X-Access-Token")
    assert answer.headers["www-authenticate"] == "Bearer"
    refused(tensors.server.client.get("/api/v1/models"), 401, "unauthenticated")


@pytest.mark.parametrize(
    "secret", ["", "pv_", "nonsense", "pv_" + "A" * 43, "pv_" + "A" * 4000, "Ã" * 23, "' OR 1=1--"]
)
@pytest.mark.parametrize("header", ["X-Access-Token", "Authorization"])
def test_a_token_that_is_none(tensors: Demo, secret: str, header: str) -> None:
    value = secret.encode() if header == "X-Access-Token" else b"Bearer " + (secret.encode() or b"x")
    answer = tensors.server.client.post("/api/v1/inference/scale", headers={header: value}, **CALL)
    refused(answer, 401, "unauthenticated")


def test_another_scheme(tensors: Demo) -> None:
    headers = {"Authorization": f"Basic {tensors.token}"}
    refused(tensors.server.client.post("/api/v1/inference/scale", headers=headers, **CALL), 401)


def test_a_sign_in_token_is_no_access_token_and_the_other_way_round(tensors: Demo) -> None:
    refused(tensors.server.infer("scale", tensors.server.login(), **CALL), 401)
    answer = tensors.server.client.get("/api/v1/internal/models", headers={"X-Auth-Token": tensors.token})
    refused(answer, 401)


def test_a_revoked_token_is_refused_at_once(tensors: Demo) -> None:
    made = tensors.server.new_token()
    assert tensors.server.infer("scale", made["secret"], **CALL).status_code == 200
    tensors.server.ok("DELETE", f"/tokens/{made['id']}")
    refused(tensors.server.infer("scale", made["secret"], **CALL), 401, "unauthenticated", "revoked")
    refused(tensors.server.api("PATCH", f"/tokens/{made['id']}", json={"name": "again"}), 409, "conflict")


def test_a_rotated_token_changes_its_secret_at_once(tensors: Demo) -> None:
    made = tensors.server.new_token()
    fresh = tensors.server.ok("POST", f"/tokens/{made['id']}/rotate")
    refused(tensors.server.infer("scale", made["secret"], **CALL), 401)
    assert tensors.server.infer("scale", fresh["secret"], **CALL).status_code == 200


def test_an_expired_token(tensors: Demo) -> None:
    for life_s in (1, 5, 25):  # on a machine that does much else, making and using it takes its time
        ends = datetime.now(UTC) + timedelta(seconds=life_s)
        made = tensors.server.api("POST", "/tokens", json={"name": "short", "expires_at": ends.isoformat()})
        token = made.json().get("secret", "")
        answer = tensors.server.infer("scale", token, **CALL)
        if datetime.now(UTC) < ends:
            break
    assert answer.status_code == 200, answer.text
    time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 0.01)
    refused(tensors.server.infer("scale", token, **CALL), 401, "unauthenticated", "expired")


def test_a_model_is_not_there_whether_unknown_undeployed_or_not_permitted(tensors: Demo) -> None:
    token = tensors.server.token(models=["idle", "unknown", "classif*"])
    assert tensors.server.infer("classifier", token, content=b"").status_code == 400
    words = set()
    for name in ("unknown", "idle", "scale", "never-heard-of"):
        error = refused(tensors.server.infer(name, token, **CALL), 404, "model_not_found", repr(name))
        words.add(error["message"].replace(name, "…"))
    assert len(words) == 1, words


def test_a_model_that_is_not_permitted_answers_like_an_unknown_one_in_every_header(tensors: Demo) -> None:
    token = tensors.server.token(models=["classifier"], rate="1000/minute")
    answers = [tensors.server.infer(name, token, **CALL) for name in ("scale", "never-heard-of")]
    assert set(answers[0].headers) == set(answers[1].headers)


def test_patterns_of_names(tensors: Demo) -> None:
    assert tensors.server.infer("scale", tensors.server.token(models=["sc*e"]), **CALL).status_code == 200
    refused(tensors.server.infer("scale", tensors.server.token(models=["scal"]), **CALL), 404)
    refused(tensors.server.infer("scale", tensors.server.token(models=[]), **CALL), 404)


def test_a_token_for_other_operations(tensors: Demo) -> None:
    lists = tensors.server.token(operations=["list"])
    refused(tensors.server.infer("scale", lists, **CALL), 403, "forbidden", "'infer'")
    assert tensors.server.client.get("/api/v1/models", headers={"X-Access-Token": lists}).status_code == 200
    infers = tensors.server.token(operations=["infer"])
    refused(tensors.server.client.get("/api/v1/models", headers={"X-Access-Token": infers}), 403, "forbidden")


def test_a_token_for_other_addresses(tensors: Demo) -> None:
    far = tensors.server.token(ip_allow=["10.0.0.0/8", "2001:db8::/32"])
    refused(tensors.server.infer("scale", far, **CALL), 403, "forbidden", "address")
    pretend = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3", "X-Real-IP": "10.1.2.3"}
    refused(tensors.server.infer("scale", far, headers=pretend, **CALL), 403, "forbidden")
    near = tensors.server.token(ip_allow=["127.0.0.0/8"])
    assert tensors.server.infer("scale", near, **CALL).status_code == 200


def test_a_rate_is_held_and_told(tensors: Demo) -> None:
    token = tensors.server.token(rate="3/hour")
    answers = [tensors.server.infer("scale", token, **CALL) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers[:3]] == ["3", "3", "3"]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers[:3]] == ["2", "1", "0"]
    assert int(answers[0].headers["x-ratelimit-reset"]) > time.time()
    for answer in answers[3:]:
        refused(answer, 429, "limit_exceeded", "3 per hour")
        assert 1 <= int(answer.headers["retry-after"]) <= 7200
        assert answer.headers["x-ratelimit-limit"] == "3"
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert int(answer.headers["x-ratelimit-reset"]) > time.time()


def test_listing_models_counts_too(tensors: Demo) -> None:
    headers = {"X-Access-Token": tensors.server.token(rate="2/hour")}
    answers = [tensors.server.client.get("/api/v1/models", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining"] == "1"
    assert int(answers[2].headers["retry-after"]) >= 1
    assert answers[2].headers["x-ratelimit-remaining"] == "0"


def test_a_token_made_by_the_command_line_works_within_a_second(tensors: Demo) -> None:
    made = tensors.server.cli("token", "create", "--name", "cli", "--models", "scale")
    secret = made.stdout.strip()
    assert secret.startswith("pv_"), made.stderr
    wait_until("The token", lambda: tensors.server.infer("scale", secret, **CALL).status_code == 200)


def test_a_secret_is_shown_once_and_never_logged(tensors: Demo) -> None:
    made = tensors.server.new_token(name="shown once")
    tensors.server.infer("scale", made["secret"], **CALL)
    assert made["secret"] not in tensors.server.log()
    listed = tensors.server.api("GET", "/tokens?limit=500").text
    assert made["secret"] not in listed
    assert "hash" not in listed
    assert made["secret"].startswith(made["prefix"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "name"),
        ({"rate": "fast"}, "fast"),
        ({"rate": "0/second"}, "0/second"),
        ({"ip_allow": ["300.0.0.1"]}, "300.0.0.1"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"operations": ["everything"]}, "operations"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_token_that_cannot_be_made(tensors: Demo, fields: dict[str, Any], says: str) -> None:
    before = tensors.server.ok("GET", "/tokens?limit=500")["items"]
    refused(tensors.server.api("POST", "/tokens", json={"name": "bad", **fields}), 422, "unprocessable", says)
    assert len(tensors.server.ok("GET", "/tokens?limit=500")["items"]) == len(before)
