"""The pages of pipelines: from the editor, over what is wrong at which line, to service and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from app.dashboard.pages.pipeline_run import MOST_PICTURES, value_of
from core.access.roles import Role
from core.control.actor import Actor
from core.control.user_changes import add_user, hashed_password
from core.database.tables import AuditEntry
from core.media.images import Decoded
from core.tasks.base import Payload
from tests.integration.dashboard.conftest import Browser, House
from tests.servers import PASSWORD

GREETS = """\
description: Greets <b>whoever</b> comes.
inputs:
  name: text
nodes:
  said: {op: text, inputs: {name: name}, template: "hello {name}"}
outputs:
  text: said
"""
BROKEN = """\
inputs:
  name: text
nodes:
  said: {op: text, inputs: {name: nobody}, template: "<i>{name}</i>"}
outputs:
  text: nothing
"""


@pytest.fixture
def greets(admin: Browser) -> Iterator[str]:
    """A pipeline without models, removed afterwards."""
    admin.get("/dashboard/pipelines/+new")
    answer = admin.post("/dashboard/pipelines/+new", {"name": "greets", "definition": GREETS, "action": "save"})
    assert answer.status_code == 303, admin.page
    yield "greets"
    press(admin, "undeploy", confirm="greets")
    assert press(admin, "remove", confirm="greets").headers["location"] == "/dashboard/pipelines"


def press(browser: Browser, button: str, **fields: str) -> Any:
    browser.get("/dashboard/pipelines/greets")
    return browser.post(f"/dashboard/pipelines/greets/{button}", fields)


def test_without_any_it_says_what_they_are(admin: Browser) -> None:
    page = admin.get("/dashboard/pipelines").text
    assert "A pipeline chains models" in page
    assert 'href="/dashboard/pipelines/+new"' in page


def test_what_is_wrong_stands_at_its_line(admin: Browser) -> None:
    admin.get("/dashboard/pipelines/+new")
    answer = admin.post("/dashboard/pipelines/+new", {"name": "x", "definition": BROKEN, "action": "check"})
    assert answer.status_code == 422
    assert 'data-line="4"' in answer.text
    assert 'data-line="6"' in answer.text
    assert "<strong>Line 6</strong>" in answer.text
    assert "&lt;i&gt;{name}&lt;/i&gt;" in answer.text
    assert "<i>{name}" not in answer.text
    assert re.search(r"<textarea[^>]*>\n\n?inputs:\n  name: text", answer.text)
    saved = admin.post("/dashboard/pipelines/+new", {"name": "x", "definition": BROKEN, "action": "save"})
    assert saved.status_code == 422
    assert 'data-line="6"' in saved.text
    assert admin.get("/dashboard/pipelines/x").status_code == 404


def test_lines_are_counted_as_the_editor_shows_them(admin: Browser) -> None:
    admin.get("/dashboard/pipelines/+new")
    text = "\n\n" + BROKEN.replace("\n", "\r\n")
    answer = admin.post("/dashboard/pipelines/+check", {"definition": text.replace("\n\n", "\r\n\r\n", 1)})
    assert 'data-line="8"' in answer.text


def test_what_is_right_is_drawn(admin: Browser) -> None:
    admin.get("/dashboard/pipelines/+new")
    answer = admin.post("/dashboard/pipelines/+check", {"definition": GREETS}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "Nothing to mend" in answer.text
    assert "data:image/svg+xml;base64," in answer.text
    assert "<html" not in answer.text


def test_a_name_that_cannot_be_is_refused_at_its_field(admin: Browser) -> None:
    admin.get("/dashboard/pipelines/+new")
    answer = admin.post("/dashboard/pipelines/+new", {"name": "<b>No</b>", "definition": GREETS, "action": "save"})
    assert answer.status_code == 400
    assert 'id="e-name"' in answer.text
    assert "&lt;b&gt;No&lt;/b&gt;" in answer.text


def test_the_life_of_a_pipeline(admin: Browser, house: House, greets: str) -> None:
    page = admin.get("/dashboard/pipelines/greets")
    assert "Never deployed" in page.text
    assert "Greets &lt;b&gt;whoever&lt;/b&gt; comes." in page.text
    picture = admin.client.get("/dashboard/pipelines/greets/graph?version=1")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "default-src 'none'" in picture.headers["content-security-policy"]

    assert press(admin, "deploy", version="1").status_code == 303
    assert "serving" in admin.get("/dashboard/pipelines/greets/state").text
    assert 'href="/dashboard/playground/greets"' in admin.get("/dashboard/pipelines").text
    admin.get("/dashboard/playground/greets")
    answer = admin.post("/dashboard/playground/greets", {"text": "Anna"})
    assert "hello Anna" in answer.text
    assert ">said</td>" in answer.text  # when its node ran

    admin.get("/dashboard/pipelines/greets/edit")
    changed = GREETS.replace("hello", "goodbye")
    admin.post("/dashboard/pipelines/greets/edit", {"definition": changed, "action": "save"})
    assert press(admin, "deploy", version="2", timeout_ms="5000").status_code == 303
    admin.get("/dashboard/playground/greets")
    assert "goodbye Anna" in admin.post("/dashboard/playground/greets", {"text": "Anna"}).text
    page = admin.get("/dashboard/pipelines/greets").text
    assert "Go back to it" in page
    assert 'value="5000"' in page

    assert press(admin, "undeploy", confirm="nobody").status_code == 400
    assert press(admin, "remove", confirm="greets").status_code == 409
    assert "serving" in admin.get("/dashboard/pipelines/greets/state").text
    assert press(admin, "undeploy", confirm="greets").status_code == 303
    assert "stopped" in admin.get("/dashboard/pipelines/greets/state").text
    assert actions(house)[-6:] == [
        "pipeline.create",
        "pipeline.version",
        "pipeline.deploy",
        "pipeline.version",
        "pipeline.deploy",
        "pipeline.undeploy",
    ]


def test_a_deadline_that_cannot_be_is_said_at_its_field(admin: Browser, greets: str) -> None:
    answer = press(admin, "deploy", version="1", timeout_ms="0")
    assert answer.status_code == 422
    assert 'id="e-timeout_ms"' in answer.text
    answer = press(admin, "deploy", version="9")
    assert answer.status_code == 404
    assert "has no version 9" in answer.text


def test_who_may_only_look_sees_no_buttons(house: House, greets: str) -> None:
    async def add() -> None:
        async with house.platform.database.transaction() as session:
            hashed = await hashed_password(PASSWORD, "pipeline-watcher")
            await add_user(session, "pipeline-watcher", hashed, Role.VIEWER, Actor("test", "", ""))

    house.run(add)
    viewer = house.browser()
    viewer.sign_in("pipeline-watcher")
    page = viewer.get("/dashboard/pipelines/greets")
    assert page.status_code == 200
    assert "/deploy" not in page.text
    assert "+new" not in viewer.get("/dashboard/pipelines").text
    for path in ("greets/deploy", "greets/undeploy", "greets/remove", "greets/edit", "+new"):
        assert (
            viewer.post(f"/dashboard/pipelines/{path}", {"version": "1", "confirm": "greets"}).status_code == 403
        )
        viewer.get("/dashboard/account")


def actions(house: House) -> list[str]:
    async def read() -> list[str]:
        async with house.platform.database.session() as session:
            rows = await session.scalars(select(AuditEntry).order_by(AuditEntry.id))
            return [row.action for row in rows if row.action.startswith("pipeline.")]

    found: list[str] = house.run(read)
    return found


def test_a_run_shows_what_went_through_each_node(admin: Browser, greets: str) -> None:
    path = "/dashboard/pipelines/greets/run"
    assert admin.get(path).status_code == 404
    assert press(admin, "deploy", version="1").status_code == 303
    assert 'name="text"' in admin.get(path).text
    page = admin.post(path, {"text": "<i>you</i>"})
    assert page.status_code == 200, page.text
    for words in ("1 steps in", "<h3>said</h3>", "hello &lt;i&gt;you&lt;/i&gt;", "The answer as JSON"):
        assert words in page.text, words
    assert "<i>you" not in page.text
    admin.get(path)
    answer = admin.post(path, {"text": "you", "parameters": "{"})
    assert (answer.status_code, "not valid JSON" in answer.text) == (400, True)
    state = admin.get("/dashboard/pipelines/greets/state").text
    assert "Where the time goes: the last 1 runs" in state


def test_values_on_edges_are_told_by_what_they_are() -> None:
    pixels = np.zeros((40, 400, 3), np.uint8)
    picture = value_of("image", Decoded(pixels, 400, 40, 1.0), 1 << 24)
    assert picture.pictures[0].startswith("data:image/jpeg;base64,")
    many = value_of("items", [Decoded(pixels, 400, 40, 1.0)] * 9, 1 << 24)
    assert (len(many.pictures), many.more) == (MOST_PICTURES, "and 3 more")
    assert value_of("image", Payload(b"none", "image/png", "image"), 1 << 24).pictures == []
    assert value_of("x", np.arange(20, dtype=np.float32), 1).text.startswith("float32 20: 0, 1, 2")
    assert value_of("sound", Payload(b"abc", "audio/wav", "audio"), 1).text == "3.00\u202fB of audio/wav"
    assert value_of("items", [{"a": 1}], 1).more == "1 items"
