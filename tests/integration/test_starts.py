"""Forks of a loaded process stand in for whole starts in other tests: they must not be told apart."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.servers import RunningServer, run_cli
from tests.starts import Start


@pytest.mark.parametrize("arguments", ["--help", "model list --colour", "user list"])
def test_a_fork_says_and_answers_what_a_whole_start_does(tmp_path: Path, arguments: str) -> None:
    told = []
    for whole in (True, False):
        folder = tmp_path / str(whole)
        folder.mkdir()
        ended = run_cli(*arguments.split(), cwd=folder, whole=whole)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*"))
        told.append((ended.returncode, ended.stdout, ended.stderr.replace(str(folder), ""), files))
    assert told[0] == told[1]


def test_what_is_typed_and_the_environment_are_the_start_s_own(tmp_path: Path) -> None:
    data = tmp_path / "named by a variable"
    variables = {"PULVINAR_DATA_DIR": str(data)}
    made = run_cli(
        "user", "create", "ada", "--password-stdin", cwd=tmp_path, stdin="a long password\n", variables=variables
    )
    assert made.returncode == 0, made.stderr
    assert "ada" in run_cli("user", "list", cwd=tmp_path, variables=variables).stdout
    assert "ada" not in run_cli("user", "list", cwd=tmp_path).stdout


def test_its_end_is_told_as_of_any_process(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        process = server.process
        assert isinstance(process, Start)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert psutil.Process(process.pid) not in psutil.Process().children(recursive=True)
        server.kill()
    assert process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
