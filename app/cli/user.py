"""`user`: those who may sign in."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.context import ready_database, run, settings_of

app = typer.Typer(no_args_is_help=True, help="Users: who may sign in to the internal API.")


class RoleName(StrEnum):
    """What a user may do."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The user's name.")],
    role: Annotated[RoleName, typer.Option(help="What the user may do.")] = RoleName.VIEWER,
    password_stdin: PasswordStdin = False,
) -> None:
    """Add a user."""
    settings = settings_of(context)
    password = _password(password_stdin)

    async def work() -> None:
        from core.access.passwords import check_password, hash_password
        from core.control.actor import COMMAND_LINE
        from core.control.names import check_user_name
        from core.database.repositories.users import Users

        check_user_name(name)
        check_password(password)
        hashed = await hash_password(password)
        async with ready_database(settings) as database, database.transaction() as session:
            await Users(session).add(name, hashed, role.value)
            await COMMAND_LINE.note(session, "user.create", name, {"role": role.value})
        typer.echo(f"User {name} ({role.value}) was added.")

    run(work)


@app.command("password")
def set_password(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The user's name.")],
    password_stdin: PasswordStdin = False,
) -> None:
    """Set a user's password and end all sessions; the way back in when a password is lost."""
    settings = settings_of(context)
    password = _password(password_stdin)

    async def work() -> None:
        from core.access.passwords import hash_password
        from core.control.actor import COMMAND_LINE
        from core.database.repositories.sessions import Sessions
        from core.database.repositories.users import Users
        from core.errors import NotFound

        hashed = await hash_password(password)
        async with ready_database(settings) as database, database.transaction() as session:
            user = await Users(session).by_name(name)
            if user is None:
                raise NotFound(f"There is no user {name}.")
            user.password_hash = hashed
            await Sessions(session).revoke_all_for(user.id)
            await COMMAND_LINE.note(session, "user.password", name)
        typer.echo(f"The password of {name} was set.")

    run(work)


@app.command("list")
def list_users(context: typer.Context) -> None:
    """List the users."""
    settings = settings_of(context)

    async def work() -> None:
        from core.database.repositories.users import Users

        async with ready_database(settings) as database, database.session() as session:
            cursor: str | None = None
            while True:
                users, cursor = await Users(session).page(200, cursor)
                for user in users:
                    state = "disabled" if user.disabled else "active"
                    typer.echo(f"{user.name}\t{user.role}\t{state}")
                if cursor is None:
                    break

    run(work)
