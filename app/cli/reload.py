"""`reload`: let a running server read its settings again."""

from __future__ import annotations

import os
import signal

import typer

from app.cli.context import settings_of
from app.cli.pid import running_pid


def reload(context: typer.Context) -> None:
    """Let the server on this data directory read its settings again; requests go on meanwhile."""
    pid = running_pid(settings_of(context).data_dir)
    if pid is None:
        typer.echo("Error: no server is running on this data directory.", err=True)
        raise typer.Exit(1)
    os.kill(pid, signal.SIGHUP)
    typer.echo("The server was told to read its settings again; its log says what came of it.")
