"""`tenant`: who owns access tokens, and who may call what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli.context import ready_database, run, settings_of
from core.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Who owns access tokens, and who may call what.")

Name = Annotated[str, typer.Argument(help="The tenant's name.")]
Rate = Annotated[list[str] | None, typer.Option(help="As `100/second`; may be given several times.")]
Burst = Annotated[int | None, typer.Option(min=1, help="Let in at once, of the shortest rate.")]
Places = Annotated[int | None, typer.Option(min=1, help="Requests at once.")]
Budget = Annotated[list[str] | None, typer.Option(help="As `10000 requests/day`; several times.")]


@app.command("create")
def create(
    context: typer.Context,
    name: Name,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    rate: Rate = None,
    burst: Burst = None,
    max_concurrency: Places = None,
    budget: Budget = None,
) -> None:
    """Make a tenant. What is left out does not restrict."""
    settings = settings_of(context)
    fields = {"note": note, **_limits(rate, burst, max_concurrency, budget)}

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.tenant_changes import create_tenant

        async with ready_database(settings) as database, database.transaction() as session:
            tenant = await create_tenant(session, name, fields, COMMAND_LINE)
        typer.echo(f"Tenant {tenant.id}: {tenant.name}.")

    run(work)


@app.command("list")
def list_tenants(context: typer.Context) -> None:
    """List the tenants: id, `active` or `disabled`, name, note."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.tenants import Tenants

        async with ready_database(settings) as database, database.session() as session:
            for tenant in await Tenants(session).all():
                state = "disabled" if tenant.disabled else "active"
                typer.echo(f"{tenant.id}\t{state}\t{tenant.name}\t{tenant.note}")

    run(work)


@app.command("change")
def change(
    context: typer.Context,
    name: Name,
    note: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    rate: Rate = None,
    burst: Burst = None,
    max_concurrency: Places = None,
    budget: Budget = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Lift all limits that are not named.")] = False,
) -> None:
    """Change what is named of a tenant; running servers follow within a second."""
    changes = _limits(rate, burst, max_concurrency, budget)
    if not unlimited:
        changes = {field: value for field, value in changes.items() if value is not None}
    if note is not None:
        changes["note"] = note
    _change(settings_of(context), name, changes, "was changed")


@app.command("disable")
def disable(context: typer.Context, name: Name) -> None:
    """Refuse all of a tenant's tokens; running servers follow within a second."""
    _change(settings_of(context), name, {"disabled": True}, "is disabled")


@app.command("enable")
def enable(context: typer.Context, name: Name) -> None:
    """Let a tenant's tokens in again."""
    _change(settings_of(context), name, {"disabled": False}, "is enabled")


@app.command("delete")
def delete(context: typer.Context, name: Name) -> None:
    """Remove a tenant that owns no tokens."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.tenant_changes import delete_tenant, tenant_called

        async with ready_database(settings) as database, database.transaction() as session:
            await delete_tenant(session, await tenant_called(session, name), COMMAND_LINE)
        typer.echo(f"Tenant {name} was removed.")

    run(work)


@app.command("share")
def share(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model or a pipeline.")],
    tenants: Annotated[str, typer.Argument(help="By name: `red,blue`; `all` for everybody, `none` for nobody.")],
) -> None:
    """Let these tenants see and call a model or pipeline, and no others."""
    settings = settings_of(context)
    names = {"all": None, "none": []}.get(tenants, [name.strip() for name in tenants.split(",") if name.strip()])

    async def work() -> None:
        from core.control import tenant_changes
        from core.control.actor import COMMAND_LINE

        async with ready_database(settings) as database, database.transaction() as session:
            row = await tenant_changes.share(session, model, names, COMMAND_LINE)
        who = "all tenants" if row.tenants is None else ", ".join(row.tenants) or "nobody"
        typer.echo(f"{model} is shared with {who}.")

    run(work)


def _limits(
    rate: list[str] | None, burst: int | None, max_concurrency: int | None, budget: list[str] | None
) -> dict[str, Any]:
    return {"rate": rate or None, "burst": burst, "max_concurrency": max_concurrency, "budgets": budget or None}


def _change(settings: Settings, name: str, changes: Mapping[str, Any], done: str) -> None:
    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.tenant_changes import change_tenant, tenant_called

        async with ready_database(settings) as database, database.transaction() as session:
            await change_tenant(session, await tenant_called(session, name), changes, COMMAND_LINE)
        typer.echo(f"Tenant {name} {done}.")

    run(work)
