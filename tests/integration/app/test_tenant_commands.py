"""`run.py tenant`, and what it leaves in the database."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

import run


def test_a_tenant_from_the_command_line(tmp_path: Path) -> None:
    runner = CliRunner()

    def command(*words: str) -> tuple[int, str]:
        done = runner.invoke(run.cli, ["--data-dir", str(tmp_path), *words])
        return done.exit_code, done.output

    code, told = command("tenant", "list")
    assert code == 0
    assert told.startswith("A new database was made: ")
    assert command("tenant", "create", "red", "--note", "the red team") == (0, "Tenant 2: red.\n")
    assert command("tenant", "disable", "red") == (0, "Tenant red is disabled.\n")
    assert command("tenant", "list") == (0, "1\tactive\tdefault\t\n2\tdisabled\tred\tthe red team\n")
    assert command("tenant", "enable", "red") == (0, "Tenant red is enabled.\n")
    assert command("tenant", "change", "red", "--note", "crimson") == (0, "Tenant red was changed.\n")
    assert command("token", "create", "--name", "robot", "--tenant", "red")[0] == 0
    code, said = command("tenant", "delete", "red")
    assert (code, "owns tokens" in said) == (1, True)
    code, said = command("tenant", "share", "nothing", "red")
    assert (code, "no model or pipeline" in said) == (1, True)
    code, said = command("token", "rotate", "1", "--grace-s", "60")
    assert (code, said.startswith("pv_")) == (0, True)
    assert command("token", "expiring") == (0, "")
    code, said = command("token", "create", "--name", "brief", "--expires", "2099-01-01", "--tenant", "default")
    assert code == 0
    code, said = command("token", "expiring", "--within-days", "3660")
    assert (code, said) == (0, "")
    assert command("usage", "--by", "model")[1].startswith("model\trequests")
    assert command("usage", "--csv")[1].startswith("at,tenant,token_id,model,requests")
    code, said = command("tenant", "change", "red", "--rate", "5/hour", "--budget", "9 items/day")
    assert (code, said) == (0, "Tenant red was changed.\n")
    code, said = command("tenant", "change", "red", "--budget", "9 cats/day")
    assert (code, "9 cats/day" in said) == (1, True)
    assert command("token", "revoke", "1")[0] == 0
    assert command("tenant", "delete", "red") == (0, "Tenant red was removed.\n")
