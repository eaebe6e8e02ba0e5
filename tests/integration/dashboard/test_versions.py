"""Versions put away, taken back and removed; tags; and the way back from a deployment that failed."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from html import unescape
from typing import Any

import pytest

from core.database.repositories import Deployments, Models, Versions
from core.database.repositories.derived import DerivedArtifacts
from core.database.tables import Optimisation, utc_now
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_models import actions
from tests.servers import PASSWORD, wait_until


def add_model(house: House, name: str, versions: int, status: str = "valid") -> None:
    """A model with versions whose files are nowhere: they can be looked at, and fail where they are deployed.

    What is `validating` is held for an hour: the house takes over what nobody holds.
    """
    held = utc_now() + timedelta(hours=1) if status == "validating" else None

    async def add() -> None:
        async with house.platform.database.transaction() as session:
            model = await Models(session).add(name, "tensor")
            for number in range(1, versions + 1):
                sha256 = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
                row = await Versions(session).add_next(
                    model.id, format="onnx", size_bytes=7, sha256=sha256, manifest={}, claimed_until=held
                )
                if held is None:
                    await Versions(session).finish(row.id, status, report=[])

    house.run(add)


def put(house: House, name: str, number: int, *, running: bool = True) -> None:
    """Desire a version as its row says it, without waking anybody."""
    spec: dict[str, Any] = {"traffic": [{"version": number, "weight": 1.0, "mode": "live"}], "engine": "onnx"}

    async def desire() -> None:
        async with house.platform.database.transaction() as session:
            model = await Models(session).by_name(name)
            assert model is not None
            await Deployments(session).put(model.id, spec)
            if not running:
                await Deployments(session).undeploy(model.id)

    house.run(desire)


def test_a_version_is_archived_restored_and_removed(house: House, admin: Browser) -> None:
    add_model(house, "attic", 2)
    path = "/dashboard/models/attic/versions/2"
    page = admin.get(path).text
    assert "Archive" in page
    assert admin.post(f"{path}/archive").headers["location"] == path
    page = admin.get(path).text
    assert ">archived</span>" in page
    for gone in ("Deploy version 2", "Check again", "Optimise…"):
        assert gone not in page, gone
    for refused, words in (("check", "restore it first"), ("archive", "only one that is valid")):
        answer = admin.post(f"{path}/{refused}")
        assert (answer.status_code, words in answer.text) == (409, True)
        admin.get(path)
    assert admin.post(f"{path}/restore").status_code == 303
    assert "Deploy version 2" in admin.get(path).text

    assert admin.post(f"{path}/delete", {"confirm": "attic"}).status_code == 400
    admin.get(path)
    answer = admin.post(f"{path}/delete", {"confirm": "attic v2"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/models/attic/versions")
    assert admin.get(path).status_code == 404
    assert "attic v2" not in admin.get("/dashboard/models/attic/versions").text
    assert actions(house, "attic/2") == ["version.archive", "version.restore", "version.delete"]


def test_the_api_does_the_same(house: House, admin: Browser) -> None:
    add_model(house, "attic-api", 1)
    sent = {"username": "admin", "password": PASSWORD}
    token = admin.client.post("/api/v1/internal/auth/login", json=sent).json()["token"]
    asked = {"headers": {"X-Auth-Token": token}}
    path = "/api/v1/internal/models/attic-api"
    answer = admin.client.post(f"{path}/versions/1/archive", **asked)
    assert (answer.status_code, answer.json()["status"]) == (200, "archived")
    assert admin.client.post(f"{path}/versions/1/archive", **asked).status_code == 409
    assert admin.client.post(f"{path}/versions/1/restore", **asked).json()["status"] == "valid"
    answer = admin.client.patch(path, json={"tags": ["pilot", "a", "pilot"]}, **asked)
    assert answer.json()["tags"] == ["a", "pilot"]
    assert admin.client.patch(path, json={"tags": ["No"]}, **asked).status_code == 422
    found = admin.client.get("/api/v1/internal/models?tag=pilot", **asked).json()["items"]
    assert [(one["name"], one["tags"]) for one in found] == [("attic-api", ["a", "pilot"])]
    assert admin.client.delete(f"{path}/versions/1", **asked).status_code == 204
    assert admin.client.delete(f"{path}/versions/1", **asked).status_code == 404


def test_what_is_in_service_checked_or_searched_stays(house: House, admin: Browser) -> None:
    add_model(house, "busy-attic", 2)
    add_model(house, "checked-attic", 1, status="validating")
    put(house, "busy-attic", 1)
    page = admin.get("/dashboard/models/busy-attic/versions/1").text
    assert "/archive" not in page
    assert "Remove this version" not in page
    for act, said in (("archive", {}), ("delete", {"confirm": "busy-attic v1"})):
        answer = admin.post(f"/dashboard/models/busy-attic/versions/1/{act}", said)
        assert (answer.status_code, "is in service; deploy another first" in answer.text) == (409, True)
        admin.get("/dashboard/account")

    async def search() -> None:
        async with house.platform.database.transaction() as session:
            model = await Models(session).by_name("busy-attic")
            assert model is not None
            version = await Versions(session).get(model.id, 2)
            assert version is not None
            held = utc_now() + timedelta(hours=1)  # a search that nobody runs is ended by the house
            session.add(Optimisation(version_id=version.id, status="running", wanted={}, claimed_until=held))

    house.run(search)
    for name, number, words in (("busy-attic", 2, "is under way"), ("checked-attic", 1, "is being checked")):
        answer = admin.post(f"/dashboard/models/{name}/versions/{number}/delete", {"confirm": f"{name} v{number}"})
        assert (answer.status_code, words in answer.text) == (409, True), name
        admin.get("/dashboard/account")


def test_converted_forms_go_with_their_version(house: House, admin: Browser) -> None:
    add_model(house, "formed", 1)

    async def convert() -> None:
        async with house.platform.database.transaction() as session:
            model = await Models(session).by_name("formed")
            assert model is not None
            version = await Versions(session).get(model.id, 1)
            assert version is not None
            await DerivedArtifacts(session).put(
                version.id,
                "k" * 64,
                conversion="int8",
                sha256="f" * 64,
                model="m.onnx",
                format="onnx",
                size_bytes=1,
                recipe={},
            )

    house.run(convert)
    path = "/dashboard/models/formed/versions/1"
    assert "its 1 converted forms" in admin.get(path).text
    assert admin.post(f"{path}/delete", {"confirm": "formed v1"}).status_code == 303

    async def left() -> bool:
        async with house.platform.database.session() as session:
            return await Versions(session).sha256_in_use("f" * 64)

    assert not house.run(left)


def test_a_rollback_passes_over_what_is_put_away(house: House, admin: Browser) -> None:
    add_model(house, "stepped", 3)
    for number in (1, 2, 3):
        put(house, "stepped", number)

    async def before() -> int | None:
        async with house.platform.database.session() as session:
            model = await Models(session).by_name("stepped")
            assert model is not None
            found = await Deployments(session).previous(model.id)
            return None if found is None else int(found.spec["traffic"][0]["version"])

    assert house.run(before) == 2
    admin.get("/dashboard/models/stepped/versions/2")
    admin.post("/dashboard/models/stepped/versions/2/archive")
    assert house.run(before) == 1
    admin.get("/dashboard/models/stepped/versions/1")
    admin.post("/dashboard/models/stepped/versions/1/delete", {"confirm": "stepped v1"})
    assert house.run(before) is None


def test_models_are_found_by_their_tags(house: House, admin: Browser) -> None:
    add_model(house, "tagged", 0)
    path = "/dashboard/models/tagged/settings"
    admin.get(path)
    said = {"description": "kept", "tags": "Team Red"}
    answer = admin.post(path, said)
    assert (answer.status_code, "is none; a tag has" in unescape(answer.text)) == (422, True)
    assert 'value="Team Red"' in answer.text
    admin.get(path)
    assert admin.post(path, {**said, "tags": "team/red, pilot"}).status_code == 303
    assert 'value="pilot, team/red"' in admin.get(path).text
    page = admin.get("/dashboard/models?tag=pilot").text
    assert 'href="/dashboard/models/tagged"' in page
    assert 'href="/dashboard/models/attic"' not in page
    assert '<a class="tag" href="/dashboard/models?tag=team/red">team/red</a>' in page
    assert "No model fits" in admin.get("/dashboard/models?tag=nothing").text
    admin.get(path)
    assert admin.post(path, {"description": "kept"}).status_code == 303
    assert 'value="pilot' not in admin.get(path).text


@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_a_failed_deployment_offers_the_way_back(house: House, admin: Browser, role: str) -> None:
    name = f"fallen-{role}"
    add_model(house, name, 2)

    put(house, name, 1)
    put(house, name, 2)
    house.platform.reconciler.wake()  # the files are nowhere, so it fails by itself
    browser = admin
    if role == "viewer":
        from tests.integration.dashboard.test_second_factor import somebody

        browser = somebody(house, "bystander")
    pages: list[str] = []

    def shows_it() -> bool:
        pages.append(browser.get("/dashboard/").text)
        return f'/dashboard/models/{name}"' in pages[-1] and "Before it, v1 ran." in pages[-1]

    wait_until("its failure", shows_it)
    offered = f'action="/dashboard/models/{name}/rollback"' in pages[-1]
    assert offered == (role == "admin")
    if offered:
        assert browser.post(f"/dashboard/models/{name}/rollback").status_code == 303
        assert actions(house, name) == ["deployment.rollback"]
    house.platform.reconciler.wake()
    wait_until("an end of it", lambda: name in browser.get("/dashboard/overview/parts").text)
