from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.access.keys import load_or_create_key
from core.settings import InvalidSettings

ROOT = Path(__file__).parents[3]


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "keys"
    key = load_or_create_key(folder, "session")
    assert len(key) == 32
    assert load_or_create_key(folder, "session") == key
    assert load_or_create_key(folder, "other", 64) != key
    assert (folder / "session").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["other", "session"]


def test_a_damaged_key_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "session").write_bytes(b"short")
    with pytest.raises(InvalidSettings, match="damaged"):
        load_or_create_key(tmp_path, "session")


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from core.access.keys import load_or_create_key; "
        "print('up', flush=True); sys.stdin.readline(); "
        "print(load_or_create_key(Path(sys.argv[1]) / 'keys', 'session').hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=30)[0] for process in processes}
    assert len(keys) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["session"]
