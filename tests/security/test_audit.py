"""The log of changes: whole, with values before and after, without secrets, and safe to open elsewhere."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator

import pytest

from tests.servers import INTERNAL, PASSWORD, RunningServer

EVIL = "=cmd|' /C calc'!A1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("audit")) as server:
        yield server


def test_changes_are_told_with_what_was_before_and_without_secrets(server: RunningServer) -> None:
    made = server.new_token(name="told", rate="5/hour")
    server.ok("PATCH", f"/tokens/{made['id']}", json={"rate": ["9/hour"], "max_concurrency": 3})
    detail = server.ok("GET", "/audit?action=token.update")["items"][0]["detail"]
    assert detail["before"] == {"rate": ["5/hour"], "max_concurrency": None}
    assert (detail["rate"], detail["max_concurrency"]) == (["9/hour"], 3)
    number = server.user("told", "viewer")
    server.ok("PATCH", f"/users/{number}", json={"role": "operator", "password": "a planted password"})
    detail = server.ok("GET", "/audit?action=user.update")["items"][0]["detail"]
    assert detail["before"] == {"role": "viewer"}
    secret = server.ok("POST", f"/tokens/{made['id']}/rotate")["secret"]
    everything = server.api("GET", "/audit/export").text + server.api("GET", "/audit?limit=500").text
    for planted in (made["secret"], secret, "a planted password", PASSWORD):
        assert planted not in everything
        assert planted not in server.log()


def test_the_log_leaves_as_lines_and_as_a_table_that_runs_nothing(server: RunningServer) -> None:
    server.client.post(f"{INTERNAL}/auth/login", json={"username": EVIL, "password": "x"})
    answer = server.api("GET", "/audit/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    entries = [json.loads(line) for line in answer.text.splitlines()]
    assert [entry["position"] for entry in entries] == list(range(1, len(entries) + 1))
    assert any(entry["actor"] == EVIL for entry in entries)
    table = list(csv.DictReader(io.StringIO(server.api("GET", "/audit/export?format=csv").text)))
    assert len(table) >= len(entries)
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in table for cell in row.values())
    assert server.cli("audit", "export").stdout.splitlines()[: len(entries)] == answer.text.splitlines()
    assert server.cli("audit", "export", "--format", "csv").stdout.startswith("position,at,actor,")


def test_a_row_that_is_taken_out_of_the_file_shows(server: RunningServer) -> None:
    report = server.ok("GET", "/audit/verify")
    assert report["findings"] == []
    whole = server.cli("audit", "verify")
    assert (whole.returncode, report["last_hash"] in whole.stdout) == (0, True)
    connection = sqlite3.connect(server.data_dir / "pulvinar.db", timeout=10)
    with connection:
        with pytest.raises(sqlite3.DatabaseError, match="only be added to"):
            connection.execute("DELETE FROM audit_log WHERE position = 2")
        connection.execute("DROP TRIGGER audit_log_delete")
        connection.execute("DELETE FROM audit_log WHERE position = 2")
    connection.close()
    assert "entries 2 to 2" in server.ok("GET", "/audit/verify")["findings"][0]
    broken = server.cli("audit", "verify")
    assert broken.returncode == 1
    assert "entries 2 to 2" in broken.stderr


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
@pytest.mark.parametrize("end", ["since", "until"])
def test_a_time_at_the_calendar_s_edge_is_a_time_or_refused(server: RunningServer, end: str, moment: str) -> None:
    answer = server.api("GET", "/audit", params={end: moment})
    assert answer.status_code in (200, 400), answer.text
