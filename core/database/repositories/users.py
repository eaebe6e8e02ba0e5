"""People who administer the platform."""

from __future__ import annotations

from sqlalchemy import select

from core.database.repositories.base import Repository
from core.database.tables import User


class Users(Repository):
    """Queries about users."""

    async def get(self, user_id: int) -> User | None:
        """The user with that id."""
        return await self._session.get(User, user_id)

    async def by_name(self, name: str) -> User | None:
        """The user of that name, exactly as written."""
        return await self._session.scalar(select(User).where(User.name == name))

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[User], str | None]:
        """Users in the order of their names."""
        return await self._page(select(User), User.name, limit, cursor)

    async def any(self) -> bool:
        """Whether there is any user at all."""
        return await self._session.scalar(select(User.id).limit(1)) is not None

    async def add(self, name: str, password_hash: str, role: str) -> User:
        """Add a user. Raises Conflict where the name is taken."""
        user = User(name=name, password_hash=password_hash, role=role)
        await self._add(user, f"There is a user called {name} already.")
        return user

    async def delete(self, user: User) -> None:
        """Remove a user with all their sign-in sessions."""
        await self._session.delete(user)
        await self._session.flush()

    async def count_active_admins(self) -> int:
        """How many may still administer. Ask before taking that right from one: the rows stay locked until the
        transaction ends, so that two who remove each other cannot both find the other left.
        """
        admins = select(User.id).where(User.role == "admin", User.disabled.is_(False)).order_by(User.id)
        return len((await self._session.scalars(admins.with_for_update())).all())
