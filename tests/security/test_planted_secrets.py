"""Secrets are planted, and looked for wherever they should not be: logs, answers, processes, what objects say."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyotp
import pytest

from core.settings import Settings
from tests.acceptance import onnx_models
from tests.databases import SERVER, fresh_database
from tests.processes import family, hosts
from tests.servers import INTERNAL, RunningServer

PASSWORD = "planted-password-of-admin"
DATABASE, REDIS, HUB, INDEX, OIDC = (
    f"planted-{what}-secret" for what in ("database", "redis", "hub", "index", "oidc")
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("secrets")
    with fresh_database("postgresql", folder) as url:
        user = SERVER.removeprefix("postgresql://").split("@")[0].split(":")[0]
        settings = {
            "PULVINAR_ADMIN_PASSWORD": PASSWORD,
            "PULVINAR_DATABASE__URL": f"postgresql://{user}:{DATABASE}@{url.rsplit('@')[-1]}",
            "PULVINAR_REDIS__URL": f"redis://:{REDIS}@127.0.0.1:1/0",
            "PULVINAR_SOURCES__HUB_TOKEN": HUB,
            "PULVINAR_SOURCES__HUB_URL": "http://127.0.0.1:1",
            "PULVINAR_SOURCES__PACKAGE_INDEX_URL": f"http://user:{INDEX}@127.0.0.1:1/simple",
            "PULVINAR_OIDC__ISSUER": "http://127.0.0.1:1",
            "PULVINAR_OIDC__CLIENT_ID": "pulvinar",
            "PULVINAR_OIDC__CLIENT_SECRET": OIDC,
            "PULVINAR_OIDC__ROLES": '{"ml-ops": "operator"}',
            "PULVINAR_LOG__LEVEL": "debug",
        }
        # In a file, as an operator would have them: what is in the environment is told to nobody either, but the
        # system shows a process's own environment to its user.
        (folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
        server = RunningServer(folder)
        for name in [*settings, "PULVINAR_LOG__LEVEL"]:
            server.variables.pop(name, None)
        with server:
            yield server


def test_planted_secrets_are_found_nowhere(server: RunningServer) -> None:
    said: list[str] = []

    def call(method: str, path: str, **options: Any) -> None:
        answer = server.client.request(method, path, **options)
        said.append(answer.text + str(answer.headers))

    auth = server.login("admin", PASSWORD)
    headers = {"X-Auth-Token": auth}
    made = server.new_token(name="planted", rate="5/hour")
    enrolment = server.ok("POST", "/auth/totp", json={"current_password": PASSWORD})
    server.upload("scale", onnx_models.scale())
    server.deploy("scale", isolation="process")
    for secret in (made["secret"], made["secret"][:-1]):
        call(
            "POST",
            "/api/v1/inference/scale",
            json={"inputs": {"x": [[1, 2, 3, 4]]}},
            headers={"X-Access-Token": secret},
        )
    call("POST", f"{INTERNAL}/auth/login", json={"username": "admin", "password": PASSWORD + "x"})
    call("POST", f"{INTERNAL}/auth/login", json={"username": PASSWORD})
    call("POST", f"{INTERNAL}/auth/totp/confirm", json={"code": "000000"}, headers=headers)
    for source in ("hf:nobody/nothing", f"pypi:nothing==1.0#sha256={'0' * 64}"):
        call("POST", f"{INTERNAL}/imports", json={"name": "fetched", "source": source}, headers=headers)
    for path in (
        "models",
        "users",
        "tokens",
        "keys",
        "imports",
        "audit?limit=500",
        "audit/export",
        "system/stats",
    ):
        call("GET", f"{INTERNAL}/{path}", headers=headers)
    call("GET", "/metrics")
    call("GET", "/login/oidc")
    call("GET", "/login/oidc/callback?code=planted-code-of-oidc&state=planted-state-of-oidc")
    call("GET", "/health/ready")
    assert server.cli("keys", "rotate").returncode == 0
    said += [
        server.cli(*arguments).stdout for arguments in (("keys", "list"), ("audit", "export"), ("user", "list"))
    ]

    code = pyotp.TOTP(enrolment["secret"]).now()
    planted = {
        "password": PASSWORD,
        "database": DATABASE,
        "redis": REDIS,
        "hub": HUB,
        "index": INDEX,
        "client secret": OIDC,
        "code of a provider": "planted-code-of-oidc",
        "state of a sign-in": "planted-state-of-oidc",
        "access token": made["secret"],
        "sign-in token": auth,
        "its signature": auth.rsplit(".", 1)[1],
        "second factor": enrolment["secret"],
        "its code": f'"{code}"',
        **_keys(server.data_dir / "keys"),
    }
    processes = family(server)
    assert hosts(server)
    places = {
        "the log": server.log(),
        "answers": "\n".join(said),
        "command lines": "\n".join(part for one in processes for part in one.cmdline()),
        "environments": "\n".join(f"{name}={value}" for one in processes for name, value in _environment(one)),
    }
    found = [(what, where) for what, secret in planted.items() for where, text in places.items() if secret in text]
    assert not found
    assert "redis.away" in places["the log"]  # what could have told was reached


def test_settings_do_not_show_their_secrets() -> None:
    settings = Settings(
        admin_password=PASSWORD,
        database={"url": f"postgresql://u:{DATABASE}@127.0.0.1/x"},
        redis={"url": f"redis://:{REDIS}@127.0.0.1:1/0"},
        sources={"hub_token": HUB, "package_index_url": f"http://u:{INDEX}@127.0.0.1/"},
        oidc={"client_secret": OIDC},
    )
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert not [secret for secret in (PASSWORD, DATABASE, REDIS, HUB, INDEX, OIDC) if secret in text]


def _keys(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix == ".key":
            found |= {f"{path.name} in hex": content.hex(), path.name: base64.b64encode(content).decode()}
        else:
            found[path.name] = content.decode().split('"secret": "')[1].split('"')[0]
    assert len(found) == 5
    return found


def _environment(process: psutil.Process) -> Iterator[tuple[str, str]]:
    yield from process.environ().items()
