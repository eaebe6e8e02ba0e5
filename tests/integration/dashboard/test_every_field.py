"""Whatever the internal API can be told in a body, a page asks for too, or it stands here why not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from typing import Any, Final

import pytest

from core.control.deploying import find_version
from core.database.repositories.optimisations import Optimisations
from core.database.repositories.tokens import Tokens
from core.database.repositories.users import Users
from tests.acceptance import onnx_models
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_models import NEW, UPLOAD, send, serving, settled

MODEL: Final = "fields"
PIPELINE: Final = "fields-chain"
_AT: Final = f"/dashboard/models/{MODEL}"
_ACCOUNT: Final = "/dashboard/account"
_CHAIN: Final = """\
inputs: {name: text}
nodes: {said: {op: text, inputs: {name: name}, template: "hello {name}"}}
outputs: {text: said}
"""
_OWN_API: Final = "a browser's session is a cookie, and ends and is renewed by itself"


@dataclass(frozen=True)
class Asked:
    """Where a body's fields are asked for: pages, and the name there of each field that has another."""

    pages: tuple[str, ...] = ()
    action: str = ""
    """What the form's address ends with; several forms of a page may end alike."""
    named: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Fields that no page asks for, each with the reason."""


_MADE: Final = "it is made at random and shown once, so that nobody chooses a weak one for somebody else"
FORMS: Final[Mapping[str, Asked]] = {
    "POST /auth/login": Asked(("/login",), "/login", {"username": "name"}),
    "POST /auth/second-factor": Asked(left_out={"code": "asked for after the password, where there is a factor"}),
    "POST /auth/refresh": Asked(left_out={"refresh_token": _OWN_API}),
    "POST /auth/password": Asked((f"{_ACCOUNT}/password",), "/account/password"),
    "POST /auth/totp": Asked((f"{_ACCOUNT}/second-factor",), "/begin"),
    "POST /auth/totp/confirm": Asked(left_out={"code": "asked for beside the QR code, once that is made"}),
    "POST /auth/totp/recovery-codes": Asked(left_out={"code": "asked for where a second factor is on"}),
    "POST /auth/totp/disable": Asked(left_out={"code": "asked for where a second factor is on"}),
    "POST /users": Asked(
        ("/dashboard/access/users",),
        "/users",
        left_out={"password": _MADE, "must_change_password": "always: the password was seen by who made it"},
    ),
    "PATCH /users/{user_id}": Asked(("/dashboard/access/users/1",), "/change", left_out={"password": _MADE}),
    "POST /models": Asked((NEW,), "/upload"),
    "POST /models/{name}/versions": Asked(
        (f"{_AT}/versions",), "/upload", left_out={"task": "the model's own, or the package's"}
    ),
    "POST /models/activate": Asked(
        left_out={
            "model": "a button on the model's settings, which takes the default away again too",
            "modality": "the model's own",
        }
    ),
    "PATCH /models/{name}": Asked((f"{_AT}/settings",), "/settings"),
    "POST /imports": Asked(("/dashboard/models/-/imports",), "/imports"),
    "PUT /models/{name}/deployment": Asked(
        (f"{_AT}/deployment", f"{_AT}/samples"),
        "",
        {
            "watch.window_s": "window_s",
            "watch.max_error_rate": "error_percent",
            "watch.max_latency_ratio": "latency_ratio",
            "watch.min_requests": "min_requests",
            "sample_live.rate": "rate_percent",
            "sample_live.max_count": "max_count",
            "traffic": "percent",  # of one version at a time; the others share the rest
        },
    ),
    "POST /models/{name}/samples": Asked(
        (f"{_AT}/samples",), "/upload", left_out={"labels": "a labels.csv lies in the zip that is dropped"}
    ),
    "POST /models/{name}/versions/{number}/optimise": Asked(
        (f"{_AT}/optimiser",), "/optimise", {"max_accuracy_loss": "loss_percent"}
    ),
    "PUT /models/{name}/versions/{number}/recommendation": Asked(
        left_out={"search": "the newest, which the page shows, has the buttons Apply and Undo"}
    ),
    "PUT /pipelines/{name}/deployment": Asked((f"/dashboard/pipelines/{PIPELINE}",), "/deploy"),
    "POST /tenants": Asked(
        ("/dashboard/access/tenants/new",),
        "/new",
        left_out={"disabled": "a new one has no tokens; Pause comes later"},
    ),
    "PATCH /tenants/{tenant_id}": Asked(("/dashboard/access/tenants/1",), ""),
    "PUT /sharing/{name}": Asked((f"{_AT}/settings",), f"/sharing/{MODEL}"),
    "POST /tokens": Asked(("/dashboard/access/tokens/new",), "/new", {"expires_at": "ends_on"}),
    "PATCH /tokens/{token_id}": Asked(
        ("/dashboard/access/tokens/1/change",), "/change", {"expires_at": "ends_on"}
    ),
    "POST /tokens/{token_id}/rotate": Asked(("/dashboard/access/tokens/1",), "/rotate"),
    "POST /access-rules": Asked(
        ("/dashboard/access/addresses",), "/addresses", left_out={"force": "asked for once a rule would lock out"}
    ),
    "POST /keys/rotate": Asked(("/dashboard/access/keys",), "/rotate"),
}


@pytest.fixture(scope="module")
def filled(house: House) -> Iterator[Browser]:
    """A house with one of each: a model whose second version may stand beside the first, a pipeline, a token."""
    browser = house.browser()
    browser.sign_in()
    browser.get(NEW)
    assert send(browser, UPLOAD, onnx_models.scale(2), name=MODEL).status_code == 303
    settled(browser, f"{_AT}/versions/1")
    browser.get(f"{_AT}/versions")
    assert send(browser, f"{_AT}/upload", onnx_models.scale(3)).status_code == 303
    settled(browser, f"{_AT}/versions/2")
    browser.get(f"{_AT}/deployment")
    assert browser.post(f"{_AT}/deployment", {"version": "1"}).status_code == 303
    serving(browser, MODEL, "v1")
    browser.get("/dashboard/pipelines/+new")
    fields = {"name": PIPELINE, "definition": _CHAIN, "action": "save"}
    assert browser.post("/dashboard/pipelines/+new", fields).status_code == 303
    browser.get("/dashboard/access/tokens/new")
    assert browser.post("/dashboard/access/tokens/new", {"name": "of fields"}).status_code == 200
    yield browser
    browser.get(f"{_AT}/deployment")
    browser.post(f"{_AT}/undeploy", {"confirm": MODEL})
    browser.get(f"/dashboard/pipelines/{PIPELINE}")
    browser.post(f"/dashboard/pipelines/{PIPELINE}/remove", {"confirm": PIPELINE})


@pytest.fixture(scope="module")
def bodies(house: House) -> dict[str, set[str]]:
    """The fields of every body that the internal API takes, those within others by a dot."""
    document = house.browser().get("/docs/internal/openapi.json").json()
    known = document["components"]["schemas"]
    found = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                fields = set(_fields(content["schema"], known))
                if fields:
                    found[f"{method.upper()} {path}"] = fields
    return found


def _fields(schema: Mapping[str, Any], known: Mapping[str, Any], before: str = "") -> Iterator[str]:
    schema = _resolved(schema, known)
    for name, one in schema.get("properties", {}).items():
        inner = _resolved(one, known)
        if "properties" in inner:
            yield from _fields(inner, known, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _resolved(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    for one in (schema, *schema.get("anyOf", ())):
        if "$ref" in one:
            found: Mapping[str, Any] = known[one["$ref"].rsplit("/", 1)[1]]
            return found
    return schema


def test_every_body_of_the_api_is_spoken_of(bodies: dict[str, set[str]]) -> None:
    assert bodies.keys() == FORMS.keys()


@pytest.mark.parametrize("call", FORMS)
def test_every_field_of_the_api_is_asked_for_by_a_page(
    house: House, filled: Browser, bodies: dict[str, set[str]], call: str
) -> None:
    asked = FORMS[call]
    shown: set[str] = set()
    for page in asked.pages:
        client = filled if page != "/login" else house.browser()
        text = unescape(client.get(page).text)
        for form in re.findall(r"<form\b.*?</form>", text, re.DOTALL):
            action = re.search(r'<form\b[^>]*\baction="([^"]*)"', form)
            if action is not None and action[1].endswith(asked.action):
                shown.update(re.findall(r'\bname="([^"]+)"', form))
    fields = bodies[call]
    missing = {one for one in fields if asked.named.get(one, one) not in shown}
    assert missing == set(asked.left_out)
    assert asked.named.keys() <= fields, "a name for a field that is no more"


def test_a_token_ends_with_the_day_that_was_chosen(filled: Browser, house: House) -> None:
    path = "/dashboard/access/tokens/new"
    filled.get(path)
    fields = {"name": "until a day", "days": "30", "ends_on": "2099-02-28"}
    assert filled.post(path, fields).status_code == 200

    async def look() -> Any:
        async with house.platform.database.session() as session:
            rows, _ = await Tokens(session).page(1)
            return rows[0].expires_at

    assert house.run(look) == datetime(2099, 3, 1, tzinfo=UTC)
    filled.get(path)
    for day in ("2001-01-01", "9999-12-31", "soon"):
        answer = filled.post(path, {**fields, "ends_on": day})
        assert (answer.status_code, 'id="e-ends_on"' in answer.text) == (422, True), day


def test_a_bare_file_is_told_its_manifest(filled: Browser) -> None:
    filled.get(NEW)
    said = "task: image-classification\nlabels: [cat, dog]\n"
    answer = send(filled, UPLOAD, onnx_models.scale(2), name="told", manifest="task: [", task="")
    assert answer.status_code == 422, answer.text
    assert "task: [" in unescape(answer.text)
    filled.get(NEW)
    send(filled, UPLOAD, onnx_models.scale(2), name="told", manifest=said, task="")
    assert "image-classification" in filled.get("/dashboard/models/told").text


def test_a_search_is_held_to_engines_and_precisions(filled: Browser, house: House) -> None:
    path = f"{_AT}/versions/1/optimise"
    filled.get(f"{_AT}/optimiser")
    fields = {"objective": "latency", "budget_s": "5", "loss_percent": "1", "engines": "onnx"}
    answer = filled.post(path, {**fields, "precisions": ["fp32", "fp4"]})
    assert (answer.status_code, 'id="e-precisions"' in answer.text) == (422, True)
    assert re.search(r'name="engines" value="onnx" checked', answer.text)
    assert filled.post(path, {**fields, "precisions": ["fp32", "int8"]}).status_code == 303

    async def look() -> Any:
        async with house.platform.database.session() as session:
            version = await find_version(session, MODEL, 1)
            row = await Optimisations(session).latest(version.id)
            assert row is not None
            return row.wanted["engines"], row.wanted["precisions"]

    assert house.run(look) == (["onnx"], ["fp32", "int8"])
    filled.get(f"{_AT}/optimiser")
    filled.post(f"{_AT}/versions/1/cancel")


def test_another_password_is_asked_for_at_the_next_sign_in(filled: Browser, house: House) -> None:
    async def add() -> int:
        async with house.platform.database.transaction() as session:
            return (await Users(session).add("careless", "x", "viewer")).id

    path = f"/dashboard/access/users/{house.run(add)}"
    filled.get(path)
    assert filled.post(f"{path}/change", {"must_change_password": "true"}).status_code == 303
    assert "Let the password stay" in filled.get(path).text
    filled.post(f"{path}/change", {"must_change_password": "false"})
    assert "Ask for another password" in filled.get(path).text
