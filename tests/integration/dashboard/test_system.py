from __future__ import annotations

import pytest
from pydantic import SecretStr

from app.dashboard.pages.system.machine import memory_parts
from app.dashboard.pages.system.settings import setting_rows
from core.engines.registry import engine_names
from core.settings import Settings, setting_names
from tests.integration.dashboard.conftest import Browser, House


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dashboard/system", ["Memory of models", "No model is in memory", "Core 1", "Load average"]),
        ("/dashboard/system/nodes", ["answers this page", "Last heart-beat"]),
        ("/dashboard/system/engines", ["onnx", "tensorrt", "What is missing"]),
        ("/dashboard/system/settings", ["server.port", "PULVINAR_SERVER__PORT", "Port to listen on"]),
        ("/dashboard/system/about", ["SQLite", "onnxruntime", "MIT licence"]),
    ],
)
def test_the_pages_say_what_is_there(admin: Browser, path: str, words: list[str]) -> None:
    answer = admin.get(path)
    assert answer.status_code == 200
    assert [word for word in words if word not in answer.text] == []


def test_the_figures_of_the_machine_come_alone_too(admin: Browser) -> None:
    answer = admin.get("/dashboard/system/machine")
    assert answer.status_code == 200
    assert "Memory of models" in answer.text
    assert "<html" not in answer.text


def test_every_engine_is_listed(admin: Browser) -> None:
    text = admin.get("/dashboard/system/engines").text
    assert [name for name in engine_names() if name not in text] == []


def test_secrets_are_not_shown(admin: Browser, house: House) -> None:
    password = house.platform.settings.admin_password
    assert password is not None
    text = admin.get("/dashboard/system/settings").text
    assert password.get_secret_value() not in text
    assert "(set, not shown)" in text


def test_every_setting_has_a_row_and_says_where_it_came_from() -> None:
    settings = Settings.model_validate(
        {"server": {"port": 9000}, "database": {"url": SecretStr("postgresql://u:planted@h/d")}}
    ).came_from({"server.port": "config.yaml", "database.url": "environment"})
    rows = {row.name: row for _, section in setting_rows(settings) for row in section}
    sections = {name.partition(".")[0] for name in setting_names() if "." in name}
    assert set(rows) == set(setting_names()) - sections
    origins = {name: row.origin for name, row in rows.items() if row.origin}
    assert origins == {"server.port": "config.yaml", "database.url": "environment"}
    assert rows["server.port"].value == "9000"
    assert "planted" not in rows["database.url"].value


def test_a_setting_with_keys_of_its_own_is_one_row() -> None:
    settings = Settings.model_validate({"oidc": {"roles": {"ops": "operator", "root": "admin"}}})
    settings = settings.came_from({"oidc.roles.ops": "config.yaml", "oidc.roles.root": "config.yaml"})
    rows = {row.name: row for _, section in setting_rows(settings) for row in section}
    assert (rows["oidc.roles"].value, rows["oidc.roles"].origin) == ("ops: operator, root: admin", "config.yaml")
    assert rows["oidc.issuer"].origin == ""


def test_many_models_share_the_last_part_of_the_bar() -> None:
    parts = memory_parts({f"m{number}": number << 20 for number in range(12)})
    assert [name for name, _, _ in parts] == ["m11", "m10", "m9", "m8", "m7", "m6", "m5", "m4", "3 more"]
    assert parts[-1][1] == 6 << 20


def test_nothing_is_in_the_bar_that_holds_nothing() -> None:
    assert memory_parts({"idle": 0}) == []
