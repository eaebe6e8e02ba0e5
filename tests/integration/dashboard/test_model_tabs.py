"""The tabs of a model that need no engine: optimiser, samples, settings; and what hostile words do there."""

from __future__ import annotations

from typing import Any

import pytest

from core.control.deploying import find_model
from core.database.repositories import Models, Versions
from core.database.repositories.samples import Samples
from core.database.tables import Optimisation, Version, utc_now
from core.optimiser.machine import fingerprint
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_models import actions, send

HOSTILE = '"><img src=x><b>&amp;'
_SPEC = {"dtype": "FP32", "shape": [-1, 4]}


def trial(number: int, precision: str, status: str, **more: Any) -> dict[str, Any]:
    """A trial as a search writes it down."""
    candidate = {
        "engine": "onnx",
        "conversion": "",
        "precision": precision,
        "device": "cpu",
        "extra": {},
        "threads": 1,
        "slots": 1,
        "batch": 1,
    }
    figures = {
        "p50_ms": 10.0 / number,
        "p99_ms": 20.0 / number,
        "throughput_per_s": 100.0 * number,
        "memory_bytes": 1 << 20,
        "load_s": 0.1,
    }
    return {
        "number": number,
        "label": f"onnx {precision}",
        "candidate": candidate,
        "status": status,
        "figures": figures,
        "speedup": float(number),
        "loss": 0.0,
        **more,
    }


TRIALS = [
    trial(1, "fp32", "ok", reference=True),
    trial(2, "bf16", "ok"),
    trial(3, "int8", "rejected", reason=HOSTILE),
    trial(4, "fp32", "failed", figures=None, reason="it did not load"),
]
RECOMMENDATION = {
    "trial": 2,
    "gain": 2.0,
    "reasons": [HOSTILE],
    "pareto": [2],
    "noise": 0.01,
    "unfinished": False,
    "samples": {},
    "use": {},
}


@pytest.fixture(scope="module")
def model(house: House) -> str:
    """A model with a valid version whose search has ended, and whose words are hostile where they can be."""
    signature = {"inputs": [{"name": HOSTILE, **_SPEC}], "outputs": [{"name": "y", **_SPEC}]}

    async def fill() -> Version:
        async with house.platform.database.transaction() as session:
            model = await Models(session).add("tabs", "tensor", description=HOSTILE, created_by=HOSTILE)
            version = await Versions(session).add_next(
                model.id, format="onnx", size_bytes=1, sha256="7" * 64, manifest={}, created_by=HOSTILE
            )
            report = [{"check": HOSTILE, "ok": True, "detail": HOSTILE, "ms": 1.0}]
            await Versions(session).finish(version.id, "valid", report=report, signature=signature)
            session.add(
                Optimisation(
                    version_id=version.id,
                    status="done",
                    wanted={"objective": "latency"},
                    trials=TRIALS,
                    recommendation=RECOMMENDATION,
                    machine=dict(fingerprint()),
                    follow=False,
                    ended_at=utc_now(),
                )
            )
        return version

    house.run(fill)
    return "tabs"


def test_trials_are_a_plot_without_scripts(admin: Browser, model: str) -> None:
    page = admin.get(f"/dashboard/models/{model}/optimiser").text
    assert page.count('<circle class="dot dot-') == 3 + 2  # and two in the legend
    assert page.count("dot-hollow") == 1 + 2
    assert 'class="dot dot-int8 dot-hollow"' in page
    assert 'class="dot dot-bf16 dot-best"' in page
    assert "2.00 times better in latency" in page
    part = admin.get(f"/dashboard/models/{model}/optimiser?version=1", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert "hx-trigger" not in part


def test_a_recommendation_is_applied_and_undone(admin: Browser, model: str, house: House) -> None:
    page = admin.get(f"/dashboard/models/{model}/optimiser").text
    apply = page[page.index(f"/dashboard/models/{model}/versions/1/apply/") :]
    answer = admin.post(apply[: apply.index('"')])
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/models/tabs/optimiser?version=1")
    page = admin.get(f"/dashboard/models/{model}/optimiser").text
    assert "follows search" in page
    assert "/apply/" not in page
    assert admin.post(f"/dashboard/models/{model}/versions/1/undo").status_code == 303
    assert "/apply/" in admin.get(f"/dashboard/models/{model}/optimiser").text
    assert actions(house, "tabs/1")[-2:] == ["version.follow", "version.unfollow"]


def test_a_version_that_stays_as_it_was_has_nothing_to_apply(admin: Browser, house: House) -> None:
    stays = {**RECOMMENDATION, "trial": 1, "gain": 1.0}
    ended = {
        "status": "done",
        "wanted": {},
        "trials": TRIALS,
        "machine": dict(fingerprint()),
        "ended_at": utc_now(),
    }

    async def fill(*searches: tuple[dict[str, Any], bool]) -> None:
        async with house.platform.database.transaction() as session:
            model = await Models(session).by_name("stays") or await Models(session).add("stays", "tensor")
            version = await Versions(session).get(model.id, 1)
            if version is None:
                version = await Versions(session).add_next(
                    model.id, format="onnx", size_bytes=1, sha256="8" * 64, manifest={}
                )
                await Versions(session).finish(
                    version.id, "valid", report=[], signature={"inputs": [], "outputs": []}
                )
            for recommendation, follow in searches:
                session.add(
                    Optimisation(version_id=version.id, recommendation=recommendation, follow=follow, **ended)
                )

    path = "/dashboard/models/stays/optimiser"
    for follow in (False, True):
        house.run(lambda follow=follow: fill((stays, follow)))
        page = admin.get(path).text
        assert "There is nothing to apply: with the engine auto it runs like this already." in page
        assert "/apply/" not in page
        assert "/undo" not in page
    house.run(lambda: fill((RECOMMENDATION, True), (stays, False)))
    page = admin.get(path).text
    assert "/apply/" not in page
    assert "nothing to apply" not in page
    assert "An earlier search is followed" in page
    assert "/undo" in page


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "beauty", "budget_s": "60", "loss_percent": "1"}, "objective"),
        ({"objective": "latency", "budget_s": "1", "loss_percent": "1"}, "greater than or equal to 5"),
        ({"objective": "latency", "budget_s": "60", "loss_percent": "101"}, "less than or equal to 100"),
    ],
)
def test_a_search_that_cannot_be_says_why(admin: Browser, model: str, fields: dict[str, str], said: str) -> None:
    admin.get(f"/dashboard/models/{model}/optimiser")
    answer = admin.post(f"/dashboard/models/{model}/versions/1/optimise", fields)
    assert answer.status_code == 422
    assert said in answer.text or 'role="alert"' in answer.text


