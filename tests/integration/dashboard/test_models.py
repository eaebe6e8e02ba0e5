"""The life of a model through its pages: upload, checks, deploy, canary, back, out of service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from core.access.passwords import hash_password
from core.control.deploying import find_model
from core.database.repositories.audit import Audit
from core.database.repositories.deployments import Deployments
from core.database.repositories.users import Users
from tests.acceptance import onnx_models
from tests.integration.dashboard.conftest import OURS, PASSWORD, TOKEN, Browser, House
from tests.servers import wait_until

NEW = "/dashboard/models/-/new"
UPLOAD = "/dashboard/models/-/upload"


def send(browser: Browser, path: str, file: bytes, *, headers: dict[str, str] | None = None, **fields: str) -> Any:
    """Send a form with a file as a browser does: the fields in the page's order, the file last."""
    found = TOKEN.search(browser.page)
    body = {"csrf": found[1] if found else "", **fields}
    answer = browser.client.post(
        path, data=body, files={"file": ("model.onnx", file)}, headers={**OURS, **(headers or {})}
    )
    browser.page = answer.text
    return answer


def settled(browser: Browser, path: str) -> str:
    """The page of a version once its checks have ended."""

    def look() -> str:
        text: str = browser.get(path).text
        return "" if 'hx-trigger="every 1s"' in text and "The checks are running" in text else text

    return wait_until("The checks' end", look)


def serving(browser: Browser, name: str, words: str) -> str:
    """The model's page once its heading says that it serves, with these words beside."""

    def look() -> str:
        text: str = browser.get(f"/dashboard/models/{name}").text
        heading = text[text.index("<h1>") : text.index("</h1>")]
        return text if ">serving</span>" in heading and words in unescape(heading) else ""

    return wait_until(f"{name} serving {words}", look)


def actions(house: House, subject: str) -> list[str]:
    """What the audit log has of a subject, oldest first."""

    async def look() -> list[str]:
        async with house.platform.database.session() as session:
            rows, _ = await Audit(session).page(1000)
        return [row.action for row in reversed(rows) if row.subject == subject]

    return house.run(look)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model(house: House) -> Iterator[str]:
    """A model with two valid versions, the first of them in service."""
    browser = house.browser()
    browser.sign_in()
    browser.get(NEW)
    answer = send(browser, UPLOAD, onnx_models.scale(2), name="pages", description="<b>Twice</b>", task="")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/models/pages/versions/1")
    settled(browser, "/dashboard/models/pages/versions/1")
    browser.get("/dashboard/models/pages/versions")
    assert send(browser, "/dashboard/models/pages/upload", onnx_models.scale(3)).status_code == 303
    settled(browser, "/dashboard/models/pages/versions/2")
    browser.get("/dashboard/models/pages/deployment")
    assert (
        browser.post("/dashboard/models/pages/deployment", {"version": "1", "instances": "1"}).status_code == 303
    )
    serving(browser, "pages", "v1")
    yield "pages"
    browser.get("/dashboard/models/pages/deployment")
    browser.post("/dashboard/models/pages/undeploy", {"confirm": "pages"})
    wait_until("its end", lambda: not house.platform.reconciler.memory())  # other tests look for what is in memory


def test_an_empty_list_teaches(admin: Browser) -> None:
    page = admin.get("/dashboard/models?q=nothing-is-called-so").text
    assert "No model fits these filters." in page or "Upload your first model" in page
    assert 'href="/dashboard/models/-/new"' in page


