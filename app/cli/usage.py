"""`usage`: what tenants, tokens and models used."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of


class Step(StrEnum):
    """How long the steps are."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class By(StrEnum):
    """Whose sums."""

    TENANT = "tenant"
    TOKEN = "token"  # noqa: S105
    MODEL = "model"


def usage(
    context: typer.Context,
    since: Annotated[datetime | None, typer.Option("--from", help="In local time; else 30 days ago.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="In local time; else now.")] = None,
    by: Annotated[By, typer.Option(help="Whose sums.")] = By.TENANT,
    step: Annotated[Step, typer.Option(help="How long the steps are that are added up.")] = Step.DAY,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Every step by itself, as CSV.")] = False,
) -> None:
    """Say what was used: requests, errors, items, tokens, seconds of engines, bytes in and out."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.usage_reports import export, range_of, report

        wanted = range_of(
            step.value,
            since.astimezone() if since else None,
            until.astimezone() if until else None,
            tenant=tenant,
        )
        async with ready_database(settings) as database, database.session() as session:
            if csv:
                async for line in export(session, wanted):
                    sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                return
            said = await report(session, step.value, wanted, by.value, limit=1000, points=False)
        typer.echo(f"{by.value}\trequests\terrors\titems\ttokens\tengine_seconds\tbytes_in\tbytes_out")
        for name, one in [*((group.name, group) for group in said.items), ("total", said.total)]:
            numbers = (one.requests, one.errors, one.items, one.tokens, round(one.engine_seconds, 3))
            typer.echo("\t".join(map(str, (name, *numbers, one.bytes_in, one.bytes_out))))

    run(work)
