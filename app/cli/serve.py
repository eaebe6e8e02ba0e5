"""`serve`: prepare the database and the first administrator, then serve until told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable

import structlog
import typer

from app.cli.context import Flags, ensure_migrated, run, settings_of
from app.cli.pid import pid_file
from app.ending import INTERRUPTED, end_now, run_to_end
from app.listener import bind
from app.open_files import allow_connections
from app.tls import make_context
from app.tracing_extra import check_tracing
from core.engines.heap import use_one_arena
from core.logs import set_up_logs
from core.setting_sources import load_settings
from core.settings import InvalidSettings, Settings

log = structlog.get_logger(__name__)

NOT_STARTED, CANNOT_LISTEN = 3, 4
"""Exit codes; 3 is uvicorn's own for a start that fails."""


def serve(context: typer.Context) -> None:
    """Serve the APIs (the default command)."""
    use_one_arena()
    settings = settings_of(context)
    _check(settings)
    flags: Flags = context.obj

    def read_settings() -> Settings:
        settings = load_settings(flags.config, flags.values)
        make_context(settings.tls)  # what cannot be used is told before anything is replaced
        check_tracing(settings.tracing)
        return settings

    # A reload that comes before there is anything to reload must not end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _bound(settings) as listener:  # before anything is made: an address that is taken is told at once
        password = run(lambda: prepare(settings))
        set_up_logs(settings.log, prod=settings.server.prod)
        if password is not None:
            _show_password(password)
        allow_connections(settings.server.max_connections)
        host, port = listener.getsockname()[:2]
        scheme = "http" if settings.tls.certificate is None else "https"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        log.info("server.starting", url=url, workers=settings.server.workers)
        with pid_file(settings.data_dir):
            serve = _serve_with_workers if settings.server.workers > 1 else _serve_alone
            code = serve(settings, listener, read_settings)
    end_now(code)


def _check(settings: Settings) -> None:
    """Tell what settings alone do not show: a certificate that cannot be used, a package that is not there."""
    try:
        make_context(settings.tls)
        check_tracing(settings.tracing)
    except InvalidSettings as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


def _bound(settings: Settings) -> socket.socket:
    try:
        return bind(settings)
    except OSError as error:
        place = f"{settings.server.host}:{settings.server.port}"
        typer.echo(f"Error: cannot listen on {place}: {error.strerror or error}.", err=True)
        raise typer.Exit(CANNOT_LISTEN) from error


def _serve_alone(settings: Settings, listener: socket.socket, read_settings: Callable[[], Settings]) -> int:
    from app.server import make_server

    server = make_server(settings, read_settings)
    server.run([listener])
    if server.force_exit:
        return INTERRUPTED
    return 0 if server.started else NOT_STARTED


def _serve_with_workers(settings: Settings, listener: socket.socket, read_settings: Callable[[], Settings]) -> int:
    import uvloop

    from app.control_process import supervise

    run_to_end(supervise(settings, listener, read_settings), uvloop.new_event_loop)
    return 0


async def prepare(settings: Settings) -> str | None:
    """Migrate, and make the first administrator; its password when a random one was made."""
    from core.access.bootstrap import ensure_first_admin
    from core.database.session import Database

    await asyncio.to_thread(settings.data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    await ensure_migrated(settings)
    database = Database(settings.database_url, timeout_s=settings.database.timeout_s)
    try:
        given = settings.admin_password.get_secret_value() if settings.admin_password else None
        return await ensure_first_admin(database, given)
    finally:
        await database.close()


def _show_password(password: str) -> None:
    # To the terminal itself and nowhere else: it is shown this one time.
    sys.stdout.write(f"\n  First start: sign in as  admin  with the password  {password}\n")
    sys.stdout.write("  It is shown this one time, and must be changed before anything else.\n\n")
    sys.stdout.flush()
