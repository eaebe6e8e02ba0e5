"""What docker-compose.yml and the Dockerfile promise, as far as reading them tells."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.setting_sources import load_settings
from tests.servers import environment

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
# What the plain images are called, with a version to the last number.
PINNED = re.compile(r"[a-z]+(?:/[a-z]+)?:v?\d+\.\d+(?:\.\d+)?(?:-[a-z]+)*\Z")


def test_all_five_are_there() -> None:
    assert set(SERVICES) == {"app", "postgres", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_pinned_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.match(service["image"])
    assert "latest" not in service["image"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["init"] is True
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
    user, group = service["user"].split(":")
    assert int(user) > 0 < int(group)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_this_machines_and_stores_have_none(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    if name in ("postgres", "redis"):
        assert not ports
        assert SERVICES[name]["networks"] == ["store"]
        assert COMPOSE["networks"]["store"] == {"internal": True}


def test_no_secret_stands_in_the_file() -> None:
    secrets = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert secrets == set(COMPOSE["secrets"])
    ignored = (ROOT / ".gitignore").read_text().split()
    for one in COMPOSE["secrets"].values():
        assert one["file"].startswith("./deploy/secrets/")
        assert "/deploy/secrets/" in ignored
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or str(value).startswith("/run/secrets/"), variable


def test_what_is_mounted_is_there_and_read_only() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, *mode = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"], volume
            else:
                assert source in COMPOSE["volumes"], source


def test_the_app_can_read_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = dict(re.findall(r"(PULVINAR_\w+)=(\S+)", DOCKERFILE))
    monkeypatch.chdir(tmp_path)
    for name, value in {**image, **SERVICES["app"]["environment"]}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.server.host == "0.0.0.0"
    # Prometheus alone, and the container itself.
    address = SERVICES["prometheus"]["networks"]["front"]["ipv4_address"]
    assert settings.server.metrics_allow == ["127.0.0.0/8", f"{address}/32"]
    assert f":{settings.server.port}" in SERVICES["app"]["ports"][0]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": [f"app:{settings.server.port}"]}]


def test_the_image_is_pinned_and_runs_without_rights() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(bases) == {"python:3.11.11-slim-bookworm"}
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] == SERVICES["app"]["user"]
    allowed = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split("\n")
    # Nothing but what is named goes in: no data, no secrets, no tests.
    assert allowed[1] == "**"
    for line in allowed:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line
    for script in (ROOT / "deploy").glob("*.sh"):  # but for the one that is run outside
        assert f"!deploy/{script.name}" in allowed or script.name == "make-secrets.sh"
    for source in re.findall(r"(?:requirements|deploy)/\S+\.(?:txt|py|sh)", DOCKERFILE):
        assert (ROOT / source).exists(), source


def test_scripts_take_secrets_from_files_and_the_start_migrates_first(tmp_path: Path) -> None:
    """The scripts themselves, with a Python that only says how it was called."""
    secrets, said = tmp_path / "secrets", tmp_path / "said"
    secrets.mkdir()
    (secrets / "postgres_password").write_text("of-postgres")
    (secrets / "admin_password").write_text("of-admin")
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f'#!/bin/sh\necho "$@ $PULVINAR_DATABASE__URL $PULVINAR_ADMIN_PASSWORD" >> {said}\n', encoding="utf-8"
    )
    stand_in.chmod(0o755)
    env = environment({"SECRETS_DIR": str(secrets), "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    subprocess.run(["sh", str(ROOT / "deploy/start.sh"), "--workers", "2"], env=env, check=True, timeout=20)
    subprocess.run(["sh", str(ROOT / "deploy/command.sh"), "user", "list"], env=env, check=True, timeout=20)
    url = "postgresql://pulvinar:of-postgres@postgres/pulvinar of-admin"
    assert said.read_text().splitlines() == [
        f"run.py migrate {url}",
        f"run.py --prod --workers 2 {url}",
        f"run.py user list {url}",
    ]


def test_secrets_are_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    script.write_bytes((ROOT / "deploy/make-secrets.sh").read_bytes())
    run = [subprocess.run(["sh", str(script)], capture_output=True, check=True, timeout=20) for _ in range(2)]
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{48}", secret) for secret in made.values())
    assert not any(secret.encode() in run[0].stdout for secret in made.values())
    assert run[1].stdout == b""
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
