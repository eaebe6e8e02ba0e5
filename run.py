"""The command line of Pulvinar. `python run.py` serves; `python run.py --help` lists the rest."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import access_rule, audit, keys, model, pipeline, tenant, token, user
from app.cli.bench import bench
from app.cli.context import Flags
from app.cli.doctor import doctor
from app.cli.migrate import migrate
from app.cli.reload import reload
from app.cli.serve import serve
from app.cli.usage import usage

cli = typer.Typer(
    name="pulvinar",
    help="Serve a company's models. Without a command, it serves on 127.0.0.1:8000.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "serve": serve,
    "migrate": migrate,
    "reload": reload,
    "doctor": doctor,
    "bench": bench,
    "usage": usage,
}
GROUPS: dict[str, typer.Typer] = {
    "user": user.app,
    "tenant": tenant.app,
    "token": token.app,
    "access-rule": access_rule.app,
    "audit": audit.app,
    "keys": keys.app,
    "model": model.app,
    "pipeline": pipeline.app,
}

for _name, _command in COMMANDS.items():
    cli.command(_name)(_command)
for _name, _group in GROUPS.items():
    cli.add_typer(_group, name=_name)


@cli.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; `config.yaml` where it exists.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Database, artifacts and keys.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    prod: Annotated[bool, typer.Option("--prod", help="Production mode.")] = False,
    workers: Annotated[int | None, typer.Option(help="HTTP worker processes.")] = None,
) -> None:
    """Read the flags that all commands share."""
    server = {"host": host, "port": port, "prod": prod or None, "workers": workers}
    values: dict[str, Any] = {"server": {name: value for name, value in server.items() if value is not None}}
    if data_dir is not None:
        values["data_dir"] = data_dir
    context.obj = Flags(config, values)
    if context.invoked_subcommand is None:
        serve(context)


def main() -> None:
    """The entry point of the installed command."""
    # What a start makes stays: to look through it again and again for garbage would take a tenth of its time.
    gc.set_threshold(50_000, 20, 100)
    try:
        sys.exit(cli(standalone_mode=False))
    except typer.Abort:
        typer.echo("Interrupted.", err=True)
        sys.exit(130)
    except Exception as error:
        sys.exit(_wrong_use(error))


def _wrong_use(error: Exception) -> int:
    """Say in one line what was wrong with the command line; the code to end with. Raises what is no such error."""
    format_message = getattr(error, "format_message", None)  # the library's errors have no public class in common
    if format_message is None:
        raise error
    message: str = format_message().replace("Value error, ", "").removesuffix(".")
    if message:  # empty where it has printed the help
        typer.echo(f"Error: {message}.", err=True)
    return int(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
