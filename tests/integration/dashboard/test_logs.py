"""What hosts have printed, on a model's page and by the API; and how versions did side by side."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.readings import Step, Tally
from core.control.host_log import HostLogs
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_access import HOSTILE
from tests.integration.dashboard.test_second_factor import somebody
from tests.integration.dashboard.test_versions import add_model
from tests.servers import PASSWORD


@pytest.fixture(scope="module")
def model(house: House) -> str:
    add_model(house, "chatty", 2)
    return "chatty"


def test_lines_are_shown_with_who_said_them(
    house: House, admin: Browser, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/dashboard/models/{model}/logs"
    assert "runs in the server" in admin.get(path).text
    logs = HostLogs()
    log = logs.open(model, 2)
    log._add(HOSTILE.encode())
    log.note("The process was killed by SIGKILL; it is being started again.")
    monkeypatch.setattr(house.platform, "host_logs", logs.ask)
    for page in (admin.get(path).text, admin.get(f"{path}/lines").text):
        assert "Version 2" in page
        assert "<script>alert" not in page
        assert '<div class="log-ours"' in page
        assert "killed by SIGKILL" in page
    sent = {"username": "admin", "password": PASSWORD}
    token = admin.client.post("/api/v1/internal/auth/login", json=sent).json()["token"]
    answer = admin.client.get(f"/api/v1/internal/models/{model}/logs", headers={"X-Auth-Token": token})
    (version,) = answer.json()["versions"]
    assert version["version"] == 2
    assert [(line["by"], line["text"][:9]) for line in version["lines"]] == [
        ("host", HOSTILE[:9]),
        ("server", "The proce"),
    ]
    missing = admin.client.get("/api/v1/internal/models/nothing/logs", headers={"X-Auth-Token": token})
    assert missing.status_code == 404


def test_viewers_do_not_read_them(house: House, model: str) -> None:
    viewer = somebody(house, "reader")
    assert "operators and administrators can read it" in viewer.get(f"/dashboard/models/{model}/logs").text
    assert viewer.get(f"/dashboard/models/{model}/logs/lines").status_code == 403


def test_versions_have_lines_of_their_own(
    house: House, admin: Browser, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = Tally(10, 0), Tally(5, 1)
    quick.buckets[0], slow.buckets[-1] = 10, 5
    steps = [
        Step(1.0, 5.0, {}, 0, 0.0, 0, {(model, 1): quick, ("other", 1): quick}),
        Step(6.0, 5.0, {}, 0, 0.0, 0, {(model, 1): quick, (model, 2): slow, (model, 0): slow}),
    ]
    monkeypatch.setattr(house.platform, "recorder", SimpleNamespace(steps=steps, last=None))

    def lines(kind: str) -> dict[str, list[float | None]]:
        body = admin.client.get(f"/dashboard/history/versions/{kind}?span=15m&model={model}").json()
        assert body["times"] == [1, 6]
        return {one["name"]: one["values"] for one in body["series"]}

    assert lines("requests") == {"v1": [2.0, 2.0], "v2": [0.0, 1.0]}
    assert lines("errors") == {"v1": [0.0, 0.0], "v2": [0.0, 0.2]}
    p95 = lines("p95")
    assert p95["v2"][0] is None
    assert (p95["v2"][1] or 0) > (p95["v1"][1] or 0)
