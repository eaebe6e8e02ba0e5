"""Which source of settings wins, and what is noted of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.setting_sources import load_settings


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
