"""The command line: on the same data with and without a running server, with exit codes that scripts can use."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.conftest import Demo, StartServer
from tests.servers import INTERNAL, PASSWORD, RunningServer, run_cli, wait_until, zip_bytes


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "scale.onnx"
    file.write_bytes(onnx_models.scale())
    return file


def test_a_user_by_the_command_line_signs_in(demo: Demo) -> None:
    made = demo.server.cli(
        "user", "create", "ada", "--role", "operator", "--password-stdin", stdin="a long password\n"
    )
    assert made.returncode == 0, made.stderr
    assert "a long password" not in made.stdout + made.stderr
    answer = demo.server.client.post(
        f"{INTERNAL}/auth/login", json={"username": "ada", "password": "a long password"}
    )
    assert answer.json()["user"] == {"username": "ada", "role": "operator"}
    token = answer.json()["token"]
    again = demo.server.cli("user", "create", "ada", "--password-stdin", stdin="a long password\n")
    assert again.returncode == 1
    _one_line(again.stderr, "Error: ")
    reset = demo.server.cli("user", "password", "ada", "--password-stdin", stdin="a new password\n")
    assert reset.returncode == 0, reset.stderr
    refused(demo.server.client.get(f"{INTERNAL}/auth/me", headers={"X-Auth-Token": token}), 401)
    assert "ada\toperator\tactive" in demo.server.cli("user", "list").stdout


@pytest.mark.parametrize(
    ("name", "password"), [("ada2", "short"), ("a b", "a long password"), ("", "a long password")]
)
def test_a_user_that_cannot_be_made(demo: Demo, name: str, password: str) -> None:
    made = demo.server.cli("user", "create", name, "--password-stdin", stdin=f"{password}\n")
    assert made.returncode == 1
    _one_line(made.stderr, "Error: ")


def _one_line(text: str, start: str) -> None:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith(start), text


def test_a_model_is_added_and_deployed_without_a_server_and_served_by_the_next(
    tmp_path: Path, model_file: Path, start_server: StartServer
) -> None:
    folder = tmp_path / "house"
    folder.mkdir()
    server = RunningServer(folder)
    added = server.cli("model", "add", "scale", str(model_file), "--deploy")
    assert added.returncode == 0, added.stderr
    assert "ok   dry_run" in added.stdout
    assert "Version 1 of scale is valid." in added.stdout
    assert "next server" in added.stdout
    secret = server.cli(
        "token", "create", "--name", "script", "--models", "scale", "--rate", "100/second"
    ).stdout.strip()
    assert server.cli("model", "list").stdout == "scale\ttensor\tv1\tpending\n"
    listed = server.cli("token", "list").stdout
    assert "script" in listed
    assert secret not in listed
    with server:
        answer = server.infer("scale", secret, json={"inputs": [[1, 1, 1, 1]]})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ratelimit-limit"] == "100"
        actors = {entry["actor"] for entry in server.ok("GET", "/audit")["items"]}
        assert "command line" in actors
        assert server.cli("model", "list").stdout == "scale\ttensor\tv1\tserving\n"


def test_a_model_is_added_and_deployed_beside_a_running_server(demo: Demo, model_file: Path) -> None:
    added = demo.server.cli("model", "add", "by-cli", str(model_file), "--deploy", "--description", "Twice.")
    assert added.returncode == 0, added.stderr
    assert "by-cli is serving." in added.stdout
    answer = demo.server.infer("by-cli", demo.token, json={"inputs": [[1, 1, 1, 1]]})
    assert answer.json()["outputs"][0]["data"] == [2, 2, 2, 2]
    assert demo.server.ok("GET", "/models/by-cli")["description"] == "Twice."
    again = demo.server.cli("model", "add", "by-cli", str(model_file))
    assert "Version 2 of by-cli is valid." in again.stdout
    deployed = demo.server.cli("model", "deploy", "by-cli", "--version", "2")
    assert "by-cli is serving." in deployed.stdout
    assert demo.server.infer("by-cli", demo.token, json={"inputs": [[1, 1, 1, 1]]}).json()["version"] == 2
    missing = demo.server.cli("model", "deploy", "by-cli", "--version", "3")
    assert missing.returncode == 1
    _one_line(missing.stderr, "Error: ")
    gone = demo.server.ok("DELETE", "/models/by-cli/deployment")
    demo.server.wait_generation("by-cli", gone["generation"], "stopped")
    demo.server.ok("DELETE", "/models/by-cli")


def test_a_model_that_is_refused_or_not_valid(demo: Demo, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a model\n" * 10)
    added = demo.server.cli("model", "add", "bad", str(text))
    assert added.returncode == 1
    assert "Error: The file is text" in added.stderr
    package = tmp_path / "outside.zip"
    package.write_bytes(
        zip_bytes({"model.yaml": "task: tensor\n", "model.onnx": onnx_models.with_external_data("../x.data")})
    )
    added = demo.server.cli("model", "add", "bad", str(package), "--deploy")
    assert added.returncode == 1
    assert "FAIL external_data" in added.stdout
    assert "Version 1 of bad is not valid." in added.stderr
    demo.server.ok("DELETE", "/models/bad")
    assert demo.server.cli("model", "add", "bad", str(tmp_path / "nothing.onnx")).returncode == 2
    named = demo.server.cli("model", "add", "../x", str(package))
    assert named.returncode == 1
    _one_line(named.stderr, "Error: ")
    for name, source in (("x", "hf:foo"), ("x", "pypi:a==1/m.onnx"), ("../x", "hf:acme/cats")):
        malformed = demo.server.cli("model", "add", name, source)
        assert malformed.returncode == 1
        assert not malformed.stdout, "nothing is said of fetching"
        _one_line(malformed.stderr, "Error: ")
    assert not demo.server.incoming()


def test_a_revoked_token_is_refused_within_a_second(demo: Demo) -> None:
    made = demo.server.new_token()
    assert demo.server.cli("token", "revoke", str(made["id"])).returncode == 0
    wait_until(
        "The revocation",
        lambda: demo.server.infer("classifier", made["secret"], content=b"x").status_code == 401,
    )
    assert demo.server.cli("token", "revoke", "999999").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [("--rate", "fast"), ("--ip-allow", "nowhere"), ("--expires", "2001-01-01"), ("--operations", "fly")],
)
def test_a_token_that_cannot_be_made(demo: Demo, arguments: tuple[str, str]) -> None:
    made = demo.server.cli("token", "create", "--name", "bad", *arguments)
    assert made.returncode in (1, 2), made.stdout
    assert "Error" in made.stderr
    assert "Traceback" not in made.stderr
    assert "pv_" not in made.stdout


def test_migrating_twice_does_nothing(tmp_path: Path) -> None:
    first = run_cli("--data-dir", str(tmp_path / "data"), "migrate", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "revision" in first.stdout
    assert run_cli("--data-dir", str(tmp_path / "data"), "migrate", cwd=tmp_path).stdout == "Nothing to do.\n"


BAD_SETTINGS = {
    "an unknown variable": ({"PULVINAR_COLOUR": "red"}, "", "PULVINAR_COLOUR"),
    "an unknown nested variable": ({"PULVINAR_SERVER__COLOUR": "red"}, "", "PULVINAR_SERVER__COLOUR"),
    "a bad value": ({"PULVINAR_SERVER__PORT": "many"}, "", "server.port"),
    "a value out of range": ({"PULVINAR_SERVER__PORT": "99999"}, "", "server.port"),
    "an unknown key": ({}, "colour: red\n", "colour"),
    "an unknown nested key": ({}, "server: {colour: red}\n", "server.colour"),
    "a bad value in the file": ({}, "log: {level: loud}\n", "log.level"),
    "a file that is no YAML": ({}, "server: [\n", "config.yaml"),
    "a file of a list": ({}, "- a\n", "config.yaml"),
    "a bad rate": ({"PULVINAR_ACCESS__TOKEN_RATE": "fast"}, "", "fast"),
    "a bad sign-in rate": ({"PULVINAR_ACCESS__LOGIN_RATE": "fast"}, "", "fast"),
    "a bad database": ({"PULVINAR_DATABASE__URL": "mysql://localhost/x"}, "", "database"),
    "a bad network": ({"PULVINAR_SERVER__METRICS_ALLOW": '["nowhere"]'}, "", "nowhere"),
}


@pytest.mark.parametrize("kind", BAD_SETTINGS)
def test_a_bad_setting_stops_the_start_with_one_line(tmp_path: Path, kind: str) -> None:
    variables, text, says = BAD_SETTINGS[kind]
    if text:
        (tmp_path / "config.yaml").write_text(text)
    ended = run_cli(cwd=tmp_path, variables=variables)
    assert ended.returncode == 2, ended.stderr
    _one_line(ended.stderr, "Error: ")
    assert says in ended.stderr
    assert not (tmp_path / "data/pulvinar.db").exists()


def test_flags_win_over_the_environment_over_dotenv_over_the_file(
    tmp_path: Path, start_server: StartServer
) -> None:
    (tmp_path / "config.yaml").write_text(
        "inference: {max_items: 2, max_body_bytes: 1024, body_timeout_s: 5}\nserver: {port: 1, docs: false}\n"
    )
    (tmp_path / ".env").write_text("PULVINAR_INFERENCE__MAX_ITEMS=3\nPULVINAR_INFERENCE__MAX_BODY_BYTES=2048\n")
    server = start_server({"PULVINAR_INFERENCE__MAX_ITEMS": "4", "PULVINAR_SERVER__PORT": "2"})
    # The flag --port won over both: it answers there. The file alone closed the pages.
    refused(server.client.get("/docs"), 404)
    server.upload("scale", onnx_models.scale())
    server.deploy("scale")
    token = server.token()
    # .env won over the file.
    refused(server.infer("scale", token, content=bytes(2049)), 413, "too_large")
    refused(server.infer("scale", token, content=bytes(2047)), 415)
    assert server.ok("GET", "/models/scale")["name"] == "scale"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken(tmp_path: Path, workers: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        variables = {"PULVINAR_ADMIN_PASSWORD": PASSWORD}
        ended = run_cli(
            "--data-dir",
            str(tmp_path / "data"),
            "--port",
            port,
            "--workers",
            workers,
            cwd=tmp_path,
            variables=variables,
        )
    assert ended.returncode == 4, ended.stderr
    _one_line(ended.stderr, f"Error: cannot listen on 127.0.0.1:{port}: Address already in use.")


def test_the_first_password_is_shown_once_and_never_logged(tmp_path: Path) -> None:
    variables = {"PULVINAR_LOG__FORMAT": "json"}
    server = RunningServer(tmp_path, variables, whole=True)
    del server.variables["PULVINAR_ADMIN_PASSWORD"]
    with server:
        said = server.log()
        assert said.count("It is shown this one time, and must be changed") == 1
        password = said.split("with the password")[1].split()[0]
        assert len(password) >= 12
        assert server.login("admin", password)
        refused(server.api("GET", "/models"), 403, "password_change_required")
        lines = [line for line in said.splitlines() if line.startswith("{")]
        assert lines
        assert not any(password in line for line in lines)
        assert all(json.loads(line) for line in lines)
        server.restart()
        assert server.log().count("It is shown this one time") == 1


def test_a_first_password_that_is_too_short(tmp_path: Path) -> None:
    ended = run_cli("--port", "0", cwd=tmp_path, variables={"PULVINAR_ADMIN_PASSWORD": "short"})
    assert ended.returncode in (1, 2)
    _one_line(ended.stderr, "Error: ")


@pytest.mark.parametrize("arguments", [("--help",), ("model", "--help"), ("token", "create", "--help")])
def test_help(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    helped = run_cli(*arguments, cwd=tmp_path, whole=True)
    assert helped.returncode == 0
    assert "Usage" in helped.stdout


def test_a_group_without_a_command_shows_its_commands(tmp_path: Path) -> None:
    shown = run_cli("user", cwd=tmp_path)
    assert shown.returncode == 2
    assert "create" in shown.stdout + shown.stderr
    assert "dashboard" not in shown.stdout + shown.stderr
    assert "Error" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("nonsense", "'nonsense'"),
        ("model add", "'name'"),
        ("--port many", "'--port'"),
        ("--colour", "--colour"),
        ("user create ada --role god", "'god' is not one of 'admin', 'operator', 'viewer'."),
        ("token create --name x --expires tomorrow", "'--expires'"),
        ("bench x --concurrency none", "--concurrency"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: str, says: str) -> None:
    ended = run_cli(*arguments.split(), cwd=tmp_path)
    assert ended.returncode == 2
    _one_line(ended.stderr, "Error: ")
    assert says in ended.stderr
    assert not list(tmp_path.iterdir())


def test_postgresql_that_is_not_migrated_is_told_how(tmp_path: Path) -> None:
    from tests.databases import bare_database

    with bare_database("postgresql", tmp_path) as url:
        variables = {"PULVINAR_DATABASE__URL": url, "PULVINAR_ADMIN_PASSWORD": PASSWORD}
        ended = run_cli("--port", "0", cwd=tmp_path, variables=variables)
        assert ended.returncode == 1
        _one_line(ended.stderr, "Error: ")
        assert "run.py migrate" in ended.stderr
        assert url not in ended.stderr
