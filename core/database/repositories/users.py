"""People who administer the platform."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, func, select, update

from core.database.repositories.base import Repository
from core.database.repositories.results import affected
from core.database.tables import RecoveryCode, User


class Users(Repository):
    """Queries about users."""

    async def get(self, user_id: int) -> User | None:
        """The user with that id."""
        return await self._session.get(User, user_id)

    async def by_name(self, name: str) -> User | None:
        """The user of that name, exactly as written."""
        return await self._session.scalar(select(User).where(User.name == name))

    async def by_subject(self, subject: str) -> User | None:
        """The user whom an OpenID provider calls so; see core.access.oidc.identity."""
        return await self._session.scalar(select(User).where(User.oidc_subject == subject))

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[User], str | None]:
        """Users in the order of their names."""
        return await self._page(select(User), User.name, limit, cursor)

    async def is_last_admin(self, user_id: int) -> bool:
        """Whether nobody but this user may administer. Ask before taking that right from one, and read the user
        after: the rows stay locked, so that two who remove each other cannot both find the other left.
        """
        return list(await self._lock_admins()) == [user_id]

    async def any(self) -> bool:
        """Whether there is any user at all."""
        return await self._session.scalar(select(User.id).limit(1)) is not None

    async def add(
        self,
        name: str,
        password_hash: str,
        role: str,
        *,
        must_change_password: bool = False,
    ) -> User:
        """Add a user. Raises Conflict where the name is taken."""
        user = User(
            name=name,
            password_hash=password_hash,
            role=role,
            must_change_password=must_change_password,
        )
        await self._add(user, f"There is a user called {name} already.")
        return user

    async def delete(self, user: User) -> None:
        """Remove a user with all their sign-in sessions."""
        await self._session.delete(user)
        await self._session.flush()

    async def count_active_admins(self) -> int:
        """How many may administer."""
        return len(await self._lock_admins())

    async def _lock_admins(self) -> Sequence[int]:
        admins = select(User.id).where(User.role == "admin", User.disabled.is_(False)).order_by(User.id)
        return (await self._session.scalars(admins.with_for_update())).all()

    async def take_step(self, user_id: int, step: int) -> bool:
        """Note a code's step of time as used; False where it, or a later one, was used already."""
        change = update(User).where(User.id == user_id, User.totp_last_step < step)
        return affected(await self._session.execute(change.values(totp_last_step=step))) == 1

    async def take_recovery_code(self, user_id: int, hashed: bytes) -> bool:
        """Use a recovery code up; False where there is no such code (any more)."""
        used = delete(RecoveryCode).where(RecoveryCode.user_id == user_id, RecoveryCode.hash == hashed)
        return affected(await self._session.execute(used)) == 1

    async def set_recovery_codes(self, user_id: int, hashes: Iterable[bytes]) -> None:
        """Put these in the place of those that are left."""
        await self._session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        self._session.add_all([RecoveryCode(user_id=user_id, hash=hashed) for hashed in hashes])
        await self._session.flush()

    async def count_recovery_codes(self, user_id: int) -> int:
        """How many are left."""
        query = select(func.count()).select_from(RecoveryCode).where(RecoveryCode.user_id == user_id)
        return int(await self._session.scalar(query) or 0)

    async def drop_second_factor(self, user: User) -> bool:
        """Ask this user for no code any more; False where none was asked for."""
        had = user.totp_since is not None
        user.totp_sealed = user.totp_since = None
        await self.set_recovery_codes(user.id, ())
        return had
