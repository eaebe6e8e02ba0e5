"""What an operator gets wrong is answered by one line that names it, and makes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.cli.pid import pid_file, running_pid
from tests.databases import bare_database
from tests.servers import run_cli


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    with bare_database("postgresql", tmp_path) as url:
        ended = run_cli("migrate", cwd=tmp_path, variables={"PULVINAR_DATABASE__URL": f"{url}_not"})
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert '_not" does not exist' in ended.stderr


DATABASES = {
    "postgresql://postgres:hunter2secret@127.0.0.1:1/x": (1, "Connect call failed"),
    "postgresql://postgres:hunter2secret@127.0.0.1/x?sslmod=require": (
        2,
        "Error: The option sslmod of database.url does not exist.",
    ),
    "postgresql://postgres:hunter2secret@127.0.0.1/x?sslmode=always": (
        2,
        "Error: The sslmode of database.url must be",
    ),
}


@pytest.mark.parametrize("url", DATABASES)
@pytest.mark.parametrize("command", ["migrate", "user list", "--port 0 serve"])
def test_why_a_database_cannot_be_used_is_told(url: str, command: str, tmp_path: Path) -> None:
    ended = run_cli(*command.split(), cwd=tmp_path, variables={"PULVINAR_DATABASE__URL": url})
    code, why = DATABASES[url]
    assert (ended.returncode, len(ended.stderr.splitlines())) == (code, 1), ended.stderr
    assert why in ended.stderr
    assert "hunter2secret" not in ended.stderr


@pytest.mark.parametrize("command", ["serve", "user list", "keys rotate", "token create --name x"])
def test_a_data_directory_that_cannot_be_made_is_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments = ["--data-dir", str(tmp_path / "file" / "data"), "--port", "0", *command.split()]
    ended = run_cli(*arguments, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: {tmp_path / 'file' / 'data'}: Not a directory.\n"


def test_an_address_that_is_none_is_told_as_such(tmp_path: Path) -> None:
    ended = run_cli("--host", "256.1.1.1", cwd=tmp_path)
    assert ended.returncode == 4
    assert ended.stderr.startswith("Error: cannot listen on 256.1.1.1:8000: ")
    assert "Unknown" not in ended.stderr


@pytest.mark.parametrize("command", ["verify", "export"])
def test_the_log_of_no_database_is_not_whole(command: str, tmp_path: Path) -> None:
    ended = run_cli("audit", command, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Error: There is no database at {tmp_path / 'data/pulvinar.db'}.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_makes_a_database_says_where(tmp_path: Path) -> None:
    made = run_cli("user", "list", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, f"A new database was made: {tmp_path / 'data/pulvinar.db'}\n")
    assert run_cli("user", "list", cwd=tmp_path).stderr == ""


def test_a_second_server_on_a_data_directory_says_that_it_is_not_alone(tmp_path: Path) -> None:
    with capture_logs() as first, pid_file(tmp_path):
        assert first == []
        with capture_logs() as second, pid_file(tmp_path):
            assert [entry["event"] for entry in second] == ["server.not_alone"]
            assert running_pid(tmp_path) == os.getpid()
