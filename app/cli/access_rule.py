"""`access-rule`: which addresses may use which API."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of

app = typer.Typer(no_args_is_help=True, help="Which addresses may use which API.")

ASKING = "127.0.0.1"
"""Who works on this machine is taken to come from it."""


class Action(StrEnum):
    """What becomes of an address in the network."""

    ALLOW = "allow"
    DENY = "deny"


class Api(StrEnum):
    """Which API."""

    INTERNAL = "internal"
    EXTERNAL = "external"


ApiOption = Annotated[Api, typer.Option(help="For the internal API, or the external one.")]
Force = Annotated[bool, typer.Option("--force", help="Even where this machine is locked out.")]


@app.command("add")
def add(
    context: typer.Context,
    action: Annotated[Action, typer.Argument(help="allow or deny.")],
    network: Annotated[str, typer.Argument(help="As 10.0.0.0/8 or 2001:db8::1.")],
    scope: ApiOption,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    force: Force = False,
) -> None:
    """Add a rule; running servers follow within a second. Deny goes before allow."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.rule_changes import add_rule

        async with ready_database(settings) as database, database.transaction() as session:
            rule = await add_rule(
                session, network, action.value, scope.value, note[:200], COMMAND_LINE, asking=ASKING, force=force
            )
            typer.echo(f"Rule {rule.id}: {rule.action} {rule.cidr} to the {rule.scope} API.")

    run(work)


@app.command("remove")
def remove(
    context: typer.Context,
    rule_id: Annotated[int, typer.Argument(help="Its id, as listed.")],
    force: Force = False,
) -> None:
    """Remove a rule."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.rule_changes import remove_rule

        async with ready_database(settings) as database, database.transaction() as session:
            rule = await remove_rule(session, rule_id, COMMAND_LINE, asking=ASKING, force=force)
            typer.echo(f"Rule {rule.id} ({rule.action} {rule.cidr}, {rule.scope}) was removed.")

    run(work)


@app.command("list")
def list_rules(context: typer.Context) -> None:
    """List the rules: id, API, action, network, note."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.access_rules import AccessRules

        async with ready_database(settings) as database, database.session() as session:
            for rule in await AccessRules(session).all():
                typer.echo(f"{rule.id}\t{rule.scope}\t{rule.action}\t{rule.cidr}\t{rule.note}")

    run(work)


@app.command("check")
def check(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="As 10.0.0.7.")],
    scope: ApiOption,
) -> None:
    """Say whether an address would pass; the exit code is 1 where it would not."""
    settings = settings_of(context)

    async def work() -> bool:
        from core.control.rule_changes import would_pass

        async with ready_database(settings) as database, database.session() as session:
            verdict = await would_pass(session, address, scope.value)
        by = f"by rule {verdict.rule_id}" if verdict.rule_id else "by no rule of its own"
        typer.echo(f"{address} {'passes' if verdict.allowed else 'is refused'}, {by}.")
        return verdict.allowed

    if not run(work):
        raise typer.Exit(1)
