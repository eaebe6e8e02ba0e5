"""`token`: access tokens of applications."""

from __future__ import annotations

from datetime import datetime, timedelta
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
    burst: Annotated[int | None, typer.Option(min=1, help="Let in at once, of the shortest rate.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="As `10000 requests/day`; several times.")] = None,
    ip_allow: Annotated[str | None, typer.Option(help="Networks: `10.0.0.0/8,::1`.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, in local time.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose it is; `default` where left out.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=9, help="Of requests that name none; 0 goes first.")
    ] = None,
) -> None:
    """Make a token and print its secret, this one time. What is left out does not restrict."""
    settings = settings_of(context)
    fields = {
        "name": name,
        "models": _list(models),
        "operations": _list(operations),
        "rate": rate or None,
        "burst": burst,
        "max_concurrency": max_concurrency,
        "budgets": budget or None,
        "ip_allow": _list(ip_allow),
        "expires_at": expires.astimezone() if expires else None,
        "tenant": tenant,
        "priority": priority,
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


@app.command("rotate")
def rotate(
    context: typer.Context,
    token_id: Annotated[int, typer.Argument(help="Its id, as listed.")],
    grace_s: Annotated[int, typer.Option(min=0, help="Seconds for which the old secret still holds.")] = 0,
) -> None:
    """Give a token a new secret and print it, this one time."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.token_changes import rotate_token

        async with ready_database(settings) as database, database.transaction() as session:
            _, secret = await rotate_token(session, token_id, COMMAND_LINE, grace_s=grace_s)
        typer.echo(secret)

    run(work)


@app.command("expiring")
def expiring(
    context: typer.Context,
    within_days: Annotated[int | None, typer.Option(min=1, max=3660, help="Else as the log reminds.")] = None,
) -> None:
    """List the tokens that end soon, the next first: id, when, tenant, name."""
    settings = settings_of(context)
    days = within_days or settings.access.expiry_reminder_days

    async def work() -> None:
        from core.database.repositories.tokens import Tokens
        from core.database.tables import utc_now

        async with ready_database(settings) as database, database.session() as session:
            tokens, count = await Tokens(session).expiring(utc_now() + timedelta(days=days), 1000)
        for token in tokens:
            ends = token.expires_at.isoformat(timespec="seconds") if token.expires_at else ""
            typer.echo(f"{token.id}\t{ends}\t{token.tenant}\t{token.name}")
        if count > len(tokens):
            typer.echo(f"… and {count - len(tokens)} more")

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