def test_the_report_is_readable_and_the_signature_shown(admin: Browser, model: str, house: House) -> None:
    page = admin.get(f"/dashboard/models/{model}/versions/1").text
    assert "checks passed. It can be deployed." in page
    assert page.count('class="checks-good"') >= 5
    assert "any × 4" in page
    assert "every 1s" not in page[page.index("<main") :]
    part = admin.get(f"/dashboard/models/{model}/versions/1", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert "checks passed" in part
    assert actions(house, "pages/1") == ["version.create"]


def test_the_list_says_how_each_model_is_and_filters(admin: Browser, model: str) -> None:
    page = admin.get("/dashboard/models").text
    row = page[page.index('<a href="/dashboard/models/pages">') :]
    row = row[: row.index("</tr>")]
    assert ">serving<" in row
    assert "v2" in row
    assert "&lt;b&gt;Twice&lt;/b&gt;" in row
    assert 'href="/dashboard/playground?target=pages"' in row
    assert 'href="/dashboard/models/pages/deployment?version=2"' in row
    for query, there in (
        ("?q=PAGES", True),
        ("?q=pages&state=serving&task=tensor", True),
        ("?state=failed", False),
        ("?state=not+deployed", False),
        ("?task=image-classification", False),
    ):
        assert ("/dashboard/models/pages" in admin.get(f"/dashboard/models{query}").text) is there, query
    part = admin.get("/dashboard/models?q=pages", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert "/dashboard/models?q=pages" in part


def test_the_first_tab_shows_figures_and_what_stands_in_the_way_of_batches(admin: Browser, model: str) -> None:
    page = admin.get(f"/dashboard/models/{model}").text
    for words in ("Requests", "Waiting", "Versions in memory", "Batch sizes"):
        assert words in page
    assert "&lt;b&gt;Twice&lt;/b&gt;" in page
    assert "<b>Twice</b>" not in page


def test_charts_are_told_what_was_put_into_service(admin: Browser, model: str) -> None:
    changes = admin.get(f"/dashboard/history/changes?span=day&model={model}").json()
    first = changes[-1]
    assert (first["model"], first["versions"], first["by"]) == ("pages", "v1", "admin")
    assert isinstance(first["at"], int)
    assert [one["at"] for one in changes] == sorted((one["at"] for one in changes), reverse=True)
    assert admin.get("/dashboard/history/changes?model=nothing").json() == []


def test_a_file_that_is_no_model_is_refused_with_what_to_do(admin: Browser) -> None:
    admin.get(NEW)
    answer = send(admin, UPLOAD, b"not a model", name="nonsense", description="<script>alert(1)</script>")
    assert answer.status_code == 415
    assert 'role="alert"' in answer.text
    assert 'value="nonsense"' in answer.text
    assert "<script>alert(1)" not in answer.text
    part = send(admin, UPLOAD, b"not a model", name="nonsense", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert "alert-danger" in part.text


@pytest.mark.parametrize("path", [UPLOAD, "/dashboard/models/pages/upload"])
def test_a_refused_upload_keeps_the_text_of_its_manifest(admin: Browser, model: str, path: str) -> None:
    admin.get(NEW if path == UPLOAD else "/dashboard/models/pages/versions")
    typed = "task: tensor\ndescription: <b>typed at length</b>"
    fields = {"name": "typed"} if path == UPLOAD else {}
    answer = send(admin, path, b"not a model", manifest=typed, **fields)
    assert answer.status_code == 415
    assert 'role="alert"' in answer.text
    form = answer.text[answer.text.index("data-upload") :]
    assert unescape(form[form.index("<textarea") : form.index("</textarea>")]).endswith(typed)
    assert "<b>typed" not in form
    part = send(admin, path, b"not a model", manifest=typed, **fields, headers={"HX-Request": "true"})
    assert "alert-danger" in part.text
    assert "<textarea" not in part.text


def test_a_version_that_fails_a_check_says_which(admin: Browser) -> None:
    admin.get(NEW)
    send(admin, UPLOAD, onnx_models.scale(2), name="unlabelled", task="image-classification")
    page = settled(admin, "/dashboard/models/unlabelled/versions/1")
    assert "It cannot be deployed" in page
    assert page.count('class="checks-bad"') == 1
    assert "Deploy version" not in page
    assert "there is none yet" in admin.get("/dashboard/models/unlabelled/deployment").text
    assert admin.post("/dashboard/models/unlabelled/deployment", {"version": "1"}).status_code == 422
    assert "is invalid; only a valid version can be deployed" in admin.page


@pytest.mark.parametrize("name", ["", "UPPER", "<script>", "../x", "a..b", "pages"])
def test_a_name_that_cannot_be_is_refused_before_the_file_is_kept(
    admin: Browser, house: House, model: str, name: str
) -> None:
    admin.get(NEW)
    answer = send(admin, UPLOAD, b"x" * 100_000, name=name)
    assert answer.status_code in (400, 409)
    assert 'id="e-name"' in answer.text
    assert "<script>" not in answer.text.replace('<script src="', "")
    assert not list(house.platform.settings.data_dir.glob("**/incoming/*"))


@pytest.mark.parametrize("path", [UPLOAD, "/dashboard/models/pages/upload"])
def test_a_form_with_a_file_needs_its_token_too(admin: Browser, model: str, path: str) -> None:
    for token in ("", "0" * 64):
        body = {"csrf": token, "task": "tensor"}
        answer = admin.client.post(path, data=body, files={"file": ("model.onnx", b"x")}, headers=OURS)
        assert answer.status_code == 403
        assert "nothing was done" in answer.text
    assert admin.client.post(path, data={"task": "tensor"}, headers=OURS).status_code == 403


def test_a_file_of_nobody_is_not_read(visitor: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: Any) -> None:
        raise AssertionError("read for somebody who is not signed in")

    monkeypatch.setattr("app.dashboard.signing_in.keep_form", read)
    answer = visitor.client.post(UPLOAD, data={"name": "x"}, files={"file": ("m", b"x")}, headers=OURS)
    assert answer.status_code == 401
    assert "Sign in" in answer.text


def test_a_script_is_told_where_to_go(admin: Browser) -> None:
    admin.get(NEW)
    answer = send(admin, UPLOAD, onnx_models.scale(2), headers={"HX-Request": "true"}, name="scripted")
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/dashboard/models/scripted/versions/1")


def test_a_canary_a_shadow_and_the_way_back(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}"
    assert f'href="{path}/deployment?version=2#beside"' in admin.get(f"{path}/versions/2").text
    beside = admin.get(f"{path}/deployment?version=2").text.split('id="beside"')[1]
    assert '<option value="2" selected>' in beside
    assert admin.post(f"{path}/beside", {"version": "2", "percent": "10", "mode": "live"}).status_code == 303
    page = serving(admin, model, "v1 90\N{NARROW NO-BREAK SPACE}% · v2 10")
    assert 'Roll back<span class="way-back">to v1</span>' in page
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/beside", {"version": "2", "percent": "0", "mode": "live"})
    serving(admin, model, "· v1</small>")
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/beside", {"version": "2", "mode": "shadow"})
    serving(admin, model, "v2 shadow")
    assert "Shadow v2" in admin.get(f"{path}/deployment").text
    admin.post(f"{path}/beside", {"version": "2", "percent": "100", "mode": "live"})
    serving(admin, model, "· v2</small>")
    assert admin.post(f"{path}/rollback").status_code == 303
    serving(admin, model, "v2 shadow")
    assert actions(house, model).count("deployment.put") >= 5
    assert actions(house, model)[-1] == "deployment.rollback"
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/deployment", {"version": "1", "instances": "1"})
    serving(admin, model, "· v1</small>")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": "1", "instances": "0"}, "greater than or equal to 1"),
        ({"version": "1", "instances": "1", "engine": "nonsense"}, "There is no engine"),
        ({"version": "9", "instances": "1"}, "has no version 9"),
        ({"version": "1", "instances": "1", "idle_unload_s": "60", "pinned": "true"}, "What is pinned stays"),
        ({"instances": "1"}, "version"),
    ],
)
def test_a_deployment_that_cannot_be_says_why(
    admin: Browser, model: str, fields: dict[str, str], said: str
) -> None:
    admin.get(f"/dashboard/models/{model}/deployment")
    answer = admin.post(f"/dashboard/models/{model}/deployment", fields)
    assert answer.status_code == 422
    assert said in answer.text


def desired(house: House, name: str) -> Any:
    """What is desired of a model, as the database has it."""

    async def spec() -> Any:
        async with house.platform.database.session() as session:
            row = await Deployments(session).get((await find_model(session, name)).id)
            assert row is not None
            return row.spec

    return house.run(spec)


def test_what_the_form_does_not_show_stays_as_it_is(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}"
    admin.get(f"{path}/samples")
    admin.post(f"{path}/samples/live", {"keep": "true", "rate_percent": "5", "max_count": "50"})
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/deployment", {"version": "1", "instances": "1", "max_batch": "4"})
    page = admin.get(f"{path}/deployment").text
    assert re.search(r'name="max_batch"[^>]* value="4"', page)
    assert desired(house, model)["sample_live"] == {"rate": 0.05, "max_count": 50}


def test_when_a_version_goes_back_by_itself_is_asked_for(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}"
    limits = {"window_s": "300", "error_percent": "2.5", "latency_ratio": "1.5", "min_requests": "50"}
    kept = {"window_s": 300.0, "max_error_rate": 0.025, "max_latency_ratio": 1.5, "min_requests": 50}
    fields = {"version": "1", "instances": "1"}
    page = admin.get(f"{path}/deployment").text
    assert page.count("<summary>Go back by itself</summary>") == 1
    for words in ('value="60"', 'value="5"', 'value="2"', 'value="20"'):  # the platform's own
        assert words in page[page.index("Go back by itself") :]
    admin.post(f"{path}/deployment", {**fields, "go_back": "true", **limits})
    assert desired(house, model)["watch"] == kept
    page = admin.get(f"{path}/deployment").text
    form = page[page.index(f'action="{path}/deployment"') :].split("</form>")[0]
    assert re.search(r'name="go_back" value="true" checked', form)
    for name, value in limits.items():
        assert re.search(rf'name="{name}"[^>]* value="{value}"', form), name
    assert "after more than 2.5\N{NARROW NO-BREAK SPACE}% errors or 1.5 times the time" in unescape(page)
    # The same limits stand beside a canary, and are changed there; without the tick nothing goes back.
    admin.post(f"{path}/beside", {"version": "2", "percent": "5", "go_back": "true", **limits, "window_s": ""})
    assert desired(house, model)["watch"] == {**kept, "window_s": 60.0}
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/beside", {"version": "2", "percent": "6", **limits})
    assert desired(house, model)["watch"] is None
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/deployment", {**fields, "go_back": "true"})
    assert desired(house, model)["watch"]["max_error_rate"] == 0.05
    admin.get(f"{path}/deployment")
    admin.post(f"{path}/deployment", fields)
    assert desired(house, model)["watch"] is None


@pytest.mark.parametrize("form", ["deployment", "beside"])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("window_s", "0", "greater than or equal to 1"),
        ("error_percent", "100", "less than 100"),
        ("latency_ratio", "1", "greater than 1"),
        ("min_requests", "many", "valid integer"),
    ],
)
def test_a_wrong_limit_is_told_at_its_field(
    admin: Browser, model: str, house: House, form: str, name: str, value: str, said: str
) -> None:
    before = desired(house, model)
    admin.get(f"/dashboard/models/{model}/deployment")
    fields = {"version": "2", "instances": "1", "percent": "5", "go_back": "true", name: value}
    fields = {key: one for key, one in fields.items() if key != ("instances" if form == "beside" else "percent")}
    answer = admin.post(f"/dashboard/models/{model}/{form}", fields)
    assert answer.status_code == 422
    prefix = "beside-" if form == "beside" else ""
    found = re.search(rf'<p class="invalid-feedback" id="e-{prefix}{name}">([^<]*)</p>', answer.text)
    assert found is not None
    assert said in found[1]
    assert re.search(rf'aria-invalid="true" aria-describedby="e-{prefix}{name} h-{prefix}{name}"', answer.text)
    folds = [one.split("<summary>")[0] for one in answer.text.split("<details")[1:] if f'id="e-{prefix}' in one]
    assert folds == [" open>"], "a mistake in a fold that is shut is not seen"
    assert desired(house, model) == before


