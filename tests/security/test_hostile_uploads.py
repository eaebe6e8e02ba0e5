"""Uploads that are real attacks: shown to work on a simple opener, refused here, with nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.answers import refused
from tests.conftest import Demo
from tests.security.hostile_packages import ATTACKS
from tests.servers import RunningServer, wait_until

UNSAFE = ("import pickle", "import joblib", "torch.load(", "allow_pickle=True", "trust_remote_code=True")


def _written(server: RunningServer) -> set[str]:
    """All files of the server's, but for what every call may write: the database, the log, locks of no content."""
    return {
        str(path.relative_to(server.folder))
        for path in server.folder.rglob("*")
        if not path.name.startswith(("pulvinar.db", "server.log"))
        and not {path.name, path.parent.name} & {"owners", "locks"}
    }


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_that_works_elsewhere_is_refused(unharmed: Demo, tmp_path: Path, kind: str) -> None:
    attack, server = ATTACKS[kind], unharmed.server
    folder = tmp_path / "out"
    folder.mkdir()
    trace = folder / "trace.txt"
    data = attack.make(trace)
    attack.prove(data, trace, folder)
    assert not trace.exists()
    server.login()
    before, memory = _written(server), server.rss_bytes()
    for sent in (server.send_upload("bad", data), server.send_upload("classifier", data, version=True)):
        if attack.echoes:
            assert sent.status_code == attack.status, sent.text
        else:
            refused(sent, attack.status, None, attack.says)
    assert not trace.exists()
    wait_until("That nothing is left", lambda: _written(server) == before)
    assert server.rss_bytes() - memory < 64 << 20
    assert len(server.ok("GET", "/models/classifier")["versions"]) == 1
    assert "it ran" not in server.log()


def test_no_source_holds_a_loader_of_pickles() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [path for room in ("app", "core", "schemas") for path in (root / room).rglob("*.py")]
    assert len(sources) > 200
    for path in sources:
        text = path.read_text()
        for word in (
            "import pickle",
            "import joblib",
            "torch.load(",
            "allow_pickle=True",
            "trust_remote_code=True",
        ):
            assert word not in text, path
