"""Tenants and what they use, by the pages alone; and who may call what."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from sqlalchemy import event

from app.dashboard.gauges import Gauge
from core.database.repositories import Models
from core.database.repositories.usage import Usage
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_access import HOSTILE, make_token
from tests.integration.dashboard.test_models import actions

LIST = "/dashboard/access/tenants"


def make_tenant(admin: Browser, **fields: str) -> str:
    """Make a tenant by the form; answers its page's path."""
    admin.get(f"{LIST}/new")
    answer = admin.post(f"{LIST}/new", fields)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def secret_of(admin: Browser) -> str:
    found = re.search(r'<code id="secret">(pv_[\w-]+)</code>', admin.page)
    assert found is not None
    return found[1]


def use(house: House, tenant: str, token_id: int, requests: int) -> None:
    """Write usage down, as it was used just now."""

    async def add() -> None:
        async with house.platform.database.transaction() as session:
            sums = (requests, 1, requests, 0, 2_000_000, 100, 200)
            await Usage(session).add([(int(time.time()), (tenant, token_id, "cats"), sums)])

    house.run(add)


def test_a_tenant_is_made_limited_paused_and_removed(house: House, admin: Browser) -> None:
    path = make_tenant(admin, name="red", note=HOSTILE, rate="2/day", budgets="1000 requests/month")
    page = admin.get(path).text
    assert "<script>alert" not in page
    for words in ("2 per 1 day", "1,000 requests per month", "It owns no token yet", f"{LIST}/"):
        assert words in page.replace("2 per day", "2 per 1 day"), words
    assert "1,000 requests per month" in admin.get(LIST).text

    token = make_token(admin, name="of red", tenant="red")
    secret = secret_of(admin)
    call = {"X-Access-Token": secret}
    assert admin.client.get("/api/v1/models", headers=call).status_code == 200
    assert "of red" in admin.get(path).text
    assert admin.post(f"{path}/pause", {"disabled": "true"}).status_code == 303
    assert admin.client.get("/api/v1/models", headers=call).status_code == 403
    assert ">paused</span>" in admin.get(path).text
    assert admin.post(f"{path}/pause", {"disabled": "false"}).status_code == 303
    assert admin.client.get("/api/v1/models", headers=call).status_code == 200

    admin.get(path)
    assert admin.post(path, {"note": "quiet", "max_concurrency": "3"}).status_code == 303
    page = admin.get(path).text
    assert "No rate and no budget" in page
    assert 'value="quiet"' in page

    answer = admin.post(f"{path}/remove", {"confirm": "red"})
    assert (answer.status_code, "owns tokens" in answer.text) == (409, True)
    admin.get(token)
    admin.post(f"{token}/revoke", {"confirm": "of red"})
    admin.get(path)
    assert admin.post(f"{path}/remove", {"confirm": "blue"}).status_code == 422
    assert admin.post(f"{path}/remove", {"confirm": "red"}).headers["location"] == LIST
    assert admin.get(path).status_code == 404
    assert actions(house, "red")[::3] == ["tenant.create", "tenant.update"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "No Spaces"}, "name has 1 to 63"),
        ({"name": "default"}, "already"),
        ({"name": "x1", "budgets": "much"}, "is not understood"),
        ({"name": "x1", "burst": "0"}, "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_tenant_is_said(admin: Browser, fields: dict[str, str], message: str) -> None:
    admin.get(f"{LIST}/new")
    answer = admin.post(f"{LIST}/new", {**fields, "note": "kept"})
    assert answer.status_code in (409, 422)
    assert message in answer.text
    assert 'value="kept"' in answer.text


def test_usage_by_tenant_token_and_model(house: House, admin: Browser) -> None:
    path = make_tenant(admin, name="busy", budgets="100 requests/day")
    token = make_token(admin, name="of busy", tenant="busy")
    use(house, "busy", int(token.rsplit("/", 1)[1]), 90)
    page = admin.get(path).text
    assert "90 used, 90" in page
    assert "gauge-warn" in page
    row = re.search(r"<tr>(?:(?!</tr>).)*of busy.*?</tr>", admin.get("/dashboard/access/tokens").text, re.DOTALL)
    assert row is not None
    assert "90 requests</span>" in row[0]
    for by in ("tenant", "token", "model"):
        for span in ("hour", "day", "month"):
            assert ">90</td>" in admin.get(f"/dashboard/access/usage?by={by}&span={span}&tenant=busy").text
            series = admin.client.get(f"/dashboard/access/usage/series?by={by}&span={span}&tenant=busy").json()
            assert [sum(line["values"]) for line in series["series"]] == [90]
            assert len(series["series"][0]["values"]) == len(series["times"])
    csv = admin.client.get("/dashboard/access/usage/csv?tenant=busy")
    assert csv.headers["content-disposition"].startswith('attachment; filename="usage-')
    assert [line.split(",")[1] for line in csv.text.splitlines()] == ["tenant", "busy"]


def test_a_gauge_turns_before_its_limit_is_reached() -> None:
    assert [Gauge("", "", share).tone for share in (0.0, 0.79, 0.8, 0.99, 1.0, 1.2)] == [
        "",
        "",
        "warn",
        "warn",
        "bad",
        "bad",
    ]


def test_a_rate_that_is_used_stands_in_the_list(admin: Browser) -> None:
    make_token(admin, name="rated", rate="4/day")
    secret = secret_of(admin)
    assert admin.client.get("/api/v1/models", headers={"X-Access-Token": secret}).status_code == 200
    answer = admin.client.post("/api/v1/inference/none", headers={"X-Access-Token": secret}, json={})
    assert answer.status_code in (400, 404, 415, 422)
    assert "used, " in admin.get("/dashboard/access/tokens").text


def test_a_token_is_changed_and_keeps_its_secret(house: House, admin: Browser) -> None:
    path = make_token(admin, name="before", days="30", models="cats", operations="list")
    secret = secret_of(admin)
    form = admin.get(f"{path}/change").text
    assert 'value="before"' in form
    assert 'value="list" checked' in form
    assert 'value="keep" selected' in form
    said = {"name": "after", "tenant": "default", "days": "keep", "rate": "7/day", "priority": "2"}
    assert admin.post(f"{path}/change", said).status_code == 303
    page = admin.get(path).text
    for words in (
        "after",
        "7/day",
        "in 29 days",
        "<dt>Priority</dt><dd>2</dd>",
        "<dt>Operations</dt><dd>all</dd>",
    ):
        assert words in page, words
    assert admin.client.get("/api/v1/models", headers={"X-Access-Token": secret}).status_code == 200
    admin.get(f"{path}/change")
    answer = admin.post(f"{path}/change", {**said, "rate": "often"})
    assert (answer.status_code, "often" in answer.text) == (422, True)
    admin.get(f"{path}/change")
    assert admin.post(f"{path}/change", {**said, "days": ""}).status_code == 303
    assert "<dt>Expires</dt><dd>never</dd>" in admin.get(path).text
    assert actions(house, "after") == ["token.update", "token.update"]


@pytest.fixture
def model(house: House) -> str:
    async def add() -> None:
        async with house.platform.database.transaction() as session:
            if await Models(session).by_name("shared") is None:
                await Models(session).add("shared", "tensor")

    house.run(add)
    return "shared"


def test_a_model_is_shared_with_some_with_none_and_with_all(house: House, admin: Browser, model: str) -> None:
    make_tenant(admin, name="blue")
    path = f"/dashboard/models/{model}/settings"
    assert "Tokens of all tenants may call it" in admin.get(path).text
    share = f"/dashboard/sharing/{model}"
    assert admin.post(share, {"who": "some"}).status_code == 400
    admin.get(path)
    assert admin.post(share, {"who": "some", "tenants": "blue"}).headers["location"] == path
    page = admin.get(path).text
    assert "<strong>blue</strong>" in page
    assert 'value="blue" checked' in page
    assert house.platform.tenants.of("default").hidden >= {model}
    assert admin.post(share, {"who": "none"}).status_code == 303
    assert "It is shared with no tenant" in admin.get(path).text
    assert admin.post(share, {"who": "all"}).status_code == 303
    assert "Tokens of all tenants may call it" in admin.get(path).text
    assert actions(house, model) == ["model.share"] * 3
    admin.get(path)
    assert admin.post("/dashboard/sharing/nothing", {"who": "all"}).status_code == 404


def test_reading_a_list_asks_the_database_three_times(house: House, admin: Browser) -> None:
    for number in range(5):
        make_token(admin, name=f"many {number}", rate="5/day", budgets="5 requests/day")
    asked: list[str] = []
    engine = house.platform.database._engine.sync_engine

    def note(_: object, __: object, statement: str, *___: object) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() in ("changes", "flushing"):  # what the house does by itself
            return
        if "usage" in statement or "FROM access_tokens" in statement:
            asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert admin.get("/dashboard/access/tokens").status_code == 200
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(asked) == 4, asked  # the page's rows, and three sums for all of them