def test_two_forms_of_a_page_share_no_id(admin: Browser, model: str) -> None:
    page = admin.get(f"/dashboard/models/{model}/deployment").text
    ids = re.findall(r' id="([^"]+)"', page)
    assert sorted(set(ids)) == sorted(ids)


def test_live_inputs_are_kept_where_it_is_asked_for(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}/samples"
    admin.get(f"{path}")
    admin.post(f"{path}/live", {"rate_percent": "1"})
    page = admin.get(path).text
    assert 'name="keep" value="true" checked' not in page
    assert re.search(r'name="rate_percent"[^>]* value="1"', page)
    assert re.search(r'name="max_count"[^>]* value="200"', page)
    answer = admin.post(f"{path}/live", {"keep": "true", "rate_percent": "0.5", "max_count": "30"})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert desired(house, model)["sample_live"] == {"rate": 0.005, "max_count": 30}
    page = admin.get(path).text
    assert 'name="keep" value="true" checked' in page
    assert re.search(r'name="rate_percent"[^>]* value="0.5"', page)
    for name, value in (("rate_percent", "0"), ("rate_percent", "101"), ("max_count", "0")):
        answer = admin.post(f"{path}/live", {"keep": "true", name: value})
        assert (answer.status_code, f'id="e-{name}"' in answer.text) == (422, True), (name, value)
    assert desired(house, model)["sample_live"] == {"rate": 0.005, "max_count": 30}
    admin.get(path)
    admin.post(f"{path}/live", {"rate_percent": "0.5", "max_count": "30"})
    assert desired(house, model)["sample_live"] is None
    assert actions(house, model)[-1] == "deployment.put"


def test_leaving_service_asks_for_the_name(admin: Browser, model: str) -> None:
    admin.get(f"/dashboard/models/{model}/deployment")
    answer = admin.post(f"/dashboard/models/{model}/undeploy", {"confirm": "page"})
    assert answer.status_code == 400
    assert "nothing was done" in answer.text


def test_a_viewer_reads_and_changes_nothing(house: House, model: str) -> None:
    async def add() -> None:
        async with house.platform.database.transaction() as session:
            await Users(session).add("onlooker", await hash_password(PASSWORD), "viewer")

    house.run(add)
    viewer = house.browser()
    viewer.sign_in("onlooker")
    for tab in ("", "/versions", "/versions/1", "/deployment"):
        page = viewer.get(f"/dashboard/models/{model}{tab}").text
        main = page[page.index("<main") :]
        assert 'method="post"' not in main, tab
        assert 'class="btn btn-primary"' not in main, tab
    assert viewer.get(NEW).status_code == 403
    viewer.get("/dashboard/account")
    for path in ("deployment", "rollback", "undeploy", "beside", "upload", "versions/1/check", "samples/live"):
        assert viewer.post(f"/dashboard/models/{model}/{path}", {"version": "2"}).status_code == 403, path
