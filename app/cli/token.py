"""`token`: access tokens of applications."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of

app = typer.Typer(no_args_is_help=True, help="Access tokens of applications.")


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What the token is for.")],
    models: Annotated[
        str | None, typer.Option(help="Models by name, `*` for any characters: `cats,ocr-*`.")
    ] = None,
    operations: Annotated[str | None, typer.Option(help="Of infer, list, stream, pipelines.")] = None,
    rate: Annotated[list[str] | None, typer.Option(help="As `100/second`; may be given several times.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    ip_allow: Annotated[str | None, typer.Option(help="Networks: `10.0.0.0/8,::1`.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, in local time.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose it is.")] = None,
) -> None:
    """Make a token and print its secret, this one time. What is left out does not restrict."""
    settings = settings_of(context)
    fields = {
        "name": name,
        "models": _list(models),
        "operations": _list(operations),
        "rate": rate or None,
        "max_concurrency": max_concurrency,
        "ip_allow": _list(ip_allow),
        "expires_at": expires.astimezone() if expires else None,
        "tenant": tenant,
    }

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.token_changes import create_token

        async with ready_database(settings) as database, database.transaction() as session:
            _, secret = await create_token(session, fields, COMMAND_LINE)
        typer.echo(secret)

    run(work)


@app.command("revoke")
def revoke(context: typer.Context, token_id: Annotated[int, typer.Argument(help="Its id, as listed.")]) -> None:
    """Revoke a token for good; running servers notice within a second."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.token_changes import revoke_token

        async with ready_database(settings) as database, database.transaction() as session:
            token = await revoke_token(session, token_id, COMMAND_LINE)
            typer.echo(f"Token {token.name} is revoked.")

    run(work)


@app.command("list")
def list_tokens(context: typer.Context) -> None:
    """List tokens, newest first; never their secrets."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.tokens import Tokens

        async with ready_database(settings) as database, database.session() as session:
            cursor: str | None = None
            while True:
                tokens, cursor = await Tokens(session).page(200, cursor)
                for token in tokens:
                    state = "revoked" if token.revoked_at else "active"
                    models = ",".join(token.models) if token.models else "all models"
                    typer.echo(f"{token.id}\t{token.prefix}…\t{state}\t{token.name}\t{models}")
                if cursor is None:
                    break

    run(work)
