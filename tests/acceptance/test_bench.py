"""`bench` as a user calls it: all layers with a server of its own, one that runs, and what can go wrong."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.database import migration
from core.database.session import Database
from core.settings import Settings
from tests.acceptance import onnx_models
from tests.acceptance.pictures import CAT_JPEG
from tests.conftest import Demo
from tests.integration.control.recommended import Recommended
from tests.servers import RUN, environment, run_cli

# Whoever is started in the background by a script ignores an interrupt, and so would all that it starts.
HEARS = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
QUICK = ("--seconds", "0.3", "--warm-up", "0.1", "--concurrency", "1,4")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose data directory holds the model `scale`, which nobody has deployed."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tmp").mkdir()
    (folder / "scale.onnx").write_bytes(onnx_models.scale())
    added = run_cli("model", "add", "scale", "scale.onnx", cwd=folder)
    assert added.returncode == 0, added.stderr
    return folder


def test_every_layer_is_measured_and_written_down(house: Path) -> None:
    files = ("--json", "b.json", "--html", "b.html")
    ended = run_cli(
        "bench", "scale", *QUICK, "--rate", "40", *files, cwd=house, variables={"TMPDIR": str(house / "tmp")}
    )
    assert ended.returncode == 0, ended.stderr
    assert re.match(r"scale version 1 \(tensor\) by onnx \S+ as uploaded, on cpu", ended.stdout)
    assert "… http, 4 callers" in ended.stderr
    found = json.loads((house / "b.json").read_text())
    assert found["complete"]
    layers = ["engine", "core", "http"]
    loads = [("closed", 1), ("closed", 4), ("open", 40)]
    assert [(p["loop"], p["load"], p["layer"]) for p in found["points"]] == [
        (*load, layer) for load in loads for layer in layers
    ]
    for point in found["points"]:
        _is_sound(point)
    assert len(found["costs"]) == 6
    assert found["about"]["engine"] == "onnx"
    assert found["machine"]["cores"] >= 1
    page = (house / "b.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"<script|https?://(?!www\.w3\.org/2000/svg)", page)
    _left_nothing(house)


def test_what_a_search_recommends_is_what_is_measured(tmp_path: Path) -> None:
    async def fill() -> int:
        settings = Settings(data_dir=tmp_path / "data")
        settings.data_dir.mkdir()
        await migration.upgrade(settings.database_url)
        database = Database(settings.database_url)
        with ThreadPoolExecutor(1) as threads:
            place = Recommended(database, settings.data_dir, threads)
            await place.fill()
            search = await place.search()
        # Only what it was converted to can be loaded: no layer can measure anything else.
        uploaded = place.store.path(place.version.sha256) / "model.onnx"
        uploaded.chmod(0o600)
        uploaded.write_bytes(b"no model")
        await database.close()
        return search

    search = asyncio.run(fill())
    files = ("--rate", "none", "--concurrency", "1", "--json", "b.json")
    ended = run_cli("bench", "scale", *QUICK, *files, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f" in int8 (int8-static), as search {search} recommends, on cpu" in ended.stdout
    found = json.loads((tmp_path / "b.json").read_text())
    about = found["about"]
    assert (about["engine"], about["precision"], about["optimisation"]) == ("onnx", "int8", search)
    assert [point["layer"] for point in found["points"]] == ["engine", "core", "http"]
    for point in found["points"]:
        _is_sound(point)
    named = run_cli("bench", "scale", *QUICK, "--engine", "onnx", cwd=tmp_path)
    assert "ONNX Runtime cannot load" in named.stderr, "a named engine runs the upload"


def _is_sound(point: dict[str, Any]) -> None:
    assert point["calls"] > 0, point
    assert (point["failed"], point["errors"]) == (0, {}), point
    assert 0 < point["p50_ms"] <= point["p90_ms"] <= point["p99_ms"] <= point["max_ms"], point


def _left_nothing(house: Path) -> None:
    """No deployment, no token, no process and no file."""
    assert run_cli("model", "list", cwd=house).stdout == "scale\ttensor\tv1\tnot deployed\n"
    assert run_cli("token", "list", cwd=house).stdout == ""
    assert list((house / "tmp").glob("pulvinar*")) == []
    assert not _servers(house)


def _servers(house: Path) -> list[list[str]]:
    """The command lines of processes that name the house's temporary folder, where a server has its settings."""
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if any(str(house / "tmp") in part for part in command)]


def test_a_server_that_runs_is_called_with_ones_own_file(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(CAT_JPEG)
    url = demo.server.client.base_url
    common = ("bench", "classifier", "--url", str(url), "--input", "cat.jpg", "--layer", "http", "--rate", "none")
    ended = run_cli(*common, *QUICK, "--token", demo.token, "--json", "b.json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["about"]["input"] == f"cat.jpg ({len(CAT_JPEG):,} bytes)"
    for point in found["points"]:
        _is_sound(point)
    refused = run_cli(*common, "--token", "pv_nobody", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Error: The server answered 401: The access token is not valid.\n"
    assert demo.token not in ended.stdout + ended.stderr + json.dumps(found)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("nothing", 1, "Error: There is no model 'nothing'."),
        ("scale --version 9", 1, "Error: The model scale has no version 9."),
        ("scale --engine abacus", 1, "Error: There is no engine 'abacus'"),
        ("scale --url http://127.0.0.1:9 --token x", 1, "Error: The server at 127.0.0.1:9 cannot be reached."),
        ("scale --url 127.0.0.1 --token x", 1, "Error: The server's URL must look like http://"),
        ("scale --url http://127.0.0.1:9", 2, "--token"),
        ("scale --layer socket", 2, "--layer"),
        ("scale --rate fast", 2, "--rate"),
        ("scale --html nowhere/b.html", 2, "--html"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(house: Path, arguments: str, code: int, says: str) -> None:
    ended = run_cli("bench", *arguments.split(), cwd=house)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert says in ended.stderr


def _interruptible() -> None:
    """Whoever runs the tests in the background of a shell has them ignore interrupts, and all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_shows_what_is_known_so_far(house: Path) -> None:
    arguments = ["bench", "scale", "--seconds", "0.3", "--html", "i.html"]
    command = [sys.executable, "-c", HEARS, str(RUN), *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    variables = environment({"TMPDIR": str(house / "tmp")})
    with subprocess.Popen(command, cwd=house, env=variables, preexec_fn=_interruptible, **pipes) as process:
        assert process.stderr is not None
        while "http, 1 caller" not in process.stderr.readline():
            assert process.poll() is None
        assert _servers(house)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Not complete" in shown
    assert re.search(r"^ +1  engine .*\n +core ", shown, re.MULTILINE)
    assert "Not complete" in (house / "i.html").read_text()
    _left_nothing(house)
