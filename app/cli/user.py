"""`user`: those who may sign in."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.context import ready_database, run, settings_of
from core.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Users: who may sign in to the internal API.")


class RoleName(StrEnum):
    """What a user may do."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


Name = Annotated[str, typer.Argument(help="The user's name.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
MustChange = Annotated[bool, typer.Option("--must-change", help="Ask for another one at the next sign-in.")]


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


@asynccontextmanager
async def _transaction(settings: Settings) -> AsyncIterator[Any]:
    async with ready_database(settings) as database, database.transaction() as session:
        yield session


@app.command("create")
def create(
    context: typer.Context,
    name: Name,
    role: Annotated[RoleName, typer.Option(help="What the user may do.")] = RoleName.VIEWER,
    password_stdin: PasswordStdin = False,
    must_change: MustChange = False,
) -> None:
    """Add a user."""
    settings = settings_of(context)
    password = _password(password_stdin)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.names import check_user_name
        from core.control.user_changes import add_user, hashed_password

        check_user_name(name)
        hashed = await hashed_password(password, name)
        async with _transaction(settings) as session:
            await add_user(session, name, hashed, role.value, COMMAND_LINE, must_change=must_change)
        typer.echo(f"User {name} ({role.value}) was added.")

    run(work)


@app.command("password")
def set_password(
    context: typer.Context, name: Name, password_stdin: PasswordStdin = False, must_change: MustChange = False
) -> None:
    """Set a user's password and end all sessions; the way back in when a password is lost."""
    settings = settings_of(context)
    password = _password(password_stdin)

    async def work() -> None:
        from core.control.user_changes import hashed_password

        hashed = await hashed_password(password, name)
        await _change(settings, name, {"must_change_password": must_change}, hashed)
        typer.echo(f"The password of {name} was set.")

    run(work)


@app.command("role")
def set_role(
    context: typer.Context,
    name: Name,
    role: Annotated[RoleName, typer.Argument(help="What the user may do from now on.")],
) -> None:
    """Give a user another role, at once; the last administrator keeps theirs."""
    settings = settings_of(context)

    async def work() -> None:
        await _change(settings, name, {"role": role.value})
        typer.echo(f"{name} is {role.value} now.")

    run(work)


@app.command("disable")
def disable(context: typer.Context, name: Name) -> None:
    """Let a user sign in no more and end all sessions; the last administrator stays."""
    settings = settings_of(context)

    async def work() -> None:
        await _change(settings, name, {"disabled": True})
        typer.echo(f"{name} is disabled.")

    run(work)


@app.command("enable")
def enable(context: typer.Context, name: Name) -> None:
    """Let a disabled user sign in again."""
    settings = settings_of(context)

    async def work() -> None:
        await _change(settings, name, {"disabled": False})
        typer.echo(f"{name} may sign in again.")

    run(work)


@app.command("remove")
def remove(context: typer.Context, name: Name) -> None:
    """Remove a user with all sessions; the last administrator stays."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.user_changes import remove_user

        async with _transaction(settings) as session:
            await remove_user(session, name, COMMAND_LINE)
        typer.echo(f"{name} was removed.")

    run(work)


@app.command("reset-totp")
def reset_totp(context: typer.Context, name: Name) -> None:
    """Ask a user for no second factor any more, as when the app is lost; ends all sessions."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.user_changes import reset_second_factor

        async with _transaction(settings) as session:
            await reset_second_factor(session, name, COMMAND_LINE)
        typer.echo(f"{name} is asked for no second factor any more.")

    run(work)


@app.command("sessions")
def sessions(
    context: typer.Context,
    name: Name,
    end: Annotated[bool, typer.Option("--end", help="End all of them.")] = False,
) -> None:
    """List where a user is signed in: since when, used last, address, program."""
    settings = settings_of(context)

    async def work() -> None:
        from core.control.actor import COMMAND_LINE
        from core.control.user_changes import end_sessions, find_user
        from core.database.repositories.sessions import Sessions
        from core.database.tables import utc_now

        async with _transaction(settings) as session:
            if end:
                typer.echo(f"{await end_sessions(session, name, COMMAND_LINE)} sessions of {name} ended.")
                return
            user = await find_user(session, name)
            for row in await Sessions(session).live_of(user.id, utc_now()):
                times = f"{row.created_at:%Y-%m-%d %H:%M}\t{row.last_used_at:%Y-%m-%d %H:%M}"
                typer.echo(f"{times}\t{row.address}\t{row.user_agent}")

    run(work)


@app.command("list")
def list_users(context: typer.Context) -> None:
    """List the users: name, role, active or disabled, and how they sign in."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.users import Users

        async with ready_database(settings) as database, database.session() as session:
            cursor: str | None = None
            while True:
                users, cursor = await Users(session).page(200, cursor)
                for user in users:
                    state = "disabled" if user.disabled else "active"
                    typer.echo(f"{user.name}\t{user.role}\t{state}\t{_way_in(user)}")
                if cursor is None:
                    break

    run(work)


def _way_in(user: Any) -> str:
    way = "password and second factor" if user.totp_since else "password"
    return f"{way}, to be changed" if user.must_change_password else way


async def _change(
    settings: Settings, name: str, changes: dict[str, Any], password_hash: str | None = None
) -> None:
    from core.control.actor import COMMAND_LINE
    from core.control.user_changes import change_user

    async with _transaction(settings) as session:
        await change_user(session, name, changes, COMMAND_LINE, password_hash=password_hash)
