"""Which source of settings wins, and what is noted of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.setting_sources import load_settings
from core.settings import InvalidSettings


def test_each_setting_knows_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, dotenv = tmp_path / "mine.yaml", tmp_path / ".env"
    config.write_text("server: {port: 1, workers: 2}\nlog: {level: debug}\n")
    dotenv.write_text("PULVINAR_SERVER__WORKERS=3\nPULVINAR_STREAMS__IDLE_S=9\n")
    monkeypatch.setenv("PULVINAR_LOG__LEVEL", "error")
    settings = load_settings(config, {"data_dir": tmp_path}, dotenv)
    assert settings.origins == {
        "server.port": "mine.yaml",
        "server.workers": ".env",
        "streams.idle_s": ".env",
        "log.level": "environment",
        "data_dir": "command line",
    }
    assert (settings.server.port, settings.server.workers, settings.log.level) == (1, 3, "error")


def test_what_nobody_set_came_from_nowhere(tmp_path: Path) -> None:
    assert load_settings(dotenv=tmp_path / "none").origins.get("server.port") is None


MISTAKES = {
    "server: {port: 1}\nserver: {host: localhost}\n": (
        "The configuration file {path}, line 2: server is there twice; keep one."
    ),
    "server:\n  port: 1\n  port: 2\n": "The configuration file {path}, line 3: port is there twice; keep one.",
    "server: 8000\n": "The section server of {path} must hold settings by name, as server: {{…}}.",
    "log: debug\n": "The section log of {path} must hold settings by name, as log: {{…}}.",
    "server: {port: yes}\n": (
        "The setting server.port cannot be used: this is no switch: write a number or text, not yes or no."
    ),
    "redis: {url: 'http://cache'}\n": (
        "The setting redis.url cannot be used: it is not an address such as redis://host:6379/0."
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_file_is_told_and_nothing_of_it_is_lost(text: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    with pytest.raises(InvalidSettings) as caught:  # flags of the same section too: they must not hide it
        load_settings(config, {"server": {"workers": 1}}, tmp_path / "none")
    assert str(caught.value) == MISTAKES[text].format(path=config)


def test_a_section_of_which_all_is_commented_out_is_as_none(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("log:\n#  level: debug\nserver:\n")
    assert load_settings(config, {}, tmp_path / "none").log.level == "info"


DOTENV_MISTAKES = {
    "# mine\nPULVINAR_SERVER__PORT: 8000\n": "The file {path}, line 2: write NAME=value.",
    "PULVINAR_SERVER__PORT\n": "The file {path}, line 1: write NAME=value.",
    "OTHER=1\n": ".env: OTHER is not a setting; their names begin with PULVINAR_.",
    "PULVINAR_SERVER__PRT=1\n": ".env: The environment variable PULVINAR_SERVER__PRT is not a setting.",
    "PULVINAR_SERVER__METRICS_ALLOW=10.0.0.0/8\n": (
        ".env: The environment variable PULVINAR_SERVER__METRICS_ALLOW must be written as JSON, a list as "
        '\'["one", "two"]\' and names as \'{{"name": "value"}}\'.'
    ),
}


@pytest.mark.parametrize("text", DOTENV_MISTAKES)
def test_a_mistake_in_dotenv_is_told_with_its_place(text: str, tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        load_settings(dotenv=dotenv)
    assert str(caught.value) == DOTENV_MISTAKES[text].format(path=dotenv)


@pytest.mark.parametrize("name", ["SERVER__TRUSTED_PROXIES", "SOURCES__HUB_ORGANISATIONS", "OIDC__ROLES"])
def test_a_list_in_a_variable_that_is_no_json_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PULVINAR_{name}", "10.0.0.0/8")
    with pytest.raises(
        InvalidSettings, match=f"^The environment variable PULVINAR_{name} must be written as JSON"
    ):
        load_settings(dotenv=tmp_path / "none")