@pytest.mark.parametrize(
    "tab", ["", "/versions", "/versions/1", "/deployment", "/optimiser", "/samples", "/settings"]
)
def test_words_of_others_are_only_words(admin: Browser, model: str, tab: str) -> None:
    answer = admin.get(f"/dashboard/models/{model}{tab}")
    assert answer.status_code == 200
    assert "<img src=x" not in answer.text
    assert "<b>&amp;" not in answer.text


def test_samples_come_and_go(admin: Browser, model: str, house: House) -> None:
    admin.get(f"/dashboard/models/{model}/samples")
    path = f"/dashboard/models/{model}/samples/upload"
    assert send(admin, path, b'{"inputs": {"x": [1, 2, 3, 4]}}', label=HOSTILE).status_code in (303, 415)
    page = admin.get(f"/dashboard/models/{model}/samples").text
    assert "<img src=x" not in page
    assert admin.post(f"/dashboard/models/{model}/samples/clear", {"confirm": "x"}).status_code == 400
    admin.get(f"/dashboard/models/{model}/samples")
    assert admin.post(f"/dashboard/models/{model}/samples/clear", {"confirm": model}).status_code == 303


def test_a_description_is_changed_and_noted(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}/settings"
    admin.get(path)
    assert admin.post(path, {"description": "New words"}).status_code == 303
    assert "New words" in admin.get(path).text
    assert actions(house, model)[-1] == "model.update"
    answer = admin.post(path, {"description": "x" * 5000})
    assert answer.status_code == 422
    admin.get(path)
    admin.post(path, {"description": HOSTILE})


def test_a_model_is_removed_by_its_name(admin: Browser, house: House) -> None:
    async def fill() -> None:
        async with house.platform.database.transaction() as session:
            await Models(session).add("going", "tensor")

    house.run(fill)
    admin.get("/dashboard/models/going/settings")
    assert admin.post("/dashboard/models/going/delete", {"confirm": "gone"}).status_code == 400
    admin.get("/dashboard/models/going/settings")
    answer = admin.post("/dashboard/models/going/delete", {"confirm": "going"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/models")
    assert admin.get("/dashboard/models/going").status_code == 404
    assert actions(house, "going") == ["model.delete"]


def test_the_rest_of_a_deployment_is_asked_for_too(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}/deployment"
    page = admin.get(path).text
    for name in ("device", "max_instances", "queue_size", "max_tokens", "cache"):
        assert f'name="{name}"' in page, name
    answer = admin.post(path, {"version": "1", "device": "nowhere!", "instances": "1"})
    assert (answer.status_code, "<details open>" in answer.text) == (422, True)


def test_live_inputs_are_kept_of_a_model_in_service_only(admin: Browser, model: str, house: House) -> None:
    path = f"/dashboard/models/{model}/samples"
    page = admin.get(path).text
    assert "Live inputs can be kept once the model is in service." in page
    assert 'name="keep"' not in page
    answer = admin.post(f"{path}/live", {"keep": "true"})
    assert answer.status_code == 409
    assert "not in service" in answer.text


def test_samples_of_live_calls_go_without_the_others(admin: Browser, model: str, house: House) -> None:
    async def fill() -> None:
        async with house.platform.database.transaction() as session:
            row = await find_model(session, model)
            for number, kind in enumerate(("live", "live", "uploaded")):
                await Samples(session).put(row.id, f"{number:064x}", kind=kind, media_type="x/y", size_bytes=1)

    house.run(fill)
    path = f"/dashboard/models/{model}/samples"
    assert "Remove live samples…" in admin.get(path).text
    assert admin.post(f"{path}/clear", {"confirm": model, "kind": "live"}).status_code == 303
    page = admin.get(path).text
    assert "Remove live samples…" not in page
    assert page.count("<td>uploaded</td>") == 1
    admin.post(f"{path}/clear", {"confirm": model})
    assert "<td>uploaded</td>" not in admin.get(path).text
