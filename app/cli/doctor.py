"""`doctor`: whether store, database and machine are in order; with `--mend`, what can be mended is."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from app.cli.context import run, settings_of
from app.cli.pid import running_pid
from app.listener import bind
from core.settings import Settings

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


def doctor(
    context: typer.Context,
    mend: Annotated[bool, typer.Option("--mend", help="Mend what can be mended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the models' files.")] = False,
) -> None:
    """Examine the installation; may run beside a server. The exit code is 1 where an error is left."""
    settings = settings_of(context)

    async def work() -> bool:
        from app.lifespan import check_task, make_store
        from core.control.doctor import Doctor
        from core.control.uploads import Uploads
        from core.database.session import Database
        from core.store.importer import Importer

        store = make_store(settings)
        database = Database(settings.database_url, timeout_s=settings.database.timeout_s)
        uploads = Uploads(database, store, Importer(store, settings.store, check_task))
        well = True
        try:
            for finding in _port(settings):
                well &= _show(finding, as_json)
            async for found in Doctor(settings, store, uploads, database, hashes=not quick).examine(mend=mend):
                well &= _show(found.to_json(), as_json)
        finally:
            store.close()
            await database.close()
        return well

    if not run(work):
        raise typer.Exit(1)


def _show(finding: dict[str, Any], as_json: bool) -> bool:
    """One line; false for an error that is left."""
    if as_json:
        sys.stdout.write(json.dumps(finding, ensure_ascii=False) + "\n")
    else:
        mended = " Mended." if finding["mended"] else ""
        hint = " (--mend)" if finding["can_be_mended"] and not mended else ""
        typer.echo(f"{_MARKS[finding['level']]} {finding['check']}: {finding['message']}{mended}{hint}")
    return bool(finding["level"] != "error" or finding["mended"])


def _port(settings: Settings) -> list[dict[str, Any]]:
    """Whether the address is this server's already, or free."""
    place = f"{settings.server.host}:{settings.server.port}"
    pid = running_pid(settings.data_dir)
    finding = {"check": "port", "level": "ok", "message": "", "can_be_mended": False, "mended": False}
    if pid is not None:
        return [{**finding, "message": f"a server is running on this data directory (process {pid})"}]
    try:
        bind(settings).close()
    except OSError as error:
        return [{**finding, "level": "error", "message": f"{place} cannot be listened on: {error.strerror}."}]
    return [{**finding, "message": f"{place} is free"}]
